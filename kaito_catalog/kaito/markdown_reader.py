"""KAITO's Markdown proposals to data: what a proposal says is taken as it is, what it lacks is reported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, get_args

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.front_matter import front_matter_plugin

from kaito_catalog import quantity, source
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, sort_key
from kaito_catalog.files import NAME
from kaito_catalog.formats.base import MISSING_WORDS
from kaito_catalog.formats.proposal import HUB_URL, Status

API_VERSION = "catalog.kaito.sh/v1alpha1"
OVERLAY = "ModelProposalOverlay"
"""The kind of the block in which `markdown_writer` keeps what KAITO's template has no place for."""

IMPORT_CODES: dict[str, str] = {
    "IMP001": "The file has no front matter that can be read. A proposal starts with title, authors, creation-date and "
    "status between two lines of ---.",
    "IMP002": "There is no requirements table, so nothing is claimed and no proposal is written. It has the columns "
    "Field and Notes.",
    "IMP003": "No revision is named. Write the full commit of the repository in the row Version.",
    "IMP004": "The revision is abbreviated; the full one was taken from its link.",
    "IMP005": "Several models stand in one file. Each gets its own folder; the template asks for one proposal each.",
    "IMP006": "The status is not one that proposals can have: provisional, implemented, deferred, rejected, withdrawn.",
    "IMP007": "The title in the front matter names another model: it was probably copied from another proposal.",
    "IMP008": "The heading or the family names another model than the download site.",
    "IMP009": "KAITO would refuse the sample manifest, or start nothing with it. A Workspace has resource and "
    "inference at its top, inference.preset.name, and the secret in inference.preset.presetOptions.modelAccessSecret.",
    "IMP010": "The GPU figures contradict each other: the total is not the count times the memory of each.",
    "IMP011": "A claim that the template asks for is missing. It is left out, and `check` keeps pointing at it.",
    "IMP012": "A date cannot be read, or can be read in two ways. Write year-month-day.",
    "IMP013": "The date in the file's name is not the creation date.",
    "IMP014": "The runtime is not one of vLLM, Hugging Face Transformers or ONNX, or the text takes it back.",
    "IMP015": "The download site is not the address of a repository on the Hub.",
    "IMP016": "A figure cannot be read. It is kept in requirements.notes; write a number with a unit.",
    "IMP017": "A text has no place in a proposal and is left out.",
    "IMP018": "A section, a table or a row is not part of the template and is left out.",
    "IMP019": "A YAML block cannot be read, or is of a kind that proposals do not hold.",
    "IMP020": "The licence is not named by a name that is known; its words are kept as a note.",
}

_STATUSES: tuple[str, ...] = get_args(Status)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LINK = re.compile(r"\[(?P<text>[^\]\n]{0,300})\]\((?P<url>[^()\s]{1,500})\)")
_HUB_PATH = re.compile(r"https?://huggingface\.co/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\w)", re.ASCII)
_REPO_WORD = re.compile(r"`([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})`", re.ASCII)
_UNITS = "TiB|GiB|MiB|TB|GB|MB|Ti|Gi|Mi"
_SIZE_CELL = re.compile(
    rf"(?P<about>~ ?)?(?P<size>[0-9]{{1,12}}(?:\.[0-9]{{1,6}})? ?(?:{_UNITS}))(?P<plus>\+)?(?: ?\((?P<note>.*)\))?\Z"
)
_COUNT_CELL = re.compile(
    r"(?P<about>~ ?)?0*(?P<count>[1-9][0-9]{0,8})(?P<plus>\+)?(?P<word> GPUs?)?(?: ?\((?P<note>.*)\))?\Z"
)
_BULLET = re.compile(
    r"\*{0,2}(?P<what>Model (?:description|usage statistics|license|licence))\*{0,2} ?: ?\*{0,2}\s*(?P<text>.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_HISTORY = re.compile(r"\[(?P<done>[ xX])\]\s*(?P<rest>.*)\Z", re.DOTALL)
_DATED = re.compile(
    r"(?P<date>[0-9xX]{1,4}[-/][0-9xX]{1,2}[-/][0-9xX]{1,4}|TBD)\s*:\s*(?P<event>.*)\Z", re.DOTALL
)
_USAGE_TAIL = re.compile(
    r"(?P<text>.*?)(?: as of (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}))?"
    r"(?:,? according to \[[^\]\n]{0,100}\]\((?P<url>https?://[^\s()<>\"]{1,2000})\))?\.?\Z",
    re.DOTALL,
)
_AS_OF = re.compile(
    r"\bas of (?:the )?(?P<day>[0-9]{1,2})(?:st|nd|rd|th)? (?P<month>[A-Za-z]{3,9}) (?P<year>[0-9]{4})",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LICENSE_LINE = re.compile(
    r"`(?P<id>[^`\n]{1,100})`(?:, see \[[^\]\n]{0,100}\]\((?P<url>https?://[^\s()<>\"]{1,2000})\))?\."
    r"(?: (?P<note>.*))?\Z",
    re.DOTALL,
)
_LICENSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), found)
    for pattern, found in (
        (r"\bapache[- ]?(?:license,? )?(?:version )?v?2(?:\.0)?\b", "apache-2.0"),
        (r"\bMIT\b", "mit"),
        (r"\bgemma (?:terms|licen[cs]e)", "gemma"),
        (r"\bllama 3\.3 community licen[cs]e", "llama3.3"),
        (r"\bllama 3\.2 community licen[cs]e", "llama3.2"),
        (r"\bllama 3\.1 community licen[cs]e", "llama3.1"),
        (r"\bllama 4 community licen[cs]e", "llama4"),
        (r"\bllama 3 community licen[cs]e", "llama3"),
        (r"\bllama 2 community licen[cs]e", "llama2"),
        (r"\bBSD[- ]3[- ]clause\b", "bsd-3-clause"),
        (r"\bCC[- ]BY[- ]4\.0\b", "cc-by-4.0"),
        (r"\bCC[- ]BY[- ]NC[- ]4\.0\b", "cc-by-nc-4.0"),
    )
)
_FAMILIES = (
    "mistral",
    "llama",
    "phi",
    "qwen",
    "gemma",
    "gpt-oss",
    "deepseek",
    "falcon",
    "granite",
    "kimi",
    "nemotron",
)
_SIZES = ("mini", "small", "medium", "large")
_BOILERPLATE = re.compile(
    r"(?:the following table describes|this section describes how|sam[a-z]{1,4} yaml:?|<!--|n/?a\.?\Z)",
    re.IGNORECASE,
)
_ROWS = {
    "familyname": "familyName",
    "type": "type",
    "downloadsite": "downloadSite",
    "version": "version",
    "storagesize": "storageSize",
    "gpucount": "gpuCount",
    "totalgpumemory": "totalGPUMemory",
    "pergpumemory": "perGPUMemory",
    "contextlength": "contextLength",
}
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class ImportedProposal:
    """One model of a file: the folder's name, and the value of its proposal.yaml."""

    name: str
    value: dict[str, Any]


