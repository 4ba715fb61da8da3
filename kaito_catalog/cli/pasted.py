"""`plan --from`: what a file or a pasted text starts: vLLM by a command line or in a container, or KAITO."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kaito_catalog.catalog.entries import Shared
from kaito_catalog.catalog.reading import shown
from kaito_catalog.cli.common import say
from kaito_catalog.documents import streams
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.objects import ManifestModel, objects_of, read_manifests
from kaito_catalog.kaito.release import release_of
from kaito_catalog.memory.environment import pairs
from kaito_catalog.plans.instance_types import slice_name
from kaito_catalog.plans.pasted_command import PastedStart, starts_in_text
from kaito_catalog.plans.pasted_objects import WORKLOADS, is_compose, starts_in_compose, starts_in_workload
from kaito_catalog.plans.request import PlanArguments
from kaito_catalog.plans.serve_options import ServeOptions
from kaito_catalog.proposals.of_manifests import proposal_in
from kaito_catalog.reports.summary import plural

MAX_BYTES = 2**20
_YAML = re.compile(r"^(?:apiVersion|kind|services|version|items|name|metadata)\s*:|\A\s*\{", re.MULTILINE)
_KAITO = "kaito.sh/"
_STARTS = "a vllm serve line, a compose file, a Kubernetes manifest that runs vLLM, or KAITO's Workspace, InferenceSet"


@dataclass(frozen=True)
class Pasted:
    """What is to be planned."""

    request: PlanArguments
    written: Proposal | None = None
    """What KAITO's manifest says; None for plain vLLM."""


def read_pasted(
    source: str, request: PlanArguments, shared: Shared, profile: Profile, *, read: bytes | None = None
) -> Pasted:
    """The request with what the file says where the command line says nothing.

    Args:
        source: a file, or `-` for what is pasted.
        request: of the command line; its model is empty where the file has to name it.
        shared: the instance types.
        profile: the release of KAITO, and the version of vLLM where no image names one.
        read: the file's content, where it has been read already.

    Raises:
        CatalogError: the file cannot be read, or holds no start or several.
    """
    path, data = _read(source) if read is None else (_shown(source), read)
    text = data.decode("utf-8", errors="replace")
    if Path(path).suffix in (".yaml", ".yml", ".json") or _YAML.search(text):
        documents = streams.parse_all(data, path=path)
        if any(item.api_version.startswith(_KAITO) for item in objects_of(documents)):
            return _of_kaito(documents, request, shared, profile)
        starts = _in_documents(documents)
    else:
        starts = starts_in_text(text, path)
    return Pasted(_of_vllm(_only(starts, path), request, profile))


def _shown(source: str) -> str:
    return "<stdin>" if source == "-" else shown(Path(source))


def _read(source: str) -> tuple[str, bytes]:
    if source == "-":
        return _shown(source), sys.stdin.buffer.read(MAX_BYTES + 1)
    path = Path(source)
    try:
        with path.open("rb") as stream:
            return shown(path), stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def _in_documents(documents: Sequence[Document]) -> list[PastedStart]:
    found: list[PastedStart] = []
    for document in documents:
        for problem in document.problems:
            raise CatalogError(f"{problem.place}: {problem.message}", hint=problem.hint)
        if is_compose(document):
            found += starts_in_compose(document)
    for item in objects_of(documents):
        found += starts_in_workload(item.document, item.base, item.value)
        if item.kind == "InferenceService":
            raise CatalogError(
                f"{item.place('kind')}: what an InferenceService starts, KServe decides",
                hint=f"name the pod that it makes: kubectl get pods -o yaml; these are read: {', '.join(WORKLOADS)}",
            )
    return found


def _only(starts: Sequence[PastedStart], path: str) -> PastedStart:
    """The one start that there is; the same one several times counts once."""
    different = {(start.name, tuple(word.text for word in start.words)): start for start in starts}
    if not different:
        raise CatalogError(f"{path} starts no vLLM", hint=f"it is {_STARTS}")
    if len(different) > 1:
        where = ", ".join(f"{s.name} (line {s.place.line})" for s in list(different.values())[:5])
        raise CatalogError(
            f"{path} starts vLLM {len(different)} times: {where}", hint="leave one of them, and plan that"
        )
    return next(iter(different.values()))


