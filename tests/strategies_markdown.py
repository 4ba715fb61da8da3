"""Proposals of every shape, with texts that try to break out of Markdown, and damaged Markdown."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

HOSTILE = (
    "|", "\\|", "`", "```", "````", "<script>x</script>", "<!--", "-->", "\n", "\n\n# Title\n", "\n---\n", "\t",
    "[a](javascript:b)", "](", "[a](https://huggingface.co/a/b)", "![a](b.png)", "{{x}}", "{% x %}", "\\", "~~~",
    "- [x] ", "[ ] ", "N/A", "TBD", ": ", "*", "**", "**Model license**: MIT", "&lt;", "\u2028", "\u200b", "\u202e",
    "\ufeff", "kind: ModelProposalOverlay", "1. ", ". ", "(", ")", "~", "8+", "GPU", "GPU; 1+", "; ", "80GB",
    " as of 2025-01-05", ", according to [x](https://x.org)", "vLLM", "not supported", "16k context", "xx/xx/2025: ",
    "2025-01-05: ", "True", "(True for x)", "'", '"', "#", "> ", "    ", "é", "模型", "🙂", "#!", "...", "null",
    "apache-2.0", "Apache 2.0", "according to https://x.org",
)  # fmt: skip
"""Pieces that mean something to Markdown, YAML, HTML, the template or the reader."""

_CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = (
    st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(_CHARACTERS, max_size=5)), min_size=1, max_size=6)
    .map("".join)
    .filter(bool)
)
WORDS = st.one_of(
    st.sampled_from(("Acme", "text-generation", "one word", "a `b` [c](https://d.org/e).")), TEXTS
)
_URLS = st.one_of(
    st.sampled_from(("https://huggingface.co/acme/Acme-7B", "https://x.org/?a=(b)&c", "http://x.org/`|\\[")),
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='<>"'), min_size=1, max_size=9
    ).map("https://x.org/{}".format),
)
_DATES = st.sampled_from(("2025-01-05", "2025-05-01", "2025-02-30", "0000-99-99"))
_SIZES = st.sampled_from(("140GB", "80 GB", "131.42Gi", "1.5TiB", "TBD", "N/A"))
_COUNTS = st.sampled_from((1, 4, 16384, 10**9, "TBD", "N/A"))
_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(-1e300, 1e300), WORDS, st.just("")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
_OPTIONS = st.dictionaries(
    st.sampled_from(("max-model-len", "gpu-memory-utilization", "trust-remote-code", "a_b.c")),
    st.one_of(st.sampled_from((16384, 8192, True, False)), _JSON),
    max_size=3,
)
_NOTE = st.one_of(
    st.sampled_from(("~", "8+", "minimum", "GPU", "~; per [x](https://x.org)", "~16k context length")), TEXTS
)
_SITES = st.one_of(st.sampled_from(("https://huggingface.co/acme/Acme-7B", "Hugging Face")), TEXTS)
_VERSIONS = st.one_of(st.sampled_from(("0123456789abcdef" * 2 + "01234567", "main", "0123456", "TBD")), TEXTS)
_CLAIMS = ("storageSize", "gpuCount", "totalGPUMemory", "perGPUMemory", "contextLength", "version", "runtimes",
           "distributedInference", "other")  # fmt: skip


def _some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=parts)


_RUNTIME = st.fixed_dictionaries(
    {"name": st.sampled_from(("vllm", "transformers", "onnx"))},
    optional={
        "distributedInference": st.booleans(),
        "customConfigurations": WORDS,
        "config": _OPTIONS,
        "trustRemoteCode": st.booleans(),
    },
)
_EVENT = st.fixed_dictionaries({"event": WORDS, "done": st.booleans()}, optional={"date": _DATES})

_ADAPTER = st.fixed_dictionaries(
    {"name": WORDS},
    optional={"image": WORDS, "repoId": WORDS, "strength": st.sampled_from((0, 0.25, 1, 1.0))},
)
PROPOSALS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("catalog.kaito.sh/v1alpha1"),
        "kind": st.just("ModelProposal"),
        "metadata": st.fixed_dictionaries(
            {
                "name": st.sampled_from(("acme-7b", "a", "a.b_c-1")),
                "heading": WORDS,
                "authors": st.lists(WORDS, min_size=1, max_size=2),
                "creationDate": _DATES,
                "status": st.sampled_from(("provisional", "implemented", "withdrawn")),
            },
            optional={"title": WORDS, "reviewers": st.lists(WORDS, max_size=2), "lastUpdated": _DATES},
        ),
        "requirements": st.fixed_dictionaries(
            {
                "familyName": WORDS,
                "type": WORDS,
                "downloadSite": _SITES,
            },
            optional={
                "version": _VERSIONS,
                "storageSize": _SIZES,
                "gpuCount": _COUNTS,
                "totalGPUMemory": _SIZES,
                "perGPUMemory": _SIZES,
                "contextLength": _COUNTS,
                "notes": st.dictionaries(st.sampled_from(_CLAIMS), _NOTE, max_size=3),
                "figures": st.lists(st.fixed_dictionaries({"alt": TEXTS, "src": st.one_of(_URLS, TEXTS)}), max_size=2),
            },
        ),
    },
    optional={
        "glossary": st.dictionaries(WORDS, WORDS, max_size=2),
        "summary": _some(
            description=WORDS,
            usage=_some(statistics=WORDS, asOf=_DATES, source=_URLS),
            license=_some(id=WORDS, url=_URLS, note=WORDS),
        ),
        "runtimes": st.lists(_RUNTIME, max_size=3),
        "deployment": _some(
            instanceType=WORDS,
            nodeCount=st.integers(1, 9),
            partition=st.fixed_dictionaries(
                {"mode": st.just("mig"), "profile": st.sampled_from(("1g.10gb", "7g.141gb"))}
            ),
            performanceMode=st.sampled_from(("balanced", "throughput", "interactivity")),
            adapters=st.lists(_ADAPTER, min_size=1, max_size=2),
            modelAccessSecret=WORDS,
            configMap=WORDS,
        ),
        "history": st.lists(_EVENT, max_size=3),
        "waivers": st.dictionaries(st.sampled_from(("MEM003", "STO001")), WORDS, max_size=2),
    },
)  # fmt: skip
"""Values of proposal.yaml that the schema accepts."""


def damaged(text: str) -> st.SearchStrategy[str]:
    """`text` with up to six of its lines replaced, doubled or moved."""
    lines = text.split("\n")

    @st.composite
    def build(draw: st.DrawFn) -> str:
        result = list(lines)
        for _ in range(draw(st.integers(1, 6))):
            number = draw(st.integers(0, len(result) - 1))
            result[number] = draw(
                st.one_of(st.sampled_from(HOSTILE), st.sampled_from(lines), st.text(max_size=20))
            )
        return "\n".join(result)

    return build()


def loose(text: str) -> st.SearchStrategy[str]:
    """Lines of `text`, hostile pieces and noise in any order."""
    piece = st.one_of(st.sampled_from(HOSTILE), st.sampled_from(text.split("\n")), st.text(max_size=10))
    return st.lists(piece, max_size=60).map("\n".join)


def is_shown(value: Any) -> bool:
    """Whether YAML can show every text of `value` as it is: tabs and hidden characters are refused there."""
    if isinstance(value, dict):
        return all(is_shown(key) and is_shown(part) for key, part in value.items())
    if isinstance(value, list):
        return all(is_shown(part) for part in value)
    return not isinstance(value, str) or value.isprintable()
