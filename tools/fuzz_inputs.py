"""Unexpected inputs: strange values, values with a few changes, texts with damage; from a seeded generator."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

TEXTS = (
    "", " ", "\n", "\r\n", "\0", "\ufeff", "\u202e", "\u200b", "\ud800", "\x1b[2J", "\t", "\\", "'", '"', "`", "```",
    "<script>alert(1)</script>", "--><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "{% raw %}", "${7*7}", "%s%n",
    "[a](javascript:alert(1))", "![a](//x.example)", "</details>", "| a | b |", "=HYPERLINK(1)", "+1", "@all", "-1",
    "\n::error::owned", "::error file=a::b", "%0A::warning::b", "a: b", "a: {b: c}", "- a", "# a", "&a b", "*a",
    "!!x y",
    "---\nkind: Secret", "...", "<<", "null", "~", "no", "on", "0x1F", "0o17", "1e400", ".nan", "-.inf", "2025-05-29",
    "../../etc/passwd", "/etc/passwd", "..", ".", "a/../b", "C:\\x", "file:///etc/passwd", "https://x.example/?a=b#c",
    "https://huggingface.co/a/b", "https://huggingface.co/../..", "а/b", "e\u0301", "模型", "🙂", "a" * 300, "9" * 500,
    "6f6073b423013f6a7d4d9f39144961bfbfbc386b", "main", "refs/pr/1", "N/A", "TBD", "140GB", "1e9GB", "0GB", "-1GB",
    "LlamaForCausalLM", "MixtralForCausalLM", "fp8", "float16", "vllm", "onnx", "*.yaml", "hf-token", "a b",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 64, 127, 4096, 2**31, 10**6, 10**9, 2**53 + 1, 2**63, 10**12,
    10**15, 10**18, 10**30, 10**400, 0.0, -0.0, 0.5,
    1.0, 1e-300, 1e15, 1e300, -1e300, math.inf, -math.inf, math.nan, True, False, None,
)  # fmt: skip


def strange(rng: random.Random, depth: int = 0) -> Any:
    """An unexpected value."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.8 or depth > 2:
        return "".join(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))
    if kind < 0.9:
        return [strange(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {str(rng.choice(TEXTS)): strange(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def _routes(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*prefix, key)
        yield from _routes(part, (*prefix, key))


def mutated(rng: random.Random, base: Any, most: int = 4) -> Any:
    """`base` with some values replaced, removed, doubled, or keys added."""
    value = copy.deepcopy(base)
    for _ in range(rng.randint(0, most)):
        routes = list(_routes(value))
        if not routes:
            return strange(rng)
        route = rng.choice(routes)
        parent = value
        for part in route[:-1]:
            parent = parent[part]
        action = rng.random()
        if action < 0.65:
            parent[route[-1]] = strange(rng)
        elif action < 0.8:
            del parent[route[-1]]
        elif isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = strange(rng)
        else:
            parent.append(copy.deepcopy(parent[route[-1]]))
    return value


def reworded(rng: random.Random, base: Any, most: int = 4) -> Any:
    """`base` with some of its texts replaced by hostile ones: often still valid."""
    value = copy.deepcopy(base)
    routes = list(_routes(value))
    for _ in range(rng.randint(1, most)):
        route = rng.choice(routes)
        parent = value
        for part in route[:-1]:
            parent = parent[part]
        if isinstance(parent[route[-1]], str):
            words = "".join(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))
            parent[route[-1]] = rng.choice((words, parent[route[-1]] + words))
    return value


def damaged(rng: random.Random, text: str) -> str:
    """`text` with pieces put in, taken out, doubled or moved."""
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((0, 1, 5, 40, 400)))
        action = rng.random()
        if action < 0.6:
            text = text[:start] + rng.choice(TEXTS) * rng.choice((1, 1, 1, 2, 50)) + text[end:]
        elif action < 0.8:
            text = text[:start] + text[end:]
        else:
            text = text[:start] + text[start:end] * 2 + text[end:]
    return text
