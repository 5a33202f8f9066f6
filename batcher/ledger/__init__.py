"""The ledger: what was asked, what was paid, what came back. The only part of the package that speaks SQL.

In reading order: `schema` the tables, `database` their file, `lock` who may write it, `ledger` how verbs share commits,
`machine` the one place that moves an item. The verbs: `importing` and `changes` take a manifest in, `running` notes the
run, `creating`, `halting` and `collecting` follow an item, `deciding` is a person's word, `reading` and `pricing` only
look, `auditing` knows what should lie on disk, `consistency` looks for contradictions. `records` are the values that go
in and out, `spill` is where an answer goes when the database refuses it.
"""
