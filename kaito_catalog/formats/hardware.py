"""`gpus.yaml`, `instance-types.yaml`, `prices.yaml`: what GPUs offer, what clouds rent and for how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kaito_catalog.formats.base import (
    API_VERSION,
    Bytes,
    Count,
    IsoDate,
    Items,
    Model,
    Number,
    Size,
    Text,
    Url,
    exactly,
)


class MigProfile(Model):
    """A slice that the GPU can be cut into (Multi-Instance GPU)."""

    profile: Annotated[str, Field(pattern=exactly(r"[1-9]g\.[1-9][0-9]{0,3}gb"))]
    """As NVIDIA calls it, such as `3g.40gb`."""
    memory_bytes: Bytes | None = None
    """What `nvidia-smi mig -lgip` shows for it, and torch as its total; absent where it is not published."""


class Gpu(Model):
    """One GPU model."""

    name: Text
    """As the driver calls it, without form factor: `NVIDIA H100 80GB`."""
    aliases: Items[Text] | None = None
    """Other names in use."""
    nominal_memory: Size
    """The brochure's figure."""
    memory_bytes: Bytes | None = None
    """What the driver reports (`torch.cuda.mem_get_info` total); absent where it is not published."""
    memory_spread_bytes: Bytes | None = None
    """How far published reports of `memoryBytes` lie from it."""
    compute_capability: Number | None = None
    """Such as 9.0; absent for GPUs of other makers."""
    vllm: bool = True
    """Whether vLLM's CUDA build runs on it."""
    mig_profiles: Items[MigProfile] | None = None
    """The slices it can be cut into; absent where it has none."""
    mig_source: Text | None = None
    """Where these were read."""
    unified_memory: bool = False
    """Whether `memoryBytes` is the machine's memory, of which the operating system and every process take."""
    source: Text
    """Where the figures were read."""
    url: Url | None = None
    """Its address."""

    def slice(self, profile: str) -> MigProfile | None:
        """The slice of that name; None where the GPU has none such."""
        return next((found for found in self.mig_profiles or () if found.profile == profile), None)


class Gpus(Model):
    """The GPUs that plans know."""

    api_version: API_VERSION
    kind: Literal["Gpus"]
    gpus: Annotated[Items[Gpu], Field(min_length=1)]
    """Each once."""


class InstanceType(Model):
    """A machine that a cloud rents."""

    name: Text
    """As the cloud's API calls it."""
    cloud: Literal["azure", "aws", "gcp", "arc"]
    """Who rents it; `arc` is a machine of your own."""
    gpu: Text
    """A name from gpus.yaml."""
    gpu_count: Count
    """GPUs of one machine."""
    memory_bytes: Bytes | None = None
    """The total that the driver reports of each GPU here, where it is another than in gpus.yaml."""
    memory_source: Text | None = None
    """Where that was read."""
    nvme: bool | None = None
    """Whether it has a local NVMe disk."""
    source: Text
    """Where that was read."""


class InstanceTypes(Model):
    """The instance types that plans compare."""

    api_version: API_VERSION
    kind: Literal["InstanceTypes"]
    instance_types: Annotated[Items[InstanceType], Field(min_length=1)]
    """Each once."""


class PriceSource(Model):
    """Where a cloud's prices were read."""

    cloud: Literal["azure", "aws", "gcp"]
    """Whose prices; a machine of your own (`arc`) has none."""
    currency: Annotated[str, Field(pattern=exactly("[A-Z]{3}"))]
    """The ISO 4217 code."""
    date: IsoDate
    """When the prices were read from the cloud's own list."""
    source: Text
    """The table, with its commit and licence."""


class PricePerHour(Model):
    """What a machine costs by region, on demand."""

    instance_type: Text
    """A name from instance-types.yaml."""
    regions: Annotated[
        dict[
            Annotated[str, Field(pattern=exactly("[a-z][a-z0-9-]{0,63}"))],
            Annotated[Number, Field(gt=0, le=10**6)],
        ],
        Field(min_length=1),
    ]
    """The price an hour in each region that was read."""


class Prices(Model):
    """List prices of instance types: an hour, on demand, with nothing else on the bill."""

    api_version: API_VERSION
    kind: Literal["Prices"]
    sources: Items[PriceSource]
    """One for each cloud that has prices here."""
    prices: Items[PricePerHour]
    """Each instance type once; those that no source lists are absent."""
