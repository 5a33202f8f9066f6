"""Standard streams that are closed, full, in another encoding, or attacked through what is printed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.cli import streams
from batcher.cli.screen import Screen
from batcher.formatting import ESCAPE_UNENCODABLE, escape
from tests.conftest import Project


def _shell(project: Project, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell, in which `$BATCHER` is the program and `$API` the provider's option."""
    found = project.environment | {
        "BATCHER": f"{sys.executable} -m batcher",
        "API": f"--api-url {project.provider.url}",
    }
    return subprocess.run(
        ["sh", "-c", line], cwd=project.folder, env=found | environment, capture_output=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_run_does_its_work_with_closed_or_full_streams(project: Project, closed: str) -> None:
    project.manifest(2)
    assert _shell(project, f"$BATCHER run lines.csv $API {closed}").returncode == 0
    project.assert_whole(project.rows(2))


@pytest.mark.slow
def test_json_and_tables_are_exact_in_every_locale(project: Project) -> None:
    """JSON by escapes, which are valid in it; tables in UTF-8."""
    row = {"id": "zeile-話-😀", "text": "Grüße.", "voice": "anna"}
    manifest = project.manifest([row])
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    ended = _shell(project, f"$BATCHER run {manifest} $API --json && $BATCHER show --json", **latin)
    assert ended.returncode == 0
    report, shown = (json.loads(line) for line in ended.stdout.decode("latin-1").splitlines())
    assert (report["exit_code"], shown["items"][0]["rows"][0]["id"]) == (0, row["id"])
    plain = _shell(project, "$BATCHER show && $BATCHER status", **latin)
    assert (plain.returncode, b"zeile-\\u8a71-\\ud83d\\ude00" in plain.stdout) == (0, True)
    table = _shell(project, "$BATCHER report --format csv", **latin)
    assert (table.returncode, row["id"].encode() in table.stdout) == (0, True)


_ATTACK = "\x1b]0;owned\x07 \x9b2J\u202elru\u2066"
_RAW = re.compile("[\x07\x1b\x9b\u202e\u2066\x85]")


def test_nothing_from_outside_controls_the_terminal(project: Project) -> None:
    header = f"note{_ATTACK}"
    project.manifest([row | {header: "x"} for row in project.rows(1)])
    ended = [project.batcher("plan", "lines.csv"), project.run("lines.csv"), project.batcher("show", "r1")]
    project.manifest([row | {header: "x", "id": f"a{_ATTACK}"} for row in project.rows(1)])
    ended.append(project.run("lines.csv"))
    assert [one.exit_code for one in ended] == [0, 0, 0, 2]
    for one in ended:
        assert not _RAW.search(one.out + one.err)
    assert "note\\x1b]0;owned" in ended[0].out


def test_colours_and_progress_pass_and_other_sequences_do_not() -> None:
    found = io.BytesIO()
    output = streams._Output(found, encoding="utf-8", errors=ESCAPE_UNENCODABLE, newline="")
    output.write("\x1b[31mred\x1b[0m\t50 %\r\n\x1b[8mhidden \x1b]8;;http://x\x07 \u200f \udcff")
    output.flush()
    assert found.getvalue().decode() == (
        "\x1b[31mred\x1b[0m\t50 %\r\n\\u001b[8mhidden \\u001b]8;;http://x\\u0007 \\u200f \\udcff"
    )


def test_escapes_are_those_of_json() -> None:
    text = "\x07é話😀\udcff"
    assert json.loads(f'"{escape(text)}"') == text
    assert "話😀".encode("latin-1", ESCAPE_UNENCODABLE) == b"\\u8a71\\ud83d\\ude00"


def test_progress_needs_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress = Screen()
    progress.warn("nobody reads this")
    progress.close()


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    """Else the ledger would get what is meant for standard error."""
    code = (
        "import os, sys; from batcher.cli import streams; streams.prepare(); "
        f"file = os.open({str(tmp_path / 'ledger')!r}, os.O_CREAT | os.O_WRONLY); "
        "print('x', file=sys.stderr, flush=True); os._exit(0 if file > 2 else 1)"
    )
    assert subprocess.run(["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], check=False).returncode == 0
    assert (tmp_path / "ledger").read_bytes() == b""
    assert os.fstat(2)


@pytest.mark.parametrize(
    ("encoding", "used"), [("ascii", "utf-8"), ("idna", "utf-8"), ("undefined", "utf-8"), ("latin-1", "latin-1")]
)
def test_an_encoding_that_cannot_take_escapes_is_not_used(encoding: str, used: str) -> None:
    assert streams._is_usable(encoding) == (encoding == used)
