"""Every way in, with unexpected input; `make fuzz` runs the same targets on 100,000 inputs and more."""

from __future__ import annotations

import math
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaito_catalog.architectures import Unsupported, read_shape
from kaito_catalog.documents.reading import parse
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.safetensors import parse_header
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Parallelism, PlanGpu, PlanRequest, Settings, to_json
from tools import fuzz, fuzz_guided
from tools.fuzz_inputs import mutated, reworded

EXAMPLES = {"generate": 6, "hub": 10, "proposal": 40, "facts": 40, "evidence": 30, "markdown": 40}
"""The dear ones; of the others a hundred."""


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_no_input_makes_a_target_crash_or_break_its_promises(name: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(name, 100),
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(st.randoms(use_true_random=False))
    def tried(rng: random.Random) -> None:
        fuzz.one(name, rng)

    tried()


def test_a_crash_is_counted_and_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(rng: random.Random) -> None:
        fuzz.hold(rng.random() < 0.8, "too much")

    monkeypatch.setitem(fuzz.TARGETS, "yaml", fuzz.Target(run, 1))
    assert fuzz.main(["--only", "yaml", "--count", "50"]) == 1
    found = re.search(r"^yaml:1:(\d+): AssertionError: too much$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    assert fuzz.main(["--only", "yaml", "--start", found[1], "--count", "1"]) == 1


def test_the_targets_reach_what_they_are_for() -> None:
    # A generator whose inputs are all refused at the door would find nothing behind it.
    entries = [fuzz.entry_of(s, proposal=reworded(random.Random(n), s.proposal)) for n, s in
               enumerate(fuzz.samples())]  # fmt: skip
    assert sum(entry is not None and entry.is_readable for entry in entries) > len(entries) / 3
    shapes = [read_shape(mutated(random.Random(n), s.config, most=1)) for n, s in enumerate(fuzz.samples())]
    assert sum(not isinstance(shape, Unsupported) for shape in shapes) > len(shapes) / 4


# --- what fuzzing found, and what is known to hurt others ----------------------------------------------------------


LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
ABSURD: tuple[Any, ...] = (
    0,
    -1,
    -(10**12),
    10**12,
    10**18,
    10**400,
    0.5,
    math.inf,
    math.nan,
    True,
    "32",
    None,
    [],
    {},
    [32],
)


def verdict(config: dict[str, Any], **settings_: Any) -> str:
    plan = make_plan(
        PlanRequest(
            read_shape(config),
            gpu=PlanGpu("H100", 80 * 2**30, 9.0),
            parallelism=Parallelism(),
            settings=Settings(**{"max_model_len": 8192, "gpu_memory_utilization": 0.9, **settings_}),
            vllm_version="0.25.1",
        )
    )
    assert to_json(plan)["fits"] == plan.fits.value
    return plan.fits.value


def test_the_configuration_of_these_tests_fits_as_it_is() -> None:
    assert verdict(LLAMA) == "yes"


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(
    "key", [key for key, value in LLAMA.items() if isinstance(value, int) and not isinstance(value, bool)]
)
def test_an_absurd_dimension_never_makes_a_plan_that_fits(key: str, value: Any) -> None:
    # Only this one has a documented default: as many as there are heads.
    expected = (key, value) == ("num_key_value_heads", None)
    assert (verdict({**LLAMA, key: value}) == "yes") is expected


def test_heads_that_divide_nothing_make_no_plan_that_fits() -> None:
    assert verdict({**LLAMA, "num_attention_heads": 31, "num_key_value_heads": 7}) != "yes"


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("inf"), float("nan")], ids=lambda value: str(value)[:5]
)
def test_a_factor_that_no_float_holds_makes_no_plan(value: float) -> None:
    assert verdict({**LLAMA, "partial_rotary_factor": value}) == "unknown"


@pytest.mark.parametrize("tokens", [0, -1, 10**12, 10**30])
def test_absurd_contexts_do_not_fit(tokens: int) -> None:
    assert verdict(LLAMA, max_model_len=tokens) != "yes"
    assert verdict({**LLAMA, "max_position_embeddings": 10**30}, max_model_len=tokens) != "yes"


@pytest.mark.parametrize("ratios", [[[0]] * 40, [{}] * 40, "0" * 40, None])
def test_compression_ratios_that_are_no_numbers_are_unsupported(ratios: Any, catalog: Any) -> None:
    config = next(
        dict(entry.facts.config) for entry in catalog.entries
        if entry.facts and entry.facts.config and "compress_ratios" in entry.facts.config
    )  # fmt: skip
    assert isinstance(read_shape({**config, "compress_ratios": ratios}), Unsupported)


