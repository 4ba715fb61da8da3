"""Repositories of our own Hub: made by a test, from a directory, or from recorded facts."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.hub.fake.files import (
    FakeFile,
    dtype_bytes,
    header_parameters,
    json_file,
    lfs_file,
    safetensors_file,
    text_file,
)
from kaito_catalog.hub.repository import is_safe

SETTINGS = ".fake-hub.json"
"""Beside the files of a repository in a directory: what files cannot say (gate, downloads, moves)."""
_LFS_FROM_BYTES = 10 * 2**20
_LFS_NAMES = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|onnx|msgpack|h5|model)\Z")
_SHARD_BYTES = 5 * 10**9
_HEADER_ROOM = 65536


@dataclass(frozen=True)
class FakeRepository:
    """A model repository: its commits, branches, and what the Hub says about it."""

    repo_id: str
    commits: Mapping[str, Mapping[str, FakeFile]]
    """40-hex commit to files by path."""
    refs: Mapping[str, str]
    """Branch or tag to commit."""
    gated: Literal[False, "auto", "manual"] = False
    private: bool = False
    disabled: bool = False
    moved_to: str | None = None
    license: str | None = "apache-2.0"
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str | None = "text-generation"
    base_models: tuple[str, ...] = ()
    downloads: int = 1000
    parameters_known: bool = True
    """Whether the Hub has parsed the safetensors headers itself."""
    unsafe_files: tuple[str, ...] = ()
    """Files its scan calls unsafe."""

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, tag, or commit."""
        return revision if revision in self.commits else self.refs.get(revision)

    def parameters(self, commit: str) -> dict[str, int] | None:
        """What the Hub says about safetensors: the sum over `model*.safetensors` at the top."""
        total: dict[str, int] = {}
        for path, file in self.commits[commit].items():
            if re.fullmatch(r"model[^/]*\.safetensors", path):
                for dtype, count in (header_parameters(file) or {}).items():
                    total[dtype] = total.get(dtype, 0) + count
        return total or None

    def with_commit(self, files: Mapping[str, FakeFile], *, commit: str | None = None) -> FakeRepository:
        """This repository after a push to main."""
        name = commit or commit_of(self.repo_id, files)
        return replace(self, commits={**self.commits, name: files}, refs={**self.refs, "main": name})


def commit_of(repo_id: str, files: Mapping[str, FakeFile]) -> str:
    """A commit that depends on the files and nothing else."""
    listing = "\n".join(f"{path} {files[path].blob_id}" for path in sorted(files))
    return hashlib.sha1(f"{repo_id}\n{listing}".encode(), usedforsecurity=False).hexdigest()


def repository(
    repo_id: str, files: Mapping[str, FakeFile], *, commit: str | None = None, **settings: Any
) -> FakeRepository:
    """A repository with one commit on main."""
    name = commit or commit_of(repo_id, files)
    return FakeRepository(repo_id, {name: dict(files)}, {"main": name}, **settings)


def repository_from_directory(repo_id: str, folder: Path) -> FakeRepository:
    """The files of a folder as the main branch; `.fake-hub.json` in it may set gate, licence, downloads, sizes.

    Keys of that file are fields of `FakeRepository`, `commit`, and `safetensors`: path to `{sizeBytes, parameters}`
    for weights that are served without being stored.
    """
    settings: dict[str, Any] = {}
    files: dict[str, FakeFile] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith((".git/", ".cache/")):
            continue
        if name == SETTINGS:
            settings = _read_settings(path)
            continue
        size = path.stat().st_size
        lfs = size >= _LFS_FROM_BYTES or bool(_LFS_NAMES.match(name))
        files[name] = FakeFile(b"", size, lfs, on_disk=path)
    for name, declared in settings.pop("safetensors", {}).items():
        files[name] = _declared(
            declared.get("parameters") or {}, declared["sizeBytes"], declared.get("sha256")
        )
    if "base_models" in settings:
        settings["base_models"] = tuple(settings["base_models"])
    try:
        return repository(repo_id, files, **{"license": _front_matter_license(files), **settings})
    except TypeError as error:
        raise CatalogError(f"{folder / SETTINGS}: {error}") from error


def _front_matter_license(files: Mapping[str, FakeFile]) -> str | None:
    readme = files.get("README.md")
    text = readme.read(0, 65536).decode("utf-8", "replace") if readme else ""
    match = re.match(r"---\n(?:.*\n)*?license: *([\w.-]+) *\n", text)
    return match[1] if match else None


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CatalogError(f"{path} has to hold keys and values")
    return value


