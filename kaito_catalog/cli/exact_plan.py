"""`plan --exact`: vLLM's own plan beside ours, shown or recorded as evidence; and how commands reach a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.catalog.reading import read_entry, shown
from kaito_catalog.cli.common import say
from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.addresses import address_in, name_in_catalog, refuse_another
from kaito_catalog.memory.values import Plan, PlanGpu
from kaito_catalog.plans.given_options import own_options
from kaito_catalog.plans.request import PlanSubject
from kaito_catalog.plans.start import engine_arguments
from kaito_catalog.plans.started import Started
from kaito_catalog.reports.plan import for_whom
from kaito_catalog.reports.style import BOLD, DIM, GREEN, RED, YELLOW, paint, printable
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge import evidence
from kaito_catalog.vllm_bridge.answers import ExactPlanAnswer, GpuToSimulate
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.exact_plans import exact_evidence, plan_worlds

_OF_THE_IMAGE = "--chat-template=/"
"""A file of the image that KAITO starts, which vLLM looks for; no memory depends on it."""
EXACT_SIZES = (1, 2, 4, 8)
"""The tensor-parallel sizes that KAITO's instance types would use: the numbers of GPUs that they have."""


@contextmanager
def asking(python: str | None, root: Path, *, hub_token: bool = False) -> Iterator[Callable[[], Worker]]:
    """A function that gives a live worker; nothing of it is left when the block ends, however it ends.

    Args:
        python: what `--vllm-python` names.
        root: where `.venv-vllm` may lie.
        hub_token: whether the worker fetches from the Hub and gets the token for it.

    Raises:
        CatalogError: there is no Python with vLLM.
    """
    try:
        found = find_python(python, root=root)
    except WorkerError as error:
        raise CatalogError(error.words) from error
    current: list[Worker] = []

    def worker() -> Worker:
        if not current or not current[-1].alive:
            current.append(Worker(found, progress=lambda text: say(f"  {text}"), hub_token=hub_token))
        return current[-1]

    try:
        yield worker
    except BaseException:
        for started in current:
            started.kill()
        raise
    for started in current:
        started.close()


def find_entry(name: str, root: Path) -> Entry:
    folder = root / "models" / files.safe_name(name_in_catalog(name))
    if not folder.is_dir():
        raise CatalogError(
            f"'{name[:80]}' is not in the catalog", hint=f"the models are in {shown(root / 'models')}"
        )
    entry = read_entry(folder)
    if not entry.is_readable:
        first = entry.problems[0]
        raise CatalogError(f"{first.place}: {first.message}", hint=f"run 'kaito-catalog check {entry.name}'")
    if entry.proposal is not None:
        refuse_another(address_in(name), entry.proposal.repo_id, entry.proposal.requirements.version)
    return entry


def simulated(gpu: PlanGpu) -> GpuToSimulate:
    """The GPU of a plan, as the worker wants it.

    Raises:
        CatalogError: its memory or compute capability is not known.
    """
    if gpu.memory_bytes is None or gpu.compute_capability is None:
        raise CatalogError(
            f"the compute capability of {gpu.name or 'the GPU'} is not known",
            hint="name one of gpus.yaml: --gpu 'NVIDIA H100 80GB'",
        )
    return {
        "name": gpu.name or "GPU",
        "capability": f"{gpu.compute_capability:.1f}",
        "memoryBytes": gpu.memory_bytes,
    }


def exact_plan(
    worker: Worker,
    config: Mapping[str, Any] | Path,
    started: Started,
    plan: Plan,
) -> ExactPlanAnswer:
    """vLLM's own plan of a start: its whole command line gets to vLLM's own parser.

    Args:
        worker: asks vLLM.
        config: the configuration, or a folder with it.
        started: the command line.
        plan: ours of it; gives GPU, parallelism and version.

    Raises:
        CatalogError: vLLM refuses the model or the options, in its own words.
    """
    sizes, vllm_version = plan.parallelism, plan.vllm_version
    wanted: dict[str, Any] = {
        "tensor_parallel_size": sizes.tensor_parallel_size,
        "pipeline_parallel_size": sizes.pipeline_parallel_size,
        "data_parallel_size": sizes.data_parallel_size,
        "enable_expert_parallel": sizes.enable_expert_parallel,
        **engine_arguments(started.request.settings),
    }
    written = {word.removeprefix("--").partition("=")[0].partition(".")[0] for word in started.arguments}
    wanted = {name: value for name, value in wanted.items() if name.replace("_", "-") not in written}
    available = plan.per_gpu.kv_cache_available_bytes if plan.per_gpu else 0

    def ask(folder: Path) -> ExactPlanAnswer:
        try:
            return worker.exact_plan(
                folder,
                args=wanted,
                arguments=[word for word in started.arguments if not word.startswith(_OF_THE_IMAGE)],
                gpu=simulated(plan.gpu),
                vllm_version=vllm_version,
                kv_cache_bytes=available if available > 0 else None,
                time_limit_seconds=600,
            )
        except WorkerError as error:
            raise CatalogError(f"vLLM {vllm_version} ({error.failure_class}): {error.words}") from error

    if isinstance(config, Path):
        return ask(config)
    with evidence.model_directory(config) as folder:
        return ask(folder)


