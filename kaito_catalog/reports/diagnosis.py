"""A diagnosis for a person: what failed, what to change, and the figures of the log beside those of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from kaito_catalog.diagnosis.answers import Diagnosis
from kaito_catalog.diagnosis.comparison import NAMES, Term
from kaito_catalog.diagnosis.trials import StartChange
from kaito_catalog.memory.values import Fit
from kaito_catalog.quantity import gib
from kaito_catalog.reports.plan import VERDICTS
from kaito_catalog.reports.style import BOLD, DIM, GREEN, RED, YELLOW, fitted, paint, printable

_OUTCOMES = {"served": ("served", GREEN), "does-not-fit": ("did not fit", RED), "failed": ("failed", RED)}
_CHANGE_WIDTH = 34


def diagnosis_text(found: Diagnosis, *, color: bool = False, width: int | None = None) -> str:
    """One start: its outcome and cause, the changes that are enough, the comparison."""
    lines = [_head(found, color=color)]
    if found.run is not None and found.run.message:
        lines.append(f"  vLLM says: {printable(found.run.message[:500])}")
    if found.cause is not None:
        lines.append(f"  why: {printable(found.cause.words)} [{found.cause.code}]")
        lines += [f"    {printable(one)}" for one in found.cause.advice]
    if found.changes:
        planned = ", as planned" if found.plan is not None else ""
        one = "any one of these is enough" if len(found.changes) > 1 else "this is enough"
        if found.cause is not None and found.cause.code == "out-of-memory":
            one = (
                "each of these leaves what was lacking"
                if len(found.changes) > 1
                else "this leaves what was lacking"
            )
        lines += ["", f"  {one}{planned}:", *_changes(found.changes)]
        if found.of_kaito:
            lines.append(
                "    options go under `vllm:` in the ConfigMap of KAITO's inference.config, without dashes"
            )
    elif found.not_enough:
        lines += ["", "  nothing that was tried is enough"]
    if found.not_enough:
        tried = "; ".join(printable(change.words) for change in found.not_enough)
        lines.append(f"  not enough alone: {tried}")
    lines += _comparison(found)
    if found.no_plan is not None:
        lines += ["", f"  no plan: {printable(found.no_plan)}"]
    lines += [paint(f"  {printable(note)}", DIM, color=color) for note in found.notes]
    if found.left_out:
        names = ", ".join(printable(name) for name in found.left_out)
        lines.append(paint(f"  of the log's arguments no plan reads: {names}", DIM, color=color))
    return fitted("\n".join(lines) + "\n", width)


def _head(found: Diagnosis, *, color: bool) -> str:
    run, plan = found.run, found.plan
    if run is not None:
        words, code = _OUTCOMES.get(run.outcome or "", ("did not finish, as far as the log goes", YELLOW))
    else:
        words, code = VERDICTS[plan.fits if plan else Fit.UNKNOWN]
    version = run.versions.vllm if run and run.versions else plan.vllm_version if plan else None
    where = []
    if version:
        where.append(f"vLLM {printable(version)}")
    if plan is not None:
        name = plan.gpu.name or (f"GPU of {gib(plan.gpu.memory_bytes)}" if plan.gpu.memory_bytes else "GPU")
        where.append(f"{plan.parallelism.world_size} × {name}")
        where.append(f"{plan.settings.max_model_len:,} tokens")
    elif run is not None and run.max_model_len:
        where.append(f"{run.max_model_len:,} tokens")
    model = paint(printable(found.model or "a model that the log does not name"), BOLD, color=color)
    return (
        f"{model} ({', '.join(where)}): {paint(words, code, BOLD, color=color)}"
        if where
        else f"{model}: {words}"
    )


def _changes(changes: Sequence[StartChange]) -> list[str]:
    lines = []
    for change in changes:
        maybe = "; may fit" if change.plan is not None and change.plan.fits is Fit.TIGHT else ""
        words, why = printable(change.words), f"{printable(change.why)}{maybe}"
        if len(words) > _CHANGE_WIDTH:
            lines += [f"    {words}", f"    {'':<{_CHANGE_WIDTH}}  {why}"]
        else:
            lines.append(f"    {words:<{_CHANGE_WIDTH}}  {why}")
    return lines


def _comparison(found: Diagnosis) -> list[str]:
    if found.plan is None or found.run is None:
        return []
    plan = found.plan
    if not found.terms:
        printed = "the log prints none of the plan's figures"
        why = plan.reason if plan.fits is not Fit.YES and plan.reason else printed
        return ["", f"  plan ({found.by}): {VERDICTS[plan.fits][0]}; {printable(why)}"]
    lines = ["", f"  {'of each GPU':<32}{'log':>12}{'plan':>12}{'difference':>13}"]
    lines += [_row(term) for term in found.terms]
    off = f"± {gib(plan.expected_error_bytes)}" if plan.expected_error_bytes is not None else "its error"
    worst = found.culprit
    if worst is None:
        lines.append(f"  the log and the plan ({found.by}) agree within what the plan may be off by, {off}")
    else:
        lines.append(
            f"  the log and the plan ({found.by}) disagree, most in {NAMES[worst.name]}: {_signed(worst)}; "
            f"the plan expects to be off by {off}"
        )
    return lines


def _row(term: Term) -> str:
    if term.name == "kvCacheTokens":
        cells = (f"{term.printed:,}", f"{term.planned:,}", f"{term.difference:+,}")
    else:
        cells = (gib(term.printed), gib(term.planned), _signed(term))
    mark = "" if term.agrees else "  *"
    return f"    {NAMES[term.name]:<30}{cells[0]:>12}{cells[1]:>12}{cells[2]:>13}{mark}"


def _signed(term: Term) -> str:
    if term.name == "kvCacheTokens":
        return f"{term.difference:+,} tokens"
    return f"{'-' if term.difference < 0 else '+'}{gib(abs(term.difference))}"
