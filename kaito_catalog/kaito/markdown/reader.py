"""KAITO's Markdown proposals to data: what a proposal says is taken as it is, what it lacks is reported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from kaito_catalog import quantity
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, sort_key
from kaito_catalog.formats.proposal import RuntimeName
from kaito_catalog.kaito.markdown import blocks, fields
from kaito_catalog.kaito.markdown.blocks import Block, Remarks, Section, Span, shorten
from kaito_catalog.kaito.markdown.front import Front, read_front, read_metadata
from kaito_catalog.kaito.markdown.samples import Samples, read_samples, text_in
from kaito_catalog.system.files import NAME

API_VERSION = "catalog.kaito.sh/v1alpha1"
OVERLAY_SECTION = "For kaito-catalog"
SAMPLES_SECTION = "Sample manifests"

IMPORT_CODES: dict[str, str] = {
    "IMP001": "The front matter is missing or is no valid YAML. A proposal starts with title, authors, creation-"
    "date and status between two lines of ---; quote names that start with @ and texts that hold a colon.",
    "IMP002": "There is no requirements table that can be read, so nothing is claimed and no proposal is written. "
    "Add the table of KAITO's template, with the columns Field and Notes.",
    "IMP003": "No revision is named. Write the full commit of the repository in the row Version.",
    "IMP004": "The revision is abbreviated, or is not the one its link leads to. The full commit of the link is "
    "taken where there is one; write all 40 digits.",
    "IMP005": "Several models stand in one file. Each gets its own folder; split the file, the template asks for "
    "one proposal per model.",
    "IMP006": "The status is not one that proposals can have. Write provisional, implemented, deferred, rejected or"
    " withdrawn.",
    "IMP007": "The title in the front matter names another model: it was probably copied from another proposal. "
    "Name the model of this one.",
    "IMP008": "A text or a link names another model than the download site. Correct whichever of them is wrong.",
    "IMP009": "KAITO would refuse the sample manifest, or start nothing with it, or its parts name different "
    "objects. A Workspace has resource and inference at its top, inference.preset.name, and the secret in"
    " inference.preset.presetOptions.modelAccessSecret.",
    "IMP010": "The GPU figures contradict each other: the total is not the count times the memory of each GPU. "
    "Correct the one that is wrong.",
    "IMP011": "A claim that the template asks for is missing. It is left out, and `check` keeps pointing at it; "
    "fill it in.",
    "IMP012": "A date cannot be read, is not in the calendar, or can be read in two ways. Write year-month-day.",
    "IMP013": "The date in the file's name is not the creation date. Rename the file or correct creation-date.",
    "IMP014": "The runtime is not one of vLLM, Hugging Face Transformers or ONNX, or the text takes it back or puts"
    " it off. Name only runtimes that serve the model today.",
    "IMP015": "The download site is not the address of a repository on the Hub. Write "
    "https://huggingface.co/ORG/MODEL.",
    "IMP016": "A figure cannot be read. Its words are kept in requirements.notes; write a number, and a unit for "
    "sizes.",
    "IMP017": "A text has no place in a proposal and is left out. Move what matters into the description.",
    "IMP018": "A section, a table, a row, a cell or a key is not part of the template and is left out. Use the "
    "names of KAITO's template.",
    "IMP019": "A code block is no YAML that can be read, or is of a kind that proposals do not hold, and is left "
    "out. Keep one Workspace, one ConfigMap and one Secret per model.",
    "IMP020": "The licence is not named by a name that is known; its words are kept as a note. Write its SPDX id or"
    " the Hub's own id.",
    "IMP021": "Distributed inference is neither True nor False, or depends on the model. Write one of them.",
    "IMP022": "There is more in the file than is read: one file holds at most 32 models and 300 remarks. Split it.",
}
"""Every code of the family IMP: what it means, and how to fix it."""

MAX_BYTES = 2**20
MAX_MODELS = 32
MAX_REMARKS = 300

_RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
_SIZES = ("storageSize", "totalGPUMemory", "perGPUMemory")
_COUNTS = ("gpuCount", "contextLength")
_CLAIMS = {
    "familyName": "Family name",
    "type": "Type",
    "downloadSite": "Download site",
    "version": "Version",
    "storageSize": "Storage size",
    "gpuCount": "GPU count",
    "totalGPUMemory": "Total GPU memory",
    "perGPUMemory": "Per GPU memory",
    "contextLength": "Context length",
}
_ROWS = {fields.label(text): key for key, text in _CLAIMS.items()}
_RUNTIME_ROWS = ("runtime", "distributedinference", "customconfigurations", "trustremotecode")
_SECTIONS = ("title", "glossary", "summary", "requirements", "runtimes", "history")
# Sentences of the template itself, and lead-ins to the samples.
_BOILERPLATE = re.compile(
    r"(?:(?:the following table describes|this section describes how) [^.]{0,300}\.?\Z"
    r"|sam[a-z]{1,4} (?:yaml|manifests?)\W*\Z"
    r"|n/?a\.?\Z)",
    re.IGNORECASE,
)
_DATED = re.compile(
    r"(?P<date>[0-9A-Za-z]{1,4}[-/.][0-9A-Za-z]{1,2}[-/.][0-9A-Za-z]{1,4})(?P<stop> ?: ?| [-–—] | )"
)
_LEFT_OUT = "move what matters into the description"
_IMAGE = re.compile(r"!\[(?P<alt>[^\[\]\n]{0,300})\]\((?P<src>[^()\s]{1,2000})\)")
# The keys of a proposal in the order of the design.
_ORDER: dict[str, tuple[str, ...]] = {
    "": (
        "apiVersion",
        "kind",
        "metadata",
        "glossary",
        "summary",
        "requirements",
        "runtimes",
        "deployment",
        "history",
        "waivers",
    ),
    "metadata": ("name", "title", "heading", "authors", "reviewers", "creationDate", "lastUpdated", "status"),
    "summary": ("description", "usage", "license"),
    "requirements": (*_CLAIMS, "notes", "figures"),
    "deployment": ("instanceType", "modelAccessSecret", "configMap"),
}


@dataclass(frozen=True)
class ImportedProposal:
    """One model of a file: the folder's name, and the value of its proposal.yaml."""

    name: str
    value: dict[str, Any]


