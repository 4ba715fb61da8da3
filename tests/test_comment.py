"""The comment that a second workflow writes: on the right pull request, and nothing of a stranger takes effect."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kaito_catalog.checks.engine import ClaimState, EntryReport, Report
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, Skipped
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.report import CheckReport
from kaito_catalog.reports.change import CatalogChange, ModelChange, change_markdown
from kaito_catalog.reports.json import json_report, report_of, report_value
from kaito_catalog.reports.markdown import MARKER, escape, markdown
from tools import comment

ROOT = Path(__file__).resolve().parents[1]
SHA = "a" * 40
PATH = "catalog/models/phi-4/proposal.yaml"
CHANGE = CatalogChange(
    (ModelChange("phi-4", "changed", (("GPUs: count", "1", "2"), ("Licence", None, "mit"))),)
)
GITHUB_TAKES = 65_536


def report(message: str = "too small", **further: Any) -> Report:
    found = Diagnostic("STO001", Severity.ERROR, message, Place(PATH, 2, 3), "write 145GB")
    skip = Skipped("LIC001", "phi-4", "there is no facts.yaml", Place(PATH), "add it")
    claims = {"summary.license.id": ClaimState.PROVEN}
    return Report((EntryReport("phi-4", PATH, True, (found,), (skip,), claims, None),), **further)  # type: ignore[arg-type]


def packed(content: str | bytes, name: str = comment.REPORT, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        archive.writestr("../../etc/passwd", "never read")
        archive.writestr(name, content)
    return stream.getvalue()


def event(**run: Any) -> dict[str, Any]:
    given = {
        "id": 77,
        "event": "pull_request",
        "conclusion": "failure",
        "head_repository": {"full_name": "stranger/catalog"},
        "head_branch": "add-phi",
        "head_sha": SHA,
        "pull_requests": [],  # empty for forks
    }
    return {"workflow_run": given | run, "repository": {"full_name": "kaito-project/catalog"}}


RUN = comment.run_of(event())


def pull(number: int = 5, **head: Any) -> dict[str, Any]:
    given = {"sha": SHA, "ref": "add-phi", "repo": {"full_name": "stranger/catalog"}}
    base = {"repo": {"full_name": "kaito-project/catalog"}}
    return {"number": number, "state": "open", "head": given | head, "base": base}


class GitHub:
    """What `gh api` answers, and what it was asked to write."""

    def __init__(self, archive: bytes, *, changed: Sequence[str] = (f"{PATH}",), comments: Any = ()) -> None:
        self.archive, self.changed, self.comments = archive, changed, comments
        self.pulls = [pull()]
        self.calls: list[list[str]] = []
        self.written: list[tuple[list[str], str]] = []

    def __call__(self, arguments: Sequence[str], text: str | None) -> bytes:
        self.calls.append(list(arguments))
        address = next(word for word in arguments if word.startswith("repos/"))
        if text is not None:
            self.written.append((list(arguments), json.loads(text)["body"]))
            return b""
        if "/comments" in address:
            # As the --jq of the call selects.
            mine = [
                c["id"] for c in self.comments if c["who"] == comment.AUTHOR and c["body"].startswith(MARKER)
            ]
            return "".join(f"{number}\n" for number in mine).encode()
        if "/files" in address:
            return "".join(json.dumps([name, None]) + "\n" for name in self.changed).encode()
        if address.endswith("/zip"):
            return self.archive
        if "/artifacts?" in address:
            one = {"id": 9, "name": "report", "expired": False, "size_in_bytes": len(self.archive)}
            return json.dumps({"artifacts": [one]}).encode()
        return json.dumps(self.pulls).encode()


def written(archive: bytes, **settings: Any) -> str:
    github = GitHub(archive, **settings)
    comment.write(RUN, github, data=["catalog/models/"])
    ((_, body),) = github.written
    return body


# Which pull request


def test_the_pull_request_is_found_by_repository_branch_and_commit_of_the_event() -> None:
    others = [
        pull(1, sha="b" * 40),
        pull(2, ref="other"),
        pull(3, repo={"full_name": "stranger/other"}),
        pull(4, repo=None),
        pull(6) | {"state": "closed"},
        pull(7) | {"base": {"repo": {"full_name": "else/where"}}},
    ]
    assert comment.pull_request(RUN, [*others, pull(5)]) == 5
    with pytest.raises(comment.NothingToSayError, match="was closed, or has a newer one"):
        comment.pull_request(RUN, others)


def test_two_pull_requests_of_one_commit_get_no_comment() -> None:
    with pytest.raises(comment.NothingToSayError, match="2 pull requests have this commit"):
        comment.pull_request(RUN, [pull(5), pull(6)])


@pytest.mark.parametrize(
    "run",
    [
        {"event": "push"},
        {"conclusion": "cancelled"},
        {"conclusion": None},
        {"head_repository": None},
        {"head_sha": "main"},
        {"head_repository": {"full_name": "a/b?state=all"}},
    ],
)
def test_an_event_of_anything_else_writes_nothing(run: dict[str, Any]) -> None:
    with pytest.raises(comment.NothingToSayError):
        comment.run_of(event(**run))


def test_the_name_of_a_branch_adds_nothing_to_the_question() -> None:
    github = GitHub(packed(json_report(report())))
    branch = "x&state=all#`$(id)`"
    github.pulls = [pull(ref=branch)]
    comment.write(comment.run_of(event(head_branch=branch)), github, data=["catalog/"])
    assert github.calls[0] == [
        "repos/kaito-project/catalog/pulls?state=open&per_page=100"
        "&head=stranger%3Ax%26state%3Dall%23%60%24%28id%29%60"
    ]


def test_the_number_of_a_pull_request_in_the_artifact_means_nothing() -> None:
    value = report_value(report()) | {"number": 1}
    assert "has not the form of a report" in written(packed(json.dumps(value)))


# What it says


def test_the_comment_is_what_check_writes_as_markdown() -> None:
    body = written(packed(json_report(report(removed=("old",)), changes=CHANGE)))
    plain = markdown(report(removed=("old",)), {}, change=change_markdown(CHANGE))
    assert body.startswith(plain.rstrip("\n"))
    assert (
        f"Of commit {SHA[:12]}, from what [its run](https://github.com/kaito-project/catalog/actions/runs/77)"
        in body
    )


def test_json_has_all_that_the_comment_needs() -> None:
    value = CheckReport.model_validate_json(json_report(report(removed=("old",)), changes=CHANGE))
    assert report_of(value) == (report(removed=("old",)), CHANGE)


def test_a_change_of_the_program_is_said_above_the_verdict() -> None:
    body = written(
        packed(json_report(report())), changed=[PATH, "kaito_catalog/checks/@evil.py", "action.yml"]
    )
    assert body.splitlines()[2].startswith(
        "⚠️ **This pull request changes what the check itself is made of**: action.yml, "
        "kaito_catalog/checks/&#64;&#8203;evil.py."
    )
    assert "⚠️" not in written(packed(json_report(report())))


@pytest.mark.parametrize(
    "name", ["catalog/models/../../action.yml", "catalog/policy.yaml", "Catalog/models/x"]
)
def test_what_is_not_below_a_folder_of_data_may_be_a_program(name: str) -> None:
    assert comment.programs([name], ["catalog/models/"]) == [name]


def test_more_files_than_github_lists_count_as_a_change_of_the_program() -> None:
    body = written(packed(json_report(report())), changed=[PATH] * comment.MAX_FILES)
    assert "is made of**: more files than GitHub lists." in body


def test_the_one_comment_is_updated() -> None:
    github = GitHub(
        packed(json_report(report())), comments=[{"id": 3, "who": comment.AUTHOR, "body": f"{MARKER}\nold"}]
    )
    assert comment.write(RUN, github, data=[]) == "updated the comment on pull request 5"
    assert github.written[0][0][:3] == ["--method", "PATCH", "repos/kaito-project/catalog/issues/comments/3"]


def test_a_forged_marker_is_left_alone_and_a_comment_of_our_own_is_written() -> None:
    forged = [
        {"id": 1, "who": "stranger", "body": f"{MARKER}\nforged"},
        {"id": 2, "who": comment.AUTHOR, "body": f"of another workflow {MARKER}"},
    ]
    github = GitHub(packed(json_report(report(f"x {MARKER} <!-- y"))), comments=forged)
    assert comment.write(RUN, github, data=[]) == "wrote the comment on pull request 5"
    ((arguments, body),) = github.written
    assert arguments[:3] == ["--method", "POST", "repos/kaito-project/catalog/issues/5/comments"]
    assert body.count("<!--") == 1


# What a stranger's report cannot do

HOSTILE = [
    "</details></summary><script>alert(1)</script><img src=x onerror=alert(1)>",
    "@admin @kaito-project/maintainers me@example.org",
    "fixes #1, closes other/repo#2, GH-3, gh-4",
    "[x](javascript:alert(1)) ![y](https://evil.example/z.png) <https://evil.example>",
    "https://evil.example www.evil.example ftp://evil.example",
    "\n\n# heading\n\n- [ ] task\n\n```\nfence\n---\n",
    "| a | b |\n|---|---|",
    "**bold** _it_ ~~s~~ `code` $x^2$ ==m== :tada:",
    "&lt;b&gt; &#60;b&#62; &amp;#60;",
    "\u202eevil\u202c \u2066x\u2069 \u200b\u200e\u061c\ufeff \u2028 \U000e0041",
    "\x1b[31m\x00\x07\x9b",
    MARKER,
]
_ELEMENT = re.compile(r"<(?!/?(?:details|summary|sub|br)(?: open)?>|!-- kaito-catalog check -->)")


def shown(body: str) -> str:
    """The text that a reader of the comment sees, before GitHub looks for people and issues in it."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table"]).render(body)
    return re.sub(r"<[^>]*>", "\n", rendered)


