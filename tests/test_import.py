"""Markdown proposals: everything a proposal says is read, everything it lacks is reported, nothing is invented."""

from __future__ import annotations

import pytest
from markdown_helpers import COMMIT, MANY, SAMPLE, codes, line_of, place, read, value_of

from kaito_catalog.diagnostics import Severity


def test_everything_in_the_template_is_read() -> None:
    assert value_of(SAMPLE) == {
        "apiVersion": "catalog.kaito.sh/v1alpha1",
        "kind": "ModelProposal",
        "metadata": {
            "name": "acme-7b",
            "title": "Proposal for new model support",
            "heading": "Add [acme/Acme-7B](https://huggingface.co/acme/Acme-7B) to the list",
            "authors": ["@someone"],
            "reviewers": ["Reviewer"],
            "creationDate": "2025-05-29",
            "lastUpdated": "2025-05-30",
            "status": "provisional",
        },
        "glossary": {"MoE": "mixture of experts"},
        "summary": {
            "description": "A model for trying things.",
            "usage": {
                "statistics": "1,000 downloads",
                "asOf": "2025-05-29",
                "source": "https://huggingface.co/acme/Acme-7B",
            },
            "license": {"id": "apache-2.0", "url": "https://example.org/LICENSE", "note": "Mind the notice."},
        },
        "requirements": {
            "familyName": "Acme",
            "type": "text-generation",
            "downloadSite": "https://huggingface.co/acme/Acme-7B",
            "version": COMMIT,
            "storageSize": "16GB",
            "gpuCount": 2,
            "totalGPUMemory": "160GB",
            "perGPUMemory": "80 GB",
            "contextLength": 8192,
            "notes": {"storageSize": "~", "totalGPUMemory": "for 8k", "gpuCount": "2+"},
        },
        "runtimes": [
            {
                "name": "vllm",
                "distributedInference": True,
                "customConfigurations": "none worth a word",
                "config": {"max-model-len": 8192},
                "trustRemoteCode": False,
            }
        ],
        "deployment": {
            "instanceType": "Standard_NC24ads_A100_v4",
            "modelAccessSecret": "token",
            "configMap": "params",
        },
        "history": [
            {"event": "Open proposal PR", "date": "2025-05-29", "done": True},
            {"event": "Complete model support", "date": "2025-06-05", "done": False},
        ],
        "waivers": {},
    }


def test_the_order_of_the_keys_is_that_of_the_design() -> None:
    assert list(value_of(SAMPLE)) == [
        "apiVersion", "kind", "metadata", "glossary", "summary", "requirements", "runtimes", "deployment", "history",
        "waivers",
    ]  # fmt: skip


def test_an_abbreviated_revision_is_completed_from_its_link_and_that_is_said() -> None:
    assert place(SAMPLE, "IMP004") == (line_of(SAMPLE, "| Version"), 23)


