"""A model on a slice of a GPU: its memory, what KAITO starts there, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from catalog_helpers import CATALOG

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.launch import Launch
from kaito_catalog.kaito.release import release_of
from kaito_catalog.plans.given_options import own_options
from kaito_catalog.plans.instance_types import plan_gpu, slice_gpus
from kaito_catalog.plans.kaito_start import sized_by_kaito
from kaito_catalog.plans.start import generated_start

PHI = read_entry(CATALOG / "models" / "phi-4")


def changed(found: Entry, **deployment: Any) -> Proposal:
    assert found.proposal is not None
    value = found.proposal.model_dump(by_alias=True, exclude_none=True, mode="json")
    value["deployment"] = {k: v for k, v in {**value["deployment"], **deployment}.items() if v is not None}
    return Proposal.model_validate(value)


def start(catalog: Catalog, **deployment: Any) -> Launch | None:
    return generated_start(
        changed(PHI, **deployment), PHI.facts, catalog.shared, catalog.shared.profile("kaito-v0.12")
    )


def mig(profile: str) -> dict[str, str]:
    return {"mode": "mig", "profile": profile}


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("NVIDIA A100 80GB MIG 3g.40gb", 39.25),
        ("H100 NVL MIG 1g.12gb", 10.625),
        ("NVIDIA H200 MIG 3g.71gb", None),
    ],
)
def test_a_slice_has_the_memory_that_the_driver_shows(catalog: Catalog, name: str, gib: float | None) -> None:
    found = plan_gpu(catalog.shared, name)
    assert found.memory_bytes == (None if gib is None else gib * 2**30)
    assert found.compute_capability == (8.0 if "A100" in name else 9.0)


def test_a_profile_that_the_gpu_has_not_has_no_memory(catalog: Catalog) -> None:
    assert plan_gpu(catalog.shared, "NVIDIA A10 MIG 1g.10gb").memory_bytes is None


def test_a_slice_is_never_more_than_its_name_says_and_less_than_the_gpu(catalog: Catalog) -> None:
    for gpu in catalog.shared.gpus:
        for profile in gpu.mig_profiles or ():
            if profile.memory_bytes is not None and gpu.memory_bytes is not None:
                named = int(profile.profile.partition(".")[2].removesuffix("gb"))
                assert profile.memory_bytes <= named * 2**30, (gpu.name, profile.profile)
                assert profile.memory_bytes <= gpu.memory_bytes + 2**28, (gpu.name, profile.profile)


def test_the_slices_that_kaito_does_not_take_are_of_newer_gpus(catalog: Catalog) -> None:
    known = release_of(catalog.shared.profile("kaito-v0.12")).mig_profiles
    slices = {gpu.name: {p.profile for p in gpu.mig_profiles or ()} for gpu in catalog.shared.gpus}
    assert {name: sorted(found - set(known)) for name, found in slices.items() if found - set(known)} == {
        "NVIDIA GB200": ["1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"],
        "NVIDIA RTX PRO 6000 Blackwell": ["2g.48gb", "4g.96gb"],
        "NVIDIA B300": ["1g.34gb", "1g.67gb", "2g.67gb", "3g.135gb", "4g.135gb", "7g.269gb"],
    }


def test_without_a_machine_a_profile_may_be_of_several_gpus(catalog: Catalog) -> None:
    names = [found.name for found in slice_gpus(catalog.shared, "1g.10gb", None)]
    assert names == [
        "NVIDIA A100 40GB MIG 1g.10gb",
        "NVIDIA A100 80GB MIG 1g.10gb",
        "NVIDIA H100 80GB MIG 1g.10gb",
    ]


def test_kaito_starts_one_gpu_without_lmcache_on_a_slice(catalog: Catalog) -> None:
    found = start(catalog, partition=mig("7g.80gb"))
    assert found is not None
    assert (found.value("tensor-parallel-size"), found.value("data-parallel-size")) == ("1", None)
    assert (found.uses_lmcache, found.cpu_memory_utilization) == (False, 0)
    assert found.value("gpu-memory-utilization") == "0.84"


def test_the_start_needs_no_machine_where_a_slice_is_named(catalog: Catalog) -> None:
    assert start(catalog, partition=mig("3g.47gb"), instanceType=None) is not None


def test_kaito_refuses_a_model_whose_files_and_cache_go_beyond_the_slice(catalog: Catalog) -> None:
    # (27.3 × 1.02 × 1.05 + 2.3 + 3.1) GiB, of 40 GiB × 0.84; vLLM's own plan fits there.
    assert start(catalog, partition=mig("3g.40gb")) is None
    kaito = release_of(catalog.shared.profile("kaito-v0.12"))
    sized = sized_by_kaito(changed(PHI, partition=mig("3g.40gb")), PHI.facts, catalog.shared, kaito)
    assert sized is not None
    assert sized.is_refused


def test_adapters_and_the_performance_mode_are_part_of_the_start(catalog: Catalog) -> None:
    adapters = [{"name": "sql", "image": "registry.example.org/sql:1"}]
    found = start(catalog, adapters=adapters, performanceMode="throughput")
    assert found is not None
    assert (found.value("enable-lora"), found.value("lora-modules")) == ("", "sql=/mnt/adapter/sql")
    assert found.value("performance-mode") == "throughput"


def test_a_plan_names_the_options_that_adapters_and_the_mode_stand_for() -> None:
    adapters = [{"name": "sql", "image": "registry.example.org/sql:1"}]
    words = own_options(changed(PHI, adapters=adapters, performanceMode="throughput")).words()
    named = {word.split()[0] for word in words if "lora" in word or "performance" in word}
    assert named == {"enable-lora", "performance-mode"}
    assert own_options(changed(PHI, performanceMode="balanced")) == own_options(PHI.proposal)
