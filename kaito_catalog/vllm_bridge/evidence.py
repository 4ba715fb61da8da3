"""Dry runs as evidence: what the vLLM worker says, in the catalog's own format; and how evidence is written."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.catalog.reading import shown
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse, read
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.evidence import DryRun, FailureClass
from kaito_catalog.formats.evidence import ExactPlan as ExactPlanFile
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge.answers import RunOutcome
from kaito_catalog.vllm_bridge.logs import RESULT_KIND, without_paths

EVIDENCE_API_VERSION = "catalog.kaito.sh/v1alpha1"

CPU_MAX_MODEL_LEN = 2048
"""The longest context of a dry run on a CPU where no other is asked for."""


def config_sha256(config: Mapping[str, Any]) -> str:
    """The digest of a configuration: SHA-256 of its canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def need_config(facts: ModelFacts | None, name: str) -> Mapping[str, Any]:
    """The configuration in the facts.

    Raises:
        CatalogError: it is not recorded.
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


def document(entry: Entry, kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What every piece of evidence starts with: what it is about, and the versions that the worker reported."""
    names = {"vllm": "vllmVersion", "torch": "torchVersion", "transformers": "transformersVersion"}
    revision = entry.facts.revision if entry.facts else None
    return {
        "apiVersion": EVIDENCE_API_VERSION,
        "kind": kind,
        "model": entry.name,
        **({"revision": revision} if revision else {}),
        "configSha256": config_sha256(need_config(entry.facts, entry.name)),
        "versions": {key: str(found[name]) for key, name in names.items() if found.get(name)},
    }


def dry_run_evidence(
    entry: Entry,
    outcome: RunOutcome,
    *,
    args: Mapping[str, Any],
    weights: str,
    changed: Mapping[str, Any],
    today: str | None = None,
) -> dict[str, Any]:
    """`kind: DryRun` of what the worker reported."""
    found: dict[str, Any] = dict(outcome)
    return {
        **document(entry, "DryRun", found),
        **_hardware(found, args),
        "command": command_of(args),
        "weights": weights,
        **({"scaledDown": dict(changed)} if changed else {}),
        "outcome": found["outcome"],
        **_failure(found),
        **_measured(found),
        "recordedAt": today or datetime.now(UTC).date().isoformat(),
        **_log(found),
    }