@dataclass(frozen=True)
class ImportResult:
    """What a Markdown file holds, and what was noticed, each at its line."""

    proposals: tuple[ImportedProposal, ...]
    diagnostics: tuple[Diagnostic, ...]


def read_proposals(text: str, *, path: str) -> ImportResult:
    """Read a Markdown proposal in KAITO's template; never raises for what is in it.

    Args:
        text: the Markdown.
        path: its name in diagnostics; the date in it is compared with the creation date.
    """
    if len(text) > _MAX_BYTES:
        problem = Diagnostic(
            "IMP002",
            Severity.ERROR,
            "the file is larger than 1 MiB",
            Place(path),
            "a proposal is a few kilobytes",
        )
        return ImportResult((), (problem,))
    reader = _Reader(text.replace("\r\n", "\n"), path)
    proposals = reader.read()
    return ImportResult(tuple(proposals), tuple(sorted(dict.fromkeys(reader.diagnostics), key=sort_key)))


@dataclass(frozen=True)
class _Row:
    """A table row: the first cell, the others, and the line."""

    label: str
    cells: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class _Block:
    """Something in a section: a paragraph, a bullet, a table or a fenced block."""

    kind: str
    text: str
    line: int
    rows: tuple[_Row, ...] = ()


@dataclass
class _Sample:
    """What the sample manifests say."""

    deployment: dict[str, Any] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    secret: str | None = None
    overlay: Mapping[str, Any] = field(default_factory=dict)
    line: int = 1


def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table")
    return parser.use(front_matter_plugin)


