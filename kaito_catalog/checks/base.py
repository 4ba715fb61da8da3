"""What a check is: one function, one docstring that is its documentation, and the claims it proves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from kaito_catalog.architectures import Shape, Unsupported
from kaito_catalog.catalog.entries import Entry, Evidence, Shared
from kaito_catalog.diagnostics import Place, Route, Severity
from kaito_catalog.documents.reading import Document
from kaito_catalog.formats.facts import ModelFacts
from kaito_catalog.formats.policy import Profile
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.plans.instance_types import facts_shape

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

Claim: TypeAlias = Literal[
    "summary.license.id",
    "requirements.type",
    "requirements.version",
    "requirements.storageSize",
    "requirements.gpuCount",
    "requirements.totalGPUMemory",
    "requirements.perGPUMemory",
    "requirements.contextLength",
]

MOST_GPUS_OF_A_CLAIM = 1024
"""How many a check tries one by one: a claim of a billion is answered as soon as one of a thousand."""


@dataclass(frozen=True)
class Context:
    """What all models share: the catalog's files and the KAITO release that is assumed."""

    shared: Shared
    profile: Profile


@dataclass(frozen=True)
class Subject:
    """A model whose files are valid."""

    name: str
    folder_name: str
    proposal: Proposal
    document: Document
    facts: ModelFacts | None
    facts_document: Document | None
    evidence: tuple[Evidence, ...] = ()

    @classmethod
    def of(cls, entry: Entry) -> Subject:
        """The subject of an entry that is readable."""
        assert entry.proposal is not None
        return cls(
            entry.proposal.metadata.name,
            entry.name,
            entry.proposal,
            entry.proposal_document,
            entry.facts,
            entry.facts_document,
            entry.evidence,
        )

    @cached_property
    def shape(self) -> Shape | Unsupported | None:
        """The model's shape, read once for all checks; None without facts."""
        return facts_shape(self.facts) if self.facts is not None else None

    @property
    def is_implemented(self) -> bool:
        """Whether the proposal says that it is done, which leaves no room for gaps."""
        return self.proposal.metadata.status == "implemented"


@dataclass(frozen=True)
class Finding:
    """Something wrong at the key `route` of proposal.yaml (of facts.yaml with `in_facts`)."""

    message: str
    route: Route
    hint: str | None = None
    severity: Severity | None = None
    """Where it differs from the check's own."""
    in_facts: bool = False
    document: Document | None = None
    """The evidence file, where the finding is about one."""


@dataclass(frozen=True)
class Skip:
    """Why the check could not be made, and what would make it possible."""

    reason: str
    hint: str | None = None


Outcome: TypeAlias = Finding | Skip
CheckFunction: TypeAlias = Callable[[Subject, Context], Iterator[Outcome]]


@dataclass(frozen=True)
class Rule:
    """The documentation of one code: what it looks at, why, an example that fails and one that passes."""

    code: str
    title: str
    severity: Severity
    text: str
    fails: str
    passes: str

    @property
    def family(self) -> str:
        """The three letters of the code."""
        return self.code[:3]


@dataclass(frozen=True)
class Check:
    """A check with its code; `proves` are the claims that a pass supports."""

    rule: Rule
    function: CheckFunction
    proves: tuple[Claim, ...] = ()

    @property
    def code(self) -> str:
        return self.rule.code

    def run(self, subject: Subject, context: Context) -> Iterator[Outcome]:
        """What the check has to say about a model; nothing means that it passes."""
        return self.function(subject, context)


def check(
    code: str, *, severity: Severity = ERROR, proves: tuple[Claim, ...] = ()
) -> Callable[[CheckFunction], Check]:
    """Make a check of a function whose docstring documents it (see `read_rule` for its form)."""

    def make(function: CheckFunction) -> Check:
        return Check(read_rule(code, severity, inspect.getdoc(function) or ""), function, proves)

    return make


_EXAMPLES = re.compile(r"(?P<text>.*?)\n+Fails::\n(?P<fails>.*?)\n+Passes::\n(?P<passes>.*)", re.DOTALL)


def read_rule(code: str, severity: Severity, docstring: str) -> Rule:
    """Split a docstring: its first line is the title, then the text, ``Fails::`` and ``Passes::``.

    Raises:
        ValueError: a part is missing: a check without documentation is not finished.
    """
    title, _, rest = docstring.partition("\n")
    match = _EXAMPLES.fullmatch(rest)
    if not title or match is None:
        raise ValueError(f"{code}: the docstring needs a title, a text, 'Fails::' and 'Passes::'")
    return Rule(
        code,
        title.rstrip("."),
        severity,
        match["text"].strip(),
        inspect.cleandoc(match["fails"]),
        inspect.cleandoc(match["passes"]),
    )


def place_of(subject: Subject, finding: Finding) -> Place:
    """Where a finding stands."""
    if finding.document is not None:
        return finding.document.place(finding.route)
    if finding.in_facts and subject.facts_document is not None:
        return subject.facts_document.place(finding.route)
    return subject.document.place(finding.route)


NO_FACTS = Skip(
    "there is no facts.yaml", "add the facts of the pinned revision (CONTRIBUTING.md, 'The facts of a model')"
)