def everywhere(text: str) -> str:
    """A report with `text` in each value that may be any text."""
    value = report_value(report(), changes=CHANGE)
    model, changed = value["models"][0], value["changes"]["models"][0]
    for place in (model, *model["findings"], *model["skipped"], changed, *changed["values"]):
        for key in {"name", "path", "message", "hint", "waived", "reason", "what", "before", "after"} & set(
            place
        ):
            place[key] = text
    value["removed"] = value["changes"]["textsOnly"] = [text]
    unwaived = model["findings"][0] | {"waived": None}
    model["findings"].append(unwaived)
    model["claims"][text] = "wrong"
    return json.dumps(value)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_report_takes_effect_in_the_comment(text: str) -> None:
    body = written(packed(everywhere(text)), changed=[text])
    assert _ELEMENT.search(body) is None
    assert body.count("<details") == body.count("</details>") == 4
    found = shown(body)
    assert re.findall(r"@[A-Za-z0-9]|#\d|\bGH-\d", found, re.IGNORECASE) == []
    assert (
        re.findall(r"\b(?:https?|ftp|javascript)://(?!github\.com/kaito-project/catalog/)|www\.\w", body)
        == []
    )
    assert all(c.isprintable() or c == "\n" for c in body.replace("️", ""))
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table"]).parse(body)
    inner = [child.type for token in tokens for child in token.children or ()]
    assert (inner.count("link_open"), inner.count("image")) == (1, 0), "the run's page is the one link"
    assert [token.type for token in tokens if token.type in ("fence", "code_block", "hr")] == []
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h3"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\u202ex", "&#92;u202ex"),
        ("@a", "&#64;&#8203;a"),
        ("a@ b", "a&#64; b"),
        ("#12", "&#35;&#8203;12"),
        ("# 12", "&#35; 12"),
        ("GH-1", "GH&#8203;-1"),
        ("RIGHT-1", "RIGHT-1"),
    ],
)
def test_a_mention_is_parted_and_what_is_invisible_is_written_out(text: str, wanted: str) -> None:
    assert escape(text) == wanted


