"""Start-up logs as reported evidence: what each version prints, and no more than a log shows however it is damaged."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_catalog import cli
from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.documents import writing
from kaito_catalog.documents.reading import parse
from kaito_catalog.documents.validation import load
from kaito_catalog.formats.evidence import ReportedRun
from kaito_catalog.vllm_bridge.start_logs import values
from kaito_catalog.vllm_bridge.start_logs.private import kept
from kaito_catalog.vllm_bridge.start_logs.reported import reported_runs

LOGS = Path(__file__).parent / "data" / "start_logs"
NAMES = sorted(path.name for path in LOGS.glob("*.log"))
every_log = pytest.mark.parametrize("name", NAMES)


def text_of(name: str) -> str:
    return (LOGS / name).read_text(encoding="utf-8")


def read(text: str, **given: Any) -> list[dict[str, Any]]:
    return reported_runs(io.StringIO(text, newline="\n"), today="2026-11-30", **given)


def the_run(name: str) -> dict[str, Any]:
    (run,) = read(text_of(name))
    return run


def gib(value: float) -> int:
    return round(value * 2**30)


@every_log
def test_a_log_is_one_start_in_the_format_of_evidence(name: str) -> None:
    run = the_run(name)
    _, problems = load(parse(writing.write(run), path="run.yaml"), ReportedRun)
    assert [problem.message for problem in problems] == []
    assert run["versions"]["vllm"].startswith(name.split("-")[0])


def test_a_version_0_engine_tells_its_memory_in_one_line() -> None:
    run = the_run("0.8.5-v0-namespace.log")
    assert run["ranks"] == [
        {
            "rank": 0,
            "weightsBytes": gib(14.2487),
            "nonTorchBytes": gib(0.06),
            "activationPeakBytes": gib(1.43),
            "cudaGraphBytes": gib(0.76),
            "kvCacheBytes": gib(4.05),
        }
    ]
    assert (run["outcome"], run["maxConcurrency"], run["loadSeconds"]) == ("served", 11.49, 6.373265)
    assert run["gpu"] == {"count": 1, "memoryBytes": gib(21.98)}
    assert run["revision"] == "0123456789abcdef0123456789abcdef01234567"
    # It prints blocks, not tokens.
    assert "kvCacheTokens" not in run


def test_of_several_ranks_each_has_its_own_figures_and_the_engine_goes_by_the_fewest_tokens() -> None:
    run = the_run("0.9.1-ranks.log")
    graphs = gib(0.61)
    assert run["ranks"] == [
        {"rank": 0, "weightsBytes": gib(65.7512), "cudaGraphBytes": graphs, "kvCacheBytes": gib(4.38)},
        {"rank": 1, "weightsBytes": gib(65.7512), "cudaGraphBytes": graphs, "kvCacheBytes": gib(4.40)},
    ]
    assert (run["kvCacheTokens"], run["maxConcurrency"], run["loadSeconds"]) == (28704, 3.5, 22.75)
    assert run["parallelism"] == {"tensorParallelSize": 2, "pipelineParallelSize": 1}
    assert run["gpu"] == {"count": 2}


def test_a_model_in_a_cache_of_the_hub_is_its_repository_at_a_commit() -> None:
    run = the_run("0.9.1-ranks.log")
    assert (run["model"], run["revision"]) == ("example/Wide-70B", "89abcdef0123456789abcdef0123456789abcdef")


def test_a_refusal_has_its_figures() -> None:
    run = the_run("0.11.0-does-not-fit.log")
    assert run["outcome"] == "does-not-fit"
    assert run["refusal"] == {
        "what": "kv-cache",
        "neededBytes": gib(24),
        "availableBytes": gib(11.9),
        "maxModelLen": 262144,
        "estimatedMaxModelLen": 129952,
    }
    assert run["message"].startswith("To serve at least one request")
    assert run["gpu"]["name"] == "NVIDIA A100-SXM4-80GB"


def test_a_refusal_without_an_estimate_has_none() -> None:
    assert the_run("0.8.2-v1-refused.log")["refusal"] == {
        "what": "kv-cache",
        "neededBytes": gib(16),
        "availableBytes": gib(3.71),
        "maxModelLen": 131072,
    }


def test_a_refusal_that_a_terminal_has_broken_is_read_whole() -> None:
    run = the_run("0.32.0-wrapped.log")
    assert run["refusal"]["estimatedMaxModelLen"] == 99712
    assert run["refusal"]["neededBytes"] == gib(4.26)
    assert run["message"].endswith("the estimated maximum model length is 99712.")
    assert run["ranks"] == [{"rank": 0, "weightsBytes": gib(17.3), "kvCacheBytes": gib(4.25)}]
    assert (run["model"], run["parallelism"]["tensorParallelSize"]) == ("example/Hybrid-9B", 1)


def test_memory_that_others_hold_is_told_apart_from_a_cache_without_room() -> None:
    run = the_run("0.30.0-shared-gpu.log")
    assert (run["outcome"], run["failure"]) == ("failed", "out-of-memory")
    assert run["refusal"] == {"what": "free-memory", "neededBytes": gib(21.63), "availableBytes": gib(9.62)}
    assert run["gpu"] == {"count": 1, "memoryBytes": gib(23.51), "freeBytes": gib(9.62)}
    assert run["gpuMemoryUtilization"] == 0.92


def test_of_interleaved_errors_the_cause_is_the_message_not_who_noticed() -> None:
    run = the_run("0.13.0-kaito-oom.log")
    assert (run["outcome"], run["failure"]) == ("failed", "out-of-memory")
    assert run["message"].startswith("CUDA out of memory. Tried to allocate 786.00 MiB.")
    assert [rank["rank"] for rank in run["ranks"]] == [0, 2, 3]
    assert run["gpu"] == {"count": 4, "memoryBytes": gib(21.98)}


def test_the_most_precise_of_several_messages_counts() -> None:
    (rank,) = the_run("0.19.0-banner-debug.log")["ranks"]
    assert rank == {
        "rank": 0,
        "weightsBytes": gib(33.88),
        "nonTorchBytes": gib(2.1),
        "activationPeakBytes": gib(1.96),
        "cudaGraphBytes": gib(1.79),
        "cudaGraphEstimateBytes": gib(1.82),
        "kvCacheBytes": gib(37.28),
    }


def test_copies_of_a_model_are_told_apart() -> None:
    run = the_run("0.26.0-data-parallel.log")
    assert [(rank["dataParallelRank"], rank["rank"]) for rank in run["ranks"]] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert run["kvCacheTokens"] == 1_130_000
    assert run["parallelism"] == {
        "tensorParallelSize": 2,
        "pipelineParallelSize": 1,
        "dataParallelSize": 2,
        "enableExpertParallel": True,
    }
    assert run["engine"]["speculative-config"]["method"] == "mtp"


# --- what carries a log, and what happens to it ------------------------------------------------------------------

CARRIERS = {
    "kubectl": lambda line: f"[pod/phi-4-0/inference] {line}",
    "runtime": lambda line: f"2026-11-30T10:00:00.123456789Z stdout F {line}",
    "docker": lambda line: json.dumps(
        {"log": line + "\n", "stream": "stderr", "time": "2026-11-30T10:00:00Z"}
    ),
    "journald": lambda line: f"Nov 30 10:00:00 box vllm[42]: {line}",
    "compose": lambda line: f"vllm-1  | {line}",
    "continuous integration": lambda line: f"2026-11-30T10:00:00.1234567Z {line}",
    "colours": lambda line: f"\x1b[1;36m{line}\x1b[0m",
    "colours as text": lambda line: f"^[[1;36m{line}^[[0;0m",
    "a progress bar": lambda line: f"Loading: 50%|#####     | 1/2\r{line}",
    "numbered lines": lambda line: f"  14 | {line}",
    "grep": lambda line: f"14:{line}",
    "windows": lambda line: f"{line}\r",
}


def without_where_it_was_read(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in ("lines", "logSha256")}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", ["0.8.5-v0-namespace.log", "0.9.1-ranks.log", "0.11.0-does-not-fit.log"])
def test_what_carries_a_log_changes_nothing(name: str, carrier: str) -> None:
    carried = "".join(CARRIERS[carrier](line) + "\n" for line in text_of(name).splitlines())
    (run,) = read(carried)
    assert without_where_it_was_read(run) == without_where_it_was_read(the_run(name))
    assert "box" not in " ".join(run["lines"])


def figures(value: Any, route: str = "") -> dict[str, Any]:
    """Every figure and word of a run by its route; what depends on how much is there is left out."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in figures(part, f"{route}.{name}").items()}
    if isinstance(value, list):
        return {k: v for part in value for k, v in figures(part, f"{route}[{rank_of(part)}]").items()}
    return {route: value}


