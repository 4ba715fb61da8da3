"""How a configuration says its weights are stored, and which modules are left alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from kaito_catalog.architectures.reading.fields import Fields, UnreadableError
from kaito_catalog.architectures.reading.record import Source
from kaito_catalog.architectures.shape import UNNAMED, Json, Layer, Quantization, Scheme


def _ignored(section: Fields) -> tuple[str, ...] | None:
    """The modules that are left alone; None where no such list was found."""
    found: list[str] | None = None
    for name in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude"):
        value = section.values.get(name)
        if isinstance(value, list):
            found = [*(found or []), *(v for v in value if isinstance(v, str))]
    return None if found is None else tuple(found)


def _kv_cache_dtype(section: Fields, method: str) -> str | None:
    """vLLM 0.25.1: ModelOpt's and compressed-tensors' own wish for an fp8 cache holds under `auto`."""
    if method not in ("modelopt", "compressed-tensors"):
        return None
    scheme = section.values.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        return "fp8" if scheme.get("num_bits") == 8 and scheme.get("type") == "float" else None
    if method == "modelopt":
        wish = scheme or section.values.get("kv_cache_quant_algo")
        return "fp8" if isinstance(wish, str) and wish.lower() in ("fp8", "fp8_e4m3") else None
    return None


def _block(section: Fields, name: str) -> tuple[int, int] | None:
    block = section.values.get(name)
    if block is None:
        return None
    if not (isinstance(block, list) and len(block) == 2):
        raise UnreadableError(f"{section.path(name)} is not two sizes", section.path(name))
    sizes = [b for b in block if isinstance(b, int) and not isinstance(b, bool) and 0 < b <= 2**16]
    if len(sizes) != 2:
        raise UnreadableError(f"{section.path(name)} is not two sizes", section.path(name))
    return sizes[0], sizes[1]


MODELOPT_SCHEMES = {
    "FP8": Scheme.FP8_TENSOR,
    "NVFP4": Scheme.NVFP4,
    "W4A16_NVFP4": Scheme.NVFP4_WEIGHTS,
    "MXFP8": Scheme.MXFP8,
}


_PACKED = (
    "its quantization_config has bits and names no quant_method, as MLX writes it: vLLM takes the weights for "
    "unquantised, and stops where it finds them packed"
)


def read_quantization(source: Source) -> Quantization | None:
    section = source.root.section("quantization_config") or source.text.section("quantization_config")
    section = section or source.root.section("compression_config")
    from_file = section is None and source.quant_file is not None
    if from_file and source.quant_file is not None:
        section = Fields(source.quant_file, "hf_quant_config.").section("quantization")
    if section is None:
        return None
    method = section.text("quant_method") or ("modelopt" if from_file else None)
    if method is None:
        problem = "its quantization_config names no quant_method"
        # MLX writes bits and group_size alone.
        return Quantization(UNNAMED, None, problem=problem, refused=_PACKED if "bits" in section else None)
    ignored = _ignored(section)
    plain = Quantization(
        method,
        None,
        ignored=ignored or (),
        kv_cache_dtype=_kv_cache_dtype(section, method),
        problem=f"no plan for weights quantised with {method[:40]}",
    )
    match method:
        case "fp8":
            block = _block(section, "weight_block_size")
            if section.text("quant_algo") is not None and experts_scheme(section) is None:
                return replace(plain, problem="no plan for fp8 with a second quantisation within")
            return replace(
                plain,
                scheme=Scheme.FP8_BLOCK if block else Scheme.FP8_TENSOR,
                weight_block=block,
                static_activations=section.text("activation_scheme") == "static",
                is_partial="activation_scheme" not in section,
                problem=None,
            )
        case "mxfp4":
            return replace(plain, scheme=Scheme.MXFP4_EXPERTS, problem=None)
        case "modelopt":
            return _modelopt(section, plain, ignored is not None)
        case "compressed-tensors":
            return _compressed_tensors(section, plain)
        case "awq" | "gptq":
            return _grouped(section, plain, as_awq=method == "awq")
        case "auto-round" | "intel/auto-round" | "inc":
            return _auto_round(section, plain)
        case "quark":
            return _quark(section, plain)
        case _:
            return plain


def _anywhere(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as AWQ and ModelOpt mean them in vLLM: any part of a module's name, or the whole with wildcards."""
    found = []
    for name in filter(None, names):
        if LAYER_NAME.search(name):
            found.append(name if name.endswith("*") else f"{name}*")
            continue
        inner = name.replace("language_model.model.", "model.").replace("model.language_model.", "model.")
        words = ".*".join(re.escape(word) for word in inner.split("*"))
        found.append(f"re:{words}$" if "*" in name else f"re:.*{words}")
    return tuple(found)