def _declared(parameters: Mapping[str, int], size_bytes: int, sha256: str | None = None) -> FakeFile:
    """Weights of exactly that size; without known parameters, as many BF16 as fit."""
    room = min(_HEADER_ROOM, size_bytes // 2)
    counts = dict(parameters) or {"BF16": (size_bytes - room) // 2}
    return safetensors_file(counts, size_bytes=size_bytes, sha256=sha256)


def repository_from_facts(facts: ModelFacts, *, downloads: int = 1000) -> FakeRepository:
    """A repository as facts describe it: its configuration, and weights of the recorded size behind real headers.

    Recorded files have their recorded sizes and, in LFS, hashes; what they contain is made up.
    """
    license_id = facts.license.id if facts.license else "other"
    files: dict[str, FakeFile] = {
        "config.json": json_file({**(facts.config or {}), **_auto_map(facts)}),
        "README.md": text_file(f"---\nlicense: {license_id}\n---\n"),
        "LICENSE": text_file(f"The licence of {facts.repo_id}.\n"),
    }
    for python in facts.remote_code.files if facts.remote_code else ():
        files[python.path] = text_file("# code of the repository\n")
    weights = facts.weights
    counts = dict(facts.safetensors.parameters_by_dtype) if facts.safetensors else {}
    if facts.files is None and weights is not None and weights.total is not None:
        if weights.format in ("safetensors", "mistral"):
            stem = "consolidated" if weights.format == "mistral" else "model"
            files |= _shards(weights.total.size_bytes, weights.files, counts, stem=stem)
        rest = (
            facts.repository.size_bytes - sum(f.size_bytes for f in files.values()) if facts.repository else 0
        )
        if rest > 0:
            files["tokenizer.json"] = lfs_file(b"{}", size_bytes=rest)
    elif facts.files is not None:
        files = _listed(facts, files, counts)
    return repository(
        facts.repo_id,
        files,
        commit=facts.revision,
        gated={"no": False, "auto": "auto"}.get(facts.gated or "no", "manual"),
        license=facts.license.id if facts.license else None,
        license_name=facts.license.name if facts.license else None,
        license_link=facts.license.link if facts.license else None,
        pipeline_tag=facts.pipeline_tag,
        base_models=facts.base_models or (),
        downloads=downloads,
    )


def _auto_map(facts: ModelFacts) -> dict[str, Any]:
    found = facts.remote_code.auto_map if facts.remote_code else None
    return {"auto_map": found} if found else {}


def _listed(facts: ModelFacts, made: Mapping[str, FakeFile], counts: dict[str, int]) -> dict[str, FakeFile]:
    """Each recorded file with the recorded size and hash."""
    sizes = {file.path: file.size_bytes or 0 for file in facts.files or () if is_safe(file.path)}
    shards = [path for path in sizes if path.endswith(".safetensors") and "/" not in path]
    weights = _filled({path: sizes[path] for path in shards}, counts)
    code = {file.path: file.sha256 for file in facts.remote_code.files} if facts.remote_code else {}
    found: dict[str, FakeFile] = {}
    for file in facts.files or ():
        if file.path not in sizes:
            continue
        size = sizes[file.path]
        # What was hashed by content, though kept in Git, is served as if it were in LFS: its content is not known.
        # JSON is made up so that it can be read, and then its hash is its own.
        is_json = file.path.endswith(".json")
        digest = None if is_json else file.sha256 or code.get(file.path)
        if file.path == "LICENSE" and facts.license:
            digest = digest or facts.license.sha256
        if file.path in weights:
            found[file.path] = replace(weights[file.path], declared_sha256=digest)
        elif file.path == "model.safetensors.index.json":
            index = {"metadata": {}, "weight_map": {path: path for path in shards}}
            found[file.path] = _padded(json_file(index).head, size)
        elif digest:
            found[file.path] = lfs_file(b"", size_bytes=size, sha256=digest)
        else:
            found[file.path] = _padded(
                made[file.path].head if file.path in made else b"{}" if is_json else b"", size
            )
    return found


def _padded(head: bytes, size: int) -> FakeFile:
    """A text of that size: longer than recorded only where it would not fit."""
    text = head.ljust(size)
    return FakeFile(text, len(text), lfs=False)


def _filled(sizes: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, FakeFile]:
    """Weight files of those sizes that hold those parameters together, where they fit."""
    left = dict(counts)
    files: dict[str, FakeFile] = {}
    for path, size in sizes.items():
        held: dict[str, int] = {}
        room = size - 4096
        for dtype in list(left):
            taken = max(0, min(left[dtype], int(room / dtype_bytes(dtype))))
            if taken:
                held[dtype] = taken
                left[dtype] -= taken
                room -= math.ceil(taken * dtype_bytes(dtype))
        files[path] = safetensors_file(held, size_bytes=size) if _fits(held, size) else _declared({}, size)
    return files


def _shards(
    total_bytes: int, count: int | None, parameters: dict[str, int], *, stem: str
) -> dict[str, FakeFile]:
    number = count or max(1, math.ceil(total_bytes / _SHARD_BYTES))
    sizes = [total_bytes // number] * number
    sizes[-1] += total_bytes - sum(sizes)
    names = (
        [f"{stem}.safetensors"]
        if number == 1
        else [f"{stem}-{index:05d}-of-{number:05d}.safetensors" for index in range(1, number + 1)]
    )
    files = _filled(dict(zip(names, sizes, strict=True)), parameters)
    if number > 1:
        weight_map = {f"{stem}.{path}": path for path in files}
        files[f"{stem}.safetensors.index.json"] = json_file(
            {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        )
    return files


def _fits(held: Mapping[str, int], size: int) -> bool:
    # A header of a few tensors stays far below what a client reads at once only if little padding is left.
    data = sum(math.ceil(n * dtype_bytes(d)) for d, n in held.items())
    return 4096 <= size - data <= 2**24


def repositories_in(folder: Path) -> list[FakeRepository]:
    """The repositories of a directory: ``DIR/ORG/NAME/`` each, or of a catalog: its recorded facts.

    Raises:
        CatalogError: there is none.
    """
    found = [
        repository_from_directory(f"{path.parent.name}/{path.name}", path)
        for path in sorted(folder.glob("*/*"))
        if path.is_dir() and not path.name.startswith(".") and not path.parent.name.startswith(".")
    ]
    if not found:
        raise CatalogError(f"no repository in {folder}", hint="lay out the files as DIR/ORG/NAME/config.json")
    return found
