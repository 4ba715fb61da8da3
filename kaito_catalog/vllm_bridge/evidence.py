"""Exact plans and dry runs as evidence: what the vLLM worker says, in the catalog's own format."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast, get_args

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun, FailureClass
from kaito_catalog.formats.evidence import ExactPlan as ExactPlanFile
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.answers import ExactPlan, Gpu, Outcome
from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.conversation import WorkerError

API_VERSION = "catalog.kaito.sh/v1alpha1"

H100: Gpu = {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memoryBytes": 80 * 2**30}
"""What exact plans of the catalog simulate: the GPU most start-up logs are of."""


CPU_MAX_MODEL_LEN = 2048
"""The longest context of a dry run on a CPU that nobody asked for otherwise."""


def config_sha256(config: Mapping[str, Any]) -> str:
    """The digest of a configuration: SHA-256 of its canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def need_config(facts: ModelFacts | None, name: str) -> Mapping[str, Any]:
    """The configuration in the facts.

    Raises:
        CatalogError: nobody has read it.
    """
    if facts is None or not facts.config:
        raise CatalogError(
            f"the configuration of {name} is not recorded", hint=f"kaito-catalog record {name}"
        )
    return facts.config


@contextmanager
def model_directory(config: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder with `config.json`, the only file that an exact plan or dummy weights need."""
    with tempfile.TemporaryDirectory(prefix="kaito-catalog-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield Path(folder)


def plan_worlds(
    worker: Callable[[], Worker],
    config: Mapping[str, Any],
    *,
    sizes: Iterable[int],
    max_model_len: int,
    vllm_version: str,
    kv_cache_dtype: str | None = None,
    gpu: Gpu = H100,
    time_limit_seconds: float = 300.0,
) -> list[tuple[int, ExactPlan | WorkerError]]:
    """Exact plans of one configuration at several tensor-parallel sizes; what vLLM refuses keeps its reason.

    Args:
        worker: gives a live worker (a new one after the last was lost).
        config: the configuration.
        sizes: tensor-parallel sizes.
        max_model_len: tokens of one request.
        vllm_version: whose code.
        kv_cache_dtype: None for vLLM's default.
        gpu: what is simulated.
        time_limit_seconds: for each plan.

    Raises:
        WorkerError: vLLM cannot be asked at all.
    """
    found: list[tuple[int, ExactPlan | WorkerError]] = []
    options = {"kv_cache_dtype": kv_cache_dtype} if kv_cache_dtype else {}
    with model_directory(config) as folder:
        for size in sizes:
            try:
                plan = worker().exact_plan(
                    folder,
                    args={"tensor_parallel_size": size, "max_model_len": max_model_len, **options},
                    gpu=gpu,
                    vllm_version=vllm_version,
                    time_limit_seconds=time_limit_seconds,
                )
            except WorkerError as error:
                if error.failure_class in ("no-python", "no-vllm", "no-version"):
                    raise
                found.append((size, error))
            else:
                found.append((size, plan))
    return found


def exact_evidence(
    entry: Entry,
    worlds: Iterable[tuple[int, ExactPlan | WorkerError]],
    *,
    kv_cache_dtype: str | None = None,
    gpu: Gpu = H100,
    today: str | None = None,
) -> dict[str, Any]:
    """`kind: ExactPlan` of an entry.

    Raises:
        CatalogError: no world gave a plan.
    """
    found = list(worlds)
    first = next((plan for _, plan in found if not isinstance(plan, WorkerError)), None)
    if first is None:
        words = found[0][1].words if found and isinstance(found[0][1], WorkerError) else "nothing was asked"
        raise CatalogError(f"vLLM gives no exact plan of {entry.name}: {words}")
    value: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "ExactPlan",
        "model": entry.name,
        **_revision(entry),
        "configSha256": config_sha256(need_config(entry.facts, entry.name)),
        "versions": _versions(first),
        "gpu": {
            "name": gpu["name"],
            "memoryBytes": gpu["memoryBytes"],
            "computeCapability": float(gpu["capability"]),
        },
        "recordedAt": today or datetime.now(UTC).date().isoformat(),
        "worlds": [],
    }
    for size, plan in found:
        world: dict[str, Any] = {"parallelism": {"tensorParallelSize": size}}
        if isinstance(plan, WorkerError):
            world["refused"] = plan.words[:2000]
        else:
            if kv_cache_dtype:
                world["kvCacheDtype"] = kv_cache_dtype
            settings, cache = plan["settings"], plan["kvCache"]
            world["maxNumBatchedTokens"] = settings["maxNumBatchedTokens"]
            world["maxNumSeqs"] = settings["maxNumSeqs"]
            world["ranks"] = [
                {
                    "rank": rank["tensorRank"],
                    "weightsBytes": rank["weightsBytes"],
                    "bufferBytes": rank["bufferBytes"],
                    "weightsByDtype": dict(sorted(rank["weightsBytesByDtype"].items())),
                    **_after_loading(rank["afterLoading"]),
                }
                for rank in plan["ranks"]
            ]
            world["kvCache"] = {
                "maxModelLen": settings["maxModelLen"],
                "neededBytes": cache["neededBytes"],
                **(
                    {"neededByLayersBytes": cache["neededByLayersBytes"]}
                    if "neededByLayersBytes" in cache
                    else {}
                ),
                "groups": [
                    {
                        key: group[key]
                        for key in ("kind", "layers", "blockSize", "pageBytes", "slidingWindow", "dtype")
                        if key in group
                    }
                    for group in map(dict, cache["groups"])
                ],
            }
        value["worlds"].append(world)
    return value


def _after_loading(found: Mapping[str, Any]) -> dict[str, int]:
    return {"afterLoadingBytes": found["weightsBytes"]} if found.get("known") else {}


def _revision(entry: Entry) -> dict[str, str]:
    return {"revision": entry.facts.revision} if entry.facts and entry.facts.revision else {}


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    names = {"vllm": "vllmVersion", "torch": "torchVersion", "transformers": "transformersVersion"}
    return {key: str(found[name]) for key, name in names.items() if found.get(name)}


# --- dry runs --------------------------------------------------------------------------------------------------

SCALED_LAYERS = 2
SCALED_EXPERTS = 8
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def scaled_down(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration of the same architecture that a small machine can run, and what was changed.

    Two layers of the real width, at most eight experts; everything else as it is.
    """
    result = dict(config)
    changed: dict[str, Any] = {}
    where = result
    if isinstance(config.get("text_config"), dict):
        where = result["text_config"] = dict(config["text_config"])

    def change(key: str, value: Any) -> None:
        if where.get(key) != value:
            where[key] = changed[key] = value

    layers = where.get("num_hidden_layers")
    if isinstance(layers, int) and layers > SCALED_LAYERS:
        change("num_hidden_layers", SCALED_LAYERS)
        kinds = where.get("layer_types")
        if isinstance(kinds, list):
            # One layer of each kind, so that every kind is run.
            kept = list(dict.fromkeys(kinds))[:SCALED_LAYERS]
            change("layer_types", (kept * SCALED_LAYERS)[:SCALED_LAYERS])
        if isinstance(where.get("first_k_dense_replace"), int) and where["first_k_dense_replace"] > 1:
            change("first_k_dense_replace", 1)
    for key in _EXPERTS:
        if isinstance(where.get(key), int) and where[key] > SCALED_EXPERTS:
            change(key, SCALED_EXPERTS)
            if isinstance(where.get("n_group"), int) and where["n_group"] > 1:
                change("n_group", 1)
                change("topk_group", 1)
            chosen = where.get("num_experts_per_tok")
            if isinstance(chosen, int) and chosen > SCALED_EXPERTS // 2:
                change("num_experts_per_tok", SCALED_EXPERTS // 2)
    return result, changed


def dry_run_evidence(
    entry: Entry,
    outcome: Outcome,
    *,
    args: Mapping[str, Any],
    weights: str,
    changed: Mapping[str, Any],
    today: str | None = None,
) -> dict[str, Any]:
    """`kind: DryRun` of what the worker reported."""
    found: dict[str, Any] = dict(outcome)
    cache: dict[str, Any] = found.get("kvCache") or {}
    seconds: dict[str, float] = found.get("seconds") or {}
    value: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "DryRun",
        "model": entry.name,
        **_revision(entry),
        "configSha256": config_sha256(need_config(entry.facts, entry.name)),
        "versions": _versions(found),
        "device": found.get("device", "cpu"),
    }
    hardware: dict[str, Any] = found.get("hardware") or {}
    if value["device"] == "cuda":
        value["gpu"] = {
            key: part
            for key, part in {
                "name": hardware.get("gpu") or hardware.get("name") or "unknown",
                "memoryBytes": hardware.get("memoryBytes"),
            }.items()
            if part is not None
        }
    tensor, pipeline = args.get("tensor_parallel_size", 1), args.get("pipeline_parallel_size", 1)
    if "gpu" in value and tensor * pipeline != 1:
        value["gpu"]["count"] = tensor * pipeline
    sizes = {"tensorParallelSize": tensor, "pipelineParallelSize": pipeline}
    if tensor * pipeline != 1:
        value["parallelism"] = {name: size for name, size in sizes.items() if size != 1}
    value["command"] = command_of(args)
    value["weights"] = weights
    if changed:
        value["scaledDown"] = dict(changed)
    value["outcome"] = found["outcome"]
    if found.get("class"):
        value["failure"] = found["class"] if found["class"] in _FAILURES else "other"
    if found.get("message"):
        value["message"] = without_paths(str(found["message"])[:2000])
    ranks = [_rank(number, rank) for number, rank in enumerate(found.get("ranks") or ())]
    if ranks:
        value["ranks"] = ranks
    for key, part in (
        ("kvCacheTokens", cache.get("tokens")),
        ("maxConcurrency", cache.get("maxConcurrency")),
        ("startupSeconds", _total(seconds)),
        ("generatedTokens", len(found["tokensGenerated"]) if found.get("tokensGenerated") else None),
    ):
        if part is not None:
            value[key] = part
    value["recordedAt"] = today or datetime.now(UTC).date().isoformat()
    if found.get("log"):
        value["log"] = [without_paths(str(line)[:500]) for line in found["log"]][-20:]
    return value


def command_of(args: Mapping[str, Any]) -> list[str]:
    """Engine arguments as evidence writes them."""
    return [f"--{name.replace('_', '-')}={part}" for name, part in sorted(args.items())]


def evidence_name(value: Mapping[str, Any]) -> str:
    """The file of a piece of evidence: one for each vLLM, device and parallelism."""
    version = re.sub(r"[^0-9a-z.]+", "-", value["versions"].get("vllm", "unknown").lower())
    if value["kind"] == "ExactPlan":
        return f"vllm-{version}-exact.yaml"
    sizes = value.get("parallelism") or {}
    where = value.get("gpu", {}).get("name", value["device"])
    split = f"tp{sizes.get('tensorParallelSize', 1)}"
    if sizes.get("pipelineParallelSize", 1) != 1:
        split += f"-pp{sizes['pipelineParallelSize']}"
    slug = re.sub(r"[^a-z0-9]+", "-", f"{where}-{split}".lower()).strip("-")
    return f"vllm-{version}-{slug}.yaml"


def write_evidence(folder: Path, value: Mapping[str, Any]) -> Path:
    """Write evidence to the `evidence/` of a model's folder after validating it.

    Raises:
        CatalogError: it is not valid; nothing is written.
    """
    kind, model = ("exact-plan", ExactPlanFile) if value.get("kind") == "ExactPlan" else ("dry-run", DryRun)
    _, problems = load(parse(writing.write(dict(value)), path="(the evidence)"), model)
    if problems:
        first = problems[0]
        raise CatalogError(f"this is no valid evidence: {first.message}", hint=first.hint)
    path = folder / "evidence" / evidence_name(value)
    text = (
        f"# yaml-language-server: $schema=../../../../schema/{kind}.schema.json\n{writing.write(dict(value))}"
    )
    files.write_text(path, text)
    return path


RESULT_KIND = "DryRunResult"
"""What a dry run on another machine prints: the worker's answer, and what was asked (`dry_runs/task`)."""


def accepted(entry: Entry, value: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence that was made elsewhere, once it is about this entry; a `DryRunResult` becomes a `DryRun`.

    Raises:
        CatalogError: it is of another revision or configuration, or a result that is none.
    """
    assert entry.proposal is not None
    pinned, revision = entry.proposal.requirements.version, value.get("revision")
    if revision is not None and pinned is not None and revision != pinned:
        raise CatalogError(
            f"this evidence is of revision {str(revision)[:12]}…, {entry.name} pins {pinned[:12]}…",
            hint="run it again at the pinned revision",
        )
    config = entry.facts.config if entry.facts else None
    if config and value.get("configSha256") != config_sha256(config):
        raise CatalogError(f"this evidence is of another configuration than that of {entry.name}")
    if value.get("kind") != RESULT_KIND:
        return dict(value)
    result = value.get("result")
    if not isinstance(result, dict):
        error = value.get("error")
        words = error.get("message") if isinstance(error, dict) else None
        raise CatalogError(f"the dry run of {entry.name} gave no result: {str(words or 'no reason')[:300]}")
    if not result.get("vllmVersion"):
        words = str(result.get("message") or result.get("outcome"))
        raise CatalogError(
            f"the dry run of {entry.name} ended before vLLM said which version it is: {words[:300]}"
        )
    try:
        return dry_run_evidence(
            entry,
            cast(Outcome, result),
            args=dict(value["args"]),
            weights=str(value["weights"]),
            changed=dict(value.get("changed") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"the result of {entry.name} is none of the worker's: {type(error).__name__} ({error})"
        ) from error


_MAX_LINE = 2**20
# `kubectl logs` may put the pod and the time in front; nothing else may stand before the line.
_EVIDENCE_LINE = re.compile(r"(?:\[\S+\] )?(?:\d{4}-\d\d-\d\dT\S+ )?\s*(\{.*\})\s*\Z", re.ASCII)


def evidence_lines(stream: TextIO) -> Iterator[dict[str, Any]]:
    """The lines of a log that are evidence; everything else in it is somebody's log."""
    for line in _lines(stream):
        match = _EVIDENCE_LINE.match(line)
        if match is None:
            continue
        try:
            value = json.loads(match[1])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("kind") in ("DryRun", "ExactPlan", RESULT_KIND):
            yield value


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines of at most 1 MiB; the inside of a longer one is never taken for a line."""
    inside = False
    while part := stream.readline(_MAX_LINE + 1):
        if not inside and len(part) <= _MAX_LINE:
            yield part
        inside = not part.endswith("\n")


_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+")


def without_paths(text: str) -> str:
    """`text` with absolute folders shortened: where things lie on a machine is nobody's evidence."""
    return _FOLDERS.sub("…/", text)


_FAILURES = get_args(FailureClass)


def _total(seconds: Mapping[str, float]) -> float | None:
    return round(sum(seconds.values()), 1) if seconds else None


def _rank(number: int, rank: Mapping[str, Any]) -> dict[str, Any]:
    loaded = rank.get("loadedBytesByDtype")
    figures = {
        "weightsBytes": sum(loaded.values()) if loaded else rank.get("modelMemoryBytes"),
        "nonTorchBytes": rank.get("nonTorchBytes"),
        "activationPeakBytes": rank.get("activationPeakBytes"),
        "cudaGraphBytes": rank.get("cudaGraphBytes"),
        "kvCacheBytes": rank.get("kvCacheBytes"),
    }
    return {"rank": number, **{key: part for key, part in figures.items() if part is not None}}
