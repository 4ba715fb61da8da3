"""From a repository to a proposal: every field that can be derived, marked as such; the rest is a visible gap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.diagnostics import Route
from kaito_catalog.documents import reading, writing
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import LicenseFacts, ModelFacts
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.hub.facts import Recorded, license_path
from kaito_catalog.hub.repository import Repository, printable
from kaito_catalog.kaito.model_catalog import model_token_limit
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.values import Fit
from kaito_catalog.plans.instance_types import InstanceTypePlan, facts_shape, plan_instance_types
from kaito_catalog.proposals.parsers import family_options
from kaito_catalog.quantity import at_least_gb, gb, gib
from kaito_catalog.system import files

GAP = "TBD"
SECRET = "hf-token"  # noqa: S105 - the name of a Kubernetes Secret
SENSIBLE_MAX_MODEL_LEN = 32768
"""Long enough for most requests; a model that can do more shows it in its plan."""
_SCHEMA = "# yaml-language-server: $schema=../../../schema/proposal.schema.json\n"


@dataclass(frozen=True)
class NewProposal:
    """A proposal as a value, the reason of each derived field, and what is left for a person."""

    name: str
    value: dict[str, Any]
    facts: ModelFacts
    derived: Mapping[Route, str]
    gaps: tuple[str, ...]

    @property
    def text(self) -> str:
        """proposal.yaml, each derived line with its reason as a comment."""
        return _SCHEMA + commented(self.value, self.derived)


def family_name(repository: str) -> str:
    """The family in a repository's name: ``Llama-3.3-70B-Instruct`` is of ``Llama 3.3``."""
    words: list[str] = []
    for word in re.split(r"[-_]", repository):
        if re.fullmatch(r"(?i)(\d+x)?\d+(\.\d+)?[bmt]|a\d+(\.\d+)?b|e\d+b", word):
            break
        if words and re.fullmatch(
            r"(?i)instruct|chat|it|base|hf|fp8|nvfp4|awq|gptq|int[48]|bf16|mini|small|medium|large|nano|super|ultra|\d{3,4}",
            word,
        ):
            break
        words.append(word)
    return " ".join(words) or repository


@dataclass
class _Draft:
    recorded: Recorded
    repository: Repository
    shared: Shared
    profile: Profile
    today: date
    author: str | None
    derived: dict[Route, str] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    @property
    def facts(self) -> ModelFacts:
        return self.recorded.facts

    def mark(self, value: Any, reason: str, *route: str | int) -> Any:
        """`value`, noted as derived."""
        self.derived[route] = f"derived: {reason}"
        return value

    def gap(self, what: str, *route: str | int) -> str:
        """A visible gap, which `check` points at (DOC008)."""
        self.derived[route] = f"to do: {what}"
        self.gaps.append(f"{'.'.join(str(part) for part in route)}: {what}")
        return GAP


def new_proposal(
    recorded: Recorded,
    repository: Repository,
    shared: Shared,
    profile: Profile,
    *,
    today: date,
    author: str | None = None,
) -> NewProposal:
    """A proposal for a repository whose facts were read.

    Args:
        recorded: its facts, perhaps with gaps where access was missing.
        repository: what the Hub lists (for the downloads, which are no facts).
        shared: instance types and GPUs.
        profile: the KAITO release whose vLLM the plan is for.
        today: the day of the proposal.
        author: who writes it; a gap where it is not given.

    Raises:
        CatalogError: the repository's name cannot be a folder of the catalog.
    """
    draft = _Draft(recorded, repository, shared, profile, today, author)
    facts = recorded.facts
    name = files.safe_name(facts.repo_id.partition("/")[2].lower())
    page = f"https://huggingface.co/{facts.repo_id}"
    day = today.isoformat()
    requirements, chosen = _requirements(draft, page)
    value: dict[str, Any] = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelProposal",
        "metadata": {
            "name": name,
            "title": "Proposal for new model support",
            "heading": f"Add [{facts.repo_id}]({page}) to KAITO supported model list",
            "authors": [
                author or draft.gap("your GitHub handle, such as '@someone'", "metadata", "authors", 0)
            ],
            "reviewers": ["KAITO contributor"],
            "creationDate": day,
            "lastUpdated": day,
            "status": "provisional",
        },
        "summary": _summary(draft, page),
        "requirements": requirements,
        "runtimes": [_runtime(draft, requirements)],
        "deployment": _deployment(draft, name, chosen),
        "history": [
            {"event": "Open proposal PR", "date": day, "done": False},
            {"event": "Start model integration", "done": False},
            {"event": "Complete model support", "done": False},
        ],
    }
    _validated(value)
    return NewProposal(name, value, facts, draft.derived, tuple(draft.gaps))


