"""Prices of machines: the file, what is read of it, and the tool that refreshes it from providers' tables."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from catalog_helpers import Run

from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.errors import CatalogError
from tools import refresh_prices

AZURE = """\
package pricing

// generated at 2026-06-18T03:43:41Z

func init() {
	// eastus
	initialOnDemandPrices["eastus"] = map[string]float64{
		"Standard_NC24ads_A100_v4":              3.673000,
		"Standard_A1":                           0.032000,
	}
	// moonwest
	initialOnDemandPrices["moonwest"] = map[string]float64{
		"Standard_NC24ads_A100_v4":              9.000000,
	}
	initialOnDemandPrices["westus2"] = map[string]float64{
		"Standard_NC24ads_A100_v4":              3.100000,
	}
}
"""
AWS = """\
var InitialOnDemandPricesAWS = map[string]map[ec2types.InstanceType]float64{
	// us-east-1
	"us-east-1": {
		// g5 family
		"g5.48xlarge": 16.288000, "g5.4xlarge": 1.624000, "g5.xlarge": 1.006000,
	},
}
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def checkout(folder: Path, cloud: str, text: str) -> Path:
    table = folder / refresh_prices.TABLES[cloud].path
    table.parent.mkdir(parents=True)
    table.write_text(text)
    git(folder.parent, "init", "-q", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Prices")
    return folder


@pytest.fixture
def shared_files(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the catalog's shared files, which the tool writes to."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    for path in (root / "catalog").glob("*.yaml"):
        shutil.copy(path, folder)
    monkeypatch.setattr(refresh_prices, "FILE", folder / "prices.yaml")
    return folder


def test_the_price_of_a_machine_is_that_of_the_region_or_of_the_cheapest(root: Path) -> None:
    shared = read_shared(root / "catalog")
    cheapest = shared.price("Standard_NC24ads_A100_v4")
    assert cheapest is not None
    assert (cheapest.an_hour, cheapest.region, cheapest.currency) == (3.673, "eastus", "USD")
    europe = shared.price("Standard_NC24ads_A100_v4", "westeurope")
    assert europe is not None
    assert (europe.an_hour, europe.date) == (4.775, "2026-06-18")
    assert shared.price("Standard_NC24ads_A100_v4", "moonwest") is None
    assert shared.price("Standard_NC4_A2") is None


def test_a_catalog_without_prices_has_none(shared_files: Path) -> None:
    (shared_files / "prices.yaml").unlink()
    assert read_shared(shared_files).price("Standard_NC24ads_A100_v4") is None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("instanceType: g5.xlarge", "instanceType: g5.tiny", "g5.tiny is not in instance-types.yaml"),
        ("instanceType: g5.2xlarge", "instanceType: g5.xlarge", "g5.xlarge stands here twice"),
        ("cloud: aws", "cloud: azure", "no source is named for aws, which has p4d.24xlarge"),
        ("us-east-1: 1.006", "us-east-1: -1.006", "greater than 0"),
        ("currency: USD", "currency: dollars", "currency"),
    ],
)
def test_wrong_prices_are_told_with_the_file(shared_files: Path, before: str, after: str, told: str) -> None:
    path = shared_files / "prices.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(CatalogError, match=r"prices\.yaml.*" + told):
        read_shared(shared_files)


