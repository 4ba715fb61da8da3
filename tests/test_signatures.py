"""A repository against its signature: what was signed, by whom, and every way in which the files may differ from it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_helpers import Run

from kaito_catalog.cli import signature as command
from kaito_catalog.errors import CatalogError
from kaito_catalog.formats.policy import Signer
from kaito_catalog.hub.fake.files import FakeFile, json_file, lfs_file, text_file
from kaito_catalog.hub.fake.repositories import repository
from kaito_catalog.hub.fake.server import FakeHub
from kaito_catalog.hub.signatures import SIGNATURE, UnreadableSignatureError, payload_of, signed_files
from kaito_catalog.hub.signers import BadSignatureError, Verified, verify

REPO = "example-org/Example-1B"
ME = Signer(identity="me@example.org", issuer="https://accounts.example.org")
FILES = {
    "config.json": json_file({"model_type": "llama"}),
    "model.safetensors": lfs_file(b"weights", size_bytes=2 * 10**9),
    ".gitattributes": text_file("*.safetensors filter=lfs\n"),
}
SIGNED = ("config.json", "model.safetensors")


def statement(files: dict[str, str], **changes: Any) -> dict[str, Any]:
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in files.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "example", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "ignore_paths": ["model.sig", "notes"],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in files.items()
            ],
        },
        **changes,
    }


def digests(**changes: str) -> dict[str, str]:
    return {path: FILES[path].sha256 for path in SIGNED} | changes


def bundle(value: Any) -> bytes:
    payload = base64.b64encode(json.dumps(value).encode()).decode()
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": []}
    return json.dumps({"dsseEnvelope": envelope, "verificationMaterial": {"certificate": {}}}).encode()


# --- what was signed


def test_a_statement_names_files_and_what_the_signer_left_out() -> None:
    found = signed_files(json.dumps(statement(digests())).encode())
    assert found.files == digests()
    assert found.ignored == ("model.sig", "notes")


def test_the_form_of_before_version_1_is_read() -> None:
    value = {
        "predicateType": "https://model_signing/Digests/v0.1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests().items()],
    }
    assert signed_files(json.dumps(value).encode()).files == digests()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "has not the form of one"),
        ({"predicateType": "https://example.org/other"}, "states https://example.org/other"),
        (statement(digests(), subject=[{"digest": {"sha256": "0" * 64}}]), "are not those of its subject"),
        (statement({"../up": "0" * 64}), "names '../up', which is no file"),
        (statement({}), "covers 0 files"),
        (
            statement(digests(), predicate={"serialization": {"method": "shards", "hash_type": "sha256"}}),
            "hashes shards with sha256",
        ),
    ],
)
def test_what_is_no_statement_about_a_model_is_refused(value: Any, why: str) -> None:
    with pytest.raises(UnreadableSignatureError, match=why):
        signed_files(json.dumps(value).encode())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"dsseEnvelope": {"payloadType": "text"}}']
)
def test_what_is_no_bundle_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableSignatureError):
        payload_of(content)
    with pytest.raises((UnreadableSignatureError, BadSignatureError)):
        verify(content, [ME])


def test_a_bundle_that_nobody_signed_is_not_verified() -> None:
    with pytest.raises((UnreadableSignatureError, BadSignatureError)):
        verify(bundle(statement(digests())), [ME])


def test_a_bare_key_says_nothing_of_who_holds_it() -> None:
    value = {"verificationMaterial": {"publicKey": {"hint": "x"}}}
    with pytest.raises(UnreadableSignatureError, match="signed with a key of its own"):
        verify(json.dumps(value).encode(), [ME])


# --- on the command line, with a verifier that takes what it is given


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    def taken(content: bytes, trusted: list[Signer]) -> Verified:
        return Verified(payload_of(content), ME, ME in trusted)

    monkeypatch.setattr(command, "verify", taken)
    with FakeHub([]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def put(server: FakeHub, signed: dict[str, str], **files: FakeFile) -> None:
    content = {**FILES, **{path.replace("__", "."): file for path, file in files.items()}}
    server.put(repository(REPO, {**content, SIGNATURE: text_file(bundle(statement(signed)))}))


AS_ME = ("--identity", ME.identity, "--issuer", ME.issuer)


@pytest.mark.models("phi-4", evidence=False)
def test_a_repository_is_what_was_signed_and_no_weights_are_downloaded(
    server: FakeHub, here: Path, run: Run
) -> None:
    put(server, digests())
    code, out, _ = run("signature", REPO, *AS_ME)
    assert code == 0
    assert "signed by me@example.org (https://accounts.example.org): as the policy asks" in out
    assert "2 files as signed" in out
    assert not any("model.safetensors" in request.path for request in server.requests)


@pytest.mark.models("phi-4", evidence=False)
@pytest.mark.parametrize(
    ("signed", "files", "what"),
    [
        (digests(**{"config.json": "0" * 64}), {}, "not what was signed: config.json"),
        (digests(**{"model.safetensors": "0" * 64}), {}, "not what was signed: model.safetensors"),
        (digests(**{"tokenizer.json": "0" * 64}), {}, "signed and not there: tokenizer.json"),
        (digests(), {"modeling__py": text_file("x")}, "there and not signed: modeling.py"),
    ],
)
def test_a_file_that_is_not_as_signed_is_named(
    signed: dict[str, str], files: dict[str, FakeFile], what: str, server: FakeHub, here: Path, run: Run
) -> None:
    put(server, signed, **files)
    code, out, _ = run("signature", REPO, *AS_ME)
    assert code == 1
    assert what in out


@pytest.mark.models("phi-4", evidence=False)
def test_what_the_signer_left_out_may_be_there(server: FakeHub, here: Path, run: Run) -> None:
    put(server, digests(), **{"notes/today__txt": text_file("x")})
    assert run("signature", REPO, *AS_ME)[0] == 0


@pytest.mark.models("phi-4", evidence=False)
def test_who_may_sign_is_the_policys_to_say(server: FakeHub, here: Path, run: Run) -> None:
    put(server, digests())
    code, out, err = run("signature", REPO)
    assert code == 1
    assert "unknown: nobody is named as a signer of this organisation" in out
    assert "`signers` in policy.yaml" in err
    policy = here / "catalog/policy.yaml"
    policy.write_text(
        f"{policy.read_text()}signers:\n  example-org:\n  - identity: {ME.identity}\n    issuer: {ME.issuer}\n"
    )
    assert run("signature", REPO)[0] == 0
    code, out, _ = run("signature", REPO, "--identity", "you@example.org", "--issuer", ME.issuer)
    assert code == 1
    assert "not one that is trusted" in out
    value = json.loads(run("signature", REPO, "--format", "json")[1])
    assert (value["verified"], value["signerIsTrusted"], value["files"]["agreeing"]) == (True, True, 2)


@pytest.mark.models("phi-4", evidence=False)
def test_a_repository_without_a_signature_is_not_verified(server: FakeHub, here: Path, run: Run) -> None:
    server.put(repository(REPO, FILES))
    code, out, err = run("signature", REPO, *AS_ME)
    assert (code, out) == (1, "")
    assert f"{REPO} has no model.sig at main: it is not signed" in err


@pytest.mark.models("phi-4", evidence=False)
def test_a_signature_that_does_not_hold_is_exit_code_1(
    server: FakeHub, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(content: bytes, trusted: list[Signer]) -> Verified:
        raise BadSignatureError("the signature does not hold: invalid signature")

    put(server, digests())
    monkeypatch.setattr(command, "verify", refuse)
    code, _, err = run("signature", REPO, *AS_ME)
    assert code == 1
    assert "the signature does not hold" in err


@pytest.mark.models("phi-4", evidence=False)
def test_an_identity_without_who_vouches_for_it_is_a_mistake(here: Path, run: Run) -> None:
    code, _, err = run("signature", REPO, "--identity", "me@example.org")
    assert code == 2
    assert "--identity and --issuer go together" in err


def test_without_sigstore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sigstore.errors", None)
    with pytest.raises(CatalogError, match="sigstore, which is not installed"):
        verify(b"{}", [ME])
