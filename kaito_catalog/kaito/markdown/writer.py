"""A proposal in KAITO's Markdown template, such that importing it gives the same proposal."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kaito_catalog.documents import reading, writing
from kaito_catalog.formats.base import MISSING_WORDS
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito.crd import KAITO_KEYS
from kaito_catalog.kaito.deployed import PERFORMANCE_ANNOTATION
from kaito_catalog.kaito.markdown.fields import context_in, read_license, read_usage
from kaito_catalog.kaito.markdown.front import OF_TEMPLATE
from kaito_catalog.kaito.markdown.reader import read_proposals
from kaito_catalog.kaito.markdown.samples import OVERLAY
from kaito_catalog.kaito.markdown.template import OVERLAY_SECTION, SAMPLES_SECTION
from kaito_catalog.kaito.markdown.words import repo_id

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
_RUNTIME_TEXTS = ("distributedInference", "customConfigurations")
_MAPPINGS = ("metadata", "summary", "requirements", "deployment")


def file_name(proposal: Proposal) -> str:
    """``YYYYMMDD-<name>.md``, as KAITO names its proposals."""
    return f"{proposal.metadata.creation_date.replace('-', '')}-{proposal.metadata.name}.md"


def proposal_value(proposal: Proposal) -> dict[str, Any]:
    """The proposal as plain values, as proposal.yaml holds them, without what says nothing.

    Absent claims and empty lists and mappings are left out; the options of a runtime stay as they are.
    """
    value: dict[str, Any] = _said(proposal.model_dump(mode="json", by_alias=True))
    return value


def write_proposal(proposal: Proposal) -> str:
    """The Markdown of a proposal.

    What the template has no place for, and what its forms would change, is kept in a YAML block at the end, so
    that `read_proposals` gives back the same proposal, as `proposal_value` shows it. Texts are escaped: none
    becomes HTML, breaks a table, or shows characters that hide others.
    """
    value = proposal_value(proposal)
    text = _template(value)
    read = read_proposals(text, path=file_name(proposal)).proposals
    lost = _difference(value, _said(read[0].value) if len(read) == 1 else {})
    if lost:
        block = _fenced(_yaml({"kind": OVERLAY, **lost}))
        text += f"\n## {OVERLAY_SECTION}\n\nWhat the template has no place for:\n\n{block}"
    return text


def _said(value: Any) -> Any:
    """A value without what says nothing, except below `config`, where null is a value."""
    if isinstance(value, dict):
        parts = {key: part if key == "config" else _said(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None and part not in ({}, [])}
    return [_said(part) for part in value] if isinstance(value, list) else value


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be laid over `found` to get `wanted`; null takes a key away."""
    result: dict[str, Any] = {}
    for key in dict.fromkeys((*wanted, *found)):
        mine, theirs = wanted.get(key), found.get(key)
        if mine == theirs:
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
        f"## Requirements\n\n{_requirements(value)}",
        f"## Runtimes\n\n{_runtimes(value.get('runtimes') or (), value['requirements'].get('notes', {}))}",
    ]
    samples = _samples(value)
    if samples:
        parts.append(f"## {SAMPLES_SECTION}\n\n" + "\n".join(samples).rstrip("\n"))
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
    if OF_TEMPLATE.get(metadata.get("templateStatus", "")) == metadata.get("status"):
        front["status"] = metadata["templateStatus"]
    # A line of dashes would end the front matter early, so its texts are on one line and not folded.
    flat = {
        key: [_shown(name) for name in part] if isinstance(part, list) else _shown(part)
        for key, part in front.items()
    }
    return f"---\n{writing.write(flat, width=10**6)}---"


def _glossary(terms: Mapping[str, str]) -> str:
    return "\n".join(f"- **{_line(term)}**: {_line(text)}" for term, text in terms.items()) or "N/A"


def _summary(summary: Mapping[str, Any]) -> str:
    usage, claimed = summary.get("usage", {}), summary.get("license", {})
    return "\n".join(
        (
            f"- **Model description**: {_line(summary.get('description') or 'N/A')}",
            f"- **Model usage statistics**: {_first(_usages(usage), read_usage, usage)}",
            f"- **Model license**: {_first(_licenses(claimed), read_license, claimed)}",
        )
    )


def _first(texts: Iterable[str], read: Callable[[str], dict[str, Any]], wanted: Mapping[str, Any]) -> str:
    """The first text that says exactly what is wanted, else the last."""
    text = ""
    for text in texts:
        if read(text) == wanted:
            break
    return text