@pytest.mark.parametrize(
    ("old", "new", "code", "part"),
    [
        (f"[0123456](https://huggingface.co/acme/Acme-7B/commit/{COMMIT})", "TBD", "IMP003", "| Version"),
        ("status: provisional", "status: abandoned", "IMP006", "status: abandoned"),
        ("title: Proposal for new", "title: Proposal for Mistral", "IMP007", "title: Proposal for Mistral"),
        ("/acme/Acme-7B) to the list", "/acme/Acme-70B) to the list", "IMP008", "to the list"),
        ("resource:\n  instanceType: Standard_NC24ads_A100_v4\n", "spec: {}\n", "IMP009", "spec: {}"),
        ("    name: acme/Acme-7B\n", "    nom: acme/Acme-7B\n", "IMP009", "  preset:"),
        ("160GB (for 8k)", "320GB", "IMP010", "| Total GPU memory"),
        ("160GB (for 8k)", "40GB", "IMP010", "| Per GPU memory"),
        ("| Storage size     | ~16GB ", "| Storage size     | TBD ", "IMP011", "| Storage size"),
        ("06/05/2025", "xx/xx/2025", "IMP012", "xx/xx/2025"),
        ("06/05/2025", "13/05/2025", "IMP012", "13/05/2025"),
        ("06/05/2025", "31/31/2025", "IMP012", "31/31/2025"),
        ("creation-date: 2025-05-29", "creation-date: 2025-02-01", "IMP013", "creation-date"),
        ("| vLLM  |", "| Ollama |", "IMP014", "Ollama"),
        ("| vLLM  |", "| Hugging Face Transformers. vLLM will follow. |", "IMP014", "will follow"),
        ("| https://huggingface.co/acme/Acme-7B            |", "| Hugging Face |", "IMP015", "| Download site"),
        ("| 80 GB ", "| plenty ", "IMP016", "plenty"),
        ("Sample YAML:", "Some words that belong nowhere.", "IMP017", "belong nowhere"),
        ("| Family name ", "| Tribe | x |\n| Family name ", "IMP018", "Tribe"),
        ("## Runtimes", "## Musings\n\n## Runtimes", "IMP018", "## Musings"),
        ("kind: ConfigMap", "kind: [ConfigMap", "IMP019", "metadata:\n"),
        ("[Apache 2.0](https://example.org/LICENSE)", "Own Terms", "IMP020", "Own Terms"),
        ("title: Proposal for new", "title: Proposal for Zephyr", "IMP007", "title: Proposal for Zephyr"),
        ("| Acme       ", "| Zephyr     ", "IMP008", "| Family name"),
        ("| Acme       ", "| Acme 13B   ", "IMP008", "| Family name"),
        ("1,000 downloads", "Acme-70B has 1,000 downloads", "IMP008", "usage statistics"),
        (f"acme/Acme-7B/commit/{COMMIT}", f"acme/Other/commit/{COMMIT}", "IMP008", "| Version"),
        (f"[0123456](https://huggingface.co/acme/Acme-7B/commit/{COMMIT})", "0123456", "IMP004", "| Version"),
        ("[0123456](", "[7654321](", "IMP004", "| Version"),
        ("modelAccessSecret: token", "a: b\n  modelAccessSecret: token", "IMP009", "  modelAccessSecret: token"),
        ("  name: params\ndata", "  name: other\ndata", "IMP009", "  name: other"),
        ("# History", "Note: vLLM is unsupported for now.\n\n# History", "IMP014", "Note: vLLM"),
        ("| vLLM  |", "| vLLM support will be available soon |", "IMP014", "| Runtime "),
        ("| vLLM  |", "| Transformers, vLLM (not supported) |", "IMP014", "| Runtime "),
        ("| True  |", "| False (True for Large) |", "IMP021", "| Distributed Inference"),
        ("| True  |", "| perhaps |", "IMP021", "| Distributed Inference"),
        ("160GB (for 8k)", "160GB (~32k context length)", "IMP010", "inference_config.yaml"),
        ("| ~16GB ", "| 16 ", "IMP016", "| Storage size"),
        ("| 2+    ", "| 2 to 4 ", "IMP016", "| GPU count"),
        ("| Acme       ", "| Acme | 7B ", "IMP018", "| Family name"),
        ("## Runtimes", "| A | B |\n|---|---|\n| c | d |\n\n## Runtimes", "IMP018", "| A | B |"),
        ("## Runtimes", "Not in the template.\n\n## Runtimes", "IMP017", "Not in the template"),
        ("status: provisional", "status: provisional\nsize: 3", "IMP018", "size: 3"),
        ("## Runtimes", "```bash\nls\n```\n\n## Runtimes", "IMP019", "```bash"),
        ("kind: ConfigMap", "kind: Pod", "IMP019", "kind: Pod"),
        ("- [x] 2025-05-29: Open", "- 2025-05-29: Open", "IMP012", "- 2025-05-29: Open"),
        ("- [x] 2025-05-29: Open", "- [x] Open", "IMP012", "- [x] Open"),
        ("creation-date: 2025-05-29", "creation-date: 2025-02-30", "IMP012", "creation-date"),
        ('  - "@someone"', "  - @someone", "IMP001", "  - @someone"),
        ("1,000 downloads as of 2025-05-29, according to", "See", "IMP011", "usage statistics"),
        ("Add [acme/Acme-7B](https://huggingface.co/acme/Acme-7B) to the list\n", "", "IMP011", "# Title"),
    ],
)  # fmt: skip
def test_what_is_lacking_or_contradictory_is_reported_at_its_line(
    old: str, new: str, code: str, part: str
) -> None:
    text = SAMPLE.replace(old, new)
    assert text != SAMPLE
    found = [d.place.line for d in read(text).diagnostics if d.code == code]
    wanted = line_of(text, part.strip("\n"))
    assert any(abs(line - wanted) <= (2 if code == "IMP019" else 0) for line in found), (found, wanted)