@pytest.mark.parametrize("count", [1, 5_000])
@pytest.mark.parametrize("length", [1, 3_000])
def test_a_report_of_any_size_makes_a_comment_that_github_takes(count: int, length: int) -> None:
    value = report_value(report("@" * length), changes=CHANGE)
    value["models"] = value["models"] * (count if length == 1 else 1)
    value["models"][0]["findings"] = value["models"][0]["findings"] * (1 if length == 1 else count // 10 + 1)
    value["changes"]["models"] = value["changes"]["models"] * count
    body = written(packed(json.dumps(value)), changed=["@" * 5_000 + str(n) for n in range(200)])
    assert len(body) < GITHUB_TAKES
    assert body.startswith(f"{MARKER}\n\n⚠️ ")
    assert body.endswith("left.</sub>\n")
    assert body.count("<details") == body.count("</details>")


BROKEN = {
    "no archive": b"PK\x05\x06",
    "another file": packed("{}", name="other.json"),
    "no JSON": packed("{"),
    "no UTF-8": packed(b"\xff\xfe\x00"),
    "a list": packed("[]"),
    "another form": packed('{"version": 1}'),
    "deep": packed("[" * 100_000),
    "a huge integer": packed(f'{{"version": {"9" * 5_000}}}'),
    "half a character": packed(json.dumps(report_value(report("\ud800")))),
    "a code that is none": packed(json_report(report()).replace("STO001", "`](x)")),
    "a state that is none": packed(json_report(report()).replace('"proven"', '"<b>"')),
    "another packing": packed(json_report(report()), packing=zipfile.ZIP_LZMA),
    "a bomb": packed(b" " * (comment.MAX_BYTES + 1)),
}


@pytest.mark.parametrize("archive", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_said_and_nothing_of_it_is_shown(archive: bytes) -> None:
    body = written(archive)
    (line,) = (line for line in body.splitlines() if line.startswith("❔"))
    assert re.fullmatch(
        r"❔ \*\*Not checked\*\* — (the artifact|the report|report\.json) [\w .,-]+; the run says more\.",
        line,
    )


def test_a_large_artifact_is_not_even_fetched() -> None:
    github = GitHub(b"x" * (comment.MAX_BYTES + 1))
    comment.write(RUN, github, data=[])
    assert not any(word.endswith("/zip") for call in github.calls for word in call)
    assert "larger than" in github.written[0][1]


WHOLE = packed(json_report(report(), changes=CHANGE))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_archive_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for place, value in changes:
        damaged[place] = value
    try:
        comment.read_report(bytes(damaged))
    except CatalogError as error:
        assert len(error.message) < 100  # noqa: PT017 - either is right
