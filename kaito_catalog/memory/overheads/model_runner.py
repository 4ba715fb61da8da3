"""Which of its model runners vLLM takes for a model, and what that one profiles."""

from __future__ import annotations

from kaito_catalog.architectures import BuiltShape, Experts, Recurrent
from kaito_catalog.architectures.as_built import version_tuple
from kaito_catalog.memory.compilation import captured_graphs
from kaito_catalog.memory.overheads.versions import (
    EXPERT_ARCHITECTURES,
    SECOND_RUNNER_FOR_ALL,
    SECOND_RUNNER_FOR_DENSE,
    SECOND_RUNNER_FOR_SOME,
    SECOND_RUNNER_PROFILES,
    SOME_ARCHITECTURES,
)
from kaito_catalog.memory.speculation.config import Method, Speculation
from kaito_catalog.memory.speculation.drafting import Drafting


def runs_second_runner(shape: BuiltShape, vllm_version: str, drafting: Drafting | None = None) -> bool:
    """Whether vLLM takes its second model runner for the model (VllmConfig.use_v2_model_runner)."""
    version = version_tuple(vllm_version)
    if drafting is not None and _keeps_first_runner(drafting.speculation, version):
        return False
    if version >= SECOND_RUNNER_FOR_ALL:
        return True
    if version >= SECOND_RUNNER_FOR_DENSE:
        return shape.architecture in EXPERT_ARCHITECTURES or not any(
            isinstance(x.feed_forward, Experts) or any(isinstance(m, Recurrent) for m in x.mixers)
            for x in shape.layers
        )
    is_named = version >= SECOND_RUNNER_FOR_SOME and shape.architecture in SOME_ARCHITECTURES
    return is_named and shape.quantization is None


def _keeps_first_runner(speculation: Speculation, version: tuple[int, int, int]) -> bool:
    """Ways to guess that the second runner does not know (_get_v2_model_runner_unsupported_features)."""
    method = speculation.method
    if speculation.parallel_drafting and method not in (Method.DFLASH, Method.DSPARK):
        return True
    if version >= SECOND_RUNNER_FOR_ALL:
        return method in (Method.SUFFIX, Method.MEDUSA) or speculation.heterogeneous_vocab
    # EAGLE-3 on several pipeline stages too, which that version refuses.
    return not method.reads_hidden_states


def profiles_everything(shape: BuiltShape, vllm_version: str, drafting: Drafting | None = None) -> bool:
    """Whether the profile run captures graphs and runs the encoder: the second runner did neither at first."""
    is_later = version_tuple(vllm_version) >= SECOND_RUNNER_PROFILES
    return is_later or not runs_second_runner(shape, vllm_version, drafting)


MOST_GRAPHS: int = captured_graphs(1024, 8192)
