"""Write docs/architectures.md: which architectures a plan knows, and what shows that it is right.

    python -m tools.architectures [--check]

Every name is of vLLM's registry (`kaito_catalog/data/vllm-<version>.json`); what is compared with vLLM's own classes is
in `tests/data/exact_plans.json` and `exact_small.json`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from kaito_catalog.architectures import ARCHITECTURES
from kaito_catalog.system import files
from kaito_catalog.vllm_bridge import reference
from tools import exact_models

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
_DRAFT = re.compile(
    r"MTP|Eagle|EAGLE|Medusa|DFlash|DSpark|DraftModel|AssistantModel|ExtractHiddenStates|P[eE]agle"
)
"""Names of models that only guess tokens for another."""


def compared() -> tuple[set[str], set[str]]:
    """Architectures with a recorded comparison: equal in weights and cache, and in the cache alone."""
    whole: set[str] = set()
    cache: set[str] = set()
    models = [*exact_models.read(), *exact_models.read(exact_models.SMALL_PLANS)]
    for model in models:
        names = model.config.get("architectures")
        for version in exact_models.VERSIONS:
            asked = [c for c in exact_models.compare(model, version) if not c.is_refused]
            if names and asked and all(c.is_equal for c in asked):
                (cache if asked[0].is_cache_alone else whole).add(names[0])
    return whole, cache - whole


_ENDS = ("ForCausalLM", "ForConditionalGeneration", "ForSequenceClassification", "Model")


def _listed(names: Iterable[str]) -> str:
    """A list item for each ending that many names share."""
    ordered = sorted(names, key=lambda n: (n.lower(), n))
    found = []
    for end in (*_ENDS, ""):
        those = [n for n in ordered if n.endswith(end) and (end or not n.endswith(_ENDS))]
        if those:
            shown = ", ".join(n.removesuffix(end) for n in those)
            found.append(f"- `…{end}`: {shown}" if end else f"- {shown}")
    return "\n".join(found).replace("_", "\\_")


def page() -> str:
    """The page."""
    registries = {v: found for v in exact_models.VERSIONS if (found := reference.known(v)) is not None}
    every = frozenset[str]().union(*(registry.architectures for registry in registries.values()))
    known = every & {name for name, record in ARCHITECTURES.items() if record.is_named}
    without_encoder = {name for name, record in ARCHITECTURES.items() if record.has_unread_encoder}
    whole, cache = compared()
    unread = known & (without_encoder | cache)
    planned = known - unread
    drafts = {name for name in every - known if _DRAFT.search(name)}
    missing = every - known - drafts
    counts = " and ".join(
        f"{len(registry.architectures & known)} of the {len(registry.architectures)} that vLLM {version} knows"
        for version, registry in registries.items()
    )
    return f"""# Architectures

`plan` reads a model's `config.json` by the architecture that it names. It plans {counts}.
This page lists them by what shows that the plan is right.

<!-- written by: python -m tools.architectures -->

## Planned from the configuration

{len(planned & whole)} are compared with vLLM's own classes and KV cache planner, and are equal to the byte, split
over up to 8 GPUs and into pipeline stages:

{_listed(planned & whole)}

{len(planned - whole)} were read in vLLM's code and are not compared on their own; most are one of those above with
another end or under another name:

{_listed(planned - whole)}

## Planned with the size of the weight files

{len(unread)} hold a decoder that is planned as above and an encoder of images or sound that is not. Their KV cache
comes from the configuration; their weights need the size of the files (facts, or `--weights-bytes N`). What is not the
decoder's is the encoder's, which each GPU has whole or a share of: half of that is in the expected error.

The cache of {len(unread & cache)} is compared with vLLM's:

{_listed(unread & cache)}

Of the others it is not:

{_listed(unread - cache)}

## Not planned

The plan says "unknown" and names the architecture:

{_listed(missing)}

{len(drafts)} more are drafts that guess tokens for another model: [what that takes](memory.md#guessing-tokens-ahead).

A model whose architecture is missing here can still be proven: `plan --exact` asks vLLM's own classes, and `dry-run`
starts an engine.

## Adding one

1. One record in the file of its family, `kaito_catalog/architectures/families/FAMILY.py`:
   `"NAME": Architecture(reader)`. The reader turns the configuration into layers (`shape.py` and `mixers.py` have their
   types) and raises what names the field where one is missing or impossible; numbers are never guessed. Many decoders
   are `dense(DecoderDefaults(…))` or `mixture(…)` of `reading/parts.py`, a model over another's decoder is
   `holding(reader)` of `reading/wrapping.py`. The record also has what vLLM builds on every pipeline
   stage, the first version with a class for it (`since=`) and what later versions build otherwise
   (`changes=`); `reading/record.py` explains each field. A new family is a new file: add it to
   `architectures/__init__.py` and to its row in `ARCHITECTURE.md`.
2. A made-up configuration, as small as may be, in `tests/data/exact_small.json`, with `"plans": {{}}`.
   Where the model's repository brings the configuration's class, `"auto_map": {{"AutoConfig": "configuration.NAME"}}`
   makes one of that name, which keeps what it is given. Files that vLLM's class reads besides (a tokenizer, a
   processor) lie beside it under `"files"`, by name.
3. `make vllm`, then `python -m tools.exact_models --small --record NAME`: vLLM's own classes say what they allocate.
4. `python -m pytest tests/test_exact_models.py` says what differs, to the byte; `python -m tools.architectures` writes
   this page.

Followed with HRM-Text, which needs a reader of its own: 26 lines in one file and one line of configuration, equal to
the byte at once. vLLM's answers took 42 seconds for both versions, on two busy cores; the test and the page took 6.
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the page; with --check exit 1 where it is another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where the page is another"
    )
    options = parser.parse_args(arguments)
    if options.check:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    files.write_text(PAGE, page())
    print("docs/architectures.md written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
