"""Record a KAITO release: its data file from a checkout of KAITO, and a profile in policy.yaml; then review both.

git clone https://github.com/kaito-project/kaito.git ../kaito
python -m tools.add_kaito ../kaito --revision v0.13.0 --name v0.13

Values are read from KAITO's Go sources at the revision; nothing of it is run. The file has what differs from the
release that it is based on. What this program cannot read is compared with that release and named for the review.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kaito_catalog.documents import writing
from kaito_catalog.errors import CatalogError

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = "presets/workspace/generator/generator.go"
LAUNCHER = "pkg/model/interface.go"
IMAGES = "presets/workspace/models/supported_models.yaml"
VALUES = "charts/kaito/workspace/values.yaml"
PLUGIN = "pkg/utils/plugin/plugin.go"
ESTIMATOR = "pkg/workspace/estimator"
BY_HAND = {
    "fixedOptions": (LAUNCHER, "presets/workspace/models/vllm_model.go"),
    "launch": (
        LAUNCHER,
        "pkg/workspace/inference/preset_inferences.go",
        "presets/workspace/inference/vllm/inference_api.py",
    ),
    "clouds": ("pkg/sku/cloud_sku_handler.go",),
    "reservedLabels": ("api/v1beta1/labels.go",),
    "migProfiles": ("pkg/utils/mig/mig.go",),
    "image": ("docker/presets/models/tfs/Dockerfile", "presets/workspace/inference/chat_templates"),
}
"""Parts that no table in KAITO's sources states, and where they come from."""
# Option of vLLM to the generator's map, and what `true` in it stands for.
_BY_PREFIX: dict[str, tuple[str, str | None]] = {
    "chat-template": ("chatTemplatePrefixMap", None),
    "tokenizer-mode": ("tokenizerModePrefixMap", None),
    "attention-backend": ("vllmAttentionBackendPrefixMap", None),
    "moe-backend": ("vllmMoeBackendOverride", None),
    "kv-cache-dtype": ("vllmKVCacheDtypePrefixMap", None),
    "gdn-prefill-backend": ("vllmGdnPrefillBackendPrefixMap", None),
    "enable-expert-parallel": ("vllmExpertParallelEnabled", ""),
    "kernel-config.enable_flashinfer_autotune": ("vllmDisableFlashInferAutotunePrefixMap", "False"),
}
_PARSERS = {
    "toolCallParser": ("toolCallParserModeNamePrefixMap", "toolCallParserArchMap"),
    "reasoningParser": ("reasoningParserModeNamePrefixMap", "reasoningParserArchMap"),
}
_NEVER = "nonReasoningModels"
_KNOWN_MAPS = (
    {name for name, _ in _BY_PREFIX.values()} | {n for pair in _PARSERS.values() for n in pair} | {_NEVER}
)
_ENTRY = re.compile(
    r'^\s*"(?P<key>[^"]+)":\s*(?:"(?P<text>[^"]*)"|(?P<word>true|false|[\d.]+))\s*,', re.MULTILINE
)


@dataclass(frozen=True)
class Checkout:
    """KAITO's repository at one commit."""

    path: Path
    commit: str

    def text(self, name: str) -> str:
        """A file of that commit."""
        return _git(self.path, "show", f"{self.commit}:{name}")

    def texts(self, folder: str) -> str:
        """The Go files below a folder, without tests."""
        names = _git(self.path, "ls-tree", "-r", "--name-only", self.commit, folder).split()
        return "".join(self.text(n) for n in names if n.endswith(".go") and not n.endswith("_test.go"))

    @property
    def cited(self) -> str:
        """As sources cite it."""
        return f"kaito-project/kaito@{self.commit[:12]}"


