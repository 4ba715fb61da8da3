"""Licences as they are claimed: ids, expressions, and who may host an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression
from test_checks import entry_of

from kaito_catalog.catalog import licenses
from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.checks.base import Context
from kaito_catalog.checks.engine import check_entry
from kaito_catalog.checks.registry import selected
from kaito_catalog.diagnostics import Diagnostic, Severity

POLICY = read_shared(Path(__file__).resolve().parents[1] / "catalog").policy.licenses


def found_in(context: Context, fragment: str) -> list[Diagnostic]:
    """What the licence checks find in the example proposal, changed by `fragment`."""
    diagnostics = check_entry(entry_of(fragment), selected(["LIC"], []), context).diagnostics
    return [d for d in diagnostics if d.code.startswith("LIC")]


@pytest.mark.parametrize(
    ("claimed", "read", "hosting"),
    [
        ("Apache-2.0", "Apache-2.0", "public-mcr"),
        ("apache-2.0", "Apache-2.0", "public-mcr"),
        ("Apache-2.0 OR MIT", "Apache-2.0 OR MIT", "public-mcr"),
        ("aPaChE-2.0 oR mIt", "Apache-2.0 OR MIT", "public-mcr"),
        ("GPL-3.0-only OR MIT", "GPL-3.0-only OR MIT", "public-mcr"),
        ("GPL-3.0-only AND MIT", "GPL-3.0-only AND MIT", "user-built"),
        ("Apache-2.0 AND MIT", "Apache-2.0 AND MIT", "public-mcr"),
        ("ISC OR MIT AND GPL-2.0-only", "ISC OR MIT AND GPL-2.0-only", "user-built"),
        ("(GPL-2.0-only OR MIT) AND Apache-2.0", "(GPL-2.0-only OR MIT) AND Apache-2.0", "public-mcr"),
        ("((MIT))", "MIT", "public-mcr"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception", "public-mcr"),
        (
            "GPL-2.0-only with Classpath-Exception-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "user-built",
        ),
        ("Apache-2.0+", "Apache-2.0+", "public-mcr"),
        ("LicenseRef-mine", "LicenseRef-mine", "user-built"),
        ("licenseref-Mine OR MIT", "LicenseRef-Mine OR MIT", "public-mcr"),
        ("LicenseRef-mine AND MIT", "LicenseRef-mine AND MIT", "user-built"),
        ("llama3.3 AND Apache-2.0", "llama3.3 AND Apache-2.0", "user-built"),
        ("Apache 2.0 OR MIT", "Apache-2.0 OR MIT", "public-mcr"),
        ("BlueOak-1.0.0", "BlueOak-1.0.0", "user-built"),
        ("GPL-2.0+", "GPL-2.0+", "user-built"),
        ("LGPL-2.0 OR MIT", "LGPL-2.0 OR MIT", "public-mcr"),
    ],
)  # the last two have ids that SPDX has deprecated
def test_an_expression_is_read_and_says_who_hosts(claimed: str, read: str, hosting: str) -> None:
    assert str(licenses.read(claimed, POLICY)) == read
    assert licenses.image_hosting(claimed, POLICY) == hosting


NOT = "the licence is not an SPDX expression"
UNKNOWN = "is neither an SPDX id nor one the Hub uses"


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        ("MIT AND foo", f"'foo' {UNKNOWN}"),
        ("MIT OR (Apache-2.0 AND our own terms)", f"'our own terms' {UNKNOWN}"),
        ("free for research", f"'free for research' {UNKNOWN}"),
        ("MIT WITH foo", "'foo' is not an exception that SPDX lists"),
        ("MIT WITH MIT", "'MIT' is not an exception that SPDX lists"),
        ("LicenseRef-a_b", f"'LicenseRef-a_b' {UNKNOWN}"),
        ("LicenseRef-", f"'LicenseRef-' {UNKNOWN}"),
        ("MIT AND", f"{NOT}: 'MIT AND'"),
        ("OR MIT", f"{NOT}: 'OR MIT'"),
        ("(MIT", f"{NOT}: '(MIT'"),
        ("MIT)", f"{NOT}: 'MIT)'"),
        ("MIT AND OR ISC", f"{NOT}: 'MIT AND OR ISC'"),
        ("MIT (ISC)", f"{NOT}: 'MIT (ISC)'"),
        ("(MIT OR ISC) WITH LLVM-exception", f"{NOT}: '(MIT OR ISC) WITH LLVM-exception'"),
        ("WITH", f"{NOT}: 'WITH'"),
        ("()", f"{NOT}: '()'"),
        ("MIT OR " * 1_428 + "MIT", f"{NOT}: it has 9,999 characters, of at most 1,000"),
        ("(" * 5_000 + ")" * 5_000, f"{NOT}: it has 10,000 characters, of at most 1,000"),
        ("(" * 400 + "MIT" + ")" * 400, f"{NOT}: it has parentheses in each other, 400 deep"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_what_is_no_expression_is_refused_with_the_part_that_is_wrong(claimed: str, message: str) -> None:
    with pytest.raises(licenses.NotALicenseError) as raised:
        licenses.read(claimed, POLICY)
    assert raised.value.message == message
    assert licenses.image_hosting(claimed, POLICY) == "user-built"


@pytest.mark.parametrize(
    ("claimed", "findings"),
    [
        ("Apache-2.0 OR MIT", []),
        ("MIT AND foo", [("LIC002", Severity.ERROR)]),
        ("Apache 2.0 OR MIT", [("LIC002", Severity.WARNING)]),
        ("LicenseRef-mine OR MIT", [("LIC004", Severity.WARNING)]),
        ("LicenseRef-mine AND", [("LIC002", Severity.ERROR)]),
        ("MIT OR " * 1_428 + "MIT", [("LIC002", Severity.ERROR)]),
    ],
    ids=lambda text: text[:40] if isinstance(text, str) else "",
)
def test_lic002_takes_expressions(
    claimed: str, findings: list[tuple[str, Severity]], context: Context
) -> None:
    text = f"summary: {{license: {{id: '{claimed}', url: null}}}}\nfacts: {{license: null}}"
    found = found_in(context, text)
    assert [(d.code, d.severity) for d in found] == findings


def test_an_unusual_spelling_within_an_expression_is_corrected(context: Context) -> None:
    found = found_in(context, "summary: {license: {id: Apache 2.0 OR MIT}}\nfacts: {license: null}")
    assert [d.hint for d in found if d.code == "LIC002"] == ["id: Apache-2.0 OR MIT"]


def test_an_expression_that_is_not_what_the_hub_says_is_an_error(context: Context) -> None:
    text = "summary: {license: {id: Apache-2.0 OR MIT}}\nfacts: {license: {id: apache-2.0}}"
    found = found_in(context, text)
    assert [d.message for d in found if d.code == "LIC001"] == [
        "the licence is apache-2.0 on the Hub, the proposal says Apache-2.0 OR MIT"
    ]


IDS = st.sampled_from(
    ["MIT", "Apache-2.0", "GPL-3.0-only", "ISC", "LicenseRef-x", "GPL-2.0-only WITH Classpath-exception-2.0"]
)
EXPRESSIONS = st.recursive(
    IDS,
    lambda inner: st.builds("{} {} {}".format, inner, st.sampled_from(["AND", "OR"]), inner) | inner.map("({})".format),
    max_leaves=8,
)  # fmt: skip


@given(EXPRESSIONS)
def test_an_expression_is_written_as_one_of_the_same_meaning(text: str) -> None:
    written = str(licenses.read(text, POLICY))
    assert canonicalize_license_expression(written) == written
    assert licenses.read(written, POLICY) == licenses.read(text, POLICY)
    assert licenses.image_hosting(written, POLICY) == licenses.image_hosting(text, POLICY)


@given(st.text(alphabet="()AaNnDdORWITHmit. -+", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = str(licenses.read(text, POLICY))
    except licenses.NotALicenseError as error:
        assert error.message  # noqa: PT017
    else:
        assert licenses.read(found, POLICY)
