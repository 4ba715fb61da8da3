"""Mistral's params.json in the words of config.json."""

from __future__ import annotations

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.shape import LONGEST_CONTEXT, Config, Json


def from_params(params: Fields) -> Config:
    """Mistral's params.json in config.json's words (vLLM 0.25.1, transformers_utils/configs/mistral.py)."""
    names = {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads", "intermediate_size": "hidden_dim", "head_dim": "head_dim",
        "vocab_size": "vocab_size", "q_lora_rank": "q_lora_rank", "kv_lora_rank": "kv_lora_rank",
        "qk_nope_head_dim": "qk_nope_head_dim", "qk_rope_head_dim": "qk_rope_head_dim",
        "v_head_dim": "v_head_dim", "quantization_config": "quantization_config",
    }  # fmt: skip
    text = {name: params.values[short] for name, short in names.items() if short in params}
    text["tie_word_embeddings"] = params.flag("tied_embeddings")
    longest = params.count("max_position_embeddings", default=128_000, most=LONGEST_CONTEXT)
    text["max_position_embeddings"] = longest
    text["max_seq_len"] = params.count("max_seq_len", default=longest, most=LONGEST_CONTEXT)
    window = params.values.get("sliding_window")
    if isinstance(window, list):
        raise UnreadableError("no plan for a params.json with a window per layer", "sliding_window")
    if window is not None:
        text["sliding_window"] = window
    architecture = "MistralForCausalLM"
    moe = params.section("moe")
    if moe is not None:
        if not (moe.optional("num_shared_experts") and "kv_lora_rank" in params):
            raise UnreadableError("no plan for these experts of a params.json", "moe")
        architecture = "MistralLarge3ForCausalLM"
        experts = {
            "moe_layer_freq": "route_every_n", "first_k_dense_replace": "first_k_dense_replace",
            "num_experts_per_tok": "num_experts_per_tok", "n_routed_experts": "num_experts",
            "moe_intermediate_size": "expert_hidden_dim", "n_shared_experts": "num_shared_experts",
        }  # fmt: skip
        text |= {name: moe.values[short] for name, short in experts.items() if short in moe}
    elif "kv_lora_rank" in params:
        raise UnreadableError(
            "no plan for a params.json with latent attention and no experts", "kv_lora_rank"
        )
    yarn = params.section("yarn")
    if yarn is not None:
        text["rope_parameters"] = {
            "rope_type": "yarn",
            "factor": yarn.values.get("factor"),
            "original_max_position_embeddings": yarn.values.get("original_max_position_embeddings"),
        }
    quantization = params.section("quantization")
    if quantization is not None:
        text["quantization_config"] = _params_quantization(quantization)
    vision = params.section("vision_encoder")
    multimodal = params.section("multimodal")
    if vision is None and multimodal is not None:
        vision = multimodal.section("vision_encoder_args")
    if vision is None:
        return {"architectures": [architecture], **text}
    return {
        "architectures": ["PixtralForConditionalGeneration"],
        "text_config": {"architectures": [architecture], **text},
        "vision_config": dict(vision.values),
        **({"quantization_config": text["quantization_config"]} if "quantization_config" in text else {}),
    }


def _params_quantization(quantization: Fields) -> Json:
    if quantization.text("qformat_weight") == "fp8_e4m3":
        is_dynamic = quantization.text("qscheme_act") == "NO_SCALES"
        return {"quant_method": "fp8", "activation_scheme": "dynamic" if is_dynamic else "static"}
    method = (quantization.text("quant_method") or "").lower().replace("_", "-")
    if method == "compressed-tensors":
        return {**quantization.values, "quant_method": method}
    raise UnreadableError("no plan for the quantization of this params.json", "quantization")
