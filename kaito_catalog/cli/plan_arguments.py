"""The arguments of `plan`: the model, where it is planned, who starts it, and vLLM's options.

Nothing heavy is imported here; see `arguments`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kaito_catalog.cli.kinds_of_words import (
    capability,
    gibibytes,
    own_price,
    positive,
    variable,
    word,
)
from kaito_catalog.memory.options import PLANNED


def _add_engine_options(plan: argparse.ArgumentParser) -> None:
    """vLLM's options that plans read, and what describes a drafter that one of them names."""
    for option in PLANNED:
        if option.negation is not None:
            toggle = argparse.BooleanOptionalAction
            plan.add_argument(f"--{option.name}", action=toggle, default=None, help=option.help)
        elif option.kind.metavar is None:
            plan.add_argument(f"--{option.name}", action="store_true", default=None, help=option.help)
        else:
            kind = word(option.kind.parse)
            plan.add_argument(f"--{option.name}", metavar=option.kind.metavar, type=kind, help=option.help)
    plan.add_argument(
        "--draft-config",
        metavar="PATH",
        help="the config.json of the drafter that --speculative-config names",
    )


def add_plan(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`plan`."""
    plan = command(
        "plan",
        "plan.run_plan",
        "plan GPU memory: one GPU in detail, or every instance type",
        "  kaito-catalog plan phi-4\n"
        "  kaito-catalog plan llama-3.3-70b-instruct --instance-type Standard_ND96isr_H100_v5\n"
        "  kaito-catalog plan meta-llama/Llama-3.3-70B-Instruct --gpu 'NVIDIA H100 80GB' --gpu-count 4\n"
        "  kaito-catalog plan ./my-model --gpu-memory 22 --max-model-len 8192 --format json\n"
        "  kaito-catalog plan phi-4 --gpu a10 --gpu-count 2 --engine vllm -- -tp 2 --kv-cache-dtype fp8\n"
        "  kaito-catalog plan phi-4 --instance-type Standard_NC24ads_A100_v4 --command\n"
        "  kaito-catalog plan --from compose.yaml --gpu h100\n"
        "  kaito-catalog plan phi-4 --users 50 --cloud azure --manifest\n"
        "\n"
        "What follows -- is vllm serve's own command line; it wins, as the values of a ConfigMap do.\n",
    )
    plan.add_argument(
        "model",
        metavar="NAME|REPO_ID|DIR|FILE.md",
        nargs="?",
        help="a model, a folder with a config.json, or KAITO's Markdown proposal",
    )
    plan.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="a vllm serve line, a compose file, a manifest or a Markdown proposal to plan; - reads what is pasted",
    )
    _add_where(plan)
    _add_prices(plan)
    _add_start(plan)
    plan.add_argument("--max-model-len", metavar="N", type=positive, help="default: the proposal's context")
    _add_engine_options(plan)
    plan.add_argument("--tensor-parallel-size", metavar="N", type=positive)
    plan.add_argument("--pipeline-parallel-size", metavar="N", type=positive, default=1)
    plan.add_argument("--data-parallel-size", metavar="N", type=positive, default=1)
    plan.add_argument("--enable-expert-parallel", action="store_true")
    plan.add_argument(
        "--weights-bytes", metavar="N", type=positive, help="stored size of the weights, when known"
    )
    plan.add_argument("--vllm-version", metavar="V", help="default: the profile's")
    plan.add_argument(
        "--env",
        metavar="NAME=VALUE",
        type=variable,
        action="append",
        default=[],
        help="a variable of vLLM's environment, such as VLLM_PP_LAYER_PARTITION=16,32, with --engine vllm",
    )
    plan.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")
    plan.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    plan.add_argument(
        "--exact", action="store_true", help="ask vLLM's own code (needs an environment with vLLM)"
    )
    plan.add_argument("--record", action="store_true", help="with --exact: write it to the entry's evidence/")
    plan.add_argument("--vllm-python", metavar="PATH", help="the Python that has vLLM (default: .venv-vllm)")


def _add_where(plan: argparse.ArgumentParser) -> None:
    """Where `plan` plans."""
    plan.add_argument("--instance-type", metavar="T", help="such as Standard_NC24ads_A100_v4")
    plan.add_argument(
        "--cloud",
        choices=("azure", "aws", "arc", "gcp", "all"),
        help="default: those whose nodes KAITO makes",
    )
    plan.add_argument(
        "--gpu", metavar="NAME", help="a GPU of gpus.yaml, such as 'NVIDIA A10', or h100, 4090 …"
    )
    plan.add_argument("--gpu-memory", metavar="GIB", type=gibibytes, help="total as the driver reports it")
    plan.add_argument(
        "--gpu-memory-used", metavar="GIB", type=gibibytes, help="what other processes hold of each GPU"
    )
    plan.add_argument(
        "--compute-capability",
        metavar="X",
        type=capability,
        help="of a GPU that gpus.yaml lacks, such as 8.9",
    )
    plan.add_argument(
        "--gpu-count", metavar="N", type=positive, help="GPUs of a node (default: the type's, else one)"
    )
    plan.add_argument(
        "--node-count", metavar="N", type=positive, help="nodes (default: as many as KAITO starts)"
    )


def _add_prices(plan: argparse.ArgumentParser) -> None:
    """What the instance types cost, and how many replicas are paid for."""
    plan.add_argument(
        "--sort",
        choices=("size", "price"),
        help="instance types by GPU memory or by price an hour, least first (default: size; with --users: price)",
    )
    plan.add_argument(
        "--region", metavar="R", help="whose prices, such as westeurope (default: each type's cheapest)"
    )
    plan.add_argument(
        "--price",
        metavar="TYPE=USD",
        type=own_price,
        action="append",
        default=[],
        help="what an hour of an instance type costs you, in place of the list price; may be given again",
    )
    plan.add_argument(
        "--users",
        metavar="N",
        type=positive,
        help="requests of the whole context at once: how many replicas that takes, an hour and a month",
    )


def _add_start(plan: argparse.ArgumentParser) -> None:
    """Who starts vLLM, and what is printed of it."""
    plan.add_argument(
        "--engine",
        choices=("kaito", "vllm"),
        help="who starts vLLM: the profile's KAITO, or plain vllm serve (default: kaito, or as --from says)",
    )
    plan.add_argument(
        "--command", action="store_true", help="print the command line that is planned, to paste"
    )
    plan.add_argument(
        "--manifest",
        action="store_true",
        help="print what to apply to have KAITO start it: a Workspace, with --users an InferenceSet with its replicas",
    )
    plan.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 0 where it fits, 1 where it does not, 3 where that is not sure",
    )


def add_diagnose(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`diagnose`."""
    diagnose = command(
        "diagnose",
        "diagnose.run_diagnose",
        "say why a start failed or will, what to change, and where its log and the plan disagree",
        "  kubectl logs --previous phi-4-0 | kaito-catalog diagnose -\n"
        "  kaito-catalog diagnose vllm.log --gpu a100-80gb\n"
        "  kaito-catalog diagnose workspace.yaml                   what it will come to, before it is applied\n"
        "\n"
        "Exits with 0 where nothing failed, 1 where it is told what, 3 where that is not known,\n"
        "and 2 where no start is read.\n",
    )
    diagnose.add_argument(
        "file", metavar="FILE", help="a log, a manifest or a vllm serve line; - is standard input"
    )
    diagnose.add_argument(
        "--model", metavar="NAME|REPO_ID|DIR", help="what was started (default: what the file names)"
    )
    diagnose.add_argument("--instance-type", metavar="T", help="where it was started")
    diagnose.add_argument(
        "--gpu", metavar="NAME", help="the GPU, such as h100 (default: what the file names)"
    )
    diagnose.add_argument(
        "--gpu-memory",
        metavar="GIB",
        type=gibibytes,
        help="total as the driver reports it (default: the log's)",
    )
    diagnose.add_argument("--gpu-count", metavar="N", type=positive, help="GPUs (default: the file's)")
    diagnose.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")
    diagnose.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
