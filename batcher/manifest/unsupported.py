"""Formats that are not read: their names, and how to convert them into one that is."""

from __future__ import annotations

import shlex
from typing import Final

from batcher.errors import ManifestError

_PANDOC: Final = "pandoc -t plain --wrap=none {file} -o lines.txt"
_SOFFICE: Final = "soffice --headless --convert-to {to} {file}"
_KNOWN: Final = {
    ".xlf": ("XLIFF", "xliff2po {file} lines.po"),
    ".xliff": ("XLIFF", "xliff2po {file} lines.po"),
    ".resx": (".NET resources", "resx2po {file} lines.po"),
    ".properties": ("Java properties", "prop2po {file} lines.po"),
    ".strings": ("Apple strings", "plutil -convert json -o lines.json {file}"),
    ".xcstrings": (
        "an Xcode string catalog",
        "jq '.strings | map_values(.localizations.en.stringUnit.value)' {file} > lines.json",
    ),
    ".rpy": ("a Ren'Py script", "in the launcher, Extract Dialogue writes dialogue.tab"),
    ".yarn": ("a Yarn script", "ysc extract {file} -o lines.csv"),
    ".yaml": ("YAML", "yq -o=json . {file} > lines.json"),
    ".yml": ("YAML", "yq -o=json . {file} > lines.json"),
    ".toml": ("TOML", "yq -p toml -o=json . {file} > lines.json"),
    ".xml": ("XML", "yq -p xml -o=json . {file} > lines.json, with --column text=PATH"),
    ".docx": ("a Word document", _PANDOC),
    ".odt": ("an OpenDocument text", _PANDOC),
    ".rtf": ("RTF", _PANDOC),
    ".html": ("HTML", _PANDOC),
    ".htm": ("HTML", _PANDOC),
    ".rst": ("reStructuredText", _PANDOC),
    ".adoc": ("AsciiDoc", "asciidoctor -b docbook -o - {file} | pandoc -f docbook -t plain --wrap=none -o lines.txt"),
    ".org": ("Org", _PANDOC),
    ".tex": ("LaTeX", _PANDOC),
    ".epub": ("EPUB", _PANDOC),
    ".doc": ("a Word document", _SOFFICE.replace("{to}", "txt:Text")),
    ".pdf": ("PDF", "pdftotext {file} lines.txt"),
    ".ass": ("ASS subtitles", "ffmpeg -i {file} lines.srt"),
    ".lrc": ("LRC lyrics", "ffmpeg -i {file} lines.srt"),
    ".ssa": ("SSA subtitles", "ffmpeg -i {file} lines.srt"),
    ".numbers": ("a Numbers workbook", "export it from Numbers as CSV or Excel"),
    ".xlsb": ("a binary Excel workbook", _SOFFICE.replace("{to}", "xlsx")),
    ".xlw": ("a workbook of Excel 4 or older", _SOFFICE.replace("{to}", "xlsx")),
    ".fods": ("a flat OpenDocument spreadsheet", _SOFFICE.replace("{to}", "ods")),
    ".parquet": (
        "Parquet",
        "python -c \"import pandas, sys; pandas.read_parquet(sys.argv[1]).to_csv('lines.csv', index=False)\" {file}",
    ),
    ".sqlite": ("an SQLite database", "sqlite3 -header -csv {file} 'SELECT * FROM lines' > lines.csv"),
}
_BEGINNINGS: Final = {
    b"%PDF-": ".pdf",
    b"{\\rtf": ".rtf",
    b"PAR1": ".parquet",
    b"SQLite format 3\0": ".sqlite",
    b"\x09\0\4\0": ".xlw",
    b"\x09\2\6\0": ".xlw",
    b"\x09\4\6\0": ".xlw",
}


def refuse_unsupported(name: str, ending: str, head: bytes) -> None:
    """Refuse a manifest whose format is known by its ending or its first bytes, and is not read.

    Raises:
        ManifestError: the format is not supported. The hint has the command that converts it.
    """
    begins = (kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning))
    found = _KNOWN.get(next(begins, ending))
    if found is None:
        return
    kind, conversion = found
    message = f"{name}: {kind} cannot be read"
    raise ManifestError(message, [message], f"Convert it first: {conversion.replace('{file}', shlex.quote(name))}")
