"""The start that KAITO makes of a proposal: LMCache where it harms the model, and the ConfigMap that keeps it away."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from catalog_helpers import CATALOG, Run

from kaito_catalog import generate
from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_catalog, read_entry
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import manifests
from kaito_catalog.memory.kv_cache.layout import Unplannable
from kaito_catalog.memory.values import PlanRequest
from kaito_catalog.plans.kaito_start import Windows, harm_of_lmcache
from kaito_catalog.plans.start import generated_start, needs_no_lmcache, on_its_machine

GEMMA = "gemma-3-27b-it"


def entry(name: str) -> Entry:
    return read_entry(CATALOG / "models" / name)


def changed(found: Entry, **deployment: Any) -> Proposal:
    """The entry's proposal with other keys in `deployment`; None takes one away."""
    assert found.proposal is not None
    value = found.proposal.model_dump(by_alias=True, exclude_none=True, mode="json")
    value["deployment"] = {k: v for k, v in {**value["deployment"], **deployment}.items() if v is not None}
    return Proposal.model_validate(value)


def request_of(found: Entry, catalog: Catalog) -> PlanRequest:
    """What is asked of a plan on the proposal's own machine."""
    assert found.proposal is not None
    profile = catalog.shared.profile("kaito-v0.12")
    started = on_its_machine(found.proposal, found.facts, catalog.shared, profile, as_written=True)
    assert started is not None
    return started.request


def test_gemma_3_is_given_lmcache_where_its_config_map_says_nothing(catalog: Catalog) -> None:
    profile = catalog.shared.profile("kaito-v0.12")
    found = entry(GEMMA)
    silent = changed(found, kvCacheCPUMemoryUtilization=None)
    start = generated_start(silent, found.facts, catalog.shared, profile, as_written=True)
    assert start is not None
    assert (start.uses_lmcache, start.value("tensor-parallel-size")) == (True, "1")
    assert needs_no_lmcache(silent, found.facts, catalog.shared, profile)


def test_a_proposal_that_switches_lmcache_off_is_started_without_it(catalog: Catalog) -> None:
    found = entry(GEMMA)
    start = generated_start(
        changed(found, kvCacheCPUMemoryUtilization=0),
        found.facts,
        catalog.shared,
        catalog.shared.profile("kaito-v0.12"),
    )
    assert start is not None
    assert not start.uses_lmcache


def test_what_kaito_keeps_from_lmcache_by_itself_needs_no_line(catalog: Catalog) -> None:
    profile = catalog.shared.profile("kaito-v0.12")
    for name in ("gpt-oss-20b", "qwen3.6-35b-a3b", "llama-3.3-70b-instruct"):
        found = entry(name)
        assert found.proposal is not None
        assert not needs_no_lmcache(found.proposal, found.facts, catalog.shared, profile), name


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (GEMMA, Windows),
        ("gpt-oss-20b", Windows),
        ("nvidia-nemotron-nano-9b-v2", Unplannable),
        ("llama-3.3-70b-instruct", type(None)),
        ("deepseek-v3-0324", type(None)),
        ("phi-3-mini-4k-instruct", type(None)),  # a window in every layer: nothing is hybrid
    ],
)
def test_what_lmcache_does_depends_on_the_kinds_of_layers(name: str, harm: type, catalog: Catalog) -> None:
    found = entry(name)
    assert found.facts is not None
    assert found.proposal is not None
    assert isinstance(harm_of_lmcache(request_of(found, catalog)), harm)


def test_a_model_with_states_is_refused_with_vllms_reason(catalog: Catalog) -> None:
    found = entry("nvidia-nemotron-nano-9b-v2")
    assert found.facts is not None
    assert found.proposal is not None
    harm = harm_of_lmcache(request_of(found, catalog))
    assert isinstance(harm, Unplannable)
    assert harm.refused is not None
    assert "hybrid KV cache manager" in harm.reason


