"""DOC: is the proposal a proposal: dates, names, status, one model, nothing left open that must not be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from kaito_catalog.checks.base import ERROR, WARNING, Context, Finding, Outcome, Subject, check
from kaito_catalog.diagnostics import Route
from kaito_catalog.formats.base import is_missing

_HUB_LINK = re.compile(r"https?://huggingface\.co/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\w)", re.ASCII)
_WORD = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)*")


def _dates(subject: Subject) -> Iterator[tuple[Route, str]]:
    proposal = subject.proposal
    yield ("metadata", "creationDate"), proposal.metadata.creation_date
    if proposal.metadata.last_updated:
        yield ("metadata", "lastUpdated"), proposal.metadata.last_updated
    if proposal.summary and proposal.summary.usage and proposal.summary.usage.as_of:
        yield ("summary", "usage", "asOf"), proposal.summary.usage.as_of
    for number, event in enumerate(proposal.history or ()):
        if event.date:
            yield ("history", number, "date"), event.date


def _calendar(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


_YEARS = range(2023, 2100)
_DATE_HINT = "write year-month-day; 'check --fix' does, where only one day can be meant"


@check("DOC001")
def calendar_dates(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A date is not in the calendar.

    Every date is written year-month-day and has to exist. Day and month exchanged is the usual cause. KAITO's first
    release was in 2023, so a year before it, or after this century, is a slip of the pen.

    Fails::

        metadata:
          creationDate: 2025-13-06

    Passes::

        metadata:
          creationDate: 2025-06-13
    """
    for route, text in _dates(subject):
        day = _calendar(text)
        if day is None:
            yield Finding(f"{text} is not in the calendar", route, _DATE_HINT)
        elif day.year not in _YEARS:
            yield Finding(
                f"{day.year} cannot be the year of a proposal to KAITO", route, "look for a mistyped digit"
            )


