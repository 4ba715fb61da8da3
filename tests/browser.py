"""Running the site's own scripts: node where there is one, else a headless Chromium, else the test is skipped."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

NODE = shutil.which("node") or shutil.which("node", path=str(Path(sys.executable).parent))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
AXE = NODE_MODULES / "axe-core" / "axe.min.js"
VNU = NODE_MODULES / "vnu-jar" / "build" / "dist" / "vnu.jar"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files",
)  # fmt: skip


def skip(reason: str) -> NoReturn:
    """Skip the test; where KAITO_CATALOG_REQUIRE_BROWSER=1 says that everything is there, let it fail."""
    if os.environ.get("KAITO_CATALOG_REQUIRE_BROWSER") == "1":
        pytest.fail(f"KAITO_CATALOG_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


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


def dump(address: str) -> str:
    """The document as Chromium has it after the page's scripts ran."""
    with Page() as page:
        page.open(address)
        return str(page.run("document.documentElement.outerHTML"))


class Page:
    """One page of a headless Chromium, driven over its debugging pipe: no port, no other program."""

    def __init__(self, *, leave_out: tuple[str, ...] = ()) -> None:
        if CHROMIUM is None:
            skip("no chromium is on this machine")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def as_three_and_four() -> None:
            # Chromium reads commands from 3 and writes answers to 4; both ends may have those numbers now.
            kept = os.dup(to_read), os.dup(to_write)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        self._process = subprocess.Popen(
            [
                CHROMIUM,
                *(option for option in QUIET if option not in leave_out),
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile.name}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_three_and_four,
            close_fds=False,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "chromium does not answer"
            part = os.read(self._read, 2**16)
            assert part, "chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(params["args"])[:500])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(json.dumps(params["entry"])[:500])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
        return message

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        """Go there, and wait until it has loaded."""
        self._loaded = False
        self.send("Page.navigate", url="about:blank")
        while not self._loaded:
            self._next()
        self._loaded = False
        self.send("Page.navigate", url=address)
        while not self._loaded:
            self._next()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def accessibility(self) -> list[str]:
        """What axe-core finds in the page as it is now: rule, weight, and the first element that breaks it."""
        if not AXE.is_file():
            skip("axe-core is not in tests/node: make engines")
        self.run(AXE.read_text(encoding="utf-8") + ";0")
        found: list[str] = self.run(
            """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(
            v => `${v.id} (${v.impact}), ${v.nodes.length} ×: ${v.nodes[0].html.slice(0, 200)}`))"""
        )
        return found

    def width(self, pixels: int) -> None:
        """Make the window that wide."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=900,
            deviceScaleFactor=1,
            mobile=pixels < 700,
        )

    def printed_pages(self) -> int:
        """How many sheets of paper the page takes."""
        printed = base64.b64decode(self.send("Page.printToPDF")["data"])
        return len(re.findall(rb"/Type\s*/Page\b", printed))

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the reader's system asks for it."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def scripts(self, run: bool) -> None:
        """Whether pages run scripts."""
        self.send("Emulation.setScriptExecutionDisabled", value=not run)

    def press(self, key: str) -> None:
        """A key: Tab, Enter, ArrowDown, or a letter."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, " ": 32}
        written = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=written, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)
