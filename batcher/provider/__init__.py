"""How to use FishSpeech over HTTP: its paths, fields and status words, and what each answer means.

The wire format has two more owners: `item.Inputs.body`, since an item's key hashes the request body, and
`manifest.columns`, which lists the API's names of parameters.
"""
