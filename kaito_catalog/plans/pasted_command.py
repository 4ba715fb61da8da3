"""The words of a command → the start of vLLM in it: model, options, environment, GPUs; also in `docker run`, `bash -c`.

Nothing is run. What is not a start of vLLM is no error here: a text may hold other commands as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaito_catalog.diagnostics import Place
from kaito_catalog.errors import CatalogError
from kaito_catalog.kaito.launch import CPU_UTILIZATION, LMCACHE
from kaito_catalog.memory.harmless_options import why_harmless
from kaito_catalog.plans.serve_options import ServeOptions, read_serve_options
from kaito_catalog.plans.shell_words import Word, read_commands

_SHOWN = 60
_MODULES = ("vllm.entrypoints.openai.api_server", "vllm.entrypoints.cli.main", "vllm")
_SCRIPTS = ("api_server.py", "inference_api.py")
_KAITOS_LAUNCHER = "inference_api.py"
_SHELLS = ("bash", "sh", "dash", "zsh", "ash")
_ENGINES = ("docker", "podman", "nerdctl")
_DOCKER_SWITCHES = re.compile(
    r"-[ditPq]+\Z|--(?:detach|interactive|tty|rm|privileged|init|publish-all|read-only|no-healthcheck|quiet"
    r"|oom-kill-disable|sig-proxy|disable-content-trust|replace|tls-verify)\Z"
)
"""Options of `docker run` without a value; each other one has one."""
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_TAG = re.compile(r":v?([0-9]+\.[0-9]+\.[0-9]+(?:\.post[0-9]+)?)")


@dataclass(frozen=True)
class PastedStart:
    """A start of vLLM that somebody wrote down."""

    place: Place
    name: str
    """What it is of, in words: a container, a command."""
    words: tuple[Word, ...]
    """The arguments of `vllm serve`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu_count: int | None = None
    """The GPUs that one node gives it; None where nothing says how many."""
    node_count: int | None = None
    gpu: str | None = None
    instance_type: str | None = None
    vllm_version: str | None = None
    """Of the image, where its tag says it."""

    def options(self, vllm_version: str) -> ServeOptions:
        """The model and the options, as that version of vLLM reads them.

        Raises:
            CatalogError: an option is not known or not to be read, at its line.
        """
        try:
            found = read_serve_options([word.text for word in self.words], vllm_version)
        except CatalogError as error:
            for word in self.words:
                if word.unknown is not None and word.unknown in error.message:
                    raise _not_known(word, "a value") from error
            raise CatalogError(
                f"{self._place_of(error.message)}: {error.message}", hint=error.hint
            ) from error
        for word in self.words:
            if word.unknown is not None:
                self._allow(word, found)
        return found

    def _place_of(self, message: str) -> Place:
        for word in self.words:
            name = word.text.partition("=")[0].partition(".")[0]
            if len(name) > 1 and name in message:
                return word.place
        return self.words[0].place if self.words else self.place

    def _allow(self, word: Word, found: ServeOptions) -> None:
        """Nothing, where what only the shell knows is of an option on which no memory depends."""
        assert word.unknown is not None
        named = [option.name for option in found.options if word.unknown in option.value]
        if not named or any(why_harmless(name) is None for name in named):
            name = named[0] if named else "the model"
            raise _not_known(word, name)


def _not_known(word: Word, what: str) -> CatalogError:
    return CatalogError(
        f"{word.place}: {what} is {word.text[:_SHOWN]}, and {(word.unknown or '')[:_SHOWN]} is not known here",
        hint="write the value in its place, or set the variable in the same text",
    )


def starts_in_text(text: str, path: str) -> list[PastedStart]:
    """The starts of vLLM among the commands of a text.

    Raises:
        CatalogError: the text is no list of commands.
    """
    found: list[PastedStart] = []
    exported: dict[str, str] = {}
    for command in read_commands(text, path):
        if command[0].text == "export":
            exported |= dict(pair for word in command[1:] if (pair := word.assignment))
            continue
        found += [replace(s, environment={**exported, **s.environment}) for s in starts_of(command)]
    return [_with_visible_gpus(start) for start in found]


def starts_of(command: Sequence[Word], environment: Mapping[str, str] | None = None) -> Iterator[PastedStart]:
    """The starts of vLLM in one command: itself, in a container, or in the script of a shell."""
    words, own = _without_assignments(list(command), dict(environment or {}))
    for number, word in enumerate(words):
        name = word.text.rpartition("/")[2]
        if name in _ENGINES and any(w.text in ("run", "create") for w in words[number + 1 : number + 3]):
            yield from _in_container(words[number + 1 :], own)
            return
        script = _script(words, number, name)
        if script is not None:
            for inner in read_commands(script.text, script.place.path, own):
                moved = [replace(w, place=script.place) for w in inner]
                yield from starts_of(moved, own)
            return
        length = _length_of_program(words, number, name)
        if length:
            arguments = words[number + length :]
            if name == _KAITOS_LAUNCHER:
                arguments = _as_kaitos_launcher(arguments, word)
            shown = " ".join(w.text for w in words[number : number + length])
            yield PastedStart(word.place, shown, tuple(arguments), own)
            return