def test_what_cannot_be_valid_without_is_an_error_and_what_can_be_is_a_warning() -> None:
    text = SAMPLE.replace("creation-date: 2025-05-29\n", "").replace(
        "| Storage size     | ~16GB", "| Storage size | "
    )
    found = {d.message: d.severity for d in read(text).diagnostics if d.code == "IMP011"}
    assert found == {
        "the front matter has no creation-date": Severity.ERROR,
        "Storage size: no figure (empty)": Severity.WARNING,
    }


def test_every_remark_names_a_place_and_a_way_out() -> None:
    for text in (SAMPLE, MANY, SAMPLE.replace("80 GB ", "plenty").replace("vLLM  |", "Ollama |")):
        assert [d.code for d in read(text).diagnostics if not d.hint] == []


def test_front_matter_that_is_no_yaml_is_read_line_by_line() -> None:
    text = SAMPLE.replace('"@someone"', "@someone").replace("for new model support", "for: acme")
    assert "IMP001" in codes(text)
    assert value_of(text)["metadata"]["authors"] == ["@someone"]
    assert value_of(text)["metadata"]["title"] == "Proposal for: acme"


def test_a_comment_is_no_part_of_a_text() -> None:
    text = SAMPLE.replace(
        "A model for trying things.", "A model <!-- no link check --> for trying <!-- --> things."
    )
    assert value_of(text)["summary"]["description"] == "A model for trying things."


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_other_line_endings_and_a_byte_order_mark_change_nothing(ending: str) -> None:
    text = "\ufeff" + SAMPLE.replace("\n", ending)
    assert read(text) == read(SAMPLE)


def test_a_bar_inside_a_cell_is_escaped() -> None:
    text = SAMPLE.replace("none worth a word", "a \\| b")
    assert value_of(text)["runtimes"][0]["customConfigurations"] == "a | b"


def test_words_taken_back_are_kept_as_a_note() -> None:
    text = SAMPLE.replace("| vLLM  |", "| Hugging Face Transformers. vLLM will be added. |")
    text = text.replace("# History", "Note: vLLM is not supported.\n\n# History")
    value = value_of(text)
    assert value["requirements"]["notes"]["runtimes"] == "vLLM will be added. Note: vLLM is not supported."
    assert [runtime["name"] for runtime in value["runtimes"]] == ["transformers"]


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("N/A", None),
        ("[Hub](https://huggingface.co/acme/Acme-7B)", {"source": "https://huggingface.co/acme/Acme-7B"}),
        ("12k downloads as of 27th May 2024", {"statistics": "12k downloads", "asOf": "2024-05-27"}),
        ("12k downloads as of May 27, 2024.", {"statistics": "12k downloads", "asOf": "2024-05-27"}),
        ("As of January 2025, 88k downloads.", {"statistics": "As of January 2025, 88k downloads"}),
        ("As of 2025-01-05, 88k.", {"statistics": "As of 2025-01-05, 88k", "asOf": "2025-01-05"}),
        ("9 stars, according to https://x.org/a.", {"statistics": "9 stars", "source": "https://x.org/a"}),
    ],
)
def test_usage_statistics_are_read_as_they_are_said(text: str, usage: dict[str, str] | None) -> None:
    old = SAMPLE.split("**Model usage statistics**: ")[1].split("\n")[0]
    assert value_of(SAMPLE.replace(old, text))["summary"].get("usage") == usage