def test_the_tool_reads_a_providers_table_at_its_commit(
    shared_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    azure = checkout(tmp_path / "karpenter-azure", "azure", AZURE)
    assert refresh_prices.main(["--azure", str(azure)]) == 0
    written = yaml.safe_load((shared_files / "prices.yaml").read_text())
    prices = {listed["instanceType"]: listed["regions"] for listed in written["prices"]}
    assert prices["Standard_NC24ads_A100_v4"] == {"eastus": 3.673, "westus2": 3.1}
    assert "Standard_NC48ads_A100_v4" not in prices
    source = next(source for source in written["sources"] if source["cloud"] == "azure")
    assert str(source["date"]) == "2026-06-18"
    assert source["source"].startswith("Azure/karpenter-provider-azure@")
    # What is not refreshed stays.
    assert prices["g5.xlarge"] == {"us-east-1": 1.006}
    shared = read_shared(shared_files)
    found = shared.price("Standard_NC24ads_A100_v4")
    assert found is not None
    assert (found.an_hour, found.region) == (3.1, "westus2")
    assert "Standard_NC48ads_A100_v4" in capsys.readouterr().out


def test_several_prices_stand_on_one_line_of_amazons_table() -> None:
    assert refresh_prices.go_prices(AWS) == {
        "us-east-1": {"g5.48xlarge": 16.288, "g5.4xlarge": 1.624, "g5.xlarge": 1.006}
    }


def test_a_table_of_another_form_is_refused_and_nothing_is_written(
    shared_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (shared_files / "prices.yaml").read_bytes()
    other = checkout(tmp_path / "karpenter-aws", "aws", "package pricing\n")
    assert refresh_prices.main(["--aws", str(other)]) == 2
    assert "the table's form has changed" in capsys.readouterr().err
    assert refresh_prices.main(["--gcp", str(tmp_path)]) == 2
    assert (shared_files / "prices.yaml").read_bytes() == before


# --- in plans --------------------------------------------------------------------------------------------------


@pytest.mark.models("phi-4")
def test_plan_shows_prices_and_sorts_by_them(here: Path, run: Run) -> None:
    code, out, _ = run("plan", "phi-4", "--sort", "price", "--region", "westeurope")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith(("Standard_", "p4", "p5", "g6"))]
    priced = [float(row[-1]) for row in rows if row[-1] != "-"]
    assert priced == sorted(priced)
    assert rows[0][0] == "Standard_NC24ads_A100_v4"
    assert rows[0][-1] == "4.78"
    # What has no price in that region comes last, and is not left out.
    assert [row[-1] for row in rows][len(priced) :] == ["-"] * (len(rows) - len(priced))
    assert "p4de.24xlarge" in [row[0] for row in rows][len(priced) :]
    assert "PRICE/H: USD on demand in westeurope, listed on 2026-06-18" in out
    assert (
        "cheapest that fits: Standard_NC24ads_A100_v4 (least price of all that fit: 4.78 USD an hour" in out
    )


@pytest.mark.models("phi-4")
def test_prices_are_in_the_json_with_region_date_and_source(here: Path, run: Run) -> None:
    value = json.loads(run("plan", "phi-4", "--format", "json")[1])
    rows = {row["name"]: row["price"] for row in value["instanceTypes"]}
    assert rows["Standard_NC24ads_A100_v4"] == {
        "anHour": 3.673,
        "currency": "USD",
        "region": "eastus",
        "date": "2026-06-18",
        "source": "Azure/karpenter-provider-azure@352646f59929 pkg/providers/pricing/zz_generated.pricing.go "
        "(Apache-2.0)",
    }
    assert rows["p5e.48xlarge"] is None
    cheapest = value["recommended"]["cheapest"]
    fitting = [row for row in value["instanceTypes"] if row["fits"] == "yes" and row["price"]]
    fitting = [row for row in fitting if row["nodeCount"] == 1]  # as of the smallest, one node is asked for
    assert cheapest["price"]["anHour"] == min(row["price"]["anHour"] for row in fitting)
    assert "requests at once" in cheapest["reason"]


@pytest.mark.models("phi-4")
def test_a_region_without_prices_is_refused_with_the_nearest(here: Path, run: Run) -> None:
    code, _, err = run("plan", "phi-4", "--region", "westeurop")
    assert code == 2
    assert "no price in 'westeurop'" in err
    assert "did you mean westeurope?" in err


@pytest.mark.models("phi-4")
def test_a_catalog_without_prices_says_so(here: Path, run: Run) -> None:
    (here / "catalog/prices.yaml").unlink()
    out = run("plan", "phi-4", "--sort", "price")[1]
    assert "PRICE/H: no price is recorded for any of these" in out
    assert "cheapest that fits" not in out
