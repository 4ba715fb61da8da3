"""The arguments of every command, and the name of the function that runs it.

Nothing heavy is imported here, so that `--version`, `--help` and completion start as fast as Python itself.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

from kaito_catalog import __version__
from kaito_catalog.cli.kinds_of_words import number, port, positive, share
from kaito_catalog.cli.plan_arguments import add_diagnose, add_plan
from kaito_catalog.errors import visible

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing is not loaded for --version and --help
    from typing import NoReturn

USAGE = 2
"""The exit code of wrong arguments and of input that cannot be read."""
FORMATS = ("github", "json", "markdown", "sarif", "text")
"""What `check --format` takes: the keys of `reports.RENDERERS`, which would load every check."""


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class _Parser(argparse.ArgumentParser):
    """Says a wrong argument as every other error is said: the error and a hint, without ten lines of usage."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        if rest:  # said by the command's own parser, which knows its options
            self.error(f"there is no argument '{rest[0][:60]}' here")
        return found, rest

    def error(self, message: str) -> NoReturn:
        hint = f"see {self.prog} --help"
        if (wrong := re.search(r"'([^']*)'", message)) and (near := self._near(wrong[1], message)):
            hint = f"did you mean {near}? Otherwise {hint}"
        message = re.sub(
            r"^argument (?:COMMAND|ACTION): invalid choice: ('[^']*').*", r"there is no command \1", message
        )
        self.exit(USAGE, visible(f"error: {message}") + "\n" + visible(f"hint: {hint}") + "\n")

    def _near(self, wrong: str, message: str) -> str | None:
        names = [option for option in self._option_string_actions if option.startswith("--")]
        if re.match("argument (COMMAND|ACTION)", message):
            names = [name for action in self._actions for name in action.choices or ()]
        elif not wrong.startswith("--"):
            return None
        # Loaded here: no command needs it unless something is wrong.
        from kaito_catalog.near_names import nearest

        return nearest(wrong.partition("=")[0], names)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="kaito-catalog",
        description="Proposals of models for KAITO as data: check their claims, plan their memory, generate presets.",
        epilog="examples:\n"
        "  kaito-catalog check                                  every model of the catalog\n"
        "  kaito-catalog plan phi-4                             which instance types serve it\n"
        "  kaito-catalog import proposal.md --into /tmp/mine    a Markdown proposal as data\n"
        "  kaito-catalog explain STO001                         what a finding means\n",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"kaito-catalog {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: str, summary: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + examples,
            formatter_class=_Help,
        )
        sub.set_defaults(run=run)
        sub.add_argument(
            "--catalog",
            metavar="DIR",
            help="the catalog folder (default: found from the current folder upwards)",
        )
        return sub

    for add in (
        _add_check,
        _add_hub,
        _add_signature,
        _add_diff_and_import,
        add_plan,
        add_diagnose,
        _add_vllm,
        _add_generate,
        _add_explain_and_completion,
    ):
        add(command)
    return parser


