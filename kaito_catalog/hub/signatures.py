"""A repository's signature in OpenSSF's model signing (`model.sig`): what was signed, and whether the files are that.

Files are compared by the digests that the Hub keeps (LFS), small ones are read for theirs: no weights are downloaded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.repository import RepoFile, Snapshot, is_safe, printable

SIGNATURE = "model.sig"
MOST_SIGNATURE_BYTES = 8 * 2**20
_MOST_RESOURCES = 50_000
_MOST_READ_BYTES = 10 * 2**20
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"
_EARLIER_PREDICATE = "https://model_signing/Digests/v0.1"
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_NOT_SIGNED = (".git", ".github")
"""Folders and files of Git's own, which signing leaves out by itself."""


class UnreadableSignatureError(CatalogError):
    """The file is no signature of a model, or one of a form that is not read."""


@dataclass(frozen=True)
class Signed:
    """What a signature covers."""

    files: Mapping[str, str]
    """Path to sha256."""
    ignored: tuple[str, ...]
    """Paths that the signer left out."""


@dataclass(frozen=True)
class Compared:
    """A repository beside its signature."""

    agreeing: tuple[str, ...]
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    """Signed, and not in the repository."""
    unsigned: tuple[str, ...]
    """In the repository, and not signed."""
    unknown: tuple[str, ...]
    """Signed, and too large to be read for the digest that the Hub does not say."""

    @property
    def is_what_was_signed(self) -> bool:
        """Whether every file is what was signed, and no other is there."""
        return not (self.differing or self.missing or self.unsigned or self.unknown)


def payload_of(bundle: bytes) -> bytes:
    """The statement in a Sigstore bundle, unverified.

    Raises:
        UnreadableSignatureError: it has none.
    """
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        if envelope["payloadType"] != _PAYLOAD_TYPE:
            raise UnreadableSignatureError(f"{SIGNATURE} signs something else than an in-toto statement")
        return base64.b64decode(envelope["payload"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise UnreadableSignatureError(f"{SIGNATURE} is no Sigstore bundle with a DSSE envelope") from error


def signed_files(payload: bytes) -> Signed:
    """The files that a statement covers.

    Raises:
        UnreadableSignatureError: it is none of model signing, hashes otherwise, or contradicts itself.
    """
    try:
        statement = json.loads(payload)
        kind = statement["predicateType"]
        if kind == _EARLIER_PREDICATE:
            pairs = [(subject["name"], subject["digest"]["sha256"]) for subject in statement["subject"]]
            return Signed(_checked(pairs), ())
        if kind != _PREDICATE:
            raise UnreadableSignatureError(f"{SIGNATURE} states {printable(str(kind))}, not {_PREDICATE}")
        return _of_predicate(statement)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnreadableSignatureError(f"the statement in {SIGNATURE} has not the form of one") from error


def _of_predicate(statement: Mapping[str, Any]) -> Signed:
    predicate = statement["predicate"]
    serialization = predicate["serialization"]
    how = f"{serialization.get('method')} with {serialization.get('hash_type')}"
    if how != "files with sha256":
        raise UnreadableSignatureError(
            f"{SIGNATURE} hashes {printable(how)}, and the Hub keeps the sha256 of files"
        )
    pairs = [(resource["name"], resource["digest"]) for resource in predicate["resources"]]
    if any(resource["algorithm"] != "sha256" for resource in predicate["resources"]):
        raise UnreadableSignatureError(f"{SIGNATURE} names digests that are no sha256")
    files = _checked(pairs)
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in pairs)).hexdigest()
    (subject,) = statement["subject"]
    if subject["digest"]["sha256"] != root:
        raise UnreadableSignatureError(f"the digests in {SIGNATURE} are not those of its subject")
    ignored = serialization.get("ignore_paths") or []
    return Signed(files, tuple(path for path in ignored if isinstance(path, str)))


def _checked(pairs: Sequence[tuple[Any, Any]]) -> dict[str, str]:
    if not 0 < len(pairs) <= _MOST_RESOURCES:
        raise UnreadableSignatureError(f"{SIGNATURE} covers {len(pairs):,} files")
    for name, digest in pairs:
        if not isinstance(name, str) or not is_safe(name) or not _HEX.match(str(digest)):
            raise UnreadableSignatureError(
                f"{SIGNATURE} names '{printable(str(name))}', which is no file with a sha256"
            )
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableSignatureError(f"{SIGNATURE} names a file twice")
    return found


def compare(signed: Signed, snapshot: Snapshot) -> Compared:
    """The files of a repository beside what was signed.

    Raises:
        CatalogError: a small file cannot be read.
    """
    there = {file.path: file for file in snapshot.repository.files}
    agreeing: list[str] = []
    differing: list[str] = []
    missing: list[str] = []
    unknown: list[str] = []
    for path, digest in sorted(signed.files.items()):
        file = there.get(path)
        found = _digest(file, snapshot) if file else None
        if file is None:
            missing.append(path)
        elif found is None:
            unknown.append(path)
        else:
            (agreeing if found == digest else differing).append(path)
    unsigned = [
        path
        for path in sorted((*there, *snapshot.repository.unsafe_names))
        if path not in signed.files and not _is_left_out(path, signed.ignored)
    ]
    return Compared(tuple(agreeing), tuple(differing), tuple(missing), tuple(unsigned), tuple(unknown))


def _digest(file: RepoFile, snapshot: Snapshot) -> str | None:
    if file.sha256 is not None:
        return file.sha256
    if file.size_bytes is None or file.size_bytes > _MOST_READ_BYTES:
        return None
    return snapshot.sha256(file.path)


def _is_left_out(path: str, ignored: Sequence[str]) -> bool:
    """Whether a file may be there unsigned: the signature itself, Git's own, what the signer left out by name."""
    first = path.partition("/")[0]
    return (
        path == SIGNATURE
        or first in (*_NOT_SIGNED, ".gitattributes", ".gitignore")
        or any(
            path == name or path.startswith(f"{name.rstrip('/')}/") for name in ignored if name.strip("/. ")
        )
    )
