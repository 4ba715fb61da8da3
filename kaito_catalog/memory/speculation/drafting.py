"""Who guesses for a model that is started with `speculative-config`: the drafter as vLLM builds it, or why not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaito_catalog.architectures import (
    BuiltShape,
    Drafter,
    GatedDeltaNet,
    KimiDelta,
    Layer,
    Mamba2,
    ShortConv,
    Unsupported,
    record_of,
)
from kaito_catalog.architectures.as_built import as_built, version_tuple
from kaito_catalog.memory.remembered import remembered
from kaito_catalog.memory.rounding import ceil_div, round_up
from kaito_catalog.memory.speculation.config import Method, Speculation
from kaito_catalog.memory.values import Parallelism
from kaito_catalog.memory.weights.matrices import Linear, unquantized_bytes
from kaito_catalog.memory.weights.ranks import VOCABULARY_PADDING, absorbed_bytes, weights_per_rank
from kaito_catalog.memory.weights.split import Split, Uncomputable
from kaito_catalog.memory.weights.stored_linear import linear_bytes

ALONE_ON_ITS_STAGE = (0, 32, 0)
"""The version in whose code a drafter need not be one that pipeline stages could cut (create_draft_parallel_config),
and that counts a batch's slots by method (max_num_new_slots_for_drafting); 0.25.1 does neither."""
_CONVOLVING_BEFORE = (GatedDeltaNet, KimiDelta, Mamba2)
_CONVOLVING = (*_CONVOLVING_BEFORE, ShortConv)
_ALSO_CUT = frozenset({"NemotronHForCausalLM"})
"""Architectures whose MTP layers might be cut over stages too."""
ID_BYTES = 8
"""Of the number of a token."""


@dataclass(frozen=True)
class Drafting:
    """The drafter of a start."""

    speculation: Speculation
    num_speculative_tokens: int
    drafter: Drafter | None
    """None: what is guessed is looked up in the text."""
    shape: BuiltShape | None
    """Its layers as that version builds them."""
    shares_embedding: bool = False
    """Whether it has the model's embedding."""
    maps_tokens: bool = False
    """Whether it keeps the numbers that the tokens of its own vocabulary have in the model's."""

    @property
    def layers(self) -> int:
        """Layers that it adds to the last stage."""
        return len(self.shape.layers) if self.shape is not None else 0


@dataclass(frozen=True)
class NoDrafting:
    """Why there is none: vLLM refuses it, or what it takes is not known."""

    reason: str
    is_refused: bool = False


def drafting_of(
    speculation: Speculation,
    draft: Drafter | Unsupported | None,
    built: BuiltShape,
    parallelism: Parallelism,
    vllm_version: str,
    compute_capability: float | None,
) -> Drafting | NoDrafting:
    """The drafter, as the last pipeline stage builds it.

    Args:
        speculation: what is asked for.
        draft: what its configuration says; None where that is not known, or the model brings it.
        built: the model.
        parallelism: over how many GPUs, and in how many stages.
        vllm_version: such as 0.25.1.
        compute_capability: of the GPU.
    """
    if speculation.unread:
        return NoDrafting(f"no plan reads {', '.join(speculation.unread)} of speculative-config")
    method = speculation.method
    if method is Method.MLP_SPECULATOR:
        return NoDrafting("vLLM has no class for MLP speculators", is_refused=True)
    if not method.has_model:
        tokens = speculation.num_speculative_tokens
        if tokens is None:
            return NoDrafting("speculative-config needs num_speculative_tokens", is_refused=True)
        return Drafting(speculation, tokens, None, None)
    if method in (Method.MTP, Method.DSPARK) and speculation.model is None:
        draft = built.mtp if method is Method.MTP else None
        if draft is None:
            return _without_own_layers(method, built)
    if draft is None:
        named = speculation.model or "the drafter"
        return NoDrafting(
            f"unknown: the configuration of {named[:80]}; give it with --draft-config, a folder or a config.json"
        )
    if isinstance(draft, Unsupported):
        return NoDrafting(draft.reason)
    if method is Method.DRAFT_MODEL and parallelism.pipeline_parallel_size > 1:
        return NoDrafting("no plan for a draft model with pipeline stages, which cut it too")
    refused = _refusal(speculation, draft, built, parallelism, vllm_version)
    if refused is not None:
        return NoDrafting(refused, is_refused=True)
    # vLLM gives it the model's dtype (SpeculativeConfig).
    own = replace(draft.shape, dtype=built.dtype)
    is_as_wide = draft.shape.hidden_size == built.hidden_size
    # EAGLE-3 kept them of the whole vocabulary too.
    always_maps = method is Method.EAGLE3 and version_tuple(vllm_version) < ALONE_ON_ITS_STAGE
    return Drafting(
        speculation,
        speculation.num_speculative_tokens or draft.steps or 1,
        draft,
        as_built(own, vllm_version, compute_capability),
        not draft.is_whole and is_as_wide and parallelism.pipeline_parallel_size == 1,
        draft.maps_tokens and (always_maps or draft.head_rows != built.vocab_size),
    )


