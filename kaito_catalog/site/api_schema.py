"""JSON Schema (draft-07) of the API's files, written by hand: v1 gains keys and never loses one."""

from __future__ import annotations

import json
from typing import Any, get_args

from kaito_catalog.formats.proposal import Status

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
SIZE: Schema = {"type": "integer", "minimum": 0, "description": "Bytes."}


def _or_null(schema: Schema) -> Schema:
    """Null means unknown."""
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


FITS: Schema = {
    "enum": ["yes", "tight", "no", "unknown"],
    "description": "`tight`: fits, or does not, by less than the plan's expected error.",
}
SITE_API_VERSION_SCHEMA: Schema = {"const": "v1"}

SUMMARY: dict[str, Schema] = {
    "name": {**STRING, "description": "The folder in the catalog."},
    "repoId": {**STRING, "description": "The repository on the Hub."},
    "family": STRING,
    "task": {**STRING, "description": "The Hub's pipeline tag."},
    "license": {**_or_null(STRING), "description": "An SPDX id, else the Hub's own."},
    "status": {"enum": list(get_args(Status))},
    "proof": {"enum": ["measured", "exact", "recorded", "transcribed", "claimed"]},
    "revision": _or_null({**STRING, "pattern": "^[0-9a-f]{40}$"}),
    "weightsBytes": _or_null(SIZE),
    "weightsPrecisionBytes": {
        **_or_null(SIZE),
        "description": "By how much a rounded `weightsBytes` may be off.",
    },
    "contextLimit": {**_or_null(WHOLE), "description": "Tokens, the model's own limit."},
    "smallestInstanceType": _or_null(STRING),
    "smallestInstanceTypes": {
        "type": "object",
        "additionalProperties": STRING,
        "description": "By cloud: azure, aws, gcp, arc.",
    },
    "smallestInstanceTypeContext": _or_null(WHOLE),
}

CLAIMED_SIZE = _or_null(_object({"text": STRING, "bytes": SIZE}))

