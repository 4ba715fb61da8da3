"""A command line of `vllm serve` is read as vLLM's own parser reads it."""

from __future__ import annotations

import pytest

from kaito_catalog.errors import CatalogError
from kaito_catalog.plans.serve_options import ServeOptions, read_serve_options


def read(line: str, version: str = "0.25.1") -> ServeOptions:
    return read_serve_options(line.split(), version)


def values(line: str) -> dict[str, str]:
    return {option.name: option.value for option in read(line).options}


def test_the_model_is_the_first_word() -> None:
    found = read("vllm serve microsoft/phi-4 --port 9000")
    assert (found.model, values("--port 9000")) == ("microsoft/phi-4", {"port": "9000"})


def test_the_model_may_be_an_option_as_of_the_api_server() -> None:
    assert read("--model microsoft/phi-4 --port 9000").model == "microsoft/phi-4"


@pytest.mark.parametrize(
    "line",
    [
        "--tensor-parallel-size 4",
        "--tensor-parallel-size=4",
        "--tensor_parallel_size 4",
        "-tp 4",
        "-tp=4",
        "--tensor-par 4",
    ],
)
def test_every_spelling_of_an_option_is_that_option(line: str) -> None:
    assert values(line) == {"tensor-parallel-size": "4"}


@pytest.mark.parametrize("line", ["-O3", "-O 3", "-O=3", "--optimization-level 3"])
def test_the_level_may_stand_at_the_letter(line: str) -> None:
    assert values(line) == {"optimization-level": "3"}


def test_short_names_of_other_options() -> None:
    line = "-pp 2 -dp 4 -ep -q awq -n2"
    assert values(line) == {
        "pipeline-parallel-size": "2",
        "data-parallel-size": "4",
        "enable-expert-parallel": "true",
        "quantization": "awq",
        "nnodes": "2",
    }


def test_a_switch_is_on_and_its_negation_is_the_same_option_off() -> None:
    assert values("--enforce-eager --no-enable-prefix-caching") == {
        "enforce-eager": "true",
        "enable-prefix-caching": "false",
    }


def test_a_switch_takes_no_value() -> None:
    with pytest.raises(CatalogError, match="--enforce-eager"):
        read("--enforce-eager=true")


def test_keys_with_dots_make_one_json_object() -> None:
    line = (
        "--compilation-config.pass_config.fuse_allreduce_rms=False --compilation-config.mode 3 -cc.sizes+ 1,2"
    )
    assert values(line) == {"compilation-config": '{"sizes": ["1", "2"]}'}
    assert [option.value for option in read(line).replaced] == [
        '{"pass_config": {"fuse_allreduce_rms": "False"}, "mode": 3}'
    ]


def test_an_option_may_take_several_values() -> None:
    line = "phi-4 --cudagraph-capture-sizes 1 2 4 --port 80"
    assert read(line).options[0].values == ("1", "2", "4")


def test_the_last_of_several_wins_and_the_first_is_told() -> None:
    found = read("--max-num-seqs 8 --enforce-eager --max-num-seqs 16")
    assert found.get("max-num-seqs") == "16"
    assert [option.value for option in found.replaced] == ["8"]


@pytest.mark.parametrize(
    ("written", "number"), [("32K", "32768"), ("32k", "32000"), ("auto", "auto"), ("-1", "auto")]
)
def test_a_context_is_read_as_vllm_reads_it(written: str, number: str) -> None:
    assert values(f"--max-model-len {written}") == {"max-model-len": number}


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(CatalogError, match="no option --max-model-length") as error:
        read("--max-model-length 4096")
    assert error.value.hint == "did you mean --max-model-len?"


def test_an_unknown_option_with_dots_names_the_nearest() -> None:
    with pytest.raises(CatalogError, match=r"no option --compile-config\.mode") as error:
        read("--compile-config.mode 3")
    assert error.value.hint == "did you mean --compilation-config?"


def test_an_option_that_is_gone_says_since_when() -> None:
    with pytest.raises(CatalogError, match=r"gone since 0\.18\.0"):
        read("--swap-space 4")


def test_a_value_of_the_wrong_kind_is_an_error() -> None:
    with pytest.raises(CatalogError, match="not a whole number"):
        read("--max-num-seqs many")


def test_an_option_without_its_value_is_an_error() -> None:
    with pytest.raises(CatalogError, match="expected one argument"):
        read("--max-num-seqs")


def test_a_second_word_without_a_dash_is_an_error() -> None:
    with pytest.raises(CatalogError, match="belongs to no option"):
        read("phi-4 qwen")


def test_read_options_are_written_as_a_configmap_has_them() -> None:
    line = "--enforce-eager --no-enable-prefix-caching -tp 2"
    assert read(line).as_config() == {
        "enforce-eager": "",
        "no-enable-prefix-caching": "",
        "tensor-parallel-size": "2",
    }


def test_what_was_read_is_read_the_same_from_its_own_words() -> None:
    found = read("m -tp 2 --enforce-eager --no-enable-prefix-caching --cudagraph-capture-sizes 1 2")
    again = read_serve_options([word for option in found.options for word in option.words()], "0.25.1")
    assert [(o.name, o.values) for o in again.options] == [(o.name, o.values) for o in found.options]