def rank_of(part: Any) -> str:
    return f"{part.get('dataParallelRank')}/{part.get('rank')}" if isinstance(part, dict) else ""


OF_ALL_THAT_IS_THERE = re.compile(
    r"\.(lines|logSha256|outcome|failure|message|kvCacheTokens|maxConcurrency|loadSeconds|device|gpu\.(count|name))\b"
)
"""The fewest, the longest, how it ended: the first half of a log may say another than the whole."""


@every_log
def test_a_log_that_is_cut_gives_less_and_nothing_else(name: str) -> None:
    text = text_of(name)
    whole = figures(the_run(name))
    rng = random.Random(name)
    for at in sorted(rng.sample(range(len(text)), 60)):
        for run in read(text[:at]):
            for route, value in figures(run).items():
                if not OF_ALL_THAT_IS_THERE.search(route):
                    assert whole.get(route) == value, (at, route, text[max(0, at - 60) : at])


@every_log
def test_a_log_whose_beginning_is_missing_gives_no_other_figures(name: str) -> None:
    def sizes(run: dict[str, Any]) -> set[float]:
        # Some lines have two decimals, others four.
        return {round(value / 2**30, 2) for route, value in figures(run).items() if route.endswith("Bytes")}

    lines = text_of(name).splitlines(keepends=True)
    for start in range(len(lines)):
        for run in read("".join(lines[start:])):
            assert sizes(run) <= sizes(the_run(name))


