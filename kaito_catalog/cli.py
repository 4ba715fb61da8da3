"""The command line: reads arguments, calls one function a command, prints results to stdout."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from kaito_catalog import (
    __version__,
    changes,
    cli_hub,
    cli_vllm,
    diff,
    exact,
    files,
    fix,
    generate,
    planning,
    yaml_writer,
)
from kaito_catalog.catalog import (
    FACTS,
    PROPOSAL,
    Catalog,
    Entry,
    Shared,
    find_root,
    read_catalog,
    read_entry,
    read_shared,
    shown,
)
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_catalog
from kaito_catalog.checks.registry import CHECKS, FAMILIES, RULES, rule, selected
from kaito_catalog.diagnostics import Diagnostic, Severity, sort_key
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats import schema
from kaito_catalog.formats.policy import Profile
from kaito_catalog.kaito import comparison, model_catalog
from kaito_catalog.kaito.markdown_reader import IMPORT_CODES, read_proposals
from kaito_catalog.reports import RENDERERS
from kaito_catalog.reports.explain import explain_text, import_code_text, list_text, rule_markdown
from kaito_catalog.reports.github import step_summary
from kaito_catalog.reports.json import diagnostic_value
from kaito_catalog.reports.plan import instance_types_text, plan_text
from kaito_catalog.reports.style import wants_color
from kaito_catalog.reports.summary import plural
from kaito_catalog.reports.text import diagnostic_text, text
from kaito_catalog.site import api_schema
from kaito_catalog.site import build as site
from kaito_catalog.source import Document

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 clean, 1 errors found, 2 usage or unreadable input."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] | None = getattr(options, "run", None)
    if run is None:
        parser.print_help()
        return USAGE
    try:
        return run(options)
    except CatalogError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return USAGE
    except KeyboardInterrupt:
        say("interrupted; what was complete is written, nothing is half done")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def say(line: str) -> None:
    """A message for the person: stderr, so that stdout holds results only."""
    print(line, file=sys.stderr)


def _emit(result: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(result)


# --- check -----------------------------------------------------------------------------------------------------


def _profile(catalog: Catalog, name: str | None) -> Profile:
    policy = catalog.shared.policy
    if name is None:
        return policy.default_profile()
    found = next((profile for profile in policy.profiles if profile.name == name), None)
    if found is None:
        known = ", ".join(profile.name for profile in policy.profiles)
        raise CatalogError(f"there is no profile '{name}'", hint=f"policy.yaml has: {known}")
    return found


def _root(options: argparse.Namespace) -> Path:
    return Path(options.catalog) if options.catalog else find_root(Path.cwd())


def _folder(text: str, root: Path) -> Path:
    """The model folder that `text` names: a folder, its proposal.yaml, a name, or a repository id."""
    path = Path(text)
    if path.name in (PROPOSAL, FACTS) and path.is_file():
        return path.parent
    if (path / PROPOSAL).exists() or (path.is_dir() and not (root / "models" / text).is_dir()):
        return path
    name = text.rpartition("/")[2].lower()
    if (root / "models" / name).is_dir():
        return root / "models" / name
    names = sorted(folder.name for folder in (root / "models").glob("*") if folder.is_dir())
    near = _near(name, names)
    raise CatalogError(
        f"'{text}' is neither a model of the catalog nor a folder with a proposal.yaml",
        hint=f"did you mean {near}?" if near else f"the models are in {shown(root / 'models')}",
    )


def _near(name: str, names: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return found[0] if found else None


def _selection(paths: Sequence[str], root: Path) -> list[Path] | None:
    """The folders that paths name; None is the whole catalog."""
    if not paths:
        return None
    folders: list[Path] = []
    for text_ in paths:
        path = Path(text_)
        if path.resolve() in (root.resolve(), (root / "models").resolve(), root.resolve().parent):
            return None
        holds_models = path.is_dir() and not (path / PROPOSAL).exists()
        inside = [p.parent for p in sorted(path.glob(f"*/{PROPOSAL}"))] if holds_models else []
        folders.extend(inside or [_folder(text_, root)])
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _documents(entries: Sequence[Entry]) -> dict[str, Document]:
    found = [document for e in entries for document in (e.proposal_document, e.facts_document) if document]
    return {document.path: document for document in found}


def run_check(options: argparse.Namespace) -> int:
    """`check`."""
    root = _root(options)
    folders = _selection(options.paths, root)
    if options.changed_since:
        folders = changes.only_changed(root, options.changed_since, folders)
    if options.fix:
        folders = _fix(root, folders)
    catalog = read_catalog(root, folders)
    if not catalog.entries and not options.changed_since:
        raise CatalogError(f"no model in {shown(root / 'models')}")
    select, ignore = _codes(options.select), _codes(options.ignore)
    checks = selected(select, ignore)
    if not checks and not options.online:
        raise CatalogError(
            "no check is left to run",
            hint="YML and SCH always run, and cannot be selected; 'kaito-catalog explain' lists the others",
        )
    context = Context(catalog.shared, _profile(catalog, options.profile))
    report = check_catalog(catalog, checks, context, require_all=options.require_all)
    if options.online:
        report = cli_hub.online(
            report, catalog, _TOOLS, select=select, ignore=ignore, require_all=options.require_all
        )
    sources = _documents(catalog.entries)
    if options.format == "text":
        _emit(text(report, sources, color=wants_color(sys.stdout), verbose=options.verbose))
    else:
        _emit(RENDERERS[options.format](report, sources))
    if options.format == "github" and os.environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(os.environ["GITHUB_STEP_SUMMARY"]), step_summary(report))
    return FAILED if report.failed else OK


def _fix(root: Path, folders: list[Path] | None) -> list[Path] | None:
    """Mend what is mechanical, show it on stderr, and say where the folders are now."""
    results = [
        fix.fix_folder(entry.folder, read_shared(root).policy)
        for entry in read_catalog(root, folders).entries
    ]
    for result in results:
        for reason in result.reasons:
            say(f"fixed: {reason}")
        if result.diff:
            say(result.diff.rstrip("\n"))
    return None if folders is None else [result.folder for result in results]


def _append(path: Path, content: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise CatalogError(f"cannot write the step summary: {error.strerror or error}") from error


def run_diff(options: argparse.Namespace) -> int:
    """`diff`."""
    root = _root(options)
    _emit(diff.diff_text(root, options.revision))
    return OK


_TOOLS = cli_hub.Tools(_root, _selection, _profile, say)


def _codes(values: Sequence[str]) -> list[str]:
    codes = [code.strip().upper() for value in values for code in value.split(",") if code.strip()]
    for code in codes:
        if not any(known.code.startswith(code) for known in RULES):
            raise CatalogError(f"there is no check '{code}'", hint="'kaito-catalog explain' lists the codes")
    return codes


# --- import ----------------------------------------------------------------------------------------------------


def run_import(options: argparse.Namespace) -> int:
    """`import`."""
    into = Path(options.into) if options.into else _root(options) / "models"
    diagnostics: list[Diagnostic] = []
    sources: dict[str, Document] = {}
    written: list[str] = []
    refused = False
    for name in options.files:
        path = Path(name)
        markdown = _read_markdown(path)
        result = read_proposals(markdown, path=shown(path))
        sources[shown(path)] = Document(shown(path), markdown, None, {}, {})
        diagnostics.extend(result.diagnostics)
        for imported in result.proposals:
            target = into / files.safe_name(imported.name) / PROPOSAL
            content = _proposal_text(imported.value, target, into)
            if target.exists() and target.read_text(encoding="utf-8") != content and not options.force:
                say(f"error: {shown(target)} exists and differs; nothing was changed (--force replaces it)")
                refused = True
                continue
            files.write_text(target, content)
            written.append(shown(target))
    if options.format == "json":
        value = {
            "version": 1,
            "written": written,
            "findings": [diagnostic_value(d) for d in sorted(diagnostics, key=sort_key)],
        }
        _emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        color = wants_color(sys.stdout)
        for diagnostic in sorted(diagnostics, key=sort_key):
            _emit(diagnostic_text(diagnostic, sources, color=color) + "\n\n")
        for target_name in written:
            _emit(f"wrote {target_name}\n")
        gaps = plural(len(diagnostics), "remark")
        _emit(f"{plural(len(options.files), 'file')}: {plural(len(written), 'proposal')}, {gaps}\n")
        if written and diagnostics:
            say("next: fill in what the remarks name, then run 'kaito-catalog check PATH'")
    if not written and not refused:
        return FAILED
    errors = any(d.severity is Severity.ERROR for d in diagnostics)
    return FAILED if refused or errors else OK


def _read_markdown(path: Path) -> str:
    try:
        if path.stat().st_size > 2**20:
            raise CatalogError(f"{shown(path)} is larger than 1 MiB", hint="a proposal is a few kilobytes")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{shown(path)} is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise CatalogError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def _proposal_text(value: dict[str, Any], target: Path, into: Path) -> str:
    depth = "../../.." if into.name == "models" else None
    location = f"{depth}/schema/proposal.schema.json" if depth else None
    head = f"# yaml-language-server: $schema={location}\n" if location else ""
    return head + yaml_writer.write(value)


# --- plan ------------------------------------------------------------------------------------------------------


def run_plan(options: argparse.Namespace) -> int:
    """`plan`."""
    root = _root(options)
    request = planning.Request(
        model=options.model,
        instance_type=options.instance_type,
        gpu=options.gpu,
        gpu_memory_bytes=int(options.gpu_memory * 2**30) if options.gpu_memory else None,
        gpu_count=options.gpu_count,
        max_model_len=options.max_model_len,
        gpu_memory_utilization=options.gpu_memory_utilization,
        kv_cache_dtype=options.kv_cache_dtype,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        enforce_eager=options.enforce_eager,
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=options.pipeline_parallel_size,
        data_parallel_size=options.data_parallel_size,
        enable_expert_parallel=options.enable_expert_parallel,
        weights_bytes=options.weights_bytes,
        vllm_version=options.vllm_version,
    )
    shared = read_shared(root)
    profile = _profile(Catalog(root, shared, ()), options.profile)
    subject = planning.read_subject(request, root)
    color = wants_color(sys.stdout)
    if options.record and not options.exact:
        raise CatalogError("--record writes what --exact found", hint="add --exact")
    if options.exact:
        return _run_exact(options, request, subject, shared, profile, root)
    if request.names_a_gpu:
        plan = planning.plan_one(request, subject, shared, profile)
        if options.format == "json":
            _emit(json.dumps(planning.plan_value(subject, plan), indent=2, ensure_ascii=False) + "\n")
        else:
            _emit(plan_text(subject, plan, color=color))
        return OK  # "does not fit" is an answer, not an error
    rows = planning.plan_all(request, subject, shared, profile)
    if options.format == "json":
        _emit(json.dumps(planning.rows_value(subject, rows), indent=2, ensure_ascii=False) + "\n")
    else:
        _emit(instance_types_text(subject, rows, color=color))
    return OK


def _run_exact(
    options: argparse.Namespace,
    request: planning.Request,
    subject: planning.PlanSubject,
    shared: Shared,
    profile: Profile,
    root: Path,
) -> int:
    asked = planning.filled_in(request, subject.options)
    if not asked.names_a_gpu:
        asked = replace(asked, gpu="NVIDIA H100 80GB")
    plan = planning.plan_one(asked, subject, shared, profile)
    version = request.vllm_version or profile.vllm_version
    folder = Path(request.model)
    local = (folder / "config.json").is_file() or (folder / "params.json").is_file()
    with cli_vllm.asking(options.vllm_python, root.parent) as worker:
        if local:
            config: Path | Mapping[str, Any] = folder
        else:
            entry = read_entry(root / "models" / subject.name)
            config = exact.need_config(entry.facts, entry.name)
        found = cli_vllm.exact_plan(worker(), config, asked, plan, vllm_version=version)
        if options.record:
            if local:
                raise CatalogError("only a model of the catalog has evidence", hint="leave out --record")
            path = cli_vllm.record_exact(
                read_entry(root / "models" / subject.name), worker, vllm_version=version
            )
            say(f"wrote {shown(path)}")
    if options.format == "json":
        value = {"version": 1, "model": subject.name, **found, "plan": planning.plan_value(subject, plan)}
        _emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        _emit(cli_vllm.exact_text(subject, plan, found, color=wants_color(sys.stdout)))
    return OK


# --- generate --------------------------------------------------------------------------------------------------


def run_generate(options: argparse.Namespace) -> int:
    """`generate`."""
    root = _root(options)
    catalog = read_catalog(root)
    if options.compare:
        return _compare_with_kaito(catalog, Path(options.compare), options.format)
    profile = _profile(catalog, options.profile)
    catalog = generate.with_profile(catalog, profile)
    report = check_catalog(catalog, CHECKS, Context(catalog.shared, profile))
    generated = generate.build(
        catalog,
        hand_written=generate.read_pages(root.parent / "docs"),
        findings={entry.name: (*entry.diagnostics, *entry.skips) for entry in report.entries},
        checks=[(found.code, found.title, rule_markdown(found)) for found in RULES],
    )
    output = Path(options.output)
    for gap in generated.left_out:
        say(f"left out: {gap.what} of {gap.name}: {gap.reason}")
    unreadable = [entry.name for entry in catalog.entries if not entry.is_readable]
    if unreadable:
        say(f"error: the files of {', '.join(unreadable)} have errors; see 'kaito-catalog check'")
    if options.check:
        changed = generate.differences(output, generated.files)
        for name, how in changed:
            _emit(f"{shown(output / name)}: {how}\n")
        if changed:
            say("hint: run 'kaito-catalog generate'")
        return FAILED if changed or unreadable else OK
    generate.write(output, generated.files)
    counts = Counter(name.split("/")[0] for name in generated.files)
    for tree, count in sorted(counts.items()):
        _emit(f"{shown(output / tree)}: {plural(count, 'file')}\n")
    config = root.parent / "mkdocs.yml"
    if options.no_site or not config.is_file() or not site.is_installed():
        reason = (
            "--no-site" if options.no_site else f"no {shown(config)}" if not config.is_file() else "no mkdocs"
        )
        say(f"the site's pages stay Markdown ({reason})")
    else:
        say("building the site (some seconds) …")
        site.build_site(config, output)
        _emit(
            f"{shown(output / site.SITE)}: {plural(len(list((output / site.SITE).rglob('*.html'))), 'page')}\n"
        )
    return FAILED if unreadable else OK


def _compare_with_kaito(catalog: Catalog, path: Path, format_: str) -> int:
    rows, left_out = model_catalog.rows(catalog)
    found = comparison.compare(path, rows, left_out)
    if format_ == "json":
        _emit(json.dumps(comparison.value(found), indent=2, ensure_ascii=False) + "\n")
    else:
        _emit(comparison.text(found))
    return OK if found.can_replace else FAILED


def run_schema(options: argparse.Namespace) -> int:
    """`schema`."""
    root = Path(options.output) if options.output else _root(options).parent / "schema"
    wanted = {**schema.files(), **api_schema.files()}
    if options.check:
        changed = files.differences(root, wanted)
        for name, how in changed:
            _emit(f"{shown(root / name)}: {how}\n")
        if changed:
            say("hint: run 'kaito-catalog schema'")
        return FAILED if changed else OK
    for name, content in wanted.items():
        files.write_text(root / name, content)
    _emit(f"wrote {plural(len(wanted), 'schema')} to {shown(root)}\n")
    return OK


# --- explain ---------------------------------------------------------------------------------------------------


def run_explain(options: argparse.Namespace) -> int:
    """`explain`."""
    color = wants_color(sys.stdout)
    if options.code is None:
        _emit(list_text(RULES, FAMILIES, IMPORT_CODES, color=color))
        return OK
    code = options.code.upper()
    found = rule(code)
    if found is not None:
        _emit(explain_text(found, color=color))
        return OK
    if code in IMPORT_CODES:
        _emit(import_code_text(code, IMPORT_CODES[code], color=color))
        return OK
    raise CatalogError(
        f"there is no check '{options.code[:40]}'",
        hint="'kaito-catalog explain' without a code lists them all",
    )


# --- arguments -------------------------------------------------------------------------------------------------


def _positive(text_: str) -> int:
    value = int(text_)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _share(text_: str) -> float:
    value = float(text_)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def _gibibytes(text_: str) -> float:
    value = float(text_)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number of GiB above 0")
    return value


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="kaito-catalog",
        description="Proposals of models for KAITO as data: check their claims, plan their memory, generate presets.",
        epilog="examples:\n"
        "  kaito-catalog check                                  every model of the catalog\n"
        "  kaito-catalog plan phi-4                             which instance types serve it\n"
        "  kaito-catalog import proposal.md --into /tmp/mine    a Markdown proposal as data\n"
        "  kaito-catalog explain STO001                         what a finding means\n",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"kaito-catalog {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str) -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + examples,
            formatter_class=_Help,
        )
        sub.set_defaults(run=run)
        sub.add_argument(
            "--catalog",
            metavar="DIR",
            help="the catalog folder (default: found from the current folder upwards)",
        )
        return sub

    check = command(
        "check",
        run_check,
        "check the claims of proposals against facts and the memory plan",
        "  kaito-catalog check\n"
        "  kaito-catalog check phi-4 gemma-3-27b-it\n"
        "  kaito-catalog check /tmp/mine/llama-3.3-70b-instruct --format json\n"
        "  kaito-catalog check --select STO,MEM --require-all\n",
    )
    check.add_argument(
        "paths", nargs="*", metavar="PATH", help="model, folder or proposal.yaml (default: all)"
    )
    check.add_argument("--format", choices=sorted(RENDERERS), default="text", help="default: text")
    check.add_argument(
        "--select", action="append", default=[], metavar="CODES", help="only these codes or families"
    )
    check.add_argument(
        "--ignore", action="append", default=[], metavar="CODES", help="not these codes or families"
    )
    check.add_argument(
        "--changed-since", metavar="REV", help="only models whose folder changed; all when shared files did"
    )
    check.add_argument("--fix", action="store_true", help="mend what is mechanical first, and show it")
    check.add_argument("--require-all", action="store_true", help="a check that cannot be made is an error")
    check.add_argument(
        "--profile", metavar="NAME", help="KAITO release of policy.yaml (default: its `profile`)"
    )
    check.add_argument("--verbose", action="store_true", help="list every skipped check with its place")

    check.add_argument("--online", action="store_true", help="compare the recorded facts with the Hub now")

    cli_hub.add_commands(command, _TOOLS)

    differ = command(
        "diff",
        run_diff,
        "say what a change means for what is served (Markdown)",
        "  kaito-catalog diff origin/main\n  kaito-catalog diff HEAD~1\n",
    )
    differ.add_argument("revision", metavar="REV", help="compare the files here with that commit's")

    importer = command(
        "import",
        run_import,
        "read KAITO's Markdown proposals into folders of the catalog",
        "  kaito-catalog import docs/proposals/20250529-llama-3.3-70b-instruct.md --into /tmp/mine\n"
        "  kaito-catalog import *.md --format json\n",
    )
    importer.add_argument("files", nargs="+", metavar="FILE.md")
    importer.add_argument(
        "--into", metavar="DIR", help="where the folders go (default: models/ of the catalog)"
    )
    importer.add_argument("--force", action="store_true", help="replace proposals that differ")
    importer.add_argument("--format", choices=("text", "json"), default="text", help="default: text")

    plan = command(
        "plan",
        run_plan,
        "plan GPU memory: one GPU in detail, or every instance type",
        "  kaito-catalog plan phi-4\n"
        "  kaito-catalog plan llama-3.3-70b-instruct --instance-type Standard_ND96isr_H100_v5\n"
        "  kaito-catalog plan meta-llama/Llama-3.3-70B-Instruct --gpu 'NVIDIA H100 80GB' --gpu-count 4\n"
        "  kaito-catalog plan ./my-model --gpu-memory 22 --max-model-len 8192 --format json\n",
    )
    plan.add_argument("model", metavar="NAME|REPO_ID|DIR", help="a model, or a folder with a config.json")
    plan.add_argument("--instance-type", metavar="T", help="such as Standard_NC24ads_A100_v4")
    plan.add_argument("--gpu", metavar="NAME", help="a GPU of gpus.yaml, such as 'NVIDIA A10'")
    plan.add_argument("--gpu-memory", metavar="GIB", type=_gibibytes, help="total as the driver reports it")
    plan.add_argument("--gpu-count", metavar="N", type=_positive, help="GPUs (default: what the model needs)")
    plan.add_argument("--max-model-len", metavar="N", type=_positive, help="default: the proposal's context")
    plan.add_argument("--gpu-memory-utilization", metavar="X", type=_share, help="default: the profile's")
    plan.add_argument("--kv-cache-dtype", metavar="T")
    plan.add_argument("--max-num-seqs", metavar="N", type=_positive)
    plan.add_argument("--max-num-batched-tokens", metavar="N", type=_positive)
    plan.add_argument("--enforce-eager", action="store_true", default=None, help="no CUDA graphs")
    plan.add_argument("--tensor-parallel-size", metavar="N", type=_positive)
    plan.add_argument("--pipeline-parallel-size", metavar="N", type=_positive, default=1)
    plan.add_argument("--data-parallel-size", metavar="N", type=_positive, default=1)
    plan.add_argument("--enable-expert-parallel", action="store_true")
    plan.add_argument(
        "--weights-bytes", metavar="N", type=_positive, help="stored size of the weights, when known"
    )
    plan.add_argument("--vllm-version", metavar="V", help="default: the profile's")
    plan.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")
    plan.add_argument("--format", choices=("text", "json"), default="text", help="default: text")

    cli_vllm.add_plan_options(plan)
    cli_vllm.add_commands(command)

    generator = command(
        "generate",
        run_generate,
        "write KAITO's presets, manifests, proposals and the site's pages",
        "  kaito-catalog generate\n"
        "  kaito-catalog generate --output /tmp/build\n"
        "  kaito-catalog generate --check          fails when build/ is not up to date\n"
        "  kaito-catalog generate --compare kaito/presets/workspace/models/model_catalog.yaml\n",
    )
    generator.add_argument("--output", metavar="DIR", default="build", help="default: build")
    generator.add_argument("--no-site", action="store_true", help="do not turn the site's pages into HTML")
    generator.add_argument(
        "--check", action="store_true", help="write nothing; fail when something would change"
    )
    generator.add_argument(
        "--profile", metavar="NAME", help="KAITO release of policy.yaml (default: its `profile`)"
    )
    generator.add_argument(
        "--compare",
        metavar="FILE",
        help="write nothing; compare with KAITO's model_catalog.yaml or presets.md, fail where ours cannot replace it",
    )
    generator.add_argument(
        "--format", choices=("text", "json"), default="text", help="of --compare; default: text"
    )

    schemas = command(
        "schema",
        run_schema,
        "write the JSON Schema of every file kind",
        "  kaito-catalog schema\n  kaito-catalog schema --check\n",
    )
    schemas.add_argument("--output", metavar="DIR", help="default: schema/ beside the catalog")
    schemas.add_argument(
        "--check", action="store_true", help="write nothing; fail when something would change"
    )

    explain = command(
        "explain",
        run_explain,
        "say what a finding means and how to mend it",
        "  kaito-catalog explain STO001\n  kaito-catalog explain\n",
    )
    explain.add_argument("code", nargs="?", metavar="CODE", help="such as MEM001 (default: list them all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