def experts_scheme(section: Fields) -> Scheme | None:
    """What ModelOpt made of the experts alone, where the rest of the model is fp8 (DeepSeek V4)."""
    if section.text("quant_algo") != "MIXED_PRECISION" or section.text("moe_quant_algo") != "NVFP4":
        return None
    modules = section.values.get("quantized_layers")
    only_experts = isinstance(modules, dict) and all(name.endswith(".ffn.experts") for name in modules)
    return Scheme.NVFP4 if only_experts else None


def _grouped(section: Fields, plain: Quantization, *, as_awq: bool) -> Quantization:
    """AWQ, and GPTQ with its rules for single modules."""
    bits = section.count("bits", "w_bit", default=4, most=8, least=2)
    group = section.values.get("group_size", section.values.get("q_group_size", 128))
    if not isinstance(group, int) or isinstance(group, bool) or not (group >= 1 or group == -1):
        return replace(plain, problem="its group_size is not a number of inputs")
    if 32 % bits:
        return replace(plain, problem=f"no plan for weights of {bits} bits")
    if as_awq:
        if group == -1:
            return replace(plain, problem="no plan for AWQ with a scale per output")
        return replace(
            plain,
            scheme=Scheme.AWQ,
            bits=bits,
            group_size=group,
            ignored=_anywhere(plain.ignored),
            is_partial="group_size" not in section and "q_group_size" not in section,
            problem=None,
        )
    if section.values.get("sym") is False:
        return replace(plain, problem="vLLM takes GPTQ in symmetric groups alone")
    is_partial = "group_size" not in section
    listed = section.values.get("modules_in_block_to_quantize")
    blocks = listed if isinstance(listed, list) else []
    flat = [name for block in blocks for name in (block if isinstance(block, list) else [block])]
    rules = section.section("dynamic")
    ignored = list(plain.ignored)
    for pattern, change in (rules.values if rules else {}).items():
        # GPTQModel: "-:" leaves the modules alone, anything else changes how they are quantised.
        if pattern.startswith("-:"):
            if any(character.isdigit() for character in pattern):
                return replace(plain, problem="no plan for GPTQ rules that name single layers")
            ignored.append(f"re:{pattern.removeprefix('-:')}")
        elif isinstance(change, dict) and any(
            change.get(name, value) != value for name, value in (("bits", bits), ("group_size", group))
        ):
            return replace(plain, problem="no plan for GPTQ rules that give modules other bits or groups")
    return replace(
        plain,
        scheme=Scheme.GPTQ,
        bits=bits,
        group_size=None if group == -1 else group,
        act_order=section.flag("desc_act") and group != -1,
        only=tuple(name for name in flat if isinstance(name, str)),
        is_partial=is_partial,
        ignored=tuple(ignored),
        problem=None,
    )


def _auto_round(section: Fields, plain: Quantization) -> Quantization:
    """Intel's AutoRound packs as GPTQ does, or as AWQ; single modules may keep the model's dtype."""
    packing = section.text("packing_format") or "auto_round:auto_gptq"
    if not packing.endswith(("gptq", "awq")):
        return replace(plain, problem=f"no plan for AutoRound packed as {packing[:40]}")
    left = [*plain.ignored]
    extra = section.section("extra_config")
    for name, change in (extra.values if extra else {}).items():
        bits = change.get("bits") if isinstance(change, dict) else None
        if not isinstance(bits, int) or bits < 16:
            return replace(plain, problem="no plan for AutoRound with modules of other bits or groups")
        left.append(name)
    return _grouped(section, replace(plain, ignored=tuple(left)), as_awq=packing.endswith("awq"))


