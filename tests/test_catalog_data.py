"""The catalog's own data: every entry loads, names its sources, and agrees with itself and with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal, known_count, known_size
from tools import exact_models

ROOT = Path(__file__).resolve().parents[1] / "catalog"
CATALOG: Catalog = read_catalog(ROOT)
NAMES = [path.name for path in sorted((ROOT / "models").iterdir())]
HALF_OF_A_HUNDREDTH_GIB = 5_368_709
every_entry = pytest.mark.parametrize("name", NAMES)


def entry(name: str) -> Entry:
    found = CATALOG.entry(name)
    assert found is not None
    return found


def proposal(name: str) -> Proposal:
    found = entry(name).proposal
    assert found is not None
    return found


def facts(name: str) -> ModelFacts:
    found = entry(name).facts
    assert found is not None
    return found


def text_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = facts(name).config or {}
    return config.get("text_config") or config.get("llm_config") or config


def leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}")
    else:
        yield path


def read_fields(name: str) -> Iterator[str]:
    """The route of every fact in the file that somebody must have read somewhere."""
    document = yaml.safe_load((ROOT / "models" / name / "facts.yaml").read_text())
    for key in document.keys() - {"apiVersion", "kind", "recordedAt", "source"}:
        yield from leaves(document[key], key)


def referenced(name: str) -> set[str]:
    return {field for reference in facts(name).source.references or () for field in reference.fields}


def is_below(field: str, above: str) -> bool:
    return field == above or field.startswith(above + ".")


@every_entry
def test_an_entry_loads_without_problems(name: str) -> None:
    assert entry(name).problems == ()
    assert entry(name).facts is not None


@every_entry
def test_proposal_and_facts_speak_of_the_same_model(name: str) -> None:
    assert proposal(name).metadata.name == name
    assert proposal(name).repo_id == facts(name).repo_id
    assert proposal(name).requirements.version == (facts(name).revision or "main")


@every_entry
def test_every_fact_has_a_reference(name: str) -> None:
    missing = [f for f in read_fields(name) if not any(is_below(f, r) for r in referenced(name))]
    assert missing == []


@every_entry
def test_every_reference_is_to_a_fact_that_is_there(name: str) -> None:
    present = list(read_fields(name))
    assert [r for r in referenced(name) if not any(is_below(f, r) for f in present)] == []


@every_entry
def test_transcribed_facts_say_so(name: str) -> None:
    assert facts(name).source.kind == "transcribed"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_no_file_mentions_what_a_reader_cannot_follow(path: Path) -> None:
    found = re.findall(
        r"index (?:file )?ids?\b.*|\b(?:id|ids) [0-9]{9,11}\b|/work\b|file_id.*",
        path.read_text(),
        re.IGNORECASE,
    )
    assert found == []


@every_entry
def test_the_first_line_names_the_schema_for_editors(name: str) -> None:
    for kind in ("proposal", "facts"):
        first = (ROOT / "models" / name / f"{kind}.yaml").read_text().split("\n")[0]
        assert first == f"# yaml-language-server: $schema=../../../schema/{kind}.schema.json"


@every_entry
def test_a_claimed_total_is_the_count_times_the_memory_of_each(name: str) -> None:
    needs = proposal(name).requirements
    count = known_count(needs.gpu_count)
    total, each = known_size(needs.total_gpu_memory), known_size(needs.per_gpu_memory)
    assert count is not None
    assert total is not None
    assert each is not None
    assert total.bytes == count * each.bytes


@every_entry
def test_the_instance_type_has_the_claimed_gpus(name: str) -> None:
    claimed = proposal(name)
    assert claimed.deployment is not None
    instance_type = CATALOG.shared.instance_type(claimed.deployment.instance_type or "")
    assert instance_type is not None
    gpu = CATALOG.shared.gpu(instance_type.gpu)
    assert gpu is not None
    assert gpu.vllm
    assert gpu.memory_bytes is not None
    assert instance_type.gpu_count == claimed.requirements.gpu_count
    assert gpu.nominal_memory == claimed.requirements.per_gpu_memory


@every_entry
def test_the_gpu_count_is_a_legal_tensor_parallel_size(name: str) -> None:
    count = known_count(proposal(name).requirements.gpu_count)
    assert count is not None
    heads, kv_heads = (text_config(name)[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    assert heads % count == 0
    assert kv_heads % count == 0 or count % kv_heads == 0


@every_entry
def test_several_gpus_and_distributed_inference_go_together(name: str) -> None:
    claimed = proposal(name)
    assert claimed.vllm is not None
    assert claimed.vllm.distributed_inference == ((known_count(claimed.requirements.gpu_count) or 0) > 1)


@every_entry
def test_the_weights_fit_the_claimed_gpus_at_the_profiles_utilization(name: str) -> None:
    claimed, weights = proposal(name), facts(name).weights
    assert claimed.deployment is not None
    assert weights is not None
    assert weights.total is not None
    instance_type = CATALOG.shared.instance_type(claimed.deployment.instance_type or "")
    gpu = CATALOG.shared.gpu(instance_type.gpu) if instance_type else None
    assert gpu is not None
    assert gpu.memory_bytes is not None
    share = CATALOG.shared.policy.default_profile().utilization(gpu.name)
    budget = share * gpu.memory_bytes * (known_count(claimed.requirements.gpu_count) or 0)
    assert weights.total.high_bytes < budget


@every_entry
def test_the_claimed_storage_holds_the_weights_and_the_repository(name: str) -> None:
    storage, recorded = known_size(proposal(name).requirements.storage_size), facts(name)
    assert storage is not None
    assert recorded.weights is not None
    assert recorded.weights.total is not None
    sizes = [recorded.weights.total, *([recorded.repository] if recorded.repository else [])]
    assert all(size.high_bytes <= storage.bytes for size in sizes)
    assert storage.bytes <= CATALOG.shared.policy.tolerances.storage_over * recorded.weights.total.low_bytes


@every_entry
def test_files_and_dtypes_add_up_to_the_weights(name: str) -> None:
    recorded = facts(name)
    assert recorded.weights is not None
    assert recorded.weights.total is not None
    if recorded.files:
        sizes = [f.size_bytes or 0 for f in recorded.files if f.path.endswith(".safetensors")]
        assert (sum(sizes), len(sizes)) == (recorded.weights.total.size_bytes, recorded.weights.files)
    if recorded.safetensors:
        width = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}
        tensors = sum(width[dtype] * n for dtype, n in recorded.safetensors.parameters_by_dtype.items())
        headers = recorded.weights.total.high_bytes - tensors
        assert 0 <= headers < max(2 * HALF_OF_A_HUNDREDTH_GIB, tensors / 10_000)


@every_entry
def test_the_context_of_the_claims_is_the_one_configured_and_within_the_models_limit(name: str) -> None:
    claimed = proposal(name)
    assert claimed.vllm is not None
    context = known_count(claimed.requirements.context_length)
    assert context is not None
    assert (claimed.vllm.config or {}).get("max-model-len") == context
    assert context <= text_config(name)["max_position_embeddings"]


@every_entry
def test_the_licence_is_the_facts_and_is_known(name: str) -> None:
    recorded, policy = facts(name).license, CATALOG.shared.policy.licenses
    assert recorded is not None
    assert proposal(name).license_id in {recorded.id, f"LicenseRef-{recorded.name}"}
    assert (recorded.name is None) == (proposal(name).license_id == recorded.id)
    assert recorded.id in {*policy.spdx, *policy.known}


@every_entry
def test_a_gated_model_names_a_secret_and_no_other_does(name: str) -> None:
    claimed = proposal(name)
    assert claimed.deployment is not None
    is_gated = facts(name).gated not in (None, "no")
    assert (claimed.deployment.model_access_secret == "hf-token") == is_gated


@every_entry
def test_the_type_is_the_pipeline_tag_where_one_is_known(name: str) -> None:
    assert facts(name).pipeline_tag in (None, proposal(name).requirements.type)


@every_entry
def test_an_implemented_entry_has_every_claim(name: str) -> None:
    if proposal(name).metadata.status == "implemented":
        needs = proposal(name).requirements
        optional = type(needs).model_fields.keys() - {"notes", "figures"}
        assert [field for field in optional if getattr(needs, field) is None] == []


def test_gpu_names_and_aliases_are_unique_in_any_case() -> None:
    names = [name.lower() for gpu in CATALOG.shared.gpus for name in (gpu.name, *(gpu.aliases or ()))]
    assert sorted(set(names)) == sorted(names)


def test_a_gpu_reports_less_than_its_nominal_memory_and_more_than_nine_tenths_of_it() -> None:
    for gpu in CATALOG.shared.gpus:
        if gpu.memory_bytes is not None:
            gib = gpu.nominal_memory.bytes / 10**9 * 2**30
            assert 0.9 * gib < gpu.memory_bytes < gib, gpu.name


def test_only_gpus_that_vllm_runs_on_have_figures_of_cuda() -> None:
    for gpu in CATALOG.shared.gpus:
        assert (gpu.compute_capability is not None) == gpu.vllm, gpu.name
        assert (gpu.memory_spread_bytes is not None) == (gpu.memory_bytes is not None), gpu.name


def test_licence_aliases_are_lower_case_and_lead_to_known_ids() -> None:
    policy = CATALOG.shared.policy.licenses
    assert [alias for alias in policy.aliases if alias != alias.lower()] == []
    assert set(policy.aliases.values()) <= {*policy.spdx, *policy.known}
    assert not set(policy.spdx) & set(policy.known)
    assert set(policy.public_images) <= set(policy.spdx)


def test_only_the_a10_has_a_utilization_of_its_own() -> None:
    profile = CATALOG.shared.policy.default_profile()
    assert profile.name == CATALOG.shared.policy.profile
    used = {gpu.name: profile.utilization(gpu.name) for gpu in CATALOG.shared.gpus}
    assert {name for name, share in used.items() if share != profile.gpu_memory_utilization} == {"NVIDIA A10"}


@every_entry
def test_a_revision_is_one_that_kaito_supports_or_that_several_have_seen(name: str) -> None:
    sources = [r.source for r in facts(name).source.references or () if "revision" in r.fields]
    seen = [int(found[1]) for s in sources if (found := re.search(r"cached in (\d+) (?:more )?public", s))]
    is_kaitos = any(source.endswith("supported_models.yaml") for source in sources)
    assert is_kaitos or sum(seen) >= 2 or facts(name).revision is None


def test_the_recorded_size_covers_what_vllm_allocates() -> None:
    plans = {model.name: model.plans["0.25.1"]["tp1"].get("weights") for model in exact_models.read()}
    del plans["nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4"]  # made without its quantisation
    known = [name for name in NAMES if plans.get(facts(name).repo_id)]
    assert len(known) >= 20
    for name in known:
        weights = facts(name).weights
        assert weights is not None
        assert weights.total is not None
        # vLLM gives the packed experts of Kimi a little more room than they are stored in.
        assert sum(plans[facts(name).repo_id]) <= 1.005 * weights.total.high_bytes, name
