"""From a repository to facts.yaml: what is kept, how two records differ, and when one may replace the other."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from kaito_catalog.catalog.reading import FACTS, Entry, shown
from kaito_catalog.documents import reading, writing
from kaito_catalog.documents.validation import load
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.base import is_missing
from kaito_catalog.formats.facts import ModelFacts, StoredSize
from kaito_catalog.hub.repository import (
    HubError,
    Repository,
    Snapshot,
    Trouble,
    choose_weights,
    index_to_read,
    indexed_files,
    is_safe,
    printable,
    tensor_bytes,
)
from kaito_catalog.system import files

if TYPE_CHECKING:
    # Offline commands import this module and have no use for an HTTP client.
    from kaito_catalog.hub.client import Hub

Json: TypeAlias = Any

FEW_SHARDS = 2
"""Up to so many headers are read; the Hub's own count of the others is taken where it explains their size."""
MOST_HEADERS = 16
"""Where the Hub has no such count, up to so many are read: Mistral's largest has hundreds, and a call is a call."""
_HEADER_ROOM_BYTES = 2**22
_CONFIG_LIMIT_BYTES = 8 * 2**20
_INDEX_LIMIT_BYTES = 64 * 2**20
_TEXT_LIMIT_BYTES = 4 * 2**20
_MOST_PYTHON_FILES = 30
_WORKERS = 4

SCHEMA_COMMENT = "# yaml-language-server: $schema=../../../schema/facts.schema.json\n"


# --- what is kept of a configuration ---------------------------------------------------------------------------

_NOISE = frozenset(
    """
    _name_or_path add_cross_attention  auto_map bad_words_ids begin_suppress_tokens
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id id2label is_decoder label2id length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_router_logits
    output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate router_aux_loss_coef sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tokenizer_class top_p torchscript transformers.js_config transformers_version typical_p use_bfloat16
    use_cache
    """.split()  # noqa: SIM905
)
_NOISE_PATTERN = re.compile(
    r".*(?:_token_id|_token_ids|_token_index|_dropout|_dropout_rate|_dropout_prob|_pdrop)"
)
_NOISE_START = re.compile(r"(?:initializer_|init_std|dropout|pdrop|aux_loss|seq_aux)")
_DEPTH = 12


def kept_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """The fields of config.json that loading and memory may depend on: all but what is known to be noise.

    Unknown fields are kept, so that architectures nobody here knows can be planned later from recorded facts.
    """
    kept = _kept(config, 0)
    assert isinstance(kept, dict)
    return kept


def _is_noise(key: str) -> bool:
    return key in _NOISE or bool(_NOISE_PATTERN.fullmatch(key) or _NOISE_START.match(key))


def _kept(value: Json, depth: int) -> Json:
    match value:
        case dict():
            if depth >= _DEPTH:
                return {}
            return {
                printable(key): _kept(part, depth + 1)
                for key, part in value.items()
                if not _is_noise(key) and _is_plain(part)
            }
        case list():
            return [_kept(part, depth + 1) for part in value if _is_plain(part)] if depth < _DEPTH else []
        case str():
            return value if is_shown(value) else printable(value)
        case _:
            return value


def is_shown(text: str) -> bool:
    """Whether a text can be written as it is."""
    return len(text) <= 2000 and printable(text[:200]) == text[:200] and "\n" not in text


