"""Makes the README's picture of the report from the sample inputs: `python -m tests.report_image`.

Needs the `sandbox` extra and a Chromium on PATH. The sandbox fails some tasks, and the seed one of the first rows,
so that the picture shows a reason too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from batcher.sandbox.host import running
from batcher.sandbox.options import SandboxOptions

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = ROOT / ".github" / "images" / "report.png"
SIZE: Final = "1200,860"
"""Width and height of the browser's window, in pixels."""
CHROMIUM: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", f"--window-size={SIZE}"),
)


def main() -> None:
    """Run the sample, make the report, and take its picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium on PATH")
    IMAGE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "sample_inputs" / "dialogue.jsonl", folder / "play.jsonl")
        with running(folder / "tasks.db", SandboxOptions(fail=0.05, seed=27, speed=4)) as sandbox:
            api = ("--api-url", sandbox.url)
            environment = {"BATCHER_API_TOKEN": sandbox.token, "PATH": "/usr/bin:/bin"}
            run = [sys.executable, "-m", "batcher", "run", "play.jsonl", "--quiet", *api]
            ended = subprocess.run(run, cwd=folder, env=environment, check=False)
            assert ended.returncode in (0, 3), ended
        report = [sys.executable, "-m", "batcher", "report", "play.jsonl"]
        subprocess.run(report, cwd=folder, env=environment, check=True)
        page = (folder / "audio" / "play.report.html").as_uri()
        command = [chromium, *CHROMIUM, f"--user-data-dir={folder / 'profile'}", f"--screenshot={IMAGE}", page]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
