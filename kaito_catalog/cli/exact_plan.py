"""The commands that ask vLLM: `plan --exact`, `dry-run`, `evidence add`."""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.catalog.reading import read_entry, read_shared, shown
from kaito_catalog.cli.common import catalog_root
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.manifests import vllm_options
from kaito_catalog.memory.plan import Plan, PlanGpu
from kaito_catalog.plans.manifest_options import manifest_options
from kaito_catalog.plans.request import DEFAULT_MAX_MODEL_LEN, PlanSubject, Request
from kaito_catalog.plans.serving import engine_arguments, served_options
from kaito_catalog.quantity import gib
from kaito_catalog.reports.style import BOLD, DIM, GREEN, RED, YELLOW, paint, printable, wants_color
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge import evidence
from kaito_catalog.vllm_bridge.answers import ExactPlan, Gpu, Outcome
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.exact_plans import exact_evidence, plan_worlds
from kaito_catalog.vllm_bridge.logs import evidence_lines
from kaito_catalog.vllm_bridge.scaled_down import scaled_down

SIZES = (1, 2, 4, 8)
"""The tensor-parallel sizes that KAITO's instance types would use: the numbers of GPUs that they have."""
# Weights of more than this share of the host's memory are not tried on a CPU; the model is scaled down instead.
CPU_SHARE = 0.4
HINTS = {
    "illegal-instruction": "this build of vLLM or torch uses an instruction that the processor or its virtual "
    "machine does not offer; compare the flags in /proc/cpuinfo, or run it on another machine"
}
"""What to do about a failure, by its class, where vLLM's own words do not say it."""


def _say(line: str) -> None:
    print(line, file=sys.stderr)


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
            current.append(Worker(found, progress=lambda text: _say(f"  {text}"), hub_token=hub_token))
        return current[-1]

    try:
        yield worker
    except BaseException:
        for started in current:
            started.kill()
        raise
    for started in current:
        started.close()


# --- plan --exact ----------------------------------------------------------------------------------------------


