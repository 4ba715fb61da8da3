"""Write the vLLM worker as one file, to be copied to a machine with vLLM: python -m tools.worker_archive FILE"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kaito_catalog.vllm_bridge.archive import worker_archive


def main(arguments: Sequence[str] | None = None) -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="such as vllm_worker.pyz")
    parser.parse_args(arguments).file.write_bytes(worker_archive())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
