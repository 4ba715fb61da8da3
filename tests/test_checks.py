"""The checks: each finds its bad example and passes its good one; the engine waives, skips and counts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kaito_catalog.catalog.entries import Catalog, Entry, Evidence
from kaito_catalog.checks import example
from kaito_catalog.checks.asked import Asked, asked_of
from kaito_catalog.checks.base import Check, Context, Finding, Rule, Skip, Subject, read_rule
from kaito_catalog.checks.engine import ClaimState, EntryReport, check_entry
from kaito_catalog.checks.registry import ALL_CODES, CHECKS, FAMILIES, RULES, UNUSED_WAIVER, selected
from kaito_catalog.checks.syntax import SYNTAX_RULES
from kaito_catalog.diagnostics import Severity
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.evidence import DryRun, ExactPlan, ReportedRun
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.memory.values import Fit, Parallelism, PlanRequest

_IN_ENGINE = {"YML012"}


def entry_of(fragment: str = "{}") -> Entry:
    """The documentation's example with a fragment merged over it, as a model's folder would give it."""
    proposal_document, facts_document = example.documents(fragment)
    proposal, problems = load(proposal_document, Proposal)
    facts = None
    if facts_document is not None:
        facts, more = load(facts_document, ModelFacts)
        problems = (*problems, *more)
    evidence: list[Evidence] = []
    for document in example.evidence_documents(fragment):
        record: ExactPlan | DryRun | ReportedRun | None
        if document.value["kind"] == "ReportedRun":
            record, more = load(document, ReportedRun)
        elif document.value["kind"] == "ExactPlan":
            record, more = load(document, ExactPlan)
        else:
            record, more = load(document, DryRun)
        problems = (*problems, *more)
        if record is not None:
            evidence.append(Evidence(document, record))
    assert problems == (), [d.message for d in problems]
    name = "example-7b-instruct"
    return Entry(name, Path(name), proposal_document, proposal, facts_document, facts, tuple(evidence), ())


def report(context: Context, fragment: str = "{}", checks: tuple[Check, ...] = CHECKS) -> EntryReport:
    return check_entry(entry_of(fragment), checks, context)


def codes(found: EntryReport) -> list[str]:
    return [d.code for d in found.diagnostics]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_check_finds_its_bad_example(check: Check, context: Context) -> None:
    outcomes = list(check.run(Subject.of(entry_of(check.rule.fails)), context))
    assert any(isinstance(outcome, Finding) for outcome in outcomes), outcomes


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_check_passes_its_good_example_and_does_not_just_skip_it(check: Check, context: Context) -> None:
    assert list(check.run(Subject.of(entry_of(check.rule.passes)), context)) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_a_check_points_at_a_key_that_exists_or_at_its_parent(check: Check, context: Context) -> None:
    subject = Subject.of(entry_of(check.rule.fails))
    for outcome in check.run(subject, context):
        if isinstance(outcome, Finding):
            document = outcome.document or (subject.facts_document if outcome.in_facts else subject.document)
            assert document is not None
            assert outcome.route[:1] in document.spans


@pytest.mark.parametrize("check", [c for c in CHECKS if c.proves], ids=lambda check: check.code)
def test_a_check_that_proves_a_claim_skips_without_facts(check: Check, context: Context) -> None:
    outcomes = list(check.run(Subject.of(entry_of("facts: null")), context))
    assert [type(outcome) for outcome in outcomes] == [Skip]


@pytest.mark.parametrize(
    "rule", [r for r in SYNTAX_RULES if r.code not in _IN_ENGINE], ids=lambda rule: rule.code
)
def test_the_reader_reports_the_bad_example_of_a_syntax_rule(rule: Rule) -> None:
    found = load(parse(rule.fails, path="p.yaml"), Proposal)[1]
    assert [d.code for d in found] == [rule.code]


@pytest.mark.parametrize("rule", SYNTAX_RULES, ids=lambda rule: rule.code)
def test_the_reader_accepts_the_good_example_of_a_syntax_rule(rule: Rule) -> None:
    assert load(parse(rule.passes, path="p.yaml"), Proposal)[1] == ()


def test_every_code_the_reader_can_report_is_documented(root: Path) -> None:
    package = root / "kaito_catalog"
    texts = [
        (package / name).read_text()
        for name in ("documents/reading.py", "documents/validation.py", "catalog/reading.py")
    ]
    used = {code for text in texts for code in re.findall(r'"((?:YML|SCH|DOC)[0-9]{3})"', text)}
    assert used <= ALL_CODES


def test_codes_are_unique_and_in_the_order_of_their_families() -> None:
    found = [rule.code for rule in RULES]
    assert len(found) == len(set(found))
    assert {rule.family for rule in RULES} == set(FAMILIES)


def test_a_docstring_without_examples_is_no_check() -> None:
    with pytest.raises(ValueError, match="DOC999: the docstring needs"):
        read_rule("DOC999", Severity.ERROR, "A title.\n\nA text.")


def test_the_example_itself_has_no_findings(context: Context) -> None:
    assert codes(report(context)) == []


def test_a_waiver_keeps_the_finding_with_its_reason_and_lets_the_check_pass(context: Context) -> None:
    found = report(
        context, "requirements: {storageSize: 14GB}\nwaivers: {STO001: the disk is shared, STO002: same}"
    )
    assert [(d.code, d.waived, d.fails) for d in found.diagnostics] == [
        ("STO001", "the disk is shared", False),
        ("STO002", "same", False),
    ]


def test_a_waiver_that_waives_nothing_is_a_warning_at_its_key(context: Context) -> None:
    (found,) = report(context, UNUSED_WAIVER.fails).diagnostics
    assert (found.code, found.severity) == ("DOC011", Severity.WARNING)
    assert "STO001" in found.message


def test_an_empty_list_of_waivers_is_no_finding(context: Context) -> None:
    assert codes(report(context, UNUSED_WAIVER.passes)) == []


def test_a_waiver_of_a_check_that_does_not_exist_is_a_warning(context: Context) -> None:
    (found,) = report(context, "waivers: {ABC123: why}").diagnostics
    assert "there is no check ABC123" in found.message


def test_a_waiver_of_a_check_that_was_not_selected_is_left_alone(context: Context) -> None:
    assert codes(report(context, "waivers: {STO001: why}", selected(["LIC"], []))) == []


def test_claims_with_facts_of_the_hub_are_proven(context: Context) -> None:
    assert set(report(context).claims.values()) == {ClaimState.PROVEN}


def test_claims_with_transcribed_facts_are_transcribed(context: Context) -> None:
    assert set(report(context, "facts: {source: {kind: transcribed}}").claims.values()) == {
        ClaimState.TRANSCRIBED
    }


def test_claims_without_facts_are_unknown(context: Context) -> None:
    assert set(report(context, "facts: null").claims.values()) == {ClaimState.UNKNOWN}


def test_a_claim_with_an_error_is_wrong_and_the_others_keep_their_state(context: Context) -> None:
    claims = report(context, "requirements: {storageSize: 10GB}").claims
    assert claims["requirements.storageSize"] is ClaimState.WRONG
    assert claims["summary.license.id"] is ClaimState.PROVEN


def test_a_warning_does_not_take_a_claim_back(context: Context) -> None:
    found = report(context, "requirements: {type: conversational}")
    assert codes(found) == ["ARC001"]
    assert found.claims["requirements.type"] is ClaimState.PROVEN


def test_a_plan_that_holds_by_less_than_its_error_proves_nothing(context: Context) -> None:
    found = report(
        context,
        "requirements: {gpuCount: 1, totalGPUMemory: 24GB, perGPUMemory: 24GB, contextLength: 20480}\n"
        "runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 20480}}]\n"
        "deployment: {instanceType: Standard_NV36ads_A10_v5}",
        selected(["MEM001"], []),
    )
    assert codes(found) == ["MEM001"]
    assert "may not be enough" in found.diagnostics[0].message
    assert found.claims["requirements.gpuCount"] is ClaimState.UNKNOWN


def test_a_context_beyond_the_limit_is_named_at_its_option_with_the_limit(context: Context) -> None:
    found = report(
        context,
        "runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 1048576}}]",
    ).diagnostics
    (finding,) = [d for d in found if d.code == "MEM001"]
    assert finding.message.startswith("max_model_len 1,048,576 is more than the model's own limit of ")
    assert finding.hint is not None
    assert finding.hint.startswith("max-model-len: ")


def test_the_sizes_that_are_possible_are_named(context: Context) -> None:
    found = report(
        context, "requirements: {gpuCount: 3, totalGPUMemory: 240GB, perGPUMemory: 80GB}"
    ).diagnostics
    (finding,) = [d for d in found if d.code == "RUN001"]
    assert finding.hint == "a gpuCount of 1 or 2 or 4 or 8 is possible"


def with_option(name: str, value: str) -> str:
    return f"runtimes: [{{name: vllm, distributedInference: false, config: {{max-model-len: 16384, {name}: {value}}}}}]"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gpu-memory-utilization", "1.4", "gpu-memory-utilization is above 0 and at most 1, found 1.4"),
        ("gpu_memory_utilization", "'84'", 'gpu_memory_utilization is above 0 and at most 1, found "84"'),
        ("gpu-memory-utilization", "nan", 'gpu-memory-utilization is above 0 and at most 1, found "nan"'),
        ("max-num-seqs", "0", "max-num-seqs is at least 1, found 0"),
        ("max-num-seqs", "-1", "max-num-seqs is at least 1, found -1"),
        (
            "kv-cache-memory-bytes",
            "8.5G",
            "kv-cache-memory-bytes is a whole number, which may end in K, M, G (of two) or k, m, g (of ten), "
            'found "8.5G"',
        ),
        ("max-num-seqs", "8k", 'max-num-seqs is a whole number, found "8k"'),
        ("watermark", "1.0", "watermark is at least 0 and below 1, found 1.0"),
    ],
)
def test_a_number_outside_vllms_limits_is_refused(
    context: Context, name: str, value: str, message: str
) -> None:
    found = report(context, with_option(name, value)).diagnostics
    assert [d.message for d in found if d.code == "RUN003"] == [message]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpu-memory-utilization", "1"),
        ("max-num-seqs", "1"),
        ("max-logprobs", "-1"),
        ("port", "-5"),
        ("kv-cache-memory-bytes", "8G"),
        ("kv-cache-memory-bytes", "8.5g"),
        ("max-num-batched-tokens", "8k"),
    ],
)
def test_a_number_at_a_limit_or_without_one_is_taken(context: Context, name: str, value: str) -> None:
    assert "RUN003" not in codes(report(context, with_option(name, value)))


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("gpu-memory-utilization", "84", "a share, not a percentage; without it KAITO takes 0.84"),
        ("max-num-seqs", "many", "without it vLLM decides by itself"),
        ("block-size", "-1", "without it vLLM decides by itself"),
        ("cpu-offload-gb", "-1", "without it vLLM takes 0"),
        ("dtype", "bfloat", "did you mean 'bfloat16'?"),
    ],
)
def test_a_refused_value_has_a_hint(context: Context, name: str, value: str, hint: str) -> None:
    found = report(context, with_option(name, value)).diagnostics
    assert [d.hint for d in found if d.code == "RUN003"] == [hint]


def test_a_check_that_was_not_run_proves_nothing(context: Context) -> None:
    claims = report(context, checks=selected([], ["STO"])).claims
    assert claims["requirements.storageSize"] is ClaimState.UNKNOWN


def test_require_all_turns_a_skip_into_an_error(context: Context) -> None:
    entry = entry_of("facts: {license: null}")
    checks = selected(["LIC"], [])
    lenient = check_entry(entry, checks, context)
    strict = check_entry(entry, checks, context, require_all=True)
    assert [skip.code for skip in lenient.skips] == ["LIC001"]
    assert not any(d.fails for d in lenient.diagnostics)
    assert [d.code for d in strict.diagnostics if d.fails] == ["LIC001"]


def test_an_unknown_architecture_is_skipped_by_name_and_never_passes(context: Context) -> None:
    found = report(context, "facts: {config: {architectures: [NovelForCausalLM]}}")
    reasons = [skip.reason for skip in found.skips if skip.code == "MEM001"]
    assert len(reasons) == 1
    assert "NovelForCausalLM" in reasons[0]
    assert found.claims["requirements.gpuCount"] is ClaimState.UNKNOWN


def test_storage_within_the_rounding_of_the_published_size_is_not_decided(context: Context) -> None:
    found = report(
        context,
        "requirements: {storageSize: 16.1GB}\n"
        "facts: {weights: {total: {sizeBytes: 16100000000, precisionBytes: 5000000}}, repository: null}",
    )
    assert "STO001" in [skip.code for skip in found.skips]
    assert found.claims["requirements.storageSize"] is ClaimState.UNKNOWN


def test_gigabytes_and_gibibytes_are_different_sizes(context: Context) -> None:
    size = "facts: {weights: {total: {sizeBytes: 141107412992}}, repository: null}"
    assert "STO001" in codes(report(context, f"requirements: {{storageSize: 140GB}}\n{size}"))
    assert "STO001" not in codes(report(context, f"requirements: {{storageSize: 140GiB}}\n{size}"))


@pytest.mark.parametrize(
    ("claimed", "hosting"), [("apache-2.0", "public-mcr"), ("mit", "public-mcr"), ("gemma", "user-built")]
)
def test_who_builds_the_image_follows_from_the_license(claimed: str, hosting: str, context: Context) -> None:
    found = report(context, f"summary: {{license: {{id: {claimed}}}}}\nfacts: {{license: {{id: {claimed}}}}}")
    assert found.image_hosting == hosting


def test_an_spdx_id_equals_the_hubs_lower_case_one(context: Context) -> None:
    assert codes(report(context, "summary: {license: {id: Apache-2.0}}")) == []


def test_a_transformers_proposal_has_no_vllm_plan_and_says_so(context: Context) -> None:
    found = report(context, "runtimes: [{name: transformers, distributedInference: false}]")
    assert "the memory plan is vLLM's" in next(s.reason for s in found.skips if s.code == "MEM001")


def test_a_split_that_kaito_never_gets_to_is_skipped_and_not_passed(context: Context) -> None:
    """KTO002 reports it; no word from KTO001 would read as a legal split."""
    no_room = """