def _summary(draft: _Draft, page: str) -> dict[str, Any]:
    facts, repository = draft.facts, draft.repository
    at = (facts.revision or "")[:12]
    summary: dict[str, Any] = {
        "description": draft.gap(
            "what the model does, and where its documentation is", "summary", "description"
        )
    }
    if repository.downloads is not None:
        summary["usage"] = {
            "statistics": draft.mark(
                f"{repository.downloads:,} downloads in the last 30 days",
                "from the Hub",
                "summary",
                "usage",
                "statistics",
            ),
            "asOf": draft.today.isoformat(),
            "source": page,
        }
    if facts.license is None:
        summary["license"] = {"id": draft.gap("the Hub names no licence", "summary", "license", "id")}
        return summary
    id_ = facts.license.id
    license_: dict[str, Any] = {}
    if id_ == "other" and facts.license.name and re.fullmatch(r"[A-Za-z0-9.-]{1,60}", facts.license.name):
        reason = f"the Hub's licence is 'other', called {facts.license.name}"
        license_["id"] = draft.mark(f"LicenseRef-{facts.license.name}", reason, "summary", "license", "id")
    elif (doubt := _doubt(facts.license)) is not None:
        license_["id"] = draft.gap(doubt, "summary", "license", "id")
    else:
        license_["id"] = draft.mark(id_, f"from the Hub at {at}", "summary", "license", "id")
    path = license_path(file.path for file in repository.files)
    hashed = f"; its text's sha256 is {facts.license.sha256[:12]}…" if facts.license.sha256 else ""
    if facts.license.link:
        license_["url"] = draft.mark(
            facts.license.link, "from the model's card" + hashed, "summary", "license", "url"
        )
    elif path is not None:
        url = f"{page}/blob/{facts.revision or 'main'}/{path}"
        license_["url"] = draft.mark(url, f"the file at the revision{hashed}", "summary", "license", "url")
    elif spdx := draft.shared.policy.licenses.spdx.get(id_):
        license_["url"] = draft.mark(
            f"https://spdx.org/licenses/{spdx}.html", "SPDX's text", "summary", "license", "url"
        )
    if facts.gated not in (None, "no"):
        license_["note"] = draft.mark(
            "The files are gated: agree to the terms on the model's page and supply a token to download them.",
            f"gated: {facts.gated}",
            "summary",
            "license",
            "note",
        )
    summary["license"] = license_
    return summary


def _doubt(license_: LicenseFacts) -> str | None:
    """Why a person has to say which licence holds; None where the card names one."""
    if "unknown" in license_.ids:
        return "the model's card says that its licence is unknown"
    if len(license_.ids) > 1:
        how = "join them by AND where all hold, by OR where one may be chosen"
        return f"the card lists {' and '.join(license_.ids)}: {how}"
    return license_.contradiction


def _requirements(draft: _Draft, page: str) -> tuple[dict[str, Any], InstanceTypePlan | None]:
    facts = draft.facts
    repository_name = facts.repo_id.partition("/")[2]
    type_ = facts.pipeline_tag
    requirements: dict[str, Any] = {
        "familyName": draft.mark(
            family_name(repository_name), "from the repository's name", "requirements", "familyName"
        ),
        "type": draft.mark(type_, "the Hub's pipeline tag", "requirements", "type")
        if type_
        else draft.gap("the Hub has no pipeline tag", "requirements", "type"),
        "downloadSite": page,
    }
    if facts.revision:
        requirements["version"] = draft.mark(
            facts.revision, "the commit that was read", "requirements", "version"
        )
    else:
        requirements["version"] = draft.gap("the commit of these files", "requirements", "version")
    requirements["storageSize"] = _storage(draft)
    shape = facts_shape(facts)
    chosen: InstanceTypePlan | None = None
    why = ""
    if isinstance(shape, Unsupported):
        why = f"no plan: {shape.reason}"
        context = None
    else:
        context, chosen, why = _smallest(draft, shape)
    if draft.recorded.missing:
        why = "config.json could not be read: " + draft.recorded.missing[0].message.rpartition(": ")[2]
    for key, value in _gpus(draft, chosen).items():
        route = ("requirements", key)
        requirements[key] = (
            draft.mark(value, why if key == "gpuCount" else _gpu_reason(chosen, key), *route)
            if value is not None
            else draft.gap(printable(why), *route)
        )
    if context is None:
        requirements["contextLength"] = draft.gap(
            "the context that the GPU claims are about", "requirements", "contextLength"
        )
    else:
        assert isinstance(shape, Shape)
        own = f"the model's own limit is {shape.max_model_len:,}"
        reason = (
            own if context == shape.max_model_len else f"{own}; a sensible start, see 'kaito-catalog plan'"
        )
        requirements["contextLength"] = draft.mark(context, reason, "requirements", "contextLength")
    return requirements, chosen


