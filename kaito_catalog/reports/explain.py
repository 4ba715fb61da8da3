"""`explain`: the documentation of a code, as the docs site has it, for the terminal."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence

from kaito_catalog.checks.base import Rule
from kaito_catalog.diagnostics import Severity
from kaito_catalog.reports.style import BOLD, GREEN, RED, YELLOW, paint

_WIDTH = 100


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(part, _WIDTH) for part in text.split("\n\n"))


def explain_text(rule: Rule, *, color: bool = False) -> str:
    """A rule with its two examples."""
    severity = RED if rule.severity is Severity.ERROR else YELLOW
    head = f"{paint(rule.code, severity, BOLD, color=color)} ({rule.severity.value}): {rule.title}"
    parts = [head, _wrapped(rule.text)] if rule.text else [head]
    for label, example, style in (("Fails:", rule.fails, RED), ("Passes:", rule.passes, GREEN)):
        shown = textwrap.indent(example.rstrip("\n") or "(no file)", "    ")
        parts.append(f"{paint(label, style, color=color)}\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def rule_markdown(rule: Rule) -> str:
    """A rule as Markdown, for the docs site and for SARIF; its two examples as one diff."""
    parts = [rule.text] if rule.text else []
    if rule.fails.strip() and rule.passes.strip():
        lines = difflib.ndiff(rule.fails.rstrip("\n").split("\n"), rule.passes.rstrip("\n").split("\n"))
        shown = "\n".join(line.rstrip() for line in lines if not line.startswith("?"))
        return "\n\n".join([*parts, "`-` fails, `+` passes:", f"```diff\n{shown}\n```"])
    for label, example in (("Fails:", rule.fails), ("Passes:", rule.passes)):
        shown = example.rstrip("\n")
        parts.append(f"{label}\n\n```yaml\n{shown}\n```" if shown else f"{label} no file.")
    return "\n\n".join(parts)


def import_code_text(code: str, text: str, *, color: bool = False) -> str:
    """A remark of `import`."""
    return f"{paint(code, YELLOW, BOLD, color=color)} (import)\n\n{_wrapped(text)}\n"


def list_text(
    rules: Sequence[Rule],
    families: Mapping[str, str],
    import_codes: Mapping[str, str],
    *,
    color: bool = False,
) -> str:
    """The codes of `families`, each with its title, and then those of `import` where they are given."""
    blocks = []
    for family, what in families.items():
        lines = [f"{paint(family, BOLD, color=color)}  {what}"]
        lines.extend(
            f"  {rule.code}  {rule.severity.value:<7}  {rule.title}"
            for rule in rules
            if rule.family == family
        )
        blocks.append("\n".join(lines))
    if import_codes:
        lines = [f"{paint('IMP', BOLD, color=color)}  what `import` finds in a Markdown proposal"]
        lines.extend(f"  {code}  {textwrap.shorten(text, 80)}" for code, text in import_codes.items())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