def _quark(section: Fields, plain: Quantization) -> Quantization:
    """AMD's Quark, where every module is fp8 with one scale."""
    rules = section.section("global_quant_config")
    weight = rules.section("weight") if rules else None
    if rules is None or weight is None or section.values.get("layer_quant_config"):
        return replace(plain, problem="no plan for Quark with rules for single modules")
    if weight.text("dtype") != "fp8_e4m3" or weight.text("qscheme") != "per_tensor":
        return replace(
            plain, problem=f"no plan for weights quantised with quark {str(weight.text('dtype'))[:40]}"
        )
    inputs = rules.section("input_tensors")
    static = inputs is not None and not inputs.flag("is_dynamic")
    return replace(plain, scheme=Scheme.FP8_TENSOR, static_activations=static, problem=None)


def _modelopt(section: Fields, plain: Quantization, has_list: bool) -> Quantization:
    algorithm = section.text("quant_algo") or ""
    modules = section.values.get("quantized_layers")
    if algorithm == "MIXED_PRECISION" and isinstance(modules, dict):
        head = modules.get("lm_head")
        lm_head = MODELOPT_SCHEMES.get(str(head.get("quant_algo"))) if isinstance(head, dict) else None
        return replace(
            plain,
            mixed=True,
            static_activations=True,
            lm_head=lm_head,
            group_size=section.count("group_size", default=16),
            problem=None,
        )
    scheme = MODELOPT_SCHEMES.get(algorithm)
    if scheme is None:
        return replace(plain, problem=f"no plan for weights quantised with modelopt {algorithm[:40]}")
    if not has_list:
        return replace(plain, problem="unknown: which modules its quantisation leaves unquantised")
    return replace(
        plain,
        scheme=scheme,
        ignored=_anywhere(plain.ignored),
        static_activations=True,
        group_size=section.count("group_size", default=16),
        problem=None,
    )


def _compressed_tensors(section: Fields, plain: Quantization) -> Quantization:
    groups = section.section("config_groups")
    if groups is None or len(groups.values) != 1:
        return replace(plain, problem="no plan for compressed-tensors with several groups")
    group = groups.section(next(iter(groups.values)))
    weights = group.section("weights") if group else None
    if group is None or weights is None or group.values.get("targets", ["Linear"]) != ["Linear"]:
        return replace(plain, problem="no plan for these targets of compressed-tensors")
    bits = weights.count("num_bits", most=16)
    strategy = weights.text("strategy")
    activations = group.section("input_activations")
    static = activations is not None and activations.values.get("dynamic") is False
    kind = section.text("format") or group.text("format") or ""
    block = _block(weights, "block_structure")
    scheme: Scheme | None = None
    size: int | None = None
    order = weights.values.get("actorder")
    if kind == "pack-quantized":
        size = weights.count("group_size", default=0, least=0) or None
        if bits in (4, 8) and (size is not None or strategy == "channel"):
            scheme = Scheme.GROUPED_INT
    elif bits == 8 and strategy == "channel" and not static:
        scheme = Scheme.EIGHT_BIT_CHANNEL
    elif bits == 8 and strategy == "tensor":
        scheme = Scheme.FP8_TENSOR
    elif bits == 8 and strategy == "block" and block is not None:
        scheme = Scheme.FP8_BLOCK
    elif (
        kind == "mxfp4-pack-quantized" and bits == 4 and weights.count("group_size", default=0, least=0) == 32
    ):
        scheme = Scheme.MXFP4
    elif bits == 4 and "nvfp4" in kind:
        scheme, size, static = Scheme.NVFP4, 16, activations is not None
    if scheme is None:
        problem = f"no plan for weights quantised with compressed-tensors {kind[:40]}"
        return replace(plain, problem=problem)
    return replace(
        plain,
        scheme=scheme,
        bits=bits,
        group_size=size,
        weight_block=block if scheme is Scheme.FP8_BLOCK else None,
        static_activations=static,
        # Only this order is looked up while the model runs; others are in the weights already.
        act_order=order == "group" and size is not None,
        zero_points=scheme is Scheme.GROUPED_INT and weights.values.get("symmetric") is False,
        problem=None,
    )