def test_two_processes_that_write_to_one_line_are_told_apart() -> None:
    text = text_of("0.9.1-ranks.log")
    glued = text.replace("22.750000 seconds\n(VllmWorker", "22.750000 seconds(VllmWorker")
    assert glued != text
    (run,) = read(glued)
    assert without_where_it_was_read(run) == without_where_it_was_read(the_run("0.9.1-ranks.log"))


def test_a_host_that_keeps_no_line_breaks_loses_nothing() -> None:
    lines = [line[31:] for line in text_of("0.11.0-does-not-fit.log").splitlines()]
    (run,) = read(
        " ".join(f"Aug 04 00:35:11.716 | {line}" for line in lines[:7]) + "\n" + " ".join(lines[7:]) + "\n"
    )
    whole = the_run("0.11.0-does-not-fit.log")
    assert [run[key] for key in ("ranks", "refusal", "outcome", "parallelism", "arguments")] == [
        whole[key] for key in ("ranks", "refusal", "outcome", "parallelism", "arguments")
    ]


def test_ranks_of_ray_that_do_not_say_which_they_are_have_no_number() -> None:
    (run,) = read(
        "(APIServer pid=1) INFO 01-12 06:15:17 [api_server.py:1] vLLM API server version 0.11.0\n"
        "(EngineCore_DP0 pid=5) (RayWorkerWrapper pid=71) INFO 01-12 06:16:17 Model loading took 0.9277 GiB\n"
        "(EngineCore_DP0 pid=5) (RayWorkerWrapper pid=72, ip=10.2.3.4) Model loading took 0.9 GiB\n"
    )
    assert run["ranks"] == [{"weightsBytes": gib(0.9277)}, {"weightsBytes": gib(0.9)}]
    assert "10.2.3.4" not in str(run["lines"])


def test_two_starts_in_one_text_are_two_runs() -> None:
    first, second = "0.11.0-does-not-fit.log", "0.9.1-ranks.log"
    runs = read(text_of(first) + text_of(second))
    assert [without_where_it_was_read(run) for run in runs] == [
        without_where_it_was_read(the_run(first)),
        without_where_it_was_read(the_run(second)),
    ]


def test_a_start_that_is_cut_in_the_middle_keeps_nothing_of_the_next() -> None:
    lines = text_of("0.9.1-ranks.log").splitlines(keepends=True)
    runs = read("".join(lines[:5]) + text_of("0.11.0-does-not-fit.log"))
    assert [run.get("outcome") for run in runs] == [None, "does-not-fit"]
    assert [run["model"] for run in runs] == ["example/Wide-70B", "example/Long-30B"]


def test_the_same_start_twice_is_two_starts() -> None:
    assert len(read(text_of("0.30.0-shared-gpu.log") * 2)) == 2


