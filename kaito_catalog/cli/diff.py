"""`diff`: what a change, another KAITO release or another vLLM means for what is served."""

from __future__ import annotations

import argparse
import json

from kaito_catalog.catalog.entries import Catalog, with_profile
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.cli.common import OK, catalog_root, emit
from kaito_catalog.cli.progress import Progress
from kaito_catalog.errors import CatalogError
from kaito_catalog.reports import change, upgrade
from kaito_catalog.vllm_bridge.versions import parsed


def run_diff(options: argparse.Namespace) -> int:
    """`diff`: with a commit, or between two profiles or versions of vLLM."""
    root = catalog_root(options)
    profiles, versions = _range(options.profile), _range(options.vllm_version)
    if options.vllm_version and not versions:
        raise CatalogError("diff compares two versions of vLLM", hint="such as --vllm-version 0.25.1..0.32.0")
    if not profiles and not versions:
        if options.revision is None:
            raise CatalogError(
                "diff needs a commit, or two profiles or versions",
                hint="such as diff origin/main, or diff --profile kaito-v0.12..vllm-0.32",
            )
        if options.instance_type or options.format != "markdown":
            raise CatalogError("--instance-type and --format are for two profiles or versions")
        emit(change.diff_text(root, options.revision, profile=options.profile))
        return OK
    if options.revision is not None:
        raise CatalogError("diff compares with a commit, or two profiles or versions, not both at once")
    if profiles and versions:
        raise CatalogError("diff compares two profiles or two versions, not both at once")
    found = _upgrade(read_catalog(root), options, profiles, versions)
    emit(json.dumps(found.to_json(), indent=2) if options.format == "json" else upgrade.upgrade_text(found))
    return OK


def _range(text: str | None) -> tuple[str, str] | None:
    """`A..B` as both; None where there is only one."""
    before, dots, after = (text or "").partition("..")
    return (before, after) if dots and before and after else None


def _upgrade(
    catalog: Catalog,
    options: argparse.Namespace,
    profiles: tuple[str, str] | None,
    versions: tuple[str, str] | None,
) -> upgrade.Upgrade:
    if versions:
        profile = catalog.shared.profile(options.profile).name
        both = [upgrade.with_vllm(catalog, profile, _version(version)) for version in versions]
    else:
        both = [with_profile(catalog, name) for name in profiles or ()]
    with Progress(lambda: 2 * len(catalog.entries)) as progress:
        before, after = (
            upgrade.state_of(one, instance_types=options.instance_type, step=progress.step) for one in both
        )
    return upgrade.upgrade(before, after)


def _version(text: str) -> str:
    version = text.removeprefix("v")
    if parsed(version) is None:
        raise CatalogError(f"'{text[:40]}' is not a version of vLLM", hint="such as 0.25.1..0.32.0")
    return version