def _hardware(found: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The device and how the model was split; what is one is left out."""
    value: dict[str, Any] = {"device": found.get("device", "cpu")}
    tensor, pipeline = args.get("tensor_parallel_size", 1), args.get("pipeline_parallel_size", 1)
    count = tensor * pipeline
    if value["device"] == "cuda":
        hardware: Mapping[str, Any] = found.get("hardware") or {}
        value["gpu"] = {
            "name": hardware.get("gpu") or hardware.get("name") or "unknown",
            **_known({"memoryBytes": hardware.get("memoryBytes")}),
            **({"count": count} if count != 1 else {}),
        }
    if count != 1:
        sizes = {"tensorParallelSize": tensor, "pipelineParallelSize": pipeline}
        value["parallelism"] = {name: size for name, size in sizes.items() if size != 1}
    return value


def _failure(found: Mapping[str, Any]) -> dict[str, str]:
    value: dict[str, str] = {}
    if found.get("class"):
        value["failure"] = found["class"] if found["class"] in _FAILURES else "other"
    if found.get("message"):
        value["message"] = without_paths(str(found["message"])[:2000])
    return value


def _measured(found: Mapping[str, Any]) -> dict[str, Any]:
    cache: Mapping[str, Any] = found.get("kvCache") or {}
    seconds: Mapping[str, float] = found.get("seconds") or {}
    tokens = found.get("tokensGenerated")
    ranks = [_rank(number, rank) for number, rank in enumerate(found.get("ranks") or ())]
    return _known(
        {
            "ranks": ranks or None,
            "kvCacheTokens": cache.get("tokens"),
            "maxConcurrency": cache.get("maxConcurrency"),
            "startupSeconds": round(sum(seconds.values()), 1) if seconds else None,
            "generatedTokens": len(tokens) if tokens else None,
        }
    )


def _log(found: Mapping[str, Any]) -> dict[str, list[str]]:
    lines = [without_paths(str(line)[:500]) for line in found.get("log") or ()]
    return {"log": lines[-20:]} if lines else {}


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def command_of(args: Mapping[str, Any]) -> list[str]:
    """Engine arguments as evidence writes them."""
    return [
        f"--{name.replace('_', '-')}={json.dumps(part) if isinstance(part, dict | list) else part}"
        for name, part in sorted(args.items())
    ]


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


class WeakerEvidenceError(CatalogError):
    """What is recorded shows more than what would take its place."""


def write_evidence(folder: Path, value: Mapping[str, Any], *, replace: bool = False) -> Path:
    """Write evidence to the `evidence/` of a model's folder after validating it.

    Args:
        folder: the model's.
        value: the evidence.
        replace: also in the place of evidence that shows more.

    Raises:
        CatalogError: it is not valid, or what is recorded shows more; nothing is written.
    """
    kind, model = ("exact-plan", ExactPlanFile) if value.get("kind") == "ExactPlan" else ("dry-run", DryRun)
    _, problems = load(parse(writing.write(dict(value)), path="(the evidence)"), model)
    if problems:
        first = problems[0]
        raise CatalogError(f"this is not valid evidence: {first.message}", hint=first.hint)
    path = folder / "evidence" / evidence_name(value)
    recorded = recorded_evidence(folder, value)
    if recorded is not None and not replace and (why := _shows_more(recorded, value)) is not None:
        raise WeakerEvidenceError(f"{shown(path)} stays: {why}", hint="--replace puts this in its place")
    text = (
        f"# yaml-language-server: $schema=../../../../schema/{kind}.schema.json\n{writing.write(dict(value))}"
    )
    files.write_text(path, text)
    return path


def recorded_evidence(folder: Path, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is recorded where this evidence would be written; None where nothing is, or nothing that can be read."""
    path = folder / "evidence" / evidence_name(value)
    if not path.is_file():
        return None
    found = read(path, shown_as=shown(path)).value
    return found if isinstance(found, dict) else None


def _shows_more(recorded: Mapping[str, Any], value: Mapping[str, Any]) -> str | None:
    """Why recorded evidence should not give way; None where it may."""
    of_same = all(recorded.get(key) == value.get(key) for key in ("kind", "revision", "configSha256"))
    if not of_same:
        return None  # of another commit: it is stale, and check says so
    before, after = (_SHOWS.get(str(found.get("outcome")), 0) for found in (recorded, value))
    what = f"it {_ENDED.get(str(recorded.get('outcome')), 'was recorded')} on {recorded.get('recordedAt')}"
    if after < before:
        return f"{what}, and this one {_ENDED.get(str(value.get('outcome')), 'did not')}"
    if recorded.get("weights") == "real" and value.get("weights") == "dummy" and after <= before:
        return f"{what} with the real weights, and this one has random ones"
    if str(value.get("recordedAt")) < str(recorded.get("recordedAt")) and after <= before:
        return f"{what}, and this one is older ({value.get('recordedAt')})"
    return None


_SHOWS = {"served": 2, "does-not-fit": 1, "failed": 0}
_ENDED = {"served": "served", "does-not-fit": "did not fit", "failed": "failed"}


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
            cast(RunOutcome, result),
            args=dict(value["args"]),
            weights=str(value["weights"]),
            changed=dict(value.get("changed") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"the result of {entry.name} is none of the worker's: {type(error).__name__} ({error})"
        ) from error


_FAILURES = get_args(FailureClass)


def _rank(number: int, rank: Mapping[str, Any]) -> dict[str, Any]:
    loaded = rank.get("loadedBytesByDtype")
    figures = {
        "weightsBytes": sum(loaded.values()) if loaded else rank.get("modelMemoryBytes"),
        "nonTorchBytes": rank.get("nonTorchBytes"),
        "activationPeakBytes": rank.get("activationPeakBytes"),
        "cudaGraphBytes": rank.get("cudaGraphBytes"),
        "kvCacheBytes": rank.get("kvCacheBytes"),
    }
    return {"rank": number, **_known(figures)}