def _storage(draft: _Draft) -> str:
    weights = draft.facts.weights.total if draft.facts.weights else None
    total = draft.facts.repository
    if weights is None:
        return draft.gap("the size of the weights is not known", "requirements", "storageSize")
    exact = f"vLLM downloads {weights.size_bytes:,} bytes of weights ({gib(weights.size_bytes)})"
    # Room for tokenizer and configuration; the whole repository where that is no more than a tenth on top.
    need = total.size_bytes if total and total.size_bytes <= 1.1 * weights.size_bytes else weights.size_bytes
    need = max(need, weights.size_bytes)
    if total is not None:
        exact += f", the repository holds {gb(total.size_bytes)}"
    return str(draft.mark(at_least_gb(need), exact, "requirements", "storageSize"))


def _smallest(draft: _Draft, shape: Shape) -> tuple[int, InstanceTypePlan | None, str]:
    """A sensible context, and the instance type with the least GPU memory that serves it."""
    context = min(shape.max_model_len, SENSIBLE_MAX_MODEL_LEN)
    # KAITO reads old forms of RoPE scaling otherwise than vLLM, and takes no more than it read.
    context = min(context, model_token_limit(draft.facts) or context)
    while True:
        plans = plan_instance_types(draft.facts, draft.shared, draft.profile, max_model_len=context)
        accepted = release_of(draft.profile).clouds
        fitting = [
            p
            for p in plans
            if p.plan.fits is Fit.YES
            and p.gpus_needed == p.instance_type.gpu_count
            and p.instance_type.cloud in accepted
        ]
        azure = [p for p in fitting if p.instance_type.cloud == "azure"]
        found = min(azure or fitting, key=lambda p: _size(draft.shared, p), default=None)
        if found is not None or context <= 2048:
            break
        context //= 2
    if found is None:
        reasons = [p.plan.reason for p in plans if p.plan.fits is Fit.UNKNOWN and p.plan.reason]
        known = any(p.plan.fits is not Fit.UNKNOWN for p in plans)
        why = (
            "no instance type serves it on one node"
            if known
            else f"no plan: {reasons[0] if reasons else 'unknown'}"
        )
        return min(shape.max_model_len, SENSIBLE_MAX_MODEL_LEN), None, why
    return context, found, _reason(found)


def _size(shared: Shared, found: InstanceTypePlan) -> tuple[int, int, str]:
    """Least memory on the brochure first, then fewest GPUs: 4 × 80GB before 8 × 40GB."""
    machine = found.instance_type
    return (
        shared.gpu_by_name[machine.gpu].nominal_memory.bytes * machine.gpu_count,
        machine.gpu_count,
        machine.name,
    )


def _reason(found: InstanceTypePlan) -> str:
    per_gpu = found.plan.per_gpu
    assert per_gpu is not None
    needed = (
        per_gpu.weights_bytes
        + per_gpu.non_torch_bytes
        + per_gpu.activation_peak_bytes
        + per_gpu.cuda_graph_bytes
        + per_gpu.kv_cache_needed_bytes
    )
    return (
        f"each GPU needs {gib(needed)} (weights {gib(per_gpu.weights_bytes)}, KV cache "
        f"{gib(per_gpu.kv_cache_needed_bytes)}) at {found.plan.settings.max_model_len:,} tokens, "
        f"{found.plan.gpu.name} offers {gib(per_gpu.budget_bytes)}"
    )


