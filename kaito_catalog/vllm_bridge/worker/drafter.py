"""The drafter of speculative decoding: what vLLM's loaders build beside a model, and what they share with it."""

from __future__ import annotations

import importlib
import types
from typing import Any

from kaito_catalog.vllm_bridge.worker.releases import Name, find

WITHOUT_MODEL = frozenset({"ngram", "ngram_gpu", "suffix"})
"""Methods that guess from the text alone."""

_SHARING = "vllm.v1.worker.gpu.spec_decode"
_LOADERS = {
    "dflash": f"{_SHARING}.dflash.utils:load_dflash_model",
    "dspark": f"{_SHARING}.dspark.utils:load_dspark_model",
}
"""Of the second runner, by method; the others have `load_eagle_model`."""
_PROPOSERS = {
    "draft_model": "vllm.v1.spec_decode.draft_model:DraftModelProposer",
    "medusa": "vllm.v1.spec_decode.medusa:MedusaProposer",
    "dflash": "vllm.v1.spec_decode.dflash:DFlashProposer",
}
"""Of the first runner, by method; the others are `EagleProposer`."""


def build_drafter(vllm_config: Any, target: Any) -> Any:
    """The drafter, as the last pipeline stage builds it; None where there is none.

    vLLM's own loader is called with a `get_model` that stops before weights are read. Which parts a checkpoint brings
    of its own is only known by reading it: here the output embedding of EAGLE-3, or one over another vocabulary
    (`draft_vocab_size`), and an embedding of another width are the drafter's, and whatever else vLLM would share is
    shared.
    """
    from vllm.distributed.parallel_state import get_pp_group

    speculation = vllm_config.speculative_config
    if speculation is None or speculation.method in WITHOUT_MODEL or not get_pp_group().is_last_rank:
        return None
    if vllm_config.use_v2_model_runner:
        return _of_second_runner(vllm_config, target)
    return _of_first_runner(vllm_config, target)


def _of_second_runner(vllm_config: Any, target: Any) -> Any:
    method = vllm_config.speculative_config.method
    if method == "draft_model":
        speculator = find("speculator of a draft model")
        _stop_before_weights(speculator.__module__)
        stand_in = types.SimpleNamespace(
            vllm_config=vllm_config,
            speculative_config=vllm_config.speculative_config,
            draft_model_config=vllm_config.speculative_config.draft_model_config,
        )
        return speculator.load_draft_model(stand_in, target, set())
    loader = _LOADERS.get(method, f"{_SHARING}.eagle.utils:load_eagle_model")
    _stop_before_weights(loader.partition(":")[0])
    return Name(loader).find()(target, vllm_config)


def _of_first_runner(vllm_config: Any, target: Any) -> Any:
    method = vllm_config.speculative_config.method
    proposer = Name(_PROPOSERS.get(method, "vllm.v1.spec_decode.eagle:EagleProposer")).find()
    for owner in proposer.__mro__[:-1]:
        _stop_before_weights(owner.__module__)
    stand_in = object.__new__(proposer)
    stand_in.vllm_config = vllm_config
    if method == "medusa":
        stand_in.spec_config = vllm_config.speculative_config
        stand_in.load_model(target)
        return stand_in.model
    stand_in.speculative_config = vllm_config.speculative_config
    stand_in.use_local_argmax_reduction = False
    stand_in.model = stand_in._get_model()
    language_model = target.get_language_model() if hasattr(target, "get_language_model") else target
    stand_in._maybe_share_embeddings(language_model)
    stand_in._maybe_share_lm_head(language_model)
    return stand_in.model


def _stop_before_weights(module: str) -> None:
    """Let the loaders of that module have the model as it is built."""
    found = importlib.import_module(module)
    if hasattr(found, "get_model"):
        found.get_model = _built  # type: ignore[attr-defined]


def _built(*, vllm_config: Any, model_config: Any = None, prefix: str = "", load_config: Any = None) -> Any:
    from vllm.model_executor.model_loader.utils import initialize_model

    model_config = model_config or vllm_config.model_config
    model = initialize_model(vllm_config, model_config=model_config, prefix=prefix)
    method, target = vllm_config.speculative_config.method, vllm_config.speculative_config.target_model_config
    if hasattr(model, "has_own_embed_tokens") and model_config.get_hidden_size() != target.get_hidden_size():
        model.has_own_embed_tokens = True
    rows = getattr(model_config.hf_config, "draft_vocab_size", None)
    if method == "eagle3" or rows not in (None, model_config.get_vocab_size()):
        model.has_own_lm_head = True
    return model