def _git(path: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CatalogError(f"git {arguments[0]} of {path} failed: {done.stderr.strip()[:200]}")
    return done.stdout


def open_checkout(path: Path, revision: str) -> Checkout:
    """The repository at a tag, branch or commit."""
    return Checkout(path, _git(path, "rev-parse", "--verify", f"{revision}^{{commit}}").strip())


def go_map(text: str, name: str) -> dict[str, Any]:
    """The entries of a map literal of strings, booleans or numbers.

    Raises:
        CatalogError: there is no such map; KAITO has moved or renamed it, and this program has to follow.
    """
    pattern = rf"(?ims)\b{name}\s*=\s*map\[string\]\w+\{{(\}}|.*?^\s*\}})"
    found = re.search(pattern, text)
    if found is None:
        raise CatalogError(
            f"KAITO has no map {name} at this revision", hint="follow it in tools/add_kaito.py"
        )
    entries = _ENTRY.finditer(found[1])
    return {e["key"]: e["text"] if e["text"] is not None else yaml.safe_load(e["word"]) for e in entries}


def go_number(text: str, name: str, default: float | None = None) -> float:
    """A constant, written as a number or as a text with one.

    Raises:
        CatalogError: there is none, and no default.
    """
    found = re.search(rf'(?im)^\s*(?:const )?{name}\s*(?::=|=)\s*"?([\d.]+)"?', text)
    if found is None and default is None:
        raise CatalogError(
            f"KAITO has no constant {name} at this revision", hint="follow it in tools/add_kaito.py"
        )
    value: float | None = yaml.safe_load(found[1]) if found else default
    assert value is not None
    return value


def _optional_map(text: str, name: str) -> dict[str, Any]:
    return go_map(text, name) if re.search(rf"(?i)\b{name}\b", text) else {}


def launched_utilization(kaito: Checkout) -> tuple[float, dict[str, float]]:
    """The gpu-memory-utilization that KAITO starts vLLM with, and the exceptions by GPU."""
    text = kaito.text(LAUNCHER)
    by_gpu = {gpu: float(x) for gpu, x in _optional_map(text, "gpuMemoryUtilizationByGPUModel").items()}
    return go_number(text, "defaultGPUMemoryUtilization"), by_gpu


def _estimator(kaito: Checkout) -> dict[str, Any]:
    text = kaito.texts(ESTIMATOR)
    launched, by_gpu = launched_utilization(kaito)
    own = re.search(r"(?im)^\s*gpuMemoryUtilization\s*=\s*[\d.]+", text) is not None
    return {
        "weightsFactor": go_number(text, "weightExpansionFactor"),
        "overheadWeightFactor": go_number(text, "overheadWeightFactor"),
        "gpuMemoryUtilization": go_number(text, "gpuMemoryUtilization") if own else launched,
        "gpuMemoryUtilizationByGPU": {} if own else by_gpu,
        "overheadGiB": go_number(text, "baseOverheadGiB"),
        "overheadGiBByGPU": _optional_map(text, "baseOverheadGiBByGPUModel"),
        "defaultModelLen": go_number(text, "maxModelLen"),
        "mambaSequences": go_number(text, "mambaStateReferenceConcurrency", 0),
    }


def _by_prefix(text: str) -> dict[str, dict[str, str]]:
    found = {}
    for option, (name, stands_for) in _BY_PREFIX.items():
        entries = go_map(text, name)
        found[option] = entries if stands_for is None else {k: stands_for for k, v in entries.items() if v}
    return found


def read_release(kaito: Checkout) -> dict[str, Any]:
    """What a release decides by itself, as far as its sources state it in tables and constants."""
    generator, image = kaito.text(GENERATOR), _base_image(kaito)
    parsers: dict[str, Any] = {
        key: {"prefixes": go_map(generator, prefixes), "architectures": go_map(generator, architectures)}
        for key, (prefixes, architectures) in _PARSERS.items()
    }
    parsers["reasoningParser"]["never"] = list(go_map(generator, _NEVER))
    registry = re.search(r"(?m)^presetRegistryName: *(\S+)", kaito.text(VALUES))
    if registry is None:
        raise CatalogError(f"{VALUES} has no presetRegistryName")
    return {
        "baseImage": f"{registry[1]}/kaito-base:{image['tag']}",
        "vllmVersion": str(image["runtimeVersion"]["vllm"]),
        **parsers,
        "byPrefix": _by_prefix(generator),
        "legacyPresets": go_map(kaito.text(PLUGIN), "LegacyBuiltinToCatalog"),
        "estimator": _estimator(kaito),
    }


def _base_image(kaito: Checkout) -> dict[str, Any]:
    models = yaml.safe_load(kaito.text(IMAGES))["models"]
    return next(dict(model) for model in models if model["name"] == "base")


def remarks(kaito: Checkout, base: Mapping[str, Any]) -> Iterator[str]:
    """What a person has to look at: changed sources of what no table states, and maps that are new."""
    for part, names in BY_HAND.items():
        before = re.findall(r"@([0-9a-f]{7,40}) ", base["source"][part])[0]
        for name in names:
            changed = _git(kaito.path, "diff", "--name-only", before, kaito.commit, "--", name).strip()
            if changed:
                yield f"{part}: look at git diff {before} {kaito.commit[:12]} -- {name}"
    for name in re.findall(r"(?m)^\s*(\w+)\s*=\s*map\[string\](?:string|bool)\{", kaito.text(GENERATOR)):
        if name not in _KNOWN_MAPS:
            yield f"{GENERATOR} has a map that is not read: {name}"


def file_of(kaito: Checkout, name: str, base: Mapping[str, Any], look_at: tuple[str, ...]) -> dict[str, Any]:
    """The value of the data file: what differs from the base, and where each part was read."""
    read = read_release(kaito)
    where = {
        "baseImage": f"{IMAGES} (tag) and {VALUES} (registry)",
        "maps": GENERATOR,
        "legacyPresets": PLUGIN,
        "estimator": ESTIMATOR,
    }
    source = {**base["source"], **{part: f"{kaito.cited} {path}" for part, path in where.items()}}
    for part, names in BY_HAND.items():
        if not any(line.startswith(f"{part}:") for line in look_at):
            source[part] = f"{kaito.cited} {' and '.join(names)}"
    changed = {key: value for key, value in read.items() if value != base.get(key)}
    return {"release": name, "basedOn": base["release"], "source": source, **changed}


def profile_of(kaito: Checkout, name: str) -> str:
    """The profile for policy.yaml, as text."""
    runtime = _base_image(kaito)["runtimeVersion"]
    launched, by_gpu = launched_utilization(kaito)
    lines = [
        f"- name: kaito-{name}",
        f"  kaitoRelease: {name}",
        f"  vllmVersion: {runtime['vllm']}",
        f"  transformersVersion: {runtime['transformers']}",
        f"  gpuMemoryUtilization: {launched:g}",
        *(["  gpuMemoryUtilizationByGPU:"] if by_gpu else []),
        *(f"    {gpu}: {share:g}" for gpu, share in by_gpu.items()),
        f"  diskOverheadBytes: {int(go_number(kaito.text(GENERATOR), 'SystemFileDiskSizeGiB')) * 2**30}",
        f"  source: '{kaito.cited}: {IMAGES} (base image: vLLM and transformers), {LAUNCHER} (utilization),",
        f"    {GENERATOR} (disk)'",
        f"  url: https://github.com/kaito-project/kaito/tree/{kaito.commit[:12]}",
    ]
    return "\n".join(lines) + "\n"


def whole(name: str, read: Callable[[str], str]) -> dict[str, Any]:
    """A recorded release with everything that it takes from the one below it."""
    value: dict[str, Any] = yaml.safe_load(read(name))
    base = value.pop("basedOn", None)
    return value if base is None else {**whole(base, read), **value}


def add(kaito: Checkout, name: str, based_on: str, root: Path) -> tuple[str, ...]:
    """Write the data file and the profile below `root`; what is left to look at."""
    data = root / "kaito_catalog" / "data"
    base = whole(based_on, lambda n: (data / f"kaito-{n}.yaml").read_text(encoding="utf-8"))
    look_at = tuple(remarks(kaito, base))
    head = (
        f"# What KAITO {name} decides by itself, read in {kaito.cited} by tools/add_kaito.py.\n"
        f"# What is not here is as in {based_on}.\n"
    )
    target, policy = data / f"kaito-{name}.yaml", root / "catalog" / "policy.yaml"
    target.write_text(head + writing.write(file_of(kaito, name, base, look_at)), encoding="utf-8")
    text = policy.read_text(encoding="utf-8")
    if f"- name: kaito-{name}\n" not in text:
        policy.write_text(
            text.replace("\nlicenses:\n", f"\n{profile_of(kaito, name)}licenses:\n", 1), encoding="utf-8"
        )
    return look_at


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Record a release, and say what to look at."""
    parser = argparse.ArgumentParser(prog="python -m tools.add_kaito")
    parser.add_argument("checkout", type=Path, help="a clone of kaito-project/kaito")
    parser.add_argument("--revision", required=True, help="tag, branch or commit")
    parser.add_argument("--name", required=True, help="such as v0.13")
    parser.add_argument(
        "--based-on", default="v0.12", metavar="NAME", help="a recorded release (default: v0.12)"
    )
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.name):
        print(
            f"error: --name {options.name!r} is not lower-case letters, digits, dots and dashes",
            file=sys.stderr,
        )
        return 2
    try:
        kaito = open_checkout(options.checkout, options.revision)
        look_at = add(kaito, options.name, options.based_on, root)
    except CatalogError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    print(f"wrote kaito_catalog/data/kaito-{options.name}.yaml")
    print(f"wrote the profile kaito-{options.name} to catalog/policy.yaml")
    for line in look_at:
        print(f"to review: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
