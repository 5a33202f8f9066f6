"""That the provider is FishSpeech over HTTP: its paths, fields and status words, and what each answer means.

The wire format has two more owners: `item.Inputs.body`, since an item's key hashes what is sent, and
`manifest.columns`, which knows the names that the API gives its parameters.
"""
