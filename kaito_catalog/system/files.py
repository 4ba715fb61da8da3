"""Writing files: atomic, never outside the folder that was asked for."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from kaito_catalog.errors import CatalogError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?\Z")


def safe_name(name: str) -> str:
    """`name` if it can be a folder of the catalog.

    Raises:
        CatalogError: it could lead elsewhere, or is not a lower-case repository name.
    """
    if not NAME.match(name) or ".." in name:
        raise CatalogError(
            f"'{name[:96]}' cannot be the name of a model's folder",
            hint="use the repository's name in lower case: letters, digits, '.', '_' and '-'",
        )
    return name


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8, LF) in one step: a reader sees the old file or the new one.

    Raises:
        CatalogError: the file cannot be written; the old one is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(path.parent):
            for left in path.parent.glob(f".{glob.escape(path.name)}.*{_UNFINISHED}"):
                left.unlink(missing_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.chmod(temporary, 0o666 & ~_umask())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise CatalogError(f"cannot write {path}: {error.strerror or error}") from error


_UNFINISHED = ".unfinished"
"""What a killed write may leave behind ends with it; the next write of the same file sweeps it."""


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into `folder` by this module; the kernel lets go when one is killed.

    The folder itself is locked, so that no lock file stays. Where the file system has no locks, there is no waiting.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_relative(name: str) -> PurePosixPath:
    """`name` as a relative POSIX path without ``..``, for files that a generator writes.

    Raises:
        CatalogError: it would leave the output folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part in ("..", "") for part in path.parts) or "\\" in name:
        raise CatalogError(f"'{name}' would be written outside the output folder")
    return path


def differences(root: Path, files: Mapping[str, str]) -> list[tuple[str, str]]:
    """How `root` differs from `files`: (path, "missing" | "changed" | "orphan"), sorted."""
    found = (
        {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} if root.is_dir() else set()
    )
    result = [(name, "orphan") for name in found - files.keys()]
    for name, text in files.items():
        if name not in found:
            result.append((name, "missing"))
        elif (root / name).read_bytes() != text.encode():
            result.append((name, "changed"))
    return sorted(result)


def recover_tree(root: Path) -> None:
    """Undo what a killed `replace_tree` left beside `root`: an old tree that was moved away, unfinished new ones."""
    old = _old_tree(root)
    if old.exists() and not root.exists():
        # Killed between the two renames: the old tree is the one that counts.
        os.rename(old, root)
    shutil.rmtree(old, ignore_errors=True)
    for unfinished in root.parent.glob(f".{root.name}.new.*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _old_tree(root: Path) -> Path:
    return root.with_name(f".{root.name}.old")


def replace_tree(root: Path, files: Mapping[str, str]) -> None:
    """Make `root` hold exactly `files`: the new tree is written beside it and swapped in.

    Whatever `root` held before and `files` does not name is gone afterwards. An interruption leaves
    the old tree whole; after a kill in the moment of the swap, the next call (or `recover_tree`)
    finds it beside `root` and puts it back.

    Raises:
        CatalogError: a name would leave `root`, or the disk refuses; the old tree is untouched.
    """
    for name in files:
        check_relative(name)
    root = Path(os.path.abspath(root))

    def fill(staging: Path) -> None:
        for name in sorted(files):
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name], encoding="utf-8", newline="\n")

    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(root.parent):
            recover_tree(root)
            if root.is_dir() and not differences(root, files):
                return
    except OSError as error:
        raise CatalogError(f"cannot write {root}: {error.strerror or error}") from error
    fill_tree(root, fill)


def fill_tree(root: Path, fill: Callable[[Path], None]) -> None:
    """Make `root` what `fill` writes into an empty folder beside it, in one step, as `replace_tree` does.

    Raises:
        CatalogError: the disk refuses, or `fill` raises it; the old tree is untouched.
    """
    root = Path(os.path.abspath(root))
    old = _old_tree(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(root.parent):
            _swap_in(root, old, fill)
    except OSError as error:
        raise CatalogError(f"cannot write {root}: {error.strerror or error}") from error


def _swap_in(root: Path, old: Path, fill: Callable[[Path], None]) -> None:
    recover_tree(root)
    staging = Path(tempfile.mkdtemp(prefix=f".{root.name}.new.", dir=root.parent))
    try:
        os.chmod(staging, 0o777 & ~_umask())
        fill(staging)
        if root.exists():
            os.rename(root, old)
        os.rename(staging, root)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        recover_tree(root)
        raise
    shutil.rmtree(old, ignore_errors=True)