@pytest.mark.parametrize(
    ("text", "license_"),
    [
        ("MIT License", {"id": "mit"}),
        ("Apache-2.0.", {"id": "apache-2.0"}),
        ("`other`, see [its text](https://x.org/L). Ask first.",
         {"id": "other", "url": "https://x.org/L", "note": "Ask first."}),
        ("Acme is distributed under the Gemma Terms of Use.", {"id": "gemma"}),
        ("Acme is distributed under the MIT license, and that is good.",
         {"id": "mit", "note": "Acme is distributed under the MIT license, and that is good."}),
        ("LLAMA 3.1 COMMUNITY LICENSE", {"id": "llama3.1"}),
        ("LicenseRef-Acme", {"id": "LicenseRef-Acme"}),
        ("The Acme Terms", {"note": "The Acme Terms"}),
    ],
)  # fmt: skip
def test_a_licence_is_read_as_it_is_named(text: str, license_: dict[str, str]) -> None:
    old = SAMPLE.split("**Model license**: ")[1].split("\n")[0]
    assert value_of(SAMPLE.replace(old, text))["summary"]["license"] == license_


@pytest.mark.parametrize(
    ("cell", "size", "note"),
    [
        ("16GB", "16GB", None),
        ("`16 GiB`", "16 GiB", None),
        ("~16GB (per https://x.org)", "16GB", "~; per https://x.org"),
        ("80GB (total)", "80GB", "total"),
        ("at least 80GB", "80GB", "at least"),
        ("80GB or more", "80GB", "or more"),
        ("80GB+", "80GB", "80GB+"),
        ("TBD", "TBD", None),
        ("n/a", "N/A", None),
        ("TBD (soon)", "TBD", "soon"),
        ("", None, None),
        ("plenty", None, "plenty"),
        ("16gb", None, "16gb"),
        ("2 x 80GB", None, "2 x 80GB"),
    ],
)
def test_a_size_keeps_what_was_said_around_it(cell: str, size: str | None, note: str | None) -> None:
    found = value_of(SAMPLE.replace("| 80 GB ", f"| {cell} "))["requirements"]
    assert (found.get("perGPUMemory"), found["notes"].get("perGPUMemory")) == (size, note)


@pytest.mark.parametrize(
    ("item", "event", "day"),
    [
        ("05/29/2025: Open proposal PR.", "Open proposal PR", "2025-05-29"),
        ("2025-05-29 - Open", "Open", "2025-05-29"),
        ("5/9/2025 Open", "Open", "2025-05-09"),
        ("29.05.2025: Open", "Open", "2025-05-29"),
        ("xx/xx/2025: Merged TBD", "xx/xx/2025: Merged TBD", None),
        ("0.10.1 released", "0.10.1 released", None),
        ("Open, see [#1](https://x.org/1)", "Open, see [#1](https://x.org/1)", None),
    ],
)
def test_a_date_of_the_history_is_read_in_every_order(item: str, event: str, day: str | None) -> None:
    found = value_of(SAMPLE.replace("2025-05-29: Open proposal PR.", item))["history"][0]
    assert (found["event"], found.get("date")) == (event, day)


def test_a_block_for_one_model_is_not_laid_over_several() -> None:
    block = "```yaml\nkind: ModelProposalOverlay\nwaivers: {MEM003: x}\n```\n"
    result = read(MANY.replace("## Requirements", f"{block}## Requirements"))
    assert [p.value["waivers"] for p in result.proposals] == [{}, {}]
    assert "IMP019" in [d.code for d in result.diagnostics]


@pytest.mark.parametrize("name", ["../../etc", "A", "a/b", "..", "3"])
def test_a_block_cannot_give_a_name_that_leads_elsewhere(name: str) -> None:
    result = read(SAMPLE + f"\n```yaml\nkind: ModelProposalOverlay\nmetadata: {{name: {name}}}\n```\n")
    assert [(p.name, p.value["metadata"]["name"]) for p in result.proposals] == [("acme-7b", "acme-7b")]


def test_a_context_said_in_a_note_counts_thousands_in_1024() -> None:
    text = SAMPLE.replace("      max-model-len: 8192\n", "      dtype: auto\n").replace(
        "for 8k", "~16k context length"
    )
    assert value_of(text)["requirements"]["contextLength"] == 16384


def test_a_file_whose_first_heading_is_its_title_is_read() -> None:
    text = SAMPLE.replace("# Title\n\nAdd", "# Add")
    assert value_of(text)["metadata"]["heading"].startswith("Add [acme/Acme-7B]")