PRICE = _or_null(
    _object(
        {
            "anHour": {"type": "number", "description": "One machine, on demand."},
            "currency": STRING,
            "region": {**STRING, "description": "The cheapest of those that are recorded."},
            "date": {**STRING, "description": "When the cloud listed it."},
            "source": STRING,
        }
    )
)
INSTANCE_TYPE = _object(
    {
        "name": STRING,
        "cloud": STRING,
        "gpu": STRING,
        "gpuCount": WHOLE,
        "fits": FITS,
        "limitedBy": _or_null(STRING),
        "reason": _or_null(STRING),
        "parallelism": _or_null(STRING),
        "nodes": WHOLE,
        "weightsBytesPerGPU": _or_null(SIZE),
        "kvCacheNeededBytesPerGPU": _or_null(SIZE),
        "neededBytesPerGPU": _or_null(SIZE),
        "budgetBytesPerGPU": _or_null(SIZE),
        "longestModelLen": _or_null(WHOLE),
        "price": PRICE,
    }
)
MATRIX = _object(
    {
        "contexts": _list(WHOLE),
        "rows": _list(
            _object(
                {
                    "instanceTypes": _list(STRING),
                    "gpu": STRING,
                    "gpuCount": WHOLE,
                    "parallelism": _or_null(STRING),
                    "fits": _list(FITS),
                    "limitedBy": _list(_or_null(STRING)),
                }
            )
        ),
    }
)
MEMORY = _object(
    {
        "instanceType": STRING,
        "budgetBytesPerGPU": SIZE,
        "weightsBytesPerGPU": SIZE,
        "overheadsBytesPerGPU": SIZE,
        "kvCacheBytesPerGPU": {
            **_list({"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}),
            "description": "Context in tokens, bytes of one request.",
        },
    }
)
CHOICE = _object(
    {
        "name": STRING,
        "cloud": STRING,
        "gpu": STRING,
        "gpuCount": WHOLE,
        "tensorParallelSize": WHOLE,
        "spareBytesPerGPU": WHOLE,
        "maxConcurrency": {"type": "number"},
        "longestModelLen": WHOLE,
        "reason": STRING,
        "price": PRICE,
    }
)
RECOMMENDED = {
    "maxModelLen": WHOLE,
    "smallest": _or_null(CHOICE),
    "withHeadroom": _or_null(CHOICE),
    "cheapest": _or_null(CHOICE),
}
KAITO: Schema = {
    "anyOf": [
        _object({"release": STRING, "unknown": STRING}),
        _object(
            {
                "release": STRING,
                "maxModelLen": _or_null(WHOLE),
                "options": _list(
                    _object(
                        {
                            "option": STRING,
                            "value": _or_null(STRING),
                            "because": STRING,
                            "declared": _or_null(STRING),
                        }
                    )
                ),
                "instanceTypes": _list(
                    _object(
                        {
                            "name": STRING,
                            "cloud": STRING,
                            "nodes": {
                                **_or_null(WHOLE),
                                "description": "null where KAITO's formula finds no room.",
                            },
                            "tensorParallelSize": WHOLE,
                            "pipelineParallelSize": WHOLE,
                            "dataParallelSize": WHOLE,
                            "illegal": _or_null(STRING),
                        }
                    )
                ),
                "cacheIsReplicated": _or_null({"type": "boolean"}),
                "start": {
                    **_or_null(
                        _object(
                            {
                                "engine": STRING,
                                "command": _list(STRING),
                                "environment": {"type": "object", "additionalProperties": STRING},
                                "startUpMinutes": WHOLE,
                            }
                        )
                    ),
                    "description": "How KAITO starts vLLM with the generated manifests; null where that is unknown.",
                },
            }
        ),
    ],
    "description": "What KAITO itself would do.",
}
PLAN = _object(
    {
        "profile": STRING,
        "vllmVersion": STRING,
        "maxModelLen": WHOLE,
        "options": _list(STRING),
        "unknown": _or_null(STRING),
        "recommended": _or_null(
            _object(
                {**RECOMMENDED, "byCloud": {"type": "object", "additionalProperties": _object(RECOMMENDED)}}
            )
        ),
        "instanceTypes": _list(INSTANCE_TYPE),
        "matrix": MATRIX,
        "memory": _or_null(MEMORY),
    },
    optional=("profile", "vllmVersion", "maxModelLen", "options", "recommended", "matrix", "memory"),
)
MODEL = _object(
    {
        "apiVersion": SITE_API_VERSION_SCHEMA,
        **SUMMARY,
        "description": _or_null(STRING),
        "gated": _or_null({"enum": ["no", "auto", "manual", "yes"]}),
        "facts": _or_null(
            _object(
                {
                    "source": {"enum": ["hub", "local", "transcribed"]},
                    "recordedAt": STRING,
                    "revision": _or_null(STRING),
                    "license": _or_null(STRING),
                    "architectures": _or_null(_list(STRING)),
                }
            )
        ),
        "claims": _object(
            {
                "version": _or_null(STRING),
                "storageSize": CLAIMED_SIZE,
                "gpuCount": _or_null(WHOLE),
                "totalGPUMemory": CLAIMED_SIZE,
                "perGPUMemory": CLAIMED_SIZE,
                "contextLength": _or_null(WHOLE),
                "notes": {"type": "object", "additionalProperties": STRING},
            }
        ),
        "plan": _or_null(PLAN),
        "kaito": KAITO,
        "manifests": {
            "type": "object",
            "additionalProperties": STRING,
            "description": "File name to YAML.",
        },
        "notGenerated": {**_or_null(STRING), "description": "Why there are no manifests."},
        "findings": _or_null(
            _list(
                _object(
                    {
                        "code": STRING,
                        "severity": {"enum": ["error", "warning", "note"]},
                        "message": STRING,
                        "waived": _or_null(STRING),
                    }
                )
            )
        ),
    }
)
INDEX = _object({"apiVersion": SITE_API_VERSION_SCHEMA, "models": _list(_object(SUMMARY))})

GROUP: Schema = {"type": "array", "minItems": 5, "maxItems": 6}
REFUSAL = _object({"fits": FITS, "limitedBy": _or_null(STRING), "reason": _or_null(STRING)})
FRAMES = _object({"count": WHOLE, "reckonedBytes": SIZE, "bytesPerFrame": SIZE, "peakBytes": SIZE})
ACCOUNT = _object(
    {
        "weightsBytes": SIZE,
        "nonTorchBytes": SIZE,
        "activationPeakBytes": SIZE,
        "peakPerTokenBytes": SIZE,
        "peakAtLimitBytes": SIZE,
        "peakFrom": {
            **_list({"type": "array", "items": SIZE, "minItems": 2, "maxItems": 2}),
            "description": "Contexts from which on a longer video is profiled, and the peak there.",
        },
        "peakOfFrames": _or_null(FRAMES),
        "cudaGraphBytes": SIZE,
        "weightsErrorBytes": SIZE,
    }
)
LAYOUT = _object(
    {
        "blockBytes": SIZE,
        "checkBytes": _or_null(SIZE),
        "reservedBytes": SIZE,
        "bytesPerToken": SIZE,
        "groups": {
            **_list(GROUP),
            "description": "Kind, tokens of a block, window, blocks of a state, bytes of a page.",
        },
        "layers": {**_list(GROUP), "description": "As `groups`, and how many layers."},
    }
)
START = _object({"gpu": STRING, "gpuCount": WHOLE})
COEFFICIENTS: Schema = {
    "anyOf": [
        _object(
            {
                "name": STRING,
                "repoId": STRING,
                "unknown": STRING,
                "context": _or_null(WHOLE),
                "start": _or_null(START),
            },
        ),
        _object(
            {
                "name": STRING,
                "repoId": STRING,
                "context": _or_null(WHOLE),
                "start": {**_or_null(START), "description": "The smallest instance type that fits."},
                "maxModelLen": WHOLE,
                "hasTower": {"type": "boolean"},
                "tensorParallel": {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [STRING, _object({"accounts": _list(WHOLE), "layouts": _list(WHOLE)})]
                    },
                    "description": "By number of GPUs: why vLLM refuses, or for each device class positions "
                    "in accounts and in layoutsByDtype.",
                },
                "accounts": _list({"anyOf": [ACCOUNT, REFUSAL]}),
                "layoutsByDtype": {
                    **_list(_list(WHOLE)),
                    "description": "For each cache dtype a position in layouts.",
                },
                "layouts": _list({"anyOf": [LAYOUT, REFUSAL]}),
            }
        ),
    ]
}
PLAN_DATA = _object(
    {
        "apiVersion": SITE_API_VERSION_SCHEMA,
        "profile": STRING,
        "vllmVersion": STRING,
        "shortestModelLen": WHOLE,
        "mostGPUs": WHOLE,
        "beforeVllmBytes": {
            **WHOLE,
            "description": "What CUDA takes at most before vLLM looks at what is free.",
        },
        "cacheDtypes": _list(STRING),
        "deviceClasses": _list(
            _object(
                {
                    "gpu": {**STRING, "description": "One of that kind."},
                    "computeCapability": {"type": ["number", "null"]},
                    "maxNumSeqs": WHOLE,
                    "maxNumBatchedTokens": WHOLE,
                    "inFlightTokens": WHOLE,
                }
            )
        ),
        "gpus": _list(
            _object(
                {
                    "name": STRING,
                    "memoryBytes": SIZE,
                    "utilization": {"type": "number"},
                    "deviceClass": WHOLE,
                    "expectedErrorBytes": {
                        **_list(_list(SIZE)),
                        "description": "Without and with a vision tower; on one GPU and on several.",
                    },
                }
            )
        ),
        "instanceTypes": _list(_object({"name": STRING, "cloud": STRING, "gpu": STRING, "gpuCount": WHOLE})),
        "models": _list(COEFFICIENTS),
    }
)

SCHEMAS: dict[str, tuple[str, Schema]] = {
    "api-index": ("The catalog: api/v1/index.json", INDEX),
    "api-model": ("One model: api/v1/models/<name>.json", MODEL),
    "api-plan-data": ("What the calculator adds up: api/v1/plan-data.json", PLAN_DATA),
}
"""The name of each schema file: its title, and the schema."""


def json_schema(name: str) -> Schema:
    """The draft-07 schema of that name."""
    title, schema = SCHEMAS[name]
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title, **schema}


def files() -> dict[str, str]:
    """Every schema file: name to text."""
    return {
        f"{name}.schema.json": json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"
        for name in SCHEMAS
    }
