"""From a repository at a commit to what facts.yaml says about it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, Literal

from kaito_catalog.catalog.entries import FACTS
from kaito_catalog.documents import reading, writing
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.kept_config import Json, is_shown, kept_config
from kaito_catalog.hub.license_texts import MOST_BYTES, license_of_text
from kaito_catalog.hub.repository import Repository, Snapshot, is_safe, printable
from kaito_catalog.hub.safetensors import tensor_bytes
from kaito_catalog.hub.weight_files import (
    Index,
    choose_weights,
    index_to_read,
    lack_of_files,
    lack_of_layers,
    missing_files,
    missing_layers,
    read_index,
)

FEW_SHARDS = 2
"""Up to so many headers are read; the Hub's own count of the others is taken where it explains their size."""
MOST_HEADERS = 16
"""Where the Hub has no such count, up to so many are read: Mistral's largest has hundreds, and a call is a call."""
_HEADER_ROOM_BYTES = 2**22
_CONFIG_LIMIT_BYTES = 8 * 2**20
_INDEX_LIMIT_BYTES = 64 * 2**20
_TEXT_LIMIT_BYTES = 4 * 2**20
_MOST_PYTHON_FILES = 30
_MOST_HASHED_BYTES = 10 * 2**20

SCHEMA_COMMENT = "# yaml-language-server: $schema=../../../schema/facts.schema.json\n"


