"""The pages: what they say, and that strangers' words stay words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from generate_helpers import GIB, catalog, entry, facts, proposal, small_facts, small_proposal
from site_helpers import CHART, FIGURES, LIMIT, ROOT, Structure, html, page

from kaito_catalog.catalog.entries import Entry, Evidence
from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.diagnostics import Diagnostic, Place, Severity, Skipped
from kaito_catalog.documents.reading import parse
from kaito_catalog.formats.evidence import DryRun
from kaito_catalog.formats.hardware import InstanceType
from kaito_catalog.memory.plan import make_plan
from kaito_catalog.memory.values import Fit, Parallelism, PlanGpu, PlanRequest, Settings
from kaito_catalog.plans.instance_types import facts_shape, plan_gpu
from kaito_catalog.site import api, chart, figures, model_page, pages, text
from kaito_catalog.site.claims import claims as claims_of
from kaito_catalog.site.claims import evidence
from kaito_catalog.site.figures import ChartPoint, Figures
from kaito_catalog.site.model_page import ModelPage


def render(model: ModelPage) -> str:
    return pages.model_page(model, catalog(model.entry))


# Figures of the plan


def test_the_smallest_instance_type_that_fits_comes_first() -> None:
    made = figures.plan_figures(entry(proposal(), facts()), catalog().shared)
    assert (made.max_model_len, made.is_claimed, made.unknown) == (16384, True, None)
    assert made.smallest is not None
    assert made.smallest.name == "Standard_NC96ads_A100_v4"
    assert [(row.fits, row.nodes) for row in made.rows[:2]] == [(Fit.YES, 1), (Fit.YES, 5)]
    assert [(row.fits, row.nodes) for row in made.rows[2:]] == [(Fit.YES, 11), (Fit.YES, 3)]


def test_what_is_needed_is_within_the_budget_exactly_where_it_fits() -> None:
    for row in figures.plan_figures(entry(proposal(), facts()), catalog().shared).rows:
        assert row.needed_bytes is not None
        assert row.budget_bytes is not None
        assert (row.needed_bytes <= row.budget_bytes) == (row.fits is Fit.YES)


def test_the_curve_of_full_attention_is_a_straight_line_to_the_models_limit() -> None:
    drawn = figures.plan_figures(entry(proposal(), facts()), catalog().shared).chart
    assert drawn is not None
    assert drawn.points[-1] == ChartPoint(LIMIT, LIMIT * 2 * 8 * 128 * 80 * 2 // 4)
    middle = drawn.points[len(drawn.points) // 2]
    assert middle.kv_cache_bytes * 2 == drawn.points[-1].kv_cache_bytes


def test_the_vllm_option_counts_more_than_the_claimed_context() -> None:
    claims = proposal(runtimes=[{"name": "vllm", "config": {"max-model-len": 8192}}])
    assert figures.plan_figures(entry(claims, facts()), catalog().shared).max_model_len == 8192


def test_the_plan_takes_the_options_that_the_manifests_pass_on() -> None:
    made = figures.plan_figures(entry(proposal(), facts()), catalog().shared)
    assert made.options == ("gpu-memory-utilization 0.95",)
    assert made.smallest is not None
    assert made.smallest.budget_bytes == int(0.95 * 85_000_000_000)
    assert "and the proposal’s gpu-memory-utilization 0.95" in render(page(figures=made))


def test_options_of_the_wrong_kind_leave_kaitos_own() -> None:
    config = {"gpu-memory-utilization": "much", "max-num-seqs": True, "enforce-eager": "no"}
    made = figures.plan_figures(
        entry(proposal(runtimes=[{"name": "vllm", "config": config}]), facts()), catalog().shared
    )
    assert made.options == ()


def test_a_proposal_without_a_context_is_planned_at_ours() -> None:
    made = figures.plan_figures(entry(small_proposal(), small_facts()), catalog().shared)
    assert (made.max_model_len, made.is_claimed) == (8192, False)
    assert "the proposal names no context" in render(page(entry(small_proposal(), small_facts()), made))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (entry(small_proposal()), "no recorded facts"),
        (
            entry(small_proposal(runtimes=[{"name": "transformers"}]), small_facts()),
            "only vLLM is planned, and the proposal serves with transformers",
        ),
        (
            entry(small_proposal(), small_facts(config={"architectures": ["StrangeForCausalLM"]})),
            "StrangeForCausalLM",
        ),
        (
            entry(
                small_proposal(runtimes=[{"name": "vllm", "config": {"cpu-offload-gb": 4}}]),
                small_facts(),
            ),
            "no plan reads cpu-offload-gb 4",
        ),
    ],
)
def test_a_model_that_cannot_be_planned_says_why(made: Entry, reason: str) -> None:
    assert reason in (figures.plan_figures(made, catalog().shared).unknown or "")


def test_of_two_machines_with_the_same_gpus_the_smaller_one_comes_first() -> None:
    types = [
        InstanceType.model_validate(
            {"name": name, "cloud": "aws", "gpu": "NVIDIA A100 80GB", "gpuCount": 1, "source": "a test"}
        )
        for name in ("g5.16xlarge", "g5.2xlarge", "g5.xlarge")
    ]
    made = figures.plan_figures(
        entry(small_proposal(), small_facts()), replace(catalog().shared, instance_types=tuple(types))
    )
    assert [row.name for row in made.rows] == ["g5.xlarge", "g5.2xlarge", "g5.16xlarge"]


# The chart


def test_the_chart_is_an_svg_with_a_title_and_a_description() -> None:
    drawn = Structure(str(chart.svg(CHART)))
    assert drawn.all("svg")[0]["class"] == "memory-chart"
    assert drawn.tags.count("title") == drawn.tags.count("desc") == 1
    assert "fits up to 98,304 tokens" in "".join(drawn.words)


def test_the_chart_stacks_weights_overheads_and_kv_cache() -> None:
    bands = Structure(str(chart.svg(CHART))).all("polygon")
    assert [band["class"] for band in bands] == ["kc-weights", "kc-overheads", "kc-kv"]
    points = {band["class"]: (band["points"] or "").split() for band in bands}
    assert (
        points["kc-overheads"][-1] == points["kc-weights"][0]
    )  # the upper edge of one is the lower of the next
    assert points["kc-kv"][-1] == points["kc-overheads"][0]


def test_everything_drawn_lies_inside_the_picture() -> None:
    for edge in (CHART, replace(CHART, budget_bytes=GIB), replace(CHART, points=(ChartPoint(0, 0),))):
        for band in Structure(str(chart.svg(edge))).all("polygon"):
            for point in (band["points"] or "").split():
                x, y = (float(part) for part in point.split(","))
                assert 0 <= x <= chart.WIDTH
                assert 0 <= y <= chart.HEIGHT


def test_the_description_says_what_the_chart_shows() -> None:
    assert chart.description(CHART) == (
        "On each of 4 GPUs (NVIDIA A100 80GB, TP 4) the weights take 33.0 GiB and the overheads 4.00 GiB; "
        "the KV cache of one request grows to 20.0 GiB at 131,072 tokens. vLLM may use 50.0 GiB, so the "
        "longest context that fits is 98,304 tokens."
    )


def test_the_table_says_the_same_in_figures() -> None:
    rows = chart.table(CHART)
    assert rows[0] == (16384, 16384 * 163840, 37 * GIB + 16384 * 163840, True)
    assert rows[-1] == (LIMIT, 20 * GIB, 57 * GIB, False)


# A model's page


def test_a_page_shows_where_the_model_fits_and_what_limits_it() -> None:
    shown = render(page())
    fitting = shown[: shown.index('class="kc-more"')]
    assert '<span class="kc-badge kc-fit-yes">fits</span>' in fitting
    assert "may not fit" in fitting
    assert "KV cache" in fitting
    assert "does not fit" not in fitting
    assert "2 that do not fit or are unknown" in shown


def test_a_page_without_a_plan_says_so_by_name() -> None:
    shown = render(page(figures=Figures(unknown="StrangeForCausalLM is no architecture the plan knows")))
    assert "Unknown: StrangeForCausalLM is no architecture the plan knows." in shown
    assert "<svg" not in shown


def test_the_fit_matrix_says_at_which_context_what_fits_and_what_limits_it() -> None:
    made = figures.plan_figures(entry(proposal(), facts()), catalog().shared)
    assert made.contexts == (4096, 8192, 16384, 32768, 65536, LIMIT)
    assert [cell.fits for cell in made.matrix[0].cells] == [Fit.YES] * 6
    # KAITO adds nodes where one is not enough, and the matrix is about one.
    assert {cell.limited_by for row in made.matrix[1:] for cell in row.cells} == {"nodes"}
    shown = html(render(page(figures=made)))
    assert {"128k", "4k"} <= set(shown.words)


def test_the_fit_matrix_agrees_with_the_table_of_instance_types() -> None:
    made = figures.plan_figures(entry(small_proposal(), small_facts()), catalog().shared)
    assert made.max_model_len is not None
    column = made.contexts.index(made.max_model_len)
    of = {name: row.cells[column].fits for row in made.matrix for name in row.names}
    assert of == {row.name: row.fits if row.nodes == 1 else Fit.NO for row in made.rows}
    assert {row.nodes for row in made.rows} == {1, 2}


@pytest.mark.parametrize(
    ("limit", "asked", "expected"),
    [
        (131072, 16384, (4096, 8192, 16384, 32768, 65536, 131072)),
        (2048, 2048, (2048,)),
        (4096, 5000, (4096,)),
        (10**6, 1000, (1000, 16384, 32768, 65536, 131072, 262144, 524288, 10**6)),
    ],
)
def test_a_matrix_has_at_most_eight_contexts(limit: int, asked: int, expected: tuple[int, ...]) -> None:
    assert figures.matrix_lengths(limit, asked) == expected


def test_evidence_stands_beside_the_claim_with_its_date() -> None:
    record = DryRun.model_validate(
        {
            "apiVersion": "catalog.kaito.sh/v1alpha1",
            "kind": "DryRun",
            "model": "meta-llama/Llama-3.3-70B-Instruct",
            "configSha256": "0" * 64,
            "versions": {"vllm": "0.25.1"},
            "device": "cuda",
            "gpu": {"name": "NVIDIA H100 80GB", "count": 4},
            "parallelism": {"tensorParallelSize": 4},
            "command": ["vllm", "serve"],
            "weights": "real",
            "outcome": "served",
            "ranks": [{"rank": 0, "weightsBytes": 33 * GIB}],
            "kvCacheTokens": 300000,
            "recordedAt": "2026-11-20",
        }
    )
    seen = evidence(entry(proposal(), facts(), (Evidence(parse("{}", path="x"), record),)))
    source = "dry run, vLLM 0.25.1, 2026-11-20"
    assert seen["GPUs"] == ("served on 4 × NVIDIA H100 80GB", source)
    assert seen["Weights on each GPU"] == ("33.0 GiB with TP 4", source)
    assert seen["Context"] == ("300,000 tokens of KV cache", source)


def test_claims_stand_beside_facts_with_their_source() -> None:
    rows = {c.field: c for c in claims_of(page(), catalog().shared.policy)}
    assert rows["Storage"].claimed == "150GB"
    assert rows["Storage"].known == "weight files 131.4 GiB (141.1 GB)"
    assert rows["Storage"].source == "transcribed, 2026-11-01"
    assert rows["GPUs"].source == "plan, vLLM 0.25.1"


def test_what_was_said_around_a_figure_is_shown_with_it() -> None:
    claims = proposal()
    claims["requirements"] = {**claims["requirements"], "notes": {"totalGPUMemory": "~16k context"}}
    rows = {c.field: c.claimed for c in claims_of(page(entry(claims)), catalog().shared.policy)}
    assert rows["GPU memory in all"] == "320GB (&#126;16k context)"


def test_a_model_that_nothing_is_generated_for_says_why() -> None:
    shown = render(page(entry(small_proposal(runtimes=[{"name": "onnx"}]))))
    assert "Nothing is generated: KAITO has no runtime onnx." in shown


def test_findings_and_skips_are_told_apart() -> None:
    finding = Diagnostic("STO001", Severity.ERROR, "too small", Place("x"), "claim more", "accepted")
    skipped = Skipped("EVD001", "m", "it was not run", Place("x"))
    shown = render(page(findings=(finding, skipped)))
    assert 'kc-severity-error">error</span> <a href="../../checks/#sto001">' in shown
    assert "Waived: accepted" in shown
    assert "1 check could not run" in shown


def test_an_unchecked_page_does_not_look_checked() -> None:
    assert "without running the checks" in render(page())
    assert "found nothing to complain about" in render(page(findings=()))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (entry(small_proposal()), model_page.CLAIMED),
        (entry(proposal(), facts()), model_page.TRANSCRIBED),
        (entry(small_proposal(), small_facts()), model_page.RECORDED),
    ],
)
def test_an_entry_is_as_well_proven_as_its_best_source(made: Entry, expected: model_page.Proof) -> None:
    assert model_page.proof(made) == expected


def test_the_catalog_page_has_a_row_for_each_model_in_natural_order() -> None:
    both = catalog()
    shown = pages.index_page([page(made) for made in both.entries], both)
    table = html(shown)
    linked = [a["href"] for a in table.all("a") if (a["href"] or "").startswith("models/")]
    assert linked == ["models/llama-3.3-70b-instruct/", "models/phi-4/"]
    assert table.tags.count("tr") == 3


def test_the_checks_page_has_an_anchor_for_each_code() -> None:
    built = html(pages.checks_page([("STO001", "Storage", "Some **text**."), ("YML001", "Syntax", "x")]))
    assert [h["id"] for h in built.all("h2")] == ["sto001", "yml001"]
    assert "strong" in built.tags


# Strangers' words on pages

HOSTILE = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) ![b](x.png) '
    "{{ 7*7 }} {% raw %} {: onclick=x } "
    "`code` ``` *em* __strong__ ~~del~~ | cell | <!-- --8<-- 'x' &lt;b&gt; \\ "
    "\n\n# heading\n\n- item\n\n    indented\n\n===\n\n<div>"
    '\n\n!!! note\n\n=== "Tab"\n\n[ref]: javascript:x\n'
)


def with_words(said: str) -> ModelPage:
    """A page whose every free text is `said`."""
    claims = proposal(
        glossary={said: said},
        summary={
            "description": said.replace("\n\n", "\n"),
            "usage": {"statistics": said},
            "license": {"id": said, "note": said},
        },
        history=[{"event": said, "date": "2025-05-29", "done": True}],
        runtimes=[{"name": "vllm", "customConfigurations": said, "config": {"dtype": text.words(said)}}],
    )
    claims["metadata"] = {**claims["metadata"], "heading": said, "title": said, "authors": [said]}
    claims["requirements"] = {
        **claims["requirements"],
        "familyName": said,
        "type": said,
        "version": said,
        "downloadSite": "https://huggingface.co/meta-llama/x?" + said,
        "notes": {"storageSize": said, "gpuCount": said},
    }
    recorded = facts(
        license={"id": said, "name": said},
        pipelineTag=said,
        source={"kind": "transcribed", "references": [{"from": said, "fields": [said], "note": said}]},
    )
    finding = Diagnostic("STO001", Severity.ERROR, said, Place("x"), said, said)
    figures = replace(
        FIGURES,
        unknown=said,
        rows=tuple(replace(row, name=said, gpu=said, reason=said, limited_by=said) for row in FIGURES.rows),
        chart=replace(CHART, instance_type=said, gpu=said, parallelism=said),
    )
    return page(
        entry(claims, recorded),
        figures,
        findings=(finding, Skipped("EVD001", said, said, Place("x"))),
    )


def outline(markdown_text: str) -> list[str]:
    """The elements outside highlighted code and inline code, which the words are allowed to change."""
    return [tag for tag in html(markdown_text).tags if tag not in ("span", "code", "a")]


def test_hostile_words_change_nothing_of_a_pages_structure() -> None:
    assert outline(render(with_words(HOSTILE))) == outline(render(with_words("harmless")))


def test_hostile_words_bring_no_attribute_and_no_address() -> None:
    for attributes in (a for _, a in html(render(with_words(HOSTILE))).elements):
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            assert (
                not (attributes.get(name) or "").strip().lower().startswith(("javascript:", "data:", "x.png"))
            )


def test_hostile_words_change_nothing_of_the_catalog_page() -> None:
    shown = [
        pages.index_page([with_words(said)], catalog(with_words(said).entry))
        for said in (HOSTILE, "harmless")
    ]
    assert outline(shown[0]) == outline(shown[1])


def test_hostile_words_stay_in_the_front_matters_title() -> None:
    front = render(with_words(HOSTILE)).removeprefix("---\n").partition("\n---\n")[0]
    assert yaml.safe_load(front)["title"] == "meta-llama/Llama-3.3-70B-Instruct"


def test_hostile_words_reach_no_template_of_a_later_tool() -> None:
    shown = render(with_words(HOSTILE))
    prose, _, rest = shown.partition("## What to paste")
    assert "{{" not in prose + rest.partition("## Claims")[2]


# The API


def test_the_index_names_every_model() -> None:
    both = catalog()
    index = json.loads(api.index([page(made) for made in both.entries], both))
    assert [model["name"] for model in index["models"]] == ["llama-3.3-70b-instruct", "phi-4"]


def test_a_models_json_has_plan_claims_and_manifests() -> None:
    told = json.loads(api.model(page(findings=()), catalog()))
    assert told["claims"]["storageSize"] == {"text": "150GB", "bytes": 150 * 10**9}
    assert told["plan"]["instanceTypes"][0]["fits"] == "yes"
    assert told["plan"]["memory"]["kvCacheBytesPerGPU"][-1] == [LIMIT, 20 * GIB]
    assert "workspace.yaml" in told["manifests"]
    assert told["findings"] == []


def test_what_is_unknown_is_null_in_json() -> None:
    told = json.loads(api.model(page(entry(small_proposal()), Figures(unknown="no facts")), catalog()))
    assert told["weightsBytes"] is told["facts"] is told["findings"] is told["smallestInstanceType"] is None
    assert told["plan"] == {"unknown": "no facts", "instanceTypes": []}


@pytest.mark.parametrize(
    "name", ["llama-3.3-70b-instruct", "gemma-3-4b-it", "deepseek-r1-0528", "nvidia-nemotron-nano-9b-v2"]
)
def test_the_matrix_says_what_a_plan_of_every_cell_says(name: str) -> None:
    real = read_catalog(ROOT / "catalog", [ROOT / "catalog" / "models" / name])
    made = figures.plan_figures(real.entries[0], real.shared)
    recorded = real.entries[0].facts
    assert recorded is not None
    shape = facts_shape(recorded)
    settings = Settings(made.max_model_len or 0, 0.84)
    for machine in real.shared.instance_types[::7]:
        gpu = plan_gpu(real.shared, machine.gpu)
        asked: list[int] = []

        def verdict(tokens: int, gpu: PlanGpu = gpu, asked: list[int] = asked) -> figures.Cell:
            asked.append(tokens)
            at = make_plan(
                PlanRequest(
                    shape,
                    gpu=gpu,
                    parallelism=Parallelism(1),
                    settings=replace(settings, max_model_len=tokens),
                    vllm_version="0.25.1",
                )
            )
            return figures.Cell(at.fits, at.limited_by)

        found = figures.cells(verdict, made.contexts)
        assert len(asked) <= len(made.contexts)
        assert found == tuple(verdict(tokens) for tokens in made.contexts)
