"""KAITO's own files by what they say, in a checkout of its repository or a flat folder of the same files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

# Where each lies in a checkout; in a flat folder it is its name that counts.
_PLACES = {
    "model_catalog.yaml": "presets/workspace/models/model_catalog.yaml",
    "presets.md": "website/docs/presets.md",
    "proposals": "docs/proposals",
    "crds": "config/crd/bases",
}
_SKU_FILES = {
    "azure": "pkg/sku/azure_sku_handler.go",
    "aws": "pkg/sku/aws_sku_handler.go",
    "arc": "pkg/sku/arc_sku_handker.go",
}
_GENERATOR = "presets/workspace/generator/generator.go"
_SUPPORTED = "presets/workspace/models/supported_models.yaml"
_MODEL_TESTS = "presets/workspace/models/vllm_model_test.go"

_GO_SKU = re.compile(r"^\s*\{(SKU: .*)\},$", re.MULTILINE)
_GO_FIELD = re.compile(r'(\w+): (?:resource\.MustParse\()?"?([^",)]+)"?\)?')
_GO_MAP = re.compile(r"^\t(\w+) = map\[string\](?:string|bool)\{(.*?)\n?\t?\}$", re.MULTILINE | re.DOTALL)
_GO_PAIR = re.compile(r'^\s*"([^"]+)":\s*"?([^",]+)"?,$', re.MULTILINE)
_GO_SHORT = {"maxReadinessTimeout": 180, "defaultReadinessTimeout": 30}


@dataclass(frozen=True)
class Sku:
    """An instance type as KAITO's tables have it."""

    name: str
    cloud: str
    gpu_count: int
    gpu_model: str
    memory_gib: float
    """Of all its GPUs."""
    nvme: bool
    compute_capability: float


@dataclass(frozen=True)
class KaitoTree:
    """The files in `root`."""

    root: Path

    def path(self, name: str) -> Path:
        """Where a file or folder lies.

        Raises:
            FileNotFoundError: neither where a checkout has it nor where a flat folder does.
        """
        for path in (self.root / _PLACES[name], self.root / name):
            if path.exists():
                return path
        raise FileNotFoundError(f"{self.root} has neither {_PLACES[name]} nor {name}: is it KAITO's tree?")

    def text(self, name: str) -> str:
        """A file as it is."""
        return self.path(name).read_text(encoding="utf-8")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The models of its catalog."""
        found: list[dict[str, Any]] = yaml.safe_load(self.text("model_catalog.yaml"))["models"]
        return found

    @property
    def proposals(self) -> list[Path]:
        """Its proposals for models; others propose changes of KAITO itself."""
        found = sorted(self.path("proposals").glob("2*.md"))
        return [path for path in found if "| Family name" in path.read_text(encoding="utf-8")]

    @cached_property
    def skus(self) -> list[Sku]:
        """Its instance types: Azure, AWS, Arc."""
        if (self.root / "skus.json").exists():
            listed = json.loads((self.root / "skus.json").read_text(encoding="utf-8"))["skus"]
            return [
                Sku(
                    r["sku"],
                    r["cloud"],
                    r["gpuCount"],
                    r["gpuModel"],
                    r["gpuMemPerGPUGi"] * r["gpuCount"],
                    r["nvme"],
                    r["cudaComputeCapability"],
                )
                for r in listed
            ]
        return [
            sku_of(cloud, dict(_GO_FIELD.findall(line)))
            for cloud, path in _SKU_FILES.items()
            for line in _GO_SKU.findall((self.root / path).read_text(encoding="utf-8"))
        ]

    @cached_property
    def maps(self) -> dict[str, dict[str, Any]]:
        """The maps by which its generator chooses parsers, templates and back ends."""
        flat = self.root / "generator_maps.json"
        if flat.exists():
            found: dict[str, dict[str, Any]] = json.loads(flat.read_text(encoding="utf-8"))
            return found
        source = (self.root / _GENERATOR).read_text(encoding="utf-8")
        return {name: dict(_GO_PAIR.findall(body)) for name, body in _GO_MAP.findall(source)}

    @cached_property
    def revisions(self) -> dict[str, str]:
        """Repository to the commit that its presets name."""
        flat = self.root / "sha.json"
        if flat.exists():
            rows = json.loads(flat.read_text(encoding="utf-8"))
            supported = [row for row in rows if row["source"].endswith("supported_models.yaml")]
            return {row["repo"]: row["sha"] for row in supported if row["sha"]}
        models = yaml.safe_load((self.root / _SUPPORTED).read_text(encoding="utf-8"))["models"]
        links = (str(m.get("version", "")).removeprefix("https://huggingface.co/") for m in models)
        return dict(link.split("/commit/") for link in links if "/commit/" in link)

    @cached_property
    def start_up_limits(self) -> list[tuple[str, int]]:
        """Size of the weights and minutes, as its unit tests have them."""
        flat = self.root / "estimator_cases.json"
        if flat.exists():
            cases = json.loads(flat.read_text(encoding="utf-8"))["readiness_timeout"]
            return [(case["size"], case["minutes"]) for case in cases]
        source = (self.root / _MODEL_TESTS).read_text(encoding="utf-8")
        body = source.partition("func TestReadinessTimeoutForModelSize")[2].partition("\n}")[0]
        found = re.findall(r'modelFileSize: "([^"]*)",.*\n\s*expected:\s+(\w+)', body)
        return [(size, int(word) if word.isdigit() else _GO_SHORT[word]) for size, word in found]


def sku_of(cloud: str, fields: dict[str, str]) -> Sku:
    """An instance type from a line of its Go tables."""
    return Sku(
        fields["SKU"],
        cloud,
        int(fields["GPUCount"]),
        fields["GPUModel"],
        float(fields["GPUMem"].removesuffix("Gi")),
        fields.get("NVMeDiskEnabled") == "true",
        float(fields.get("CUDAComputeCapability", 0)),
    )


@dataclass(frozen=True)
class Published:
    """Published configurations: `ORG__NAME.json` in `root`, or in a folder `configs` of it."""

    root: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """Repository to its config.json."""
        folder = self.root / "configs" if (self.root / "configs").is_dir() else self.root
        return {
            path.stem.replace("__", "/"): path
            for path in sorted(folder.glob("*__*.json"))
            if not path.stem.endswith(".hf_quant_config")
        }

    def config(self, repo_id: str) -> dict[str, Any]:
        """config.json of a repository."""
        found: dict[str, Any] = json.loads(self.files[repo_id].read_text(encoding="utf-8"))
        return found

    def quantization(self, repo_id: str) -> dict[str, Any] | None:
        """hf_quant_config.json beside it, where there is one."""
        path = self.files[repo_id].with_suffix(".hf_quant_config.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
