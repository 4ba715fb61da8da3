"""The model of a plan as the options ask for it: how its weights are stored, and whether it has its encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaito_catalog.architectures import BuiltShape, Shape, record_of
from kaito_catalog.architectures.as_built import as_built
from kaito_catalog.memory.asked_dtype import with_dtype
from kaito_catalog.memory.asked_encoder import with_encoder_mode
from kaito_catalog.memory.asked_quantization import with_quantization
from kaito_catalog.memory.refusals import Refusal, refused, why_unplanned
from kaito_catalog.memory.unplanned_options import leaves_out_encoder
from kaito_catalog.memory.values import Fit, PlanRequest


@dataclass(frozen=True)
class AskedModel:
    """A model as vLLM builds it."""

    built: BuiltShape
    as_stored: BuiltShape
    """The same with its weights as the files have them."""


def asked_model(request: PlanRequest) -> AskedModel | Refusal:
    """What vLLM of that version builds for the request on that GPU; why it refuses it, or why that is not known.

    Args:
        request: with its settings resolved.
    """
    unplanned = why_unplanned(
        request.shape,
        request.settings,
        request.vllm_version,
        parallelism=request.parallelism,
        compute_capability=request.gpu.compute_capability,
    )
    if unplanned is not None:
        return Refusal(Fit.UNKNOWN, unplanned[1], unplanned[0])
    assert isinstance(request.shape, Shape)
    version, capability = request.vllm_version, request.gpu.compute_capability
    asked = with_quantization(request.shape, request.settings.quantization, version, capability)
    if not isinstance(asked, Refusal):
        asked = with_dtype(asked, request.settings.dtype, version, capability)
    if isinstance(asked, Refusal):
        return asked
    built, as_stored = (_with_mode(request, _built(request, shape)) for shape in (asked, request.shape))
    if isinstance(built, Refusal):
        return built
    if isinstance(as_stored, Refusal):
        return as_stored
    return refused(request, built) or AskedModel(built, as_stored)


def _with_mode(request: PlanRequest, built: BuiltShape) -> BuiltShape | Refusal:
    return with_encoder_mode(
        built, request.settings.mm_encoder_tp_mode, request.parallelism.tensor_parallel_size
    )


def _built(request: PlanRequest, shape: Shape) -> BuiltShape:
    """The model as that version builds it on that GPU, without an encoder where no prompt may hold what it is for."""
    settings = request.settings
    is_text_only = settings.language_model_only or leaves_out_encoder(settings.unplanned, shape.encoder)
    if is_text_only and not record_of(shape).always_with_encoder:
        shape = replace(shape, encoder=None)
    return as_built(shape, request.vllm_version, request.gpu.compute_capability)
