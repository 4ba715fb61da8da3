"""The Hub's client against our own Hub over real HTTP: what it reads, and what it says when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import HfApi

from kaito_catalog.errors import CatalogError
from kaito_catalog.hub.client import Hub
from kaito_catalog.hub.errors import HubError, Trouble
from kaito_catalog.hub.fake.files import json_file, lfs_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import FakeRepository, repository
from kaito_catalog.hub.fake.server import FakeHub, Fault
from kaito_catalog.hub.repository import is_safe, printable
from kaito_catalog.hub.safetensors import parse_header, tensor_bytes
from kaito_catalog.hub.weight_files import choose_weights, index_to_read

REPO = "example-org/Example-7B-Instruct"


def model(**settings: Any) -> FakeRepository:
    files = {
        "config.json": json_file({"architectures": ["LlamaForCausalLM"]}),
        "LICENSE": text_file("the terms\n"),
        "model.safetensors": safetensors_file({"BF16": 5000, "F32": 7}),
    }
    return repository(REPO, files, **settings)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub([model()]) as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(server: FakeHub, clock: Clock) -> Iterator[Callable[..., Hub]]:
    opened: list[Hub] = []

    def make(token: str | bool = False, **settings: object) -> Hub:
        settings = {"timeout_seconds": 5.0, "attempts": 3, **settings}
        hub = Hub(endpoint=server.endpoint, token=token, sleep=clock.sleep, clock=clock, **settings)  # type: ignore[arg-type]
        opened.append(hub)
        return hub.__enter__()

    yield make
    for hub in opened:
        hub.__exit__(None, None, None)


def trouble(function: Callable[[], object]) -> Trouble:
    with pytest.raises(HubError) as caught:
        function()
    message = caught.value.message
    assert "\n" not in message
    assert message.startswith((REPO, "'")), message
    return caught.value.trouble


# --- what is read


def test_one_call_gives_commit_files_sizes_hashes_licence_and_downloads(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    hub = connect()
    found = hub.repository(REPO)
    assert (found.repo_id, found.license_id, found.gated, found.downloads) == (REPO, "apache-2.0", "no", 1000)
    assert found.revision == server.repositories[REPO].refs["main"]
    weights = found.file("model.safetensors")
    assert weights is not None
    assert weights.sha256 == server.repositories[REPO].commits[found.revision]["model.safetensors"].sha256
    assert found.parameters_by_dtype == {"BF16": 5000, "F32": 7}
    assert (hub.calls, server.api_calls) == (1, 1)


def test_a_file_is_read_at_the_commit_and_checked_against_its_hash(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    hub = connect()
    found = hub.repository(REPO)
    data = hub.read(found, "config.json", limit_bytes=1000)
    assert json.loads(data) == {"architectures": ["LlamaForCausalLM"]}
    assert f"/resolve/{found.revision}/config.json" in server.requests[-1].path


def test_a_safetensors_header_is_read_by_one_range_request(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    hub = connect()
    found = hub.repository(REPO)
    assert hub.safetensors_header(found, "model.safetensors").parameters_by_dtype == {"BF16": 5000, "F32": 7}
    assert hub.calls == 2
    assert server.requests[-1].headers["range"] == "bytes=0-99999"


def test_a_long_safetensors_header_takes_a_second_range_request(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(repository(REPO, {"model.safetensors": safetensors_file({"BF16": 1000}, size_bytes=400_000)}))
    hub = connect()
    assert hub.safetensors_header(hub.repository(REPO), "model.safetensors").parameters_by_dtype == {
        "BF16": 1000
    }
    assert [r.headers["range"] for r in server.requests[1:]] == ["bytes=0-99999", "bytes=100000-397999"]


def test_weights_of_sixteen_gigabytes_are_read_without_being_downloaded(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(repository(REPO, {"model.safetensors": safetensors_file({"BF16": 8 * 10**9})}))
    hub = connect()
    assert hub.safetensors_header(hub.repository(REPO), "model.safetensors").parameters_by_dtype == {
        "BF16": 8 * 10**9
    }


def test_a_server_without_ranges_is_not_read_to_the_end(server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.put(repository(REPO, {"model.safetensors": safetensors_file({"BF16": 10**9})}))
    server.faults.append(Fault("/resolve/", action="no-range"))
    hub = connect()
    assert hub.safetensors_header(hub.repository(REPO), "model.safetensors").parameters_by_dtype == {
        "BF16": 10**9
    }


def test_a_revision_with_slashes_is_asked_for_as_one(server: FakeHub, connect: Callable[..., Hub]) -> None:
    found = server.repositories[REPO]
    commit = found.refs["main"]
    server.put(FakeRepository(REPO, found.commits, {"refs/pr/1": commit}))
    assert connect().repository(REPO, "refs/pr/1").revision == commit


def test_a_moved_repository_answers_under_its_new_name(server: FakeHub, connect: Callable[..., Hub]) -> None:
    new = "example-org/Renamed"
    server.put(repository(new, server.repositories[REPO].commits[server.repositories[REPO].refs["main"]]))
    server.put(model(moved_to=new))
    assert connect().repository(REPO).repo_id == new


def test_unsafe_names_are_listed_apart_and_made_printable(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    names = ["../up", "/etc/passwd", "a\\b", "a//b", "x\u202ey", "line\nbreak", "ok.txt"]
    server.put(repository(REPO, {name: text_file("x") for name in names}))
    found = connect().repository(REPO)
    assert [file.path for file in found.files] == ["ok.txt"]
    assert set(found.unsafe_names) == {
        "../up",
        "/etc/passwd",
        "a\\b",
        "a//b",
        "x\\u202ey",
        "line\\u000abreak",
    }


# --- gates and tokens


def test_a_gated_model_is_listed_without_a_token_and_its_files_are_not_read(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(model(gated="manual"))
    hub = connect()
    found = hub.repository(REPO)
    assert found.gated == "manual"
    with pytest.raises(HubError, match="the files are gated, and HF_TOKEN is not set") as caught:
        hub.read(found, "config.json", limit_bytes=1000)
    assert caught.value.trouble is Trouble.GATED
    assert "set HF_TOKEN" in (caught.value.hint or "")


def test_a_gated_model_is_read_with_a_token_that_has_access(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(model(gated="auto"))
    hub = connect("hf_reader")
    assert hub.read(hub.repository(REPO), "LICENSE", limit_bytes=100) == b"the terms\n"


def test_a_token_without_access_is_told_apart_from_no_token(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(model(gated="manual"))
    hub = connect("hf_stranger")
    with pytest.raises(HubError, match="the token's account has no access"):
        hub.read(hub.repository(REPO), "LICENSE", limit_bytes=100)


def test_a_token_that_the_hub_does_not_know_is_named_as_the_cause(connect: Callable[..., Hub]) -> None:
    assert trouble(lambda: connect("hf_wrong").repository(REPO)) is Trouble.BAD_TOKEN


def test_without_a_token_a_missing_repository_may_be_private(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.remove(REPO)
    assert trouble(lambda: connect().repository(REPO)) is Trouble.GONE_OR_PRIVATE


def test_with_a_token_a_missing_repository_is_gone(server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.remove(REPO)
    assert trouble(lambda: connect("hf_reader").repository(REPO)) is Trouble.GONE


def test_a_revision_that_does_not_exist_is_told_apart(connect: Callable[..., Hub]) -> None:
    assert trouble(lambda: connect().repository(REPO, "f" * 40)) is Trouble.REVISION_GONE


def test_a_disabled_repository_is_told_apart(server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.put(model(disabled=True))
    assert trouble(lambda: connect().repository(REPO)) is Trouble.DISABLED


@pytest.mark.parametrize("name", ["a/b/c", "../../x", "a b/c", "-x/y"])
def test_what_is_no_repository_id_is_refused_before_anything_is_asked(
    name: str, server: FakeHub, connect: Callable[..., Hub]
) -> None:
    assert trouble(lambda: connect().repository(name)) is Trouble.USAGE
    assert server.requests == []


# --- faults


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("", status=403), Trouble.FORBIDDEN),
        (Fault("", status=409), Trouble.CONFLICT),
        (Fault("", status=429), Trouble.RATE_LIMITED),
        (Fault("", status=500), Trouble.SERVER),
        (Fault("", status=503), Trouble.SERVER),
        (Fault("", status=404), Trouble.USAGE),
        (Fault("", status=418), Trouble.USAGE),
        (Fault("", action="cut"), Trouble.CONNECTION),
        (Fault("", action="truncate"), Trouble.CORRUPT),
        (Fault("", action="corrupt"), Trouble.CORRUPT),
        (Fault("", action="short-length"), Trouble.CORRUPT),
    ],
    ids=lambda value: value.name if isinstance(value, Trouble) else str(value.status or value.action),
)
def test_a_lasting_fault_gets_one_line_that_names_the_model(
    fault: Fault, expected: Trouble, server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.faults.append(fault)
    assert trouble(lambda: connect().repository(REPO)) is expected


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", status=409, times=2),
        Fault("", status=429, times=2),
        Fault("", status=502, times=2),
        Fault("", action="cut", times=2),
        Fault("", action="corrupt", times=2),
    ],
    ids=lambda fault: str(fault.status or fault.action),
)
def test_a_passing_fault_is_waited_out(fault: Fault, server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.faults.append(fault)
    assert connect().repository(REPO).repo_id == REPO
    assert len(server.requests) == 3


def test_a_fault_that_time_cannot_heal_is_not_tried_again(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.faults.append(Fault("", status=403))
    trouble(lambda: connect().repository(REPO))
    assert len(server.requests) == 1


def test_a_server_that_does_not_answer_is_a_time_out(server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.faults.append(Fault("", action="hang"))
    assert trouble(lambda: connect(timeout_seconds=0.2, attempts=1).repository(REPO)) is Trouble.TIMEOUT


def test_an_address_where_nobody_listens_is_named(clock: Clock) -> None:
    with FakeHub() as gone:
        endpoint = gone.endpoint
    with (
        Hub(endpoint=endpoint, token=False, sleep=clock.sleep, clock=clock, attempts=2) as hub,
        pytest.raises(HubError, match=r"127\.0\.0\.1:\d+ cannot be reached") as caught,
    ):
        hub.repository(REPO)
    assert caught.value.trouble is Trouble.CONNECTION


def test_a_rate_limit_is_waited_for_as_long_as_its_header_says(
    server: FakeHub, connect: Callable[..., Hub], clock: Clock
) -> None:
    headers = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    server.faults.append(Fault("", status=429, headers=headers, times=1))
    connect().repository(REPO)
    assert sum(clock.slept) == 56


def test_retry_after_is_honoured(server: FakeHub, connect: Callable[..., Hub], clock: Clock) -> None:
    server.faults.append(Fault("", status=503, headers={"Retry-After": "7"}, times=1))
    connect().repository(REPO)
    assert sum(clock.slept) == 7


def test_a_rate_limit_longer_than_the_hubs_window_is_an_error(
    server: FakeHub, connect: Callable[..., Hub], clock: Clock
) -> None:
    server.faults.append(Fault("", status=429, headers={"Retry-After": "86400"}))
    assert trouble(lambda: connect().repository(REPO)) is Trouble.RATE_LIMITED
    assert clock.slept == []


def test_when_the_last_call_of_a_window_is_used_the_next_one_waits(clock: Clock) -> None:
    with (
        FakeHub([model()], limit=2, window_seconds=30, clock=clock) as server,
        Hub(endpoint=server.endpoint, token=False, sleep=clock.sleep, clock=clock) as hub,
    ):
        for _ in range(5):
            hub.repository(REPO)
    assert len(server.requests) == 5, "no call was refused"
    assert len(clock.slept) == 2


def test_the_token_does_not_follow_a_file_to_another_host(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    with FakeHub([model()]) as cdn:
        server.put(model(gated="manual"))
        server.cdn = cdn.endpoint
        hub = connect("hf_reader")
        assert hub.safetensors_header(hub.repository(REPO), "model.safetensors").parameters_by_dtype == {
            "BF16": 5000,
            "F32": 7,
        }
        assert server.requests[-1].headers["authorization"] == "Bearer hf_reader"
        assert len(cdn.requests) == 1
        assert "authorization" not in cdn.requests[0].headers
        assert hub.calls == 2, "what a CDN answers does not count"


def test_an_api_call_is_not_redirected_to_another_host(server: FakeHub, connect: Callable[..., Hub]) -> None:
    with FakeHub([model()]) as elsewhere:
        target = f"{elsewhere.endpoint}/api/models/{REPO}"
        server.faults.append(Fault("/api/", status=307, headers={"Location": target}))
        assert trouble(lambda: connect("hf_reader").repository(REPO)) is Trouble.REDIRECTED
        assert elsewhere.requests == []


def test_a_circle_of_redirects_ends(server: FakeHub, connect: Callable[..., Hub]) -> None:
    server.faults.append(Fault("", status=307, headers={"Location": f"/api/models/{REPO}"}))
    assert trouble(lambda: connect().repository(REPO)) is Trouble.REDIRECTED


def test_a_file_that_is_not_what_the_hub_lists_is_corrupt(
    server: FakeHub, connect: Callable[..., Hub]
) -> None:
    hub = connect()
    found = hub.repository(REPO)
    files = dict(server.repositories[REPO].commits[str(found.revision)])
    server.put(repository(REPO, files | {"LICENSE": text_file("other one\n")}, commit=found.revision))
    assert trouble(lambda: hub.read(found, "LICENSE", limit_bytes=100)) is Trouble.CORRUPT


def test_a_server_that_lies_about_sizes_is_found_out(server: FakeHub, connect: Callable[..., Hub]) -> None:
    hub = connect()
    found = hub.repository(REPO)
    files = dict(server.repositories[REPO].commits[str(found.revision)])
    files["model.safetensors"] = safetensors_file({"BF16": 6000})
    server.put(repository(REPO, files, commit=found.revision))
    with pytest.raises(HubError, match=r"the Hub lists .* bytes and serves"):
        hub.safetensors_header(found, "model.safetensors")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 8, b"\xff" * 16, (3).to_bytes(8, "little") + b"abc", (40).to_bytes(8, "little") + b"{}"],
)
def test_a_header_that_is_none_is_corrupt(
    content: bytes, server: FakeHub, connect: Callable[..., Hub]
) -> None:
    server.put(repository(REPO, {"model.safetensors": lfs_file(content)}))
    hub = connect()
    found = hub.repository(REPO)
    with pytest.raises(HubError):
        hub.safetensors_header(found, "model.safetensors")


def test_a_file_over_the_limit_is_not_asked_for(server: FakeHub, connect: Callable[..., Hub]) -> None:
    hub = connect()
    found = hub.repository(REPO)
    assert trouble(lambda: hub.read(found, "LICENSE", limit_bytes=5)) is Trouble.TOO_LARGE
    assert len(server.requests) == 1


def test_an_answer_larger_than_any_list_of_files_is_not_taken(
    server: FakeHub, connect: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaito_catalog.hub.client.ANSWER_LIMIT_BYTES", 100)
    assert trouble(lambda: connect().repository(REPO)) is Trouble.TOO_LARGE


def test_an_endpoint_that_is_no_web_address_is_refused() -> None:
    with pytest.raises(CatalogError, match="HF_ENDPOINT is 'file:///etc', which is not a web address"):
        Hub(endpoint="file:///etc")


# --- our own Hub, asked by the real client


def test_the_tree_comes_in_pages(server: FakeHub) -> None:
    server.put(repository(REPO, {f"f{number:03}.txt": text_file(str(number)) for number in range(25)}))
    server.page_size = 10
    found = list(HfApi(endpoint=server.endpoint, token=False).list_repo_tree(REPO, recursive=True))
    assert len(found) == 25
    assert len(server.requests) == 3


def test_branches_are_listed(server: FakeHub) -> None:
    refs = HfApi(endpoint=server.endpoint, token=False).list_repo_refs(REPO)
    assert [(b.name, b.target_commit) for b in refs.branches] == [
        ("main", server.repositories[REPO].refs["main"])
    ]


def test_expand_cannot_be_combined_with_file_metadata(server: FakeHub) -> None:
    info = HfApi(endpoint=server.endpoint, token=False).model_info(REPO, expand=["downloads", "gated"])
    assert (info.downloads, info.gated, info.siblings) == (1000, False, None)


def test_the_client_can_download_from_it(server: FakeHub, tmp_path: object) -> None:
    path = HfApi(endpoint=server.endpoint, token=False).hf_hub_download(
        REPO, "model.safetensors", local_dir=str(tmp_path)
    )
    with open(path, "rb") as stream:
        assert (
            len(stream.read())
            == server.repositories[REPO]
            .commits[server.repositories[REPO].refs["main"]]["model.safetensors"]
            .size_bytes
        )


# --- names and headers


@pytest.mark.parametrize(
    "name", ["a", "a/b.json", "a b/ü.txt", ".gitattributes", "model-00001-of-00002.safetensors"]
)
def test_plain_relative_paths_are_safe(name: str) -> None:
    assert is_safe(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/../b", "./a", "a/", "C:x", "a\\b", "a\x00b", "a\u200bb", "x" * 501]
)
def test_other_names_are_not_and_can_be_shown(name: str) -> None:
    assert not is_safe(name)
    assert printable(name).isprintable()


def test_offsets_that_contradict_the_size_are_refused() -> None:
    header = b'{"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}'
    assert parse_header(header, size_bytes=8 + len(header) + 8).parameters_by_dtype == {"BF16": 4}
    with pytest.raises(ValueError, match="speaks of"):
        parse_header(header, size_bytes=9999)


def test_two_fp4_weights_share_a_byte() -> None:
    assert tensor_bytes({"F4": 10, "BF16": 3}) == 11
    assert tensor_bytes({"F99": 1}) is None


# --- vLLM's choice


GPT_OSS = [
    "config.json",
    "metal/model.bin",
    "model-00000-of-00002.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "original/config.json",
    "original/model.safetensors",
]


def test_gpt_oss_is_taken_without_original() -> None:
    assert index_to_read(GPT_OSS) == "model.safetensors.index.json"
    choice = choose_weights(GPT_OSS, GPT_OSS[2:5])
    assert choice is not None
    assert (choice.format, choice.downloaded) == ("safetensors", tuple(GPT_OSS[2:5]))


def test_without_an_index_a_second_copy_below_original_is_downloaded_and_not_loaded() -> None:
    # fnmatch's original/**/* does not match a file directly in original/; vLLM 0.25 to 0.33 downloads it.
    choice = choose_weights(["model.safetensors", "original/model.safetensors", "original/a/b.safetensors"])
    assert choice is not None
    assert choice.downloaded == ("model.safetensors", "original/model.safetensors")
    assert choice.loaded == ("model.safetensors",)


def test_a_complete_set_of_shards_needs_no_index() -> None:
    shards = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    assert index_to_read([*shards, "model.safetensors.index.json"]) is None
    assert index_to_read([*shards[:2], "model.safetensors.index.json"]) is not None


def test_consolidated_weights_make_it_mistrals_format() -> None:
    paths = ["config.json", "consolidated.safetensors", "model-00001-of-00001.safetensors", "params.json"]
    choice = choose_weights(paths)
    assert choice is not None
    assert (choice.format, choice.downloaded) == ("mistral", ("consolidated.safetensors",))


def test_safetensors_are_preferred_to_pickles() -> None:
    choice = choose_weights(["model.safetensors", "pytorch_model.bin", "consolidated.00.pth"])
    assert choice is not None
    assert choice.downloaded == ("model.safetensors",)


def test_pickles_are_taken_where_there_is_nothing_else_and_training_state_is_not_loaded() -> None:
    choice = choose_weights(["pytorch_model.bin", "training_args.bin"])
    assert choice is not None
    assert (choice.format, choice.loaded) == ("pickle", ("pytorch_model.bin",))


def test_a_repository_without_weights_has_no_choice() -> None:
    assert choose_weights(["README.md"]) is None
    gguf = choose_weights(["a.gguf"])
    assert gguf is not None
    assert gguf.format == "gguf"
