"""The commands that write files: `import`, `generate`, `schema`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from kaito_catalog import generate
from kaito_catalog.catalog.entries import PROPOSAL, Catalog, with_profile
from kaito_catalog.catalog.reading import read_catalog, read_shared, shown
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_catalog
from kaito_catalog.checks.registry import CHECKS, RULES
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, say
from kaito_catalog.cli.manifests import import_given, is_manifest
from kaito_catalog.cli.progress import Progress
from kaito_catalog.diagnostics import Diagnostic, Severity, sort_key
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import Document
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats import schema
from kaito_catalog.kaito import comparison, model_catalog
from kaito_catalog.kaito.crd_files import read_crds
from kaito_catalog.kaito.markdown.reader import read_proposals
from kaito_catalog.kaito.model_catalog import LeftOut
from kaito_catalog.kaito.release import Release, release_of
from kaito_catalog.reports.explain import rule_markdown
from kaito_catalog.reports.json import diagnostic_value
from kaito_catalog.reports.style import wants_color
from kaito_catalog.reports.summary import plural
from kaito_catalog.reports.text import diagnostic_text
from kaito_catalog.site import api_schema
from kaito_catalog.site import build as site
from kaito_catalog.system import files

# --- import ----------------------------------------------------------------------------------------------------


def run_import(options: argparse.Namespace) -> int:
    """`import`."""
    into = Path(options.into) if options.into else catalog_root(options) / "models"
    manifests = [name for name in options.files if is_manifest(name)]
    imported: list[tuple[str, dict[str, Any]]] = []
    diagnostics: list[Diagnostic] = []
    sources: dict[str, Document] = {}
    with Progress(lambda: len(options.files)) as progress:
        for name in options.files:
            progress.step(name)
            if name not in manifests:
                path = Path(name)
                markdown = _read_markdown(path)
                result = read_proposals(markdown, path=shown(path))
                sources[shown(path)] = Document(shown(path), markdown, None, {}, {})
                diagnostics.extend(result.diagnostics)
                imported += [(found.name, found.value) for found in result.proposals]
    if manifests:
        # What a manifest means by a preset or a machine stands in a catalog, our own where it is imported elsewhere.
        root = catalog_root(options, or_shipped=True)
        of_manifests, found_there, files_there = import_given(
            manifests, root, read_shared(root), date.today()
        )
        imported += of_manifests
        diagnostics += found_there
        sources |= files_there
    written, refused = _write_imported(imported, into, force=options.force)
    if options.format == "json":
        value = {
            "version": 1,
            "written": written,
            "findings": [diagnostic_value(d) for d in sorted(diagnostics, key=sort_key)],
        }
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        _show_imported(len(options.files), written, diagnostics, sources)
    if not written and not refused:
        return FAILED
    errors = any(d.severity is Severity.ERROR for d in diagnostics)
    return FAILED if refused or errors else OK


def _write_imported(
    imported: Sequence[tuple[str, dict[str, Any]]], into: Path, *, force: bool
) -> tuple[list[str], bool]:
    """The files that were written, and whether one was not because it would have replaced another."""
    written: list[str] = []
    refused = False
    for name, value in imported:
        target = into / files.safe_name(name) / PROPOSAL
        content = _proposal_text(value, target, into)
        if target.exists() and target.read_text(encoding="utf-8") != content and not force:
            say(f"error: {shown(target)} exists and differs; nothing was changed (--force replaces it)")
            refused = True
            continue
        files.write_text(target, content)
        written.append(shown(target))
    return written, refused


def _show_imported(
    count: int, written: Sequence[str], diagnostics: Sequence[Diagnostic], sources: dict[str, Document]
) -> None:
    color = wants_color(sys.stdout)
    for diagnostic in sorted(diagnostics, key=sort_key):
        emit(diagnostic_text(diagnostic, sources, color=color) + "\n\n")
    for target_name in written:
        emit(f"wrote {target_name}\n")
    gaps = plural(len(diagnostics), "remark")
    emit(f"{plural(count, 'file')}: {plural(len(written), 'proposal')}, {gaps}\n")
    if written and diagnostics:
        say("next: fill in what the remarks name, then run 'kaito-catalog check PATH'")


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
    return head + writing.write(value)


# --- generate ---


_STEPS = 5
_FEW = 3
"""Models that lack a file for one reason and are still named one by one."""


def run_generate(options: argparse.Namespace) -> int:
    """`generate`."""
    with Progress(lambda: _STEPS) as progress:
        return _generate(options, progress)


def _generate(options: argparse.Namespace, progress: Progress) -> int:
    root = catalog_root(options)
    progress.step("reading the catalog")
    catalog = read_catalog(root)
    profile = catalog.shared.profile(options.profile)
    if options.compare:
        return _compare_with_kaito(catalog, Path(options.compare), release_of(profile), options.format)
    catalog = with_profile(catalog, profile.name)
    progress.step("checking")
    report = check_catalog(catalog, CHECKS, Context(catalog.shared, profile))
    progress.step("making the files")
    generated = generate.build(
        catalog,
        hand_written=generate.read_pages(root.parent / "docs"),
        findings={entry.name: (*entry.diagnostics, *entry.skips) for entry in report.entries},
        checks=[(found.code, found.title, rule_markdown(found)) for found in RULES],
    )
    output = Path(options.output)
    for line in _left_out(generated.left_out):
        say(line)
    unreadable = [entry.name for entry in catalog.entries if not entry.is_readable]
    if unreadable:
        say(f"error: the files of {', '.join(unreadable)} have errors; see 'kaito-catalog check'")
    if options.crds and _refused_by_crds(Path(options.crds), generated.files):
        return FAILED
    if options.check:
        changed = generate.differences(output, generated.files)
        for name, how in changed:
            emit(f"{shown(output / name)}: {how}\n")
        if changed:
            say("hint: run 'kaito-catalog generate'")
        return FAILED if changed or unreadable else OK
    progress.step("writing")
    generate.write(output, generated.files)
    counts = Counter(name.split("/")[0] for name in generated.files)
    for tree, count in sorted(counts.items()):
        emit(f"{shown(output / tree)}: {plural(count, 'file')}\n")
    config = root.parent / "mkdocs.yml"
    if options.no_site or not config.is_file() or not site.is_installed():
        reason = (
            "--no-site" if options.no_site else f"no {shown(config)}" if not config.is_file() else "no mkdocs"
        )
        say(f"the site's pages stay Markdown ({reason})")
    else:
        say("building the site (some seconds) …")
        progress.step("building the site")
        site.build_site(config, output)
        emit(
            f"{shown(output / site.SITE)}: {plural(len(list((output / site.SITE).rglob('*.html'))), 'page')}\n"
        )
    return FAILED if unreadable else OK


def _left_out(gaps: Sequence[LeftOut]) -> list[str]:
    """What could not be made, a line each; what many models lack for the same reason in one line."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        by_reason.setdefault((gap.what, gap.reason), []).append(gap.name)
    lines = []
    for (what, reason), names in by_reason.items():
        if len(names) > _FEW:
            lines.append(f"left out: {what} of {len(names)} models, such as {names[0]}: {reason}")
        else:
            lines += [f"left out: {what} of {name}: {reason}" for name in names]
    return lines