def exact_text(
    subject: PlanSubject, plan: Plan, started: Started, found: ExactPlanAnswer, *, color: bool
) -> str:
    """The exact plan beside the closed form."""
    ours = plan.per_gpu
    cache = found["kvCache"]
    rows: list[tuple[str, int | None, int]] = [
        ("weights", ours.weights_bytes if ours else None, found["perGPU"]["weightsBytes"]),
        (
            "KV cache, one request",
            ours.kv_cache_needed_bytes if ours else None,
            found["perGPU"]["kvCacheNeededBytes"],
        ),
    ]
    lines = [
        f"{paint(subject.name, BOLD, color=color)} on {plan.gpu.name or 'the GPU'}: what vLLM "
        f"{found['vllmVersion']} allocates for {found['modelClass']}",
        f"  {for_whom(subject, started)}",
        f"  tensor_parallel_size {plan.parallelism.tensor_parallel_size}, pipeline_parallel_size "
        f"{plan.parallelism.pipeline_parallel_size}, {plan.settings.max_model_len:,} tokens",
        "",
        paint(f"    {'per GPU':<24}{'plan':>18}{'vLLM':>18}  bytes", DIM, color=color),
    ]
    for label, mine, theirs in rows:
        same = "=" if mine == theirs else "" if mine is None else f"{mine - theirs:+,}"
        shown_ = f"{mine:,}" if mine is not None else "unknown"
        style = [GREEN] if same == "=" else [YELLOW]
        lines.append(f"    {label:<24}{shown_:>18}{theirs:>18,}  {paint(same, *style, color=color)}")
    buffers = found["perGPU"]["bufferBytes"]
    lines.append(f"    {'buffers':<24}{'':>18}{buffers:>18,}")
    lines.append("")
    for group in cache["groups"]:
        kind = group["kind"].removesuffix("Spec")
        lines.append(
            f"    {group['layers']:>3} layers, {kind}, blocks of {group['blockSize']}, {group['pageBytes']:,} B a page"
        )
    if cache.get("refusal"):
        lines.append(f"  {paint(printable(cache['refusal']), RED, color=color)}")
    lines += _unused(found)
    lines.append(f"  took {found['seconds']:.1f} s with vLLM loaded")
    return "\n".join(lines) + "\n"


def _unused(found: ExactPlanAnswer) -> Iterator[str]:
    """The options of the command line that did not come into the figures."""
    arguments = found.get("arguments")
    if arguments and arguments["overridden"]:
        yield f"  other values of the plan were taken of: {_as_options(arguments['overridden'])}"
    if arguments and arguments["server"]:
        yield f"  read by the server alone: {_as_options(arguments['server'])}"


def _as_options(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", "-") for name in names)


def record_exact(entry: Entry, worker: Callable[[], Worker], *, vllm_version: str) -> Path:
    """Write the exact plans of an entry at every size to its evidence.

    Raises:
        CatalogError: the configuration is not known, or vLLM gives no plan at all.
    """
    config = evidence.need_config(entry.facts, entry.name)
    proposal = entry.proposal
    length = (proposal.max_model_len if proposal else None) or 8192
    chosen = own_options(proposal).get("kv_cache_dtype")
    kv_cache_dtype = None if chosen is None else str(chosen)
    try:
        worlds = plan_worlds(
            worker,
            config,
            sizes=EXACT_SIZES,
            max_model_len=length,
            vllm_version=vllm_version,
            kv_cache_dtype=kv_cache_dtype,
        )
    except WorkerError as error:
        raise CatalogError(error.words) from error
    return evidence.write_evidence(entry.folder, exact_evidence(entry, worlds, kv_cache_dtype=kv_cache_dtype))
