"""`policy.yaml`: what the catalog's maintainers decided: licences, KAITO release profiles, tolerances."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kaito_catalog.formats.base import API_VERSION, Bytes, Items, Model, Number, Text, Url

Share = Annotated[float, Field(gt=0, le=1)]


class Profile(Model):
    """How a KAITO release starts vLLM."""

    name: Text
    """Such as `kaito-v0.12`."""
    kaito_release: Text = "v0.12"
    """The KAITO whose choices count: parsers, fixed options, split over GPUs, its model catalog. One of those that this
    program records; without it v0.12."""
    vllm_version: Text
    """Of KAITO's base image."""
    transformers_version: Text | None = None
    """Of the same image."""
    gpu_memory_utilization: Share
    """What vLLM is started with."""
    gpu_memory_utilization_by_gpu: dict[str, Share] | None = None
    """Exceptions by GPU name."""
    disk_overhead_bytes: Bytes
    """What KAITO adds to the weights when it sizes the disk."""
    source: Text
    """Where that was read."""
    url: Url | None = None
    """Its address."""

    def utilization(self, gpu: str | None) -> float:
        """The gpu_memory_utilization KAITO launches with on `gpu`."""
        return (self.gpu_memory_utilization_by_gpu or {}).get(gpu or "", self.gpu_memory_utilization)


class LicensePolicy(Model):
    """Which licences are known, and which allow images in a public registry."""

    public_images: Items[Text]
    """Hub ids of licences under which KAITO's maintainers host images publicly."""
    spdx: dict[str, str]
    """Hub id to SPDX id, for licences that have one."""
    known: Items[Text]
    """Other ids the Hub uses for licences without an SPDX id."""
    aliases: dict[str, str]
    """Other spellings people use, in lower case, to the Hub's id."""


class Tolerances(Model):
    """How far a claim may be from the figure before a check speaks."""

    storage_over: Number
    """Claimed storage beyond this many times the need is a warning."""
    plan_error: Number
    """Share of GPU memory by which a plan may differ from a measurement."""


class TypePolicy(Model):
    """The task names proposals use."""

    aliases: dict[str, str]
    """Older words for a pipeline tag."""


class Signer(Model):
    """Who signs models, as a certificate of Sigstore names them."""

    identity: Text
    """An e-mail address, or the address of a workflow."""
    issuer: Url
    """Who vouches for the identity (OpenID Connect)."""


class Policy(Model):
    """What the catalog's maintainers decided."""

    api_version: API_VERSION
    kind: Literal["Policy"]
    profile: Text
    """The profile that checks and plans use unless another is asked for."""
    profiles: Annotated[Items[Profile], Field(min_length=1)]
    """The releases that can be asked for with `--profile`."""
    licenses: LicensePolicy
    types: TypePolicy
    tolerances: Tolerances
    signers: dict[str, Items[Signer]] | None = None
    """By organisation of the Hub: whose signature of a model counts (`kaito-catalog signature`)."""

    def default_profile(self) -> Profile:
        """The profile named by `profile`, else the first."""
        return next((p for p in self.profiles if p.name == self.profile), self.profiles[0])
