"""Prices of machines: the file, what is read of it, and the tool that refreshes it from providers' tables."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

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