_UNREAD_MTP = frozenset(
    {
        "BailingMoeV2_5ForCausalLM",
        "DeepseekV4ForCausalLM",
        "Exaone4_5_ForConditionalGeneration",
        "ExaoneMoEForCausalLM",
        "Glm5NextForCausalLM",
        "GlmOcrForConditionalGeneration",
        "HYV3ForCausalLM",
        "KimiK3ForConditionalGeneration",
        "LongcatFlashForCausalLM",
        "MiMoV2FlashForCausalLM",
        "MiMoV2ForCausalLM",
        "MiniMaxM3SparseForConditionalGeneration",
        "MistralLarge3ForCausalLM",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Super_Omni_Reasoning_V3",
        "PanguUltraMoEForCausalLM",
        "Step3p5ForCausalLM",
        "Step3p7ForConditionalGeneration",
    }
)
"""Architectures whose MTP layers vLLM has classes for (SpeculativeConfig.hf_config_override) and no plan reads."""


def _without_own_layers(method: Method, built: BuiltShape) -> NoDrafting:
    """Why a model has no layers of its own that guess tokens."""
    name = built.architecture[:60]
    if method is Method.DSPARK or built.architecture in _UNREAD_MTP:
        return NoDrafting(f"no plan for the {method.value.upper()} layers of {name}")
    if record_of(built).mtp is not None:
        return NoDrafting("its configuration says that it has no MTP layers (num_nextn_predict_layers)", True)
    return NoDrafting(f"vLLM has no MTP layers for the architecture {name}", True)


def _refusal(
    speculation: Speculation,
    draft: Drafter,
    built: BuiltShape,
    parallelism: Parallelism,
    vllm_version: str,
) -> str | None:
    """Why vLLM does not start with the drafter, in words."""
    method, tokens = speculation.method, speculation.num_speculative_tokens
    tensor, size = parallelism.tensor_parallel_size, speculation.draft_tensor_parallel_size
    steps = draft.steps or 1
    if tokens is None and draft.steps is None:
        return "speculative-config needs num_speculative_tokens"
    if method is Method.MTP and tokens is not None and tokens > steps and tokens % steps:
        return f"num_speculative_tokens {tokens} is not a multiple of the {steps} that its MTP layers guess"
    if size not in (None, 1, tensor):
        return f"draft_tensor_parallel_size {size} is neither 1 nor the tensor_parallel_size {tensor}"
    if method is Method.DRAFT_MODEL and size not in (None, tensor):
        return f"a draft model is divided like the model: draft_tensor_parallel_size {size} is not {tensor}"
    rows = draft.shape.vocab_size
    if method is Method.DRAFT_MODEL and rows != built.vocab_size and not speculation.heterogeneous_vocab:
        return f"the draft model has {rows:,} tokens and the model {built.vocab_size:,}"
    is_earlier = version_tuple(vllm_version) < ALONE_ON_ITS_STAGE
    is_cut = built.architecture in _ALSO_CUT
    if is_earlier and not is_cut and parallelism.pipeline_parallel_size > 1:
        return f"vLLM {vllm_version[:20]} takes no such drafter with pipeline stages"
    return None


