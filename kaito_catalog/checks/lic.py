"""LIC: is the licence what the Hub says, is it one we know, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator

from kaito_catalog.catalog import licenses
from kaito_catalog.checks.base import (
    ERROR,
    NO_FACTS,
    WARNING,
    Context,
    Finding,
    Outcome,
    Skip,
    Subject,
    check,
)
from kaito_catalog.formats.policy import LicensePolicy

_ID = ("summary", "license", "id")


@check("LIC001", proves=("summary.license.id",))
def license_of_the_hub(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The claimed licence is not the Hub's.

    Who may use the model, and whether KAITO may host its image, follows from the licence at the pinned
    revision, whatever the proposal says.

    Fails::

        summary: {license: {id: mit}}
        facts: {license: {id: gemma}}

    Passes::

        summary: {license: {id: gemma}}
        facts: {license: {id: gemma}}
    """
    claimed = subject.proposal.license_id
    if claimed is None:
        yield Skip("the proposal names no licence", "add summary.license.id")
        return
    if subject.facts is None or subject.facts.license is None:
        yield (
            NO_FACTS if subject.facts is None else Skip("facts.yaml has no licence", "record the facts anew")
        )
        return
    facts = subject.facts.license
    policy = context.shared.policy.licenses
    if "unknown" in facts.ids:
        yield Skip("the model's card says that its licence is unknown", "ask who published the model")
        return
    if facts.contradiction is not None:
        yield Skip(facts.contradiction, "LIC005 says what to do")
        return
    if len(facts.ids) > 1:
        yield from _of_a_list(claimed, facts.ids, policy)
        return
    found = licenses.hub_id(claimed, policy)
    names = {name.lower() for name in (facts.name, facts.id) if name}
    custom = claimed.removeprefix("LicenseRef-").lower() in names if licenses.is_reference(claimed) else False
    if custom or found == facts.id.lower() or (found is None and claimed.lower() in names):
        return
    if found is None:
        try:
            licenses.read(claimed, policy)
        except licenses.NotALicenseError:
            yield Skip(f"'{claimed[:60]}' is not a known licence id", f"the Hub says {facts.id}")
            return
    yield Finding(
        f"the licence is {facts.id} on the Hub, the proposal says {claimed}", _ID, f"id: {facts.id}"
    )


def _of_a_list(claimed: str, listed: tuple[str, ...], policy: LicensePolicy) -> Iterator[Outcome]:
    """The claim against a card that lists several licences, and does not say how they are combined."""
    try:
        named = {part.hub_id or part.id for part in licenses.each(licenses.read(claimed, policy))}
    except licenses.NotALicenseError:
        named = {claimed}
    if {name.lower() for name in named} != {name.lower() for name in listed}:
        spdx = [policy.spdx.get(name, name) for name in listed]
        yield Finding(
            f"the card on the Hub lists {' and '.join(listed)}, the proposal says {claimed}",
            _ID,
            f"'{' AND '.join(spdx)}' where all hold, '{' OR '.join(spdx)}' where one may be chosen",
        )


@check("LIC002", severity=WARNING)
def known_license(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The licence is not written as an id.

    A licence is named by its SPDX id, by the Hub's own id, or by LicenseRef-… with the address of its text, so
    that programs can compare it. Several are joined as SPDX has it, such as Apache-2.0 OR MIT. Words that are
    understood are a warning, others an error.

    Fails::

        summary: {license: {id: Apache 2.0}}

    Passes::

        summary: {license: {id: apache-2.0}}
    """
    claimed = subject.proposal.license_id
    if claimed is None:
        return
    policy = context.shared.policy.licenses
    if licenses.hub_id(claimed, policy) == "unknown":
        hint = "ask who published the model, and leave the id out until then"
        yield Finding("'unknown' names no licence", _ID, hint, severity=ERROR)
        return
    try:
        found = licenses.read(claimed, policy)
    except licenses.NotALicenseError as error:
        yield Finding(error.message, _ID, error.hint, severity=ERROR)
        return
    if licenses.spelt_unusually(claimed, policy):
        id_ = licenses.hub_id(claimed, policy) or str(found)
        yield Finding(f"'{claimed}' is the licence {id_}", _ID, f"id: {id_}")


@check("LIC003")
def gated_needs_a_secret(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The model is gated and no secret is named.

    The files of a gated model are only served to who has agreed to its terms; KAITO needs the name of a
    Kubernetes Secret with an HF_TOKEN in `deployment.modelAccessSecret`, or the download fails.

    Fails::

        facts: {gated: manual}
        deployment: {modelAccessSecret: null}

    Passes::

        facts: {gated: manual}
        deployment: {modelAccessSecret: hf-token}
    """
    if subject.facts is None or subject.facts.gated is None:
        yield NO_FACTS if subject.facts is None else Skip("whether the model is gated is not recorded")
        return
    deployment = subject.proposal.deployment
    secret = deployment.model_access_secret if deployment else None
    if subject.facts.gated != "no" and not secret:
        yield Finding(
            f"the model is gated ({subject.facts.gated}), and deployment.modelAccessSecret is missing",
            ("deployment", "modelAccessSecret") if deployment else ("requirements", "downloadSite"),
            "deployment: {modelAccessSecret: hf-token}",
        )


@check("LIC004", severity=WARNING)
def license_text(subject: Subject, context: Context) -> Iterator[Outcome]:
    """A licence outside SPDX's list has no address of its text.

    What `other` or LicenseRef-… allows is only known from the text, so the proposal says where it is.

    Fails::

        summary: {license: {id: LicenseRef-example, url: null}}

    Passes::

        summary:
          license:
            id: LicenseRef-example
            url: https://huggingface.co/example-org/Example-7B-Instruct/blob/main/LICENSE
    """
    claimed = subject.proposal.license_id
    summary = subject.proposal.summary
    if claimed is None or summary is None or summary.license is None or summary.license.url:
        return
    try:
        found = list(licenses.each(licenses.read(claimed, context.shared.policy.licenses)))
    except licenses.NotALicenseError:
        return  # LIC002
    for license_ in found:
        if license_.has_text_of_its_own:
            name = license_.id if len(found) > 1 else claimed
            yield Finding(f"{name} has no summary.license.url", _ID, "add the address of the licence's text")
            return


@check("LIC005", severity=WARNING)
def text_of_the_license(subject: Subject, context: Context) -> Iterator[Outcome]:
    """The LICENSE file is the text of another licence than the card names.

    What holds is what the publisher's terms say, and here they say two things: until that is settled the claim counts
    as unknown. `record` compares the file word for word with the texts of the usual licences; a file that is none of
    them, such as MIT with a clause of its own, is not judged.

    Fails::

        facts: {license: {id: mit, text: apache-2.0}}
        summary: {license: {id: mit}}

    Passes::

        facts: {license: {id: mit, text: mit}}
        summary: {license: {id: mit}}
    """
    license_ = subject.facts.license if subject.facts else None
    if license_ is not None and license_.contradiction is not None:
        yield Finding(license_.contradiction, _ID, "ask who published the model; waive this with the answer")
