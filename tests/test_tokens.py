"""A token goes to the Hub and nowhere else: not into files, messages, other programs, or to other hosts."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_cli_vllm import PLAN, SERVED
from test_new import SMALL, small

from kaito_catalog.dry_runs import task
from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.errors import HubError
from kaito_catalog.hub.fake.server import FakeHub, Fault
from kaito_catalog.site.build import is_installed
from kaito_catalog.system.processes import HUB_TOKENS, environment

CANARY = "hf_canaryCANARYcanaryCANARYcanary1234"
NAME = "example-1b-instruct"

# Each stands for a program of others: it writes down what it was told, says it aloud, and does the work.
GIT = """\
#!/bin/sh
env >> "{seen}/git.txt"
exec "{git}" "$@"
"""
VLLM = """\
#!{python}
import json, os, sys
with open("{seen}/vllm.txt", "a") as file:
    print(json.dumps(dict(os.environ)), file=file)
print(dict(os.environ), file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({{"id": request["id"], "progress": str(dict(os.environ))}}), flush=True)
    if "{dies}":
        sys.exit(3)
    answer = json.loads({answers!r})[request["op"]]
    print(json.dumps({{"id": request["id"], "ok": True, "result": answer}}), flush=True)
"""


@dataclass(frozen=True)
class Place:
    """A clone with a catalog of one gated model, and the Hub that has it."""

    folder: Path
    hub: FakeHub
    variables: dict[str, str]

    @property
    def catalog(self) -> Path:
        return self.folder / "clone" / "catalog"

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "kaito_catalog", *arguments],
            cwd=self.folder / "clone",
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    def program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def vllm(self, *, dies: bool = False) -> str:
        text = VLLM.format(
            python=sys.executable,
            seen=self.folder / "seen",
            dies="yes" if dies else "",
            answers=json.dumps({"exact-plan": PLAN, "dry-run": SERVED}),
        )
        return str(self.program("vllm-python", text))

    def seen(self, program: str) -> str:
        """What a program was started with."""
        return (self.folder / "seen" / f"{program}.txt").read_text()

    def holding_the_canary(self) -> list[str]:
        """The files below that hold the token, or a part of it."""
        part = CANARY[4:20].encode()
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.relative_to(self.folder).as_posix() for path in files if part in path.read_bytes()]


@pytest.fixture
def place(root: Path, tmp_path: Path) -> Iterator[Place]:
    for name in ("bin", "seen", "home"):
        (tmp_path / name).mkdir()
    clone = tmp_path / "clone"
    shutil.copytree(root / "catalog", clone / "catalog", ignore=shutil.ignore_patterns("models"))
    (clone / "catalog" / "models").mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "VIRTUAL_ENV")}
    with FakeHub([small(gated="manual")], tokens={CANARY: ("*",), "hf_stranger": ()}) as hub:
        variables = {
            **kept,
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "home" / "hf"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": CANARY,
            "HUGGING_FACE_HUB_TOKEN": CANARY,
            "PYTHONPATH": str(root),
        }
        found = Place(tmp_path, hub, variables)
        git = shutil.which("git")
        assert git is not None
        found.program("git", GIT.format(git=git, seen=tmp_path / "seen"))
        yield found


def with_a_model(place: Place) -> None:
    done = place.run("new", SMALL, "--author", "@someone")
    assert done.returncode == 0, done.stderr
    assert place.run("record", NAME).returncode == 0


def test_a_run_of_everything_writes_and_prints_no_token(place: Place) -> None:
    python = place.vllm()
    done = [
        place.run("new", SMALL, "--author", "@someone"),
        place.run("record", NAME),
        place.run("check", "--online", "--verbose"),
        place.run("plan", NAME, "--exact", "--record", "--vllm-python", python),
        place.run("dry-run", NAME, "--vllm-python", python),
        place.run("generate", "--no-site"),
    ]
    assert [d.returncode for d in done if d.returncode not in (0, 1)] == []
    assert (place.catalog / "models" / NAME / "facts.yaml").is_file()
    assert list((place.catalog / "models" / NAME / "evidence").iterdir()) != []
    assert (place.folder / "clone" / "build" / "presets").is_dir()
    assert "PATH" in place.seen("vllm")
    assert place.holding_the_canary() == []
    assert [d.args for d in done if "canary" in (d.stdout + d.stderr).lower()] == []


def test_the_hub_does_get_the_token(place: Place) -> None:
    with_a_model(place)
    assert f"Bearer {CANARY}" in {request.headers.get("authorization") for request in place.hub.requests}


def test_git_is_started_without_a_token(place: Place) -> None:
    with_a_model(place)
    clone = place.folder / "clone"
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for arguments in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "-m", "x")):
        subprocess.run([shutil.which("git") or "git", "-C", str(clone), *arguments], check=True)
    assert place.run("check", "--changed-since", "HEAD").returncode == 0
    assert place.run("diff", "HEAD").returncode == 0
    assert "HF_ENDPOINT" in place.seen("git")
    assert place.holding_the_canary() == []


def test_vllm_is_started_without_a_token_where_it_asks_nobody(place: Place) -> None:
    with_a_model(place)
    place.run("dry-run", NAME, "--vllm-python", place.vllm())
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in place.seen("vllm")
    assert CANARY not in place.seen("vllm")


def test_vllm_gets_the_token_to_fetch_weights_from_the_hub(place: Place) -> None:
    with_a_model(place)
    place.run("dry-run", NAME, "--weights", "real", "--no-write", "--vllm-python", place.vllm())
    assert CANARY in place.seen("vllm")


def test_what_a_dying_worker_said_last_holds_no_token(place: Place) -> None:
    with_a_model(place)
    done = place.run("dry-run", NAME, "--vllm-python", place.vllm(dies=True))
    assert done.returncode != 0
    assert "canary" not in (done.stdout + done.stderr).lower()
    assert place.holding_the_canary() == []


@pytest.mark.skipif(not is_installed(), reason="mkdocs-material is not installed")
def test_mkdocs_is_started_without_a_token(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kaito_catalog.site import build

    given: list[dict[str, str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert isinstance(options["env"], dict)
        given.append(options["env"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setattr("kaito_catalog.site.build.subprocess.run", run)
    (tmp_path / "site-src").mkdir()
    build.build_site(tmp_path / "mkdocs.yml", tmp_path)
    assert "PATH" in given[0]
    assert CANARY not in given[0].values()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", status=500),
        Fault("", status=401, headers={"X-Error-Message": f"Invalid credentials {CANARY}"}),
        Fault("", status=403, headers={"X-Error-Message": f"no {CANARY}"}),
        Fault("", status=307, headers={"Location": f"http://user:{CANARY}@127.0.0.1:9/{CANARY}?t={CANARY}"}),
        Fault("", action="corrupt"),
    ],
    ids=["500", "401", "403", "redirect", "garbage"],
)
def test_an_error_shows_no_token(fault: Fault, place: Place) -> None:
    place.hub.faults.append(fault)
    with (
        Hub(endpoint=place.hub.endpoint, token=CANARY, sleep=lambda seconds: None, attempts=2) as hub,
        pytest.raises(HubError) as caught,
    ):
        hub.repository(SMALL)
    assert "canary" not in f"{caught.value.message} {caught.value.hint}".lower()


def test_a_hub_that_cannot_be_reached_is_named_without_its_password() -> None:
    endpoint = f"http://someone:{CANARY}@127.0.0.1:9"
    with Hub(endpoint=endpoint, token=CANARY, attempts=1) as hub, pytest.raises(HubError) as caught:
        hub.repository(SMALL)
    assert "127.0.0.1:9 cannot be reached" in caught.value.message
    assert "canary" not in f"{caught.value.message} {caught.value.hint}".lower()


@pytest.mark.parametrize("odd", ["\x01", "\u2028", " ", "é"])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(odd: str) -> None:
    with pytest.raises(CatalogError, match="holds a character that no token has") as caught:
        Hub(endpoint="http://127.0.0.1:9", token=f"{CANARY}{odd}x")
    assert "canary" not in f"{caught.value.message} {caught.value.hint}".lower()


def test_a_file_that_lies_elsewhere_is_asked_for_without_the_token(place: Place) -> None:
    with FakeHub([small()]) as elsewhere:
        place.hub.cdn = elsewhere.endpoint
        with_a_model(place)
        assert elsewhere.requests != []
        assert [r for r in elsewhere.requests if "authorization" in r.headers] == []
        assert "canary" not in str(elsewhere.requests).lower()


def test_a_call_that_is_sent_elsewhere_asks_nobody(place: Place) -> None:
    with FakeHub([small()]) as elsewhere:
        location = f"{elsewhere.endpoint}/api/models/{SMALL}"
        place.hub.faults.append(Fault("/api/", status=307, headers={"Location": location}))
        done = place.run("new", SMALL)
        assert done.returncode == 2
        assert "redirects to another host" in done.stderr
        assert elsewhere.requests == []


def test_variables_that_hold_a_secret_are_known_by_their_names() -> None:
    secrets = ("HF_TOKEN", "GITHUB_TOKEN", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD")
    base = dict.fromkeys((*secrets, "PATH", "TOKENIZERS_PARALLELISM"), "x")
    assert sorted(environment(base=base)) == [
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        "PATH",
        "TOKENIZERS_PARALLELISM",
    ]


def test_only_the_hubs_tokens_are_passed_on_where_the_hub_is_asked() -> None:
    base = {"HF_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "b", "GITHUB_TOKEN": "c"}
    assert environment(base=base, hub_token=True) == {"HF_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "b"}


def test_a_pod_hides_the_tokens_that_the_program_hides() -> None:
    assert task.SECRETS == HUB_TOKENS