@check("DOC002")
def folder_name(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The folder, metadata.name and the repository do not have the same name.

    A model's folder is found by its name, so all three agree: the name of the repository in lower case.

    Fails::

        metadata:
          name: example-7b

    Passes::

        metadata:
          name: example-7b-instruct
    """
    name = subject.proposal.metadata.name
    repo_id = subject.proposal.repo_id
    if name != subject.folder_name:
        yield Finding(
            f"metadata.name is '{name}', the folder is '{subject.folder_name}'",
            ("metadata", "name"),
            "rename one of them",
        )
    if repo_id and repo_id.partition("/")[2].lower() != name:
        yield Finding(
            f"metadata.name is '{name}', the repository is {repo_id}",
            ("metadata", "name"),
            f"name: {repo_id.partition('/')[2].lower()}",
        )


@check("DOC003")
def download_site(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The download site is not the page of a repository on the Hub.

    KAITO downloads from the Hugging Face Hub, and all facts are read there; "Hugging Face" in words does not
    say which repository.

    Fails::

        requirements:
          downloadSite: Hugging Face

    Passes::

        requirements:
          downloadSite: https://huggingface.co/example-org/Example-7B-Instruct
    """
    site = subject.proposal.requirements.download_site
    if subject.proposal.repo_id is None:
        repo_id = site if re.fullmatch(r"[\w.-]+/[\w.-]+", site) else "ORG/MODEL"
        yield Finding(
            f"'{site[:80]}' is not a page of the Hub",
            ("requirements", "downloadSite"),
            f"write https://huggingface.co/{repo_id}",
        )


@check("DOC004", severity=WARNING)
def order_of_dates(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The dates are not in order.

    A proposal is not updated before it is created, nor are the steps of its history.

    Fails::

        metadata:
          lastUpdated: 2024-01-01

    Passes::

        metadata:
          lastUpdated: 2026-01-10
    """
    created = _calendar(subject.proposal.metadata.creation_date)
    if created is None:
        return
    for route, text in _dates(subject):
        day = _calendar(text)
        if day and day < created and route[0] in ("metadata", "history"):
            yield Finding(
                f"{text} is before the creation of the proposal, {created}",
                route,
                "check for day and month exchanged",
            )


@check("DOC005")
def status_against_history(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The status contradicts the history.

    A proposal whose every step is done is implemented, and one that is implemented has no open step. A stale
    status misleads whoever looks for what can be used. (A warning while the proposal is provisional.)

    Fails::

        metadata: {status: provisional}
        history:
          - {event: Open proposal PR, date: 2026-01-05, done: true}
          - {event: Complete model support, date: 2026-01-20, done: true}

    Passes::

        metadata: {status: implemented}
        history:
          - {event: Open proposal PR, date: 2026-01-05, done: true}
          - {event: Complete model support, date: 2026-01-20, done: true}
    """
    status = subject.proposal.metadata.status
    history = subject.proposal.history or ()
    if status == "implemented":
        for number, event in enumerate(history):
            if not event.done:
                yield Finding(
                    f"the status is implemented, the step '{event.event}' is open",
                    ("history", number),
                    "mark it done with its date, or set the status to provisional",
                )
    elif status == "provisional" and history and all(event.done for event in history):
        final = next((event for event in history if "complete" in event.event.lower()), None)
        if final is not None:
            yield Finding(
                f"the status is provisional, though the history says '{final.event}'"
                + (f" on {final.date}" if final.date else ""),
                ("metadata", "status"),
                "status: implemented",
                severity=WARNING,
            )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@check("DOC006", severity=WARNING)
def heading_names_the_model(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The heading or the family does not name the model of the download site.

    Proposals start as copies of others; a heading about another model is the trace of one. The first word of
    the repository's name has to appear, and a link in the heading has to lead to the same repository.

    Fails::

        metadata:
          heading: Add mistral-7b to KAITO supported model list

    Passes::

        metadata:
          heading: Add example-org/Example-7B-Instruct to KAITO supported model list
    """
    repo_id = subject.proposal.repo_id
    if repo_id is None:
        return
    heading = subject.proposal.metadata.heading
    links = _HUB_LINK.findall(heading)
    if links and repo_id.lower() not in (link.lower() for link in links):
        yield Finding(
            f"the heading links to {links[0]}, the model is {repo_id}",
            ("metadata", "heading"),
            f"link to https://huggingface.co/{repo_id}, or correct requirements.downloadSite",
        )
        return
    wanted = _words(repo_id.partition("/")[2])
    if not wanted:
        return
    if wanted[0] not in _words(heading) and wanted[0] not in heading.lower().replace(" ", ""):
        yield Finding(
            f"the heading does not name {repo_id}",
            ("metadata", "heading"),
            f"heading: Add [{repo_id}](https://huggingface.co/{repo_id}) to KAITO supported model list",
        )
    sizes = {word for word in ("mini", "small", "medium", "large") if word in wanted}
    for route, text in (
        (("metadata", "heading"), heading),
        (("requirements", "familyName"), subject.proposal.requirements.family_name),
    ):
        others = {word for word in ("mini", "small", "medium", "large") if word in _words(text)} - sizes
        if sizes and others:
            hint = f"is it left over from the proposal of the {min(others)} model?"
            yield Finding(f"'{text[:60]}' says {min(others)}, the model is {repo_id}", route, hint)


@check("DOC007")
def one_model_each(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The proposal speaks of several models.

    KAITO's template asks for one proposal per model: claims about sizes and GPUs mean nothing for a group.

    Fails::

        metadata:
          heading: >-
            Add https://huggingface.co/example-org/Example-7B-Instruct and
            https://huggingface.co/example-org/Example-70B-Instruct

    Passes::

        metadata:
          heading: Add https://huggingface.co/example-org/Example-7B-Instruct
    """
    links = list(dict.fromkeys(link.lower() for link in _HUB_LINK.findall(subject.proposal.metadata.heading)))
    if len(links) > 1:
        yield Finding(
            f"the heading names {len(links)} models: {', '.join(links)}",
            ("metadata", "heading"),
            "write one proposal, in its own folder, for each",
        )


def _claims(subject: Subject) -> Iterator[tuple[Route, object]]:
    proposal = subject.proposal
    requirements = proposal.requirements
    summary = proposal.summary
    for number, author in enumerate(proposal.metadata.authors):
        yield ("metadata", "authors", number), author
    yield ("summary", "description"), summary.description if summary else None
    yield ("summary", "license", "id"), proposal.license_id
    yield ("requirements", "version"), requirements.version
    yield ("requirements", "storageSize"), requirements.storage_size
    yield ("requirements", "gpuCount"), requirements.gpu_count
    yield ("requirements", "totalGPUMemory"), requirements.total_gpu_memory
    yield ("requirements", "contextLength"), requirements.context_length
    # "If not applicable, enter N/A" is what KAITO's template says of this one field.
    per_gpu = requirements.per_gpu_memory
    yield ("requirements", "perGPUMemory"), "not applicable" if per_gpu == "N/A" else per_gpu
    yield ("runtimes",), proposal.runtimes
    for number, runtime in enumerate(proposal.runtimes or ()):
        yield ("runtimes", number, "distributedInference"), runtime.distributed_inference
    yield ("history",), proposal.history


@check("DOC008")
def missing_claims(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A claim that the template asks for is missing.

    While a proposal is provisional a gap is only a warning, so that it stays visible; what is implemented has
    none. `TBD`, an empty value, and `N/A` where a figure belongs count as missing.

    Fails::

        metadata: {status: implemented}
        requirements: {storageSize: TBD}

    Passes::

        metadata: {status: implemented}
        requirements: {storageSize: 20GB}
    """
    severity = ERROR if subject.is_implemented else WARNING
    for route, value in _claims(subject):
        if is_missing(value) or value == ():
            key = ".".join(str(part) for part in route)
            yield Finding(
                f"{key} is missing" + (f" ({value})" if value else ""),
                route,
                "fill it in" if subject.is_implemented else "fill it in before the status is implemented",
                severity=severity,
            )


_NUMBER_NEAR = re.compile(
    r"\b(?P<option>[a-z][a-z0-9]*(?:[-_][a-z0-9]+)+)\b[^.\n0-9]{0,60}?\b(?P<value>[0-9][0-9,]*(?:\.[0-9]+)?)(?P<k>[kK])?\b"
)


@check("DOC009", severity=WARNING)
def words_against_configuration(subject: Subject, context: Context) -> Iterator[Outcome]:
    """What the custom configurations say in words contradicts the options.

    Readers believe the sentence, KAITO the options. An option named in the text with a figure has to have
    that figure in `config`.

    Fails::

        runtimes:
          - name: vllm
            distributedInference: false
            customConfigurations: max_model_len is set to 131072 by default.
            config: {max-model-len: 16384}

    Passes::

        runtimes:
          - name: vllm
            distributedInference: false
            customConfigurations: max_model_len is set to 16384 by default.
            config: {max-model-len: 16384}
    """
    for number, runtime in enumerate(subject.proposal.runtimes or ()):
        config = runtime.config or {}
        for match in _NUMBER_NEAR.finditer((runtime.custom_configurations or "").lower()):
            option = match["option"].replace("_", "-")
            value = config.get(option)
            said = float(match["value"].replace(",", "")) * (1024 if match["k"] else 1)
            if isinstance(value, int | float) and not isinstance(value, bool) and float(value) != said:
                yield Finding(
                    f"the words say {option} is {match['value']}{match['k'] or ''}, the options say {value}",
                    ("runtimes", number, "customConfigurations"),
                    f"say {value}, or set {option} to what is meant",
                )


@check("DOC010")
def distributed_against_gpus(subject: Subject, context: Context) -> Iterator[Outcome]:
    """distributedInference contradicts the number of GPUs.

    A model that needs several GPUs is distributed over them; one that runs on a single GPU is not.

    Fails::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB, perGPUMemory: 80GB}
        runtimes: [{name: vllm, distributedInference: false, config: {max-model-len: 16384}}]

    Passes::

        requirements: {gpuCount: 4, totalGPUMemory: 320GB, perGPUMemory: 80GB}
        runtimes: [{name: vllm, distributedInference: true, config: {max-model-len: 16384}}]
    """
    count = subject.proposal.requirements.gpu_count
    if not isinstance(count, int):
        return
    for number, runtime in enumerate(subject.proposal.runtimes or ()):
        if runtime.distributed_inference is not None and runtime.distributed_inference != (count > 1):
            said = "distributed" if runtime.distributed_inference else "not distributed"
            yield Finding(
                f"{runtime.name} is {said}, gpuCount is {count}",
                ("runtimes", number, "distributedInference"),
                f"distributedInference: {str(count > 1).lower()}",
            )