def _usages(usage: Mapping[str, Any]) -> Iterable[str]:
    statistics, day, link = (usage.get(key) for key in ("statistics", "asOf", "source"))
    link = (
        f"[Hugging Face]({_url(link)})"
        if link and repo_id(link)
        else f"[the source]({_url(link)})"
        if link
        else ""
    )
    words = _line(statistics or "N/A")
    if link and not statistics and not day:
        yield link
    yield f"{words}." if statistics else words
    yield f"{words}, according to {link}." if link else words
    yield f"{words}{f' as of {day}' if day else ''}{f', according to {link}' if link else ''}."


def _licenses(claimed: Mapping[str, Any]) -> Iterable[str]:
    id_, url, note = (claimed.get(key) for key in ("id", "url", "note"))
    if note:
        yield _line(note)
    if not id_:
        yield _line(note or "N/A")
        return
    words = f"`{_code(id_)}`{f', see [its text]({_url(url)})' if url else ''}."
    yield f"{words} {_line(note)}" if note else words


def _requirements(value: Mapping[str, Any]) -> str:
    requirements = value["requirements"]
    notes = requirements.get("notes", {})
    rows = [("Field", "Notes"), *((label, _claim(key, requirements, notes)) for key, label in _REQUIREMENTS)]
    context = requirements.get("contextLength")
    served = [
        r["config"].get("max-model-len")
        for r in value.get("runtimes", ())
        if r["name"] == "vllm" and "config" in r
    ]
    # Without a row, the reader takes the context from the sample, or from a note such as "~16k context length".
    implied = [*served, *filter(None, (context_in(note) for note in notes.values()))]
    if "contextLength" in notes or (context not in served[:1] if context else implied):
        rows.append(("Context length", _figure(context, notes.get("contextLength"))))
    text = "The following table describes the model and what running it requires.\n\n" + _table(rows)
    for figure in requirements.get("figures", ()):
        alt = re.sub(r"[\[\]\\]", " ", _shown(figure["alt"]))
        text += f"\n\n![{html.escape(alt, quote=False)}]({_url(figure['src'])})"
    return text


def _claim(key: str, requirements: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    value = requirements.get(key)
    repository = repo_id(str(requirements.get("downloadSite", "")))
    if key == "version" and repository and re.fullmatch(r"[0-9a-f]{40}", str(value)):
        return f"[{value}](https://huggingface.co/{repository}/commit/{value})"
    if key in ("familyName", "type", "downloadSite", "version"):
        return _cell(str(value or ""))
    return _figure(value, notes.get(key))


def _figure(value: Any, note: str | None) -> str:
    text = "" if value is None else str(value)
    if not note or text in MISSING_WORDS:
        return _cell(f"{text} ({note})" if note else text)
    if value is None:  # a figure that could not be read: its words are all there is
        return _cell(note)
    said = note.split("; ")
    prefix = said.pop(0) if said[0] == "~" else ""
    suffix = "+" if said and said[0] == f"{text}+" else ""
    rest = "; ".join(said[1:] if suffix else said)
    if rest:
        rest = f" {rest}" if rest in ("GPU", "GPUs") else f" ({rest})"
    return _cell(f"{prefix}{text}{suffix}{rest}")


def _runtimes(runtimes: Sequence[Mapping[str, Any]], notes: Mapping[str, str]) -> str:
    """One column, or one for each runtime where they differ."""
    head = "This section describes how to configure the runtime framework to support the inference calls.\n\n"
    shared = [tuple(runtime.get(key) for key in _RUNTIME_TEXTS) for runtime in runtimes]
    trust = [runtime.get("trustRemoteCode") for runtime in runtimes]
    usual = [False if runtime["name"] == "vllm" else None for runtime in runtimes]
    one = len(set(shared)) <= 1 and trust == usual
    titles = ["Notes"] if one else [_RUNTIMES[runtime["name"]] for runtime in runtimes]
    names = [", ".join(_RUNTIMES[runtime["name"]] for runtime in runtimes)] if one else titles
    if notes.get("runtimes"):
        names = [f"{names[0]}. {notes['runtimes']}".removeprefix(". "), *names[1:]]
    rows = [("Options", *titles), ("Runtime", *(_cell(name) for name in names))]
    if runtimes:
        shared = shared[:1] if one else shared
        said = notes.get("distributedInference")
        rows.append(
            ("Distributed Inference", *(_cell(said or _truth(distributed)) for distributed, _ in shared))
        )
        rows.append(("Custom configurations", *(_cell(words or "N/A") for _, words in shared)))
    if not one:
        rows.append(("Trust remote code", *(_truth(value) for value in trust)))
    return head + _table(rows)


def _truth(value: bool | None) -> str:
    return "N/A" if value is None else str(value)


def _samples(value: Mapping[str, Any]) -> list[str]:
    deployment = value.get("deployment", {})
    documents: list[dict[str, Any]] = []
    name = re.sub(r"[^a-z0-9]+", "-", value["metadata"]["name"]).strip("-")
    if deployment:
        preset: dict[str, Any] = {
            "name": repo_id(value["requirements"]["downloadSite"]) or value["metadata"]["name"]
        }
        if deployment.get("modelAccessSecret"):
            preset["presetOptions"] = {"modelAccessSecret": deployment["modelAccessSecret"]}
        inference: dict[str, Any] = {"preset": preset}
        if deployment.get("configMap"):
            inference["config"] = deployment["configMap"]
        if deployment.get("adapters"):
            inference["adapters"] = [_sample_adapter(adapter) for adapter in deployment["adapters"]]
        metadata: dict[str, Any] = {"name": f"workspace-{name}"}
        if "performanceMode" in deployment:
            metadata["annotations"] = {PERFORMANCE_ANNOTATION: deployment["performanceMode"]}
        documents.append(
            {
                "apiVersion": "kaito.sh/v1beta1",
                "kind": "Workspace",
                "metadata": metadata,
                "resource": _sample_resource(deployment, name),
                "inference": inference,
            }
        )
    options = {
        runtime["name"]: runtime["config"] for runtime in value.get("runtimes", ()) if runtime.get("config")
    }
    options |= {key: _short(deployment[field]) for key, field in KAITO_KEYS.items() if field in deployment}
    if options:
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": deployment.get("configMap") or f"{name}-inference-params"},
                "data": {"inference_config.yaml": _yaml(options)},
            }
        )
    return [_fenced(_yaml(document)) for document in documents]