# vLLM 0.25.1's own planner, one request of 131,072 tokens on one GPU.
@pytest.mark.parametrize(
    ("name", "with_lmcache", "without"),
    [(GEMMA, 66_571_993_088, 12_255_232_000), ("gemma-3-4b-it", 18_253_611_008, 3_063_808_000)],
)
def test_windows_cost_what_vllms_planner_says(
    name: str, with_lmcache: int, without: int, catalog: Catalog
) -> None:
    found = entry(name)
    assert found.facts is not None
    assert found.proposal is not None
    harm = harm_of_lmcache(request_of(found, catalog))
    assert isinstance(harm, Windows)
    assert (harm.bytes_with(131_072), harm.bytes_without(131_072)) == (with_lmcache, without)


@pytest.mark.models(GEMMA)
def test_check_says_what_lmcache_costs(here: Any, run: Run) -> None:
    path = here / "catalog/models" / GEMMA / "proposal.yaml"
    path.write_text(path.read_text().replace("  kvCacheCPUMemoryUtilization: 0\n", ""))
    out = run("check", GEMMA)[1]
    assert "warning[KTO010] KAITO v0.12 attaches LMCache" in out
    assert "one request of 16,384 tokens takes 7.75 GiB of KV cache on each GPU instead of 2.66 GiB" in out


@pytest.mark.models(GEMMA, "llama-3.3-70b-instruct")
def test_the_generated_config_map_switches_lmcache_off_where_it_harms(here: Any) -> None:
    path = here / "catalog/models" / GEMMA / "proposal.yaml"
    path.write_text(path.read_text().replace("  kvCacheCPUMemoryUtilization: 0\n", ""))
    files = generate.build_files(read_catalog(here / "catalog"))

    def config(name: str) -> dict[str, Any]:
        found = yaml.safe_load(files[f"presets/{name}/inference-config.yaml"])
        inner: dict[str, Any] = yaml.safe_load(found["data"]["inference_config.yaml"])
        return inner

    assert config(GEMMA)["kv_cache_cpu_memory_utilization"] == 0
    assert "kv_cache_cpu_memory_utilization" not in config("llama-3.3-70b-instruct")


def test_a_share_that_the_proposal_asks_for_stays(catalog: Catalog) -> None:
    found = entry(GEMMA)
    asks = changed(found, kvCacheCPUMemoryUtilization=0.25, maxProbeSteps=3)
    assert manifests.kaito_keys(asks, without_lmcache=True) == {
        "kv_cache_cpu_memory_utilization": 0.25,
        "max_probe_steps": 3,
    }


@pytest.mark.models(GEMMA)
def test_kaitos_own_keys_survive_markdown(here: Any, run: Run) -> None:
    run("generate", "--no-site", "--output", "build")
    (markdown,) = (here / "build/kaito/proposals").glob(f"*-{GEMMA}.md")
    assert "kv_cache_cpu_memory_utilization: 0" in markdown.read_text()
    assert run("import", markdown, "--into", "back")[0] == 0
    back = yaml.safe_load((here / "back" / GEMMA / "proposal.yaml").read_text())
    assert back["deployment"]["kvCacheCPUMemoryUtilization"] == 0


HYBRID = "nvidia-nemotron-nano-9b-v2"


@pytest.mark.models(GEMMA, HYBRID, "llama-3.3-70b-instruct")
def test_the_page_shows_the_start_that_the_generated_manifests_make(here: Any) -> None:
    files = generate.build_files(read_catalog(here / "catalog"))
    for name in (GEMMA, HYBRID, "llama-3.3-70b-instruct"):
        config = yaml.safe_load(files[f"presets/{name}/inference-config.yaml"])["data"][
            "inference_config.yaml"
        ]
        start = json.loads(files[f"site-src/api/v1/models/{name}.json"])["kaito"]["start"]
        own = yaml.safe_load(config)["vllm"]
        written = {f"--{key}={value}" if value != "" else f"--{key}" for key, value in own.items()}
        assert written <= set(start["command"])
        assert not any("LMCache" in word for word in start["command"]) or name.startswith("llama")
        page = files[f"site-src/models/{name}.md"]
        assert "vllm serve " in page
        assert f"--max-model-len={own['max-model-len']}" in page
