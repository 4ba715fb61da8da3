"""The command `dry-run` beyond one machine: the plan of a campaign, Ray, Kubernetes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from kaito_catalog.catalog.entries import Catalog
from kaito_catalog.catalog.reading import read_catalog, shown
from kaito_catalog.checks.base import Context
from kaito_catalog.cli.common import FAILED, OK, catalog_root, emit, say
from kaito_catalog.cli.progress import Progress
from kaito_catalog.dry_runs import campaign, text
from kaito_catalog.errors import CatalogError
from kaito_catalog.reports.style import printable


def run_campaign(options: argparse.Namespace) -> int:
    """`dry-run` with `--all`, `--plan` or `--on`."""
    engine, _, _ = (options.on or "").partition("://")
    if options.all == bool(options.name):
        raise CatalogError("name a model, or ask for --all")
    for given, name in (
        (options.serve, "--serve"),
        (options.model_dir, "--model-dir"),
        (options.no_write, "--no-write"),
    ):
        if given:
            raise CatalogError(
                f"{name} is of one dry run on this machine", hint="leave out --on, --all and --plan"
            )
    if options.on is None and not options.plan:
        raise CatalogError("--all needs a place to run", hint="add --plan, --on ray or --on kubernetes")
    if options.budget is not None and not options.budget >= 0:
        raise CatalogError("--budget is a number of GPU-hours, at least 0")
    if options.apply and engine != "kubernetes":
        raise CatalogError("--apply submits to Kubernetes", hint="add --on kubernetes")
    if engine not in ("", "ray", "kubernetes"):
        raise CatalogError(f"--on {options.on[:60]}: it is ray, ray://HOST:PORT or kubernetes")
    root = catalog_root(options)
    catalog = read_catalog(root)
    context = Context(catalog.shared, catalog.shared.profile(options.profile))
    found = campaign.make_campaign(catalog, context, [options.name] if options.name else [], _asked(options))
    _say_clouds(catalog, found.within(options.budget)[0])
    if options.plan:
        if options.format == "json":
            emit(json.dumps(text.to_json(found, options.budget), indent=2, ensure_ascii=False) + "\n")
        else:
            emit(text.plan_text(found, options.budget))
        return OK
    runs, beyond = found.within(options.budget)
    for model, reason in found.left_out:
        say(f"left out: {model}: {reason}")
    if beyond:
        say(f"{len(beyond)} runs are beyond the budget of {options.budget:g} GPU-hours")
    if engine == "kubernetes":
        return _on_kubernetes(options, catalog, runs, context)
    if not runs:
        say("there is nothing to run: all evidence is current")
        return OK
    from kaito_catalog.dry_runs import on_ray

    with Progress(lambda: len(runs), wait_seconds=0) as progress:
        collector = ResultWriter(catalog, runs, options.format, progress)
        on_ray.run_all(
            runs,
            on_ray.Cluster(
                address=None if options.on == "ray" else options.on,
                python=options.vllm_python,
                at_once=options.at_once,
                wait_for_nodes=options.wait_for_nodes,
            ),
            done=collector.done,
            failed=collector.failed,
            say=say,
        )
    return collector.finish()


def _say_clouds(catalog: Catalog, runs: tuple[campaign.Run, ...]) -> None:
    """The smallest instance type that fits may be of any cloud, and who runs them has one."""
    machines = [catalog.shared.instance_type(run.instance_type) for run in runs if run.instance_type]
    clouds = sorted({machine.cloud for machine in machines if machine is not None})
    if len(clouds) > 1:
        say(f"the instance types are of {' and '.join(clouds)}: --cloud NAME keeps to the one that you have")


def _asked(options: argparse.Namespace) -> campaign.Options:
    return campaign.Options(
        device="cuda" if options.device == "auto" else options.device,
        weights=options.weights,
        instance_types=tuple(options.instance_type or ()),
        cloud=options.cloud,
        scale_down=options.scale_down,
        max_model_len=options.max_model_len,
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        time_limit_seconds=options.time_limit,
        again=options.again,
    )


class ResultWriter:
    """Writes each result when it arrives, says so, and counts."""

    def __init__(
        self, catalog: Catalog, runs: tuple[campaign.Run, ...], form: str, progress: Progress
    ) -> None:
        self._entries = {entry.name: entry for entry in catalog.entries}
        self._gpu = catalog.shared.gpu
        self._total = len(runs)
        self._form = form
        self._progress = progress
        self.written = self.lost = 0
        progress.step("dry runs")

    def done(self, run: campaign.Run, result: dict[str, Any]) -> None:
        """Take a result; one that is not evidence counts as failed."""
        try:
            path, value = campaign.write_result(run, self._entries[run.model], result)
        except CatalogError as error:
            self.failed(run, error.message)
            return
        self.written += 1
        measured = value.get("gpu", {}).get("name")
        outcome = value["outcome"] + (f" ({value['failure']})" if "failure" in value else "")
        where = f" on {measured}" if measured else ""
        listed = self._gpu(measured) if measured else None
        if listed is not None and listed.name != run.gpu:
            where += f", not on the {run.gpu} that was asked for"
        say(f"[{self.written + self.lost}/{self._total}] {run.model}{where}: {outcome}; wrote {shown(path)}")
        if self._form == "json":
            emit(json.dumps(value, ensure_ascii=False) + "\n")
        self._progress.step("dry runs")

    def failed(self, run: campaign.Run, words: str) -> None:
        """A run that gave nothing; it stays missing, and the next campaign tries it again."""
        self.lost += 1
        say(f"[{self.written + self.lost}/{self._total}] {run.title}: no result: {printable(words[:600])}")
        self._progress.step("dry runs")

    def finish(self) -> int:
        """The summary, and the exit code."""
        say(f"{self.written} written, {self.lost} without a result, of {self._total}")
        return FAILED if self.lost else OK


def _on_kubernetes(
    options: argparse.Namespace, catalog: Catalog, runs: tuple[campaign.Run, ...], context: Context
) -> int:
    from kaito_catalog.dry_runs.kubernetes import collector as cluster
    from kaito_catalog.dry_runs.kubernetes import objects

    settings = objects.ClusterSettings(
        image=options.image or objects.base_image(context.profile),
        namespace=options.namespace,
        python=options.vllm_python,
    )
    if not runs:
        say("there is nothing to run: all evidence is current")
        return OK
    if not options.apply:
        emit(objects.to_yaml(runs, settings))
        say(
            f"{len(runs)} run{'s' if len(runs) != 1 else ''}; when applied and done: "
            "kubectl logs job/NAME | kaito-catalog evidence add - (--apply does it all)"
        )
        return OK
    with Progress(lambda: len(runs), wait_seconds=0) as progress:
        collector = ResultWriter(catalog, runs, options.format, progress)
        cluster.apply(
            runs, settings, at_once=options.at_once, done=collector.done, failed=collector.failed, say=say
        )
    return collector.finish()
