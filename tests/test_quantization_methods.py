"""Which ways of storing weights each vLLM takes, against what it registers, and what a plan says of the others."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaito_catalog.architectures import Shape, read_shape
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.quantization_methods import DEPRECATED, METHODS, methods_of
from kaito_catalog.memory.values import Fit, Plan, PlanGpu, PlanRequest, Settings
from kaito_catalog.vllm_bridge.reference import known, versions

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
A100 = PlanGpu("NVIDIA A100 80GB", 84986665370, 8.0)
T4 = PlanGpu("Tesla T4", 15655000000, 7.5)


class Sized:
    """Weight files of 5 GB."""

    high_bytes = 5 * 10**9
    precision_bytes = 0


def plan_of(
    how: dict[str, Any], version: str = "0.25.1", *, gpu: PlanGpu = A100, allow: bool = False
) -> Plan:
    shape = read_shape({**SMALL, "quantization_config": how})
    assert isinstance(shape, Shape)
    settings = Settings(8192, 0.84, allow_deprecated_quantization=allow)
    return make_plan(PlanRequest(shape, stored=Sized(), gpu=gpu, settings=settings, vllm_version=version))


@pytest.mark.parametrize("version", versions())
def test_the_methods_are_those_that_the_parser_of_vllm_lists(version: str) -> None:
    read = known(version)
    assert read is not None
    assert set(methods_of(version)) == set(read.options["quantization"].choices)


@pytest.mark.parametrize(
    "method", ["exl2", "aqlm", "hqq", "bitnet", "quanto", "eetq", "higgs", "vptq", "spqr", "gguf"]
)
def test_a_method_that_vllm_has_not_cannot_start(method: str) -> None:
    plan = plan_of({"quant_method": method, "bits": 4, "group_size": 64})
    assert (plan.fits, plan.limited_by, plan.reason) == (
        Fit.NO,
        "quantization",
        f"vLLM 0.25.1 has no quantisation method {method}",
    )


def test_a_method_that_is_gone_is_told_from_one_that_never_was() -> None:
    how = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert plan_of(how).fits is Fit.YES
    gone = plan_of(how, "0.32.0")
    assert (gone.fits, gone.reason) == (
        Fit.NO,
        "vLLM 0.32.0 has the quantisation method bitsandbytes no longer",
    )


def test_mlx_names_no_method_and_cannot_start() -> None:
    for version in versions():
        plan = plan_of({"group_size": 64, "bits": 4}, version)
        assert plan.fits is Fit.NO
        assert plan.reason is not None
        assert "as MLX writes it" in plan.reason


def test_a_configuration_that_says_nothing_of_the_method_leaves_it_unknown() -> None:
    plan = plan_of({"modules_to_not_convert": []})
    assert (plan.fits, plan.limited_by) == (Fit.UNKNOWN, "quantization")


@pytest.mark.parametrize("method", sorted(DEPRECATED))
def test_a_deprecated_method_has_to_be_allowed(method: str) -> None:
    refused = plan_of({"quant_method": method}, gpu=replace(A100, compute_capability=10.0))
    assert refused.reason == (
        f"vLLM 0.25.1 refuses the deprecated quantisation method {method} without allow-deprecated-quantization"
    )
    assert (
        plan_of({"quant_method": method}, gpu=replace(A100, compute_capability=10.0), allow=True).fits
        is Fit.YES
    )


def test_a_gpu_that_is_too_old_for_a_method_is_refused() -> None:
    plan = plan_of({"quant_method": "mxfp4"}, gpu=T4)
    assert (plan.fits, plan.limited_by) == (Fit.NO, "gpu")
    modelopt = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
    assert plan_of(modelopt).fits is Fit.NO
    assert plan_of(modelopt, "0.32.0").fits is Fit.YES


@pytest.mark.parametrize("name", ["Compressed_Tensors", "AWQ", "auto-round"])
def test_names_are_read_as_vllm_reads_them(name: str) -> None:
    assert plan_of({"quant_method": name, "bits": 4, "group_size": 128}).fits is Fit.YES


def _minimum(source: Path) -> dict[str, int]:
    """Class to what its get_min_capability returns, in a file of vLLM."""
    found = {}
    for item in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(item, ast.ClassDef):
            for method in item.body:
                if isinstance(method, ast.FunctionDef) and method.name == "get_min_capability":
                    value = method.body[-1]
                    if isinstance(value, ast.Return) and isinstance(value.value, ast.Constant):
                        found[item.name] = int(str(value.value.value))
    return found


_CLASSES = {
    "fp8": ("fp8.py", "Fp8Config"),
    "modelopt": ("modelopt.py", "ModelOptFp8Config"),
    "modelopt_fp4": ("modelopt.py", "ModelOptNvFp4Config"),
    "modelopt_mxfp8": ("modelopt.py", "ModelOptMxFp8Config"),
    "modelopt_mixed": ("modelopt.py", "ModelOptMixedPrecisionConfig"),
    "mxfp4": ("mxfp4.py", "Mxfp4Config"),
    "awq": ("auto_awq.py", "AutoAWQConfig"),
    "gptq": ("auto_gptq.py", "AutoGPTQConfig"),
    "inc": ("inc/inc.py", "INCConfig"),
    "torchao": ("torchao.py", "TorchAOConfig"),
    "fbgemm_fp8": ("fbgemm_fp8.py", "FBGEMMFp8Config"),
    "fp_quant": ("fp_quant.py", "FPQuantConfig"),
    "experts_int8": ("experts_int8.py", "ExpertsInt8Config"),
    "humming": ("humming.py", "HummingConfig"),
    "moe_wna16": ("moe_wna16.py", "MoeWNA16Config"),
    "compressed-tensors": ("compressed_tensors/compressed_tensors.py", "CompressedTensorsConfig"),
    "quark": ("quark/quark.py", "QuarkConfig"),
}


@pytest.mark.parametrize("version", ["0.25.1", "0.32.0"])
def test_the_least_capability_is_that_of_vllms_own_class(version: str, vllm_python: Path) -> None:
    environment = vllm_python.parents[1]
    overlay = environment / "overlays" / f"vllm-{version}" / "vllm"
    package = overlay if overlay.is_dir() else next(environment.glob("lib/python3*/site-packages/vllm"))
    folder = package / "model_executor" / "layers" / "quantization"
    ours = {name: methods_of(version)[name] for name in _CLASSES}
    assert ours == {name: _minimum(folder / file)[title] / 10 for name, (file, title) in _CLASSES.items()}
    assert set(_CLASSES) <= set(METHODS)
