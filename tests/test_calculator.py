"""The page's arithmetic and the planner's, on the same cases: the same bytes and the same verdict."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import shapes
from browser import CHROMIUM, NODE, Page, evaluate

from kaito_catalog.architectures import Config, Shape, Unsupported, read_shape
from kaito_catalog.architectures.as_built import no_class
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.formats.facts import StoredSize
from kaito_catalog.formats.proposal import Proposal
from kaito_catalog.kaito import manifests
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, Plan, PlanRequest, Settings, to_json
from kaito_catalog.plans.instance_types import facts_shape, plan_gpu
from kaito_catalog.quantity import gib
from kaito_catalog.site import coefficients, hardware, python_bundle, tables
from kaito_catalog.site.figures import Figures
from kaito_catalog.site.model_page import ModelPage
from tools import exact_models

TESTS = Path(__file__).resolve().parent
PLAN_JS = TESTS.parent / "kaito_catalog" / "site" / "assets" / "plan.js"
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
    return coefficients_of(catalog)


def coefficients_of(catalog: Catalog) -> dict[str, Any]:
    """The coefficients of the catalog, and of shapes of every kind that no entry has yet."""
    data = coefficients.data(pages(catalog), catalog)
    classes = coefficients.device_classes(catalog.shared, data["vllmVersion"])
    for name, config in KINDS.items():
        made = tables.model(read_shape(config), None, classes, data["vllmVersion"])
        data["models"].append({"name": name, "repoId": name, "context": None, **made})
    return data


def newer() -> dict[str, Config]:
    """Made-up models of architectures that only the vLLM of the other release has."""
    small = json.loads((TESTS / "data" / "exact_small.json").read_text(encoding="utf-8"))["models"]
    found = {name: (value["config"], read_shape(value["config"])) for name, value in small.items()}
    return {
        name: config
        for name, (config, shape) in found.items()
        if isinstance(shape, Shape) and no_class(shape, "0.25.1") is not None
    }


KINDS = (
    {
        name: value
        for name, value in vars(shapes).items()
        if name.isupper() and isinstance(value, dict) and "architectures" in value
    }
    | {"UNKNOWN": {"architectures": ["StrangeForCausalLM"]}}
    | newer()
)


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
        PlanRequest(
            shape,
            stored=stored,
            gpu=gpu,
            parallelism=Parallelism(case["gpuCount"]),
            settings=Settings(
                case["maxModelLen"], case["utilization"] or profile.utilization(gpu.name), case["cacheDtype"]
            ),
            vllm_version=profile.vllm_version,
        )
    )


def told(plan: Plan) -> dict[str, Any]:
    """The part of `plan --format json` that the page shows."""
    value = to_json(plan)
    cache = value["kvCache"] and {
        "bytesPerToken": value["kvCache"]["bytesPerToken"],
        "tokens": value["kvCache"]["tokens"],
        "maxConcurrency": plan.kv_cache.max_concurrency if plan.kv_cache else None,
        "longestModelLen": value["kvCache"]["longestModelLen"],
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


def test_the_page_says_what_the_planner_says_for_another_release_of_kaito(catalog: Catalog) -> None:
    profile = catalog.shared.policy.profiles[-1]
    assert profile != catalog.shared.policy.default_profile()
    policy = catalog.shared.policy.model_copy(update={"profile": profile.name})
    other = replace(catalog, shared=replace(catalog.shared, policy=policy))
    data = coefficients_of(other)
    assert data["vllmVersion"] == profile.vllm_version
    known = subjects(other)
    cases = random_cases(data, 500)
    answers = run(data, cases, "data.models.find((m) => m.name === c.model)")
    expected = [told(planned(case, known[case["model"]], other)) for case in cases]
    assert [x for x in zip(cases, answers, expected, strict=True) if x[1] != x[2]] == []


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
    case = {"gpu": "NVIDIA A10", "gpuCount": 1, "utilization": None, "cacheDtype": "auto"}
    longest = hardware.longest_certain(
        shape,
        stored,
        plan_gpu(catalog.shared, "NVIDIA A10"),
        1,
        utilization=catalog.shared.policy.default_profile().utilization("NVIDIA A10"),
        vllm_version=catalog.shared.policy.default_profile().vllm_version,
    )
    assert longest
    verdicts = [
        planned({**case, "maxModelLen": n}, (shape, stored), catalog).fits for n in (longest, longest + 1)
    ]
    assert verdicts == [Fit.YES, Fit.TIGHT]


class Pasted(NamedTuple):
    """What somebody pastes: config.json, hf_quant_config.json beside it, and the bytes of the weight files."""

    config: Config
    quantization: Config | None = None
    weights_bytes: int | None = None


def committed_configurations() -> dict[str, Pasted]:
    """Every configuration that the tests have."""
    found: dict[str, Pasted] = {f"shapes: {name}": Pasted(config) for name, config in KINDS.items()}
    for path in sorted((TESTS / "configs").glob("*.json")):
        found[f"configs: {path.stem}"] = Pasted(json.loads(path.read_text(encoding="utf-8")))
    for path in (exact_models.EXACT_PLANS, exact_models.SMALL_PLANS):
        for model in exact_models.read(path):
            found[f"{path.stem}: {model.name}"] = Pasted(dict(model.config), model.quantization)
    for name in ("starts", "starts_held_out"):
        recorded = json.loads((TESTS / "data" / f"{name}.json").read_text(encoding="utf-8"))
        for model, value in recorded["models"].items():
            found[f"{name}: {model}"] = Pasted(value["config"])
    return found


def one_of_each_kind(configurations: Mapping[str, Pasted]) -> dict[str, Pasted]:
    """The shortest of each architecture and way to quantise: the others are read by the same code."""
    kinds: dict[tuple[object, ...], str] = {}
    for name, given in sorted(configurations.items(), key=lambda item: len(json.dumps(item[1].config))):
        shape = read_shape(given.config, quantization=given.quantization)
        how = shape.quantization if isinstance(shape, Shape) else None
        kinds.setdefault((str(given.config.get("architectures")), how and (how.method, how.scheme)), name)
    return {name: configurations[name] for name in kinds.values()}


STORED = (None, 16_060_556_336, None, 470_000_000_000)


@pytest.fixture(scope="module")
def form(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with the calculator's scripts, loaded from a disk."""
    folder = tmp_path_factory.mktemp("form")
    for name in ("plan.js", "pasted.js"):
        shutil.copy(PLAN_JS.with_name(name), folder)
    (folder / python_bundle.SCRIPT).write_text(python_bundle.script(), encoding="utf-8")
    (folder / python_bundle.RUNTIME).write_text(python_bundle.runtime(), encoding="utf-8")
    data = coefficients.script(coefficients.data([], catalog))
    (folder / "plan-data.js").write_text(data, encoding="utf-8")
    scripts = "".join(f"<script src={name}></script>" for name in ("plan-data.js", "plan.js", "pasted.js"))
    (folder / "form.html").write_text(f"<!doctype html><meta charset=utf-8>{scripts}", encoding="utf-8")
    with Page() as page:
        page.open((folder / "form.html").as_uri())
        assert not any(name in url for url in page.requests for name in ("brython", "plan-python"))
        yield page