def _gpus(draft: _Draft, chosen: InstanceTypePlan | None) -> dict[str, Any]:
    if chosen is None:
        return {"gpuCount": None, "totalGPUMemory": None, "perGPUMemory": None}
    gpu = draft.shared.gpu_by_name[chosen.instance_type.gpu]
    count = chosen.instance_type.gpu_count
    each = gpu.nominal_memory
    number = re.match(r"[0-9]+(?:\.[0-9]+)?", each.text)
    assert number is not None
    total = f"{float(number[0]) * count:g}{each.text[number.end() :].strip()}"
    return {"gpuCount": count, "totalGPUMemory": total, "perGPUMemory": each.text.replace(" ", "")}


def _gpu_reason(chosen: InstanceTypePlan | None, key: str) -> str:
    if chosen is None:
        return ""
    machine = chosen.instance_type
    return (
        f"{machine.name}, {machine.gpu_count} × {machine.gpu}"
        if key == "totalGPUMemory"
        else f"of {machine.gpu}"
    )


def _runtime(draft: _Draft, requirements: Mapping[str, Any]) -> dict[str, Any]:
    facts = draft.facts
    count, context = requirements["gpuCount"], requirements["contextLength"]
    runtime: dict[str, Any] = {"name": "vllm"}
    if isinstance(count, int):
        runtime["distributedInference"] = draft.mark(
            count > 1, "one GPU" if count == 1 else f"{count} GPUs", "runtimes", 0, "distributedInference"
        )
    config: dict[str, Any] = {}
    if isinstance(context, int):
        shape = facts_shape(facts)
        limit = shape.max_model_len if isinstance(shape, Shape) else None
        runtime["customConfigurations"] = f"max-model-len is set to {context} by default" + (
            f"; the model's own limit is {limit}, and a longer context takes more GPU memory."
            if limit and limit != context
            else ", the model's own limit."
        )
        config["max-model-len"] = draft.mark(
            context, "contextLength", "runtimes", 0, "config", "max-model-len"
        )
    name = facts.repo_id.partition("/")[2].lower()
    for key, value, reason in family_options(name, facts):
        config[key] = draft.mark(value, reason, "runtimes", 0, "config", key)
    if config:
        runtime["config"] = config
    code = facts.remote_code
    if draft.recorded.missing:
        draft.gaps.append("runtimes.0.trustRemoteCode: unknown: whether the configuration names code")
    elif code is not None and code.auto_map:
        targets = ", ".join(printable(str(target)) for target in list(code.auto_map.values())[:2])
        runtime["trustRemoteCode"] = draft.mark(
            False,
            f"the repository has code ({targets}); true only if vLLM cannot do without",
            "runtimes",
            0,
            "trustRemoteCode",
        )
    else:
        runtime["trustRemoteCode"] = draft.mark(
            False, "no auto_map in config.json", "runtimes", 0, "trustRemoteCode"
        )
    return runtime


def _deployment(draft: _Draft, name: str, chosen: InstanceTypePlan | None) -> dict[str, Any]:
    deployment: dict[str, Any] = {}
    if chosen is not None:
        deployment["instanceType"] = draft.mark(
            chosen.instance_type.name,
            "the least GPU memory that serves the context",
            "deployment",
            "instanceType",
        )
    if draft.facts.gated not in (None, "no"):
        deployment["modelAccessSecret"] = draft.mark(
            SECRET, "the model is gated", "deployment", "modelAccessSecret"
        )
    deployment["configMap"] = f"{re.sub(r'[._]', '-', name)[:46].rstrip('-')}-inference-params"
    return deployment


def commented(value: dict[str, Any], comments: Mapping[Route, str]) -> str:
    """`value` as YAML with a comment at the end of the line of each key.

    Raises:
        CatalogError: the comments would change what is read back.
    """
    text = writing.write(value, width=100_000)
    document = reading.parse(text, path="proposal.yaml")
    lines = text.splitlines()
    for route, comment in comments.items():
        if route in document.spans:
            line = document.place(route).line - 1
            lines[line] += (
                f"  # {printable(' '.join(comment.split()))}"
                if len(comment) <= 200
                else f"  # {comment[:199]}…"
            )
    result = "\n".join(lines) + "\n"
    again = reading.parse(result, path="proposal.yaml")
    if again.problems or again.value != document.value:
        raise CatalogError("the proposal cannot be written with its comments", hint="please report this")
    return result


def _validated(value: dict[str, Any]) -> None:
    document = reading.parse(writing.write(value), path="proposal.yaml")
    _, problems = load(document, Proposal)
    if problems:
        raise CatalogError(f"what was read makes no proposal: {problems[0].message}", hint=problems[0].hint)