@dataclass(frozen=True)
class ImportResult:
    """What a Markdown file holds, and what was noticed, each at its place in that file."""

    proposals: tuple[ImportedProposal, ...]
    diagnostics: tuple[Diagnostic, ...]


def read_proposals(text: str, *, path: str) -> ImportResult:
    """Read a Markdown proposal in KAITO's template; never raises for what is in it.

    Args:
        text: the Markdown.
        path: its name in diagnostics; the date in it is compared with the creation date.
    """
    if len(text) > MAX_BYTES:
        message, hint = "the file is larger than 1 MiB", "a proposal is a few kilobytes"
        return ImportResult((), (Diagnostic("IMP002", Severity.ERROR, message, Place(path), hint),))
    reader = _Reader(text, path)
    proposals = tuple(reader.read())
    found = sorted(dict.fromkeys(reader.remarks.diagnostics), key=sort_key)
    if len(found) > MAX_REMARKS:
        message = f"{len(found) - MAX_REMARKS} more remarks are not shown"
        last = Diagnostic(
            "IMP022", Severity.WARNING, message, found[MAX_REMARKS].place, "correct the first ones"
        )
        found = [*found[:MAX_REMARKS], last]
    return ImportResult(proposals, tuple(found))


@dataclass(frozen=True)
class _Model:
    """A column of the requirements table: its title, its cells by claim, the repository it is about."""

    title: str
    cells: Mapping[str, Span]
    repo_id: str | None
    name: str


@dataclass(frozen=True)
class _RuntimeTable:
    """A column of the runtimes table: its title and its cells by label."""

    title: str
    cells: Mapping[str, Span]


