"""What is kept of a log line: no tokens, keys or passwords, no folders of somebody's machine, no addresses of hosts."""

from __future__ import annotations

import re

from kaito_catalog.vllm_bridge.logs import without_paths

_CONFIDENTIAL = (
    r"(?:[\w-]*(?:api|access|secret|private|account|auth|encryption|signing)[_-]?key|[\w-]*(?:secret"
    r"|passw(?:or)?d|passphrase)"
    r"|[\w-]*credentials?|[\w-]*connection[_-]?string|(?:hf|hub|huggingface(?:hub)?|access|auth|bearer"
    r"|api|id|refresh|session|sas"
    r"|github|gitlab|ngc|wandb)?[_-]?(?:hub)?[_-]?token|watermark[_-]config|authorization|cookie)"
)
# The value may be quoted, in a list, or bare up to the next blank, comma or bracket.
_NAMED = re.compile(
    rf"(?i)(?<![A-Za-z0-9])(['\"]?{_CONFIDENTIAL}['\"]?\s*(?:=|:)\s*|--{_CONFIDENTIAL}[ =]\s*)"
    r"(?!None\b|null\b|True\b|False\b)"
    r"(\[[^\]]*\]?|\{[^}]*\}?|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|(?:Bearer|Basic)\s+\S+|[^\s,;)\]}]+)"
)
_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}|\bapi_org_[A-Za-z0-9]{8,}|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}|\bgh[pousr]_[A-Za-z0-9]{16,}"
    r"|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bnvapi-[\w-]{16,}|\bxox[abprs]-[\w-]{8,}|\bA[KS]IA[A-Z0-9]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|\bBearer\s+[\w.~+/=-]{8,}|-----BEGIN [^-]+-----.*"
)
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]+@")
_QUERY_OF_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]+)\?[^\s'\",)]*")
_HOST = re.compile(
    r"\b(?:tcp|grpc|zmq|http|https|redis|lm)://(?!(?:docs\.vllm\.ai|github\.com|huggingface\.co"
    r"|hf\.co)[/'\" ])[^\s'\",)]+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
)
_WINDOWS_FOLDER = re.compile(r"\b[A-Za-z]:\\(?:[^\\\s'\"]+\\)+")
_HOME = re.compile(r"(?<![\w/])~[\w.-]*/(?:[\w.+@-]+/)*")
HIDDEN = "***"


def without_secrets(text: str) -> str:
    """`text` with everything hidden that looks like a secret, or stands behind a name of one."""
    text = _USER_IN_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _QUERY_OF_ADDRESS.sub(rf"\1?{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def kept(text: str) -> str:
    """`text` as evidence may keep it."""
    text = _HOST.sub("…", without_secrets(text))
    return without_paths(_HOME.sub("…/", _WINDOWS_FOLDER.sub("…/", text)))


def is_private_option(name: str) -> bool:
    """Whether an option says a secret, or where something lies or listens, and nothing about a start."""
    return name in _WHERE or re.fullmatch(f"(?i){_CONFIDENTIAL}", name) is not None


_WHERE = frozenset(
    [
        "host",
        "port",
        "uds",
        "headless",
        "api-key",
        "hf-token",
        "root-path",
        "middleware",
        "ssl-keyfile",
        "ssl-certfile",
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "ssl-ciphers",
        "enable-ssl-refresh",
        "allowed-origins",
        "allowed-methods",
        "allowed-headers",
        "allow-credentials",
        "uvicorn-log-level",
        "allowed-local-media-path",
        "allowed-media-domains",
        "download-dir",
        "log-config-file",
        "config",
        "otlp-traces-endpoint",
        "master-addr",
        "master-port",
        "data-parallel-address",
        "data-parallel-rpc-port",
        "watermark-config",
        "request-id-headers",
        "dispatch-function",
        "subparser",
        "func",
        "log-level",
        "node-ip",
    ]
)
