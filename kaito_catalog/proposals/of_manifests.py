"""What KAITO's manifests say → a proposal: for `check` with places in the manifest, for `import` with gaps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kaito_catalog.catalog.entries import Entry, Shared
from kaito_catalog.catalog.reading import with_facts_of_the_catalog
from kaito_catalog.diagnostics import Diagnostic, Severity
from kaito_catalog.documents.streams import PlacedDocument
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.deployed import slice_node
from kaito_catalog.kaito.estimator import Estimate
from kaito_catalog.kaito.markdown.template import KEY_ORDER, PROPOSAL_API_VERSION
from kaito_catalog.kaito.objects import REFUSED, ManifestModel
from kaito_catalog.kaito.release import Release
from kaito_catalog.plans.kaito_start import sized_by_kaito
from kaito_catalog.quantity import GIB
from kaito_catalog.system.files import NAME

GAP = "TBD"
_REVISION = re.compile(r"[0-9a-f]{40}\Z")
_REVISIONS = ("revision", "code-revision", "tokenizer-revision")
_UNKNOWN_MODEL = "unknown"


def proposal_in(manifest: ManifestModel) -> Proposal:
    """What a manifest says as a proposal; nothing is filled in.

    Raises:
        CatalogError: KAITO would not take it so.
    """
    value = _value(manifest, day="1970-01-01", repo_id=manifest.repo_id)
    for problem in manifest.problems:
        if problem.fails:
            raise CatalogError(f"{problem.place}: {problem.message}", hint=problem.hint)
    try:
        return Proposal.model_validate(value)
    except ValidationError as error:
        document = PlacedDocument.of(value, manifest.places, manifest.place.path)
        found = _invalid(document, error)
        raise CatalogError(f"{found.place}: {found.message}") from error


def entry_of(manifest: ManifestModel, root: Path, shared: Shared, kaito: Release) -> Entry:
    """The manifest as an entry that checks can look at: its findings stand in the manifest's file.

    What a manifest leaves to KAITO is filled in as KAITO does it: the nodes that it would start, how it splits a model
    over several of them or copies it to each GPU, and remote code, which it allows for every model.
    """
    value = _value(manifest, day="1970-01-01", repo_id=manifest.repo_id)
    options = value["runtimes"][0].get("config", {})
    trust = "no-trust-remote-code" not in {name.replace("_", "-") for name in options}
    value["runtimes"][0]["trustRemoteCode"] = trust
    version = _pinned(options)
    if version is not None:
        value["requirements"]["version"] = version
    document = PlacedDocument.of(value, manifest.places, manifest.place.path)
    entry = Entry(manifest.name, Path(manifest.place.path), document, None, None, None, (), manifest.problems)
    try:
        proposal = Proposal.model_validate(value)
    except ValidationError as error:
        return replace(entry, problems=(*manifest.problems, _invalid(document, error)))
    entry = with_facts_of_the_catalog(replace(entry, proposal=proposal), root)
    value["requirements"] |= _requirements(proposal, entry.facts, shared, kaito)
    sized = sized_by_kaito(proposal, entry.facts, shared, kaito)
    if sized is not None:
        value["runtimes"][0]["config"] = {**_split(sized.estimate), **options}
    return replace(entry, proposal=Proposal.model_validate(value))


def _pinned(options: Mapping[str, Any]) -> str | None:
    """The commit that all revisions among the options are; None where there is none, or more than one."""
    found = {str(value) for name, value in options.items() if name.replace("_", "-") in _REVISIONS}
    version = next(iter(found)) if len(found) == 1 else ""
    return version if _REVISION.match(version) else None


def _split(estimate: Estimate) -> dict[str, int]:
    """KAITO's sizes where they are not one tensor-parallel group."""
    if estimate.pipeline_parallel_size > 1:
        pipeline = estimate.pipeline_parallel_size
        return {"tensor-parallel-size": estimate.tensor_parallel_size, "pipeline-parallel-size": pipeline}
    if estimate.data_parallel_size > 1:
        return {"tensor-parallel-size": 1, "data-parallel-size": estimate.data_parallel_size}
    return {}