def _without_assignments(words: list[Word], own: dict[str, str]) -> tuple[list[Word], dict[str, str]]:
    """The command behind `NAME=value` and `env`, and the environment that these set."""
    while words and (words[0].assignment or words[0].text in ("env", "sudo", "exec", "time", "nohup")):
        pair = words.pop(0).assignment
        if pair:
            own[pair[0]] = pair[1]
    return words, own


def _script(words: Sequence[Word], number: int, name: str) -> Word | None:
    """What stands behind `bash -c`."""
    if name not in _SHELLS:
        return None
    for place, word in enumerate(words[number + 1 : -1], number + 1):
        if re.fullmatch(r"-[a-z]*c", word.text):
            return words[place + 1]
    return None


def _length_of_program(words: Sequence[Word], number: int, name: str) -> int:
    """How many words name the program, where it is vLLM's server; else 0."""
    after = [word.text for word in words[number + 1 : number + 3]]
    if name == "vllm" and after[:1] == ["serve"]:
        return 2
    if name == "-m" and after and after[0] in _MODULES:
        is_server = after[0] == _MODULES[0]
        return 2 if is_server else 3 if after[1:2] == ["serve"] else 0
    return 1 if name in _SCRIPTS else 0


def _as_kaitos_launcher(arguments: Sequence[Word], launcher: Word) -> list[Word]:
    """What KAITO's launcher makes of its arguments: its own are left out, and LMCache is attached."""
    kept: list[Word] = []
    share, rest = "0.5", list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.text.partition("=")
        if not name.startswith("--kaito-"):
            kept.append(word)
            continue
        if not equals and rest:
            value = rest.pop(0).text
        if name == f"--{CPU_UTILIZATION}":
            share = value
    if re.fullmatch(r"[0.]*", share) is None and not any(
        w.text.startswith("--kv-transfer-config") for w in kept
    ):
        kept.append(Word(f"--kv-transfer-config={json.dumps(LMCACHE)}", launcher.place))
    return kept


def _in_container(words: Sequence[Word], environment: Mapping[str, str]) -> Iterator[PastedStart]:
    """`run [options] image [arguments]` of Docker and its like."""
    own, gpus = dict(environment), None
    entrypoint: Word | None = None
    rest = list(words)
    while rest and rest[0].text not in ("run", "create"):
        rest.pop(0)
    rest = rest[1:]
    while rest and rest[0].text.startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.text.partition("=")
        if not equals and not _DOCKER_SWITCHES.match(name) and rest:
            value = rest.pop(0).text
        if name in ("-e", "--env"):
            variable, _, text = value.partition("=")
            own[variable] = text
        elif name == "--gpus":
            gpus = gpus_of_docker(value)
        elif name == "--device" and re.match(r"nvidia\.com/gpu=[0-9]", value):
            gpus = (gpus or 0) + 1
        elif name == "--entrypoint":
            entrypoint = replace(word, text=value)
    if not rest:
        return
    image, arguments = rest[0], rest[1:]
    command = [entrypoint, *arguments] if entrypoint else arguments
    for start in starts_of_image(image, command, own, has_entrypoint=entrypoint is not None):
        yield replace(start, gpu_count=gpus if gpus is not None else start.gpu_count)


def starts_of_image(
    image: Word | None, command: Sequence[Word], environment: Mapping[str, str], *, has_entrypoint: bool
) -> Iterator[PastedStart]:
    """The starts of vLLM in a container.

    Args:
        image: its name.
        command: the entry point, where somebody names one, and the arguments.
        environment: its variables.
        has_entrypoint: whether the command begins with the program; else the image's own is run.
    """
    found = list(starts_of(command, environment))
    name = image.text if image else ""
    if not found and not has_entrypoint and "vllm" in name.rpartition("/")[2].partition(":")[0] and image:
        found = [PastedStart(image.place, name[:_SHOWN], tuple(command), environment)]
    tag = _TAG.search(name)
    is_vllms = "vllm-openai" in name
    for start in found:
        yield replace(start, vllm_version=tag[1] if tag and is_vllms else start.vllm_version)


def gpus_of_docker(value: str) -> int | None:
    """The GPUs of `--gpus`: a number, or a list of devices; None for all."""
    text = value.strip("'\"")
    devices = re.search(r"device=([^\"']+)", text)
    if devices:
        return len([device for device in devices[1].split(",") if device])
    count = re.fullmatch(r"(?:count=)?([0-9]{1,4})", text)
    return int(count[1]) if count else None


def _with_visible_gpus(start: PastedStart) -> PastedStart:
    """The GPUs that a variable lists, where nothing else counts them."""
    if start.gpu_count is not None:
        return start
    for name in _VISIBLE:
        devices = [d for d in start.environment.get(name, "").split(",") if d.strip()]
        if devices and devices[0] not in ("all", "void", "none", "-1") and "$" not in devices[0]:
            return replace(start, gpu_count=len(devices))
    return start


def with_visible_gpus(starts: Sequence[PastedStart]) -> list[PastedStart]:
    """Those with the GPUs that a variable lists, where nothing else counts them."""
    return [_with_visible_gpus(start) for start in starts]