def test_a_month_first_date_that_would_be_the_creation_date_day_first_is_reported() -> None:
    text = SAMPLE.replace("2025-05-29: Open", "03/01/2025: Open").replace(
        "creation-date: 2025-05-29", "creation-date: 2025-01-03"
    )
    assert "IMP012" in codes(text, "20250103-acme.md")
    assert value_of(text)["history"][0]["date"] == "2025-03-01"


def test_a_file_without_a_requirements_table_gives_no_proposal() -> None:
    result = read(SAMPLE.replace("| Family name", "Family name").split("## Requirements")[0])
    assert result.proposals == ()
    assert "IMP002" in [d.code for d in result.diagnostics if d.severity is Severity.ERROR]


def test_a_runtime_that_is_taken_back_below_the_table_is_not_imported() -> None:
    text = SAMPLE.replace("| vLLM  |", "| Transformers, vLLM |").replace(
        "# History", "Note: vLLM is not supported yet.\n\n# History"
    )
    assert [runtime["name"] for runtime in value_of(text)["runtimes"]] == ["transformers"]


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("vLLM", ["vllm"]),
        ("Huggingface Transformer & VLLM", ["transformers", "vllm"]),
        ("HuggingFace Transformers, vLLM", ["transformers", "vllm"]),
        ("Huggingface Transformer / vLLM", ["transformers", "vllm"]),
        ("Huggingface Transformer & onnx", ["transformers", "onnx"]),
        ("vLLM 0.10+, SGLang", ["vllm"]),
        ("vLLM is not supported", []),
        ("vLLM and transformers are not supported", []),
        ("Transformers (no compilation), vLLM", ["vllm"]),
    ],
)
def test_a_runtime_cell_is_read_in_every_shape(cell: str, names: list[str]) -> None:
    found = value_of(SAMPLE.replace("| vLLM  |", f"| {cell} |"))["runtimes"]
    assert [runtime["name"] for runtime in found] == names


@pytest.mark.parametrize(
    ("cell", "count", "note"),
    [
        ("1", 1, None),
        ("01 GPU", 1, "GPU"),
        ("1 (minimum)", 1, "minimum"),
        ("8+", 8, "8+"),
        ("~2 GPUs", 2, "~; GPUs"),
        ("4 x A100 80GB", 4, "x A100 80GB"),
        ("2 x 4", None, "2 x 4"),
    ],
)
def test_a_count_keeps_what_was_said_around_it(cell: str, count: int | None, note: str | None) -> None:
    found = value_of(SAMPLE.replace("| 2+ ", f"| {cell} "))["requirements"]
    assert (found.get("gpuCount"), found["notes"].get("gpuCount")) == (count, note)


def test_a_file_with_several_models_gives_one_proposal_each() -> None:
    result = read(MANY, "20251205-acme.md")
    found = [(p.name, p.value["requirements"]["storageSize"]) for p in result.proposals]
    assert found == [("acme-7b-instruct", "16GB"), ("acme-70b-instruct", "140GB")]
    assert [p.value["runtimes"][0]["distributedInference"] for p in result.proposals] == [False, True]
    assert [d.place.line for d in result.diagnostics if d.code == "IMP005"] == [13]
    assert [d.place.line for d in result.diagnostics if d.code == "IMP021"] == [25]


def test_each_of_several_models_is_pointed_to_its_own_repository() -> None:
    hints = [d.hint for d in read(MANY).diagnostics if d.code == "IMP015"]
    wanted = ["acme/Acme-7B-Instruct", "acme/Acme-70B-Instruct"]
    assert hints == [f"write https://huggingface.co/{repo_id}" for repo_id in wanted]


def test_a_manifest_goes_to_the_model_it_names() -> None:
    inference = "inference: {preset: {name: acme-70b-instruct}}"
    manifest = f"```yaml\nkind: Workspace\nresource: {{instanceType: T}}\n{inference}\n```\n"
    found = read(MANY.replace("## Requirements", f"{manifest}## Requirements")).proposals
    assert [p.value.get("deployment") for p in found] == [None, {"instanceType": "T"}]


def test_a_missing_figure_stays_missing() -> None:
    value = read(MANY).proposals[0].value
    assert "totalGPUMemory" not in value["requirements"]
    assert "license" not in value["summary"]
