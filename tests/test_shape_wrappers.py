"""Models that hold others: what is refused, by which name, and what differs by vLLM's version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaito_catalog.architectures import Shape, Unsupported, read_shape
from kaito_catalog.architectures.as_built import as_built, no_class
from kaito_catalog.architectures.changes import V0_32_0, Version, before, built_once, since
from tools.exact_models import SMALL_PLANS

SMALL = json.loads(SMALL_PLANS.read_text(encoding="utf-8"))["models"]


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """A recorded configuration with one field, nested ones by dots, of another value; None leaves it out."""
    config: dict[str, Any] = json.loads(json.dumps(SMALL[name]["config"]))
    *parts, last = path.split(".")
    section = config
    for part in parts:
        section = section[part]
    if value is None:
        section.pop(last, None)
    else:
        section[last] = value
    return config


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("ColModernVBertForRetrieval", "vision_config", None, "no vision_config"),
        ("ColBERTJinaRobertaModel", "position_embedding_type", "absolute", "not rotary"),
        ("EmbeddingGemma2Model", "text_config.num_global_key_value_heads", 3, "multiple of 3 KV heads"),
        ("Granite4VisionForConditionalGeneration", "downsample_rate", "half", "one side over another"),
        ("Granite4VisionForConditionalGeneration", "deepstack_layer_map", "1,2", "not a list"),
        ("LlamaNemotronVLModel", "downsample_ratio", 2.0, "downsample_ratio is 2.0"),
        ("MossTranscribeDiarizeForConditionalGeneration", "text_config", 7, "text_config is not a mapping"),
        ("NemotronParseForConditionalGeneration", "decoder", None, "no decoder or no encoder"),
        (
            "NemotronParseForConditionalGeneration",
            "encoder.args.model",
            "vit_base_patch16_224",
            "RADIO is 768 wide",
        ),
        (
            "NemotronParseForConditionalGeneration",
            "decoder.decoder_attention_heads",
            3,
            "multiple of 3 heads",
        ),
        ("Ovis", "visual_tokenizer_config", None, "visual_tokenizer_config.backbone_config"),
        ("Ovis", "visual_tokenizer_config.backbone_config.model_type", "vit", "the encoder vit"),
        ("Step3p7ForConditionalGeneration", "vision_config.mlp_ratio", 1e9, "mlp_ratio is"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(name: str, path: str, value: Any, words: str) -> None:
    found = read_shape(changed(name, path, value))
    assert isinstance(found, Unsupported)
    assert words in found.reason


def test_a_rope_without_sums_of_frequencies_gives_intern_s1_pro_all_that_turn() -> None:
    config = changed("ColQwen3", "architectures", ["InternS1ProForConditionalGeneration"])
    config["text_config"] |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    config["text_config"] |= {"rope_theta": 10_000.0}
    every = read_shape(config)
    config["text_config"]["rope_scaling"]["num_inv_freq"] = 16
    few = read_shape(config)
    assert isinstance(every, Shape)
    assert isinstance(few, Shape)
    assert few.divided_elements == 2 * 2 * 16**2
    # Of 64 frequencies those below one turn in 4,096 tokens are left out.
    assert every.divided_elements == 2 * 2 * 46**2
    del config["text_config"]["rope_scaling"]["num_inv_freq"]
    config["text_config"]["rope_theta"] = 0.5
    assert isinstance(read_shape(config), Unsupported)
    del config["text_config"]["rope_scaling"]
    assert isinstance(read_shape(config), Unsupported)


def test_the_encoder_of_jinas_embeddings_is_unknown_to_versions_that_take_it_for_a_decoder() -> None:
    both_ways = read_shape(SMALL["JinaEmbeddingsV5EncoderModel"]["config"])
    decoder = read_shape(SMALL["JinaEmbeddingsV5Model"]["config"])
    assert isinstance(both_ways, Shape)
    assert isinstance(decoder, Shape)
    assert no_class(both_ways, "0.25.1") is not None
    assert no_class(both_ways, "0.32.0") is None
    assert no_class(decoder, "0.25.1") is None
    assert as_built(decoder, "0.25.1").has_head
    assert not as_built(decoder, "0.32.0").has_head


def test_layers_of_embedding_gemma_are_read_one_by_one_where_the_configuration_lists_them() -> None:
    whole = changed("EmbeddingGemma2Model", "text_config.global_head_dim", None)
    whole["text_config"]["per_layer_config"] = {"5": {"head_dim": 128, "num_key_value_heads": 1}}
    listed = read_shape(whole)
    stated = read_shape(SMALL["EmbeddingGemma2Model"]["config"])
    assert isinstance(listed, Shape)
    assert isinstance(stated, Shape)
    assert listed.layers == stated.layers


@pytest.mark.parametrize(
    ("version", "applied"),
    [
        ((0, 25, 1), ["early"]),
        ((0, 31, 9), ["early"]),
        ((0, 32, 0), ["late"]),
        ((0, 33, 0), ["late", "last"]),
    ],
)
def test_a_change_is_made_from_its_version_on_or_before_it(version: Version, applied: list[str]) -> None:
    changes = {
        "early": before(V0_32_0, built_once),
        "late": since(V0_32_0, built_once),
        "last": since((0, 33, 0), built_once),
    }
    assert [name for name, (change,) in changes.items() if change.applies(version)] == applied


def test_a_classifier_is_built_by_a_version_as_the_decoder_that_it_is_made_of() -> None:
    decoder = read_shape(SMALL["HYV3ForCausalLM"]["config"])
    scored = read_shape(changed("HYV3ForCausalLM", "architectures", ["HYV3ForSequenceClassification"]))
    assert isinstance(decoder, Shape)
    assert isinstance(scored, Shape)
    for version in ("0.25.1", "0.32.0"):
        assert as_built(decoder, version).layers == as_built(scored, version).layers
    assert as_built(scored, "0.25.1").layers != as_built(scored, "0.32.0").layers


def test_a_params_file_that_names_itself_as_its_decoder_is_refused() -> None:
    config: dict[str, Any] = {
        "architectures": ["PixtralForConditionalGeneration"],
        "text_config": {"architectures": ["PixtralForConditionalGeneration"]},
        "vision_config": {},
    }
    found = read_shape(config)
    assert isinstance(found, Unsupported)
    assert "no plan for the decoder Pixtral" in found.reason


def test_a_model_that_names_itself_as_its_decoder_is_refused() -> None:
    config = changed("RForConditionalGeneration", "text_config.architectures", ["RForConditionalGeneration"])
    found = read_shape(config)
    assert isinstance(found, Unsupported)
    assert "no plan for the decoder" in found.reason
    config = changed("Ovis", "llm_config.architectures", ["Ovis"])
    assert isinstance(read_shape(config), Unsupported)
