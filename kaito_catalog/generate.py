"""Everything that is generated from the catalog: pure functions to files, then one atomic write a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from kaito_catalog.catalog.entries import Catalog, Entry
from kaito_catalog.errors import CatalogError
from kaito_catalog.exports.bill_of_materials import BOM, bill_of_materials
from kaito_catalog.exports.model_pack import MANIFEST, model_pack
from kaito_catalog.exports.wanting import CannotBeMadeError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import manifests, model_catalog
from kaito_catalog.kaito.markdown import writer
from kaito_catalog.kaito.mirrors import further_objects
from kaito_catalog.kaito.model_catalog import LeftOut
from kaito_catalog.kaito.release import release_of
from kaito_catalog.plans.planned_manifests import deployed_on, proposed_manifests
from kaito_catalog.reports.upgrade import upgrades
from kaito_catalog.site import (
    api,
    api_schema,
    coefficients,
    feeds,
    figures,
    formats_page,
    hardware,
    pages,
    python_bundle,
    upgrades_page,
)
from kaito_catalog.site.model_page import Finding, ModelPage
from kaito_catalog.system import files

EXPORTS = {BOM: bill_of_materials, MANIFEST: model_pack}
"""What makes each export, by the file's name."""

TREES = ("exports", "kaito", "presets", "site-src")
"""The folders of the output; each is swapped in as a whole, and what it held before is gone."""

ASSETS = (
    "catalog.css",
    "catalog.js",
    "plan.js",
    "pasted.js",
    "calculator.js",
    "site.js",
    python_bundle.NOTICES,
)

_HAND_WRITTEN = (".md", ".css", ".svg", ".txt", ".json")


@dataclass(frozen=True)
class Generated:
    """Relative path to text, and what could not be generated."""

    files: Mapping[str, str]
    left_out: tuple[LeftOut, ...]


