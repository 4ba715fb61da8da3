"""What to change so that a start fits: every change is planned, and those that are not enough are told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.catalog.entries import Shared
from kaito_catalog.memory.legal_splits import tensor_parallel_sizes
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.plan import make_plan, resolved_settings
from kaito_catalog.memory.values import Fit, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.instance_types import InstanceTypePlan, plan_gpu
from kaito_catalog.quantity import gib

MOST_UTILIZATION = 0.95
"""More leaves too little for what CUDA takes before vLLM looks, and for graphs where they are not in the budget."""
_NEVER_DROPPED = frozenset(
    {"gpu-memory-utilization", "kv-offloading-backend", "allow-deprecated-quantization"}
)
_GOOD = (Fit.YES, Fit.TIGHT)


@dataclass(frozen=True)
class StartChange:
    """One change of a start, and the plan of it."""

    kind: str
    """`context`, `utilization`, `drop`, `option`, `gpus`, `gpu`, `machine`, `model`."""
    words: str
    """As it is made: an option, a number of GPUs, the name of a machine."""
    why: str
    """What it does, in words."""
    plan: Plan | None = None
    option: str | None = None
    """As vLLM spells it, where it is one."""
    value: str | None = None

    @property
    def is_enough(self) -> bool:
        """Whether the start fits with it."""
        return self.plan is None or self.plan.fits in _GOOD

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plan = self.plan
        per_gpu, cache = (plan.per_gpu, plan.kv_cache) if plan else (None, None)
        return {
            "kind": self.kind,
            "change": self.words,
            "why": self.why,
            "option": self.option,
            "value": self.value,
            "fits": plan.fits.value if plan else None,
            "reason": plan.reason if plan else None,
            "longestModelLen": cache.longest_model_len if cache else None,
            "kvCacheAvailableBytes": per_gpu.kv_cache_available_bytes if per_gpu else None,
            "kvCacheNeededBytes": per_gpu.kv_cache_needed_bytes if per_gpu else None,
        }


@dataclass(frozen=True)
class Trial:
    """A start that does not fit, and what its log showed beside the plan."""

    request: PlanRequest
    correction_bytes: int = 0
    """What the log printed as left for the cache, less what was planned: it holds for its changes too."""

    def plan(self, **settings: Any) -> Plan:
        """The plan with some settings changed."""
        return self.of(replace(self.request, settings=replace(self.request.settings, **settings)))

    def of(self, request: PlanRequest) -> Plan:
        """The plan of a changed start, with what was printed taken into account."""
        plan = make_plan(request)
        figures, settings = plan.per_gpu, request.settings
        is_given = settings.kv_cache_memory_bytes or settings.num_gpu_blocks_override
        if not self.correction_bytes or figures is None or plan.kv_cache is None or is_given:
            return plan
        left = figures.kv_cache_available_bytes + self.correction_bytes
        if left <= 0:
            return replace(plan, fits=Fit.NO, per_gpu=replace(figures, kv_cache_available_bytes=left))
        # The plan of a cache of that size asks for room beside its own account, which the log has shown to be smaller.
        gpu, more = request.gpu, max(self.correction_bytes, 0)
        roomier = replace(gpu, memory_bytes=gpu.memory_bytes + more) if gpu.memory_bytes else gpu
        as_printed = replace(settings, kv_cache_memory_bytes=left)
        given = make_plan(replace(request, gpu=roomier, settings=as_printed))
        return given if given.per_gpu is not None else plan


def changes(trial: Trial, shared: Shared) -> Iterator[StartChange]:
    """What can be tried on the same GPUs, the least change first, then with more of them."""
    plan = trial.plan()
    if isinstance(trial.request.shape, Unsupported) or plan.per_gpu is None:
        yield from _within_the_limit(trial, plan)
        yield from _dropped(trial, plan)
        yield from _other_gpus(trial, plan, shared)
        return
    yield from _shorter(trial, plan)
    yield from _dropped(trial, plan)
    yield from _more_of_the_gpu(trial, plan)
    yield from _smaller_cache(trial)
    yield from _smaller_peak(trial, plan)
    yield from _more_gpus(trial)


def _shorter(trial: Trial, plan: Plan) -> Iterator[StartChange]:
    longest = plan.kv_cache.longest_model_len if plan.kv_cache else 0
    asked = trial.request.settings.max_model_len
    if longest >= asked:
        return
    if longest < 1:
        words = "no context fits: nothing is left for the cache"
        yield StartChange("context", "a shorter --max-model-len", words, plan, "max-model-len")
        return
    shorter = trial.plan(max_model_len=longest)
    why = f"the longest context that fits; {asked:,} were asked for"
    yield StartChange("context", f"--max-model-len {longest}", why, shorter, "max-model-len", str(longest))


def _within_the_limit(trial: Trial, plan: Plan) -> Iterator[StartChange]:
    shape = trial.request.shape
    if plan.limited_by != "maxModelLen" or isinstance(shape, Unsupported):
        return
    limit = shape.max_model_len
    found = trial.plan(max_model_len=limit)
    yield StartChange(
        "context", f"--max-model-len {limit}", "the model's own limit", found, "max-model-len", str(limit)
    )


def as_estimated(length: int) -> StartChange:
    """The context that vLLM's own refusal estimates, where no plan can be made."""
    words = "the longest context that fits, as vLLM itself estimates"
    return StartChange("context", f"--max-model-len {length}", words, None, "max-model-len", str(length))


