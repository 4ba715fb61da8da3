"""What KAITO's cluster would take, and what it would refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from generate_helpers import REVISION, entry, facts, proposal, small_facts, small_proposal
from hypothesis import given
from hypothesis import strategies as st

from kaito_catalog.kaito import crd, manifests


def build(claims: dict[str, Any], recorded: dict[str, Any] | None = None) -> manifests.Manifests:
    made = entry(claims, recorded)
    assert made.proposal is not None
    return manifests.build(made.proposal, made.facts)


def parsed(claims: dict[str, Any], recorded: dict[str, Any] | None = None) -> dict[str, Any]:
    built = build(claims, recorded)
    assert built.left_out is None
    return {name: yaml.safe_load(text) for name, text in built.files.items()}


def options(claims: dict[str, Any], recorded: dict[str, Any] | None = None) -> dict[str, Any]:
    text = parsed(claims, recorded)["inference-config.yaml"]["data"]["inference_config.yaml"]
    loaded = yaml.safe_load(text)["vllm"]
    assert isinstance(loaded, dict)
    return loaded


def with_config(**config: Any) -> dict[str, Any]:
    return proposal(runtimes=[{"name": "vllm", "config": config}])


# What is written


def test_a_gated_model_gets_all_four_objects() -> None:
    assert list(build(proposal(), facts()).files) == [
        "inference-config.yaml",
        "inferenceset.yaml",
        "secret.example.yaml",
        "workspace.yaml",
    ]


def test_a_workspace_has_resource_and_inference_at_the_top() -> None:
    assert parsed(proposal(), facts())["workspace.yaml"] == {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "llama-3-3-70b-instruct"},
        "resource": {
            "instanceType": "Standard_NC96ads_A100_v4",
            "labelSelector": {"matchLabels": {"apps": "llama-3-3-70b-instruct"}},
        },
        "inference": {
            "preset": {
                "name": "meta-llama/Llama-3.3-70B-Instruct",
                "presetOptions": {"modelAccessSecret": "hf-token"},
            },
            "config": "llama-3-3-70b-instruct-inference-config",
        },
    }


def test_an_inference_set_holds_the_same_model_in_its_template() -> None:
    files = parsed(proposal(), facts())
    spec = files["inferenceset.yaml"]["spec"]
    assert spec["template"]["inference"] == files["workspace.yaml"]["inference"]
    assert spec["template"]["resource"] == {"instanceType": "Standard_NC96ads_A100_v4"}


def test_the_instance_type_is_absent_where_nobody_named_one() -> None:
    files = parsed(small_proposal(), small_facts())
    assert files["workspace.yaml"]["resource"] == {"labelSelector": {"matchLabels": {"apps": "phi-4"}}}
    assert "resource" not in files["inferenceset.yaml"]["spec"]["template"]


def test_an_open_model_needs_no_secret() -> None:
    files = parsed(small_proposal(), small_facts())
    assert "secret.example.yaml" not in files
    assert files["workspace.yaml"]["inference"]["preset"] == {"name": "microsoft/phi-4"}


def test_a_model_known_to_be_gated_gets_a_secret_although_the_proposal_forgot_it() -> None:
    files = parsed(small_proposal(), small_facts(gated="auto"))
    assert files["secret.example.yaml"]["metadata"]["name"] == "hf-token"
    assert list(files["secret.example.yaml"]["stringData"]) == ["HF_TOKEN"]


def test_the_preset_keeps_the_hubs_spelling() -> None:
    files = parsed(proposal(), facts())
    assert files["workspace.yaml"]["inference"]["preset"]["name"] == "meta-llama/Llama-3.3-70B-Instruct"


def test_transformers_is_asked_for_by_an_annotation() -> None:
    files = parsed(small_proposal(runtimes=[{"name": "transformers", "config": {"num_processes": 1}}]))
    assert files["workspace.yaml"]["metadata"]["annotations"] == {"kaito.sh/runtime": "transformers"}
    assert files["inferenceset.yaml"]["spec"]["template"]["metadata"] == {
        "annotations": {"kaito.sh/runtime": "transformers"}
    }
    assert "config" not in files["workspace.yaml"]["inference"]


def test_vllm_is_preferred_where_both_are_proposed() -> None:
    files = parsed(small_proposal(runtimes=[{"name": "transformers"}, {"name": "vllm"}]))
    assert "annotations" not in files["workspace.yaml"]["metadata"]


def test_nothing_is_generated_for_onnx() -> None:
    built = build(small_proposal(runtimes=[{"name": "onnx"}]))
    assert built == manifests.Manifests({}, "KAITO has no runtime onnx")


def test_nothing_is_generated_for_a_model_that_is_not_on_the_hub() -> None:
    claims = small_proposal()
    claims["requirements"] = {**claims["requirements"], "downloadSite": "https://example.org/phi"}
    assert (
        build(claims).left_out
        == "the download site is not a page of the Hub, so KAITO has no name for the model"
    )


# vLLM's options


def test_weights_code_and_tokenizer_are_pinned_to_the_commit() -> None:
    pinned = options(proposal(), facts())
    assert [pinned[key] for key in ("revision", "code-revision", "tokenizer-revision")] == [REVISION] * 3


def test_a_revision_of_digits_alone_stays_a_text() -> None:
    claims = proposal()
    claims["requirements"] = {**claims["requirements"], "version": "1" * 40}
    assert options(claims)["revision"] == "1" * 40


def test_a_branch_pins_nothing() -> None:
    claims = proposal()
    claims["requirements"] = {**claims["requirements"], "version": "main"}
    assert "revision" not in options(claims)


def test_remote_code_stays_off_unless_it_is_declared() -> None:
    assert options(proposal(runtimes=[{"name": "vllm"}]))["no-trust-remote-code"] == ""
    declared = options(proposal(runtimes=[{"name": "vllm", "trustRemoteCode": True}]))
    assert not [key for key in declared if "trust" in key]


def test_the_context_of_the_claims_is_written_where_the_configuration_names_none() -> None:
    assert options(proposal())["max-model-len"] == 16384
    assert options(with_config(**{"max-model-len": 8192}))["max-model-len"] == 8192


def test_a_context_written_as_a_text_becomes_a_number() -> None:
    assert options(with_config(max_model_len="8192"))["max-model-len"] == 8192


def test_a_mapping_is_written_as_json() -> None:
    claims = with_config(**{"speculative-config": {"method": "mtp", "num_speculative_tokens": 3}})
    assert options(claims)["speculative-config"] == '{"method":"mtp","num_speculative_tokens":3}'


def test_a_switch_becomes_a_bare_option() -> None:
    claims = proposal(
        runtimes=[{"name": "vllm", "trustRemoteCode": True, "config": {"enable-prefix-caching": False}}]
    )
    assert options(claims)["no-enable-prefix-caching"] == ""


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"enable-expert-parallel": True}, "leaves room for one switch"),
        ({"max-model-len": "16k"}, "max-model-len is '16k'"),
        ({"max-model-len": 16.5}, "max-model-len is '16.5'"),
        ({"max-model-len": -1}, "max-model-len is '-1'"),
        ({"max-model-len": True}, "max-model-len is ''"),
        ({"trust-remote-code": True}, "trustRemoteCode is not true"),
        ({"trust-remote-code": "false"}, "trustRemoteCode is not true"),
        ({"served-model-name": ["a", "b"]}, "served-model-name is a list"),
        ({"dtype": None}, "dtype has no value"),
        ({"dtype": "--api-key"}, "read as another option"),
        ({"dtype": "a\nmax-model-len: 1 # x"}, "read as another option"),
        ({"max-num-seqs": 1, "max_num_seqs": 2}, "max-num-seqs is given twice"),
    ],
)
def test_an_option_that_kaito_would_garble_is_a_reason_to_write_nothing(
    config: dict[str, Any], reason: str
) -> None:
    built = build(with_config(**config))
    assert built.files == {}
    assert reason in (built.left_out or "")


def expand(config: dict[str, Any]) -> list[str]:
    """The command line KAITO makes of the vllm block."""
    return [part for key, value in config.items() for part in (f"--{key}", str(value))]


def test_at_most_one_bare_word_is_left_after_kaitos_expansion() -> None:
    assert expand(options(proposal(), facts())).count("") == 1


def test_the_configuration_is_read_line_by_line_and_has_no_comment() -> None:
    claims = with_config(**{"override-generation-config": {"text": "x " * 400}})
    text = parsed(claims)["inference-config.yaml"]["data"]["inference_config.yaml"]
    assert "#" not in text
    assert len(text.splitlines()) == 1 + len(options(claims))


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.3-70b-instruct", "llama-3-3-70b-instruct"),
        ("a_b..c", "a-b-c"),
        ("7b.model", "model-7b-model"),
        ("---", "model"),
    ],
)
def test_an_object_name_is_a_dns_label(name: str, expected: str) -> None:
    assert manifests.object_name(name) == expected


def test_two_long_names_stay_two() -> None:
    first = manifests.object_name("a" * 80 + "1", suffix="-inference-config")
    second = manifests.object_name("a" * 80 + "2", suffix="-inference-config")
    assert first != second
    assert len(first) == len(second) == 63


# What a cluster accepts

GEMMA_LIKE = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: workspace-gemma
spec:
  resource:
    instanceType: Standard_NV36ads_A10_v5
    labelSelector: {matchLabels: {apps: gemma}}
  inference:
    preset: {name: gemma}
  modelAccessSecret: hf-token
"""


