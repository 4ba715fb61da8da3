"""The run in which vLLM measures a model on one GPU: all that its peak depends on."""

from __future__ import annotations

from dataclasses import dataclass

from kaito_catalog.architectures import BuiltShape
from kaito_catalog.memory.compilation import VLLMS_COMPILATION, Compilation
from kaito_catalog.memory.environment import VLLMS_ENVIRONMENT, Environment
from kaito_catalog.memory.overheads.links import Link
from kaito_catalog.memory.speculation.drafting import Drafting


@dataclass(frozen=True)
class ProfileRun:
    """vLLM's profile run on a GPU of one pipeline stage."""

    shape: BuiltShape
    """As that version builds it."""
    max_num_batched_tokens: int
    """Tokens that it runs through the model."""
    max_num_seqs: int
    """Requests in it, whose rows of the vocabulary it samples."""
    max_model_len: int
    vllm_version: str
    tensor_parallel_size: int = 1
    expert_tensor_parallel_size: int = 1
    """Ranks that each expert is cut over."""
    is_first_stage: bool = True
    is_last_stage: bool = True
    enforce_eager: bool = False
    compilation: Compilation = VLLMS_COMPILATION
    memory_bytes: int | None = None
    """Of the GPU, for encoders that take a video in pieces; None: all at once."""
    compute_capability: float | None = None
    """None: an H100's."""
    is_unified: bool = False
    """Whether the GPU's memory is the machine's own."""
    link: Link = Link.SWITCH
    """Between the GPUs of a node."""
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    environment: Environment = VLLMS_ENVIRONMENT
    drafting: Drafting | None = None
    """What guesses tokens, on the last stage."""

    @property
    def compiles(self) -> bool:
        """Whether torch.compile runs."""
        return self.compilation.compiles and not self.enforce_eager

    @property
    def captures(self) -> bool:
        """Whether there are CUDA graphs."""
        return self.compilation.captures and not self.enforce_eager
