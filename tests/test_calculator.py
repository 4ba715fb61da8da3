"""The page's arithmetic and the planner's, on the same cases: the same bytes and the same verdict."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import shapes
from browser import CHROMIUM, NODE, evaluate

from kaito_catalog.catalog import Catalog
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import manifests
from kaito_catalog.plan import Fit, Parallelism, Plan, Settings, facts_shape, make_plan, plan_gpu, to_json
from kaito_catalog.quantity import gib
from kaito_catalog.shape import Shape, Unsupported, read_shape
from kaito_catalog.site import coefficients, hardware
from kaito_catalog.site.figures import Figures
from kaito_catalog.site.pages import ModelPage

PLAN_JS = Path(__file__).resolve().parents[1] / "kaito_catalog" / "site" / "assets" / "plan.js"
CASES = 1000
SEED = 20261123

pytestmark = pytest.mark.skipif(
    NODE is None and CHROMIUM is None, reason="neither node nor chromium is on this machine"
)

Case = dict[str, Any]
Subject = tuple[Shape | Unsupported, StoredSize | None]


def pages(catalog: Catalog) -> list[ModelPage]:
    """The pages of the catalog, without what only their text needs."""
    return [
        ModelPage(e, e.proposal, Figures(), manifests.build(e.proposal, e.facts), None)
        for e in catalog.entries
        if isinstance(e.proposal, Proposal)
    ]


@pytest.fixture(scope="module")
def shipped(catalog: Catalog) -> dict[str, Any]:
    """The coefficients of the catalog, and of shapes of every kind that no entry has yet."""
    data = coefficients.data(pages(catalog), catalog)
    classes = coefficients.device_classes(catalog.shared)
    for name, config in KINDS.items():
        made = coefficients.model(read_shape(config), None, classes, data["vllmVersion"])
        data["models"].append({"name": name, "repoId": name, "context": None, **made})
    return data


KINDS = {
    name: value
    for name, value in vars(shapes).items()
    if name.isupper() and isinstance(value, dict) and "architectures" in value
} | {"UNKNOWN": {"architectures": ["StrangeForCausalLM"]}}


def subjects(catalog: Catalog) -> dict[str, Subject]:
    found: dict[str, Subject] = {name: (read_shape(config), None) for name, config in KINDS.items()}
    for entry in catalog.entries:
        if entry.facts is not None:
            stored = entry.facts.weights.total if entry.facts.weights else None
            found[entry.name] = facts_shape(entry.facts), stored
    return found


def random_cases(data: dict[str, Any], count: int) -> list[Case]:
    """Models × GPUs × counts × contexts × cache dtypes × utilization; contexts near limits as well."""
    chance = random.Random(SEED)
    found = []
    for _ in range(count):
        model = chance.choice(data["models"])
        limit = model.get("maxModelLen") or 8192
        length = chance.choice(
            [16, 17, 1024, 4096, 8192, 16384, limit - 1, limit, limit + 1, chance.randint(16, limit)]
        )
        found.append(
            {
                "model": model["name"],
                "gpu": chance.choice(data["gpus"])["name"],
                "gpuCount": chance.choice([1, 1, 2, 2, 3, 4, 4, 5, 6, 8, 8, 12, 16]),
                "maxModelLen": max(16, length),
                "cacheDtype": chance.choice(["auto", "auto", *data["cacheDtypes"]]),
                "utilization": chance.choice([None, 0.9, 0.95, round(chance.uniform(0.3, 1), 4)]),
            }
        )
    return found


def planned(case: Case, subject: Subject, catalog: Catalog) -> Plan:
    shape, stored = subject
    profile = catalog.shared.policy.default_profile()
    gpu = plan_gpu(catalog.shared, case["gpu"])
    return make_plan(
        shape,
        stored=stored,
        gpu=gpu,
        parallelism=Parallelism(case["gpuCount"]),
        settings=Settings(
            case["maxModelLen"], case["utilization"] or profile.utilization(gpu.name), case["cacheDtype"]
        ),
        vllm_version=profile.vllm_version,
    )


def told(plan: Plan) -> dict[str, Any]:
    """The part of `plan --format json` that the page shows."""
    value = to_json(plan)
    cache = value["kvCache"] and {
        "bytesPerToken": value["kvCache"]["bytesPerToken"],
        "tokens": value["kvCache"]["tokens"],
        "maxConcurrency": plan.kv_cache.max_concurrency if plan.kv_cache else None,
        "longestModelLen": value["kvCache"]["longestModelLen"],
        "poolBytes": plan.kv_cache.pool_bytes if plan.kv_cache else None,
    }
    kept = ("fits", "limitedBy", "reason", "perGPU", "expectedErrorBytes")
    return {**{key: value[key] for key in kept}, "kvCache": cache}


def run(data: dict[str, Any], cases: list[Case], model: str) -> list[dict[str, Any]]:
    expression = f"""cases.map((c) => kaitoCatalogPlan.plan(data, {model},
        data.gpus.find((g) => g.name === c.gpu), c))"""
    answers: list[dict[str, Any]] = evaluate([PLAN_JS], expression, {"data": data, "cases": cases})
    return answers


def test_the_page_says_what_the_planner_says_in_a_thousand_cases(
    shipped: dict[str, Any], catalog: Catalog
) -> None:
    known = subjects(catalog)
    cases = random_cases(shipped, CASES)
    answers = run(shipped, cases, "data.models.find((m) => m.name === c.model)")
    wrong = [
        (case, answer, expected)
        for case, answer in zip(cases, answers, strict=True)
        if answer != (expected := told(planned(case, known[case["model"]], catalog)))
    ]
    assert wrong == []
    # The cases are worth something: each verdict is among them, and most have an account.
    assert {answer["fits"] for answer in answers} == {"yes", "no", "tight", "unknown"}
    assert sum(answer["perGPU"] is not None for answer in answers) > CASES // 3


def test_both_say_the_same_of_the_longest_context_that_surely_fits(
    shipped: dict[str, Any], catalog: Catalog
) -> None:
    known = subjects(catalog)
    profile = catalog.shared.policy.default_profile()
    cases = [c for c in random_cases(shipped, 300) if c["utilization"] is None]
    expression = """cases.map((c) => kaitoCatalogPlan.longestCertain(data,
        data.models.find((m) => m.name === c.model), data.gpus.find((g) => g.name === c.gpu), c))"""
    answers = evaluate([PLAN_JS], expression, {"data": shipped, "cases": cases})
    expected = [
        hardware.longest_certain(
            *known[case["model"]],
            plan_gpu(catalog.shared, case["gpu"]),
            case["gpuCount"],
            utilization=profile.utilization(case["gpu"]),
            vllm_version=profile.vllm_version,
            kv_cache_dtype=case["cacheDtype"],
        )
        or 0
        for case in cases
    ]
    assert answers == expected
    assert any(expected)


def test_what_surely_fits_fits_and_one_block_more_is_not_sure(catalog: Catalog) -> None:
    shape, stored = subjects(catalog)["llama-3.1-8b-instruct"]
    assert isinstance(shape, Shape)
    case = {"gpu": "NVIDIA A10", "gpuCount": 2, "utilization": None, "cacheDtype": "auto"}
    longest = hardware.longest_certain(
        shape,
        stored,
        plan_gpu(catalog.shared, "NVIDIA A10"),
        2,
        utilization=catalog.shared.policy.default_profile().utilization("NVIDIA A10"),
        vllm_version=catalog.shared.policy.default_profile().vllm_version,
    )
    assert longest
    verdicts = [
        planned({**case, "maxModelLen": n}, (shape, stored), catalog).fits for n in (longest, longest + 1)
    ]
    assert verdicts == [Fit.YES, Fit.TIGHT]


def dense_configs() -> list[dict[str, Any]]:
    chance = random.Random(SEED)
    found = []
    for _ in range(40):
        heads = chance.choice([12, 16, 24, 28, 32, 40, 64])
        config = {
            "architectures": [chance.choice(sorted(coefficients.DENSE_FAMILIES))],
            "hidden_size": heads * chance.choice([64, 80, 96, 128]),
            "intermediate_size": chance.choice([8192, 11008, 14336, 18944, 28672]),
            "num_hidden_layers": chance.choice([16, 24, 32, 40, 80]),
            "num_attention_heads": heads,
            "num_key_value_heads": heads // chance.choice([1, 2, 4]),
            "vocab_size": chance.choice([32000, 32064, 100352, 128256, 152064, 49155]),
            "max_position_embeddings": chance.choice([4096, 32768, 131072]),
            "torch_dtype": chance.choice(["bfloat16", "float16", "float32"]),
            "tie_word_embeddings": chance.choice([True, False]),
            "attention_bias": chance.choice([True, False]),
            "mlp_bias": chance.choice([True, False, False]),
        }
        if chance.random() < 0.4:
            config["head_dim"] = chance.choice([64, 128, 256])
        if chance.random() < 0.3:
            config["rope_scaling"] = {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }  # fmt: skip
        if chance.random() < 0.3:
            config |= {"sliding_window": 4096, "use_sliding_window": False}
        found.append(config)
    return found


def test_a_pasted_dense_configuration_gives_the_planners_bytes(
    shipped: dict[str, Any], catalog: Catalog
) -> None:
    configs = dense_configs()
    cases = []
    for case, config in zip(random_cases(shipped, 400), configs * 10, strict=True):
        limit = config["max_position_embeddings"]
        cases.append({**case, "config": config, "maxModelLen": min(case["maxModelLen"], limit)})
    answers = run(shipped, cases, "kaitoCatalogPlan.fromConfig(data, c.config)")
    expected = [told(planned(case, (read_shape(case["config"]), None), catalog)) for case in cases]
    wrong = [x for x in zip(cases, answers, expected, strict=True) if x[1] != x[2]]
    assert wrong == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "kaito-catalog plan knows more"),
        ({"architectures": ["constructor"]}, "kaito-catalog plan knows more"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": 4096.5}, "hidden_size"),
        ({"num_attention_heads": "32"}, "num_attention_heads"),
        ({"torch_dtype": "int8"}, "int8"),
    ],
)
def test_a_pasted_configuration_that_the_page_cannot_plan_is_refused_by_name(
    shipped: dict[str, Any], change: dict[str, Any], named: str
) -> None:
    config = {k: v for k, v in {**shapes.LLAMA_8B, **change}.items() if v is not None}
    answer = evaluate(
        [PLAN_JS], "kaitoCatalogPlan.fromConfig(data, config)", {"data": shipped, "config": config}
    )
    assert named in answer["unknown"]


def test_a_pasted_text_that_is_no_object_is_refused(shipped: dict[str, Any]) -> None:
    answers = evaluate(
        [PLAN_JS],
        "[null, [], 1, 'x', {}].map((c) => kaitoCatalogPlan.fromConfig(data, c).unknown)",
        {"data": shipped},
    )
    assert all(answers)


def test_sizes_are_written_as_the_command_line_writes_them() -> None:
    chance = random.Random(SEED)
    tie = 2**30
    sizes = [0, 1, 10 * tie, 10 * tie - 1, tie // 8, 9 * tie + tie // 200, 10 * tie + tie // 20 * 5]
    sizes += [tie * n + tie // 4 for n in range(8, 14)] + [tie * n // 8 + tie // 16 for n in range(90)]
    sizes += [chance.randrange(2**44) for _ in range(500)]
    assert evaluate([PLAN_JS], "sizes.map(kaitoCatalogPlan.gib)", {"sizes": sizes}) == [
        gib(size) for size in sizes
    ]