def _add_check(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`check`."""
    check = command(
        "check",
        "check.run_check",
        "check the claims of proposals against facts and the memory plan",
        "  kaito-catalog check\n"
        "  kaito-catalog check phi-4 gemma-3-27b-it\n"
        "  kaito-catalog check /tmp/mine/llama-3.3-70b-instruct --format json\n"
        "  kaito-catalog check workspace.yaml params.yaml          KAITO's manifests, as they are\n"
        "  kaito-catalog check docs/proposals/*.md                 KAITO's Markdown proposals, in place\n"
        "  kaito-catalog check --select STO,MEM --require-all\n",
    )
    check.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="model, folder, proposal.yaml, KAITO's Markdown proposal or manifest (default: all)",
    )
    check.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    check.add_argument(
        "--select", action="append", default=[], metavar="CODES", help="only these codes or families"
    )
    check.add_argument(
        "--ignore", action="append", default=[], metavar="CODES", help="not these codes or families"
    )
    check.add_argument(
        "--changed-since", metavar="REV", help="only models whose folder changed; all when shared files did"
    )
    check.add_argument("--fix", action="store_true", help="mend what is mechanical first, and show it")
    check.add_argument("--require-all", action="store_true", help="a check that cannot be made is an error")
    check.add_argument(
        "--profile", metavar="NAME", help="KAITO release of policy.yaml (default: its `profile`)"
    )
    check.add_argument("--verbose", action="store_true", help="list every skipped check with its place")
    check.add_argument(
        "--crds", metavar="DIR", help="also hold manifests against KAITO's own CRDs: its config/crd/bases"
    )
    check.add_argument("--online", action="store_true", help="compare the recorded facts with the Hub now")


def _add_hub(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`new`, `record`, `fake-hub`."""
    new = command(
        "new",
        "hub.run_new",
        "start a proposal from a repository of the Hub: every derivable field filled in and marked",
        "  kaito-catalog new microsoft/phi-4\n"
        "  HF_TOKEN=… kaito-catalog new meta-llama/Llama-3.3-70B-Instruct --author @someone\n",
    )
    new.add_argument("repo_id", metavar="REPO_ID", help="org/model, or the address of its page")
    new.add_argument(
        "--revision", metavar="R", help="commit, branch or tag (default: what main points to now)"
    )
    new.add_argument("--author", metavar="NAME", help="who proposes it, such as @someone (default: a gap)")
    new.add_argument("--into", metavar="DIR", help="where the folder goes (default: models/ of the catalog)")
    new.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")

    record = command(
        "record",
        "hub.run_record",
        "write facts.yaml: what the Hub, or a directory, says about the pinned revision",
        "  kaito-catalog record phi-4\n"
        "  kaito-catalog record                                    every model of the catalog\n"
        "  kaito-catalog record phi-4 --from-local /mirror/phi-4   without a network\n"
        "  kaito-catalog record phi-4 --accept                     after you have read the difference\n",
    )
    record.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
    record.add_argument(
        "--from-local", metavar="DIR", help="read a directory with the repository's files instead"
    )
    record.add_argument(
        "--revision", metavar="SHA", help="with --from-local: the commit, where DIR does not tell"
    )
    record.add_argument(
        "--accept", action="store_true", help="replace recorded facts that the Hub contradicts"
    )
    record.add_argument(
        "--all-headers", action="store_true", help="read the header of every weight file (a call each)"
    )
    record.add_argument(
        "--all-hashes", action="store_true", help="hash the small files too, for ModelPack (a call each)"
    )

    fake = command(
        "fake-hub",
        "hub.run_fake_hub",
        "serve repositories as the Hub does, on this machine, to try the commands without a network",
        "  kaito-catalog fake-hub                      the models of the catalog, from their facts\n"
        "  kaito-catalog fake-hub ./repositories       DIR/ORG/NAME/config.json …\n"
        "  HF_ENDPOINT=http://127.0.0.1:8000 kaito-catalog new microsoft/phi-4 --into /tmp/mine\n",
    )
    fake.add_argument("folder", nargs="?", metavar="DIR", help="default: the catalog's facts")
    fake.add_argument(
        "--port", type=port, default=8000, metavar="N", help="0 takes a free one (default: 8000)"
    )
    fake.add_argument("--limit", type=positive, metavar="N", help="API calls per 300 s, as the Hub's 500")


def _add_signature(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`signature`."""
    signature = command(
        "signature",
        "signature.run_signature",
        "verify a repository's model.sig (OpenSSF model signing) against the Hub's digests; no weights are downloaded",
        "  kaito-catalog signature phi-4\n"
        "  kaito-catalog signature ORG/MODEL@REVISION --identity me@example.org --issuer https://accounts.example.org\n",
    )
    signature.add_argument("model", metavar="NAME|REPO_ID", help="a model, or org/model on the Hub")
    signature.add_argument("--revision", metavar="R", help="commit, branch or tag (default: the pinned one)")
    signature.add_argument(
        "--identity", metavar="WHO", help="who has to have signed it (default: `signers` of policy.yaml)"
    )
    signature.add_argument("--issuer", metavar="URL", help="who vouches for the identity (OpenID Connect)")
    signature.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def _add_diff_and_import(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`diff`, `import`."""
    differ = command(
        "diff",
        "diff.run_diff",
        "say what a change or an upgrade means for what is served (Markdown)",
        "  kaito-catalog diff origin/main\n"
        "  kaito-catalog diff HEAD~1\n"
        "  kaito-catalog diff --profile kaito-v0.12..vllm-0.32     what another profile changes\n"
        "  kaito-catalog diff --vllm-version 0.25.1..0.32.0        what another vLLM alone changes\n",
    )
    differ.add_argument(
        "revision", metavar="REV", nargs="?", help="compare the files here with that commit's"
    )
    differ.add_argument(
        "--profile",
        metavar="NAME|A..B",
        help="KAITO release of policy.yaml (default: each policy's own), or two of them to compare",
    )
    differ.add_argument(
        "--vllm-version",
        metavar="A..B",
        help="two versions of vLLM to compare, all else as the profile has it",
    )
    differ.add_argument(
        "--instance-type",
        metavar="T",
        action="append",
        default=[],
        help="with two profiles or versions: on that machine (default: each proposal's own; may be repeated)",
    )
    differ.add_argument(
        "--format",
        choices=("markdown", "json"),
        default="markdown",
        help="default: markdown; json with two profiles or versions",
    )

    importer = command(
        "import",
        "generate.run_import",
        "read KAITO's Markdown proposals and manifests into folders of the catalog",
        "  kaito-catalog import docs/proposals/20250529-llama-3.3-70b-instruct.md --into /tmp/mine\n"
        "  kaito-catalog import *.md --format json\n"
        "  kaito-catalog import workspace.yaml                     a Workspace or InferenceSet with its ConfigMap\n",
    )
    importer.add_argument("files", nargs="+", metavar="FILE")
    importer.add_argument(
        "--into", metavar="DIR", help="where the folders go (default: models/ of the catalog)"
    )
    importer.add_argument("--force", action="store_true", help="replace proposals that differ")
    importer.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def _add_vllm(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`dry-run`, `evidence`."""
    dry = command(
        "dry-run",
        "dry_run.run_dry_run",
        "start vLLM with random weights, generate a few tokens, and keep what it measured",
        "  kaito-catalog dry-run phi-3-mini-4k-instruct\n"
        "  kaito-catalog dry-run phi-4 --device cuda --gpu-memory-utilization 0.84\n"
        "  kaito-catalog dry-run phi-4 --serve --format json\n"
        "  kaito-catalog dry-run --all --plan --budget 10          what is missing, cheap ones first\n"
        "  kaito-catalog dry-run --all --on ray://head:10001\n"
        "  kaito-catalog dry-run phi-4 --on kubernetes | kubectl apply -f -\n",
    )
    dry.add_argument("name", metavar="NAME", nargs="?")
    dry.add_argument("--weights", choices=("dummy", "real"), default="dummy", help="default: dummy (random)")
    dry.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    dry.add_argument(
        "--serve", action="store_true", help="start the OpenAI server as KAITO does, and chat once"
    )
    dry.add_argument(
        "--scale-down", action="store_true", help="two layers and eight experts; the evidence says so"
    )
    dry.add_argument(
        "--max-model-len", metavar="N", type=positive, help="default: the proposal's, at most 2,048 on a CPU"
    )
    dry.add_argument("--tensor-parallel-size", metavar="N", type=positive)
    dry.add_argument("--gpu-memory-utilization", metavar="X", type=share)
    dry.add_argument("--model-dir", metavar="DIR", help="a folder with the model's files, instead of the Hub")
    dry.add_argument("--time-limit", metavar="S", type=float, default=900.0, help="seconds (default: 900)")
    dry.add_argument("--vllm-python", metavar="PATH", help="the Python that has vLLM (default: .venv-vllm)")
    dry.add_argument("--no-write", action="store_true", help="do not write evidence")
    dry.add_argument("--replace", action="store_true", help="write it also where better evidence is recorded")
    dry.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    _add_campaign(dry)

    _add_evidence(command)


def _add_evidence(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`evidence` and what it does: `add`, `from-log`, `from-cluster`."""
    evidence = command(
        "evidence",
        "dry_run.run_evidence_add",
        "take evidence that was made elsewhere: a dry run's line, or the log of a start",
        "  kubectl logs job/dry-run-phi-4 | kaito-catalog evidence add -\n"
        "  kubectl logs deploy/phi-4 | kaito-catalog evidence from-log -\n",
    )
    actions = evidence.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: str, summary: str, examples: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog="examples:\n" + examples,
            formatter_class=_Help,
        )
        sub.set_defaults(run=run)
        sub.add_argument(
            "--catalog",
            metavar="DIR",
            default=argparse.SUPPRESS,
            help="the catalog folder (default: found from the current folder upwards)",
        )
        return sub

    add = action(
        "add",
        "dry_run.run_evidence_add",
        "take what a dry run elsewhere printed, after validating it",
        "  kubectl logs job/dry-run-phi-4 | kaito-catalog evidence add -\n  kaito-catalog evidence add run.json\n",
    )
    add.add_argument("file", metavar="FILE", help="JSON lines; - is standard input")
    add.add_argument("--replace", action="store_true", help="also what shows more than this evidence")

    log = action(
        "from-log",
        "evidence.run_from_log",
        "read the starts of vLLM in a log (0.8 to 0.33, of plain vLLM or of a KAITO pod) as reported evidence",
        "  kubectl logs deploy/phi-4 | kaito-catalog evidence from-log -\n"
        "  kaito-catalog evidence from-log vllm.log --format json\n"
        "  kaito-catalog evidence from-log vllm.log --gpu a100-80gb --by @someone --into catalog\n",
    )
    log.add_argument("file", metavar="FILE", help="the log; - is standard input")
    log.add_argument("--model", metavar="NAME", help="what was started (default: what the log names)")
    log.add_argument("--gpu", metavar="G", help="the GPU, such as h100 (default: what the log names)")
    log.add_argument("--by", metavar="NAME", help="who reports it, such as @someone")
    log.add_argument("--source", metavar="TEXT", help="where the log can be read (default: the file's name)")
    log.add_argument("--into", metavar="CATALOG", help="write it to the model's evidence/ in this catalog")
    log.add_argument("--format", choices=("yaml", "json"), default="yaml", help="default: yaml")
    _add_from_cluster(action)


def _add_from_cluster(action: Callable[..., argparse.ArgumentParser]) -> None:
    """`evidence from-cluster`."""
    cluster = action(
        "from-cluster",
        "from_cluster.run_from_cluster",
        "read KAITO's Workspaces, what they measured and the logs of their pods as reported evidence",
        "  kaito-catalog evidence from-cluster                    the kubeconfig's namespace; only reads\n"
        "  kaito-catalog evidence from-cluster -A --by @someone --into catalog\n"
        "  kubectl get workspace,inferenceset,node -o yaml > kaito.yaml; kubectl logs phi-4-0 > phi-4-0.log\n"
        "  kaito-catalog evidence from-cluster kaito.yaml phi-4-0.log\n",
    )
    cluster.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="saved objects (.yaml, .json), and logs named after their pods",
    )
    cluster.add_argument("--namespace", metavar="NS", help="default: the kubeconfig's")
    cluster.add_argument("-A", "--all-namespaces", action="store_true", help="Workspaces of every namespace")
    cluster.add_argument("--by", metavar="NAME", help="who reports it, such as @someone")
    cluster.add_argument("--source", metavar="TEXT", help="where it can be read")
    cluster.add_argument(
        "--into", metavar="CATALOG", help="write it to the models' evidence/ in this catalog"
    )
    cluster.add_argument("--format", choices=("yaml", "json"), default="yaml", help="default: yaml")


def _add_campaign(dry: argparse.ArgumentParser) -> None:
    """`dry-run` of many models, or on other machines."""
    many = dry.add_argument_group("many models, other machines")
    many.add_argument("--all", action="store_true", help="every model without current evidence")
    many.add_argument("--plan", action="store_true", help="only say what would be run, where, for how long")
    many.add_argument("--budget", metavar="H", type=number, help="GPU-hours: the cheapest runs within them")
    many.add_argument("--on", metavar="ENGINE", help="ray, ray://HOST:PORT or kubernetes")
    many.add_argument(
        "--instance-type",
        metavar="T",
        action="append",
        help="such as Standard_NC24ads_A100_v4, or all (default: the smallest that fits)",
    )
    many.add_argument("--cloud", choices=("azure", "aws", "gcp", "arc"), help="only its instance types")
    many.add_argument("--again", action="store_true", help="also what has current evidence")
    many.add_argument("--at-once", metavar="N", type=positive, help="runs given to the engine at a time")
    many.add_argument("--profile", metavar="NAME", help="KAITO release of policy.yaml")
    many.add_argument(
        "--wait-for-nodes", action="store_true", help="ray: also what no node can run yet (autoscaler)"
    )
    many.add_argument("--image", metavar="IMAGE", help="kubernetes: default is the profile's base image")
    many.add_argument("--namespace", metavar="NS", help="kubernetes: default is the kubeconfig's")
    many.add_argument("--apply", action="store_true", help="kubernetes: submit, follow and collect")


def _add_generate(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`generate`, `schema`."""
    generator = command(
        "generate",
        "generate.run_generate",
        "write KAITO's presets, manifests, proposals and the site's pages",
        "  kaito-catalog generate\n"
        "  kaito-catalog generate --output /tmp/build\n"
        "  kaito-catalog generate --check          fails when build/ is not up to date\n"
        "  kaito-catalog generate --compare kaito/presets/workspace/models/model_catalog.yaml\n",
    )
    generator.add_argument("--output", metavar="DIR", default="build", help="default: build")
    generator.add_argument("--no-site", action="store_true", help="do not turn the site's pages into HTML")
    generator.add_argument(
        "--check", action="store_true", help="write nothing; fail when something would change"
    )
    generator.add_argument(
        "--crds", metavar="DIR", help="write only what KAITO's own CRDs take: its config/crd/bases"
    )
    generator.add_argument(
        "--profile", metavar="NAME", help="KAITO release of policy.yaml (default: its `profile`)"
    )
    generator.add_argument(
        "--compare",
        metavar="FILE",
        help="write nothing; compare with KAITO's model_catalog.yaml or presets.md, fail where ours cannot replace it",
    )
    generator.add_argument(
        "--format", choices=("text", "json"), default="text", help="of --compare; default: text"
    )

    schemas = command(
        "schema",
        "generate.run_schema",
        "write the JSON Schema of every file kind",
        "  kaito-catalog schema\n  kaito-catalog schema --check\n",
    )
    schemas.add_argument("--output", metavar="DIR", help="default: schema/ beside the catalog")
    schemas.add_argument(
        "--check", action="store_true", help="write nothing; fail when something would change"
    )


def _add_explain_and_completion(command: Callable[..., argparse.ArgumentParser]) -> None:
    """`explain`, `completion`."""
    explain = command(
        "explain",
        "check.run_explain",
        "say what a finding means and how to mend it",
        "  kaito-catalog explain STO001\n  kaito-catalog explain\n",
    )
    explain.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help="such as MEM001, or a family such as MEM (default: list them all)",
    )

    completion = command(
        "completion",
        "completion.run_completion",
        "print the script that makes Tab complete commands, models and options in your shell",
        "  kaito-catalog completion bash > ~/.local/share/bash-completion/completions/kaito-catalog\n"
        "  kaito-catalog completion zsh > ~/.zfunc/_kaito-catalog     with ~/.zfunc in fpath, before compinit\n"
        "  kaito-catalog completion fish > ~/.config/fish/completions/kaito-catalog.fish\n",
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    )