@remembered(maxsize=1024)
def drafter_bytes(drafting: Drafting, split: Split) -> int | Uncomputable:
    """Bytes of the drafter's parameters on a rank of the last stage, beside the model's."""
    shape, drafter = drafting.shape, drafting.drafter
    if shape is None or drafter is None:
        return 0
    if not drafter.is_whole:
        shape = replace(shape, has_head=False, tie_word_embeddings=False)
    whole = weights_per_rank(shape, split) if shape.layers else (0,)
    if isinstance(whole, Uncomputable):
        return whole
    size = whole[0]
    if drafter.is_whole:
        return size
    ranks = split.tensor_parallel_size
    if shape.layers and (drafting.shares_embedding or not drafter.has_embedding):
        size -= _vocabulary_bytes(shape, shape.vocab_size, ranks)
    rows = drafter.head_rows or shape.vocab_size
    size += drafter.heads * _vocabulary_bytes(shape, rows, ranks)
    size += ID_BYTES * rows if drafting.maps_tokens else 0
    return size + _fusion_bytes(drafter, shape, ranks)


def _vocabulary_bytes(shape: BuiltShape, rows: int, ranks: int) -> int:
    return ceil_div(round_up(rows, VOCABULARY_PADDING), ranks) * shape.hidden_size * shape.dtype_bytes


def _fusion_bytes(drafter: Drafter, shape: BuiltShape, ranks: int) -> int:
    """What makes the drafter's input: a matrix that is quantised unless vLLM builds it as torch's own."""
    size, quantization = 0, shape.quantization
    for matrix in drafter.fusion:
        outputs = ceil_div(matrix.outputs, ranks) if matrix.split == "column" else matrix.outputs
        linear = Linear("fc", matrix.inputs, (outputs,), matrix.bias)
        scheme = None
        if quantization is not None and matrix.quantized and "fc" not in quantization.ignored:
            scheme = quantization.scheme
        if scheme is None or quantization is None:
            each = unquantized_bytes(linear, shape.dtype_bytes)
        else:
            each = linear_bytes(linear, scheme, quantization, shape.dtype_bytes, ranks)
        size += matrix.count * each
    return size


def kept_bytes(drafting: Drafting, split: Split) -> int:
    """What loading keeps of the drafter beside its parameters."""
    return absorbed_bytes(drafting.shape, split) if drafting.shape is not None else 0


def with_drafter(built: BuiltShape, drafting: Drafting | None) -> BuiltShape:
    """The model with the drafter's layers behind its own, as the cache is planned for both."""
    if drafting is None:
        return built
    layers, tokens = (
        drafting.shape.layers if drafting.shape is not None else (),
        drafting.num_speculative_tokens,
    )
    return replace(
        built,
        layers=(*(_remembering(layer, tokens, built) for layer in built.layers), *layers),
        guessing_layers=len(layers),
        guessed_tokens=tokens,
    )


def _remembering(layer: Layer, tokens: int, built: BuiltShape) -> Layer:
    """A layer whose convolution keeps the inputs of guessed tokens too (MambaStateShapeCalculator's num_spec)."""
    mixer, state = layer.mixer, layer.state
    # 0.25.1's short convolutions do not.
    kinds = _CONVOLVING if built.aligns_by_stage else _CONVOLVING_BEFORE
    if isinstance(mixer, kinds):
        mixer = replace(mixer, conv_kernel=mixer.conv_kernel + tokens)
    if isinstance(state, kinds):
        state = replace(state, conv_kernel=state.conv_kernel + tokens)
    return layer if (mixer, state) == (layer.mixer, layer.state) else replace(layer, mixer=mixer, state=state)


def slots_for_drafting(drafting: Drafting, max_num_seqs: int, vllm_version: str) -> int:
    """Tokens of a batch that are kept for guesses (max_num_new_slots_for_drafting): of all requests, later of one."""
    speculation, tokens = drafting.speculation, drafting.num_speculative_tokens
    is_later = version_tuple(vllm_version) >= ALONE_ON_ITS_STAGE
    is_whole = speculation.method is Method.DRAFT_MODEL
    slots = int(is_whole)
    if is_later and speculation.method is Method.DFLASH:
        slots = tokens
    elif speculation.drafts_in_parallel:
        slots = tokens if is_whole else tokens - 1
    return slots if is_later else slots * max_num_seqs
