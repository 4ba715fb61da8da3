"""Write the exact plans of every model of the catalog to its evidence, at every size that instance types have.

    python -m tools.record_evidence [NAME…] [--vllm-version V] [--vllm-python PATH]

What is current (same revision, configuration and vLLM) is not asked again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from kaito_catalog.catalog.reading import read_catalog, shown
from kaito_catalog.checks.base import Context, Subject
from kaito_catalog.checks.evd import current
from kaito_catalog.cli import exact_plan
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import ExactPlan
from kaito_catalog.vllm_bridge.versions import is_same

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Record; exit 1 where vLLM gave no plan of a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--vllm-version")
    parser.add_argument("--vllm-python")
    options = parser.parse_args()
    catalog = read_catalog(ROOT / "catalog")
    profile = catalog.shared.policy.default_profile()
    version = options.vllm_version or profile.vllm_version
    context = Context(catalog.shared, profile)
    failed = 0
    with exact_plan.asking(options.vllm_python, ROOT) as worker:
        for entry in catalog.entries:
            if options.names and entry.name not in options.names:
                continue
            known = [e.record for e in current(Subject.of(entry), context) if isinstance(e.record, ExactPlan)]
            if any(is_same(record.versions.vllm, version) for record in known):
                continue
            started = time.monotonic()
            try:
                path = exact_plan.record_exact(entry, worker, vllm_version=version)
            except CatalogError as error:
                failed += 1
                print(f"{entry.name}: {error.message}", file=sys.stderr)
                continue
            print(f"wrote {shown(path)} ({time.monotonic() - started:.0f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