def _is_plain(value: Json) -> bool:
    """Not a number that YAML readers refuse (JSON's NaN and Infinity, which Python reads), nor one of absurd size."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or isinstance(value, bool) or abs(value) <= 10**18


# --- facts of a repository -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Facts, and what could not be read for them."""

    value: dict[str, Json]
    """As facts.yaml has it."""
    facts: ModelFacts
    missing: tuple[HubError, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and how to have it."""

    @property
    def text(self) -> str:
        """facts.yaml."""
        return SCHEMA_COMMENT + writing.write(self.value)


def facts_of(
    snapshot: Snapshot, *, kind: Literal["hub", "local"], recorded_at: date, all_headers: bool = False
) -> Recorded:
    """Everything that facts.yaml names, read from a repository.

    Args:
        snapshot: the repository at its commit.
        kind: where it was read.
        recorded_at: the day.
        all_headers: read every safetensors header, also where the Hub's own count explains the size of the files.

    Raises:
        CatalogError: something could not be read, other than for want of access (which is in `missing`).
    """
    return _Reader(snapshot, kind, recorded_at, all_headers).recorded()


def listed_facts(repository: Repository, *, recorded_at: date) -> ModelFacts:
    """The facts that the Hub's listing alone gives: no file is read."""
    return _validated(
        _listing(repository, "hub", recorded_at, choose=index_to_read(_paths(repository)) is None)
    )


def _paths(repository: Repository) -> list[str]:
    return [file.path for file in repository.files]


@dataclass
class _Reader:
    snapshot: Snapshot
    kind: Literal["hub", "local"]
    recorded_at: date
    all_headers: bool
    missing: list[HubError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def recorded(self) -> Recorded:
        repository = self.snapshot.repository
        paths = _paths(repository)
        index = index_to_read(paths)
        indexed = self._indexed(index) if index else None
        readable = not (index and indexed is None)
        value = _listing(repository, self.kind, self.recorded_at, choose=readable, indexed=indexed)
        if self.kind == "local":
            self._hash_weights(value)
        license_file = license_path(paths)
        if license_file and "license" in value:
            digest = self._try(lambda: self.snapshot.sha256(license_file))
            if digest:
                value["license"]["sha256"] = digest
        config = self._config(paths)
        choice = choose_weights(paths, indexed) if readable else None
        if choice is not None and choice.format in ("safetensors", "mistral"):
            counts = self._parameters(choice.loaded)
            value["safetensors"] = {"parametersByDtype": counts} if counts else None
        if config is not None:
            value["remoteCode"] = self._remote_code(paths, config)
            value["config"] = kept_config(config) or None
        value = {key: part for key, part in value.items() if part is not None}
        return Recorded(value, _validated(value), tuple(self.missing), tuple(self.notes))

    def _try(self, function: Callable[[], Any]) -> Any:
        """Read a file; None where it is not for us to read. After that no other is tried."""
        if self.missing:
            return None
        try:
            return function()
        except HubError as error:
            if error.trouble in (Trouble.GATED, Trouble.FORBIDDEN):
                self.missing.append(error)
                return None
            raise

    def _json(self, path: str, limit_bytes: int) -> Any:
        data = self._try(lambda: self.snapshot.read(path, limit_bytes=limit_bytes))
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            where = f"{self.snapshot.repository.repo_id}: {path}"
            raise HubError(Trouble.CORRUPT, f"{where} is not JSON") from error

    def _indexed(self, index: str) -> tuple[str, ...] | None:
        value = self._json(index, _INDEX_LIMIT_BYTES)
        if value is None:
            return None
        found = indexed_files(value)
        if found is None:
            where = f"{self.snapshot.repository.repo_id}: {index}"
            raise HubError(Trouble.CORRUPT, f"{where} names no files of weights")
        return found

    def _config(self, paths: Sequence[str]) -> dict[str, Json] | None:
        # Mistral's own format has params.json instead.
        path = next((name for name in ("config.json", "params.json") if name in paths), None)
        if path is None:
            return None
        config = self._json(path, _CONFIG_LIMIT_BYTES)
        if config is None:
            return None
        if not isinstance(config, dict):
            raise HubError(
                Trouble.CORRUPT, f"{self.snapshot.repository.repo_id}: {path} holds no keys and values"
            )
        text = config.get("text_config")
        nested = isinstance(text, dict) and "quantization_config" in text
        if "hf_quant_config.json" in paths and "quantization_config" not in config and not nested:
            # vLLM puts ModelOpt's side file in that place when it loads the configuration.
            side = self._json("hf_quant_config.json", _CONFIG_LIMIT_BYTES)
            if isinstance(side, dict) and isinstance(side.get("quantization"), dict):
                config = {**config, "quantization_config": side["quantization"]}
        return config

    def _parameters(self, loaded: Sequence[str]) -> dict[str, int] | None:
        repository = self.snapshot.repository
        sizes = [file.size_bytes for path in loaded if (file := repository.file(path))]
        counts = repository.parameters_by_dtype
        if counts and len(loaded) > FEW_SHARDS and not self.all_headers and None not in sizes:
            size = sum(size for size in sizes if size is not None)
            tensors = tensor_bytes(counts)
            if tensors is not None and 0 < size - tensors <= _HEADER_ROOM_BYTES * len(loaded):
                return dict(counts)
        if len(loaded) > MOST_HEADERS and not self.all_headers:
            self.notes.append(f"parameters not counted: {len(loaded)} headers would be read (--all-headers)")
            return None
        total: dict[str, int] = {}
        for path in loaded:
            header = self._try(lambda path=path: self.snapshot.safetensors_header(path))  # type: ignore[misc]
            if header is None:
                return None
            for dtype, count in header.items():
                total[dtype] = total.get(dtype, 0) + count
        return dict(sorted(total.items()))

    def _remote_code(self, paths: Sequence[str], config: Mapping[str, Json]) -> dict[str, Json] | None:
        python = [path for path in paths if path.endswith(".py")]
        auto_map = _auto_map(config)
        if not python and not auto_map:
            return None
        if python and "tokenizer_config.json" in paths:
            tokenizer = self._json("tokenizer_config.json", _TEXT_LIMIT_BYTES)
            if isinstance(tokenizer, dict):
                auto_map = {**_auto_map(tokenizer), **auto_map}
        found = []
        for number, path in enumerate(python):
            wanted = number < _MOST_PYTHON_FILES or self.kind == "local"
            digest = self._try(lambda path=path: self.snapshot.sha256(path)) if wanted else None  # type: ignore[misc]
            found.append({"path": path, "sha256": digest} if digest else {"path": path})
        return {"files": found, **({"autoMap": auto_map} if auto_map else {})}

    def _hash_weights(self, value: dict[str, Json]) -> None:
        """What the Hub keeps in LFS has a hash there; a directory's files are hashed, so that both can be compared."""
        lfs = {file.path for file in self.snapshot.repository.files if file.is_lfs}
        for file in value.get("files", ()):
            if file["path"] in lfs and "sha256" not in file:
                file["sha256"] = self.snapshot.sha256(file["path"])


def _auto_map(config: Mapping[str, Json]) -> dict[str, Json]:
    """`auto_map` as far as it is one: class to `module.Class` or `org/repo--module.Class`, or a list of these."""
    found = config.get("auto_map")
    if not isinstance(found, dict):
        return {}
    return {
        printable(key): part
        for key, part in found.items()
        if (isinstance(part, str) and is_shown(part))
        or (
            isinstance(part, list)
            and all(item is None or (isinstance(item, str) and is_shown(item)) for item in part)
        )
    }


def license_path(paths: Iterable[str]) -> str | None:
    """The file with the licence's text: LICENSE, or what comes nearest."""
    found = [path for path in paths if re.fullmatch(r"(?i)licen[sc]e([-_.][\w.-]*)?", path)]
    return min(
        found,
        key=lambda path: (path.upper() not in ("LICENSE", "LICENSE.TXT", "LICENSE.MD"), path),
        default=None,
    )


def _listing(
    repository: Repository,
    kind: str,
    recorded_at: date,
    *,
    choose: bool,
    indexed: Sequence[str] | None = None,
) -> dict[str, Json]:
    listed: list[dict[str, Json]] = []
    for file in repository.files:
        entry: dict[str, Json] = {"path": file.path, "sizeBytes": file.size_bytes, "sha256": file.sha256}
        listed.append({key: part for key, part in entry.items() if part is not None})
    listed.extend({"path": name} for name in repository.unsafe_names)
    paths = _paths(repository)
    choice = choose_weights(paths, indexed) if choose else None
    weights: dict[str, Json] | None = None
    if choice is not None:
        sizes = [found.size_bytes for path in choice.downloaded if (found := repository.file(path))]
        weights = {"format": choice.format}
        if choice.format != "gguf" and None not in sizes:
            weights["total"] = {"sizeBytes": sum(size for size in sizes if size is not None)}
            weights["files"] = len(choice.downloaded)
    license_: dict[str, Json] | None = None
    if repository.license_id:
        license_ = {"id": repository.license_id}
        if repository.license_name:
            license_["name"] = repository.license_name
        link = _link(repository)
        if link:
            license_["link"] = link
    size = repository.size_bytes
    base = [name for name in repository.base_models if _REPO_ID.fullmatch(name)]
    value: dict[str, Json] = {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelFacts",
        "repoId": repository.repo_id,
        "revision": repository.revision,
        "recordedAt": recorded_at.isoformat(),
        "source": {"kind": kind},
        "license": license_,
        "gated": repository.gated,
        "pipelineTag": repository.pipeline_tag,
        "baseModels": base or None,
        "repository": {"sizeBytes": size} if size is not None else None,
        "weights": weights,
        "files": listed or None,
        "safetensors": None,
        "remoteCode": None,
        "config": None,
    }
    return {
        key: part
        for key, part in value.items()
        if part is not None or key in ("safetensors", "remoteCode", "config")
    }


_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_URL = re.compile(r"https?://[^\s<>\"]{1,2000}")


def _link(repository: Repository) -> str | None:
    """The card's licence link; a file of the repository becomes its page at the revision."""
    link = repository.license_link
    if link is None or _URL.fullmatch(link):
        return link
    if (
        is_safe(link)
        and repository.file(link)
        and repository.revision
        and _URL.fullmatch(f"https://x/{link}")
    ):
        return f"https://huggingface.co/{repository.repo_id}/blob/{repository.revision}/{link}"
    return None


def _validated(value: Mapping[str, Json]) -> ModelFacts:
    """The value as facts.yaml would be read back: what cannot be is an error, never a file."""
    clean = {key: part for key, part in value.items() if part is not None}
    name = printable(str(clean.get("repoId")))
    text = writing.write(clean)
    if len(text.encode()) > reading.MAX_BYTES:
        raise CatalogError(f"{name}: its facts take {len(text.encode()):,} bytes, more than a file may have")
    facts, problems = load(reading.parse(text, path=FACTS), ModelFacts)
    if facts is None:
        first = problems[0]
        raise CatalogError(f"{name}: what was read makes no facts.yaml: {first.message}", hint=first.hint)
    return facts


# --- two records -----------------------------------------------------------------------------------------------


class Change(Enum):
    """The name of a difference, as messages have it; HUB codes document them."""

    GONE = "gone"
    MOVED = "moved"
    REVISION_GONE = "revision gone"
    GATED = "gated"
    RELICENSED = "re-licensed"
    REUPLOADED = "re-uploaded"
    RETAGGED = "re-tagged"

    @property
    def code(self) -> str:
        """The code that `explain` documents."""
        return _CODES[self]


_CODES = {
    Change.GONE: "HUB001",
    Change.MOVED: "HUB002",
    Change.REVISION_GONE: "HUB003",
    Change.GATED: "HUB004",
    Change.RELICENSED: "HUB005",
    Change.REUPLOADED: "HUB006",
    Change.RETAGGED: "HUB010",
}


@dataclass(frozen=True)
class Difference:
    """Something recorded that is no longer so: the key in facts.yaml, the recorded and the found value as text."""

    change: Change
    field: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.change.code} {self.change.value}: {self.field} was {self.recorded}, is {self.found}"


def differences(recorded: ModelFacts, found: ModelFacts) -> list[Difference]:
    """What two records of one revision contradict each other in.

    What only one of them knows is no contradiction; a transcribed figure agrees with what lies within its
    precision; of two configurations the keys that both have are compared.
    """
    result = list(_scalar_differences(recorded, found))
    result.extend(_size_differences(recorded, found))
    result.extend(_file_differences(recorded, found))
    if recorded.safetensors and found.safetensors:
        old, new = recorded.safetensors.parameters_by_dtype, found.safetensors.parameters_by_dtype
        if old != new:
            result.append(Difference(Change.REUPLOADED, "safetensors", _counts(old), _counts(new)))
    result.extend(_code_differences(recorded, found))
    for key, old_text, new_text in _config_differences(recorded.config or {}, found.config or {}, "config"):
        result.append(Difference(Change.REUPLOADED, key, old_text, new_text))
    return result


def _scalar_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[Difference]:
    if recorded.repo_id != found.repo_id:
        yield Difference(Change.MOVED, "repoId", recorded.repo_id, found.repo_id)
    if (
        recorded.gated
        and found.gated
        and recorded.gated != found.gated
        and not (recorded.gated == "yes" and found.gated != "no")
    ):
        yield Difference(Change.GATED, "gated", recorded.gated, found.gated)
    old, new = recorded.license, found.license
    if old is not None and new is not None:
        for key in ("id", "name", "link", "sha256"):
            before, after = getattr(old, key), getattr(new, key)
            if before is not None and after is not None and before != after:
                yield Difference(Change.RELICENSED, f"license.{key}", _short(before), _short(after))
    if recorded.pipeline_tag and found.pipeline_tag and recorded.pipeline_tag != found.pipeline_tag:
        yield Difference(Change.RETAGGED, "pipelineTag", recorded.pipeline_tag, found.pipeline_tag)
    if recorded.base_models and found.base_models and set(recorded.base_models) != set(found.base_models):
        yield Difference(
            Change.RETAGGED, "baseModels", ", ".join(recorded.base_models), ", ".join(found.base_models)
        )


def _size_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[Difference]:
    if not _agree(recorded.repository, found.repository):
        yield Difference(
            Change.REUPLOADED, "repository.sizeBytes", _size(recorded.repository), _size(found.repository)
        )
    old, new = recorded.weights, found.weights
    if old is None or new is None:
        return
    if old.format != new.format:
        yield Difference(Change.REUPLOADED, "weights.format", old.format, new.format)
    if not _agree(old.total, new.total):
        yield Difference(Change.REUPLOADED, "weights.total", _size(old.total), _size(new.total))
    if old.files is not None and new.files is not None and old.files != new.files:
        yield Difference(Change.REUPLOADED, "weights.files", str(old.files), str(new.files))


def _file_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[Difference]:
    if recorded.files is None or found.files is None:
        return
    new = {file.path: file for file in found.files}
    for file in recorded.files:
        other = new.get(file.path)
        route = f"files: {printable(file.path)}"
        if other is None:
            yield Difference(Change.REUPLOADED, route, "there", "gone")
        elif file.sha256 and other.sha256 and file.sha256 != other.sha256:
            yield Difference(Change.REUPLOADED, route, f"sha256 {_short(file.sha256)}", _short(other.sha256))
        elif (
            file.size_bytes is not None
            and other.size_bytes is not None
            and file.size_bytes != other.size_bytes
        ):
            yield Difference(
                Change.REUPLOADED, route, f"{file.size_bytes:,} bytes", f"{other.size_bytes:,} bytes"
            )
    if recorded.source.kind != "transcribed":
        known = {file.path for file in recorded.files}
        for path in sorted(new.keys() - known):
            yield Difference(Change.REUPLOADED, f"files: {printable(path)}", "absent", "there")


def _code_differences(recorded: ModelFacts, found: ModelFacts) -> Iterator[Difference]:
    if recorded.remote_code is None or found.remote_code is None:
        return
    new = {file.path: file.sha256 for file in found.remote_code.files}
    for file in recorded.remote_code.files:
        after = new.get(file.path)
        if file.sha256 and after and file.sha256 != after:
            yield Difference(
                Change.REUPLOADED,
                f"remoteCode: {printable(file.path)}",
                f"sha256 {_short(file.sha256)}",
                _short(after),
            )
    before_map, after_map = recorded.remote_code.auto_map, found.remote_code.auto_map
    if before_map and after_map:
        for key, old_text, new_text in _config_differences(before_map, after_map, "remoteCode.autoMap"):
            yield Difference(Change.REUPLOADED, key, old_text, new_text)


def _config_differences(
    recorded: Mapping[str, Json], found: Mapping[str, Json], where: str
) -> Iterator[tuple[str, str, str]]:
    for key, old in recorded.items():
        if key not in found:
            continue
        new = found[key]
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _config_differences(old, new, f"{where}.{key}")
        elif old != new:
            yield f"{where}.{key}", _short(json.dumps(old)), _short(json.dumps(new))


def _agree(recorded: StoredSize | None, found: StoredSize | None) -> bool:
    if recorded is None or found is None:
        return True
    return recorded.low_bytes <= found.high_bytes and found.low_bytes <= recorded.high_bytes


def _size(size: StoredSize | None) -> str:
    assert size is not None
    around = f" ± {size.precision_bytes:,}" if size.precision_bytes else ""
    return f"{size.size_bytes:,}{around} bytes"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {dtype}" for dtype, count in counts.items())


def _short(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40,64}", text):
        return f"{text[:12]}…"
    return text if len(text) <= 80 else f"{text[:79]}…"


# --- whether to write ------------------------------------------------------------------------------------------


class Outcome(Enum):
    """What `record` did with a model."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """The facts contradict what was recorded, and nobody accepted that."""
    FAILED = "failed"


@dataclass(frozen=True)
class Decision:
    """Whether found facts may replace recorded ones."""

    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()


def decide(recorded: ModelFacts | None, found: ModelFacts, *, asked: str, accept: bool = False) -> Decision:
    """Whether `found` may replace `recorded`.

    Transcribed facts are replaced by what the Hub says where they agree; any contradiction at the same revision
    needs a person's `--accept`, and so does a repository that answers under another name than was asked for.
    At another revision other facts are expected: they replace the old ones.
    """
    moved = [] if asked == found.repo_id else [Difference(Change.MOVED, "repoId", asked, found.repo_id)]
    if recorded is None:
        refused = bool(moved) and not accept
        return Decision(Outcome.REFUSED if refused else Outcome.WRITTEN, tuple(moved))
    same_revision = recorded.revision is None or found.revision is None or recorded.revision == found.revision
    contradictions = [d for d in differences(recorded, found) if d.change is not Change.MOVED]
    if recorded.repo_id != found.repo_id and not moved:
        moved = [Difference(Change.MOVED, "repoId", recorded.repo_id, found.repo_id)]
    if not same_revision:
        notes = [
            f"the revision was {_short(recorded.revision or '')}, is {_short(found.revision or '')}",
            *(f"{d.field} was {d.recorded}, is {d.found}" for d in contradictions),
        ]
        refused = bool(moved) and not accept
        return Decision(Outcome.REFUSED if refused else Outcome.WRITTEN, tuple(moved), tuple(notes))
    found_differences = tuple(moved + contradictions)
    if found_differences and not accept:
        return Decision(Outcome.REFUSED, found_differences)
    notes = []
    if recorded.source.kind == "transcribed":
        notes.append(
            f"replaces transcribed facts that {'do not all agree' if found_differences else 'agree'}"
        )
    elif not found_differences and _same(recorded, found):
        return Decision(Outcome.UNCHANGED)
    return Decision(Outcome.WRITTEN, found_differences, tuple(notes))


def _same(recorded: ModelFacts, found: ModelFacts) -> bool:
    exclude = {"recorded_at"}
    return recorded.model_dump(exclude=exclude) == found.model_dump(exclude=exclude)


# --- many models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A model to record."""

    name: str
    folder: Path
    repo_id: str
    revision: str | None
    recorded: ModelFacts | None

    @classmethod
    def of(cls, entry: Entry) -> Target:
        """The target of an entry.

        Raises:
            CatalogError: its proposal names no repository, or cannot be read.
        """
        proposal = entry.proposal
        if proposal is None:
            raise CatalogError(
                f"{shown(entry.folder)}: the proposal cannot be read", hint="see 'kaito-catalog check'"
            )
        if proposal.repo_id is None:
            raise CatalogError(
                f"{entry.name}: the download site is not a page of the Hub",
                hint="see 'kaito-catalog explain DOC003'",
            )
        version = proposal.requirements.version
        recorded = (
            entry.facts
            if entry.facts_document and entry.facts_document.path == shown(entry.folder / FACTS)
            else None
        )
        if recorded is None and (entry.folder / FACTS).is_file():
            raise CatalogError(
                f"{shown(entry.folder / FACTS)} cannot be read", hint="see 'kaito-catalog check'"
            )
        return cls(
            entry.name, entry.folder, proposal.repo_id, None if is_missing(version) else version, recorded
        )


@dataclass(frozen=True)
class Result:
    """What came of one target."""

    target: Target
    outcome: Outcome
    decision: Decision | None = None
    error: CatalogError | None = None

    @property
    def failed(self) -> bool:
        """Whether the command ends with exit code 1."""
        return self.outcome in (Outcome.REFUSED, Outcome.FAILED)


def change_of(error: CatalogError) -> Change | None:
    """The name of what a failed request means for a recorded model; None where it means nothing."""
    if not isinstance(error, HubError):
        return None
    match error.trouble:
        case Trouble.GONE | Trouble.DISABLED:
            return Change.GONE
        case Trouble.REVISION_GONE:
            return Change.REVISION_GONE
        case _:
            return None


def record_from(
    target: Target,
    snapshot: Snapshot,
    *,
    kind: Literal["hub", "local"],
    recorded_at: date,
    accept: bool,
    all_headers: bool,
) -> tuple[Recorded, Decision]:
    """Read a target's repository and decide whether its facts may be written.

    Raises:
        CatalogError: something could not be read.
    """
    recorded = facts_of(snapshot, kind=kind, recorded_at=recorded_at, all_headers=all_headers)
    if recorded.missing:
        raise recorded.missing[0]
    decision = decide(target.recorded, recorded.facts, asked=target.repo_id, accept=accept)
    return recorded, replace(decision, notes=(*decision.notes, *recorded.notes))


def record_all(
    targets: Sequence[Target],
    hub: Hub,
    *,
    recorded_at: date,
    accept: bool = False,
    all_headers: bool = False,
    workers: int = _WORKERS,
) -> Generator[Result, None, None]:
    """Record models from the Hub, several at once; each is written whole as soon as it is known, in order.

    A model that fails keeps what was recorded of it, and the others go on.
    """

    def one(target: Target) -> tuple[Recorded, Decision]:
        snapshot = hub.snapshot(target.repo_id, target.revision)
        return record_from(
            target, snapshot, kind="hub", recorded_at=recorded_at, accept=accept, all_headers=all_headers
        )

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="record") as pool:
        waiting: list[tuple[Target, Future[tuple[Recorded, Decision]]]] = [
            (target, pool.submit(one, target)) for target in targets
        ]
        try:
            for target, future in waiting:
                try:
                    recorded, decision = future.result()
                    yield write(target, recorded, decision)
                except CatalogError as error:
                    yield Result(target, Outcome.FAILED, error=error)
        except BaseException:
            # Also when the reader of these results stops: nobody waits for a rate limit that nobody needs.
            for _, future in waiting:
                future.cancel()
            hub.stop()
            raise


def write(target: Target, recorded: Recorded, decision: Decision) -> Result:
    """Write facts.yaml where the decision says so.

    Raises:
        CatalogError: the disk refuses.
    """
    if decision.outcome is Outcome.WRITTEN:
        files.write_text(target.folder / FACTS, recorded.text)
    return Result(target, decision.outcome, decision)