def test_the_lines_of_two_pods_are_told_apart() -> None:
    pods = [
        [f"[pod/{number}/vllm] {line}" for line in text_of(name).splitlines()]
        for number, name in enumerate(("0.9.1-ranks.log", "0.19.0-banner-debug.log"))
    ]
    mixed = [line for both in zip(*pods, strict=False) for line in both]
    mixed += pods[1][len(pods[0]) :] + pods[0][len(pods[1]) :]
    runs = read("\n".join(mixed) + "\n")
    assert [run["model"] for run in runs] == ["example/Wide-70B", "example/Mid-70B-fp8"]
    assert [run["ranks"][0]["weightsBytes"] for run in runs] == [gib(65.7512), gib(33.88)]


def test_an_engine_that_dies_after_it_was_shut_down_is_no_failed_start() -> None:
    tail = (
        "(APIServer pid=7) INFO:     Shutting down\n"
        "(APIServer pid=7) ERROR 04-30 09:00:00 [core_client.py:600] Engine core proc EngineCore died unexpectedly, "
        "shutting down client.\n"
    )
    assert read(text_of("0.19.0-banner-debug.log") + tail)[0]["outcome"] == "served"
    before = text_of("0.19.0-banner-debug.log").split("(APIServer pid=7) INFO:     Started")[0]
    assert "outcome" not in read(before + tail)[0]


def test_a_negative_cache_is_read_with_its_sign() -> None:
    run = read(
        "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.22.0\n"
        "(EngineCore pid=3) INFO 01-01 00:00:00 [gpu_worker.py:1] Available KV cache memory: -1.54 GiB\n"
        "(EngineCore pid=3) ERROR 01-01 00:00:00 [core.py:1] ValueError: No available memory for the cache blocks.\n"
    )[0]
    assert run["ranks"][0]["kvCacheBytes"] == -gib(1.54)
    assert run["outcome"] == "does-not-fit"
    assert "refusal" not in run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "ERROR 01-01 00:00:00 [x.py:1] TimeoutError: Timed out waiting for engine core processes to start.",
            "time-out",
        ),
        ("vllm serve: error: unrecognized arguments: --swap-space 4", "bad-option"),
        (
            "ERROR 01-01 00:00:00 [x.py:1] RuntimeError: CUDA error: no kernel image is available for",
            "missing-kernel",
        ),
        ("Killed", "out-of-memory"),
        (
            "ValueError: Model architectures ['XForCausalLM'] are not supported for now.",
            "unsupported-architecture",
        ),
        ("RuntimeError: something else", "other"),
    ],
)
def test_a_failure_has_its_class(line: str, expected: str) -> None:
    run = read(f"INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.22.0\n{line}\n")[0]
    assert (run["outcome"], run["failure"]) == ("failed", expected)


def test_a_warning_that_names_an_exception_is_no_failure() -> None:
    log = (
        "INFO 01-01 00:00:00 [api_server.py:1] vLLM API server version 0.22.0\n"
        "WARNING 01-01 00:00:00 [x.py:1] ImportError: flash_attn is not installed\n"
    )
    assert "outcome" not in read(log)[0]


@pytest.mark.parametrize(
    "text", ["", "hello\n", "INFO: Application startup complete.\n", "ValueError: mine\n", "\x00\xff\n"]
)
def test_a_text_without_a_start_gives_none(text: str) -> None:
    assert read(text) == []


def test_random_bytes_between_the_lines_raise_nothing() -> None:
    rng = random.Random(26)
    for name in NAMES:
        text = list(text_of(name))
        for _ in range(40):
            text[rng.randrange(len(text))] = rng.choice("\r\n\t\x1b'\"([{)]},0\u2028")
        for run in read("".join(text)):
            _, problems = load(parse(writing.write(run), path="run.yaml"), ReportedRun)
            assert [problem.message for problem in problems] == []


def test_a_long_line_takes_no_time() -> None:
    hostile = ["A" * 200_000, "1" * 200_000, "non-default args: {" + "(" * 100_000, "{" * 1000, "'" * 100_000]
    log = "".join(f"INFO 01-01 00:00:00 [api_server.py:1] KV cache size {line}\n" for line in hostile)
    assert read("vLLM API server version 0.22.0\n" + log)[0]["versions"] == {"vllm": "0.22.0"}


# --- what is not kept ------------------------------------------------------------------------------------------------

SECRETS = (
    "hf_Example",
    "key-of-example",
    "sk-example",
    "hunter2",
    "10.20.30.40",
    "10.1.2.3",
    "/data/",
    "/mnt/",
    "/usr/",
)


