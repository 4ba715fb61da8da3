"""Which licence a LICENSE file holds, and what follows where the card names another, several or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalog_helpers import Run

from kaito_catalog.catalog.reading import read_entry
from kaito_catalog.hub.fake.files import json_file, safetensors_file, text_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.hub.license_texts import license_of_text

APACHE = (Path(__file__).parents[1] / "LICENSE").read_text()
MIT = """MIT License

Copyright (c) 2026 Example

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
ONE_MORE_CLAUSE = MIT + "\nOur only change is that the name of the model has to be shown to a user.\n"
REPO = "example-org/Example-1B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "mit"),
        (MIT.replace("\n", "\r\n   "), "mit"),
        (MIT.replace("sublicense, ", ""), None),
        (ONE_MORE_CLAUSE, None),
        (APACHE, "apache-2.0"),
        (APACHE.replace("END OF TERMS AND CONDITIONS", ""), "apache-2.0"),
        (APACHE.replace("royalty-free", "royalty-bearing"), None),
        ("LLAMA 3.3 COMMUNITY LICENSE AGREEMENT\n" + "terms " * 400, "llama3.3"),
        ("See the LLAMA 3.3 COMMUNITY LICENSE AGREEMENT", None),
        ("", None),
    ],
    ids=[
        "MIT",
        "MIT on other lines",
        "MIT without a right",
        "MIT and a clause",
        "Apache",
        "Apache without its last line",
        "Apache with another word",
        "a title over a long text",
        "a mention",
        "nothing",
    ],
)
def test_a_text_is_a_licence_word_for_word_or_none(text: str, expected: str | None) -> None:
    assert license_of_text(text) == expected


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def put(server: FakeHub, card: str, license_text: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    server.put(
        repository(
            REPO,
            {
                "README.md": text_file(f"---\nlicense: {card}\n---\n"),
                "LICENSE": text_file(license_text),
                "config.json": json_file(config),
                "model.safetensors": safetensors_file({"BF16": 1000}),
            },
            license=card,
        )
    )


@pytest.mark.models("phi-4")
@pytest.mark.parametrize(
    ("card", "text", "gap"),
    [
        ("mit", APACHE, "the card says mit, the LICENSE file is the text of apache-2.0"),
        ("unknown", "", "the model's card says that its licence is unknown"),
        ("mit, cc-by-nc-4.0", "", "the card lists mit and cc-by-nc-4.0: join them by AND where all hold"),
    ],
    ids=["another text", "unknown", "several"],
)
def test_a_licence_in_doubt_is_left_to_a_person(
    card: str, text: str, gap: str, server: FakeHub, here: Path, run: Run
) -> None:
    put(server, card, text)
    code, out, _ = run("new", REPO)
    assert code == 0
    assert f"to do: summary.license.id: {gap}" in out
    entry = read_entry(here / "catalog/models/example-1b")
    assert entry.proposal is not None
    assert entry.proposal.license_id is None


@pytest.mark.models("phi-4")
@pytest.mark.parametrize(
    ("card", "claimed", "state", "finding"),
    [
        (
            "mit",
            "mit",
            "unknown",
            "warning[LIC005] the card says mit, the LICENSE file is the text of apache-2.0",
        ),
        ("mit, cc-by-nc-4.0", "mit", "wrong", "error[LIC001] the card on the Hub lists mit and cc-by-nc-4.0"),
        ("mit, cc-by-nc-4.0", "MIT OR CC-BY-NC-4.0", "proven", ""),
        ("unknown", "unknown", "wrong", "error[LIC002] 'unknown' names no licence"),
    ],
)
def test_check_counts_no_licence_in_doubt_as_proven(
    card: str, claimed: str, state: str, finding: str, server: FakeHub, here: Path, run: Run
) -> None:
    put(server, card, APACHE if card == "mit" else "")
    run("new", REPO)
    path = here / "catalog/models/example-1b/proposal.yaml"
    lines = path.read_text().splitlines(keepends=True)
    lines = [f"    id: {claimed}\n" if line.startswith("    id: TBD") else line for line in lines]
    path.write_text("".join(lines))
    report = json.loads(run("check", "example-1b", "--format", "json")[1])
    _, text, _ = run("check", "example-1b")
    assert report["models"][0]["claims"]["summary.license.id"] == state
    assert finding in text
    assert ("LIC" in text) == bool(finding)