class _Reader:
    """Reads one file; `diagnostics` grows as it goes."""

    def __init__(self, text: str, path: str) -> None:
        self.remarks = Remarks(path)
        self.markdown = blocks.parse(text)
        self.sections: dict[str, Section] = {}
        for section in self.markdown.sections:
            if section.name in _SECTIONS and section.name not in self.sections:
                self.sections[section.name] = section

    def _blocks(self, name: str) -> tuple[Block, ...]:
        return self.sections[name].blocks if name in self.sections else ()

    def _start(self, name: str) -> Span:
        return self.sections[name].start if name in self.sections else Span("", 1)

    # --- the file ----------------------------------------------------------------------------------------------

    def read(self) -> Iterator[ImportedProposal]:
        front = read_front(self.markdown, self.remarks)
        self._unknown_sections()
        tables = self._tables()
        samples = read_samples(self.markdown, self.remarks)
        if tables[0] is None:
            self.remarks.say(
                "IMP002",
                "there is no requirements table",
                self._start("requirements"),
                "add the table of KAITO's template: | Field | Notes |",
                Severity.ERROR,
            )
            return
        heading = self._heading()
        models = self._models(tables[0], heading)
        metadata = read_metadata(front, heading.text, self.remarks)
        glossary = self._glossary()
        summary = self._summary()
        history = self._history(metadata)
        figures = self._figures()
        columns = self._runtime_columns(tables[1])
        denied = self._denied_below()
        self._title(front, metadata, models)
        if samples.overlay and len(models) > 1:
            self.remarks.say(
                "IMP019", "a block for one model is left out", samples.overlay_place, "split the file"
            )
        taken: set[str] = set()
        for number, model in enumerate(models, 1):
            self._names(model, heading, len(models) > 1)
            requirements = self._requirements(model, tables[0].span)
            runtimes = self._runtimes(columns, model, models, samples, requirements, denied)
            self._context(requirements, samples, model)
            if figures:
                requirements["figures"] = figures
            value: dict[str, Any] = {
                "apiVersion": API_VERSION,
                "kind": "ModelProposal",
                "metadata": {"name": model.name, **metadata},
                "glossary": dict(glossary),
                "summary": dict(summary),
                "requirements": requirements,
                "runtimes": runtimes,
                "deployment": self._deployment(samples, model, models),
                "history": [dict(event) for event in history],
                "waivers": {},
            }
            if not value["deployment"]:
                del value["deployment"]
            if samples.overlay and len(models) == 1:
                value = _overlaid(value, samples.overlay)
                if text_in(samples.overlay, "metadata", "name") not in (None, value["metadata"]["name"]):
                    self.remarks.say(
                        "IMP019",
                        "the name in this block cannot be a folder's",
                        samples.overlay_place,
                        "use the repository's name in lower case",
                    )
            name = value["metadata"]["name"]
            if name in taken:
                name = f"{name[:80]}-{number}"
                value["metadata"]["name"] = name
            taken.add(name)
            yield ImportedProposal(name, _ordered(value))

    def _unknown_sections(self) -> None:
        for section in self.markdown.sections:
            name = section.name
            if name in (OVERLAY_SECTION.lower(), SAMPLES_SECTION.lower()):
                continue
            if section is self.sections.get(name):
                for block in section.blocks:
                    if block.kind == "other" and not block.text.startswith("<!--"):
                        self._left_out(block)
            elif section.title.text:
                twice = name in _SECTIONS
                says = "stands here a second time" if twice else "is not part of the template"
                self.remarks.say(
                    "IMP018",
                    f"the section '{shorten(name)}' {says}",
                    section.title,
                    f"sections: {', '.join(_SECTIONS)}",
                )
            else:
                for block in section.blocks:
                    if block.kind in ("paragraph", "item", "other") and not block.text.startswith("<!--"):
                        self._left_out(block)

    def _left_out(self, block: Block) -> None:
        self.remarks.say("IMP017", f"left out: '{shorten(block.text)}'", block.span, _LEFT_OUT, Severity.NOTE)

    def _tables(self) -> tuple[Block | None, Block | None]:
        """The requirements table and the runtimes table; every other table is reported."""
        wanted: dict[str, Block] = {}
        tables = [
            (section, block)
            for section in self.markdown.sections
            for block in section.blocks
            if block.kind == "table"
        ]
        for name, rows in (("requirements", _ROWS), ("runtimes", dict.fromkeys(_RUNTIME_ROWS))):
            known = [
                (section.name == name, block)
                for section, block in tables
                if any(row and fields.label(row[0].text) in rows for row in block.rows[1:])
                and not (section.name != name and section.name in _SECTIONS[3:5])
            ]
            best = next((block for here, block in known if here), known[0][1] if known else None)
            if best:
                wanted[name] = best
        for section, block in tables:
            if all(block is not table for table in wanted.values()) and section.name != "glossary":
                header = " | ".join(cell.text for cell in block.rows[0][:6]) if block.rows else ""
                self.remarks.say(
                    "IMP018",
                    f"the table '{shorten(header)}' is left out",
                    block.span,
                    "the tables of the template are those of Requirements and Runtimes",
                )
        return wanted.get("requirements"), wanted.get("runtimes")

    def _heading(self) -> Span:
        for block in self._blocks("title"):
            if block.kind in ("paragraph", "item"):
                for other in self._blocks("title"):
                    if other is not block and other.kind in ("paragraph", "item"):
                        self._left_out(other)
                return block.span
        first = next(
            (s.title for s in self.markdown.sections if s.title.text and s.name not in _SECTIONS), None
        )
        if first and "title" not in self.sections:
            return first
        self.remarks.say(
            "IMP011",
            "there is no heading below '# Title'",
            self._start("title"),
            "write: Add [org/model](https://huggingface.co/org/model) to KAITO supported model list",
            Severity.ERROR,
        )
        return Span("", self._start("title").line)

    # --- which model -------------------------------------------------------------------------------------------

    def _models(self, table: Block, heading: Span) -> list[_Model]:
        header, *rows = table.rows
        titles = [cell.text for cell in header[1:]] or [""]
        if len(titles) > MAX_MODELS:
            self.remarks.say(
                "IMP022",
                f"the table has {len(titles)} columns; the first {MAX_MODELS} are read",
                table.span,
                "write one proposal per model",
                Severity.ERROR,
            )
            titles = titles[:MAX_MODELS]
        columns: list[dict[str, Span]] = [{} for _ in titles]
        for row in rows:
            self._requirements_row(row, columns, len(header))
        if len(titles) > 1:
            self.remarks.say(
                "IMP005",
                f"the table describes {len(titles)} models: {shorten(', '.join(titles))}",
                table.span,
                "one proposal per model: each gets a folder of its own",
            )
        mentioned = fields.repositories(heading.text)
        mentioned += [
            repo for b in self._blocks("summary") if b.kind != "code" for repo in fields.repositories(b.text)
        ]
        return [
            self._model(
                title if len(titles) > 1 else "", cells, heading, list(dict.fromkeys(mentioned)), table
            )
            for title, cells in zip(titles, columns, strict=True)
        ]

    def _requirements_row(
        self, row: tuple[Span, ...], columns: Sequence[dict[str, Span]], width: int
    ) -> None:
        key = _ROWS.get(fields.label(row[0].text))
        if key is None:
            if any(cell.text for cell in row):
                self.remarks.say(
                    "IMP018",
                    f"the row '{shorten(row[0].text)}' is not part of the template",
                    row[0],
                    f"rows: {', '.join(_CLAIMS.values())}",
                )
            return
        self._surplus(row, width)
        if key in columns[0]:
            self.remarks.say(
                "IMP018", f"the row '{shorten(row[0].text)}' stands here a second time", row[0], "keep one"
            )
            return
        for cells, cell in zip(columns, row[1:], strict=False):
            cells[key] = cell
        for cells in columns[len(row) - 1 :]:
            cells[key] = Span("", row[0].line, row[0].column)

    def _surplus(self, row: tuple[Span, ...], width: int) -> None:
        if len(row) > max(width, 2):
            self.remarks.say(
                "IMP018",
                f"the row '{shorten(row[0].text)}' has more cells than the table has columns",
                row[max(width, 2)],
                "write \\| for a bar inside a cell",
            )

    def _model(
        self, title: str, cells: Mapping[str, Span], heading: Span, mentioned: list[str], table: Block
    ) -> _Model:
        site = cells.get("downloadSite", Span("", table.span.line))
        found = fields.repo_id(fields.address(site.text))
        named = found
        if named is None:
            near = [
                repo for repo in mentioned if not title or fields.starts_with(repo.partition("/")[2], title)
            ]
            named = near[0] if len(near) == 1 else None
        if site.text and found is None and fields.missing_word(site.text) is None:
            self.remarks.say(
                "IMP015",
                f"'{shorten(site.text)}' is no repository on the Hub",
                site,
                f"write https://huggingface.co/{named or 'ORG/MODEL'}",
            )
        words = re.sub(
            r"^(?:add|support|official|for| )+\b|\bto (?:the )?kaito.*", "", heading.text, flags=re.I
        )
        name = (named or "").partition("/")[2].lower() or fields.slug(title or words)
        if not NAME.match(name) or ".." in name:
            name = fields.slug(name)
        return _Model(title, cells, found or (named if title else None), name)

    def _title(self, front: Front, metadata: Mapping[str, Any], models: Sequence[_Model]) -> None:
        texts = [str(metadata.get("heading", ""))]
        for model in models:
            family = model.cells.get("familyName")
            texts += [model.repo_id or "", model.name, model.title, family.text if family else ""]
        title = str(metadata.get("title", ""))
        other = fields.other_name(title, " ".join(texts))
        if other:
            self.remarks.say(
                "IMP007",
                f"the title names {other}, the proposal is about {models[0].name}",
                self.markdown.find(title, Span("", front.place("title").line)),
                "name the model of this proposal",
            )

    def _names(self, model: _Model, heading: Span, one_of_several: bool) -> None:
        if model.repo_id is None:
            return
        repo_id, own = model.repo_id, model.repo_id.partition("/")[2]
        hint = f"the download site is {repo_id}"
        family = model.cells.get("familyName", Span("", heading.line))
        for text in (family,) if one_of_several else (heading, family):
            other = fields.other_name(fields.plain(text.text), repo_id) or fields.other_size(text.text, own)
            if other:
                self.remarks.say("IMP008", f"'{shorten(text.text)}' names {other}, not {own}", text, hint)
        linked = [] if one_of_several else fields.repositories(heading.text)
        if linked and repo_id.lower() not in (link.lower() for link in linked):
            self.remarks.say("IMP008", f"the heading links to {linked[0]}, not to {repo_id}", heading, hint)
        version = model.cells.get("version")
        for other in fields.repositories(version.text if version else ""):
            if version and other.lower() != repo_id.lower():
                self.remarks.say(
                    "IMP008", f"the revision's link leads to {other}, not to {repo_id}", version, hint
                )
        sibling = re.compile(
            r"(?<![\w.-])" + re.sub(r"[0-9]+", "[0-9]{1,4}", re.escape(own)) + r"(?![\w-])", re.I
        )
        for block in self._blocks("summary"):
            bullet = fields.bullet(block.text) if block.kind == "item" and not one_of_several else None
            if bullet and bullet[0] != "description":
                siblings = {m[0] for m in sibling.finditer(bullet[1]) if m[0].lower() != own.lower()}
                for other in sorted(siblings):
                    self.remarks.say(
                        "IMP008",
                        f"this is about {other}, not {own}",
                        self.markdown.find(other, block.span),
                        hint,
                    )

    # --- glossary and summary ----------------------------------------------------------------------------------

    def _glossary(self) -> dict[str, str]:
        result: dict[str, str] = {}
        for block in self._blocks("glossary"):
            if block.kind == "table":
                found = [(row[0], row[0].text, row[1].text) for row in block.rows[1:] if len(row) > 1]
            else:
                parts = fields.labelled(block.text) if block.kind in ("item", "paragraph") else None
                found = [(block.span, *parts)] if parts else []
                if not found and block.kind != "other" and not _BOILERPLATE.match(block.text):
                    self._left_out(block)
            for at, term, text in found:
                if term in result:
                    self.remarks.say(
                        "IMP018", f"the term '{shorten(term)}' stands here a second time", at, "keep one"
                    )
                elif term and text:
                    result[term] = text
        return result

    def _summary(self) -> dict[str, Any]:
        start = self._start("summary")
        found: dict[str, Span] = {}
        rest: list[Block] = []
        for block in self._blocks("summary"):
            if block.kind not in ("item", "paragraph") or _BOILERPLATE.match(block.text):
                continue
            bullet = fields.bullet(block.text)
            if bullet is None:
                rest.append(block)
            elif bullet[0] in found:
                self.remarks.say(
                    "IMP018", f"the {bullet[0]} stands here a second time", block.span, "keep one"
                )
            else:
                found[bullet[0]] = Span(bullet[1], block.span.line, block.span.column)
        summary: dict[str, Any] = {}
        description = found.get("description", Span("", start.line)).text
        if description and fields.missing_word(description) is None:
            summary["description"] = description
        elif rest:
            lines = [f"- {block.text}" if block.kind == "item" else block.text for block in rest]
            summary["description"] = "\n".join(lines)
            rest = []
        else:
            self.remarks.say(
                "IMP011",
                "the model is not described",
                found.get("description", start),
                "- **Model description**: what it does, and where its documentation is",
            )
        for block in rest:
            self._left_out(block)
        usage = found.get("usage", Span("", start.line, start.column))
        read = fields.read_usage(usage.text)
        if read:
            summary["usage"] = read
        if not re.search(r"[0-9]", fields.plain(str(read.get("statistics", "")))):
            self.remarks.say(
                "IMP011", "there is no usage figure", usage, "give the downloads, the day and the source"
            )
        license_ = found.get("license", Span("", start.line, start.column))
        claimed = fields.read_license(license_.text)
        if claimed:
            summary["license"] = claimed
        if not claimed:
            self.remarks.say(
                "IMP011", "no licence is named", license_, "name it by its SPDX id, such as Apache-2.0"
            )
        elif "id" not in claimed:
            self.remarks.say(
                "IMP020",
                f"'{shorten(license_.text)}' names no licence that is known",
                license_,
                "name it by its SPDX id or the Hub's id, such as apache-2.0 or llama3.3",
            )
        return summary

    # --- requirements ------------------------------------------------------------------------------------------

    def _figures(self) -> list[dict[str, str]]:
        result = []
        for block in self._blocks("requirements"):
            if block.kind not in ("paragraph", "item"):
                continue
            result += [{"alt": image["alt"], "src": image["src"]} for image in _IMAGE.finditer(block.text)]
            words = _IMAGE.sub("", block.text).strip()
            if words and not _BOILERPLATE.match(words):
                self.remarks.say(
                    "IMP017", f"left out: '{shorten(words)}'", block.span, _LEFT_OUT, Severity.NOTE
                )
        return result

    def _requirements(self, model: _Model, table: Span) -> dict[str, Any]:
        result: dict[str, Any] = {}
        notes: dict[str, str] = {}
        for key, title in _CLAIMS.items():
            cell = model.cells.get(key)
            if cell is None:
                if key == "version":
                    self.remarks.say(
                        "IMP003",
                        "no revision is named: there is no row 'Version'",
                        table,
                        "add it with the full commit",
                    )
                elif key != "contextLength":
                    self._missing(key, f"there is no row '{title}'", table)
            elif key == "version":
                self._version(cell, result, notes)
            elif key in _SIZES or key in _COUNTS:
                self._claim(key, cell, result, notes)
            else:
                text = fields.bare(cell.text)
                text = fields.address(text) if key == "downloadSite" else text
                if text:
                    result[key] = text
                if fields.missing_word(text) is not None:
                    self._missing(key, f"{title}: nothing is said", cell)
        self._compare_gpus(result, model)
        if notes:
            result["notes"] = notes
        return result

    def _missing(self, key: str, message: str, at: Span) -> None:
        required = key in ("familyName", "type", "downloadSite")
        self.remarks.say(
            "IMP011",
            message,
            at,
            f"fill in the row '{_CLAIMS[key]}'",
            Severity.ERROR if required else Severity.WARNING,
        )

    def _version(self, cell: Span, result: dict[str, Any], notes: dict[str, str]) -> None:
        version = fields.read_version(cell.text)
        if version.value is not None:
            result["version"] = version.value
        if version.note:
            notes["version"] = version.note
        if version.value is None or version.value == "TBD" or version.value == "N/A":
            self.remarks.say(
                "IMP003", f"no revision is named ({version.value or 'empty'})", cell, "write the full commit"
            )
        elif version.other:
            self.remarks.say(
                "IMP004",
                f"'{shorten(version.abbreviated or '')}' links to another commit, {version.value}",
                cell,
                "correct the text or its link",
            )
        elif version.abbreviated == version.value:
            self.remarks.say(
                "IMP004", f"the commit '{version.value}' is abbreviated", cell, "write all 40 digits"
            )
        elif version.abbreviated:
            at = self.markdown.find(version.abbreviated, cell)
            self.remarks.say(
                "IMP004",
                f"{version.abbreviated} is abbreviated; its link says {version.value}",
                at,
                "write all 40 digits",
                Severity.NOTE,
            )

    def _claim(self, key: str, cell: Span, result: dict[str, Any], notes: dict[str, str]) -> None:
        read = fields.read_size if key in _SIZES else fields.read_count
        figure = read(cell.text)
        if figure.problem:
            self.remarks.say(
                "IMP016",
                f"{_CLAIMS[key]}: '{shorten(cell.text)}' cannot be read",
                cell,
                figure.problem,
                Severity.ERROR,
            )
        elif fields.is_missing_figure(figure.value) and not (key == "perGPUMemory" and figure.value == "N/A"):
            self._missing(key, f"{_CLAIMS[key]}: no figure ({figure.value or 'empty'})", cell)
        if figure.value is not None:
            result[key] = figure.value
        if figure.note:
            notes[key] = figure.note

    def _compare_gpus(self, found: Mapping[str, Any], model: _Model) -> None:
        count, total, each = found.get("gpuCount"), found.get("totalGPUMemory"), found.get("perGPUMemory")
        if fields.is_missing_figure(total) or fields.is_missing_figure(each):
            return
        total_bytes, each_bytes = quantity.parse(str(total)).bytes, quantity.parse(str(each)).bytes
        if each_bytes > total_bytes:
            self.remarks.say(
                "IMP010",
                f"{each} for each GPU is more than the {total} of all",
                model.cells["perGPUMemory"],
                "correct one of them",
            )
        elif isinstance(count, int) and count * each_bytes != total_bytes:
            self.remarks.say(
                "IMP010",
                f"{count} × {each} is not {total}",
                model.cells["totalGPUMemory"],
                "correct one of the three",
            )

    def _context(self, requirements: dict[str, Any], samples: Samples, model: _Model) -> None:
        """The tokens the GPU claims are about: said in a row, in the sample's max-model-len, or in a note."""
        served = (samples.options.get("vllm") or {}).get("max-model-len")
        said = None
        for key in ("totalGPUMemory", "perGPUMemory", "gpuCount"):
            said = said or fields.context_in(requirements.get("notes", {}).get(key, ""))
        if "contextLength" in requirements or "contextLength" in model.cells:
            return
        if isinstance(served, int) and not isinstance(served, bool) and 1 <= served <= 10**9:
            requirements["contextLength"] = served
            if said and not 0.9 <= said / served <= 1.1:
                self.remarks.say(
                    "IMP010",
                    f"the figures are for {said:,} tokens, the sample serves {served:,}",
                    samples.options_place,
                    "correct one of them",
                )
        elif said:
            requirements["contextLength"] = said

    # --- runtimes ----------------------------------------------------------------------------------------------

    def _runtime_columns(self, table: Block | None) -> list[_RuntimeTable]:
        for block in self._blocks("runtimes"):
            if (
                block.kind in ("paragraph", "item")
                and not _BOILERPLATE.match(block.text)
                and not fields.denied_runtimes(block.text)
            ):
                self._left_out(block)
        if table is None:
            self.remarks.say(
                "IMP011",
                "there is no runtimes table",
                self._start("runtimes"),
                "add the table of KAITO's template: | Options | Notes |",
            )
            return []
        header, *rows = table.rows
        titles = [cell.text for cell in header[1 : MAX_MODELS + 1]] or [""]
        columns: list[dict[str, Span]] = [{} for _ in titles]
        for row in rows:
            name = fields.label(row[0].text)
            if name not in _RUNTIME_ROWS:
                self.remarks.say(
                    "IMP018",
                    f"the row '{shorten(row[0].text)}' is not part of the template",
                    row[0],
                    "rows: Runtime, Distributed Inference, Custom configurations",
                )
                continue
            self._surplus(row, len(header))
            if name in columns[0]:
                self.remarks.say(
                    "IMP018",
                    f"the row '{shorten(row[0].text)}' stands here a second time",
                    row[0],
                    "keep one",
                )
                continue
            for cells, cell in zip(columns, row[1:], strict=False):
                cells[name] = cell
        return [_RuntimeTable(title, cells) for title, cells in zip(titles, columns, strict=True)]

    def _denied_below(self) -> dict[RuntimeName, Span]:
        """The runtimes that a paragraph of the section takes back."""
        result: dict[RuntimeName, Span] = {}
        for block in self._blocks("runtimes"):
            if block.kind in ("paragraph", "item") and not _BOILERPLATE.match(block.text):
                for name in fields.denied_runtimes(block.text):
                    result.setdefault(name, block.span)
        return result

    def _runtimes(
        self,
        columns: Sequence[_RuntimeTable],
        model: _Model,
        models: Sequence[_Model],
        samples: Samples,
        requirements: dict[str, Any],
        denied: Mapping[RuntimeName, Span],
    ) -> list[dict[str, Any]]:
        titles = [other.title for other in models]
        if len(models) > 1 and any(column.title in titles for column in columns):
            columns = [column for column in columns if column.title == model.title]
        result: dict[str, dict[str, Any]] = {}
        said: list[str] = []
        for column in columns:
            names, rest = self._runtime_names(column, denied)
            said += [rest] if rest else []
            common = self._runtime_options(column, model, models, requirements)
            for name in names:
                result.setdefault(name, {"name": name, **common})
        for name, at in denied.items():
            self.remarks.say(
                "IMP014",
                f"{name} is taken back: '{shorten(at.text)}'",
                at,
                "name it once it serves the model",
            )
        said += [span.text for span in dict.fromkeys(denied.values())]
        if said:
            requirements.setdefault("notes", {})["runtimes"] = " ".join(dict.fromkeys(said))
        for served, options in samples.options.items():
            if served in result:
                result[served]["config"] = options
            else:
                self.remarks.say(
                    "IMP014",
                    f"the sample has options for {served}, which is no runtime here",
                    samples.options_place,
                    "name the runtime in the table",
                )
        keys = ("name", "distributedInference", "customConfigurations", "config", "trustRemoteCode")
        for runtime in result.values():
            if runtime["name"] == "vllm" and "trustRemoteCode" not in runtime:
                runtime["trustRemoteCode"] = runtime.get("config", {}).get("trust-remote-code") is True
        return [
            {key: runtime[key] for key in keys if runtime.get(key) is not None} for runtime in result.values()
        ]

    def _runtime_names(
        self, column: _RuntimeTable, denied: Mapping[RuntimeName, Span]
    ) -> tuple[list[RuntimeName], str | None]:
        cell = column.cells.get("runtime")
        if cell is None or fields.missing_word(cell.text) is not None:
            self.remarks.say("IMP011", "no runtime is named", cell or self._start("runtimes"), "name vLLM")
            return [], None
        read = fields.read_runtimes(cell.text)
        for name, words in read.denied:
            self.remarks.say(
                "IMP014",
                f"{name} is put off or taken back: '{shorten(words)}'",
                self.markdown.find(words.split("|")[0], cell),
                "name it once it serves the model",
            )
        for words in read.unknown:
            self.remarks.say(
                "IMP014",
                f"'{shorten(words)}' is no runtime that is known",
                self.markdown.find(words, cell),
                "KAITO serves with vLLM or Hugging Face Transformers",
            )
        if not read.names and not read.unknown and not read.denied:
            self.remarks.say("IMP014", f"'{shorten(cell.text)}' names no runtime", cell, "name vLLM")
        return [name for name in read.names if name not in denied], read.rest

    def _runtime_options(
        self, column: _RuntimeTable, model: _Model, models: Sequence[_Model], requirements: dict[str, Any]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        cell = column.cells.get("distributedinference")
        if cell:
            truth = fields.read_truth(cell.text)
            result["distributedInference"] = truth.value
            if truth.unless:
                theirs = [m.name for m in models if truth.unless.lower() in f"{m.title} {m.name}".lower()]
                if model.name in theirs:
                    result["distributedInference"] = not truth.value
                if not theirs:
                    requirements.setdefault("notes", {})["distributedInference"] = cell.text
                self.remarks.say(
                    "IMP021",
                    f"'{shorten(cell.text)}' depends on the model; it is read as {not truth.value} for "
                    f"{', '.join(theirs) or 'none of them'}",
                    cell,
                    "write one proposal per model",
                )
            elif truth.value is None and fields.missing_word(cell.text) is None:
                self.remarks.say(
                    "IMP021",
                    f"'{shorten(cell.text)}' is neither True nor False",
                    cell,
                    "write True or False",
                )
        elif column.cells:
            self.remarks.say(
                "IMP011",
                "there is no row 'Distributed Inference'",
                self._start("runtimes"),
                "add it with True or False",
            )
        configurations = column.cells.get("customconfigurations")
        if configurations and fields.missing_word(configurations.text) is None:
            result["customConfigurations"] = configurations.text
        trust = column.cells.get("trustremotecode")
        if trust:
            # None says that nothing is claimed; without the row, false is what vLLM does.
            result["trustRemoteCode"] = fields.read_truth(trust.text).value
        return result

    def _deployment(self, samples: Samples, model: _Model, models: Sequence[_Model]) -> dict[str, str]:
        several = len(models) > 1
        mine = [
            w for w in samples.workspaces if not several or fields.slug(model.name) in fields.dashed(w.words)
        ]
        for workspace in samples.workspaces:
            if workspace in mine[1:] or (
                several and not any(fields.slug(m.name) in fields.dashed(workspace.words) for m in models)
            ):
                self.remarks.say(
                    "IMP019", "a further manifest is left out", workspace.place, "keep one per model"
                )
        result = dict(mine[0].deployment) if mine else {}
        for key, what, objects in (
            ("modelAccessSecret", "Secret", samples.secrets),
            ("configMap", "ConfigMap", samples.config_maps),
        ):
            names = [span for span in objects if span.text]
            if names and key not in result and not several:
                result[key] = names[0].text
            elif names and key in result and result[key] not in [span.text for span in names]:
                self.remarks.say(
                    "IMP009",
                    f"the manifest uses the {what} '{shorten(result[key])}', the sample is named "
                    f"'{shorten(names[0].text)}'",
                    names[0],
                    "give both the same name",
                )
        return {key: result[key] for key in _ORDER["deployment"] if key in result}

    # --- history -----------------------------------------------------------------------------------------------

    def _history(self, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = tuple(str(metadata[key]) for key in ("creationDate", "lastUpdated") if key in metadata)
        named = re.search(
            r"(?<![0-9])(20[0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])", self.remarks.path.rpartition("/")[2]
        )
        known += ("-".join(named.groups()),) if named else ()
        result = []
        for block in self._blocks("history"):
            if block.kind != "item":
                if block.kind == "paragraph" and not _BOILERPLATE.match(block.text):
                    self._left_out(block)
                continue
            event = self._event(block.span, known)
            if event:
                result.append(event)
        return result

    def _event(self, item: Span, known: tuple[str, ...]) -> dict[str, Any] | None:
        box = re.match(r"\[(?P<mark>[ xX])\] ?", item.text)
        text = item.text[box.end() :] if box else item.text
        if not box:
            self.remarks.say(
                "IMP012",
                f"'{shorten(text)}' has no box; it is read as not done",
                item,
                "write - [x] or - [ ]",
            )
        event: dict[str, Any] = {"event": text, "done": bool(box and box["mark"] != " ")}
        dated = _DATED.match(text)
        day = fields.read_date(dated["date"], known=known) if dated else None
        at = self.markdown.find(dated["date"] if dated else text, item)
        if dated is None or day is None or (day.value is None and ":" not in dated["stop"]):
            self.remarks.say(
                "IMP012", f"'{shorten(text)}' has no date", at, "write year-month-day: and the event"
            )
        else:
            if day.problem:
                self.remarks.say("IMP012", day.problem, at, "write year-month-day")
            if day.value and text[dated.end() :].strip(" ."):
                event |= {"event": text[dated.end() :], "date": day.value}
        event["event"] = event["event"].strip()
        event["event"] = event["event"].removesuffix(".") or event["event"]
        if not event["event"]:
            self.remarks.say("IMP012", "an empty event is left out", item, "say what happened")
            return None
        return {key: event[key] for key in ("event", "date", "done") if key in event}


# --- helpers ---------------------------------------------------------------------------------------------------


def _overlaid(value: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The value with what the overlay says instead; null takes a key away."""
    result = dict(value)
    for key, change in overlay.items():
        if isinstance(result.get(key), dict) and isinstance(change, dict) and key in _ORDER:
            merged = result[key] | change
            result[key] = {name: part for name, part in merged.items() if part is not None}
        elif change is None:
            result.pop(key, None)
        else:
            result[key] = change
    metadata = result.get("metadata")
    if not isinstance(metadata, dict):
        result["metadata"] = dict(value["metadata"])
    elif (
        not isinstance(metadata.get("name"), str)
        or not NAME.match(metadata["name"])
        or ".." in metadata["name"]
    ):
        result["metadata"] = {**metadata, "name": value["metadata"]["name"]}
    return result


def _ordered(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with its keys in the order of the design; unknown ones last."""

    def sort(part: Any, order: tuple[str, ...]) -> Any:
        if not isinstance(part, dict):
            return part
        return {
            key: part[key] for key in (*(k for k in order if k in part), *(k for k in part if k not in order))
        }

    return {key: sort(part, _ORDER.get(key, ())) for key, part in sort(dict(value), _ORDER[""]).items()}
