"""`proposal.yaml`: what a person claims about a model, field by field as in KAITO's template."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue

from kaito_catalog.formats.base import (
    API_VERSION,
    CatalogName,
    ClaimedCount,
    ClaimedSize,
    Count,
    IsoDate,
    Items,
    Model,
    Number,
    Text,
    Url,
    exactly,
    is_missing,
)
from kaito_catalog.quantity import Quantity

Status: TypeAlias = Literal["provisional", "implemented", "deferred", "rejected", "withdrawn", "deprecated"]
TemplateStatus: TypeAlias = Literal["ready to integrate", "integrated"]
RuntimeName: TypeAlias = Literal["vllm", "transformers", "onnx"]
_COUNT = re.compile(r"[0-9]{1,9}\Z")
HUB_URL = re.compile(
    r"https?://huggingface\.co/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:\.git)?(?:[/?#].*)?\Z", re.ASCII
)


class Metadata(Model):
    """Who proposes what, and how far it is."""

    name: CatalogName
    """The repository's name in lower case; equals the folder's name."""
    title: str | None = None
    """The front matter's title in KAITO's template."""
    heading: Text
    """What the proposal adds, naming the model: `Add [org/model](https://…) to KAITO …`."""
    authors: Annotated[Items[Text], Field(min_length=1)]
    """Hub or GitHub names of those who propose, such as `@octocat`."""
    reviewers: Items[Text] | None = None
    """Who looked at it."""
    creation_date: IsoDate
    """The day of the first version, `YYYY-MM-DD`."""
    last_updated: IsoDate | None = None
    """The day of the last change of what is claimed."""
    status: Status
    """How far KAITO is with it; `provisional` while it is worked on."""
    template_status: TemplateStatus | None = None
    """The word of KAITO's template for the status, written back as it stood: `ready to integrate` is provisional,
    `integrated` is implemented."""


class Usage(Model):
    """How widely the model is used, with the day and the source of the figure."""

    statistics: str | None = None
    """The figure in words: `1,000 downloads in the last 30 days`."""
    as_of: IsoDate | None = None
    """The day on which it was read."""
    source: Url | None = None
    """The page where it was read."""


class License(Model):
    """The licence as the proposal claims it."""

    id: str | None = None
    """SPDX id, or the Hub's own id, or LicenseRef-…"""
    url: Url | None = None
    """The licence's text."""
    note: str | None = None
    """What a reader should know beside the id."""


class Summary(Model):
    """What the model is, who uses it, under which licence."""

    description: str | None = None
    """What the model does, and where its official documentation is."""
    usage: Usage | None = None
    license: License | None = None


class Figure(Model):
    """A picture the proposal shows."""

    alt: str
    """What it shows, in words."""
    src: Text
    """Its address or path, as KAITO's Markdown names it."""


class Requirements(Model):
    """What the model needs: the claims that the checks prove."""

    family_name: Text
    """The family of models, such as `Llama 3.3`."""
    type: Text
    """The Hub's pipeline tag, such as `text-generation`."""
    download_site: Text
    """The model's page on the Hub."""
    version: str | None = None
    """The commit (40 hex digits, quoted if all are digits); a branch is legal while provisional."""
    storage_size: ClaimedSize = None
    """Disk that holds all model files, such as 140GB or 140GiB: these are different sizes."""
    gpu_count: ClaimedCount = None
    """The least number of GPUs that runs the model."""
    total_gpu_memory: ClaimedSize = None
    """GPU memory of all GPUs together."""
    per_gpu_memory: ClaimedSize = None
    """GPU memory of each GPU, or N/A."""
    context_length: ClaimedCount = None
    """The tokens that the GPU claims are about."""
    notes: dict[str, str] | None = None
    """What was said around a figure: `gpuCount: minimum`."""
    figures: Items[Figure] | None = None
    """Pictures that stand in place of figures in an imported proposal."""


class Runtime(Model):
    """One way to serve the model."""

    name: RuntimeName
    """The engine; `config` is checked for vLLM."""
    distributed_inference: bool | None = None
    """Whether the model needs more than one GPU or node."""
    custom_configurations: str | None = None
    """What the proposal says about defaults, in words."""
    config: dict[Annotated[str, Field(pattern=exactly("[A-Za-z][A-Za-z0-9_.-]{0,99}"))], JsonValue] | None = (
        None
    )
    """Options without the dashes: for vLLM, the `vllm:` block of KAITO's inference_config.yaml."""
    trust_remote_code: bool | None = None
    """Whether code of the repository may run; true needs its files and hashes in facts.yaml."""