LAYER_NAME = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.(.*)|(\*))$")


_PARTS = {
    "block_sparse_moe": "mlp",
    "feed_forward": "mlp",
    "shared_experts": "shared_expert",
}
_MIXER_PARTS = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "qkv_proj": "self_attn.qkv_proj",
    "o_proj": "self_attn.o_proj",
    "in_proj": "mixer.in_proj",
    "out_proj": "mixer.out_proj",
}


def _local_name(rest: str) -> str:
    """A module's name below its layer in the words of weights.py, whatever the checkpoint calls it."""
    parts = rest.split(".")
    if parts[0] == "mixer" and len(parts) > 1:
        known = _MIXER_PARTS.get(parts[1].rstrip("*"))
        star = "*" if known and parts[1].endswith("*") else ""
        parts = [*f"{known}{star}".split("."), *parts[2:]] if known else ["mlp", *parts[1:]]
    parts = [
        _PARTS.get(part.rstrip("*"), part.rstrip("*")) + ("*" if part.endswith("*") else "") for part in parts
    ]
    if parts[:2] in (["mlp", "experts"], ["moe", "experts"]):
        # Single experts are listed one by one; they have one scheme in vLLM.
        return ".".join(parts[:2])
    return ".".join(parts)


def _per_layer(names: Iterable[str], count: int) -> list[dict[str, str]]:
    """Names of modules sorted to the layers they lie in: the name below the layer to the whole name."""
    found: list[dict[str, str]] = [{} for _ in range(count)]
    for name in names:
        match = LAYER_NAME.search(name)
        # Draft layers (MTP) are not loaded, and count from 0 again.
        if match and int(match[1]) < count and not name.startswith("mtp"):
            rest = match[2] or "*"
            # Norms, gates and biases are never quantised: leaving them out keeps equal layers equal.
            if not rest.endswith(("norm", "bias", "norm.weight", "router", "conv1d", "_gate")):
                found[int(match[1])][_local_name(rest)] = name
    return found


def with_quantization(
    layers: list[Layer], quantization: Quantization, modules: Mapping[str, Json]
) -> list[Layer]:
    """The layers, each with the names of its modules that are quantised differently from the rest."""
    if quantization.mixed:
        schemes = {
            name: MODELOPT_SCHEMES[algorithm]
            for name, how in modules.items()
            if isinstance(how, dict) and (algorithm := str(how.get("quant_algo"))) in MODELOPT_SCHEMES
        }
        listed = _per_layer(schemes, len(layers))
        return [
            replace(x, schemes=tuple(sorted(((k, schemes[v]) for k, v in mine.items()), key=lambda p: p[0])))
            for x, mine in zip(layers, listed, strict=True)
        ]
    listed = _per_layer(quantization.ignored, len(layers))
    return [replace(x, unquantized=tuple(sorted(mine))) for x, mine in zip(layers, listed, strict=True)]


def quantized_modules(source: Source) -> Mapping[str, Json]:
    for fields in (source.root, source.text):
        section = fields.section("quantization_config")
        if section is not None and isinstance(section.values.get("quantized_layers"), dict):
            return cast(Mapping[str, Json], section.values["quantized_layers"])
    if source.quant_file is not None:
        inner = source.quant_file.get("quantization")
        if isinstance(inner, dict) and isinstance(inner.get("quantized_layers"), dict):
            return cast(Mapping[str, Json], inner["quantized_layers"])
    return {}