def simulated(gpu: PlanGpu) -> Gpu:
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
    worker: Worker, config: Mapping[str, Any] | Path, request: Request, plan: Plan, *, vllm_version: str
) -> ExactPlan:
    """vLLM's own plan for what `plan` was computed for.

    Raises:
        CatalogError: vLLM refuses the model or the options, in its own words.
    """
    sizes, settings = plan.parallelism, plan.settings
    args: dict[str, Any] = {
        "tensor_parallel_size": sizes.tensor_parallel_size,
        "pipeline_parallel_size": sizes.pipeline_parallel_size,
        "data_parallel_size": sizes.data_parallel_size,
        "enable_expert_parallel": sizes.enable_expert_parallel,
        "max_model_len": settings.max_model_len,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "max_num_seqs": request.max_num_seqs,
        "max_num_batched_tokens": request.max_num_batched_tokens,
        "enforce_eager": request.enforce_eager or None,
        "language_model_only": settings.language_model_only or None,
    }
    wanted = {name: value for name, value in args.items() if value is not None}
    available = plan.per_gpu.kv_cache_available_bytes if plan.per_gpu else 0

    def ask(folder: Path) -> ExactPlan:
        try:
            return worker.exact_plan(
                folder,
                args=wanted,
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


def exact_text(subject: PlanSubject, plan: Plan, found: ExactPlan, *, color: bool) -> str:
    """The exact plan beside the closed form."""
    ours = plan.per_gpu
    cache = found["kvCache"]
    rows: list[tuple[str, int | None, int]] = [
        ("weights", ours.weights_bytes if ours else None, found["perGPU"]["weightsBytes"]),
        ("KV cache, one request", exact_need(plan), found["perGPU"]["kvCacheNeededBytes"]),
    ]
    lines = [
        f"{paint(subject.name, BOLD, color=color)} on {plan.gpu.name or 'the GPU'}: what vLLM "
        f"{found['vllmVersion']} allocates for {found['modelClass']}",
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
    lines.append(f"  took {found['seconds']:.1f} s with vLLM loaded")
    return "\n".join(lines) + "\n"


def exact_need(plan: Plan) -> int | None:
    """What the closed form says of the figure that vLLM's admission check uses."""
    if plan.per_gpu is None:
        return None
    return (plan.kv_cache.request_bytes if plan.kv_cache else 0) or plan.per_gpu.kv_cache_needed_bytes


def record_exact(entry: Entry, worker: Callable[[], Worker], *, vllm_version: str) -> Path:
    """Write the exact plans of an entry at every size to its evidence.

    Raises:
        CatalogError: the configuration is not known, or vLLM gives no plan at all.
    """
    config = evidence.need_config(entry.facts, entry.name)
    proposal = entry.proposal
    length = (proposal.max_model_len if proposal else None) or 8192
    kv_cache_dtype = served_options(proposal).kv_cache_dtype
    try:
        worlds = plan_worlds(
            worker,
            config,
            sizes=SIZES,
            max_model_len=length,
            vllm_version=vllm_version,
            kv_cache_dtype=kv_cache_dtype,
        )
    except WorkerError as error:
        raise CatalogError(error.words) from error
    return evidence.write_evidence(entry.folder, exact_evidence(entry, worlds, kv_cache_dtype=kv_cache_dtype))


# --- dry-run ---------------------------------------------------------------------------------------------------


def run_dry_run(options: argparse.Namespace) -> int:
    """`dry-run`."""
    if options.on or options.all or options.plan:
        from kaito_catalog.cli import campaign

        return campaign.run_campaign(options)
    if options.name is None:
        raise CatalogError("name a model, or ask for --all", hint="kaito-catalog dry-run phi-4")
    root = catalog_root(options)
    entry = find_entry(options.name, root)
    config = evidence.need_config(entry.facts, entry.name)
    assert entry.proposal is not None
    device = options.device if options.device != "auto" else "cuda" if shutil.which("nvidia-smi") else "cpu"
    changed: dict[str, Any] = {}
    if (
        options.weights == "dummy"
        and not options.model_dir
        and (options.scale_down or _too_large(entry, device))
    ):
        config, changed = scaled_down(config)
        if changed:
            _say(
                f"scaled down for this machine: {', '.join(f'{key}={value}' for key, value in changed.items())}"
            )
    args = _engine_args(entry, options, root, device)
    # Only then does vLLM ask the Hub; else it gets a folder with what it needs.
    from_hub = not options.model_dir and (options.serve or options.weights == "real")
    with asking(options.vllm_python, root.parent, hub_token=from_hub) as worker:
        outcome = _run(worker(), entry, config, args, options, device)
    if options.serve:
        _emit_outcome(entry, outcome, options.format)
        return 0 if outcome["outcome"] == "served" else 1
    value = evidence.dry_run_evidence(entry, outcome, args=args, weights=options.weights, changed=changed)
    if not options.no_write:
        path = evidence.write_evidence(entry.folder, value)
        _say(f"wrote {shown(path)}")
    if options.format == "json":
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        _emit_outcome(entry, outcome, "text")
    return 0 if outcome["outcome"] == "served" else 1


def _engine_args(entry: Entry, options: argparse.Namespace, root: Path, device: str) -> dict[str, Any]:
    """On a GPU what the manifests start vLLM with; elsewhere the context alone, at most what a CPU can hold."""
    assert entry.proposal is not None
    length = options.max_model_len or entry.proposal.max_model_len or DEFAULT_MAX_MODEL_LEN
    args: dict[str, Any]
    if device == "cuda":
        shared = read_shared(root)
        profile = shared.profile(options.profile)
        served = manifest_options(entry.proposal, entry.facts, shared, profile)
        settings = served.settings(profile, None, max_model_len=length)
        left_out = ", ".join(name for name, _ in settings.unread)
        if left_out:
            _say(f"started without {left_out}: what a dry run shows is of the model without it")
        args = engine_arguments(settings)
        if options.gpu_memory_utilization:
            args["gpu_memory_utilization"] = options.gpu_memory_utilization
    else:
        args = {"max_model_len": options.max_model_len or min(length, evidence.CPU_MAX_MODEL_LEN)}
    if options.tensor_parallel_size:
        args["tensor_parallel_size"] = options.tensor_parallel_size
    return args


def _run(
    worker: Worker,
    entry: Entry,
    config: Mapping[str, Any],
    args: Mapping[str, Any],
    options: argparse.Namespace,
    device: str,
) -> Outcome:
    assert entry.proposal is not None
    try:
        if options.serve:
            runtime = entry.proposal.vllm
            if runtime is None:
                raise CatalogError(f"{entry.name} does not serve with vLLM")
            settings: dict[str, Any] = {
                **vllm_options(entry.proposal, runtime),
                "max-model-len": args["max_model_len"],
            }
            parsers = {
                name: settings.pop(option, None)
                for name, option in (("tool", "tool-call-parser"), ("reasoning", "reasoning-parser"))
            }
            return worker.serve(
                options.model_dir or entry.proposal.repo_id or "",
                options=settings,
                weights=options.weights,
                tool_call_parser=parsers["tool"],
                reasoning_parser=parsers["reasoning"],
                time_limit_seconds=options.time_limit,
            )
        if options.model_dir or options.weights == "real":
            pinned = {} if options.model_dir else {"revision": entry.proposal.requirements.version}
            return worker.dry_run(
                options.model_dir or entry.proposal.repo_id or "",
                args={**args, **pinned},
                weights=options.weights,
                device=device,  # type: ignore[arg-type]
                time_limit_seconds=options.time_limit,
            )
        with evidence.model_directory(config) as folder:
            return worker.dry_run(
                folder,
                args=args,
                device=device,  # type: ignore[arg-type]
                time_limit_seconds=options.time_limit,
            )
    except WorkerError as error:
        if error.failure_class == "time-out":
            return {"outcome": "failed", "class": "time-out", "message": error.words}
        raise CatalogError(f"vLLM could not be asked ({error.failure_class}): {error.words}") from error


def _too_large(entry: Entry, device: str) -> bool:
    weights = entry.facts.weights.total if entry.facts and entry.facts.weights else None
    if device != "cpu":
        return False
    if weights is None:
        return True
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        memory = int(re.search(r"MemTotal: +([0-9]+) kB", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        return True
    return weights.size_bytes > CPU_SHARE * memory


def _emit_outcome(entry: Entry, outcome: Outcome, form: str) -> None:
    found: dict[str, Any] = dict(outcome)
    if form == "json":
        sys.stdout.write(json.dumps({"model": entry.name, **found}, ensure_ascii=False) + "\n")
        return
    color = wants_color(sys.stdout)
    style = GREEN if found["outcome"] == "served" else RED
    head = f"{paint(entry.name, BOLD, color=color)}: {paint(found['outcome'], style, BOLD, color=color)}"
    lines = [head + (f" ({found['class']})" if found.get("class") else "")]
    if found.get("message"):
        lines.append(f"  vLLM says: {printable(str(found['message'])[:600])}")
    if found.get("class") in HINTS:
        lines.append(f"  hint: {HINTS[found['class']]}")
    if found["outcome"] == "does-not-fit":
        lines.append(f"  needed {gib(found['neededBytes'])}, available {gib(found['availableBytes'])}")
        if found.get("longestModelLen"):
            lines.append(f"  longest context that fits: {found['longestModelLen']:,} tokens")
    cache = found.get("kvCache") or {}
    if cache.get("tokens"):
        lines.append(f"  KV cache of {cache['tokens']:,} tokens")
    if found.get("tokensGenerated"):
        lines.append(f"  generated {len(found['tokensGenerated'])} tokens")
    if found.get("seconds"):
        lines.append(
            "  seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in found["seconds"].items())
        )
    sys.stdout.write("\n".join(lines) + "\n")


def find_entry(name: str, root: Path) -> Entry:
    folder = root / "models" / files.safe_name(name.rpartition("/")[2].lower())
    if not folder.is_dir():
        raise CatalogError(
            f"'{name[:80]}' is no model of the catalog", hint=f"the models are in {shown(root / 'models')}"
        )
    entry = read_entry(folder)
    if not entry.is_readable:
        first = entry.problems[0]
        raise CatalogError(f"{first.place}: {first.message}", hint=f"run 'kaito-catalog check {name}'")
    return entry


# --- evidence add ----------------------------------------------------------------------------------------------


def run_evidence_add(options: argparse.Namespace) -> int:
    """`evidence add -`."""
    root = catalog_root(options)
    with _opened(options.file) as stream:
        found = list(evidence_lines(stream))
    if not found:
        raise CatalogError(
            "no line is evidence",
            hint="evidence is one line of JSON of kind DryRunResult, DryRun or ExactPlan; a log may be cut",
        )
    for value in found:
        entry = find_entry(str(value.get("model", "")), root)
        path = evidence.write_evidence(entry.folder, evidence.accepted(entry, value))
        sys.stdout.write(f"wrote {shown(path)}\n")
    return 0


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        yield sys.stdin
        return
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as stream:
            yield stream
    except OSError as error:
        raise CatalogError(f"cannot read {shown(Path(name))}: {error.strerror or error}") from error
