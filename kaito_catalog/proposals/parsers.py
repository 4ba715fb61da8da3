"""vLLM options that a family of models needs: its parsers of tool calls and reasoning, its tokenizer, its cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kaito_catalog.formats.facts import ModelFacts


@dataclass(frozen=True)
class _Parsers:
    """What vLLM needs to answer with tool calls and reasoning in their own fields."""

    name: str
    """A pattern at the start of the repository's name, in lower case."""
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    """In the folder of templates of KAITO's image."""


# kaito-project/kaito@056b828, presets/workspace/generator: the prefix maps of KAITO v0.12's generator; the first that
# matches counts. vLLM 0.25.1 knows every parser named here.
_PARSERS = (
    _Parsers("(meta-)?llama-3.*instruct", "llama3_json", None, "tool-chat-llama3.1-json.jinja"),
    _Parsers("(meta-)?llama-4", "llama4_pythonic"),
    _Parsers("qwen3-coder", "qwen3_xml"),
    _Parsers("qwen3\\.", "qwen3_coder", "qwen3"),
    _Parsers("qwen3-.*(instruct|embedding|reranker)", "hermes"),
    _Parsers("qwen3", "hermes", "qwen3"),
    _Parsers("qwen2\\.5.*instruct", "hermes", None, "tool-chat-hermes.jinja"),
    _Parsers("qwq-32b", "hermes", "deepseek_r1"),
    _Parsers("deepseek-r1-distill", None, "deepseek_r1"),
    _Parsers("deepseek-r1", "deepseek_v3", "deepseek_r1", "tool-chat-deepseekr1.jinja"),
    _Parsers("deepseek-v3\\.1", "deepseek_v31", "deepseek_v3"),
    _Parsers("deepseek-v3\\.2", "deepseek_v32", "deepseek_v3"),
    _Parsers("deepseek-v3", "deepseek_v3", None, "tool-chat-deepseekv3.jinja"),
    _Parsers("deepseek-v4", "deepseek_v4", "deepseek_v4"),
    _Parsers("gpt-oss", "openai", "openai_gptoss"),
    _Parsers("gemma-4", "gemma4", "gemma4", "tool-chat-gemma4.jinja"),
    _Parsers("phi-4-mini", "phi4_mini_json", None, "tool-chat-phi4-mini.jinja"),
    _Parsers("(mistral|ministral).*(instruct|\\d{4})", "mistral"),
    _Parsers("kimi-k2", "kimi_k2", "kimi_k2"),
    _Parsers("minimax-m2", "minimax_m2", "minimax_m2_append_think"),
    _Parsers("minimax-m3", "minimax_m3", "minimax_m3"),
    _Parsers("glm-4\\.7|glm-5", "glm47", "glm45"),
    _Parsers("glm-4", "glm45", "glm45"),
    _Parsers("granite-4", "granite4"),
    _Parsers("granite-3", "granite", "granite"),
    _Parsers("nvidia-nemotron-3|nemotron-cascade", "qwen3_coder", "nemotron_v3"),
    _Parsers("olmo-3", "olmo3", "olmo3"),
    _Parsers("seed-oss", "seed_oss"),
)
_KV_CACHE_DTYPES = {"deepseek-v4": "fp8", "glm-5.2-fp8": "fp8"}
"""By the start of the name; same source."""
_PARSER_SOURCE = "KAITO v0.12's generator"


def family_options(name: str, facts: ModelFacts) -> list[tuple[str, Any, str]]:
    """vLLM options that a family of models needs, each with the reason."""
    found: list[tuple[str, Any, str]] = []
    if facts.pipeline_tag in ("text-generation", "image-text-to-text", None):
        parsers = next((p for p in _PARSERS if re.match(p.name, name)), None)
        if parsers and parsers.tool_call_parser:
            template = f"; its image has {parsers.chat_template} for it" if parsers.chat_template else ""
            found.append(("tool-call-parser", parsers.tool_call_parser, _PARSER_SOURCE + template))
        if parsers and parsers.reasoning_parser:
            found.append(("reasoning-parser", parsers.reasoning_parser, _PARSER_SOURCE))
    if facts.weights is not None and facts.weights.format == "mistral":
        found.append(
            ("tokenizer-mode", "mistral", "consolidated.safetensors: weights in Mistral's own format")
        )
    dtype = next((dtype for start, dtype in _KV_CACHE_DTYPES.items() if name.startswith(start)), None)
    if dtype is not None:
        found.append(("kv-cache-dtype", dtype, _PARSER_SOURCE))
    return found
