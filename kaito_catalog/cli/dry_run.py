"""`dry-run` on this machine, and `evidence add`, which takes what a dry run elsewhere found."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaito_catalog.catalog.entries import Entry
from kaito_catalog.catalog.reading import read_shared, shown
from kaito_catalog.cli.common import FAILED, OK, catalog_root, opened, say
from kaito_catalog.cli.exact_plan import asking, find_entry
from kaito_catalog.cli.progress import Progress
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.manifests import vllm_options
from kaito_catalog.plans.given_options import with_short_forms
from kaito_catalog.plans.start import DEFAULT_MAX_MODEL_LEN, engine_arguments, start_of
from kaito_catalog.quantity import gib
from kaito_catalog.reports.style import BOLD, GREEN, RED, paint, printable, wants_color
from kaito_catalog.vllm_bridge import evidence
from kaito_catalog.vllm_bridge.answers import RunOutcome
from kaito_catalog.vllm_bridge.client import Worker
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.logs import evidence_lines
from kaito_catalog.vllm_bridge.scaled_down import scaled_down

# Weights of more than this share of the host's memory are not tried on a CPU; the model is scaled down instead.
CPU_SHARE = 0.4
HINTS = {
    "illegal-instruction": "this build of vLLM or torch uses an instruction that the processor or its virtual "
    "machine does not offer; compare the flags in /proc/cpuinfo, or run it on another machine"
}
"""What to do about a failure, by its class, where vLLM's own words do not say it."""


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
            say(
                f"scaled down for this machine: {', '.join(f'{key}={value}' for key, value in changed.items())}"
            )
    args = _engine_args(entry, options, root, device)
    # Only then does vLLM ask the Hub; else it gets a folder with what it needs.
    from_hub = not options.model_dir and (options.serve or options.weights == "real")
    with (
        Progress(wait_seconds=0) as progress,
        asking(options.vllm_python, root.parent, hub_token=from_hub) as worker,
    ):
        progress.step(f"dry run of {entry.name}")
        outcome = _run(worker(), entry, config, args, options, device)
    if options.serve:
        _emit_outcome(entry, outcome, options.format)
        return 0 if outcome["outcome"] == "served" else 1
    value = evidence.dry_run_evidence(entry, outcome, args=args, weights=options.weights, changed=changed)
    if not options.no_write:
        try:
            path = evidence.write_evidence(entry.folder, value, replace=options.replace)
            say(f"wrote {shown(path)}")
        except evidence.WeakerEvidenceError as error:
            say(f"not recorded: {error.message}")
            say(f"hint: {error.hint}")
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
        start = start_of(entry.proposal, entry.facts, shared, profile, max_model_len=length)
        settings = start.settings(None)
        args = engine_arguments(settings)
        if options.gpu_memory_utilization:
            args["gpu_memory_utilization"] = options.gpu_memory_utilization
    else:
        args = {"max_model_len": options.max_model_len or min(length, evidence.CPU_MAX_MODEL_LEN)}
    if options.tensor_parallel_size:
        args["tensor_parallel_size"] = options.tensor_parallel_size
    left_out = [] if options.serve else _left_out(entry.proposal, args)
    if left_out:
        say(f"started without {', '.join(left_out)}: what a dry run shows is of the model without it")
    return args


def _left_out(proposal: Proposal, args: Mapping[str, Any]) -> list[str]:
    """The options of the proposal that the engine is not made with."""
    config = (proposal.vllm.config if proposal.vllm else None) or {}
    return [
        name for name in with_short_forms(config) if name.replace("-", "_").removeprefix("no_") not in args
    ]


def _run(
    worker: Worker,
    entry: Entry,
    config: Mapping[str, Any],
    args: Mapping[str, Any],
    options: argparse.Namespace,
    device: str,
) -> RunOutcome:
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


def _emit_outcome(entry: Entry, outcome: RunOutcome, form: str) -> None:
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


def run_evidence_add(options: argparse.Namespace) -> int:
    """`evidence add -`."""
    root = catalog_root(options)
    with opened(options.file) as stream:
        found = list(evidence_lines(stream))
    if not found:
        raise CatalogError(
            "no line is evidence",
            hint="evidence is one line of JSON of kind DryRunResult, DryRun or ExactPlan; a log may be cut",
        )
    refused = 0
    for line in found:
        entry = find_entry(str(line.get("model", "")), root)
        value = evidence.accepted(entry, line)
        before = evidence.recorded_evidence(entry.folder, value)
        try:
            path = evidence.write_evidence(entry.folder, value, replace=options.replace)
        except evidence.WeakerEvidenceError as error:
            refused += 1
            say(f"error: {error.message}")
            say(f"hint: {error.hint}")
            continue
        what = "wrote" if before is None else "unchanged:" if before == value else "replaced"
        outcome = (
            "" if before is None or before == value else f" ({before.get('outcome') or before.get('kind')}"
        )
        outcome += f" of {before.get('recordedAt')})" if outcome and before else ""
        sys.stdout.write(f"{what} {shown(path)}{outcome}\n")
    return FAILED if refused else OK
