"""Write a catalog of any size: the models of the real one again and again, each with a name and a shape of its own.

    python -m tools.synthetic 6000 --into /tmp/large

The same count gives the same bytes. Every copy is as valid as its original; evidence, which belongs to one
repository, is left out. Each copy of a model has a vocabulary of its own, one token larger than the copy before, so
that no result computed for one of them answers for another.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kaito_catalog.catalog.entries import FACTS, PROPOSAL
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_entry
from kaito_catalog.checks.registry import CHECKS
from kaito_catalog.errors import CatalogError

ROOT = Path(__file__).resolve().parents[1]
SHARED_FILES = ("policy.yaml", "gpus.yaml", "instance-types.yaml")
_VOCABULARY = re.compile(r"^(?P<key> *vocab_size: )(?P<tokens>[0-9]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Original:
    """A model that copies are made of: its names and the text of its files."""

    name: str
    repo_id: str
    proposal: str
    facts: str


def originals(root: Path) -> list[Original]:
    """The models of a catalog in which no check finds an error, sorted by name."""
    catalog = read_catalog(root)
    context = Context(catalog.shared, catalog.shared.profile())
    found: list[Original] = []
    for entry in catalog.entries:
        repo_id = entry.proposal.repo_id if entry.proposal else None
        if repo_id is None or entry.facts_document is None:
            continue
        if not any(d.fails for d in check_entry(entry, CHECKS, context).diagnostics):
            found.append(
                Original(entry.name, repo_id, entry.proposal_document.text, entry.facts_document.text)
            )
    if not found:
        raise CatalogError(f"{root} has no valid model with facts")
    return found


def copy_of(original: Original, number: int) -> tuple[str, str, str]:
    """Name, proposal.yaml and facts.yaml of the copy with that number (from 1)."""
    suffix = f"-{number:04d}"
    name, repo_id = original.name + suffix, original.repo_id + suffix
    linked = re.compile(re.escape(original.repo_id) + r"(?![\w.-])")
    proposal = linked.sub(repo_id, original.proposal)
    proposal = proposal.replace(f"\n  name: {original.name}\n", f"\n  name: {name}\n", 1)
    facts = linked.sub(repo_id, original.facts)
    facts = _VOCABULARY.sub(lambda found: f"{found['key']}{int(found['tokens']) + number}", facts)
    return name, proposal, facts


def models(root: Path, count: int) -> Iterator[tuple[str, str, str]]:
    """`count` models made of those of `root`, in turn."""
    found = originals(root)
    for index in range(count):
        yield copy_of(found[index % len(found)], index // len(found) + 1)


def write_catalog(into: Path, count: int, *, root: Path = ROOT / "catalog") -> None:
    """Write a catalog of `count` models to the folder `into`, which must not hold one yet.

    Raises:
        CatalogError: `into` exists, or `root` has no valid model.
    """
    if into.exists():
        raise CatalogError(f"{into} exists", hint="name a folder that does not")
    (into / "models").mkdir(parents=True)
    for name in SHARED_FILES:
        shutil.copyfile(root / name, into / name)
    for name, proposal, facts in models(root, count):
        folder = into / "models" / name
        folder.mkdir()
        (folder / PROPOSAL).write_text(proposal, encoding="utf-8", newline="\n")
        (folder / FACTS).write_text(facts, encoding="utf-8", newline="\n")


def main() -> int:
    """Write the catalog."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, metavar="N", help="how many models")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    write_catalog(options.into, options.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
