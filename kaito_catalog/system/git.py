"""What git knows of a catalog: what changed since a revision, and its files then; nothing is checked out."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

from kaito_catalog.errors import CatalogError
from kaito_catalog.system.files import check_relative
from kaito_catalog.system.processes import environment


def _git(folder: Path, *arguments: str, data: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603  the arguments are ours; a revision is resolved to a commit first
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            input=data,
            capture_output=True,
            check=False,
            env=environment(),
        )
    except OSError as error:
        raise CatalogError(f"cannot run git: {error.strerror or error}") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CatalogError(f"git {arguments[0]} in {folder}: {words[0][:200]}")
    return done.stdout


def _names(output: bytes) -> list[str]:
    return [name.decode(errors="replace") for name in output.split(b"\0") if name]


def top(folder: Path) -> Path:
    """The root of the clone that `folder` lies in.

    Raises:
        CatalogError: it lies in none.
    """
    return Path(_git(folder, "rev-parse", "--show-toplevel").decode().rstrip("\n"))


def own_folder(folder: Path) -> Path | None:
    """Where git keeps what belongs to the clone that `folder` lies in; None where it lies in none."""
    try:
        found = _git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir")
    except CatalogError:
        return None
    return Path(found.decode().rstrip("\n"))


def commit(folder: Path, revision: str) -> str:
    """The commit (40 hex digits) that `revision` names.

    Raises:
        CatalogError: there is none of that name.
    """
    try:
        found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except CatalogError as error:
        top(folder)
        raise CatalogError(
            f"'{revision[:80]}' is not a commit of this clone",
            hint="in CI, fetch it first: actions/checkout with fetch-depth: 0",
        ) from error
    return found.decode().strip()


def branched_at(folder: Path, revision: str) -> str:
    """The commit at which the current branch left `revision`, as a pull request compares."""
    base = commit(folder, revision)
    try:
        return _git(folder, "merge-base", base, "HEAD").decode().strip()
    except CatalogError:
        return base


def changed_since(folder: Path, revision: str) -> list[Path]:
    """Files that differ from where this branch left `revision`: committed, not yet committed, and new ones.

    Raises:
        CatalogError: no clone, or no such revision.
    """
    root, base = top(folder), branched_at(folder, revision)
    changed = _names(_git(root, "diff", "--name-only", "--no-renames", "-z", base, "--"))
    new = _names(_git(root, "ls-files", "--others", "--exclude-standard", "-z"))
    return sorted({root / name for name in (*changed, *new)})


def write_tree(folder: Path, revision: str, into: Path) -> None:
    """Write the files that `folder` had at the commit `revision` into `into`; links are left out.

    Raises:
        CatalogError: no clone, or no such revision.
    """
    root = top(folder)
    inside = folder.resolve().relative_to(root.resolve()).as_posix()
    listing = _git(root, "ls-tree", "-r", "-z", revision, "--", inside)
    wanted: list[tuple[str, PurePosixPath]] = []
    for row in _names(listing):
        head, _, name = row.partition("\t")
        mode, kind, digest = head.split()
        if kind == "blob" and mode != "120000":
            wanted.append((digest, check_relative(PurePosixPath(name).relative_to(inside).as_posix())))
    data = _git(root, "cat-file", "--batch", data="".join(f"{digest}\n" for digest, _ in wanted).encode())
    position = 0
    for _, relative in wanted:
        end = data.index(b"\n", position)
        size = int(data[position:end].split()[2])
        path = into / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[end + 1 : end + 1 + size])
        position = end + 1 + size + 1
