"""Plans and their starts as plain values: the contract of `plan --format json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kaito_catalog.memory.legal_splits import tensor_parallel_sizes
from kaito_catalog.memory.values import Plan, to_json
from kaito_catalog.plans import recommend
from kaito_catalog.plans.instance_types import InstanceTypePlan
from kaito_catalog.plans.replicas import HOURS_A_MONTH, Replicas, replicas_on
from kaito_catalog.plans.request import PlanSubject
from kaito_catalog.plans.speculation import cost_of_speculation
from kaito_catalog.plans.started import Started
from kaito_catalog.vllm_bridge.reference import planned_as


def plan_value(
    subject: PlanSubject,
    plan: Plan,
    started: Started | None = None,
    *,
    row: InstanceTypePlan | None = None,
    users: int | None = None,
) -> dict[str, Any]:
    """One plan as plain values: the contract of `plan --format json`.

    Args:
        subject: the model.
        plan: of it.
        started: what the plan is of.
        row: the same, where it is on an instance type, with its price.
        users: how many are to be served at once.
    """
    sizes = tensor_parallel_sizes(
        subject.shape,
        enable_expert_parallel=plan.parallelism.enable_expert_parallel,
        vllm_version=plan.vllm_version,
    )
    cost = cost_of_speculation(subject.shape, subject.stored, plan)
    return {
        "version": 1,
        "model": subject.name,
        **(start_value(started) if started else {}),
        **to_json(plan),
        "plannedAs": _planned_as(plan.vllm_version),
        "requestsAtOnce": recommend.requests_at_once(plan),
        **({} if row is None else {"price": recommend.price_to_json(row.price)}),
        **(
            {}
            if row is None or users is None
            else {"forUsers": _users_value([replicas_on(row, users)], users)}
        ),
        **({} if cost is None else {"speculation": cost.to_json()}),
        "tensorParallelSizes": {
            "legal": [size for size, reason in sizes.items() if reason is None],
            "illegal": {str(size): reason for size, reason in sizes.items() if reason is not None},
        },
    }


def _planned_as(vllm_version: str) -> dict[str, str] | None:
    stand_in = planned_as(vllm_version)
    return None if stand_in is None else stand_in.to_json()


def start_value(started: Started) -> dict[str, Any]:
    """The start of a plan as plain values."""
    return {
        "engine": started.engine,
        "command": list(started.command),
        "environment": dict(started.environment),
        "nodeCount": started.nodes,
        "hostMemoryBytes": started.host_memory_bytes,
        "withoutEffect": [
            {"option": found.name, "value": found.value, "reason": found.reason}
            for found in started.without_effect
        ],
        "notes": list(started.notes),
    }


def _users_value(found: Sequence[Replicas | None], users: int) -> dict[str, Any]:
    """What serves that many users, the best first."""
    serving = [each.to_json() for each in found if each is not None]
    return {"users": users, "hoursAMonth": HOURS_A_MONTH, "instanceTypes": serving}


def rows_value(
    subject: PlanSubject,
    rows: tuple[InstanceTypePlan, ...],
    *,
    replicas: Sequence[Replicas] = (),
    users: int | None = None,
) -> dict[str, Any]:
    """The plans of all instance types as plain values, and the replicas that serve a number of users."""
    return {
        "version": 1,
        "model": subject.name,
        "maxModelLen": subject.max_model_len,
        "recommended": {
            **recommend.to_json(recommend.recommend(rows, max_model_len=subject.max_model_len)),
            "byCloud": recommend.clouds_to_json(
                recommend.by_cloud(rows, max_model_len=subject.max_model_len)
            ),
        },
        "instanceTypes": [
            {
                "name": row.instance_type.name,
                "cloud": row.instance_type.cloud,
                "gpuCount": row.instance_type.gpu_count,
                "gpusNeeded": row.gpus_needed,
                "note": row.note,
                "price": recommend.price_to_json(row.price),
                "requestsAtOnce": recommend.requests_at_once(row.plan),
                **start_value(row.started),
                **to_json(row.plan),
                "plannedAs": _planned_as(row.plan.vllm_version),
            }
            for row in rows
        ],
        **({} if users is None else {"forUsers": _users_value(replicas, users)}),
    }