def _dropped(trial: Trial, plan: Plan) -> Iterator[StartChange]:
    """The options without which it would fit, or could be planned."""
    request = trial.request
    for option in PLANNED:
        value = getattr(request.settings, option.attribute)
        if value == option.unset or option.name in _NEVER_DROPPED:
            continue
        without = {option.attribute: option.unset}
        if option.name == "speculative-config":
            without["draft"] = None
        yield from _without(trial, plan, without, option.name, str(value))
    for name, value in request.settings.unplanned:
        rest = tuple(other for other in request.settings.unplanned if other != (name, value))
        yield from _without(trial, plan, {"unplanned": rest}, name, value)


def _without(
    trial: Trial, plan: Plan, changed: dict[str, Any], name: str, value: str
) -> Iterator[StartChange]:
    """An option that is dropped, and where that is not enough the context that fits then."""
    found = trial.plan(**changed)
    if not _helps(found, plan):
        return
    words = _named(name, value)
    yield StartChange("drop", words, _gained(found, plan), found, name, value)
    if found.fits in _GOOD or plan.per_gpu is not None:
        return
    settings = replace(trial.request.settings, **changed)
    rest = replace(trial, request=replace(trial.request, settings=settings))
    for more in (*_shorter(rest, found), *_smaller_peak(rest, found), *_more_gpus(rest)):
        if more.is_enough:
            yield replace(more, kind="drop", words=f"{words}, and {more.words}", option=name, value=value)


def _helps(found: Plan, plan: Plan) -> bool:
    """Whether a plan is better than another by more than a rounding."""
    if found.fits in _GOOD and plan.fits not in _GOOD:
        return True
    if plan.per_gpu is None or found.per_gpu is None:
        return found.per_gpu is not None
    return _spare(found) - _spare(plan) > 2**20


def _spare(plan: Plan) -> int:
    assert plan.per_gpu is not None
    return plan.per_gpu.kv_cache_available_bytes - plan.per_gpu.kv_cache_needed_bytes


def _gained(found: Plan, plan: Plan) -> str:
    if plan.per_gpu is None:
        return "it can be started, and planned, without it"
    more = _spare(found) - _spare(plan)
    return f"{gib(more)} more for each GPU"


