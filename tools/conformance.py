"""Compare with KAITO's own tree and published configurations, which are not in this repository.

    make conformance KAITO=DIR [CONFIGS=DIR]

KAITO is a checkout of its repository, CONFIGS a folder of config.json files as ORG__NAME.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "conformance"
REPOSITORY = "https://github.com/kaito-project/kaito.git"
COMMIT = "056b8280b1a8debf644bc6f4399e913a1f9c7e70"

WANTED = f"""make conformance compares with files that are not in this repository. Name them:

    make conformance KAITO=DIR [CONFIGS=DIR]

KAITO is a checkout of KAITO's repository at the commit that the catalog was transcribed from:

    git clone --filter=blob:none {REPOSITORY} ../kaito
    git -C ../kaito checkout {COMMIT}

CONFIGS, which may be left out, is a folder of published configurations: https://huggingface.co/ORG/NAME/raw/main/config.json
as ORG__NAME.json, and hf_quant_config.json, where a repository has one, as ORG__NAME.hf_quant_config.json."""


def missing(kaito: str, configs: str) -> str | None:
    """What is wrong with the folders, or None."""
    if not kaito:
        return WANTED
    for name, folder in (("KAITO", kaito), ("CONFIGS", configs)):
        if folder and not Path(folder).is_dir():
            return f"{name}={folder} is not a folder.\n\n{WANTED}"
    tables = ("presets/workspace/models/model_catalog.yaml", "model_catalog.yaml")
    if not any((Path(kaito) / name).is_file() for name in tables):
        return f"KAITO={kaito} has no {tables[0]}.\n\n{WANTED}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; exit 2 where the files are not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kaito", default="", metavar="DIR", help="a checkout of KAITO's repository")
    parser.add_argument(
        "--configs", default="", metavar="DIR", help="published configurations, ORG__NAME.json"
    )
    options = parser.parse_args(arguments)
    problem = missing(options.kaito, options.configs)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 2
    folders = {"KAITO": options.kaito, "CONFIGS": options.configs}
    named = {name: str(Path(folder).resolve()) for name, folder in folders.items() if folder}
    environment = {k: v for k, v in os.environ.items() if k not in folders} | named
    return subprocess.run(
        [sys.executable, "-m", "pytest", TESTS], env=environment, cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
