"""A model as ModelPack has it: the OCI manifest whose layers are the repository's files, and its configuration.

The digest of a raw layer is the sha256 of the file, so that a registry can be filled with the Hub's own files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from kaito_catalog.exports.wanting import (
    CannotBeMadeError,
    Pinned,
    architecture,
    license_names,
    pinned,
    text_field,
    without_digest,
    written,
)
from kaito_catalog.formats.facts import File, ModelFacts
from kaito_catalog.formats.policy import LicensePolicy
from kaito_catalog.hub.weight_files import choose_weights

MANIFEST, CONFIG = "modelpack.manifest.json", "modelpack.config.json"
# Names of https://github.com/modelpack/model-spec, docs/spec.md and docs/annotations.md at v0.0.7.
_ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_LAYER_TYPE = "application/vnd.cncf.model.{kind}.v1.raw"
_FILE_PATH = "org.cncf.model.filepath"
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|gguf|onnx|onnx_data|msgpack|h5|ckpt|tflite|nemo|npz)\Z", re.I
)
_DOCUMENT = re.compile(
    r"(?i)(.*/)?(readme|license|licence|notice|use_policy|usage_policy|copyright)[^/]*|.*\.(md|rst|pdf|png|jpe?g|gif|svg|webp)"
)
_CONFIGURATIONS = ("config.json", "params.json")
_OF_GIT = re.compile(r"(.*/)?\.git[^/]*")


def model_pack(facts: ModelFacts | None, policy: LicensePolicy) -> dict[str, str]:
    """The two files of a model, by their names.

    Raises:
        CannotBeMadeError: its commit, its licence, or the digest of one of its files is not recorded.
    """
    model = pinned(facts)
    layers = _layers(model)
    if not any(file.path in _CONFIGURATIONS for _, file in layers):
        raise CannotBeMadeError(
            "of its files the weights alone are recorded: kaito-catalog record NAME --all-hashes"
        )
    lacking = without_digest([file for _, file in layers])
    if lacking:
        raise CannotBeMadeError(
            f"the sha256 of {len(lacking)} of its files is not recorded, such as {lacking[0]}: "
            f"kaito-catalog record NAME --all-hashes"
        )
    descriptors = [_descriptor(kind, file) for kind, file in layers]
    config = written(_config(model, policy, [str(layer["digest"]) for layer in descriptors]))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": _ARTIFACT_TYPE,
        "config": {
            "mediaType": _CONFIG_TYPE,
            "digest": f"sha256:{hashlib.sha256(config.encode()).hexdigest()}",
            "size": len(config.encode()),
        },
        "layers": descriptors,
        "annotations": {
            "org.opencontainers.image.source": model.page,
            "org.opencontainers.image.revision": model.revision,
        },
    }
    return {MANIFEST: written(manifest), CONFIG: config}


def _layers(model: Pinned) -> list[tuple[str, File]]:
    """What vLLM reads of the repository, and its documents; a second copy of the weights is none of it."""
    files = model.facts.files
    if not files:
        raise CannotBeMadeError("the files of the repository are not recorded: kaito-catalog record NAME")
    choice = choose_weights([file.path for file in files])
    if choice is None:
        raise CannotBeMadeError("the repository has no weights that vLLM loads")
    chosen = set(choice.loaded)
    others = {
        file.path.rpartition("/")[0]
        for file in files
        if _WEIGHTS.fullmatch(file.path) and file.path not in chosen and "/" in file.path
    }
    found = []
    for file in sorted(files, key=lambda file: file.path):
        folder = file.path.rpartition("/")[0]
        if file.path in chosen:
            found.append(("weight", file))
        elif _WEIGHTS.fullmatch(file.path) or _OF_GIT.fullmatch(file.path) or folder in others:
            continue
        elif file.path.endswith(".py"):
            found.append(("code", file))
        else:
            found.append(("doc" if _DOCUMENT.fullmatch(file.path) else "weight.config", file))
    return found


def _descriptor(kind: str, file: File) -> dict[str, Any]:
    return {
        "mediaType": _LAYER_TYPE.format(kind=kind),
        "digest": f"sha256:{file.sha256}",
        "size": file.size_bytes,
        "annotations": {_FILE_PATH: file.path},
    }


def _config(model: Pinned, policy: LicensePolicy, digests: Sequence[str]) -> dict[str, Any]:
    facts = model.facts
    described = {
        "architecture": architecture(facts),
        "format": facts.weights.format if facts.weights else None,
        "paramSize": _parameters(facts),
        "precision": text_field(facts, "torch_dtype") or text_field(facts, "dtype"),
        "quantization": _quantization(facts),
    }
    return {
        "descriptor": {
            "name": model.name,
            "vendor": model.organisation,
            "revision": model.revision,
            "sourceURL": model.page,
            "licenses": [name for name, _ in license_names(model.license, policy)],
            **({"family": family} if (family := text_field(facts, "model_type")) else {}),
        },
        "modelfs": {"type": "layers", "diffIds": list(digests)},
        "config": {key: part for key, part in described.items() if part},
    }


def _quantization(facts: ModelFacts) -> str | None:
    section = (facts.config or {}).get("quantization_config")
    method = section.get("quant_method") if isinstance(section, dict) else None
    return method if isinstance(method, str) and re.fullmatch(r"[\w./-]{1,60}", method) else None


def _parameters(facts: ModelFacts) -> str | None:
    """The number of parameters as people say it; none where weights are packed, several to an element."""
    if facts.safetensors is None or _quantization(facts) is not None:
        return None
    count = sum(facts.safetensors.parameters_by_dtype.values())
    return f"{count / 1e9:.1f}b" if count >= 10**8 else f"{count / 1e6:.1f}m"
