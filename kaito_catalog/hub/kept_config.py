"""Which fields of config.json facts.yaml keeps: all but what is known to be noise."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from kaito_catalog.hub.repository import printable

Json: TypeAlias = Any

_NOISE = frozenset(
    """
    _name_or_path add_cross_attention  auto_map bad_words_ids begin_suppress_tokens
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id id2label is_decoder label2id length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_router_logits
    output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate router_aux_loss_coef sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tokenizer_class top_p torchscript transformers.js_config transformers_version typical_p use_bfloat16
    use_cache
    """.split()  # noqa: SIM905
)
_NOISE_PATTERN = re.compile(
    r".*(?:_token_id|_token_ids|_token_index|_dropout|_dropout_rate|_dropout_prob|_pdrop)"
)
_NOISE_START = re.compile(r"(?:initializer_|init_std|dropout|pdrop|aux_loss|seq_aux)")
_DEPTH = 12


def kept_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """The fields of config.json that loading and memory may depend on: all but what is known to be noise.

    Unknown fields are kept, so that architectures that are not known here can be planned later from recorded facts.
    """
    kept = _kept(config, 0)
    assert isinstance(kept, dict)
    return kept


def _is_noise(key: str) -> bool:
    return key in _NOISE or bool(_NOISE_PATTERN.fullmatch(key) or _NOISE_START.match(key))


def _kept(value: Json, depth: int) -> Json:
    match value:
        case dict():
            if depth >= _DEPTH:
                return {}
            return {
                printable(key): _kept(part, depth + 1)
                for key, part in value.items()
                if not _is_noise(key) and _is_plain(part)
            }
        case list():
            return [_kept(part, depth + 1) for part in value if _is_plain(part)] if depth < _DEPTH else []
        case str():
            return value if is_shown(value) else printable(value)
        case _:
            return value


def is_shown(text: str) -> bool:
    """Whether a text can be written as it is."""
    return len(text) <= 2000 and printable(text[:200]) == text[:200] and "\n" not in text


def _is_plain(value: Json) -> bool:
    """Not a number that YAML readers refuse (JSON's NaN and Infinity, which Python reads), nor one of absurd size."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or isinstance(value, bool) or abs(value) <= 10**18