def answers_to(page: Page, pasted: Pasted, gpu_count: int, cases: list[Case]) -> list[dict[str, Any]]:
    """What the page says of each case after the configuration was pasted."""
    asked = {
        "config": json.dumps(pasted.config),
        "quantization": json.dumps(pasted.quantization) if pasted.quantization else "",
        "weightsBytes": pasted.weights_bytes,
        "gpuCount": gpu_count,
    }
    found: list[dict[str, Any]] = page.run(
        f"""kaitoCatalogPasted.read(kaitoCatalogData, {json.dumps(asked)}).then((model) =>
        {json.dumps(cases)}.map((c) => kaitoCatalogPlan.plan(kaitoCatalogData, model,
        kaitoCatalogData.gpus.find((g) => g.name === c.gpu), c)))"""
    )
    return found


def disagreements(
    page: Page, configurations: Mapping[str, Pasted], catalog: Catalog, data: dict[str, Any]
) -> tuple[list[Any], int]:
    """Where page and planner differ, and how many of the configurations have an account somewhere."""
    chance = random.Random(SEED)
    wrong, planned_at_all = [], 0
    for number, (name, given) in enumerate(configurations.items()):
        pasted = given._replace(weights_bytes=STORED[number % len(STORED)])
        count = (1, 2, 4, 8, 3, 16)[number % 6]
        shape = read_shape(pasted.config, quantization=pasted.quantization)
        limit = shape.max_model_len if isinstance(shape, Shape) else 8192
        cases = [
            {
                "gpu": gpu["name"],
                "gpuCount": count,
                "maxModelLen": max(16, chance.choice([16, 4096, limit // 2, limit, limit + 1])),
                "cacheDtype": chance.choice(["auto", *data["cacheDtypes"]]),
                "utilization": chance.choice([None, round(chance.uniform(0.3, 1), 4)]),
            }
            for gpu in data["gpus"]
        ]
        stored = (
            StoredSize.model_validate({"sizeBytes": pasted.weights_bytes}) if pasted.weights_bytes else None
        )
        expected = [told(planned(case, (shape, stored), catalog)) for case in cases]
        answers = answers_to(page, pasted, count, cases)
        wrong += [(name, *x) for x in zip(cases, answers, expected, strict=True) if x[1] != x[2]]
        planned_at_all += any(answer["perGPU"] for answer in answers)
    return wrong, planned_at_all


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e+308", "1E-5", "1E5", "-0.5e+3", "1e400"]
)
def test_any_number_that_python_reads_can_be_pasted(
    form: Page, catalog: Catalog, shipped: dict[str, Any], number: str
) -> None:
    text = json.dumps(shapes.LLAMA_8B | {"beside": 0, "name": "NaN 1e+5 \\"})
    config = text.replace('"beside": 0', f'"beside": [{number}]')
    assert json.loads(config)["name"] == "NaN 1e+5 \\"
    asked = {"config": config, "quantization": "", "weightsBytes": None, "gpuCount": 1}
    read = f"kaitoCatalogPasted.read(kaitoCatalogData, {json.dumps(asked)})"
    assert form.run(read)["maxModelLen"] == 131_072


def test_every_kind_of_configuration_can_be_pasted_and_gives_the_planners_bytes(
    form: Page, catalog: Catalog, shipped: dict[str, Any]
) -> None:
    configurations = one_of_each_kind(committed_configurations())
    assert len(configurations) > 300
    wrong, planned_at_all = disagreements(form, configurations, catalog, shipped)
    assert wrong == []
    assert planned_at_all > len(configurations) // 2
    assert form.errors == []


def test_sizes_are_written_as_the_command_line_writes_them() -> None:
    chance = random.Random(SEED)
    tie = 2**30
    sizes = [0, 1, 10 * tie, 10 * tie - 1, tie // 8, 9 * tie + tie // 200, 10 * tie + tie // 20 * 5]
    sizes += [tie * n + tie // 4 for n in range(8, 14)] + [tie * n // 8 + tie // 16 for n in range(90)]
    sizes += [chance.randrange(2**44) for _ in range(500)]
    assert evaluate([PLAN_JS], "sizes.map(kaitoCatalogPlan.gib)", {"sizes": sizes}) == [
        gib(size) for size in sizes
    ]
