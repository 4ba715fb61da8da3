"""A start of vLLM on one kind of machine: its command line, and the plan of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.kaito.estimator import Node
from kaito_catalog.kaito.launch import Launch
from kaito_catalog.memory.plan import make_plan, without_account
from kaito_catalog.memory.refusals import Refusal
from kaito_catalog.memory.values import Fit, Plan, PlanGpu, PlanRequest
from kaito_catalog.plans.given_options import WithoutEffect


@dataclass(frozen=True)
class NodeGpus:
    """GPUs of one node: an instance type, or GPUs that somebody names."""

    gpu: PlanGpu
    gpu_count: int
    instance_type: InstanceType | None = None
    node: Node | None = None
    """As KAITO sees it, by the brochure's memory; None where that is not known."""
    is_slice: bool = False
    """Whether the GPU is a slice of one (MIG)."""
    runs_vllm: bool = True
    """Whether vLLM's CUDA build runs on the GPU."""

    @property
    def name(self) -> str:
        """In words."""
        if self.instance_type is not None:
            return self.instance_type.name
        return f"{self.gpu_count} × {self.gpu.name or 'the GPU'}"


@dataclass(frozen=True)
class Started:
    """What is started on the nodes of a place, and what a plan of it depends on."""

    engine: str
    """`kaito-v0.12`, or `vllm`."""
    model: str
    """As the command line names it."""
    command: tuple[str, ...]
    """vLLM's arguments in order, the model among them as `--model=`."""
    environment: Mapping[str, str]
    place: NodeGpus
    request: PlanRequest
    nodes: int = 1
    host_memory_bytes: int | None = None
    """What it takes of a node's own memory at most; None where that is not known, 0 where it takes none."""
    host_memory_share: float = 0.0
    """Of the node's free memory, as LMCache takes it."""
    without_effect: tuple[WithoutEffect, ...] = ()
    """Options on which memory does not depend."""
    launch: Launch | None = None
    """Of KAITO: each argument with who set it; None for plain vLLM."""
    problems: tuple[Refusal, ...] = ()
    """Why it is not started, apart from memory; the first counts."""
    notes: tuple[str, ...] = ()
    """What else there is to say, in sentences without a full stop."""
    longest_on_these_nodes: int | None = None
    """The longest context for which no further node would be started; None where nothing limits it."""

    @property
    def plan(self) -> Plan:
        """What vLLM would find on each GPU, and whether it is started at all."""
        if not self.place.runs_vllm:
            reason = f"vLLM's CUDA build does not run on {self.place.gpu.name}"
            return without_account(self.request, Refusal(Fit.NO, "gpu", reason))
        plan = make_plan(self.request)
        limit, cache = self.longest_on_these_nodes, plan.kv_cache
        if limit is not None and cache is not None and cache.longest_model_len > limit:
            plan = replace(plan, kv_cache=replace(cache, longest_model_len=limit))
        if self.problems and (plan.fits is not Fit.UNKNOWN or self.problems[0].fits is Fit.NO):
            first = self.problems[0]
            plan = replace(plan, fits=first.fits, limited_by=first.limited_by, reason=first.reason)
        return plan

    @property
    def memory_holds(self) -> int | None:
        """The longest context for the memory alone, where a further node is started before that; else None."""
        cache, limit = make_plan(self.request).kv_cache, self.longest_on_these_nodes
        if cache is None or limit is None or cache.longest_model_len <= limit:
            return None
        return cache.longest_model_len

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command without the model."""
        return tuple(word for word in self.command if not word.startswith("--model="))

    def command_line(self) -> str:
        """As `vllm serve`, ready to paste into a shell, with its environment in front."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        own = [shlex.quote(word) for word in self.arguments]
        first = " ".join([*variables, "vllm serve", shlex.quote(self.model)])
        return " \\\n  ".join([first, *own])


NO_ENVIRONMENT: Mapping[str, str] = {}


def served(words: Mapping[str, str], model: str) -> tuple[str, ...]:
    """Options (name to value, an empty text for a switch) as words of a command line, the model first."""
    return (f"--model={model}", *(f"--{n}={v}" if v != "" else f"--{n}" for n, v in words.items()))