def imported_value(
    manifest: ManifestModel, entry: Entry, shared: Shared, kaito: Release, today: date
) -> dict[str, Any]:
    """The value of a proposal.yaml; what the manifest does not say is left as a gap.

    Args:
        manifest: what is imported.
        entry: of it, which is readable (`entry_of`).
        shared: the GPUs of its machine.
        kaito: the release that counts its nodes, where it names none.
        today: the day of the proposal.
    """
    assert entry.proposal is not None
    facts = entry.facts
    value = _value(manifest, day=today.isoformat(), repo_id=facts.repo_id if facts else manifest.repo_id)
    runtime = value["runtimes"][0]
    options: dict[str, Any] = dict(runtime.pop("config", {}))
    named = {name.replace("_", "-"): name for name in options}
    requirements = {
        **value["requirements"],
        **_requirements(entry.proposal, facts, shared, kaito, named_nodes=True),
    }
    if facts is not None and facts.pipeline_tag:
        requirements["type"] = facts.pipeline_tag
    version = _pinned(options)
    if version is not None:
        requirements["version"] = version
        for name in _REVISIONS:
            options.pop(named.get(name, ""), None)
    if options.get(named.get("no-trust-remote-code", "")) == "":
        del options[named["no-trust-remote-code"]]
        runtime["trustRemoteCode"] = False
    if options:
        runtime["config"] = options
    value["requirements"] = {
        key: requirements[key] for key in KEY_ORDER["requirements"] if key in requirements
    }
    return value


def _value(manifest: ManifestModel, *, day: str, repo_id: str | None) -> dict[str, Any]:
    """The parts of a proposal that the manifest tells."""
    page = f"https://huggingface.co/{repo_id}" if repo_id else _UNKNOWN_MODEL
    name = (repo_id or manifest.name).rpartition("/")[2].lower()
    if not NAME.match(name) or ".." in name:
        name = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:90] or _UNKNOWN_MODEL
    heading = f"Add [{repo_id}]({page}) to KAITO supported model list" if repo_id else f"Add {name}"
    return {
        "apiVersion": PROPOSAL_API_VERSION,
        "kind": "ModelProposal",
        "metadata": {
            "name": name,
            "heading": heading,
            "authors": [GAP],
            "creationDate": day,
            "status": "provisional",
        },
        "requirements": {"familyName": GAP, "type": GAP, "downloadSite": page},
        "runtimes": [
            {"name": manifest.runtime, **({"config": dict(manifest.config)} if manifest.config else {})}
        ],
        **({"deployment": dict(manifest.deployment)} if manifest.deployment else {}),
    }


def _requirements(
    proposal: Proposal,
    facts: ModelFacts | None,
    shared: Shared,
    kaito: Release,
    *,
    named_nodes: bool = False,
) -> dict[str, Any]:
    """The GPUs that KAITO would start, or those of the nodes that are named; and the context of the options."""
    found: dict[str, Any] = {}
    if proposal.served_max_model_len is not None:
        found["contextLength"] = proposal.served_max_model_len
    deployment = proposal.deployment
    partition = deployment.partition if deployment else None
    name = deployment.instance_type if deployment else None
    machine = shared.instance_type(name) if name else None
    node = slice_node(partition.profile) if partition else None
    if node is not None:
        found |= {"gpuCount": 1, "perGPUMemory": f"{node.gpu_memory_bytes // GIB}GB"}
    elif machine is not None:
        sized = sized_by_kaito(proposal, facts, shared, kaito)
        named = deployment.node_count if deployment else None
        counted = sized.estimate.nodes if sized else None
        nodes = (named or counted if named_nodes else counted or named) or 1
        each = shared.gpu_by_name[machine.gpu].nominal_memory
        found |= {"gpuCount": nodes * machine.gpu_count, "perGPUMemory": each.text}
    return found


def _invalid(document: PlacedDocument, error: ValidationError) -> Diagnostic:
    first = error.errors(include_url=False)[0]
    route = tuple(part for part in first["loc"] if part != "[key]")
    message = f"{'.'.join(str(part) for part in route)}: {first['msg']}"
    return Diagnostic(REFUSED, Severity.ERROR, message, document.place(route))
