"""What the commands share: where the catalog is, which folders names mean, how results and messages are printed."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from kaito_catalog import __version__
from kaito_catalog.catalog.entries import FACTS, PROPOSAL, SHARED_FILES
from kaito_catalog.catalog.reading import find_root, read_entry, shipped_root, shown
from kaito_catalog.errors import CatalogError, visible
from kaito_catalog.hub.addresses import address_in, refuse_another
from kaito_catalog.near_names import nearest

OK, FAILED = 0, 1
"""Exit codes; 2 is usage, raised as CatalogError."""


def say(line: str) -> None:
    """A message for the person: stderr, so that stdout holds results only."""
    print(visible(line), file=sys.stderr)


def emit(result: str) -> None:
    """A result, as it is: stdout."""
    sys.stdout.write(result)


@contextmanager
def opened(name: str, *, newline: str | None = None) -> Iterator[TextIO]:
    """A text file, or standard input for `-`; bytes that are no UTF-8 are replaced.

    Args:
        name: of the file.
        newline: as `open` takes it; of a file alone.

    Raises:
        CatalogError: it cannot be read.
    """
    if name == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        yield sys.stdin
        return
    with (
        opened_bytes(name) as stream,
        io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline=newline) as text,
    ):
        yield text


@contextmanager
def opened_bytes(name: str) -> Iterator[BinaryIO]:
    """A file, or standard input for `-`.

    Raises:
        CatalogError: it cannot be read.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(name).open("rb") as stream:
            yield stream
    except OSError as error:
        raise CatalogError(f"cannot read {shown(Path(name))}: {error.strerror or error}") from error


def catalog_root(options: argparse.Namespace, *, or_shipped: bool = False) -> Path:
    """The catalog that `--catalog` names, or the one at or above the current folder.

    Args:
        options: the arguments of the command.
        or_shipped: a command that only reads may take, and say so, the catalog that came with this installation.

    Raises:
        CatalogError: there is none.
    """
    if options.catalog:
        named = Path(options.catalog)
        if not named.is_dir():
            raise CatalogError(
                f"{named} is not a folder", hint="--catalog names the folder that holds models/ and gpus.yaml"
            )
        if not any((named / name).exists() for name in SHARED_FILES):
            raise CatalogError(
                f"{named} is not a catalog folder: it has none of {', '.join(SHARED_FILES)}",
                hint="a folder of proposals alone is checked by its path: kaito-catalog check DIR",
            )
        return named
    try:
        return find_root(Path.cwd())
    except CatalogError:
        root = shipped_root() if or_shipped else None
        if root is None:
            raise
        say(f"no catalog at or above this folder: using the one that came with kaito-catalog {__version__}")
        return root


def is_markdown(text: str) -> bool:
    """Whether an argument names a Markdown file."""
    path = Path(text)
    return path.suffix.lower() in (".md", ".markdown") and path.is_file()


def _folder(text: str, root: Path) -> Path:
    """The model folder that `text` names: a folder, its proposal.yaml, a name, or a repository id."""
    path = Path(text)
    if path.name in (PROPOSAL, FACTS) and path.is_file():
        return path.parent
    if (path / PROPOSAL).exists() or (path.is_dir() and not (root / "models" / text).is_dir()):
        return path
    address = address_in(text)
    name = (address.repo_id if address else text).rpartition("/")[2]
    for folder in (root / "models" / name.lower(), root / "models" / name):
        if name and folder.is_dir():
            if address is not None:
                named = read_entry(folder).proposal
                if named is not None:
                    refuse_another(address, named.repo_id, named.requirements.version)
            return folder
    names = sorted(folder.name for folder in (root / "models").glob("*") if folder.is_dir())
    if path.suffix == ".md" and path.is_file():
        raise CatalogError(
            f"'{text}' is Markdown, not a folder of the catalog", hint=f"kaito-catalog import {text}"
        )
    near = nearest(name, names)
    raise CatalogError(
        f"'{text}' is neither a model of the catalog nor a folder with a proposal.yaml",
        hint=f"did you mean {near}?" if near else f"the models are in {shown(root / 'models')}",
    )


def selection(paths: Sequence[str], root: Path) -> list[Path] | None:
    """The folders that paths name; None is the whole catalog."""
    if not paths:
        return None
    folders: list[Path] = []
    for text_ in paths:
        path = Path(text_)
        if path.resolve() in (root.resolve(), (root / "models").resolve(), root.resolve().parent):
            return None
        holds_models = path.is_dir() and not (path / PROPOSAL).exists()
        inside = [p.parent for p in sorted(path.glob(f"*/{PROPOSAL}"))] if holds_models else []
        folders.extend(inside or [_folder(text_, root)])
    return list(dict.fromkeys(folder.resolve() for folder in folders))