def _refused_by_crds(folder: Path, made: Mapping[str, str]) -> bool:
    """Whether KAITO's own CRDs refuse a manifest among the files; each reason is said."""
    crds = read_crds(folder)
    refused = taken = 0
    for name, content in made.items():
        if not name.startswith("presets/"):
            continue
        problems = crds.problems(yaml.safe_load(content))
        taken += problems == ()
        refused += bool(problems)
        for route, message in problems or ():
            say(f"error: {name}: {'.'.join(str(part) for part in route)}: {message}")
    kinds = ", ".join(crds.kinds)
    say(
        f"{plural(taken, 'manifest')} taken and {refused} refused by the CRDs of {shown(crds.folder)} ({kinds})"
    )
    return refused > 0


def _compare_with_kaito(catalog: Catalog, path: Path, kaito: Release, format_: str) -> int:
    rows, left_out = model_catalog.rows(catalog, kaito)
    found = comparison.compare(path, rows, left_out, kaito)
    if format_ == "json":
        emit(json.dumps(comparison.value(found), indent=2, ensure_ascii=False) + "\n")
    else:
        emit(comparison.text(found))
    return OK if found.can_replace else FAILED


def run_schema(options: argparse.Namespace) -> int:
    """`schema`."""
    root = Path(options.output) if options.output else catalog_root(options).parent / "schema"
    wanted = {**schema.files(), **api_schema.files()}
    if options.check:
        changed = files.differences(root, wanted)
        for name, how in changed:
            emit(f"{shown(root / name)}: {how}\n")
        if changed:
            say("hint: run 'kaito-catalog schema'")
        return FAILED if changed else OK
    for name, content in wanted.items():
        files.write_text(root / name, content)
    emit(f"wrote {plural(len(wanted), 'schema')} to {shown(root)}\n")
    return OK