def test_a_workspace_with_a_spec_is_refused() -> None:
    assert crd.problems(yaml.safe_load(GEMMA_LIKE)) == (
        "resource: required field is missing",
        "spec: unknown field",
    )


def test_a_secret_beside_the_preset_is_refused() -> None:
    manifest = parsed(proposal(), facts())["workspace.yaml"]
    manifest["inference"]["modelAccessSecret"] = "hf-token"
    assert crd.problems(manifest) == ("inference.modelAccessSecret: unknown field",)


def test_a_workspace_without_inference_and_tuning_is_refused() -> None:
    manifest = parsed(proposal(), facts())["workspace.yaml"]
    del manifest["inference"]
    assert crd.problems(manifest) == ("neither inference nor tuning is given",)


def test_a_comment_behind_the_context_is_refused() -> None:
    manifest = parsed(proposal(), facts())["inference-config.yaml"]
    manifest["data"]["inference_config.yaml"] = "vllm:\n  max-model-len: 131072  # all of it\n"
    assert crd.problems(manifest) == (
        "data.inference_config.yaml: max-model-len is '131072  # all of it', "
        "wanted a whole number and no comment",
    )


def test_a_second_switch_is_refused() -> None:
    manifest = parsed(proposal(), facts())["inference-config.yaml"]
    manifest["data"]["inference_config.yaml"] = 'vllm:\n  no-a: ""\n  no-b: ""\n'
    assert crd.problems(manifest) == (
        "data.inference_config.yaml: no-a, no-b: KAITO's expansion leaves room for one bare option",
    )