class _Reader:
    """Reads one file; `diagnostics` grows as it goes."""

    def __init__(self, text: str, path: str) -> None:
        self.lines = text.split("\n")
        self.path = path
        self.diagnostics: list[Diagnostic] = []
        self.tokens = _markdown().parse(text)

    def _report(
        self, code: str, severity: Severity, message: str, line: int, hint: str | None = None, find: str = ""
    ) -> None:
        column = 1
        if find and 0 < line <= len(self.lines):
            column = max(self.lines[line - 1].find(find.split("\n")[0]), 0) + 1
        self.diagnostics.append(Diagnostic(code, severity, message, Place(self.path, line, column), hint))

    def _warn(self, code: str, message: str, line: int, hint: str | None = None, find: str = "") -> None:
        self._report(code, Severity.WARNING, message, line, hint, find)

    # --- the file ---------------------------------------------------------------------------------

    def read(self) -> list[ImportedProposal]:
        front = self._front_matter()
        sections = self._sections()
        requirements = sections.get("requirements", [])
        table = next((b for b in requirements if b.kind == "table"), None) or self._stray_table(sections)
        if table is None:
            line = requirements[0].line if requirements else 1
            self._report(
                "IMP002", Severity.ERROR, "there is no requirements table", line, "see KAITO's template"
            )
            return []
        heading, heading_line = self._heading(sections.get("title", []))
        sample = self._samples(sections)
        columns = self._columns(table)
        repositories = self._repositories(sections, heading)
        if len(columns) > 1:
            self._warn(
                "IMP005",
                f"the table describes {len(columns)} models: {', '.join(name for name, _ in columns)}",
                table.line,
                "one proposal for each: a folder of its own is written for every column",
            )
        result = []
        taken: set[str] = set()
        for number, (column, cells) in enumerate(columns):
            value, name = self._proposal(
                front,
                sections,
                heading,
                heading_line,
                sample,
                column,
                cells,
                table,
                repositories,
                len(columns) > 1,
            )
            if name in taken:
                name = f"{name[:90]}-{number + 1}"
                value["metadata"]["name"] = name
            taken.add(name)
            result.append(ImportedProposal(name, _overlaid(value, sample.overlay)))
        return [ImportedProposal(str(p.value["metadata"]["name"]), p.value) for p in result]

    def _stray_table(self, sections: Mapping[str, list[_Block]]) -> _Block | None:
        for blocks in sections.values():
            for block in blocks:
                if block.kind == "table" and any(_key(row.label) == "downloadsite" for row in block.rows):
                    return block
        return None

    def _front_matter(self) -> dict[str, Any]:
        token = next((t for t in self.tokens if t.type == "front_matter"), None)
        if token is None:
            self._report("IMP001", Severity.ERROR, "there is no front matter", 1, "see KAITO's template")
            return {}
        document = source.parse(token.content, path=self.path)
        first = (token.map[0] if token.map else 0) + 1
        if document.problems or not isinstance(document.value, dict):
            problem = document.problems[0] if document.problems else None
            message = (
                f"the front matter cannot be read: {problem.message if problem else 'no keys and values'}"
            )
            self._report(
                "IMP001",
                Severity.ERROR,
                message,
                first + (problem.place.line if problem else 1),
                "write valid YAML",
            )
            return {}
        known = {"title", "authors", "reviewers", "creation-date", "last-updated", "status"}
        result: dict[str, Any] = {}
        for key, value in document.value.items():
            line = first + document.spans[(key,)].line
            result[f"{key}#line"] = line
            if key in known:
                result[key] = value
            else:
                self._warn("IMP018", f"the front matter has an unknown key, {_shorten(key)}", line)
        return result

    def _sections(self) -> dict[str, list[_Block]]:
        """Blocks by section name (lower case); before the first heading: the empty name."""
        result: dict[str, list[_Block]] = {"": []}
        current = ""
        index = 0
        while index < len(self.tokens):
            token = self.tokens[index]
            line = (token.map[0] if token.map else 0) + 1
            if token.type == "heading_open":
                name = " ".join(self.tokens[index + 1].content.lower().split())
                current = {"licence": "license"}.get(name, name)
                result.setdefault(current, [])
                if current not in _SECTIONS:
                    self._warn("IMP018", f"the section '{_shorten(name)}' is not part of the template", line)
                index = _after(self.tokens, index)
            elif token.type == "paragraph_open":
                result[current].append(_Block("paragraph", _flat(self.tokens[index + 1].content), line))
                index = _after(self.tokens, index)
            elif token.type in ("bullet_list_open", "ordered_list_open"):
                end = _after(self.tokens, index)
                result[current].extend(_items(self.tokens[index:end]))
                index = end
            elif token.type == "table_open":
                end = _after(self.tokens, index)
                result[current].append(_Block("table", "", line, tuple(_rows(self.tokens[index:end]))))
                index = end
            elif token.type in ("fence", "code_block"):
                result[current].append(_Block("code", token.content, line + (token.type == "fence")))
                index += 1
            else:
                end = _after(self.tokens, index) if token.nesting == 1 else index + 1
                quiet = token.type in ("front_matter", "hr") or (
                    token.type == "html_block" and token.content.lstrip().startswith("<!--")
                )
                if not quiet and token.nesting >= 0:
                    self._report("IMP017", Severity.NOTE, "this is left out", line)
                index = end
        return result

    def _heading(self, blocks: Sequence[_Block]) -> tuple[str | None, int]:
        for block in blocks:
            if block.kind in ("paragraph", "item") and block.text:
                return block.text, block.line
        return None, blocks[0].line if blocks else 1

    def _repositories(self, sections: Mapping[str, list[_Block]], heading: str | None) -> list[str]:
        texts = [heading or "", *(b.text for b in sections.get("summary", []) if b.kind != "code")]
        found = [repo for text in texts for repo in (*_HUB_PATH.findall(text), *_REPO_WORD.findall(text))]
        return list(dict.fromkeys(found))

    # --- one model --------------------------------------------------------------------------------

    def _columns(self, table: _Block) -> list[tuple[str, dict[str, tuple[str, int]]]]:
        """The models of the requirements table: column name, and (cell, line) by field."""
        header, *rows = table.rows
        count = max(1, len(header.cells))
        columns: list[tuple[str, dict[str, tuple[str, int]]]] = [
            (header.cells[number] if number < len(header.cells) else "", {}) for number in range(count)
        ]
        for row in rows:
            name = _ROWS.get(_key(row.label))
            if name is None:
                self._warn("IMP018", f"the row '{_shorten(row.label)}' is not part of the template", row.line)
                continue
            for number, (_, cells) in enumerate(columns):
                if name in cells:
                    self._warn("IMP018", f"the row '{_shorten(row.label)}' stands twice", row.line)
                elif number < len(row.cells):
                    cells[name] = (row.cells[number], row.line)
        return columns

    def _proposal(
        self,
        front: Mapping[str, Any],
        sections: Mapping[str, list[_Block]],
        heading: str | None,
        heading_line: int,
        sample: _Sample,
        column: str,
        cells: Mapping[str, tuple[str, int]],
        table: _Block,
        repositories: Sequence[str],
        is_one_of_several: bool,
    ) -> tuple[dict[str, Any], str]:
        site, site_line = cells.get("downloadSite", ("", table.line))
        address = _address(site)
        match = HUB_URL.match(address)
        repo_id = match[1] if match else None
        if site and repo_id is None:
            self._warn(
                "IMP015",
                f"'{_shorten(site)}' is no address on the Hub",
                site_line,
                "write https://huggingface.co/ORG/MODEL",
            )
        named = repo_id
        if named is None:
            near = [r for r in repositories if r.partition("/")[2].lower().startswith(column.lower())]
            candidates = near if is_one_of_several and column else list(repositories)
            named = candidates[0] if len(candidates) == 1 or (candidates and is_one_of_several) else None
        name = _slug(
            (named or "").partition("/")[2] or (column if is_one_of_several else "") or heading or "model"
        )
        metadata = self._metadata(front, name, heading, heading_line)
        self._compare_names(front, metadata, repo_id, cells, heading_line)
        requirements = self._requirements(cells, table, address)
        runtimes = self._runtimes(sections, sample, column, requirements)
        served = sample.options.get("vllm", {}).get("max-model-len")
        if (
            "contextLength" not in requirements
            and isinstance(served, int)
            and not isinstance(served, bool)
            and served > 0
        ):
            requirements["contextLength"] = served
        figures = [
            {"alt": match[1], "src": match[2]}
            for block in sections.get("requirements", [])
            for match in re.finditer(r"!\[([^\]\n]{0,200})\]\(([^()\s]{1,500})\)", block.text)
        ]
        order = [key for key in _ROWS.values() if key in requirements]
        ordered = {key: requirements[key] for key in order}
        if requirements.get("notes"):
            ordered["notes"] = requirements["notes"]
        if figures:
            ordered["figures"] = figures
        value: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "ModelProposal",
            "metadata": metadata,
            "glossary": self._glossary(sections.get("glossary", [])),
            "summary": self._summary(sections),
            "requirements": ordered,
            "runtimes": runtimes,
        }
        if sample.deployment:
            value["deployment"] = dict(sample.deployment)
        value["history"] = self._history(sections.get("history", []), metadata.get("creationDate"))
        value["waivers"] = {}
        return value, name

    def _metadata(
        self, front: Mapping[str, Any], name: str, heading: str | None, heading_line: int
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name}
        title = front.get("title")
        if isinstance(title, str) and title:
            metadata["title"] = title
        if heading:
            metadata["heading"] = heading
        else:
            self._warn("IMP011", "there is no heading under '# Title'", heading_line, "name the model to add")
        for key in ("authors", "reviewers"):
            people = front.get(key)
            people = [people] if isinstance(people, str) else people
            if isinstance(people, list) and people and all(isinstance(p, str) and p for p in people):
                metadata[key] = people
            elif key == "authors":
                self._warn("IMP011", "the front matter names no authors", front.get("authors#line", 1))
        for key, target in (("creation-date", "creationDate"), ("last-updated", "lastUpdated")):
            text = front.get(key)
            line = front.get(f"{key}#line", 1)
            if isinstance(text, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
                metadata[target] = text
                if _date(text) is None:
                    self._warn("IMP012", f"{text} is not in the calendar", line, find=text)
            elif text is not None:
                self._warn(
                    "IMP012", f"{key}: '{_shorten(str(text))}' is no date", line, "write year-month-day"
                )
            elif key == "creation-date":
                self._warn("IMP011", "the front matter has no creation-date", 1)
        in_name = re.search(
            r"(?<![0-9])(20[0-9]{2})([01][0-9])([0-3][0-9])(?![0-9])", self.path.rpartition("/")[2]
        )
        created = metadata.get("creationDate")
        if in_name and created and "-".join(in_name.groups()) != created:
            self._warn(
                "IMP013",
                f"the file is dated {'-'.join(in_name.groups())}, the proposal {created}",
                front.get("creation-date#line", 1),
            )
        status = front.get("status")
        if isinstance(status, str) and status:
            metadata["status"] = status
            if status not in _STATUSES:
                self._warn(
                    "IMP006",
                    f"'{_shorten(status)}' is no status of a proposal",
                    front.get("status#line", 1),
                    f"one of {', '.join(_STATUSES)}",
                    find=status,
                )
        else:
            self._warn("IMP011", "the front matter has no status", front.get("status#line", 1))
        return metadata

    def _compare_names(
        self,
        front: Mapping[str, Any],
        metadata: Mapping[str, Any],
        repo_id: str | None,
        cells: Mapping[str, tuple[str, int]],
        heading_line: int,
    ) -> None:
        family, family_line = cells.get("familyName", ("", 1))
        mine = f"{repo_id or metadata['name']} {family}".lower()
        title = str(metadata.get("title", "")).lower()
        other = next((f for f in _FAMILIES if re.search(rf"\b{f}", title) and f not in mine), None)
        if other:
            self._warn(
                "IMP007",
                f"the title is about {other}, the model is {repo_id or metadata['name']}",
                front.get("title#line", 1),
                find=str(metadata.get("title", "")),
            )
        if repo_id is None:
            return
        words = set(re.findall(r"[a-z]+", repo_id.lower()))
        for text, line in ((str(metadata.get("heading", "")), heading_line), (family, family_line)):
            said = {size for size in _SIZES if re.search(rf"\b{size}\b", text.lower())}
            if said and words & set(_SIZES) and not said & words:
                self._warn("IMP008", f"'{_shorten(text)}' says {min(said)}, the model is {repo_id}", line)
        linked = _HUB_PATH.findall(str(metadata.get("heading", "")))
        if linked and repo_id.lower() not in (link.lower() for link in linked):
            self._warn("IMP008", f"the heading links to {linked[0]}, the model is {repo_id}", heading_line)

    def _glossary(self, blocks: Sequence[_Block]) -> dict[str, str]:
        result: dict[str, str] = {}
        for block in blocks:
            match = re.match(
                r"\*{0,2}(?P<term>[^*:\n]{1,100}?)\*{0,2} ?: ?\*{0,2}\s*(?P<text>.+)\Z", block.text, re.DOTALL
            )
            if block.kind == "item" and match and match["term"] not in result:
                result[match["term"]] = match["text"].strip()
            elif block.text and not _BOILERPLATE.match(block.text):
                self._report("IMP017", Severity.NOTE, "a text in the glossary is left out", block.line)
        return result

    # --- summary ----------------------------------------------------------------------------------

    def _summary(self, sections: Mapping[str, list[_Block]]) -> dict[str, Any]:
        blocks = sections.get("summary", [])
        line = blocks[0].line if blocks else 1
        found: dict[str, tuple[str, int]] = {}
        rest: list[_Block] = []
        for block in blocks:
            match = _BULLET.match(block.text) if block.kind in ("item", "paragraph") else None
            if match:
                what = match["what"].lower().replace("licence", "license").removeprefix("model ")
                if what in found:
                    self._warn("IMP018", f"'{match['what']}' stands twice", block.line)
                found.setdefault(what, (match["text"].strip(), block.line))
            elif block.kind in ("item", "paragraph"):
                rest.append(block)
        summary: dict[str, Any] = {}
        if "description" in found:
            summary["description"] = found["description"][0]
        else:
            parts = [b for b in rest if not _BOILERPLATE.match(b.text)]
            text = "\n".join(f"- {b.text}" if b.kind == "item" else b.text for b in parts)
            if text:
                summary["description"] = text
                rest = [b for b in rest if b not in parts]
            else:
                self._warn("IMP011", "the model is not described", line)
        for block in rest:
            if block.text and not _BOILERPLATE.match(block.text):
                self._report(
                    "IMP017",
                    Severity.NOTE,
                    f"a text of the summary is left out: '{_shorten(block.text)}'",
                    block.line,
                )
        usage, usage_line = found.get("usage statistics", ("", line))
        read = _usage(usage)
        if read:
            summary["usage"] = read
        if not read.get("statistics"):
            self._warn(
                "IMP011", "there is no usage figure", usage_line, "give the downloads, the day and the source"
            )
        license_, license_line = found.get("license", ("", line))
        claimed = _license(license_)
        if claimed:
            summary["license"] = claimed
        if not license_ or _is_missing(license_):
            self._warn(
                "IMP011", "no licence is named", license_line, "name it by its SPDX id, such as apache-2.0"
            )
        elif "id" not in claimed:
            self._warn("IMP020", f"'{_shorten(license_)}' names no licence that is known", license_line)
        return summary

    # --- requirements -----------------------------------------------------------------------------

    def _requirements(
        self, cells: Mapping[str, tuple[str, int]], table: _Block, address: str
    ) -> dict[str, Any]:
        notes: dict[str, str] = {}
        result: dict[str, Any] = {}
        for key in ("familyName", "type"):
            text, line = cells.get(key, ("", table.line))
            text = _bare(text)
            if text:
                result[key] = text
            else:
                self._warn("IMP011", f"{key} is missing", line)
        if address:
            result["downloadSite"] = address
        else:
            self._warn("IMP011", "downloadSite is missing", table.line)
        if "version" in cells:
            result |= self._version(*cells["version"])
        else:
            self._warn(
                "IMP003", "no revision is named", table.line, "add the row Version with the full commit"
            )
        for key in ("storageSize", "totalGPUMemory", "perGPUMemory"):
            if key in cells:
                result |= self._figure(key, *cells[key], notes, _SIZE_CELL)
            else:
                self._warn("IMP011", f"{key} is missing", table.line)
        for key in ("gpuCount", "contextLength"):
            if key in cells:
                result |= self._figure(key, *cells[key], notes, _COUNT_CELL)
            elif key == "gpuCount":
                self._warn("IMP011", "gpuCount is missing", table.line)
        self._compare_gpus(result, cells, table)
        if notes:
            result["notes"] = notes
        return result

    def _version(self, text: str, line: int) -> dict[str, Any]:
        link = _LINK.search(text)
        shown = _bare(link["text"] if link else text)
        in_link = _COMMIT.search(link["url"]) if link else None
        if _is_missing(shown):
            self._warn(
                "IMP003",
                f"no revision is named ({shown or 'empty'})",
                line,
                "write the full commit",
                find=shown,
            )
            return {"version": shown or None}
        if in_link and shown != in_link[0]:
            if in_link[0].startswith(shown):
                self._report(
                    "IMP004",
                    Severity.NOTE,
                    f"{shown} is abbreviated; taken from its link: {in_link[0]}",
                    line,
                    find=shown,
                )
            else:
                self._warn(
                    "IMP004", f"'{_shorten(shown)}' links to another commit, {in_link[0]}", line, find=shown
                )
            return {"version": in_link[0]}
        return {"version": shown}

    def _figure(
        self, key: str, text: str, line: int, notes: dict[str, str], pattern: re.Pattern[str]
    ) -> dict[str, Any]:
        text = _bare(text)
        if _is_missing(text):
            if not (key == "perGPUMemory" and text == "N/A"):
                self._warn("IMP011", f"{key} is missing ({text or 'empty'})", line, find=text)
            return {key: text} if text in MISSING_WORDS else {}
        match = pattern.match(text)
        if match is None:
            hint = quantity.problem(text) if pattern is _SIZE_CELL else "write a whole number"
            self._report(
                "IMP016", Severity.ERROR, f"{key}: '{_shorten(text)}' cannot be read", line, hint, find=text
            )
            notes[key] = text
            return {}
        groups = match.groupdict()
        value: Any = groups["size"] if pattern is _SIZE_CELL else int(groups["count"])
        said = []
        if groups["about"]:
            said.append("~")
        if groups["plus"]:
            said.append(f"{value}+")
        if groups.get("word"):
            said.append(groups["word"].strip())
        if groups["note"]:
            said.append(groups["note"])
        if said:
            notes[key] = "; ".join(said)
        return {key: value}

    def _compare_gpus(
        self, found: Mapping[str, Any], cells: Mapping[str, tuple[str, int]], table: _Block
    ) -> None:
        count, total, each = found.get("gpuCount"), found.get("totalGPUMemory"), found.get("perGPUMemory")
        if (
            not isinstance(total, str)
            or not isinstance(each, str)
            or MISSING_WORDS.count(total)
            or MISSING_WORDS.count(each)
        ):
            return
        all_bytes, each_bytes = quantity.parse(total).bytes, quantity.parse(each).bytes
        line = cells.get("totalGPUMemory", ("", table.line))[1]
        if each_bytes > all_bytes:
            self._warn("IMP010", f"{each} for each GPU is more than {total} for all", line)
        elif isinstance(count, int) and count * each_bytes != all_bytes:
            self._warn("IMP010", f"{count} × {each} is not {total}", line)

    # --- runtimes ---------------------------------------------------------------------------------

    def _runtimes(
        self, sections: Mapping[str, list[_Block]], sample: _Sample, column: str, requirements: dict[str, Any]
    ) -> list[dict[str, Any]]:
        blocks = sections.get("runtimes", [])
        table = next((b for b in blocks if b.kind == "table"), None)
        if table is None:
            self._warn("IMP011", "there is no runtimes table", blocks[0].line if blocks else 1)
            return []
        denied = [
            b
            for b in blocks
            if b.kind in ("paragraph", "item") and re.search(r"\bnot supported\b", b.text, re.IGNORECASE)
        ]
        for block in blocks:
            if (
                block.kind in ("paragraph", "item")
                and block not in denied
                and not _BOILERPLATE.match(block.text)
            ):
                self._report(
                    "IMP017", Severity.NOTE, f"a text is left out: '{_shorten(block.text)}'", block.line
                )
        result: list[dict[str, Any]] = []
        width = max((len(row.cells) for row in table.rows), default=0)
        for number in range(width):
            result.extend(self._runtime_column(table, number, denied, column, requirements))
        for runtime in result:
            options = sample.options.get(runtime["name"])
            if options:
                runtime["config"] = options
            if runtime["name"] == "vllm":
                runtime.setdefault("trustRemoteCode", False)
            if runtime.get("trustRemoteCode", ...) is None:
                del runtime["trustRemoteCode"]
        for name in sample.options.keys() - {runtime["name"] for runtime in result}:
            self._warn(
                "IMP014",
                f"the sample has options for {_shorten(name)}, which is no runtime here",
                sample.line,
            )
        keys = ("name", "distributedInference", "customConfigurations", "config", "trustRemoteCode")
        return [{key: runtime[key] for key in keys if key in runtime} for runtime in result]

    def _runtime_column(
        self, table: _Block, number: int, denied: Sequence[_Block], column: str, requirements: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        names: list[str] = []
        common: dict[str, Any] = {}
        for row in table.rows[1:]:
            text = row.cells[number] if number < len(row.cells) else ""
            match _key(row.label):
                case "runtime":
                    names = self._runtime_names(text, row.line, denied, requirements)
                case "distributedinference":
                    found = _truth(text, column)
                    if found is None:
                        self._warn(
                            "IMP011",
                            f"distributedInference: '{_shorten(text)}' is neither True nor False",
                            row.line,
                        )
                    else:
                        common["distributedInference"] = found
                case "customconfigurations":
                    if text and not _is_missing(text):
                        common["customConfigurations"] = text
                case "trustremotecode":
                    common["trustRemoteCode"] = None if _is_missing(text) else _truth(text, column)
                case _:
                    if number == 0:
                        self._warn(
                            "IMP018", f"the row '{_shorten(row.label)}' is not part of the template", row.line
                        )
        for name in names:
            yield {"name": name, **common}

    def _runtime_names(
        self, text: str, line: int, denied: Sequence[_Block], requirements: dict[str, Any]
    ) -> list[str]:
        first, _, rest = text.partition(". ")
        names: list[str] = []
        for part in re.split(r"[,/&+]|\band\b", first):
            word = _bare(part).strip(" .").lower()
            if not word:
                continue
            name = (
                "vllm"
                if "vllm" in word
                else "onnx"
                if "onnx" in word
                else "transformers"
                if "transformer" in word
                else None
            )
            if name is None:
                self._warn(
                    "IMP014",
                    f"'{_shorten(part.strip())}' is no runtime that is known",
                    line,
                    find=part.strip(),
                )
            elif any(name in _key(block.text) for block in denied):
                block = next(b for b in denied if name in _key(b.text))
                self._warn(
                    "IMP014", f"{name} is named, and taken back below: '{_shorten(block.text)}'", block.line
                )
            elif name not in names:
                names.append(name)
        if rest.strip():
            requirements.setdefault("notes", {})["runtimes"] = rest.strip()
            self._warn(
                "IMP014", f"'{_shorten(rest.strip())}' is kept as a note, not as a runtime", line, find=rest
            )
        if not names:
            self._warn("IMP014", "no runtime is named", line)
        return names

    # --- samples ----------------------------------------------------------------------------------

    def _samples(self, sections: Mapping[str, list[_Block]]) -> _Sample:
        sample = _Sample()
        for blocks in sections.values():
            for block in blocks:
                if block.kind == "code":
                    self._sample(block, sample)
        if sample.secret and "modelAccessSecret" not in sample.deployment:
            sample.deployment["modelAccessSecret"] = sample.secret
        order = ("instanceType", "modelAccessSecret", "configMap")
        sample.deployment = {key: sample.deployment[key] for key in order if key in sample.deployment}
        return sample

    def _sample(self, block: _Block, sample: _Sample) -> None:
        for offset, text in _documents(block.text):
            document = source.parse(text, path=self.path)
            line = block.line + offset
            value = document.value
            if document.problems or not isinstance(value, dict):
                problem = document.problems[0] if document.problems else None
                where = line + (problem.place.line - 1 if problem else 0)
                message = problem.message if problem else "it holds no keys and values"
                self._warn("IMP019", f"the block cannot be read: {message}", where)
                continue

            def at(*route: str | int, document: source.Document = document, line: int = line) -> int:
                return line + document.place(route).line - 1

            match value.get("kind"):
                case "Workspace" | "InferenceSet":
                    self._workspace(value, at, sample)
                case "ConfigMap":
                    self._config_map(value, at, sample)
                case "Secret":
                    name = _in(value, "metadata", "name")
                    sample.secret = name if isinstance(name, str) else sample.secret
                case found if found == OVERLAY:
                    sample.overlay = value
                case found:
                    self._warn("IMP019", f"a block of the kind {_shorten(str(found))} is left out", line)

    def _workspace(self, value: Mapping[str, Any], at: Any, sample: _Sample) -> None:
        body = value
        if value.get("kind") == "Workspace" and isinstance(value.get("spec"), dict):
            self._warn(
                "IMP009", "a Workspace has no spec: resource and inference stand at its top", at("spec")
            )
            body = value["spec"]
        elif value.get("kind") == "InferenceSet":
            spec = value.get("spec")
            body = spec.get("template", spec) if isinstance(spec, dict) else {}
        instance_type = _in(body, "resource", "instanceType")
        if isinstance(instance_type, str) and instance_type:
            sample.deployment.setdefault("instanceType", instance_type)
        preset = _in(body, "inference", "preset")
        if not isinstance(preset, dict) or not isinstance(preset.get("name"), str):
            self._warn(
                "IMP009", "the Workspace has no inference.preset.name: nothing would be served", at("kind")
            )
        secret = _in(body, "inference", "preset", "presetOptions", "modelAccessSecret")
        if isinstance(secret, str) and secret:
            sample.deployment.setdefault("modelAccessSecret", secret)
        for route in (
            ("spec", "modelAccessSecret"),
            ("modelAccessSecret",),
            ("spec", "inference", "modelAccessSecret"),
        ):
            misplaced = _in(value, *route)
            if isinstance(misplaced, str) and misplaced:
                sample.deployment.setdefault("modelAccessSecret", misplaced)
                self._warn(
                    "IMP009",
                    f"modelAccessSecret stands at {'.'.join(route)}",
                    at(*route),
                    "it belongs to inference.preset.presetOptions",
                )
        config = _in(body, "inference", "config")
        if isinstance(config, str) and config:
            sample.deployment.setdefault("configMap", config)

    def _config_map(self, value: Mapping[str, Any], at: Any, sample: _Sample) -> None:
        name = _in(value, "metadata", "name")
        if isinstance(name, str) and name:
            sample.deployment.setdefault("configMap", name)
        text = _in(value, "data", "inference_config.yaml")
        line = at("data", "inference_config.yaml")
        if not isinstance(text, str):
            self._warn("IMP019", "the ConfigMap has no inference_config.yaml", at("data"))
            return
        inner = source.parse(text, path=self.path)
        if inner.problems or not isinstance(inner.value, dict):
            message = inner.problems[0].message if inner.problems else "no keys and values"
            self._warn("IMP019", f"inference_config.yaml cannot be read: {message}", line + 1)
            return
        sample.line = line
        for runtime, options in inner.value.items():
            if isinstance(options, dict) and runtime in ("vllm", "transformers", "onnx"):
                sample.options.setdefault(runtime, options)
            else:
                self._warn("IMP019", f"{_shorten(runtime)} of inference_config.yaml is left out", line + 1)

    # --- history ----------------------------------------------------------------------------------

    def _history(self, blocks: Sequence[_Block], created: Any) -> list[dict[str, Any]]:
        result = []
        for block in blocks:
            match = _HISTORY.match(block.text) if block.kind == "item" else None
            if match is None:
                if block.text:
                    self._report("IMP017", Severity.NOTE, f"left out: '{_shorten(block.text)}'", block.line)
                continue
            dated = _DATED.match(match["rest"])
            event: dict[str, Any] = {"event": match["rest"].strip(), "done": match["done"] != " "}
            if dated:
                day = self._history_date(dated["date"], created, block.line)
                if day or dated["date"] == "TBD":
                    event["event"] = dated["event"].strip()
                if day:
                    event["date"] = day
            else:
                self._warn("IMP012", f"'{_shorten(match['rest'])}' has no date", block.line)
            event["event"] = event["event"].removesuffix(".") or "(nothing)"
            order: tuple[str, ...] = ("event", "date", "done")
            result.append({key: event[key] for key in order if key in event})
        return result

    def _history_date(self, text: str, created: Any, line: int) -> str | None:
        if text == "TBD":
            return None
        numbers = re.split(r"[-/]", text)
        if not all(number.isdigit() for number in numbers):
            self._warn("IMP012", f"{text} is no date", line, "write year-month-day", find=text)
            return None
        if len(numbers[0]) == 4:
            candidates = [(numbers[0], numbers[1], numbers[2])]
        else:  # the template's order is MM/DD/YYYY
            candidates = [(numbers[2], numbers[0], numbers[1]), (numbers[2], numbers[1], numbers[0])]
        found = [d for y, m, d_ in candidates if (d := _date(f"{y:0>4}-{m:0>2}-{d_:0>2}"))]
        if not found:
            self._warn("IMP012", f"{text} is not in the calendar", line, "write year-month-day", find=text)
            return None
        day = found[0].isoformat()
        template = _date("-".join(f"{part:0>2}" for part in candidates[0]))
        if template is None:
            self._warn("IMP012", f"{text} is read as day/month; the template has month/day", line, find=text)
        elif len(found) == 2 and found[0] != found[1] and found[1].isoformat() == created:
            self._warn(
                "IMP012",
                f"{text} is read as {day}, the template's month/day; as day/month it would be the creation date",
                line,
                "write year-month-day",
                find=text,
            )
        return day


_SECTIONS = (
    "",
    "title",
    "glossary",
    "summary",
    "requirements",
    "runtimes",
    "history",
    "sample manifests",
    "for kaito-catalog",
)


def _after(tokens: Sequence[Token], index: int) -> int:
    """The index after the token that closes the one at `index`."""
    depth = 0
    for position in range(index, len(tokens)):
        depth += tokens[position].nesting
        if depth == 0:
            return position + 1
    return len(tokens)


def _items(tokens: Sequence[Token]) -> Iterator[_Block]:
    """Every paragraph of a list as an item, nested ones as items of their own."""
    for token in tokens:
        if token.type == "inline" and token.map:
            yield _Block("item", _flat(token.content), token.map[0] + 1)
        elif token.type in ("fence", "code_block") and token.map:
            yield _Block("code", token.content, token.map[0] + 1 + (token.type == "fence"))


def _rows(tokens: Sequence[Token]) -> Iterator[_Row]:
    cells: list[str] = []
    line = 1
    for token in tokens:
        if token.type == "tr_open":
            cells, line = [], (token.map[0] if token.map else 0) + 1
        elif token.type == "inline":
            cells.append(token.content.strip())
        elif token.type == "tr_close" and cells:
            yield _Row(cells[0], tuple(cells[1:]), line)


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """The YAML documents of a block, each with the number of lines before it."""
    start = 0
    lines = text.split("\n")
    for number in range(len(lines) + 1):
        if number == len(lines) or lines[number].rstrip() == "---":
            part = "\n".join(lines[start:number])
            if part.strip():
                yield start, part
            start = number + 1


def _overlaid(value: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The value with what the overlay block says instead; null removes a key."""
    result = dict(value)
    for key, change in overlay.items():
        if key in ("apiVersion", "kind"):
            continue
        if change is None:
            result.pop(key, None)
        elif key in ("metadata", "summary", "requirements", "deployment") and isinstance(change, dict):
            merged = dict(result.get(key) or {}) | change
            result[key] = {name: part for name, part in merged.items() if part is not None}
        else:
            result[key] = change
    name = _in(result, "metadata", "name")
    if not isinstance(name, str) or not NAME.match(name):
        result["metadata"] = {**value["metadata"]}
    return result


def _usage(text: str) -> dict[str, Any]:
    text = text.strip()
    only_link = re.fullmatch(r"\[[^\]\n]{0,100}\]\((https?://[^\s()<>\"]{1,2000})\)\.?", text)
    if only_link:
        return {"source": only_link[1]}
    if not text or _is_missing(text):
        return {}
    match = _USAGE_TAIL.fullmatch(text)
    assert match is not None  # every part is optional
    result: dict[str, Any] = {}
    statistics = match["text"].strip()
    if statistics and not _is_missing(statistics):
        result["statistics"] = statistics
    day = match["date"]
    if day is None:
        spoken = _AS_OF.search(text)
        month = spoken and next(
            (i for i, m in enumerate(_MONTHS, 1) if spoken["month"].lower().startswith(m)), None
        )
        if spoken and month and _date(f"{spoken['year']}-{month:02}-{int(spoken['day']):02}"):
            day = f"{spoken['year']}-{month:02}-{int(spoken['day']):02}"
    if day:
        result["asOf"] = day
    link = match["url"] or next(
        (m["url"] for m in _LINK.finditer(text) if "huggingface.co/" in m["url"]), None
    )
    if link and re.fullmatch(r"https?://[^\s<>\"]{1,2000}", link):
        result["source"] = link
    return result


def _license(text: str) -> dict[str, Any]:
    text = text.strip()
    if not text or _is_missing(text):
        return {}
    line = _LICENSE_LINE.fullmatch(text)
    if line:
        return {key: line[key] for key in ("id", "url", "note") if line[key]}
    result: dict[str, Any] = {}
    found = next((name for pattern, name in _LICENSES if pattern.search(text)), None)
    if found:
        result["id"] = found
    link = _LINK.search(text)
    if link and re.fullmatch(r"https?://[^\s<>\"]{1,2000}", link["url"]):
        result["url"] = link["url"]
    first, _, rest = text.partition(". ")
    plain = re.sub(r"\[([^\]\n]{0,300})\]\([^()\s]{1,500}\)", r"\1", first)
    named = next((p for p, _ in _LICENSES if p.search(plain)), None)
    left = named.sub("", plain) if named else plain
    bare = re.fullmatch(
        r"(?:.{0,120}?\b(?:licensed|distributed|released) under(?: the)?)?(?: ?of use)? ?(?:licen[cs]e)?\.?",
        left.strip(),
        re.IGNORECASE,
    )
    if found and bare:
        if rest.strip():
            result["note"] = rest.strip()
    else:
        result["note"] = text
    return result


def _in(value: Any, *route: str) -> Any:
    for key in route:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _truth(text: str, column: str) -> bool | None:
    match = re.fullmatch(r"(true|false)(?:\s*\((true|false) for (.{1,100})\))?", _bare(text).lower())
    if match is None:
        return None
    if match[3] and match[3].strip() in column.lower():
        return match[2] == "true"
    return match[1] == "true"


def _address(text: str) -> str:
    """The address in a cell: of a link, in angle brackets, or bare; else the words themselves."""
    link = _LINK.search(text)
    bare = _bare(link["url"] if link else text)
    return bare.removeprefix("<").removesuffix(">")


def _bare(text: str) -> str:
    """A cell without the code marks around it."""
    text = text.strip()
    inner = re.fullmatch(r"`([^`]*)`", text)
    return inner[1].strip() if inner else text


def _is_missing(text: str) -> bool:
    return text.strip().rstrip(".").upper() in ("", "TBD", "N/A", "NA", "-")


def _key(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _flat(text: str) -> str:
    return " ".join(part.strip() for part in text.split("\n")).strip()


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _slug(text: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    slug = re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", text.lower()))[:90].strip("-._")
    return slug or "model"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"
