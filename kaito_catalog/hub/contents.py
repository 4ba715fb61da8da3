"""What a repository holds where it is not a model that vLLM serves by itself: an adapter, GGUF alone, a pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.repository import Repository, Snapshot, printable
from kaito_catalog.hub.weight_files import choose_weights

_CONFIG_LIMIT_BYTES = 8 * 2**20
_CONFIGS = ("config.json", "params.json")
_OTHER_WEIGHTS = {
    ".onnx": "ONNX",
    ".msgpack": "Flax",
    ".h5": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".nemo": "NeMo",
    ".ckpt": "a training checkpoint",
    ".npz": "NumPy",
    ".pth": "a PyTorch checkpoint",
}
_OTHER_LIBRARIES = {
    "open_clip_config.json": ("an OpenCLIP model", "look for the same model converted to transformers"),
    "config_sentence_transformers.json": (
        "a sentence-transformers model without a configuration of its own",
        "name the repository of the transformer that it wraps",
    ),
    "modules.json": (
        "a sentence-transformers model without a configuration of its own",
        "name the repository of the transformer that it wraps",
    ),
    "preprocessor_config.json": ("a processor without a model", "name the repository of the model"),
    "tokenizer.json": ("a tokenizer without a model", "name the repository of the model"),
}


@dataclass(frozen=True)
class NotServable:
    """What the repository is instead, and what would help."""

    what: str
    hint: str


def what_else(repository: Repository) -> NotServable | None:
    """What a repository is that is not a model to serve, by the names of its files; None where it looks like one."""
    top = [file.path for file in repository.files if "/" not in file.path]
    return _by_names(repository, top) or (None if "params.json" in top else _by_weights(repository))


def what_else_it_says(snapshot: Snapshot, config: Mapping[str, object] | None) -> NotServable | None:
    """The same by its configuration, which is read again where what was kept of it names no architecture.

    Args:
        snapshot: the repository.
        config: what the facts keep of its config.json; None where it could not be read.
    """
    if config is None or "architectures" in config or "model_type" in config:
        return None
    return _by_config(_config(snapshot))


def _by_names(repository: Repository, top: list[str]) -> NotServable | None:
    configured = any(name in top for name in _CONFIGS)
    if "adapter_config.json" in top and (not configured or not _has_model_weights(repository)):
        base = f" of {printable(repository.base_models[0])}" if repository.base_models else ""
        return NotServable(
            f"a PEFT adapter{base}, which is served beside its base model",
            "propose the base model, and list this one under deployment.adapters",
        )
    if "model_index.json" in top:
        return NotServable(
            "a diffusers pipeline", "KAITO serves language models with vLLM; it has no runtime for this"
        )
    if configured:
        return None
    if any(name.endswith(".gguf") for name in top):
        base = f", such as {printable(repository.base_models[0])}" if repository.base_models else ""
        return NotServable(
            "GGUF alone: weights without the configuration that KAITO reads",
            f"propose the repository that they were made from{base}",
        )
    folders = sorted(
        {file.path.rpartition("/")[0] for file in repository.files if file.path.endswith("/config.json")}
    )
    if folders and not any(name in top for name in _OTHER_LIBRARIES):
        shown = ", ".join(map(printable, folders[:3])) + (", …" if len(folders) > 3 else "")
        return NotServable(
            f"several models in folders ({shown}): vLLM reads the configuration of the top folder alone",
            "propose a repository that holds the one model",
        )
    for name, (what, hint) in _OTHER_LIBRARIES.items():
        if name in top:
            return NotServable(what, hint)
    return NotServable(
        "a repository without a config.json: what its weights are is not known",
        "propose a repository in the format of transformers, or in Mistral's with a params.json",
    )


def _has_model_weights(repository: Repository) -> bool:
    choice = choose_weights([file.path for file in repository.files])
    return choice is not None and any(not path.startswith("adapter_model") for path in choice.loaded)


def _config(snapshot: Snapshot) -> Mapping[str, object]:
    try:
        value = json.loads(snapshot.read("config.json", limit_bytes=_CONFIG_LIMIT_BYTES))
    except (CatalogError, ValueError, RecursionError):
        return {}  # whoever needs it says what is wrong with it
    return value if isinstance(value, dict) else {}


def _by_config(config: Mapping[str, object]) -> NotServable | None:
    if not config or "architectures" in config or "model_type" in config:
        return None
    if "_class_name" in config or "_diffusers_version" in config:
        return NotServable(
            "a part of a diffusers pipeline",
            "KAITO serves language models with vLLM; it has no runtime for this",
        )
    if isinstance(config.get("architecture"), str) and (
        "pretrained_cfg" in config or "num_features" in config
    ):
        return NotServable(
            "a timm model", "KAITO serves language models with vLLM; it has no runtime for this"
        )
    return None


def _by_weights(repository: Repository) -> NotServable | None:
    choice = choose_weights([file.path for file in repository.files])
    if choice is not None and choice.format == "pickle":
        return NotServable(
            "a model whose weights are pickle files alone, which can run code when they are loaded",
            "propose a repository or a revision with safetensors",
        )
    if choice is not None and choice.format != "gguf":
        return None
    if choice is not None:
        return NotServable(
            "GGUF alone: KAITO starts vLLM with a repository, and vLLM takes GGUF by the name of one file",
            "propose the repository that it was made from",
        )
    kinds = sorted(
        {
            kind
            for ending, kind in _OTHER_WEIGHTS.items()
            if any(file.path.endswith(ending) for file in repository.files)
        }
    )
    if kinds:
        return NotServable(
            f"a model whose weights are {' and '.join(kinds)} alone: vLLM loads safetensors or PyTorch's",
            "propose a repository with safetensors",
        )
    return NotServable("a configuration without weights", "propose the repository that has the weights")
