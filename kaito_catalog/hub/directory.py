"""A repository as a directory on disk: a mirror without network, a private model, a download of the Hub's client."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from kaito_catalog.documents import reading
from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.repository import MAX_FILES, Header, RepoFile, Repository, is_safe, printable
from kaito_catalog.hub.safetensors import header_length, parse_header
from kaito_catalog.quantity import gb

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>\d{1,18})\n"
)
_POINTER_BYTES = 1024
_LFS_NAME = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|onnx|msgpack|h5|model)")
_SKIPPED = (".git", ".cache")
_BLOCK = 2**22


class LocalSnapshot:
    """The files of a directory.

    Args:
        folder: the directory.
        repo_id: the repository that it is a copy of; a directory does not say.
        revision: the commit, where a person states it; else it is read from the directory, when that tells.
        say: told of files that take long.

    Raises:
        CatalogError: there is no such directory, or it holds no model.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        *,
        revision: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._say = say
        if not folder.is_dir():
            raise CatalogError(
                f"{folder} is not a directory", hint="--from-local takes a directory with a config.json"
            )
        self._root = folder.resolve()
        # A snapshot of the Hub's cache consists of links into the blobs of the same repository.
        cached = self._root.parent.name == "snapshots" and (self._root.parent.parent / "blobs").is_dir()
        self._blobs = self._root.parent.parent / "blobs" if cached else None
        self._pointers: dict[str, tuple[str, int]] = {}
        unsafe: list[str] = []
        files = sorted(self._files(unsafe), key=lambda file: file.path)
        if not files:
            raise CatalogError(
                f"{folder} holds no files", hint="--from-local takes a directory with a config.json"
            )
        card = self._card(files)
        self._repository = Repository(
            repo_id=repo_id,
            revision=revision or self._revision(),
            files=tuple(files),
            license_id=", ".join(_words(card.get("license"))) or None,
            license_name=_word(card.get("license_name")),
            license_link=_word(card.get("license_link")),
            pipeline_tag=_word(card.get("pipeline_tag")),
            base_models=_words(card.get("base_model")),
            unsafe_names=tuple(unsafe),
        )

    @property
    def repository(self) -> Repository:
        """What the directory says."""
        return self._repository

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A small file, whole."""
        if path in self._pointers:
            raise CatalogError(f"{self._folder / path} is a Git LFS pointer: its content is not there")
        try:
            with self._path(path).open("rb") as stream:
                data = stream.read(limit_bytes + 1)
        except OSError as error:
            raise CatalogError(f"cannot read {self._folder / path}: {error.strerror or error}") from error
        if len(data) > limit_bytes:
            raise CatalogError(f"{self._folder / path} is larger than {gb(limit_bytes)}")
        return data

    def safetensors_header(self, path: str) -> Header:
        """What the header of a weight file declares."""
        if path in self._pointers:
            raise CatalogError(f"{self._folder / path} is a Git LFS pointer: its header is not there")
        try:
            with self._path(path).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                length = header_length(stream.read(8))
                return parse_header(stream.read(length), size_bytes=size)
        except ValueError as error:
            raise CatalogError(f"{self._folder / path}: {error}") from error
        except OSError as error:
            raise CatalogError(f"cannot read {self._folder / path}: {error.strerror or error}") from error

    def sha256(self, path: str) -> str:
        """Of a file: what its name or pointer says where the Hub's client or Git wrote it, else of the content."""
        known = self._known_sha256(path)
        if known:
            return known
        digest = hashlib.sha256()
        try:
            with self._path(path).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size > 2**30:
                    self._say(f"hashing {path} ({gb(size)})")
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise CatalogError(f"cannot read {self._folder / path}: {error.strerror or error}") from error
        return digest.hexdigest()

    def is_pointer(self, path: str) -> bool:
        """Whether a clone has the file's Git LFS pointer alone."""
        return path in self._pointers

    def how_to_complete(self) -> str:
        """What to do where files are missing."""
        kept = self._blobs or self._root / ".cache" / "huggingface" / "download"
        if any(kept.rglob("*.incomplete")):
            return "a download of them was not finished: run it again"
        return "download the repository again, or run 'git lfs pull' in a clone"

    def _path(self, path: str) -> Path:
        assert is_safe(path)
        found = (self._root / path).resolve()
        if not found.is_relative_to(self._root) and not (self._blobs and found.is_relative_to(self._blobs)):
            raise CatalogError(f"{self._folder / path} leads outside the directory")
        return found

    def _files(self, unsafe: list[str]) -> Iterator[RepoFile]:
        count = 0
        for folder, folders, names in os.walk(self._root, followlinks=False):
            relative = Path(folder).relative_to(self._root)
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            for name in sorted(names):
                count += 1
                if count > MAX_FILES:
                    raise CatalogError(f"{self._folder} has more than {MAX_FILES:,} files")
                path = (relative / name).as_posix()
                if not is_safe(path):
                    unsafe.append(printable(path))
                    continue
                try:
                    found = self._path(path)
                    status = found.stat()
                except FileNotFoundError:  # a link into a cache whose file is not, or no longer, there
                    self._say(f"{self._folder / path} leads to a file that is not there")
                    continue
                except (CatalogError, OSError):
                    unsafe.append(printable(path))
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield self._file(path, found, status.st_size)

    def _file(self, path: str, found: Path, size: int) -> RepoFile:
        if size <= _POINTER_BYTES:
            with found.open("rb") as stream:
                match = _POINTER.fullmatch(stream.read(_POINTER_BYTES))
            if match:
                self._pointers[path] = match["oid"].decode(), int(match["size"])
                return RepoFile(path, int(match["size"]), match["oid"].decode(), is_lfs=True)
        known = self._known_sha256(path)
        return RepoFile(path, size, known, is_lfs=known is not None or bool(_LFS_NAME.fullmatch(path)))

    def _known_sha256(self, path: str) -> str | None:
        if path in self._pointers:
            return self._pointers[path][0]
        blob = self._path(path).name
        if self._blobs and _SHA256.fullmatch(blob):
            return blob
        for line in self._download_metadata(path)[1:2]:
            if _SHA256.fullmatch(line):
                return line
        return None

    def _download_metadata(self, path: str) -> list[str]:
        """What the Hub's client notes beside a download: commit, ETag, time."""
        noted = self._root / ".cache" / "huggingface" / "download" / f"{path}.metadata"
        try:
            with noted.open(encoding="ascii") as stream:
                return stream.read(1000).splitlines()
        except (OSError, ValueError):
            return []

    def _revision(self) -> str | None:
        if self._blobs and _COMMIT.fullmatch(self._root.name):
            return self._root.name
        commits = {line for line in self._download_metadata("config.json")[:1] if _COMMIT.fullmatch(line)}
        return commits.pop() if commits else self._git_head()

    def _git_head(self) -> str | None:
        """HEAD of a clone, from its files; Git itself is not started."""
        git = self._root / ".git"
        head = _short_text(git / "HEAD")
        if head.startswith("ref: refs/heads/") and is_safe(head[5:]):
            reference = head[5:]
            head = _short_text(git / reference)
            if not head:
                packed = re.search(
                    rf"^([0-9a-f]{{40}}) {re.escape(reference)}$", _short_text(git / "packed-refs"), re.M
                )
                head = packed[1] if packed else ""
        return head if _COMMIT.fullmatch(head) else None

    def _card(self, files: list[RepoFile]) -> dict[str, object]:
        """The front matter of README.md."""
        if not any(file.path == "README.md" for file in files):
            return {}
        text = self.read("README.md", limit_bytes=2**21).decode("utf-8", "replace")
        match = re.match(r"---\r?\n(.*?\n)---\r?\n", text, re.DOTALL)
        if match is None:
            return {}
        document = reading.parse(match[1], path="README.md")
        return document.value if isinstance(document.value, dict) and not document.problems else {}


def _short_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(2**20).strip()
    except (OSError, ValueError):
        return ""


def _word(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip() or len(value) > 2000:
        return None
    return printable(" ".join(value.split()))


def _words(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(word for item in items[:20] if (word := _word(item)))