def _of_vllm(start: PastedStart, request: PlanArguments, profile: Profile) -> PlanArguments:
    version = request.vllm_version or start.vllm_version or profile.vllm_version
    found = start.options(version)
    found = _without(found, request)
    model = request.model or found.model
    if not model:
        raise CatalogError(
            f"{start.place}: {start.name} names no model",
            hint="vLLM would take a small one of its own: write the model behind `vllm serve`",
        )
    if found.model is not None and not request.model and found.model.startswith(("/", "./", "../", "~")):
        say(
            f"{start.place}: {found.model} is a folder of where it runs; name its model too if it is not here"
        )
    variables = pairs({**start.environment, **dict(request.options.environment)})
    named = bool(request.instance_type or request.gpu or request.gpu_memory_bytes)
    if start.gpu_count and not named and not (start.gpu or start.instance_type):
        gpus = plural(start.gpu_count, "GPU")
        say(f"{start.place}: it is given {gpus}; name their kind with --gpu")
    return replace(
        request,
        model=model,
        engine="vllm",
        is_whole=True,
        serve=found if request.serve is None else _joined(found, request.serve),
        options=replace(request.options, environment=variables),
        vllm_version=version,
        gpu=request.gpu or (None if named else start.gpu),
        instance_type=request.instance_type or (None if named or start.gpu else start.instance_type),
        gpu_count=request.gpu_count or start.gpu_count,
        node_count=request.node_count or start.node_count,
    )


def _without(written: ServeOptions, request: PlanArguments) -> ServeOptions:
    """The line without the options that the command line of `plan` sets itself."""
    set_here = {option.name for option, _ in request.options.planned}
    set_here |= {"max-model-len"} if request.max_model_len else set()
    set_here |= set(request.wanted(None)) if request.names_a_split else set()
    kept = tuple(option for option in written.options if option.name not in set_here)
    return ServeOptions(written.model, kept, written.replaced)


def _joined(written: ServeOptions, asked: ServeOptions) -> ServeOptions:
    """The line with what stands behind `--`, which wins."""
    names = {option.name for option in asked.options}
    kept = tuple(option for option in written.options if option.name not in names)
    return ServeOptions(written.model, (*kept, *asked.options), (*written.replaced, *asked.replaced))


def _of_kaito(
    documents: Sequence[Document], request: PlanArguments, shared: Shared, profile: Profile
) -> Pasted:
    found = read_manifests([documents], release_of(profile))
    for problem in found.problems:
        raise CatalogError(f"{problem.place}: {problem.message}", hint=problem.hint)
    models = [model for model in found.models if model.preset is not None]
    path = documents[0].path
    if len(models) != 1:
        where = ", ".join(f"{model.name} (line {model.place.line})" for model in models[:5])
        what = f"serves {len(models)} models: {where}" if models else "serves no preset"
        raise CatalogError(f"{path} {what}", hint="leave one Workspace or InferenceSet, with its ConfigMap")
    (model,) = models
    proposal = proposal_in(model)
    named = request.model or model.repo_id or ""
    if not named:
        raise CatalogError(
            f"{model.place}: KAITO has no preset '{(model.preset or '')[:60]}'",
            hint="name the model too: kaito-catalog plan NAME --from FILE",
        )
    return Pasted(_on_its_nodes(model, replace(request, model=named), proposal, shared), proposal)


def _on_its_nodes(
    model: ManifestModel, request: PlanArguments, proposal: Proposal, shared: Shared
) -> PlanArguments:
    """The request on the nodes that the manifest names, where the command line names no other place."""
    deployment = proposal.deployment
    if request.names_a_gpu or deployment is None:
        return request
    machine = shared.instance_type(deployment.instance_type) if deployment.instance_type else None
    if machine is None and deployment.instance_type:
        near = shared.near_instance_types(deployment.instance_type)
        raise CatalogError(
            f"{model.places.get(('deployment', 'instanceType'), model.place)}: instance-types.yaml has no "
            f"'{deployment.instance_type[:60]}'",
            hint=f"did you mean {' or '.join(near)}?" if near else "name the GPUs: --gpu, --gpu-count",
        )
    if deployment.partition is not None and machine is not None:
        return replace(request, gpu=slice_name(machine.gpu, deployment.partition.profile), gpu_count=1)
    return replace(
        request,
        instance_type=deployment.instance_type,
        node_count=request.node_count or deployment.node_count,
    )
