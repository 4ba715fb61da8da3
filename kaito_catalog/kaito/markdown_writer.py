"""A proposal in KAITO's Markdown template, such that importing it gives the same proposal."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kaito_catalog import yaml_writer
from kaito_catalog.formats.base import MISSING_WORDS
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.markdown_reader import OVERLAY, read_proposals

_RUNTIMES = {"vllm": "vLLM", "transformers": "Hugging Face Transformers", "onnx": "ONNX"}
_REQUIREMENTS = (
    ("familyName", "Family name"),
    ("type", "Type"),
    ("downloadSite", "Download site"),
    ("version", "Version"),
    ("storageSize", "Storage size"),
    ("gpuCount", "GPU count"),
    ("totalGPUMemory", "Total GPU memory"),
    ("perGPUMemory", "Per GPU memory"),
)
_MAPPINGS = ("metadata", "summary", "requirements", "deployment")


def file_name(proposal: Proposal) -> str:
    """``YYYYMMDD-<name>.md``, as KAITO names its proposals."""
    return f"{proposal.metadata.creation_date.replace('-', '')}-{proposal.metadata.name}.md"


def proposal_value(proposal: Proposal) -> dict[str, Any]:
    """The proposal as plain values, as proposal.yaml holds them; what is absent is left out."""
    return proposal.model_dump(mode="json", by_alias=True, exclude_none=True)


def write_proposal(proposal: Proposal) -> str:
    """The Markdown of a proposal.

    What the template has no place for, and what its forms would change, is kept in a YAML block at the end, so
    that `read_proposals` gives back the same proposal (an empty list or mapping counts as absent). Texts are
    escaped: none becomes HTML or breaks a table.
    """
    value = proposal_value(proposal)
    text = _template(value)
    read = read_proposals(text, path=file_name(proposal)).proposals
    lost = _difference(value, read[0].value if read else {})
    if lost:
        block = yaml_writer.write({"kind": OVERLAY, **lost}, kubernetes=True)
        text += f"\n## For kaito-catalog\n\n{_fenced(block)}"
    return text


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be laid over `found` to get `wanted`; null removes."""
    result: dict[str, Any] = {}
    for key in dict.fromkeys((*wanted, *found)):
        mine, theirs = wanted.get(key), found.get(key)
        if key in ("apiVersion", "kind") or mine == theirs or not (mine or theirs):
            continue
        if key in _MAPPINGS and isinstance(mine, dict) and isinstance(theirs, dict):
            names = dict.fromkeys((*mine, *theirs))
            result[key] = {name: mine.get(name) for name in names if mine.get(name) != theirs.get(name)}
        else:
            result[key] = mine
    return result


# --- the template ----------------------------------------------------------------------------------------------


def _template(value: Mapping[str, Any]) -> str:
    metadata, summary = value["metadata"], value.get("summary", {})
    parts = [
        _front_matter(metadata),
        f"# Title\n\n{_line(metadata['heading'])}",
        f"## Glossary\n\n{_glossary(value.get('glossary') or {})}",
        f"## Summary\n\n{_summary(summary)}",
        f"## Requirements\n\n{_requirements(value['requirements'])}",
        f"## Runtimes\n\n{_runtimes(value.get('runtimes') or ())}",
    ]
    samples = _samples(value)
    if samples:
        parts.append("## Sample manifests\n\n" + "\n".join(samples).rstrip("\n"))
    parts.append(f"# History\n\n{_history(value.get('history') or ())}")
    return "\n\n".join(parts) + "\n"


def _front_matter(metadata: Mapping[str, Any]) -> str:
    front: dict[str, Any] = {}
    for key, name in (
        ("title", "title"),
        ("authors", "authors"),
        ("reviewers", "reviewers"),
        ("creationDate", "creation-date"),
        ("lastUpdated", "last-updated"),
        ("status", "status"),
    ):
        if key in metadata:
            front[name] = metadata[key]
    return f"---\n{yaml_writer.write(front)}---"


def _glossary(terms: Mapping[str, str]) -> str:
    return "\n".join(f"- **{_line(term)}**: {_line(text)}" for term, text in terms.items()) or "N/A"


def _summary(summary: Mapping[str, Any]) -> str:
    usage, claimed = summary.get("usage", {}), summary.get("license", {})
    statistics, day, link = usage.get("statistics"), usage.get("asOf"), usage.get("source")
    if statistics is None and day is None and link:
        said = f"[Hugging Face]({_url(link)})"
    else:
        said = _line(statistics or "N/A")
        said += f" as of {day}" if day else ""
        said += f", according to [Hugging Face]({_url(link)})" if link else ""
        said += "." if day or link else ""
    license_ = "N/A"
    if claimed.get("id"):
        license_ = f"`{_code(claimed['id'])}`"
        license_ += f", see [its text]({_url(claimed['url'])})" if claimed.get("url") else ""
        license_ += "." + (f" {_line(claimed['note'])}" if claimed.get("note") else "")
    elif claimed.get("note"):
        license_ = _line(claimed["note"])
    return "\n".join(
        (
            f"- **Model description**: {_line(summary.get('description') or 'N/A')}",
            f"- **Model usage statistics**: {said}",
            f"- **Model license**: {license_}",
        )
    )


