"""How long a campaign's plan takes as the catalog grows: `python -m tools.scale 25 250 1000`.

The models are copies of the catalog's own under other names. Nothing is run: reading, judging the evidence, planning
every instance type and writing the Kubernetes manifests are what grows with the catalog on the machine that asks.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import yaml

from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.dry_runs.campaign import Options, make_campaign
from kaito_catalog.dry_runs.kubernetes import objects

ROOT = Path(__file__).resolve().parents[1]


def grown(folder: Path, count: int) -> Path:
    """A catalog of `count` models in `folder`."""
    target = folder / "catalog"
    shutil.copytree(ROOT / "catalog", target, ignore=shutil.ignore_patterns("models"))
    originals = sorted((ROOT / "catalog/models").iterdir())
    for number, original in zip(range(count), cycle(originals), strict=False):
        copy = target / "models" / f"{original.name}-{number}"
        shutil.copytree(original, copy)
        proposal = yaml.safe_load((copy / "proposal.yaml").read_text(encoding="utf-8"))
        proposal["metadata"]["name"] = copy.name
        (copy / "proposal.yaml").write_text(yaml.safe_dump(proposal), encoding="utf-8")
    return target


def measure(count: int) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = grown(Path(folder), count)
        start = time.process_time()
        catalog = read_catalog(root)
        read = time.process_time()
        context = Context(catalog.shared, catalog.shared.profile())
        found = make_campaign(catalog, context, (), Options(cloud="azure"))
        planned = time.process_time()
        text = objects.to_yaml(found.wanted, objects.ClusterSettings("image"))
        written = time.process_time()
    hours = sum(run.most_gpu_hours for run in found.wanted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return (
        f"| {count:,} | {read - start:.1f} | {planned - read:.1f} | {written - planned:.1f} | "
        f"{len(text) / 1e6:.1f} | {peak:,.0f} | {len(found.wanted):,} | {hours:,.0f} |"
    )


def main() -> None:
    print(
        "| models | read, CPU s | plan, CPU s | manifests, CPU s | manifests, MB | peak memory, MiB | runs "
        "| GPU-hours at most |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for text in sys.argv[1:] or ["25", "250"]:
        print(measure(int(text)), flush=True)


if __name__ == "__main__":
    main()
