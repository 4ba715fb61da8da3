"""Plain values to YAML that every reader reads the same: YAML 1.1 (Kubernetes), 1.2 and our own."""

from __future__ import annotations

import re
from typing import Any

import yaml

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
# What a YAML 1.2 reader takes for a number although PyYAML (1.1) does not: 1e3, 0o17.
_NUMBER_IN_1_2 = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z"
)


class _Writer(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless)


class _KubernetesWriter(_Writer):
    """As above, but dates are quoted: a YAML 1.1 reader makes timestamps of them."""


def _text(writer: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if "\n" in value and not re.search(
        r"[^\S\n]\n|\A\s|[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff\u2028\u2029]", value
    ):
        return writer.represent_scalar(tag, value, style="|")
    if _NUMBER_IN_1_2.match(value) or (isinstance(writer, _KubernetesWriter) and _DATE.match(value)):
        return writer.represent_scalar(tag, value, style='"')
    return writer.represent_scalar(tag, value)


for _class in (_Writer, _KubernetesWriter):
    _class.add_representer(str, _text)
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


def write(value: Any, *, kubernetes: bool = False, width: int = 120) -> str:
    """`value` (mappings, lists, strings, numbers, booleans, null) as block-style YAML, keys in their order.

    Args:
        value: what to write.
        kubernetes: quote also what only YAML 1.1 readers misread (dates).
        width: where long strings are folded.
    """
    text: str = yaml.dump(
        value,
        Dumper=_KubernetesWriter if kubernetes else _Writer,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=width,
    )
    return text