def _sample_resource(deployment: Mapping[str, Any], name: str) -> dict[str, Any]:
    resource: dict[str, Any] = {"count": deployment["nodeCount"]} if "nodeCount" in deployment else {}
    if (
        "partition" in deployment
    ):  # KAITO refuses an instance type beside it, which the block at the end keeps
        resource["partition"] = deployment["partition"]
    elif deployment.get("instanceType"):
        resource["instanceType"] = deployment["instanceType"]
    return {**resource, "labelSelector": {"matchLabels": {"apps": name}}}


def _sample_adapter(adapter: Mapping[str, Any]) -> dict[str, Any]:
    source = {key: adapter[key] for key in ("name", "image") if key in adapter}
    strength = {"strength": str(adapter["strength"])} if "strength" in adapter else {}
    return {"source": source, **strength}


def _short(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(_event(event) for event in history) or "N/A"


def _event(event: Mapping[str, Any]) -> str:
    day = f"{event['date']}: " if "date" in event else ""
    return f"- [{'x' if event['done'] else ' '}] {day}{_line(event['event'])}."


# --- escaping --------------------------------------------------------------------------------------------------

# White space aside: control characters, and those that are invisible or turn the text around them.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
# A link that leads to neither a page nor a file, such as javascript:, also when it is spelt with &#…;
_ODD_LINK = re.compile(r"\]\((?!https?://|[^:&)\s]{0,500}[)\s])")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(text: str) -> str:
    """A text on one line, without characters that hide something."""
    return _HIDDEN.sub("\ufffd", " ".join(text.split()))


def _line(text: str) -> str:
    """A text on one line that opens no block, no HTML and no odd link."""
    escaped = _ODD_LINK.sub(r"]\\(", _shown(text).replace("<", "&lt;"))
    return re.sub(r"^([#>|+*=-]|[0-9]+[.)]|```|~~~)", r"\\\1", escaped)


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _code(text: str) -> str:
    return _shown(text.replace("`", "'")).replace("<", "&lt;")


_ADDRESS = re.compile(r"(?:https?:/|\.{0,2})/?[^\s()<>\"\\\[\]`|:&]+[^\s()<>\"\\\[\]`|]*")


def _url(text: str) -> str:
    """An address that cannot leave its parentheses; others are replaced, and kept in the block at the end."""
    return text if _ADDRESS.fullmatch(text) and not _HIDDEN.search(text) else "about:blank"


def _yaml(value: Any) -> str:
    """A value as YAML that `source` reads: with escapes where a text holds what a file may not show."""
    text = writing.write(value, kubernetes=True)
    document = reading.parse(text, path="")
    if not document.problems and document.value == value:
        return text
    escaped = _HIDDEN.sub(lambda hidden: f"\\u{ord(hidden[0]):04x}", json.dumps(value, ensure_ascii=False))
    return f"{escaped}\n"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text}{fence}\n"