@pytest.mark.parametrize("name", ["Upper", "a.b", "1a", "a" * 64, "a-"])
def test_a_name_that_is_no_dns_label_is_refused(name: str) -> None:
    manifest = parsed(proposal(), facts())["workspace.yaml"]
    manifest["metadata"]["name"] = name
    assert crd.problems(manifest)


@pytest.mark.parametrize("manifest", [None, [], {}, {"kind": ["x"]}, {"kind": "Pod"}])
def test_what_is_no_manifest_is_refused(manifest: Any) -> None:
    assert len(crd.problems(manifest)) == 1


@pytest.mark.parametrize(
    "claims", [proposal(), small_proposal(), small_proposal(runtimes=[{"name": "transformers"}])]
)
def test_what_is_generated_is_accepted(claims: dict[str, Any]) -> None:
    for recorded in (None, small_facts(gated="yes")):
        for manifest in parsed(claims, recorded).values():
            assert crd.problems(manifest) == ()


# What KAITO's CRDs refuse


MISTAKES: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("resource", "instanceType"), 7),
    (("resource", "count"), "two"),
    (("resource", "labelSelector"), None),
    (("inference", "preset", "accessMode"), "secret"),
    (("inference", "preset", "name"), None),
    (("inference", "nonsense"), {}),
)


def with_mistake(manifest: dict[str, Any], route: tuple[str, ...], value: Any) -> dict[str, Any]:
    bad = copy.deepcopy(manifest)
    node = bad
    for key in route[:-1]:
        node = node[key]
    node[route[-1]] = value
    return bad


@pytest.mark.parametrize(("route", "value"), MISTAKES)
def test_a_mistake_that_the_crd_refuses_is_named_at_its_field(route: tuple[str, ...], value: Any) -> None:
    found = crd.problems(with_mistake(parsed(proposal(), facts())["workspace.yaml"], route, value))
    assert any(problem.startswith(".".join(route)) for problem in found), found


# Whatever a proposal says

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["max-model-len", "max_model_len", "trust-remote-code", "no-trust-remote-code", "dtype"]
) | (st.from_regex(r"\A[A-Za-z][A-Za-z0-9_.-]{0,9}\Z"))


@given(
    config=st.dictionaries(KEYS, VALUES, max_size=4),
    instance_type=st.text(min_size=1),
    names=st.tuples(st.text(min_size=1), st.text(min_size=1)),
)
def test_a_cluster_takes_whatever_is_generated(
    config: dict[str, Any], instance_type: str, names: tuple[str, str]
) -> None:
    deployment = {"instanceType": instance_type, "modelAccessSecret": names[0], "configMap": names[1]}
    built = build(proposal(runtimes=[{"name": "vllm", "config": config}], deployment=deployment))
    assert (built.left_out is None) == bool(built.files)
    for text in built.files.values():
        assert crd.problems(yaml.safe_load(text)) == ()


@given(config=st.dictionaries(KEYS, VALUES, max_size=4))
def test_kaitos_expansion_yields_an_option_and_a_value_for_each_pair(config: dict[str, Any]) -> None:
    built = build(proposal(runtimes=[{"name": "vllm", "config": config}]))
    if built.left_out is None:
        text = yaml.safe_load(built.files["inference-config.yaml"])["data"]["inference_config.yaml"]
        line = expand(yaml.safe_load(text)["vllm"])
        assert all(part.startswith("--") == (place % 2 == 0) for place, part in enumerate(line))
        assert line.count("") <= 1


def test_a_list_of_one_text_that_looks_like_an_option_is_left_out() -> None:
    assert build(proposal(runtimes=[{"name": "vllm", "config": {"middleware": ["--"]}}])).left_out
