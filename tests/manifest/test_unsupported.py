"""Formats that are not read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from batcher.errors import ManifestError
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules


def office() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w/>")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind", "command"),
    [
        ("my lines.xlf", b"<xliff/>", "XLIFF", "xliff2po '{path}' lines.po"),
        ("m.docx", office(), "a Word document", "pandoc -t plain"),
        ("m.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Word document", "soffice --headless --convert-to txt:Text"),
        ("m.pdf", b"%PDF-1.7\n", "PDF", "pdftotext "),
        ("m", b"%PDF-1.7\n", "PDF", "pdftotext "),
        ("m.txt", b"{\\rtf1 Hello.}", "RTF", "pandoc "),
        ("m.yml", b"a: b\n", "YAML", "yq "),
        ("m.html", b"<p>Hello.</p>", "HTML", "pandoc "),
    ],
)
def test_a_format_that_is_not_read_is_named_with_its_conversion(
    tmp_path: Path, name: str, content: bytes, kind: str, command: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ManifestError) as refused:
        list(Manifest(path, Rules(batch="m", voice="anna")).rows())
    assert refused.value.message == f"{path}: {kind} cannot be read"
    assert refused.value.hint.startswith(f"Convert it first: {command}".replace("{path}", str(path)))
