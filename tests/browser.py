"""Running the site's own scripts: node where there is one, else a headless Chromium, else the test is skipped."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files",
)  # fmt: skip


def evaluate(scripts: list[Path], expression: str, values: dict[str, Any]) -> Any:
    """The value of a JavaScript expression over `values`, after `scripts`; JSON in, JSON out."""
    source = "\n".join(
        [
            *(f"globalThis.{name} = {json.dumps(value)};" for name, value in values.items()),
            *(script.read_text(encoding="utf-8") for script in scripts),
            f"globalThis.answer = JSON.stringify({expression});",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        if NODE:
            path = Path(folder) / "run.cjs"
            # Without `module`, the scripts do what they do in a page.
            path.write_text(
                f"(function (module) {{\n{source}\n}})();\nprocess.stdout.write(answer);", encoding="utf-8"
            )
            done = subprocess.run([NODE, str(path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout)
        page = Path(folder) / "run.html"
        safe = source.replace("</", "<\\/")
        page.write_text(
            f"<pre id=answer></pre><script>{safe}\ndocument.title = 'done';"
            "document.getElementById('answer').textContent = answer;</script>",
            encoding="utf-8",
        )
        found = re.search(r'<pre id="answer">(.*?)</pre>', dump(page.as_uri()), re.DOTALL)
        assert found, "the page did not answer"
        return json.loads(html.unescape(found[1]))


def dump(address: str, *, width: int = 1280, budget_ms: int = 3000) -> str:
    """The document as Chromium has it after the page's scripts ran; console messages must not be errors."""
    if CHROMIUM is None:
        pytest.skip("neither node nor chromium is on this machine")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                CHROMIUM, *QUIET, f"--user-data-dir={profile}", f"--window-size={width},900",
                f"--virtual-time-budget={budget_ms}", "--enable-logging=stderr", "--dump-dom", address,
            ],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    return done.stdout
