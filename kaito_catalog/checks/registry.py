"""Every check and every code: reading `CHECKS` is knowing what is checked."""

from __future__ import annotations

from collections.abc import Sequence

from kaito_catalog.checks import arc, doc, evd, kto, kto_deployment, kto_image, lic, mem, rev, run, sec, sto
from kaito_catalog.checks.base import Check, Rule, read_rule
from kaito_catalog.checks.hub import HUB_RULES
from kaito_catalog.checks.syntax import SYNTAX_RULES
from kaito_catalog.diagnostics import Severity
from kaito_catalog.errors import CatalogError

CHECKS: tuple[Check, ...] = (
    doc.calendar_dates,
    doc.folder_name,
    doc.download_site,
    doc.order_of_dates,
    doc.status_against_history,
    doc.heading_names_the_model,
    doc.one_model_each,
    doc.missing_claims,
    doc.words_against_configuration,
    doc.distributed_against_gpus,
    lic.license_of_the_hub,
    lic.known_license,
    lic.gated_needs_a_secret,
    lic.license_text,
    lic.text_of_the_license,
    rev.full_commit,
    rev.facts_at_the_revision,
    rev.facts_of_the_repository,
    sto.room_for_the_weights,
    sto.room_for_all_files,
    sto.not_far_too_much,
    sto.weights_are_complete,
    sec.no_pickle,
    sec.code_of_others_is_pinned,
    sec.code_has_hashes,
    sec.safe_names,
    sec.weights_have_hashes,
    sec.trust_is_needed,
    sec.options_stay_with_what_was_pinned,
    arc.type_of_the_hub,
    arc.architecture_that_vllm_has,
    arc.weights_that_vllm_loads,
    run.legal_tensor_parallel_size,
    run.known_options,
    run.legal_values,
    run.switches_survive_kaito,
    run.known_parsers,
    run.parallel_sizes_make_the_gpus,
    run.runtime_that_kaito_has,
    run.server_where_kaito_looks,
    run.adapters_that_vllm_loads,
    mem.fits,
    mem.fits_at_kaitos_utilization,
    mem.no_more_gpus_than_needed,
    mem.total_is_count_times_each,
    mem.context_within_the_limit,
    mem.context_is_what_is_served,
    mem.gpu_of_the_instance_type,
    kto.kaito_splits_legally,
    kto.kaito_starts_what_is_claimed,
    kto.name_and_architecture_agree,
    kto.declared_as_kaito_chooses,
    kto.context_that_admission_takes,
    kto.tool_template_has_a_parser,
    kto.manifests_can_say_it,
    kto.instance_type_that_kaito_knows,
    kto.starts_before_kaito_gives_up,
    kto.lmcache_leaves_the_model_its_cache,
    kto_deployment.adapters_that_kaito_takes,
    kto_deployment.slice_that_serves_the_model,
    kto_deployment.nodes_are_counted_by_kaito,
    kto_deployment.context_that_vllm_chooses,
    kto_image.chat_template_of_the_image,
    kto_image.configuration_that_transformers_reads,
    kto_image.kernels_of_the_image,
    evd.evidence_is_current,
    evd.plan_equals_exact_plan,
    evd.dry_run_served,
    evd.reported_start_served,
)

OF_MANIFESTS: tuple[Check, ...] = (
    lic.gated_needs_a_secret,
    sec.options_stay_with_what_was_pinned,
    arc.architecture_that_vllm_has,
    arc.weights_that_vllm_loads,
    *(check for check in CHECKS if check.rule.family in ("RUN", "MEM", "KTO")),
)
"""The checks of a Workspace, InferenceSet or ConfigMap, which say how a model is served and claim nothing of it."""

UNUSED_WAIVER: Rule = read_rule(
    "DOC011",
    Severity.WARNING,
    """A waiver waives nothing.

A waiver accepts a finding, with a reason. One that no finding needs would hide the next one, so it is removed.

Fails::

    waivers: {STO001: the disk is shared}

Passes::

    waivers: {}
""",
)

REFUSED_BY_CRD: Rule = read_rule(
    "KTO015",
    Severity.ERROR,
    """KAITO's own CRD refuses the manifest.

With `--crds DIR`, the folder `config/crd/bases` of a checkout of KAITO, manifests are held against the CRDs as the API
server would: their schemas, unknown fields, and their CEL rules. Rules about a change of an object are left out.

Fails::

    kind: MultiRoleInference
    spec: {roles: [{type: prefill}, {type: prefill}]}

Passes::

    kind: MultiRoleInference
    spec: {roles: [{type: prefill}, {type: decode}]}
""",
)

RULES: tuple[Rule, ...] = (
    *SYNTAX_RULES,
    *(check.rule for check in CHECKS),
    UNUSED_WAIVER,
    REFUSED_BY_CRD,
    *HUB_RULES,
)
"""The documentation of every code, for `explain`, the docs and SARIF."""

ALL_CODES = frozenset(rule.code for rule in RULES)
FAMILIES: dict[str, str] = {
    "YML": "is the file YAML that everybody reads the same",
    "SCH": "does it have the form of a proposal",
    "DOC": "dates, names, status, one model, no gaps",
    "LIC": "the licence against the Hub's, and what follows from it",
    "REV": "a full commit, and facts about that commit",
    "STO": "disk against the files",
    "SEC": "what loading the model runs, and whether its files are what they were",
    "ARC": "the kind of model",
    "RUN": "options that vLLM takes",
    "MEM": "GPUs against the memory plan",
    "KTO": "what KAITO would start by itself",
    "EVD": "what running vLLM showed, against plan and claims",
    "HUB": "the recorded facts against the Hub now (--online)",
}


def rule(code: str) -> Rule | None:
    """The rule of a code, in any case."""
    return next((found for found in RULES if found.code == code.upper()), None)


def require_codes(codes: Sequence[str]) -> list[str]:
    """`codes` in upper case.

    Raises:
        CatalogError: no code starts with one of them.
    """
    found = [code.strip().upper() for code in codes]
    for code in found:
        if not code or not any(known.startswith(code) for known in ALL_CODES):
            raise CatalogError(f"there is no check '{code}'", hint="'kaito-catalog explain' lists the codes")
    return found


def selected(select: Sequence[str], ignore: Sequence[str]) -> tuple[Check, ...]:
    """The checks whose code starts with one of `select` (all, when empty) and none of `ignore`."""
    return tuple(
        check
        for check in CHECKS
        if (not select or check.code.startswith(tuple(select)))
        and not (ignore and check.code.startswith(tuple(ignore)))
    )