def test_an_architecture_that_is_no_text_is_not_found_in_vllm() -> None:
    sample = fuzz.samples()[0]
    facts = {**sample.facts, "config": {**sample.config, "architectures": [{"a": 1}, ["b"], None]}}
    entry = fuzz.entry_of(sample, facts=facts)
    assert entry is not None
    assert isinstance(entry.facts, ModelFacts)
    fuzz.reports_hold(entry)


@pytest.mark.parametrize("key", ["num_key_value_heads", "head_dim", "hidden_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [1e300, 10**400])
def test_a_recorded_dimension_that_is_absurd_ends_in_findings(key: str, value: Any) -> None:
    samples = [sample for sample in fuzz.samples() if key in sample.config]
    assert samples
    for sample in samples:
        entry = fuzz.entry_of(sample, facts={**sample.facts, "config": {**sample.config, key: value}})
        assert entry is not None
        fuzz.reports_hold(entry)


def test_a_tensor_of_a_million_dimensions_is_refused_before_they_are_multiplied() -> None:
    header = (
        '{"t": {"dtype": "BF16", "shape": [' + "999999999999," * 1_000_000 + '1], "data_offsets": [0, 4]}}'
    )
    with pytest.raises(ValueError, match="in no known way"):
        parse_header(header.encode(), size_bytes=None)


def test_an_error_that_libyaml_sees_after_the_last_line_stands_at_the_last_line() -> None:
    (problem,) = parse("a: 1\nb", path="f.yaml").problems
    assert problem.place.line == 2


def test_a_repository_recorded_as_empty_is_a_finding_and_no_division_by_nothing() -> None:
    sample = next(s for s in fuzz.samples() if s.entry.facts and s.entry.facts.weights)
    size = {"sizeBytes": 0, "precisionBytes": 0}
    weights = {**sample.facts["weights"], "total": size}
    entry = fuzz.entry_of(sample, facts={**sample.facts, "weights": weights, "repository": size})
    assert entry is not None
    assert entry.problems == ()
    fuzz.reports_hold(entry)


@pytest.mark.parametrize("key", ["storageSize", "totalGPUMemory", "perGPUMemory"])
def test_a_claim_of_nothing_is_a_finding_and_no_division_by_nothing(key: str) -> None:
    sample = fuzz.samples()[0]
    requirements = {**sample.proposal["requirements"], key: "0GB"}
    entry = fuzz.entry_of(sample, proposal={**sample.proposal, "requirements": requirements})
    assert entry is not None
    assert entry.problems == ()
    fuzz.reports_hold(entry)


@pytest.mark.parametrize("model", range(0, 60, 13))
def test_a_claim_of_a_billion_gpus_is_answered_without_trying_each(model: int) -> None:
    # Not timed: trying each does not end within a test run.
    sample = fuzz.samples()[model]
    for each in ("1GB", "80GB"):
        requirements = {**sample.proposal["requirements"], "gpuCount": 10**9, "perGPUMemory": each}
        entry = fuzz.entry_of(sample, proposal={**sample.proposal, "requirements": requirements})
        assert entry is not None
        assert entry.problems == ()
        fuzz.reports_hold(entry)


# --- steered by coverage ----------------------------------------------------------------------------------------


def drawn(data: bytes) -> list[object]:
    rng = fuzz_guided.Steered(data)
    return [rng.choice("abcdef"), rng.random(), rng.randrange(1000), rng.sample(range(50), 3)]


def test_an_input_says_what_is_drawn() -> None:
    assert drawn(b"\1" * 64) == drawn(b"\1" * 64)
    assert drawn(b"\1" * 64) != drawn(b"\2" * 64)


def test_a_byte_that_changes_late_leaves_what_was_drawn_before() -> None:
    rng, other = (fuzz_guided.Steered(bytes(8) + last) for last in (b"\0" * 8, b"\7" * 8))
    assert [rng.random() for _ in range(4)] == [other.random() for _ in range(4)]
    assert rng.random() != other.random()


def test_an_input_that_is_used_up_goes_on_the_same_way() -> None:
    rng = fuzz_guided.Steered(b"x")
    assert [rng.random() for _ in range(20)] != [0.0] * 20
    assert drawn(b"x") == drawn(b"x")


def test_what_coverage_finds_is_kept_and_a_crash_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("atheris", reason="atheris is installed by `make fuzz`")
    monkeypatch.setattr(fuzz_guided, "KEPT", tmp_path)
    assert fuzz_guided.main(["--runs", "5000", "--only", "yaml"]) == 0
    assert "code reached" in capsys.readouterr().out
    assert list((tmp_path / "yaml").iterdir())
    monkeypatch.setattr(fuzz_guided, "_run", lambda *_: subprocess.CompletedProcess([], 77, "", "ValueError"))
    assert fuzz_guided.main(["--runs", "5000", "--only", "yaml"]) == 1