@dataclass(frozen=True)
class Recorded:
    """Facts, and what could not be read for them."""

    value: dict[str, Json]
    """As facts.yaml has it."""
    facts: ModelFacts
    missing: tuple[HubError, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and how to have it."""

    @property
    def text(self) -> str:
        """facts.yaml."""
        return SCHEMA_COMMENT + writing.write(self.value)


def facts_of(
    snapshot: Snapshot,
    *,
    kind: Literal["hub", "local"],
    recorded_at: date,
    all_headers: bool = False,
    all_hashes: bool = False,
) -> Recorded:
    """Everything that facts.yaml names, read from a repository.

    Args:
        snapshot: the repository at its commit.
        kind: where it was read.
        recorded_at: the day.
        all_headers: read every safetensors header, also where the Hub's own count explains the size of the files.
        all_hashes: read and hash the files that the Hub keeps outside LFS, whose sha256 it does not say.

    Raises:
        CatalogError: something could not be read, other than for want of access (which is in `missing`).
    """
    return _Reader(snapshot, kind, recorded_at, all_headers, all_hashes).recorded()


def listed_facts(repository: Repository, *, recorded_at: date) -> ModelFacts:
    """The facts that the Hub's listing alone gives: no file is read."""
    return _validated(
        _listing(repository, "hub", recorded_at, choose=index_to_read(_paths(repository)) is None)
    )


def _paths(repository: Repository) -> list[str]:
    return [file.path for file in repository.files]


@dataclass
class _Reader:
    snapshot: Snapshot
    kind: Literal["hub", "local"]
    recorded_at: date
    all_headers: bool
    all_hashes: bool = False
    missing: list[HubError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    """Names of tensors, as far as an index or the headers were read."""

    def recorded(self) -> Recorded:
        repository = self.snapshot.repository
        paths = _paths(repository)
        path = index_to_read(paths)
        index = self._index(path) if path else None
        indexed = index.files if index else None
        readable = not (path and index is None)
        if readable:
            self._need(lack_of_files(missing_files(paths, indexed)))
        value = _listing(repository, self.kind, self.recorded_at, choose=readable, indexed=indexed)
        if self.kind == "local":
            self._hash_weights(value)
        if self.all_hashes:
            self._hash_others(value)
        license_file = license_path(paths)
        if license_file and "license" in value:
            digest, text = self._license(license_file)
            if digest:
                value["license"]["sha256"] = digest
            if text:
                value["license"]["text"] = text
        config = self._config(paths)
        choice = choose_weights(paths, indexed) if readable else None
        if choice is not None and choice.format in ("safetensors", "mistral"):
            counts = self._parameters(choice.loaded)
            value["safetensors"] = {"parametersByDtype": counts} if counts else None
        if config is not None:
            self._need(lack_of_layers(missing_layers(self.tensors, config)))
            value["remoteCode"] = self._remote_code(paths, config)
            value["config"] = kept_config(config) or None
        value = {key: part for key, part in value.items() if part is not None}
        return Recorded(value, _validated(value), tuple(self.missing), tuple(self.notes))

    def _try(self, function: Callable[[], Any]) -> Any:
        """Read a file; None where it is not for us to read. After that no other is tried."""
        if self.missing:
            return None
        try:
            return function()
        except HubError as error:
            if error.trouble in (Trouble.GATED, Trouble.FORBIDDEN):
                self.missing.append(error)
                return None
            raise

    def _license(self, path: str) -> tuple[str | None, str | None]:
        """The hash of the licence's file, and which licence its text is."""
        file = self.snapshot.repository.file(path)
        if file is None or file.is_lfs or file.size_bytes is None or file.size_bytes > MOST_BYTES:
            return self._try(lambda: self.snapshot.sha256(path)), None
        data = self._try(lambda: self.snapshot.read(path, limit_bytes=MOST_BYTES))
        if data is None:
            return None, None
        return hashlib.sha256(data).hexdigest(), license_of_text(data.decode("utf-8", "replace"))

    def _json(self, path: str, limit_bytes: int) -> Any:
        data = self._try(lambda: self.snapshot.read(path, limit_bytes=limit_bytes))
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            where = f"{self.snapshot.repository.repo_id}: {path}"
            raise HubError(Trouble.CORRUPT, f"{where} is not JSON") from error

    def _index(self, path: str) -> Index | None:
        value = self._json(path, _INDEX_LIMIT_BYTES)
        if value is None:
            return None
        found = read_index(value)
        if found is None:
            where = f"{self.snapshot.repository.repo_id}: {path}"
            raise HubError(Trouble.CORRUPT, f"{where} names no files of weights")
        self.tensors.extend(found.tensors)
        return found

    def _need(self, lack: str | None) -> None:
        """Raises HubError where something is missing."""
        if lack is None:
            return
        raise HubError(
            Trouble.INCOMPLETE,
            f"{self.snapshot.repository.repo_id}: the weights lack {lack}",
            hint=self.snapshot.how_to_complete(),
        )

    def _config(self, paths: Sequence[str]) -> dict[str, Json] | None:
        # Mistral's own format has params.json instead.
        path = next((name for name in ("config.json", "params.json") if name in paths), None)
        if path is None:
            return None
        config = self._json(path, _CONFIG_LIMIT_BYTES)
        if config is None:
            return None
        if not isinstance(config, dict):
            raise HubError(
                Trouble.CORRUPT, f"{self.snapshot.repository.repo_id}: {path} holds no keys and values"
            )
        text = config.get("text_config")
        nested = isinstance(text, dict) and "quantization_config" in text
        if "hf_quant_config.json" in paths and "quantization_config" not in config and not nested:
            # vLLM puts ModelOpt's side file in that place when it loads the configuration.
            side = self._json("hf_quant_config.json", _CONFIG_LIMIT_BYTES)
            if isinstance(side, dict) and isinstance(side.get("quantization"), dict):
                # It says whose it is elsewhere; by itself this part names no method.
                config = {
                    **config,
                    "quantization_config": {"quant_method": "modelopt", **side["quantization"]},
                }
        return config

    def _parameters(self, loaded: Sequence[str]) -> dict[str, int] | None:
        repository = self.snapshot.repository
        sizes = [file.size_bytes for path in loaded if (file := repository.file(path))]
        counts = repository.parameters_by_dtype
        if counts and len(loaded) > FEW_SHARDS and not self.all_headers and None not in sizes:
            size = sum(size for size in sizes if size is not None)
            tensors = tensor_bytes(counts)
            if tensors is not None and 0 < size - tensors <= _HEADER_ROOM_BYTES * len(loaded):
                return dict(counts)
        if len(loaded) > MOST_HEADERS and not self.all_headers:
            self.notes.append(f"parameters not counted: {len(loaded)} headers would be read (--all-headers)")
            return None
        total: dict[str, int] = {}
        for path in loaded:
            header = self._try(lambda path=path: self.snapshot.safetensors_header(path))  # type: ignore[misc]
            if header is None:
                return None
            self.tensors.extend(header.tensors)
            for dtype, count in header.parameters_by_dtype.items():
                total[dtype] = total.get(dtype, 0) + count
        return dict(sorted(total.items()))

    def _remote_code(self, paths: Sequence[str], config: Mapping[str, Json]) -> dict[str, Json] | None:
        python = [path for path in paths if path.endswith(".py")]
        auto_map = _auto_map(config)
        if not python and not auto_map:
            return None
        if python and "tokenizer_config.json" in paths:
            tokenizer = self._json("tokenizer_config.json", _TEXT_LIMIT_BYTES)
            if isinstance(tokenizer, dict):
                auto_map = {**_auto_map(tokenizer), **auto_map}
        found = []
        for number, path in enumerate(python):
            wanted = number < _MOST_PYTHON_FILES or self.kind == "local"
            digest = self._try(lambda path=path: self.snapshot.sha256(path)) if wanted else None  # type: ignore[misc]
            found.append({"path": path, "sha256": digest} if digest else {"path": path})
        return {"files": found, **({"autoMap": auto_map} if auto_map else {})}

    def _hash_weights(self, value: dict[str, Json]) -> None:
        """What the Hub keeps in LFS has a hash there; a directory's files are hashed, so that both can be compared."""
        lfs = {file.path for file in self.snapshot.repository.files if file.is_lfs}
        for file in value.get("files", ()):
            if file["path"] in lfs and "sha256" not in file:
                file["sha256"] = self.snapshot.sha256(file["path"])

    def _hash_others(self, value: dict[str, Json]) -> None:
        """The hash of every file that has none yet and is not too large to read for it."""
        for file in value.get("files", ()):
            size = file.get("sizeBytes")
            if "sha256" not in file and size is not None and size <= _MOST_HASHED_BYTES:
                digest = self._try(partial(self.snapshot.sha256, file["path"]))
                if digest:
                    file["sha256"] = digest


def _auto_map(config: Mapping[str, Json]) -> dict[str, Json]:
    """`auto_map` as far as it is one: class to `module.Class` or `org/repo--module.Class`, or a list of these."""
    found = config.get("auto_map")
    if not isinstance(found, dict):
        return {}
    return {
        printable(key): part
        for key, part in found.items()
        if (isinstance(part, str) and is_shown(part))
        or (
            isinstance(part, list)
            and all(item is None or (isinstance(item, str) and is_shown(item)) for item in part)
        )
    }


def license_path(paths: Iterable[str]) -> str | None:
    """The file with the licence's text: LICENSE, or what comes nearest."""
    found = [path for path in paths if re.fullmatch(r"(?i)licen[sc]e([-_.][\w.-]*)?", path)]
    return min(
        found,
        key=lambda path: (path.upper() not in ("LICENSE", "LICENSE.TXT", "LICENSE.MD"), path),
        default=None,
    )


def _listing(
    repository: Repository,
    kind: str,
    recorded_at: date,
    *,
    choose: bool,
    indexed: Sequence[str] | None = None,
) -> dict[str, Json]:
    listed: list[dict[str, Json]] = []
    for file in repository.files:
        entry: dict[str, Json] = {"path": file.path, "sizeBytes": file.size_bytes, "sha256": file.sha256}
        listed.append({key: part for key, part in entry.items() if part is not None})
    listed.extend({"path": name} for name in repository.unsafe_names)
    paths = _paths(repository)
    choice = choose_weights(paths, indexed) if choose else None
    weights: dict[str, Json] | None = None
    if choice is not None:
        sizes = [found.size_bytes for path in choice.downloaded if (found := repository.file(path))]
        weights = {"format": choice.format}
        if choice.format != "gguf" and None not in sizes:
            weights["total"] = {"sizeBytes": sum(size for size in sizes if size is not None)}
            weights["files"] = len(choice.downloaded)
    license_: dict[str, Json] | None = None
    if repository.license_id:
        license_ = {"id": repository.license_id}
        if repository.license_name:
            license_["name"] = repository.license_name
        link = _link(repository)
        if link:
            license_["link"] = link
    size = repository.size_bytes
    base = [name for name in repository.base_models if _REPO_ID.fullmatch(name)]
    value: dict[str, Json] = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelFacts",
        "repoId": repository.repo_id,
        "revision": repository.revision,
        "recordedAt": recorded_at.isoformat(),
        "source": {"kind": kind},
        "license": license_,
        "gated": repository.gated,
        "pipelineTag": repository.pipeline_tag,
        "baseModels": base or None,
        "repository": {"sizeBytes": size} if size is not None else None,
        "weights": weights,
        "files": listed or None,
        "safetensors": None,
        "remoteCode": None,
        "config": None,
    }
    return {
        key: part
        for key, part in value.items()
        if part is not None or key in ("safetensors", "remoteCode", "config")
    }


_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_URL = re.compile(r"https?://[^\s<>\"]{1,2000}")


def _link(repository: Repository) -> str | None:
    """The card's licence link; a file of the repository becomes its page at the revision."""
    link = repository.license_link
    if link is None or _URL.fullmatch(link):
        return link
    if (
        is_safe(link)
        and repository.file(link)
        and repository.revision
        and _URL.fullmatch(f"https://x/{link}")
    ):
        return f"https://huggingface.co/{repository.repo_id}/blob/{repository.revision}/{link}"
    return None


def _validated(value: Mapping[str, Json]) -> ModelFacts:
    """The value as facts.yaml would be read back: what cannot be is an error, never a file."""
    clean = {key: part for key, part in value.items() if part is not None}
    name = printable(str(clean.get("repoId")))
    text = writing.write(clean)
    if len(text.encode()) > reading.MAX_YAML_BYTES:
        raise CatalogError(f"{name}: its facts take {len(text.encode()):,} bytes, more than a file may have")
    facts, problems = load(reading.parse(text, path=FACTS), ModelFacts)
    if facts is None:
        first = problems[0]
        raise CatalogError(f"{name}: what was read makes no facts.yaml: {first.message}", hint=first.hint)
    return facts
