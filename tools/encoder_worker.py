"""Runs inside .venv-vllm: what torch holds while vLLM's own encoder takes its largest item; one JSON request on stdin.

The model is built on the meta device (as an exact plan builds it), the encoder is run there, and every storage that an
operator makes is counted until it is freed. Kernels that need a GPU leave nothing but their results: attention, rotary
embeddings and Triton's.

    {"model": DIRECTORY, "version": "0.25.1", "kind": "grid" | "images", "count": 1, "height": 256, "width": 256,
     "pixels": 1536}

For `grid` (Qwen) height and width are patches and `pixels` the elements of one; for `images` they are in pixels.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kaito_catalog.vllm_bridge.worker.configuration import engine_config
from kaito_catalog.vllm_bridge.worker.ranks import stay_on_meta
from kaito_catalog.vllm_bridge.worker.releases import register_kv_cache_specs
from kaito_catalog.vllm_bridge.worker.requests import DescribedGpu
from kaito_catalog.vllm_bridge.worker.simulated_gpu import SimulatedHardware
from kaito_catalog.vllm_bridge.worker.warm import import_for_planning, overlay_directory

Json = dict[str, Any]


def main() -> None:
    """Answer with peakBytes, inputBytes and outputBytes."""
    request = json.load(sys.stdin)
    overlay = overlay_directory(request["version"])
    if overlay is not None:
        sys.path.insert(0, overlay)
    request["gpu"] = {"name": "NVIDIA H100 80GB", "memoryBytes": 85 * 10**9, "computeCapability": 9.0}
    SimulatedHardware.gpu = DescribedGpu.read(request)
    import_for_planning((9, 0))
    with contextlib.redirect_stdout(sys.stderr):
        answer = measure(request)
    print(json.dumps(answer))


def measure(request: Json) -> Json:
    """Build the model, run its encoder, count."""
    import torch
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    config = engine_config(request, lambda text: None)
    dtype = config.model_config.dtype
    torch.distributed.init_process_group(backend="fake", store=FakeStore(), rank=0, world_size=1)
    with set_current_vllm_config(config):
        register_kv_cache_specs(config)
        parallel_state.init_distributed_environment(1, 0, "env://", local_rank=0, backend="fake")
        parallel_state.initialize_model_parallel(1, 1, backend="fake")
        with set_default_torch_dtype(dtype), torch.device("meta"), stay_on_meta():
            model = initialize_model(config)
            without_kernels()
            metadata_on_the_host(model)
            with torch.inference_mode(), counted() as live:
                arguments = items(request, dtype)
                inputs = live.bytes
                embeddings = model.embed_multimodal(**arguments)
                outputs = sum(e.numel() * e.element_size() for e in embeddings)
    return {"peakBytes": live.peak, "inputBytes": inputs, "outputBytes": outputs}


def items(request: Json, dtype: Any) -> Json:
    """What vLLM's processor would hand to the encoder."""
    import torch

    count, height, width = (int(request[name]) for name in ("count", "height", "width"))
    if request["kind"] == "grid":
        patches = count * height * width
        return {
            "pixel_values": torch.empty(patches, int(request["pixels"]), dtype=dtype, device="meta"),
            "image_grid_thw": torch.tensor([[count, height, width]], device="cpu"),
        }
    return {
        "pixel_values": torch.empty(count, 3, height, width, dtype=dtype, device="meta"),
        "num_patches": torch.tensor([1] * count, device="cpu"),
    }


class Live:
    """Bytes of storages on the meta device: those that are there, and the most that ever were."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self._known: dict[int, int] = {}

    def add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self._known.pop(key, 0)


@contextlib.contextmanager
def counted() -> Iterator[Live]:
    """Count what every operator returns until it is freed."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    live = Live()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            for value in tree_iter(found):
                if isinstance(value, torch.Tensor) and value.is_meta:
                    live.add(value.untyped_storage())
            return found

    with Counting():
        yield live


def without_kernels() -> None:
    """Kernels of a GPU leave their results as they are; pinned memory is plain memory."""
    import torch

    jit = importlib.import_module("triton.runtime.jit")
    attention = importlib.import_module("vllm.model_executor.layers.attention.mm_encoder_attention")
    jit.JITFunction.run = lambda self, *args, **kwargs: None
    attention.MMEncoderAttention.forward_cuda = lambda self, query, *rest, **more: torch.empty_like(query)
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self
    torch.cuda.device = lambda *args: contextlib.nullcontext()
    for module in list(sys.modules.values()):
        if getattr(module, "PIN_MEMORY", False) is True:
            vars(module)["PIN_MEMORY"] = False


def metadata_on_the_host(model: Any) -> None:
    """Windows of attention are found from values, which meta tensors do not have."""
    import torch

    tower: Any = type(getattr(model, "visual", None))
    made = getattr(tower, "prepare_encoder_metadata", None)
    if made is None or not hasattr(tower, "get_window_index_thw"):
        return

    def prepared(self: Any, *args: Any, **kwargs: Any) -> Json:
        with torch.device("cpu"):
            found = made(self, *args, **kwargs)
        return {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in found.items()}

    tower.prepare_encoder_metadata = prepared


if __name__ == "__main__":
    main()