class Adapter(Model):
    """A LoRA adapter that is served beside the model."""

    name: Text
    """What requests call it; KAITO keeps it in a folder of that name."""
    image: Text | None = None
    """The container image that holds it, which is where KAITO takes adapters from."""
    repo_id: Text | None = None
    """Its repository on the Hub, such as `org/adapter`; KAITO needs an image made of it."""
    strength: Annotated[Number, Field(ge=0, le=1)] | None = None
    """The share of its weights that is applied; vLLM has no such setting, and KAITO refuses it there."""


class Partition(Model):
    """A slice of a GPU that the model is served on."""

    mode: Literal["mig"]
    """NVIDIA's Multi-Instance GPU."""
    profile: Annotated[str, Field(pattern=exactly(r"[1-9]g\.[1-9][0-9]{0,3}gb"))]
    """The slice, such as `3g.40gb`: compute slices and memory."""


class Deployment(Model):
    """The sample manifest of the proposal."""

    instance_type: Text | None = None
    """The name of instance-types.yaml on which it is shown."""
    node_count: Count | None = None
    """How many such nodes; KAITO v0.12 counts them by itself."""
    partition: Partition | None = None
    """Serve on a slice of a GPU; KAITO then makes no nodes, and takes no instance type."""
    performance_mode: Literal["balanced", "throughput", "interactivity"] | None = None
    """What vLLM is tuned for: the annotation `kaito.sh/performance-mode`, which is `balanced` where it is absent."""
    adapters: Annotated[Items[Adapter], Field(min_length=1)] | None = None
    """LoRA adapters that are loaded when the server starts."""
    model_access_secret: Text | None = None
    """The Secret with the Hub's token, for gated models."""
    config_map: Text | None = None
    """The ConfigMap that holds the options."""
    kv_cache_cpu_memory_utilization: Annotated[Number, Field(ge=0, le=1)] | None = None
    """KAITO's key beside `vllm:` in the ConfigMap: the share of the host's free memory for LMCache; 0 is off."""
    max_probe_steps: Count | None = None
    """KAITO's other key there, which its launcher reads and no longer uses."""


class HistoryEvent(Model):
    """A step of the proposal's life."""

    event: Text
    """What is to happen, such as `Open proposal PR`."""
    date: IsoDate | None = None
    """The day on which it happened."""
    done: bool
    """Whether it has happened."""


class Proposal(Model):
    """A proposal to serve one model with KAITO."""

    api_version: API_VERSION
    kind: Literal["ModelProposal"]
    metadata: Metadata
    glossary: dict[str, str] | None = None
    """Terms that need an explanation, and the explanation."""
    summary: Summary | None = None
    requirements: Requirements
    runtimes: Items[Runtime] | None = None
    """How it can be served; the generated manifests take the vLLM one."""
    deployment: Deployment | None = None
    history: Items[HistoryEvent] | None = None
    """The steps, the first first."""
    waivers: dict[Annotated[str, Field(pattern=exactly("[A-Z]{3}[0-9]{3}"))], Text] | None = None
    """Findings that are accepted, each with its reason: `MEM003: measured on 2 × H100 NVL`."""

    @property
    def repo_id(self) -> str | None:
        """`org/model` of the download site, when it is a page of the Hub."""
        match = HUB_URL.match(self.requirements.download_site)
        return match[1] if match else None

    @property
    def license_id(self) -> str | None:
        """The claimed licence, when one is claimed."""
        claimed = self.summary.license if self.summary else None
        return claimed.id if claimed and not is_missing(claimed.id) else None

    @property
    def max_model_len(self) -> int | None:
        """The context that is served: vLLM's `max-model-len`, else the claimed `contextLength`."""
        return self.served_max_model_len or known_count(self.requirements.context_length)

    @property
    def served_max_model_len(self) -> int | None:
        """vLLM's `max-model-len` as a count of tokens, also where it is quoted; None where it is none."""
        config = (self.vllm.config if self.vllm else None) or {}
        served = config.get("max-model-len", config.get("max_model_len"))
        if isinstance(served, str) and _COUNT.match(served):
            served = int(served)
        return served if isinstance(served, int) and not isinstance(served, bool) and served > 0 else None

    @property
    def vllm(self) -> Runtime | None:
        """The vLLM runtime, when the proposal has one."""
        return next((runtime for runtime in self.runtimes or () if runtime.name == "vllm"), None)


def known_size(claim: Quantity | str | None) -> Quantity | None:
    """The size, unless it is missing (TBD, N/A, nothing)."""
    return claim if isinstance(claim, Quantity) else None


def known_count(claim: int | str | None) -> int | None:
    """The count, unless it is missing (TBD, N/A, nothing)."""
    return claim if isinstance(claim, int) else None
