"""Configurations kept short: only what a shape depends on, with lists of modules folded as `layers.{0..60}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kaito_catalog.architectures import Shape, read_shape

NAMED = frozenset(
    {
        "architectures", "model_type", "dtype", "torch_dtype", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings",
        "tie_word_embeddings", "layer_types", "sliding_window", "num_experts", "num_local_experts", "n_routed_experts",
        "num_experts_per_tok", "quant_method", "activation_scheme", "rope_type",
        "targets", "n_group", "topk_group", "format", "input_activations", "modules_to_not_convert",
        "symmetric", "strategy", "dynamic", "type", "num_bits", "q_lora_rank", "ignore",
    }
)  # fmt: skip
"""Fields that are kept even where the plan would do without: what anybody needs to know a model by."""

_MANY = 100
"""Keys of an object above which they are dropped in halves before one by one."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_SPAN = re.compile(r"(\d+)\.\.(\d+)")
_NUMBER = re.compile(r"(?<=\.)(?:0|[1-9]\d*)(?=\.|\*|$)")


def smallest(config: Mapping[str, Any], quantization: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a configuration without which its shape would be another, and those that `NAMED` lists."""
    whole = read_shape(config, quantization=quantization)

    def same(found: Mapping[str, Any]) -> bool:
        return isinstance(whole, Shape) and read_shape(found, quantization=quantization) == whole

    return _reduced(dict(config), same)


def smallest_quantization(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> dict[str, Any]:
    """The same of hf_quant_config.json beside a configuration."""
    whole = read_shape(config, quantization=quantization)
    return _reduced(dict(quantization), lambda found: read_shape(config, quantization=found) == whole)


def _reduced(config: dict[str, Any], same: Any) -> dict[str, Any]:
    def halved(value: dict[str, Any], keys: Sequence[str], put: Any) -> dict[str, Any]:
        rest = {k: v for k, v in value.items() if k not in set(keys)}
        if same(put(rest)):
            return rest
        if len(keys) == 1:
            return value
        middle = len(keys) // 2
        return halved(halved(value, keys[:middle], put), keys[middle:], put)

    def reduced(value: dict[str, Any], put: Any) -> dict[str, Any]:
        if len(value) > _MANY:
            value = halved(value, [key for key in value if key not in NAMED], put)
        for key in list(value):
            if key not in NAMED:
                rest = {k: v for k, v in value.items() if k != key}
                if same(put(rest)):
                    value = rest
                    continue
            if isinstance(value[key], dict):
                outer = value
                inner = reduced(value[key], lambda part, o=outer, k=key: put(o | {k: part}))
                value = outer | {key: inner}
        return value

    return reduced(config, lambda part: part)


# --- lists of modules -------------------------------------------------------------------------------------------


def unfolded(value: Any) -> Any:
    """A configuration as vLLM reads it: every `{…}` in a list of names, or in a key, written out.

    >>> unfolded({"ignore": ["lm_head", "layers.{0..1,4}.{gate,norm}"]})["ignore"][1:4]
    ['layers.0.gate', 'layers.0.norm', 'layers.1.gate']
    """
    if isinstance(value, dict):
        return {name: unfolded(part) for key, part in value.items() for name in _names(key)}
    if isinstance(value, list):
        return [
            item for part in value for item in (_names(part) if isinstance(part, str) else [unfolded(part)])
        ]
    return value


def _names(text: str) -> Iterator[str]:
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    for choice in found[1].split(","):
        span = _SPAN.fullmatch(choice)
        for word in map(str, range(int(span[1]), int(span[2]) + 1)) if span else (choice,):
            yield from _names(text[: found.start()] + word + text[found.end() :])


def folded(value: Any) -> Any:
    """A configuration whose lists of names are short; `unfolded` gives the same names, in order of layers."""
    if isinstance(value, dict):
        if len(value) > _MANY:
            alike: dict[str, list[str]] = {}
            for key, part in value.items():
                alike.setdefault(json.dumps(part, sort_keys=True), []).append(key)
            return {name: folded(value[keys[0]]) for keys in alike.values() for name in _folded(keys)}
        return {key: folded(part) for key, part in value.items()}
    if isinstance(value, list):
        names = [part for part in value if isinstance(part, str)]
        is_plain = len(names) == len(value) == len(set(names))
        return _folded(names) if is_plain and not any("{" in n or "}" in n for n in names) else value
    return value


def _folded(names: Iterable[str]) -> list[str]:
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        found = _NUMBER.search(name)
        cut = (name[: found.start()], name[found.end() :]) if found else (name, "")
        numbers.setdefault(cut, []).extend([int(found[0])] if found else [])
    endings: dict[tuple[str, str], list[str]] = {}
    for (before, after), layers in numbers.items():
        endings.setdefault((before, _spans(layers)), []).append(after)
    return [f"{before}{layers}{_choice(ends)}" for (before, layers), ends in endings.items()]


def _spans(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    if not words or len(numbers) == 1:
        return "".join(words)
    return f"{{{','.join(words)}}}"


def _choice(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{{{','.join(words)}}}"
