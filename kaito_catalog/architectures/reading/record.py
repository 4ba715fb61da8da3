"""What is known of an architecture, in one record; and a configuration while its reader reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kaito_catalog.architectures.changes import Change, Version
from kaito_catalog.architectures.reading.fields import Fields
from kaito_catalog.architectures.shape import Config, Drafter, Shape, StagePart

ENDS = frozenset({StagePart.EMBEDDING, StagePart.HEAD, StagePart.NORM})
NO_HEAD = frozenset({StagePart.EMBEDDING, StagePart.NORM})
ENCODER = frozenset({StagePart.ENCODER})


@dataclass(frozen=True)
class Architecture:
    """All that is known of an architecture."""

    reader: Reader
    """Reads a configuration into a shape, as vLLM 0.25.1 builds it, or the first version that has a class for it."""
    on_every_stage: frozenset[StagePart] = frozenset()
    """Parts that vLLM builds on every pipeline stage, beside those of the decoder that it holds."""
    is_decoder: bool = True
    """Whether others may hold it as their decoder, and classifiers are made of it."""
    never_tied: bool = False
    """vLLM builds an output embedding even where the configuration ties it."""
    has_unread_encoder: bool = False
    """It has an encoder that no plan computes: its weights need the size of the files."""
    always_with_encoder: bool = False
    """vLLM does not mark its encoder as one that `language_model_only` leaves out (_mark_tower_model)."""
    is_named: bool = True
    """False where no configuration names it: a reader gives the name to what another one is read into."""
    since: Version | None = None
    """The first version that has a class for it, as far as was read; None: all that are planned."""
    changes: tuple[Change, ...] = ()
    """Differences between versions, in the order in which they are made."""
    mtp: DrafterReader | None = None
    """Reads what the checkpoint has to guess tokens with; None where vLLM has no class for that."""


@dataclass(frozen=True)
class Source:
    """A configuration while it is read: the whole of it, and the part about the language model."""

    architecture: str
    root: Fields
    text: Fields
    quant_file: Config | None
    known: Mapping[str, Architecture]
    """Every architecture, for those that hold another."""

    def tied(self, default: bool) -> bool:
        if self.known[self.architecture].never_tied:
            return False
        if self.root.flag("tie_word_embeddings"):
            # vLLM takes what the whole configuration says (VllmConfig.with_hf_config), and transformers' classes
            # pass on what only the decoder's part says.
            return True
        if "tie_word_embeddings" in self.text:
            return self.text.flag("tie_word_embeddings")
        return self.root.flag("tie_word_embeddings", default)


Reader: TypeAlias = Callable[[Source], Shape]
DrafterReader: TypeAlias = Callable[[Source, Reader], "Drafter | None"]
"""Given the reader of the model; None where the configuration says that there is none."""