def read_pages(folder: Path) -> dict[str, str]:
    """The hand-written pages below `folder`: relative path to text.

    Raises:
        CatalogError: one of them is no UTF-8 text.
    """
    result: dict[str, str] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if not path.is_file() or path.is_symlink() or path.suffix not in _HAND_WRITTEN:
            continue
        try:
            result[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(f"cannot read {path}: {error}") from error
    return result


def build(
    catalog: Catalog,
    *,
    hand_written: Mapping[str, str] | None = None,
    findings: Mapping[str, Sequence[Finding]] | None = None,
    checks: Sequence[tuple[str, str, str]] = (),
) -> Generated:
    """Everything, as text; the same catalog gives the same bytes.

    Args:
        catalog: what to generate from; entries with errors in their files are left out.
        hand_written: pages of `docs/` (relative path to text) that the site takes over as they are.
        findings: by model, what the checks said; None where they were not run.
        checks: code, title and documentation of every check.

    Raises:
        CatalogError: two sources want to write the same file.
    """
    result: dict[str, str] = {}
    rows, left_out = model_catalog.rows(catalog, release_of(catalog.shared.profile()))
    _add(result, "kaito/model_catalog.yaml", model_catalog.write_catalog(rows))
    _add(result, "kaito/presets.md", model_catalog.write_presets(rows))

    models: list[ModelPage] = []
    gaps = list(left_out)
    for entry in catalog.entries:
        page = _page(entry, catalog, findings)
        if page is None:
            gaps.append(LeftOut(entry.name, "everything else", "its files have errors"))
            continue
        models.append(page)
        if page.manifests.left_out:
            gaps.append(LeftOut(entry.name, "manifests", page.manifests.left_out))
        gaps += [LeftOut(entry.name, file, why) for file, why in page.manifests.objects_left_out]
        gaps += _add_exports(result, entry, catalog)
        _add_model(result, page, catalog)
    _add(result, "site-src/checks.md", pages.checks_page(checks))
    _add_site(result, models, catalog)
    for name, text in (hand_written or {}).items():
        _add(result, f"site-src/{name}", text)
    return Generated(dict(sorted(result.items())), tuple(sorted(gaps, key=lambda g: (g.name, g.what))))


def _add_model(result: dict[str, str], page: ModelPage, catalog: Catalog) -> None:
    """What there is of one model: its proposal, its manifests, its page, its JSON."""
    name = page.entry.name
    _add(result, f"kaito/proposals/{writer.file_name(page.proposal)}", writer.write_proposal(page.proposal))
    for file, text in page.manifests.files.items():
        _add(result, f"presets/{name}/{file}", text)
        _add(result, f"site-src/models/{name}/{file}", text)
    _add(result, f"site-src/models/{name}.md", pages.model_page(page, catalog))
    _add(result, f"site-src/api/v1/models/{name}.json", api.model(page, catalog))


def _add_exports(result: dict[str, str], entry: Entry, catalog: Catalog) -> list[LeftOut]:
    """The model in forms that other tools read, and which of them there is none of."""
    left_out = []
    for form, make in EXPORTS.items():
        try:
            made = make(entry.facts, catalog.shared.policy.licenses)
        except CannotBeMadeError as error:
            left_out.append(LeftOut(entry.name, form, str(error)))
            continue
        for name, text in made.items():
            _add(result, f"exports/{entry.name}/{name}", text)
    return left_out


def _add_site(result: dict[str, str], models: Sequence[ModelPage], catalog: Catalog) -> None:
    """The pages about all models, the JSON API, and what the calculator loads."""
    _add(result, "site-src/index.md", pages.index_page(models, catalog))
    _add(result, "site-src/feed.xml", feeds.atom(models))
    _add(result, "site-src/llms.txt", feeds.llms(models, catalog))
    _add(result, "site-src/formats.md", formats_page.page())
    _add(result, "site-src/upgrades.md", upgrades_page.page(upgrades(catalog)))
    for name, text in api_schema.files().items():
        _add(result, f"site-src/api/v1/{name}", text)
    _add(result, "site-src/api/v1/index.json", api.index(models, catalog))
    by_hardware = hardware.tables(models, catalog)
    known = {table.name for table in by_hardware}
    _add(
        result,
        "site-src/hardware.md",
        pages.hardware_page(catalog, by_hardware, hardware.GPU_COUNTS, known),
    )
    _add(
        result,
        "site-src/calculator.md",
        pages.calculator_page(catalog),
    )
    shipped = coefficients.data(models, catalog)
    _add(result, "site-src/api/v1/plan-data.json", coefficients.text(shipped))
    _add(result, "site-src/assets/plan-data.js", coefficients.script(shipped))
    _add(result, f"site-src/assets/{python_bundle.SCRIPT}", python_bundle.script())
    for name in ASSETS:
        _add(result, f"site-src/assets/{name}", _asset(name))


def build_files(catalog: Catalog) -> dict[str, str]:
    """The files of `build`, without hand-written pages and findings."""
    return dict(build(catalog).files)


def _page(
    entry: Entry, catalog: Catalog, findings: Mapping[str, Sequence[Finding]] | None
) -> ModelPage | None:
    if not entry.is_readable or entry.proposal is None:
        return None
    said = (findings or {}).get(entry.name)
    page = ModelPage(
        entry=entry,
        proposal=entry.proposal,
        figures=figures.plan_figures(entry, catalog.shared),
        manifests=_manifests(entry.proposal, entry.facts, catalog),
        findings=None if said is None else tuple(said),
    )
    recommended = page.figures.recommended
    smallest = recommended.smallest.name if recommended and recommended.smallest else None
    if smallest in (None, page.own_machine) or page.manifests.left_out:
        return page
    other = _manifests(deployed_on(entry.proposal, smallest), entry.facts, catalog)
    return page if other.left_out else replace(page, on_smallest=other)


def _manifests(proposal: Proposal, facts: ModelFacts | None, catalog: Catalog) -> manifests.Manifests:
    """The manifests of a model and what else is made of them; none, with the first reason, where they are refused."""
    built = proposed_manifests(proposal, facts, catalog.shared, catalog.shared.policy.default_profile())
    if not built.files:
        return built
    made, left_out = further_objects(proposal, facts, built.files)
    files = dict(sorted({**built.files, **made}.items()))
    return manifests.Manifests(files, built.left_out, tuple(left_out.items()))


def _add(result: dict[str, str], name: str, text: str) -> None:
    if name in result:
        raise CatalogError(
            f"{name} would be written twice", hint="rename the page of docs/, or the model's folder"
        )
    result[name] = text


def _asset(name: str) -> str:
    return (resources.files("kaito_catalog.site") / "assets" / name).read_text(encoding="utf-8")


def _trees(texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    trees: dict[str, dict[str, str]] = {tree: {} for tree in TREES}
    for name, text in texts.items():
        tree, _, rest = name.partition("/")
        trees[tree][rest] = text
    return trees


def write(output: Path, texts: Mapping[str, str]) -> None:
    """Make each tree below `output` hold exactly its files, one atomic swap each.

    Raises:
        CatalogError: the disk refuses; a tree that was not swapped yet is as it was.
    """
    for tree, content in _trees(texts).items():
        files.replace_tree(output / tree, content)


def differences(output: Path, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """How the trees below `output` differ: (path, "missing" | "changed" | "orphan"), sorted."""
    return sorted(
        (f"{tree}/{name}", kind)
        for tree, content in _trees(texts).items()
        for name, kind in files.differences(output / tree, content)
    )
