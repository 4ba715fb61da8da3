"""Write the one comment on a pull request about the run that checked it; for a workflow that a finished run starts.

    python -m tools.comment "$GITHUB_EVENT_PATH" --data catalog/models/ --data docs/

Everything the run left is taken for a stranger's: its code may be the pull request's own. Which pull request it was
comes from GitHub's event, compared by repository, branch and commit; of the artifact one JSON file is read, in memory
and up to a limit, and only values that its form allows reach the comment, each escaped. SECURITY.md has the reasons.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from kaito_catalog.errors import CatalogError, visible
from kaito_catalog.formats.report import CheckReport
from kaito_catalog.reports.change import change_markdown
from kaito_catalog.reports.json import report_of
from kaito_catalog.reports.markdown import MARKER, escape, markdown

GitHub: TypeAlias = Callable[[Sequence[str], str | None], bytes]
"""`gh api` with these arguments and this text on its input: what it answers."""

ARTIFACT, REPORT = "report", "report.json"
MAX_BYTES = 4 * 1024 * 1024
"""Of the artifact, and of the report in it; that of all 60 models has 150 kB."""
MAX_TEXT = 2_000
"""Characters of one message, reason or value."""
MAX_FILES = 3_000
"""GitHub lists no more files of a pull request."""
AUTHOR = "github-actions[bot]"
_CODE = re.compile(r"[A-Z]{3}[0-9]{3}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")


class NothingToSayError(Exception):
    """Why no comment is written."""


@dataclass(frozen=True)
class Run:
    """The finished run, as GitHub's event tells it."""

    repository: str
    run_id: int
    head_repository: str
    head_branch: str
    head_sha: str
    server: str = "https://github.com"

    @property
    def address(self) -> str:
        """Its page."""
        return f"{self.server}/{self.repository}/actions/runs/{self.run_id}"


def run_of(event: dict[str, Any]) -> Run:
    """The run of a `workflow_run` event.

    Raises:
        NothingToSayError: it is not one that checked a pull request to its end.
    """
    run = event["workflow_run"]
    if run["event"] != "pull_request":
        raise NothingToSayError(f"the run was not for a pull request ({visible(str(run['event']))})")
    if run["conclusion"] not in ("success", "failure"):
        raise NothingToSayError(f"the run did not come to its end ({visible(str(run['conclusion']))})")
    head = run["head_repository"]
    if head is None:
        raise NothingToSayError("the repository that the pull request came from is gone")
    found = Run(
        repository=event["repository"]["full_name"],
        run_id=int(run["id"]),
        head_repository=head["full_name"],
        head_branch=run["head_branch"],
        head_sha=run["head_sha"],
    )
    names = (found.repository, found.head_repository)
    if not all(_REPOSITORY.fullmatch(name) for name in names) or not _COMMIT.fullmatch(found.head_sha):
        raise NothingToSayError("the event does not name repositories and a commit")
    return found


def pull_request(run: Run, listed: Iterable[dict[str, Any]]) -> int:
    """The number of the open pull request that the run was for, among those that GitHub lists.

    Raises:
        NothingToSayError: there is none any more, or there are several of the same commit.
    """
    found = [
        int(pull["number"])
        for pull in listed
        if pull["state"] == "open"
        and pull["head"]["sha"] == run.head_sha
        and pull["head"]["ref"] == run.head_branch
        and (pull["head"]["repo"] or {}).get("full_name") == run.head_repository
        and pull["base"]["repo"]["full_name"] == run.repository
    ]
    if len(found) > 1:
        raise NothingToSayError(
            f"{len(found)} pull requests have this commit, and the run does not say which"
        )
    if not found:
        raise NothingToSayError("no open pull request has this commit: it was closed, or has a newer one")
    return found[0]


