"""HyperCLOVA X."""

from __future__ import annotations

from dataclasses import replace

from kaito_catalog.architectures.families.qwen import qwen2_5_vl_encoder
from kaito_catalog.architectures.reading.parts import DecoderDefaults, dense
from kaito_catalog.architectures.reading.record import Architecture, Source
from kaito_catalog.architectures.reading.vision import stated_vision
from kaito_catalog.architectures.reading.wrapping import decoder_of, holding, unread
from kaito_catalog.architectures.shape import Matrix, Shape


def _hyperclovax(source: Source) -> Shape:
    norms = 4 if source.text.flag("use_post_norm", True) else 2
    return dense(DecoderDefaults(norms=norms))(source)


def _hcx_v2(source: Source) -> Shape:
    """HyperCLOVA X SEED Think: Qwen2.5-VL's encoder, a matrix, and a decoder."""
    shape = decoder_of(source)
    vision = stated_vision(source)
    encoder = qwen2_5_vl_encoder(source)
    assert encoder is not None
    assert encoder.matrices is not None
    out = vision.count("out_hidden_size", default=3584)
    encoder = replace(encoder, matrices=(*encoder.matrices, Matrix(out, shape.hidden_size, "none")))
    return replace(shape, architecture=source.architecture, encoder=encoder)


ARCHITECTURES: dict[str, Architecture] = {
    "HyperCLOVAXForCausalLM": Architecture(_hyperclovax),
    "HCXVisionForCausalLM": unread(),
    "HCXVisionV2ForCausalLM": holding(_hcx_v2),
}
"""By their name in config.json."""
