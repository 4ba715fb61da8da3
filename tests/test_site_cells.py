"""What a page of the site says about memory is what `plan` says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaito_catalog import cli
from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.site.figures import Figures, plan_figures

# Dense, experts, latents, sparse attention, linear attention, Mamba, images; bf16, fp8, mxfp4, GPTQ.
NAMES = (
    "phi-4",
    "qwen2.5-coder-7b-instruct",
    "gpt-oss-120b",
    "nvidia-nemotron-nano-9b-v2",
    "deepseek-v3.2",
    "qwen3.5-122b-a10b-gptq-int4",
    "gemma-3-27b-it",
    "llama-3.3-70b-instruct",
)
ROWS = 9
"""Instance types of each model, spread over the table."""


def asked(
    capsys: pytest.CaptureFixture[str], name: str, instance_type: str, tokens: int, *more: str
) -> dict[str, Any]:
    arguments = ["--instance-type", instance_type, "--max-model-len", str(tokens), "--format", "json"]
    assert cli.main(["plan", name, *arguments, *more]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def figures_of(catalog: Catalog, name: str) -> Figures:
    entry = catalog.entry(name)
    assert entry is not None
    found = plan_figures(entry, catalog.shared)
    assert found.unknown is None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_the_plan_on_its_instance_type(
    name: str, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = figures_of(catalog, name)
    assert figures.max_model_len is not None
    for row in figures.rows[:: max(1, len(figures.rows) // ROWS)]:
        said = asked(capsys, name, row.name, figures.max_model_len)
        assert (said["fits"], said["limitedBy"]) == (row.fits.value, row.limited_by), row.name
        assert said["nodeCount"] == row.nodes, row.name
        assert said["vllmVersion"] == figures.vllm_version
        assert (said["perGPU"] or {}).get("budgetBytes") == row.budget_bytes, row.name
        assert (said["kvCache"] or {}).get("longestModelLen") == row.longest_model_len, row.name


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_of_the_fit_matrix_is_the_plan_at_its_context(
    name: str, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = figures_of(catalog, name)
    verdicts = set()
    for number, row in enumerate(figures.matrix[:: max(1, len(figures.matrix) // ROWS)]):
        # A context of each row, another from one to the next, and always the first and the last.
        for i in {0, number % len(figures.contexts), len(figures.contexts) - 1}:
            said = asked(capsys, name, row.names[0], figures.contexts[i])
            cell = row.cells[i]
            if said["perGPU"] is not None and said["nodeCount"] > 1:  # one node is not enough for KAITO
                assert (cell.fits.value, cell.limited_by) == ("no", "nodes"), (row.names[0], i)
                continue
            assert (said["fits"], said["limitedBy"]) == (cell.fits.value, cell.limited_by), (row.names[0], i)
            verdicts.add(cell.fits)
    assert len(verdicts) > 1


def test_all_gpus_of_a_node_that_vllm_refuses_are_refused_with_a_size_that_it_takes(
    catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    figures_of(catalog, "qwen2.5-coder-7b-instruct")
    said = asked(capsys, "qwen2.5-coder-7b-instruct", "Standard_ND96isr_H100_v5", 8192, "--engine", "vllm")
    assert (said["fits"], said["limitedBy"]) == ("no", "parallelism")
    assert "--tensor-parallel-size 4 uses 4 of the GPUs" in said["reason"]


def test_a_gpu_without_vllm_does_not_fit_wherever_it_is_asked_for(
    catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [t.name for t in catalog.shared.instance_types if not catalog.shared.gpu_by_name[t.gpu].vllm]
    assert names
    said = asked(capsys, "phi-4", names[0], 8192)
    assert (said["fits"], said["limitedBy"]) == ("no", "gpu")
