"""Outputs of staged rows whose names are one name on some systems, or are not accepted by some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from sqlalchemy import Connection

from batcher.formatting import counted
from batcher.ledger.storage.sqlite import add_function
from batcher.ledger.storage.statements import execute
from batcher.manifest.confusable import differ_by_case, folded, is_reserved_on_windows
from batcher.manifest.faults import literal, printable

_EXAMPLES: Final = 3
_CHUNK: Final = 500
_NOT_ASCII: Final = """
    SELECT output FROM staged WHERE output GLOB '*[^ -~]*'
    UNION SELECT output FROM rows WHERE output GLOB '*[^ -~]*' AND EXISTS (SELECT 1 FROM staged)"""
_KNOWN: Final = "batcher.lookalikes"
"""Marks a connection that knows the functions."""
_TABLE: Final = (
    "DROP TABLE IF EXISTS temp.lookalikes",
    # Most names are in the folded form already, and need no second look unless another name has that form.
    """CREATE TEMP TABLE lookalikes AS SELECT folded(output) AS form, number, line, output FROM staged
    WHERE skipped IS NULL AND folded(output) <> output""",
    """INSERT INTO lookalikes SELECT output, number, line, output FROM staged
    WHERE skipped IS NULL AND output IN (SELECT form FROM lookalikes) AND folded(output) = output""",
    "CREATE INDEX temp.lookalikes_form ON lookalikes (form)",
)
_PAIRS: Final = """
    WITH first AS (
        SELECT form, min(number) AS number FROM lookalikes GROUP BY form HAVING min(output) <> max(output))
    SELECT other.number, other.line, other.output, one.output AS first_output, one.line AS first_line
    FROM first JOIN lookalikes AS one USING (form, number)
    JOIN lookalikes AS other ON other.form = first.form AND other.output <> one.output ORDER BY other.number"""
_FORMS: Final = (
    "DROP TABLE IF EXISTS temp.staged_forms",
    "CREATE TEMP TABLE staged_forms AS SELECT folded(output) AS form, number FROM staged WHERE skipped IS NULL",
    "CREATE INDEX temp.staged_forms_form ON staged_forms (form)",
)
FORM: Final = "iif({0} GLOB '*[^ -~]*', folded({0}), lower({0}))"
"""SQL for the folded form of a name of another row; of all of these that are read, few need more than `lower`."""
_ELSEWHERE: Final = f"""
    SELECT staged.number, staged.line, staged.output, other.output AS first_output
    FROM ({{outputs}}) AS other JOIN staged_forms ON staged_forms.form = {FORM.format("other.output")}
    JOIN staged ON staged.number = staged_forms.number WHERE staged.output <> other.output
    ORDER BY staged.number, other.output"""  # noqa: S608
_RESERVED: Final = "SELECT output, line FROM staged WHERE skipped IS NULL AND reserved(output) ORDER BY number"


class Lookalike(NamedTuple):
    """An output, and one of an earlier row, or of another batch, whose name looks the same. `owner` is which."""

    number: int
    line: int
    output: str
    first_output: str
    owner: str

    @property
    def by_case(self) -> bool:
        """Whether they differ only by case, which is seen and on some systems enough."""
        return differ_by_case(self.output, self.first_output)

    def __str__(self) -> str:
        return f"{literal(self.output)} and {literal(self.first_output)} of {self.owner}"


def add_functions(conn: Connection) -> None:
    """Make `folded(NAME)` and `reserved(PATH)` known to SQL on this connection, for names in the ledger and staged."""
    if conn.dialect.name == "postgresql":
        _list_folded(conn)
        return
    if _KNOWN in conn.info:  # SQLite replaces no function while a statement is open
        return
    for name, function in (("folded", folded), ("reserved", is_reserved_on_windows)):
        add_function(conn, name, function)
    conn.info[_KNOWN] = True


def _list_folded(conn: Connection) -> None:
    """Store the folded form of each name that is not ASCII, for a database that cannot call Python."""
    execute(conn, "DROP TABLE IF EXISTS temp.folded_names")
    execute(conn, "CREATE TEMP TABLE folded_names (name text PRIMARY KEY, form text NOT NULL)")
    with closing(execute(conn, _NOT_ASCII, stream_results=True)) as names:
        for part in names.partitions(_CHUNK):
            execute(conn, "INSERT INTO folded_names VALUES (?, ?)", [(name, folded(name)) for (name,) in part])


def lookalikes(conn: Connection) -> Iterator[Lookalike]:
    """The staged outputs that look like the output of an earlier row; exact repeats are not among them."""
    for statement in _TABLE:
        execute(conn, statement)
    return _pairs(conn)


def _pairs(conn: Connection) -> Iterator[Lookalike]:
    found = execute(conn, _PAIRS).all()
    return (Lookalike(row[0], row[1], row[2], row[3], f"line {row.first_line}") for row in found)


def lookalikes_elsewhere(conn: Connection, outputs: Mapping[str, str]) -> list[Lookalike]:
    """The staged outputs that look like one of another batch in the same folder; equal ones are not among them.

    `outputs` has, by the name of each such batch, a SELECT of its outputs. All of them are read, unless nothing is
    staged.
    """
    if not outputs or not execute(conn, "SELECT EXISTS (SELECT 1 FROM staged WHERE skipped IS NULL)").scalar():
        return []
    for statement in _FORMS:
        execute(conn, statement)
    return [
        Lookalike(row[0], row[1], row[2], row[3], f"batch {printable(batch)}")
        for batch, query in outputs.items()
        for row in execute(conn, _ELSEWHERE.format(outputs=query))
    ]


def name_hints(conn: Connection, outputs: Mapping[str, str]) -> list[str]:
    """What to know about names that are used as they are, for people; after `lookalikes` has found pairs.

    `outputs`: see `lookalikes_elsewhere`.
    """
    elsewhere = lookalikes_elsewhere(conn, outputs)
    pairs = [*_pairs(conn), *elsewhere]
    hints = []
    if by_case := [one for one in pairs if one.by_case]:
        hints.append(f"names that differ only by case are one file on Windows and macOS: {_shown(by_case)}")
    if alike := [one for one in elsewhere if not one.by_case]:
        hints.append(f"names that look the same are in the same folder: {_shown(alike)}")
    reserved = execute(conn, _RESERVED).all()
    if reserved:
        shown = ", ".join(f"{literal(row.output)} in line {row.line}" for row in reserved[:_EXAMPLES])
        more = ", …" * (len(reserved) > _EXAMPLES)
        hints.append(f"Windows does not accept the names of {counted(len(reserved), 'output')}: {shown}{more}")
    return hints


def _shown(pairs: Sequence[Lookalike]) -> str:
    return "; ".join(map(str, pairs[:_EXAMPLES])) + "; …" * (len(pairs) > _EXAMPLES)