def _requirements(requirements: Mapping[str, Any]) -> str:
    notes = requirements.get("notes", {})
    rows = [
        ("Field", "Notes"),
        *((label, _figure(requirements.get(key), notes.get(key))) for key, label in _REQUIREMENTS),
    ]
    if "contextLength" in requirements:
        rows.append(("Context length", _figure(requirements["contextLength"], notes.get("contextLength"))))
    text = "The following table describes the model and what running it requires.\n\n" + _table(rows)
    for figure in requirements.get("figures", ()):
        alt = re.sub(r"[\[\]\\\n]", " ", figure["alt"])
        text += f"\n\n![{html.escape(alt, quote=False)}]({_url(figure['src'])})"
    return text


def _figure(value: Any, note: str | None) -> str:
    if value is None:
        return "TBD"
    text = str(value)
    if not note or text in MISSING_WORDS:
        return _cell(text)
    said = note.split("; ")
    prefix = "~" if said[0] == "~" else ""
    said = said[1:] if prefix else said
    suffix = ""
    if said and said[0] == f"{text}+":
        suffix, said = "+", said[1:]
    if said and said[0] in ("GPU", "GPUs"):
        suffix, said = f"{suffix} {said[0]}", said[1:]
    rest = f" ({'; '.join(said)})" if said else ""
    return _cell(f"{prefix}{text}{suffix}{rest}")


def _runtimes(runtimes: Sequence[Mapping[str, Any]]) -> str:
    head = "This section describes how to configure the runtime framework to support the inference calls.\n\n"
    if not runtimes:
        return head + _table([("Options", "Notes"), ("Runtime", "TBD")])

    def row(label: str, cells: list[str]) -> tuple[str, ...]:
        return (label, *cells)

    rows = [
        row(
            "Options",
            ["Notes"] if len(runtimes) == 1 else [f"Notes {n}" for n in range(1, len(runtimes) + 1)],
        ),
        row("Runtime", [_RUNTIMES[runtime["name"]] for runtime in runtimes]),
        row("Distributed Inference", [_truth(runtime.get("distributedInference")) for runtime in runtimes]),
        row(
            "Custom configurations",
            [_cell(runtime.get("customConfigurations") or "N/A") for runtime in runtimes],
        ),
    ]
    if any(
        runtime.get("trustRemoteCode") is not (False if runtime["name"] == "vllm" else None)
        for runtime in runtimes
    ):
        rows.append(
            row("Trust remote code", [_truth(runtime.get("trustRemoteCode")) for runtime in runtimes])
        )
    return head + _table(rows)


def _truth(value: bool | None) -> str:
    return "N/A" if value is None else str(value)


def _samples(value: Mapping[str, Any]) -> list[str]:
    deployment = value.get("deployment", {})
    documents: list[dict[str, Any]] = []
    name = re.sub(r"[^a-z0-9]+", "-", value["metadata"]["name"]).strip("-")
    repo_id = re.sub(
        r"^https?://huggingface\.co/([^/]+/[^/?#]+).*", r"\1", value["requirements"]["downloadSite"]
    )
    if deployment:
        preset: dict[str, Any] = {"name": repo_id}
        if deployment.get("modelAccessSecret"):
            preset["presetOptions"] = {"modelAccessSecret": deployment["modelAccessSecret"]}
        inference: dict[str, Any] = {"preset": preset}
        if deployment.get("configMap"):
            inference["config"] = deployment["configMap"]
        resource: dict[str, Any] = {"labelSelector": {"matchLabels": {"apps": name}}}
        if deployment.get("instanceType"):
            resource = {"instanceType": deployment["instanceType"], **resource}
        documents.append(
            {
                "apiVersion": "kaito.sh/v1beta1",
                "kind": "Workspace",
                "metadata": {"name": f"workspace-{name}"},
                "resource": resource,
                "inference": inference,
            }
        )
    options = {
        runtime["name"]: runtime["config"] for runtime in value.get("runtimes", ()) if runtime.get("config")
    }
    if options:
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": deployment.get("configMap") or f"{name}-inference-params"},
                "data": {"inference_config.yaml": yaml_writer.write(options, kubernetes=True)},
            }
        )
    return [_fenced(yaml_writer.write(document, kubernetes=True)) for document in documents]


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    return (
        "\n".join(
            f"- [{'x' if event['done'] else ' '}] {event.get('date', 'TBD')}: {_line(event['event'])}."
            for event in history
        )
        or "N/A"
    )


# --- escaping --------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _line(text: str) -> str:
    """A text on one line that opens no block and no HTML."""
    flat = " ".join(text.split())
    escaped = flat.replace("<", "&lt;")
    return re.sub(r"^([#>|+*=-]|[0-9]+[.)]|```|~~~)", r"\\\1", escaped) or "N/A"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split()).replace("<", "&lt;")


def _url(text: str) -> str:
    """An address that cannot leave its parentheses; others are replaced, and kept in the block at the end."""
    return text if re.fullmatch(r"(?:https?:/|\.{0,2})/?[^\s()<>\"\\\[\]`|]+", text) else "about:blank"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip(chr(10))}\n{fence}\n"