def _named(name: str, value: object) -> str:
    """An option that is dropped, with its value where that is short, or with what it attaches."""
    words = f"drop --{name}"
    try:
        attached = json.loads(str(value)).get("kv_connector") if name == "kv-transfer-config" else None
    except (ValueError, AttributeError):
        attached = None
    if isinstance(attached, str):
        return f"{words} ({attached[:40]})"
    short = "" if str(value).lower() in ("true", "false") or len(str(value)) > 24 else f" {value}"
    return (words + short).rstrip()


def _more_of_the_gpu(trial: Trial, plan: Plan) -> Iterator[StartChange]:
    request, memory = trial.request, trial.request.gpu.memory_bytes
    now = request.settings.gpu_memory_utilization
    if not memory or now >= MOST_UTILIZATION or request.settings.kv_cache_memory_bytes:
        return
    lacking = max(-_spare(plan), 0)
    wanted = min(math.ceil((now + lacking / memory) * 100) / 100, MOST_UTILIZATION)
    share = max(wanted, round(now + 0.01, 2))
    if share > MOST_UTILIZATION:
        return
    found = trial.plan(gpu_memory_utilization=share)
    words = f"--gpu-memory-utilization {share:g}"
    why = f"{gib(round((share - now) * memory))} more of each GPU; it is {now:g}"
    yield StartChange("utilization", words, why, found, "gpu-memory-utilization", f"{share:g}")


def _smaller_cache(trial: Trial) -> Iterator[StartChange]:
    if trial.request.settings.kv_cache_dtype != "auto":
        return
    found = trial.plan(kv_cache_dtype="fp8")
    if found.per_gpu is not None:
        why = "the cache in 8 bits; answers may differ a little"
        yield StartChange("option", "--kv-cache-dtype fp8", why, found, "kv-cache-dtype", "fp8")


def _smaller_peak(trial: Trial, plan: Plan) -> Iterator[StartChange]:
    request = trial.request
    settings: Settings = resolved_settings(request.settings, request.gpu, request.vllm_version)
    seqs, tokens = settings.max_num_seqs, settings.max_num_batched_tokens
    if plan.limited_by == "maxNumSeqs" and seqs is not None:
        fewer = (seqs >> halved for halved in range(1, seqs.bit_length()))
        plans = ((less, trial.plan(max_num_seqs=less)) for less in fewer)
        if enough := next(((less, found) for less, found in plans if found.fits in _GOOD), None):
            why = f"the cache has blocks for the states of so many; it is {seqs:,}"
            words = f"--max-num-seqs {enough[0]}"
            yield StartChange("option", words, why, enough[1], "max-num-seqs", str(enough[0]))
        seqs = None
    for name, now, less in (("max-num-seqs", seqs, 64), ("max-num-batched-tokens", tokens, 2048)):
        if now is None or now <= less:
            continue
        found = trial.plan(**{name.replace("-", "_"): less})
        if _helps(found, plan):
            why = f"{_gained(found, plan)}, and fewer requests at once; it is {now:,}"
            yield StartChange("option", f"--{name} {less}", why, found, name, str(less))
    if not settings.enforce_eager:
        found = trial.plan(enforce_eager=True)
        if _helps(found, plan):
            why = f"{_gained(found, plan)} without CUDA graphs, and slower answers"
            yield StartChange("option", "--enforce-eager", why, found, "enforce-eager", "true")


def _more_gpus(trial: Trial) -> Iterator[StartChange]:
    request, shape = trial.request, trial.request.shape
    assert isinstance(shape, Shape)
    now = request.parallelism
    legal = tensor_parallel_sizes(
        shape, enable_expert_parallel=now.enable_expert_parallel, vllm_version=request.vllm_version
    )
    for size, reason in legal.items():
        if reason is None and size > now.tensor_parallel_size:
            split = replace(now, tensor_parallel_size=size)
            found = trial.of(replace(request, parallelism=split))
            if found.fits in _GOOD or size == 8:
                name = request.gpu.name or "the same GPU"
                why = f"{split.world_size} × {name} instead of {now.world_size}"
                words = f"--tensor-parallel-size {size}"
                yield StartChange("gpus", words, why, found, "tensor-parallel-size", str(size))
                return


