"""Refresh catalog/prices.yaml from the price tables of the Karpenter providers, which are refreshed every few weeks.

git clone --depth 1 https://github.com/Azure/karpenter-provider-azure
git clone --depth 1 https://github.com/aws/karpenter-provider-aws
git clone --depth 1 https://github.com/cloudpilot-ai/karpenter-provider-gcp
python -m tools.refresh_prices --azure karpenter-provider-azure --aws karpenter-provider-aws \\
    --gcp karpenter-provider-gcp

Only tables are read, nothing of a checkout is run. A cloud that is not named keeps the prices it has.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import read
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "catalog/prices.yaml"


@dataclass(frozen=True)
class Table:
    """Where a provider keeps its prices."""

    repository: str
    path: str
    regions: tuple[str, ...]
    """Those that are recorded: where GPUs are commonly rented. Prices elsewhere are higher as a rule."""


TABLES = {
    "azure": Table(
        "Azure/karpenter-provider-azure",
        "pkg/providers/pricing/zz_generated.pricing.go",
        (
            "eastus", "eastus2", "japaneast", "northeurope", "southcentralus", "swedencentral", "uksouth",
            "westeurope", "westus2", "westus3",
        ),
    ),
    "aws": Table(
        "aws/karpenter-provider-aws", "pkg/providers/pricing/zz_generated.pricing_aws.go", ("us-east-1",)
    ),
    "gcp": Table(
        "cloudpilot-ai/karpenter-provider-gcp",
        "pkg/providers/pricing/initial-prices.json",
        ("asia-southeast1", "europe-west4", "us-central1", "us-east4", "us-east5", "us-west1"),
    ),
}  # fmt: skip
LICENCE = "Apache-2.0"
_GENERATED = re.compile(r"^// generated at (\d{4}-\d{2}-\d{2})", re.MULTILINE)
_REGION = re.compile(
    r'^\s*(?:initialOnDemandPrices\[)?"(?P<region>[a-z0-9-]+)"(?:\] = map\[string\]float64|:) ?\{$'
)
_PRICE = re.compile(r'"(?P<name>[^"]+)": +(?P<price>[0-9]+\.[0-9]+)')


def go_prices(text: str) -> dict[str, dict[str, float]]:
    """Region → machine → price an hour, of a provider's generated Go table."""
    found: dict[str, dict[str, float]] = {}
    region: dict[str, float] | None = None
    for line in text.splitlines():
        if opens := _REGION.match(line):
            region = found.setdefault(opens["region"], {})
        elif region is not None:
            region.update((m["name"], float(m["price"])) for m in _PRICE.finditer(line))
    return found


def json_prices(text: str) -> dict[str, dict[str, float]]:
    """The same, of the table of the provider for Google Cloud."""
    return {region: dict(of["on_demand"]) for region, of in json.loads(text)["prices"].items()}


def read_table(cloud: str, checkout: Path) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """The source of a cloud's prices, as prices.yaml names it, and the prices of every region.

    Raises:
        CatalogError: the checkout has no such table, or nothing in it was understood.
    """
    table = TABLES[cloud]
    commit = _git(checkout, "rev-parse", "HEAD").strip()
    text = _git(checkout, "show", f"HEAD:{table.path}")
    generated = _GENERATED.search(text)
    date = (
        generated[1] if generated else _git(checkout, "log", "-1", "--format=%cs", "--", table.path).strip()
    )
    prices = json_prices(text) if table.path.endswith(".json") else go_prices(text)
    if not prices.keys() & set(table.regions):
        raise CatalogError(
            f"{table.path} of {table.repository} has none of {', '.join(table.regions)}",
            hint="the table's form has changed; follow it in tools/refresh_prices.py",
        )
    source = f"{table.repository}@{commit[:12]} {table.path} ({LICENCE})"
    return {"cloud": cloud, "currency": "USD", "date": date, "source": source}, prices


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CatalogError(f"git {arguments[0]} of {checkout} failed: {done.stderr.strip()[:200]}")
    return done.stdout


def refreshed(
    before: Mapping[str, Any], machines: tuple[InstanceType, ...], checkouts: Mapping[str, Path]
) -> dict[str, Any]:
    """prices.yaml anew.

    Args:
        before: what it says now; of clouds that have no checkout this stays.
        machines: the instance types whose prices are looked for.
        checkouts: the provider's repository of each cloud that is refreshed.
    """
    cloud = {machine.name: machine.cloud for machine in machines}
    sources = {source["cloud"]: source for source in before.get("sources", ())}
    kept = {
        listed["instanceType"]: listed["regions"]
        for listed in before.get("prices", ())
        if cloud.get(listed["instanceType"]) not in (None, *checkouts)
    }
    for name, checkout in checkouts.items():
        sources[name], prices = read_table(name, checkout)
        for machine in machines:
            regions = {
                region: prices[region][machine.name]
                for region in TABLES[name].regions
                if machine.cloud == name and machine.name in prices.get(region, {})
            }
            if regions:
                kept[machine.name] = regions
    return {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "Prices",
        "sources": [sources[name] for name in TABLES if name in sources],
        "prices": [
            {"instanceType": machine.name, "regions": kept[machine.name]}
            for machine in machines
            if machine.name in kept
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Refresh the file, and say what has no price."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="CHECKOUT", help=f"a clone of {table.repository}")
    given = parser.parse_args(arguments)
    checkouts = {name: getattr(given, name) for name in TABLES if getattr(given, name) is not None}
    if not checkouts:
        parser.error("name at least one checkout")
    try:
        machines = read_shared(FILE.parent).instance_types
        before = read(FILE).value if FILE.is_file() else {}
        after = refreshed(before if isinstance(before, dict) else {}, machines, checkouts)
    except CatalogError as error:
        print(f"error: {error}\n  hint: {error.hint}" if error.hint else f"error: {error}", file=sys.stderr)
        return 2
    head = "# yaml-language-server: $schema=../schema/prices.schema.json\n"
    write_text(FILE, head + writing.write(after))
    priced = {listed["instanceType"] for listed in after["prices"]}
    without = [m.name for m in machines if m.name not in priced and m.cloud in checkouts]
    print(f"{len(priced)} instance types have a price; without one: {', '.join(without) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