def read_report(archive: bytes) -> CheckReport:
    """The report in an artifact; nothing is unpacked to the disk.

    Raises:
        CatalogError: it is not one that `check --format json` writes, or is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            if opened.getinfo(REPORT).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CatalogError(f"{REPORT} is packed as GitHub packs nothing")
            with opened.open(REPORT) as stream:
                text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise CatalogError(f"the report is larger than {MAX_BYTES:,} bytes")
        value = json.loads(text)
        report = CheckReport.model_validate_json(json.dumps(_shortened(value)))
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        KeyError,
        NotImplementedError,
        EOFError,
        OSError,
    ) as error:
        raise CatalogError(f"the artifact is no archive with a {REPORT}") from error
    except (ValueError, RecursionError, RuntimeError) as error:
        # Of pydantic, of json and of an archive with a password; their words may be the stranger's.
        raise CatalogError(f"{REPORT} has not the form of a report") from error
    codes = [found.code for model in report.models for found in model.findings]
    codes += [skip.code for model in report.models for skip in model.skipped]
    if not all(_CODE.fullmatch(code) for code in codes):
        raise CatalogError(f"{REPORT} names a check that cannot be one")
    return report


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return value


def programs(paths: Iterable[str], data: Sequence[str]) -> list[str]:
    """The files of a change that are not below a folder of data: they may be what made the report."""
    return sorted({path for path in paths if not path.startswith(tuple(data)) or ".." in path.split("/")})


def comment(run: Run, report: CheckReport | str, changed_programs: Sequence[str]) -> str:
    """The comment; `report` is why there is none where it is a text."""
    parts = [MARKER]
    if changed_programs:
        names = [f"{escape(name[:80])}{'…' if len(name) > 80 else ''}" for name in changed_programs[:5]]
        more = f" and {len(changed_programs) - 5:,} more" if len(changed_programs) > 5 else ""
        parts.append(
            f"⚠️ **This pull request changes what the check itself is made of**: {', '.join(names)}{more}. What "
            "stands below may be its own words; read these files first."
        )
    if isinstance(report, str):
        parts.append(f"❔ **Not checked** — {escape(report)}; the run says more.")
    else:
        found, changes = report_of(report)
        change = "" if changes is None else change_markdown(changes)
        parts.append(markdown(found, {}, change=change).removeprefix(MARKER).strip("\n"))
    parts.append(f"<sub>Of commit {run.head_sha[:12]}, from what [its run]({run.address}) left.</sub>")
    return "\n\n".join(parts) + "\n"


def _lines(output: bytes) -> list[Any]:
    return [json.loads(line) for line in output.splitlines() if line.strip()]


def _pulls(run: Run, github: GitHub) -> list[dict[str, Any]]:
    owner = run.head_repository.partition("/")[0]
    query = f"state=open&per_page=100&head={quote(f'{owner}:{run.head_branch}', safe='')}"
    listed: list[dict[str, Any]] = json.loads(github([f"repos/{run.repository}/pulls?{query}"], None))
    return listed


def _changed(run: Run, number: int, data: Sequence[str], github: GitHub) -> list[str]:
    address = f"repos/{run.repository}/pulls/{number}/files?per_page=100"
    rows = _lines(
        github(["--paginate", address, "--jq", ".[] | [.filename, .previous_filename] | @json"], None)
    )
    found = programs((name for row in rows for name in row if name is not None), data)
    return [*found, "more files than GitHub lists"] if len(rows) >= MAX_FILES else found


def _report(run: Run, github: GitHub) -> CheckReport | str:
    query = f"name={ARTIFACT}&per_page=100"
    listed = json.loads(github([f"repos/{run.repository}/actions/runs/{run.run_id}/artifacts?{query}"], None))
    found = [one for one in listed["artifacts"] if one["name"] == ARTIFACT and not one["expired"]]
    if len(found) != 1:
        return "the run left no report" if not found else "the run left several reports"
    if found[0]["size_in_bytes"] > MAX_BYTES:
        return f"the report is larger than {MAX_BYTES:,} bytes"
    try:
        return read_report(
            github([f"repos/{run.repository}/actions/artifacts/{int(found[0]['id'])}/zip"], None)
        )
    except CatalogError as error:
        return error.message


def write(run: Run, github: GitHub, *, data: Sequence[str]) -> str:
    """Write or update the comment, and say which.

    Raises:
        NothingToSayError: there is no pull request to write to.
    """
    number = pull_request(run, _pulls(run, github))
    text = comment(run, _report(run, github), _changed(run, number, data, github))
    # A comment that somebody else wrote is never touched, whatever it begins with.
    select = f'.[] | select(.user.login == "{AUTHOR}" and (.body | startswith("{MARKER}"))) | .id'
    address = f"repos/{run.repository}/issues/{number}/comments"
    ours = _lines(github(["--paginate", f"{address}?per_page=100", "--jq", select], None))
    where = (
        ["--method", "PATCH", f"repos/{run.repository}/issues/comments/{int(ours[0])}"]
        if ours
        else ["--method", "POST", address]
    )
    github([*where, "--silent", "--input", "-"], json.dumps({"body": text}))
    return f"{'updated' if ours else 'wrote'} the comment on pull request {number}"


def gh(arguments: Sequence[str], text: str | None) -> bytes:
    """GitHub's own program, which keeps the token to GitHub's hosts."""
    data = None if text is None else text.encode()
    return subprocess.run(["gh", "api", *arguments], input=data, check=True, stdout=subprocess.PIPE).stdout


def main() -> int:
    """Read the event, and bring the comment up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("event", type=Path)
    parser.add_argument("--data", action="append", metavar="FOLDER/", help="files below it are no programs")
    options = parser.parse_args()
    try:
        run = run_of(json.loads(options.event.read_text(encoding="utf-8")))
        print(write(run, gh, data=options.data or ["catalog/models/"]))
    except NothingToSayError as reason:
        print(f"no comment: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