@every_log
def test_no_secret_no_folder_and_no_address_is_kept(name: str) -> None:
    written = json.dumps(the_run(name))
    assert [secret for secret in SECRETS if secret in written] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("api_key='abc def', seed=0", "api_key=***, seed=0"),
        ("{'hf_token': 'xyz', 'seed': 0}", "{'hf_token': ***, 'seed': 0}"),
        ("--api-key secret --seed 0", "--api-key *** --seed 0"),
        ("HF_TOKEN=hf_abcdefghijkl vllm serve x", "HF_TOKEN=*** vllm serve x"),
        ("token hf_abcdefghijklmnop ends", "token *** ends"),
        ("https://me:pw@example.org/x", "…"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: ***"),
        ("max_num_batched_tokens=8192, tokenizer='x/y'", "max_num_batched_tokens=8192, tokenizer='x/y'"),
        ("api_key=None, x=1", "api_key=None, x=1"),
        ("/home/someone/models/x.py", "…/x.py"),
        ("C:\\Users\\someone\\x", "…/x"),
        ("~/models/x", "…/x"),
        ("tcp://worker-3.internal:5000 up", "… up"),
    ],
)
def test_what_is_kept_of_a_line(line: str, expected: str) -> None:
    assert kept(line) == expected


def test_a_value_whose_end_was_not_printed_is_not_read() -> None:
    assert dict(values.readable("'a': 1, 'b': 81", closes="}")) == {"a": 1}
    assert dict(values.readable("'a': 1, 'b': 81}", closes="}")) == {"a": 1, "b": 81}


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_what_a_log_says(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    path = str(LOGS / "0.11.0-does-not-fit.log")
    assert cli.main(["evidence", "from-log", path, "--catalog", str(root / "catalog"), "--by", "@me"]) == 0
    run = yaml.safe_load(capsys.readouterr().out)
    assert (run["kind"], run["source"], run["reportedBy"]) == (
        "ReportedRun",
        "0.11.0-does-not-fit.log",
        "@me",
    )
    assert (
        cli.main(["evidence", "from-log", path, "--catalog", str(root / "catalog"), "--format", "json"]) == 0
    )
    value = json.loads(capsys.readouterr().out)
    assert (value["version"], [run["model"] for run in value["runs"]]) == (1, ["example/Long-30B"])


def test_a_log_on_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text_of("0.9.1-ranks.log")))
    arguments = [
        "evidence",
        "from-log",
        "-",
        "--gpu",
        "a100-80gb",
        "--catalog",
        str(root / "catalog"),
        "--format=json",
    ]
    assert cli.main(arguments) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["gpu"]["name"] == "NVIDIA A100 80GB"
    assert "source" not in run


@pytest.mark.models("phi-4", evidence=False)
def test_a_reported_start_goes_into_the_models_folder_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = here / "vllm.log"
    log.write_text(text_of("0.19.0-banner-debug.log").replace("example/Mid-70B-fp8", "microsoft/phi-4"))
    arguments = [
        "evidence",
        "from-log",
        str(log),
        "--gpu",
        "h100-80gb",
        "--into",
        "catalog",
        "--by",
        "@someone",
    ]
    assert cli.main(arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith("wrote catalog/models/phi-4/evidence/vllm-0.19.0-nvidia-h100-80gb-tp2-reported-")
    (evidence,) = read_entry(here / "catalog/models/phi-4").evidence
    assert isinstance(evidence.record, ReportedRun)
    assert (evidence.record.model, evidence.record.reported_by) == ("phi-4", "@someone")
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("already there: ")
    assert cli.main([*arguments, "--source", "another"]) == 2
    assert "with something else" in capsys.readouterr().err
    assert cli.main(["check", "phi-4"]) == 0


@pytest.mark.models("phi-4", evidence=False)
def test_a_model_that_the_catalog_does_not_have_is_an_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evidence", "from-log", str(LOGS / "0.9.1-ranks.log"), "--into", "catalog"]) == 2
    assert "the catalog has no model example/Wide-70B" in capsys.readouterr().err


def test_a_log_without_a_start_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    (tmp_path / "x.log").write_text("nothing\n")
    assert (
        cli.main(["evidence", "from-log", str(tmp_path / "x.log"), "--catalog", str(root / "catalog")]) == 2
    )
    assert "no start of vLLM is in this log" in capsys.readouterr().err
