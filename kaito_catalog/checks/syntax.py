"""YML and SCH: the documentation of what the reader and the schema refuse; documents/ finds it."""

from __future__ import annotations

from kaito_catalog.checks.base import Rule
from kaito_catalog.diagnostics import Severity


def _rule(code: str, title: str, text: str, fails: str, passes: str) -> Rule:
    return Rule(code, title, Severity.ERROR, text, fails, passes)


_HEAD = "apiVersion: catalog.kaito.sh/v1alpha1\nkind: ModelProposal\n"
_REST = """\
metadata:
  name: example-7b-instruct
  heading: Add Example 7B
  authors: ["@example"]
  creationDate: 2026-01-05
  status: provisional
requirements:
  familyName: Example
  type: text-generation
  downloadSite: https://huggingface.co/example-org/Example-7B-Instruct
"""
_GOOD = _HEAD + _REST

SYNTAX_RULES = (
    _rule(
        "YML001",
        "The file is not YAML",
        "The reader stops where the text is no YAML any more; what stands before has been read.",
        _HEAD + "metadata: {name: example\n",
        _GOOD,
    ),
    _rule(
        "YML002",
        "A key stands twice",
        "Most readers silently take the last one, reviewers read the first. Keep one.",
        _GOOD + "  type: text-to-image\n",
        _GOOD,
    ),
    _rule(
        "YML003",
        "An anchor or an alias",
        "A value that is used somewhere else is hard to review, and nested aliases grow without bounds. Write the "
        "value out.",
        _GOOD + "  version: &revision main\n",
        _GOOD + "  version: main\n",
    ),
    _rule(
        "YML004",
        "A merge key",
        "`<<` is not part of YAML 1.2, and readers disagree about it. Write the keys out.",
        _GOOD + "  <<: {version: main}\n",
        _GOOD + "  version: main\n",
    ),
    _rule(
        "YML005",
        "A tab character",
        "Tabs are not allowed where YAML indents, and look like spaces elsewhere.",
        _GOOD + "  version: main\t\n",
        _GOOD + "  version: main\n",
    ),
    _rule(
        "YML006",
        "Several documents in one file",
        "One file holds one object, so that a path names it.",
        _GOOD + "---\nkind: ModelProposal\n",
        _GOOD,
    ),
    _rule(
        "YML007",
        "A tag",
        "Tags ask the reader to build something; only plain values are read. Quote a value to make it a string.",
        _GOOD + "  version: !!str 123\n",
        _GOOD + '  version: "123"\n',
    ),
    _rule(
        "YML008",
        "The file is too large or too deep",
        "A proposal is a few kilobytes. Files over 1 MiB and nesting over 40 levels are refused unread.",
        _HEAD + "glossary: " + "[" * 60 + "]" * 60 + "\n" + _REST,
        _GOOD,
    ),
    _rule(
        "YML009",
        "A character that cannot be read",
        "Files are UTF-8 without control characters.",
        _GOOD + '  version: "a\\0b"\n',
        _GOOD + "  version: main\n",
    ),
    _rule(
        "YML010",
        "An invisible character",
        "Zero-width and bidirectional characters make a text read differently from how it looks.",
        _GOOD + "  version: ma\u200bin\n",
        _GOOD + "  version: main\n",
    ),
    _rule(
        "YML011",
        "A number that is none",
        "Infinity, NaN and numbers beyond double precision have no JSON form. Quote it if it is a text, such as a "
        "commit of digits around an `e`.",
        _GOOD + "  version: 1e999\n",
        _GOOD + '  version: "1e999"\n',
    ),
    _rule(
        "YML012",
        "There is no proposal.yaml, a file that is never read, or a link that leads elsewhere",
        "Every folder in catalog/models holds a proposal. A file that lies where it is never read (`facts.yml`, a "
        "proposal beside the folders) would pass unseen. A link to a file of another folder is refused: a report would "
        "quote what the author of a pull request cannot read.",
        "",
        _GOOD,
    ),
    _rule(
        "SCH001",
        "A key that is not known",
        "A misspelt key would be ignored in silence, so it is an error; the nearest known key is the hint.",
        _GOOD + "  gpuCuont: 1\n",
        _GOOD + "  gpuCount: 1\n",
    ),
    _rule(
        "SCH002",
        "A required key is missing",
        "Without apiVersion, kind, the metadata and the first three requirements a file is not a proposal. All other "
        "claims may wait while the status is provisional (DOC008).",
        _GOOD.replace("  type: text-generation\n", ""),
        _GOOD,
    ),
    _rule(
        "SCH003",
        "A value of the wrong form",
        "The message says what was found and what is wanted.",
        _GOOD.replace("provisional", "in progress"),
        _GOOD,
    ),
    _rule(
        "SCH004",
        "A size without a unit",
        "140GB is 140·10⁹ bytes and 140GiB is 140·2³⁰: 7 % more. A bare number could be either.",
        _GOOD + "  storageSize: 140\n",
        _GOOD + "  storageSize: 140GB\n",
    ),
    _rule(
        "SCH005",
        "A text that reads as a number",
        "Unquoted digits are a number to every YAML reader; a revision of digits only has to be quoted.",
        _GOOD + "  version: 1234567890123456789012345678901234567890\n",
        _GOOD + '  version: "1234567890123456789012345678901234567890"\n',
    ),
)