requirements: {contextLength: 2000000}
runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 2000000}}]
deployment: {instanceType: Standard_NC24ads_A100_v4}
"""
    found = report(context, no_room, tuple(c for c in CHECKS if c.code in ("KTO001", "KTO002")))
    assert [(d.code, d.severity) for d in found.diagnostics] == [("KTO002", Severity.ERROR)]
    assert [skip.code for skip in found.skips] == ["KTO001"]


@pytest.mark.parametrize(
    ("claim", "severity"),
    [
        # Two nodes of one GPU where one is claimed, and a node of four for a claim of one.
        ("{instanceType: Standard_NV36ads_A10_v5}", Severity.ERROR),
        ("{instanceType: Standard_NC96ads_A100_v4}", Severity.NOTE),
    ],
)
def test_more_nodes_than_the_claim_needs_are_an_error(
    context: Context, claim: str, severity: Severity
) -> None:
    found = report(context, f"deployment: {claim}").diagnostics
    assert [d.severity for d in found if d.code == "KTO002"] == [severity]


@pytest.mark.parametrize(
    ("machine", "profile", "outcome"),
    [
        (
            "Standard_NV36ads_A10_v5",
            "1g.10gb",
            "Standard_NV36ads_A10_v5 has NVIDIA A10, which cannot be cut into slices",
        ),
        ("Standard_ND128isr_NDR_GB200_v6", "3g.40gb", "NVIDIA GB200 has no MIG profile 3g.40gb"),
    ],
)
def test_a_slice_that_the_gpu_has_not_is_an_error(
    context: Context, machine: str, profile: str, outcome: str
) -> None:
    found = report(
        context, f"deployment: {{instanceType: {machine}, partition: {{mode: mig, profile: {profile}}}}}"
    )
    assert [d.message for d in found.diagnostics if d.code == "KTO012"] == [outcome]


def test_slices_of_a_gpu_that_nobody_recorded_are_unknown(context: Context) -> None:
    """Hopper and later may be cut; a list that is missing does not say that they cannot."""
    gpus = tuple(
        gpu.model_copy(update={"mig_profiles": None}) if gpu.name == "NVIDIA H200" else gpu
        for gpu in context.shared.gpus
    )
    without = replace(context, shared=replace(context.shared, gpus=gpus))
    found = report(
        without, "deployment: {instanceType: p5en.48xlarge, partition: {mode: mig, profile: 3g.71gb}}"
    )
    assert next(s.reason for s in found.skips if s.code == "KTO012") == (
        "which slices NVIDIA H200 can be cut into is not recorded"
    )
    assert not [d for d in found.diagnostics if d.code == "KTO012"]


def test_states_that_outnumber_the_blocks_are_no_lack_of_memory(catalog: Catalog) -> None:
    """The manifests set as many requests as fit; a proposal that asks for more is told how many that is."""
    found = catalog.entry("qwen3.6-27b")
    assert found is not None
    assert found.proposal is not None
    chosen = tuple(check for check in CHECKS if check.code == "MEM001")
    context = Context(catalog.shared, catalog.shared.policy.default_profile())
    assert codes(check_entry(found, chosen, context)) == []
    vllm = found.proposal.runtimes[0].model_copy(  # type: ignore[index]
        update={"config": {"max-model-len": 32768, "max-num-seqs": 1024}}
    )
    greedy = replace(found, proposal=found.proposal.model_copy(update={"runtimes": (vllm,)}))
    (finding,) = check_entry(greedy, chosen, context).diagnostics
    assert "blocks for states and max_num_seqs is 1,024" in finding.message


def with_options(options: str, *, count: int = 1, trust: bool = False) -> str:
    """A fragment with options beside max-model-len; the claims are of `count` GPUs with 80GB."""
    return (
        f"requirements: {{gpuCount: {count}, totalGPUMemory: {80 * count}GB}}\n"
        f"runtimes: [{{name: vllm, distributedInference: {str(count > 1).lower()}, "
        f"trustRemoteCode: {str(trust).lower()}, config: {{max-model-len: 16384, {options}}}}}]"
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("tensor-parallel-size: 4", 1),
        ("tensor_parallel_size: 2", 4),
        ("pipeline-parallel-size: 3", 4),
        ("tensor-parallel-size: 2, data-parallel-size: 4", 4),
        ("tensor-parallel-size: many", 4),
    ],
)
def test_parallel_sizes_that_do_not_make_the_claimed_gpus_are_refused(
    context: Context, options: str, count: int
) -> None:
    expected = {"RUN003"} if "many" in options else {"RUN006"}
    assert expected <= set(codes(report(context, with_options(options, count=count))))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("tensor-parallel-size: 4", 4),
        ('tensor-parallel-size: "4"', 4),
        ("pipeline-parallel-size: 2", 4),
        ("tensor-parallel-size: 2, data-parallel-size: 2", 4),
    ],
)
def test_parallel_sizes_that_make_the_claimed_gpus_are_taken(
    context: Context, options: str, count: int
) -> None:
    found = codes(report(context, with_options(options, count=count)))
    assert not {"RUN001", "RUN006", "MEM001"} & set(found)


def test_an_illegal_split_over_nodes_is_found_by_its_own_tensor_parallel_size(context: Context) -> None:
    found = report(context, with_options("tensor-parallel-size: 3, pipeline-parallel-size: 2", count=6))
    (finding,) = [d for d in found.diagnostics if d.code == "RUN001"]
    assert finding.message.startswith("tensor_parallel_size 3 is not possible")


def test_pipeline_stages_are_planned_as_such(context: Context) -> None:
    """24 heads could not be divided by 16 GPUs; by 8 in two stages they can."""
    facts = "facts: {config: {num_attention_heads: 24, hidden_size: 3072}}\n"
    split = "tensor-parallel-size: 8, pipeline-parallel-size: 2"
    found = codes(report(context, facts + with_options(split, count=16)))
    assert "RUN001" not in found
    assert "RUN001" in codes(report(context, facts + with_options("seed: 0", count=16)))


@pytest.mark.parametrize(
    "options",
    [
        "revision: main",
        "tokenizer_revision: v1",
        "code-revision: main",
        "model: other-org/other",
        "tokenizer: other-org/other",
        "middleware: my.module",
        "tool-parser-plugin: /mnt/parser.py",
        "api-key: secret",
        "hf-token: hf_x",
        "otlp-traces-endpoint: http://collector.example",
        "allowed-local-media-path: /",
        "speculative-config: {model: other-org/draft, num_speculative_tokens: 3}",
        """speculative-config: '{"model": "other-org/draft"}'""",
        "speculative-config: {model: other-org/draft, revision: main}",
    ],
)
def test_an_option_that_leads_away_from_what_was_pinned_is_refused(context: Context, options: str) -> None:
    assert "SEC007" in codes(report(context, with_options(options)))


@pytest.mark.parametrize(
    "options",
    [
        f"revision: '{example.REVISION}'",
        f"code-revision: '{'a' * 40}'",
        "tokenizer: example-org/Example-7B-Instruct",
        "speculative-config: {method: ngram, num_speculative_tokens: 3}",
        f"speculative-config: {{model: other-org/draft, revision: '{'a' * 40}'}}",
    ],
)
def test_an_option_that_stays_with_what_was_pinned_is_taken(context: Context, options: str) -> None:
    assert "SEC007" not in codes(report(context, with_options(options)))


def test_a_secret_in_an_option_is_not_repeated(context: Context) -> None:
    found = report(context, with_options("hf-token: hf_canary")).diagnostics
    assert [d.message for d in found if d.code == "SEC007"] == ["hf-token would be public"]
    assert not [d for d in found if "hf_canary" in d.message + (d.hint or "")]


def test_trust_that_nobody_can_look_at_is_an_error(context: Context) -> None:
    found = report(context, f"facts: null\n{with_options('seed: 0', trust=True)}").diagnostics
    assert [d.severity for d in found if d.code == "SEC003"] == [Severity.ERROR]


def test_trust_with_transcribed_facts_is_a_warning(context: Context) -> None:
    source = "facts: {source: {kind: transcribed, references: [{from: a page, fields: [repoId]}]}}\n"
    found = report(context, source + with_options("seed: 0", trust=True)).diagnostics
    assert [d.severity for d in found if d.code == "SEC003"] == [Severity.WARNING]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("max_model_len: 8192", "max-model-len is given twice"),
        ('enforce-eager: ""', "KAITO's expansion leaves room for one switch"),
        ('trust-remote-code: ""', "trust-remote-code is an option here"),
        ("seed: null", "seed has no value"),
        ("chat-template: -x", "chat-template has a value that would be read as another option"),
        ("allowed-origins: [a, b]", "allowed-origins is a list"),
    ],
)
def test_what_the_manifests_cannot_say_is_an_error_with_a_hint(
    context: Context, options: str, message: str
) -> None:
    (finding,) = [d for d in report(context, with_options(options)).diagnostics if d.code == "KTO007"]
    assert finding.message.startswith(message)
    assert finding.hint


def test_a_name_that_kubernetes_does_not_take_is_refused(context: Context) -> None:
    found = report(context, "deployment: {configMap: My_Config, modelAccessSecret: hf.token}").diagnostics
    assert [(d.message, d.hint) for d in found if d.code == "KTO007"] == [
        ("'My_Config' is not a name that Kubernetes accepts", "configMap: my-config")
    ]


@pytest.mark.parametrize(
    ("name", "severity", "hint"),
    [
        ("Standard_NC24_A100", Severity.ERROR, "did you mean 'Standard_NC24ads_A100_v4'?"),
        ("Standard_NC24", Severity.ERROR, "did you mean 'Standard_NC24ads_A100_v4'?"),
        ("p5e", Severity.ERROR, "did you mean 'p5e.48xlarge' or 'p5en.48xlarge'?"),
        ("my-own-node", Severity.ERROR, "choose one of that file, or add it there with its source"),
        (
            "Standard_NZ99lms_v9",
            Severity.WARNING,
            "choose one of that file, or add it there with its source",
        ),
        ("Standard_D4s_v5", Severity.ERROR, "choose one of instance-types.yaml"),
        ("m5.large", Severity.ERROR, "did you mean 'g5.xlarge'?"),
    ],
)
def test_an_instance_type_that_nobody_listed_is_reported(
    context: Context, name: str, severity: Severity, hint: str
) -> None:
    found = report(context, f"deployment: {{instanceType: {name}}}").diagnostics
    assert [(d.severity, d.hint) for d in found if d.code == "KTO008"] == [(severity, hint)]


@pytest.mark.parametrize("name", ["Standard_D4s_v5", "standard_e8s_v5", "m5.large", "c7i.4xlarge"])
def test_a_machine_without_a_gpu_is_an_error(context: Context, name: str) -> None:
    found = report(context, f"deployment: {{instanceType: {name}}}").diagnostics
    assert [(d.severity, d.message) for d in found if d.code == "KTO008"] == [
        (Severity.ERROR, f"{name} has no GPU")
    ]


def test_onnx_beside_a_runtime_that_kaito_has_is_a_warning(context: Context) -> None:
    runtimes = (
        "runtimes: [{name: vllm, distributedInference: false}, {name: onnx, distributedInference: false}]"
    )
    found = report(context, runtimes).diagnostics
    assert [d.severity for d in found if d.code == "RUN007"] == [Severity.WARNING]


def test_a_runtime_that_is_there_twice_is_an_error(context: Context) -> None:
    runtimes = (
        "runtimes: [{name: vllm, distributedInference: false}, {name: vllm, distributedInference: false}]"
    )
    found = report(context, runtimes).diagnostics
    assert [d.message for d in found if d.code == "RUN007"] == ["vllm is there twice"]


@pytest.mark.parametrize("length", ["'200000'", "200000"])
def test_a_quoted_context_counts_as_one(context: Context, length: str) -> None:
    options = f"runtimes: [{{name: vllm, distributedInference: false, config: {{max-model-len: {length}}}}}]"
    assert {"MEM001", "MEM006", "KTO005"} <= set(codes(report(context, options)))


def test_a_year_before_kaito_is_a_slip(context: Context) -> None:
    found = report(context, "metadata: {creationDate: 2015-01-05}").diagnostics
    assert [d.message for d in found if d.code == "DOC001"] == [
        "2015 cannot be the year of a proposal to KAITO"
    ]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("A" * 40, "a commit has lower-case hex digits"),
        ("a" * 41, "a commit has 40, not 41, hex digits"),
    ],
)
def test_a_commit_of_another_form_is_not_called_a_branch(
    context: Context, version: str, message: str
) -> None:
    found = report(context, f"requirements: {{version: {version}}}").diagnostics
    assert [d.message.startswith(message) for d in found if d.code == "REV001"] == [True]


def test_a_switch_that_has_no_room_is_to_be_left_out(context: Context) -> None:
    found = report(context, with_options("enable-prefix-caching: false")).diagnostics
    hints = [d.hint or "" for d in found if d.code == "RUN004"]
    assert [hint.partition(":")[0] for hint in hints] == ["leave it out"]


@pytest.mark.parametrize(("option", "value"), [("quantization", "awq4"), ("load-format", "ggufx")])
def test_a_value_that_only_a_plug_in_could_add_is_refused(context: Context, option: str, value: str) -> None:
    assert "RUN003" in codes(report(context, with_options(f"{option}: {value}")))


@pytest.mark.parametrize(("max_model_len", "advice"), [(16384, ["gpuCount: 1"]), (20480, [])])
def test_mem003_does_not_advise_what_may_not_fit(
    max_model_len: int, advice: list[str], context: Context
) -> None:
    fragment = f"""
requirements: {{gpuCount: 2, totalGPUMemory: 48GB, perGPUMemory: 24GB, contextLength: {max_model_len}}}
deployment: {{instanceType: Standard_NV36ads_A10_v5}}
runtimes: [{{name: vllm, distributedInference: true, config: {{max-model-len: {max_model_len}}}}}]
"""
    found = report(context, fragment, selected(["MEM003"], []))
    assert [d.hint for d in found.diagnostics] == advice
    asked = asked_of(Subject.of(entry_of(fragment)), context)
    assert isinstance(asked, Asked)
    on_one = [p.fits for p in replace(asked, request=_on_one(asked.request)).plans(asked.settings)]
    assert on_one == [Fit.YES if advice else Fit.TIGHT]


def _on_one(request: PlanRequest) -> PlanRequest:
    return replace(request, parallelism=Parallelism(1))


def test_claims_of_a_file_with_errors_are_unknown_and_not_none(context: Context) -> None:
    broken = replace(entry_of(), proposal=None)
    found = check_entry(broken, CHECKS, context)
    assert not found.readable
    assert set(found.claims.values()) == {ClaimState.UNKNOWN}
    assert len(found.claims) == 8
