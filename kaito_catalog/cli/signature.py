"""The command `signature`: a repository's `model.sig` against its files at the pinned commit, and who signed it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, say
from kaito_catalog.cli.exact_plan import find_entry
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Signer
from kaito_catalog.hub.addresses import address_in, one_revision
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.repository import Snapshot
from kaito_catalog.hub.signatures import MOST_SIGNATURE_BYTES, SIGNATURE, Compared, compare, signed_files
from kaito_catalog.hub.signers import BadSignatureError, Verified, verify
from kaito_catalog.reports.style import printable
from kaito_catalog.reports.summary import plural

_SHOWN = 10


def run_signature(options: argparse.Namespace) -> int:
    """`signature`."""
    if bool(options.identity) != bool(options.issuer):
        raise CatalogError(
            "--identity and --issuer go together", hint="an identity is only as good as who vouches for it"
        )
    root = catalog_root(options, or_shipped=True)
    repo_id, revision = _asked(options)
    policy = read_shared(root).policy.signers or {}
    trusted = [
        *(Signer(identity=options.identity, issuer=options.issuer) for _ in range(bool(options.identity))),
        *(policy.get(repo_id.partition("/")[0], ()) if not options.identity else ()),
    ]
    with Hub(say=lambda line: say(printable(line))) as hub:
        snapshot = hub.snapshot(repo_id, revision)
        if snapshot.repository.file(SIGNATURE) is None:
            say(f"{repo_id} has no {SIGNATURE} at {revision or 'main'}: it is not signed")
            return FAILED
        try:
            found, compared = _read(snapshot, trusted)
        except BadSignatureError as error:
            say(f"error: {repo_id}: {error.message}")
            return FAILED
    value = _value(snapshot, found, compared, trusted)
    if options.format == "json":
        emit(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(snapshot, found, compared, trusted)
    return OK if value["verified"] else FAILED


def _asked(options: argparse.Namespace) -> tuple[str, str | None]:
    """The repository and the commit: of the catalog's entry, or as named."""
    address = address_in(options.model)
    try:
        entry = find_entry(options.model, catalog_root(options, or_shipped=True))
    except CatalogError:
        if address is None:
            raise
        return address.repo_id, one_revision(address, options.revision)
    repo_id = entry.proposal.repo_id if entry.proposal else None
    if repo_id is None:
        raise CatalogError(f"the download site of {entry.name} is not a page of the Hub")
    return repo_id, options.revision or (entry.proposal.requirements.version if entry.proposal else None)


def _read(snapshot: Snapshot, trusted: list[Signer]) -> tuple[Verified, Compared]:
    bundle = snapshot.read(SIGNATURE, limit_bytes=MOST_SIGNATURE_BYTES)
    found = verify(bundle, trusted)
    return found, compare(signed_files(found.payload), snapshot)


def _value(snapshot: Snapshot, found: Verified, compared: Compared, trusted: list[Signer]) -> dict[str, Any]:
    return {
        "version": 1,
        "repoId": snapshot.repository.repo_id,
        "revision": snapshot.repository.revision,
        "verified": found.is_trusted and compared.is_what_was_signed,
        "signer": {"identity": found.signer.identity, "issuer": found.signer.issuer},
        "signerIsTrusted": found.is_trusted if trusted else None,
        "files": {
            "agreeing": len(compared.agreeing),
            "differing": list(compared.differing),
            "missing": list(compared.missing),
            "unsigned": list(compared.unsigned),
            "unknown": list(compared.unknown),
        },
    }


def _show(snapshot: Snapshot, found: Verified, compared: Compared, trusted: list[Signer]) -> None:
    repository = snapshot.repository
    emit(f"{printable(repository.repo_id)} at {repository.revision or 'an unknown commit'}\n")
    whose = "as the policy asks" if found.is_trusted else "not one that is trusted"
    whose = whose if trusted else "unknown: nobody is named as a signer of this organisation"
    emit(f"  signed by {found.signer.identity} ({found.signer.issuer}): {whose}\n")
    emit(f"  {plural(len(compared.agreeing), 'file')} as signed\n")
    for what, paths in (
        ("not what was signed", compared.differing),
        ("signed and not there", compared.missing),
        ("there and not signed", compared.unsigned),
        ("signed, and its digest here is unknown", compared.unknown),
    ):
        for path in paths[:_SHOWN]:
            emit(f"  {what}: {printable(path)}\n")
        if len(paths) > _SHOWN:
            emit(f"  {what}: and {len(paths) - _SHOWN} more\n")
    if not trusted:
        org = repository.repo_id.partition("/")[0]
        say(f"hint: name who signs for {org}: --identity and --issuer, or `signers` in policy.yaml")