def _other_gpus(trial: Trial, plan: Plan, shared: Shared) -> Iterator[StartChange]:
    """The GPUs that have what this one lacks, the smallest of them first."""
    if plan.limited_by != "gpu" or isinstance(trial.request.shape, Unsupported):
        return
    fitting: list[tuple[int, PlanGpu, Plan]] = []
    for listed in shared.gpus:
        gpu = plan_gpu(shared, listed.name)
        found = make_plan(replace(trial.request, gpu=gpu))
        if gpu.memory_bytes and found.fits in _GOOD:
            fitting.append((gpu.memory_bytes, gpu, found))
    for _, gpu, found in sorted(fitting, key=lambda each: (each[0], each[1].name or ""))[:3]:
        why = f"compute capability {gpu.compute_capability}, {gib(gpu.memory_bytes or 0)}"
        yield StartChange("gpu", f"{trial.request.parallelism.world_size} × {gpu.name}", why, found)


def machine(row: InstanceTypePlan | None, *, kaito: str, length: int) -> StartChange | None:
    """The smallest instance type that serves that context, as a change."""
    if row is None:
        return None
    kind = row.instance_type
    why = f"{kind.gpu_count} × {kind.gpu}: the smallest that serves {length:,} tokens, as KAITO {kaito} starts it"
    return StartChange("machine", kind.name, why, row.plan)


@dataclass(frozen=True)
class Shortage:
    """What vLLM could not allocate, as its message has it."""

    bytes: int
    """More than what was free."""
    in_use: bool
    """Whether the cache was there already, so that a smaller one leaves more."""


def with_more_room(trial: Trial, shortage: Shortage, shared: Shared) -> Iterator[StartChange]:
    """What leaves more of a GPU beside weights and activations, for a start that ran out of memory."""
    plan = trial.plan()
    if isinstance(trial.request.shape, Unsupported) or plan.per_gpu is None:
        yield from changes(trial, shared)
        return
    found = [*_dropped(trial, plan), *_smaller_peak(trial, plan), *_more_gpus(trial)]
    if shortage.in_use:
        found[:0] = _less_of_the_gpu(trial, shortage)
    for change in found:
        if change.kind == "utilization" or has_room(change.plan, plan, 1):
            yield change


def has_room(found: Plan | None, plan: Plan, wanted_bytes: int) -> bool:
    """Whether a plan leaves so much more of its GPU than another one, beside all but the cache."""
    if found is None or (room := _room(found)) is None or (now := _room(plan)) is None:
        return False
    return room - now >= wanted_bytes


def _room(plan: Plan) -> int | None:
    if plan.per_gpu is None or plan.gpu.memory_bytes is None:
        return None
    each = plan.per_gpu
    beside = each.weights_bytes + each.non_torch_bytes + each.activation_peak_bytes + each.cuda_graph_bytes
    return plan.gpu.memory_bytes - beside


def _less_of_the_gpu(trial: Trial, shortage: Shortage) -> Iterator[StartChange]:
    memory, now = trial.request.gpu.memory_bytes, trial.request.settings.gpu_memory_utilization
    if not memory or trial.request.settings.kv_cache_memory_bytes:
        return
    share = math.floor(min(now - shortage.bytes / memory, now - 0.01) * 100 + 1e-9) / 100
    if share <= 0:
        return
    words = f"--gpu-memory-utilization {share:g}"
    why = f"{gib(round((now - share) * memory))} more beside the cache; it is {now:g}"
    found = trial.plan(gpu_memory_utilization=share)
    yield StartChange("utilization", words, why, found, "gpu-memory-utilization", f"{share:g}")
