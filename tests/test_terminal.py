"""On a terminal: tables as wide as it is, colours where they are wanted; elsewhere the results alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from kaito_catalog.reports.style import fitted
from kaito_catalog.reports.terminal import Column, TableLayout, table

COLUMNS = (Column("NAME"), Column("SIZE", "right"))
ROWS = (("[red]phi[/]", "1 GiB"), ("llama", "140 GiB"))


def lines(*rows: tuple[str, ...], width: int = 80, color: bool = False) -> list[str]:
    layout = TableLayout(COLUMNS, rows, gap=2)
    return table([layout], ["green", *[""] * (len(rows) - 1)], width=width, color=color)


def test_brackets_in_a_name_are_no_markup() -> None:
    assert lines(*ROWS) == ["NAME            SIZE", "[red]phi[/]    1 GiB", "llama        140 GiB"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert lines(("a\x1b[31mb\x9b", "c\rd"))[1].split() == ["a�[31mb�", "c�d"]


def test_emoji_codes_and_addresses_are_printed_as_they_are() -> None:
    assert lines((":smile: http://a.b/c", "1"))[1].startswith(":smile: http://a.b/c ")


def test_colours_are_used_only_where_they_are_asked_for() -> None:
    assert "\x1b[32m" in "".join(lines(*ROWS, color=True))
    assert "\x1b" not in "".join(lines(*ROWS))


def test_the_widest_layout_that_fits_is_taken_and_the_last_is_broken() -> None:
    wide = TableLayout(COLUMNS, [("a" * 30, "1")], gap=2)
    narrow = TableLayout(COLUMNS, [("a" * 15, "1")], gap=1)
    assert wide.width == 36
    assert "a" * 30 in table([wide, narrow], [""], width=36, color=False)[1]
    assert "a" * 30 not in table([wide, narrow], [""], width=35, color=False)[1]
    assert max(map(len, table([wide, narrow], [""], width=12, color=False))) <= 12


def test_long_lines_are_broken_between_words_and_further_in() -> None:
    assert fitted("  one two three\nfour", 11) == "  one two\n    three\nfour"
    assert fitted("  one two three", None) == "  one two three"


def on_terminal(
    root: Path,
    *arguments: str,
    command: Sequence[str] = ("-m", "kaito_catalog"),
    columns: int = 80,
    stdout: bool = True,
    **environment: str,
) -> tuple[str, str]:
    """What a command writes to a terminal of that many columns, and to its standard output where that is a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE")
    own = {name: value for name, value in os.environ.items() if name not in unset}
    with tempfile.TemporaryFile() as kept:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=root,
            env={**own, "TERM": "xterm", **environment},
            stdin=subprocess.DEVNULL,
            stdout=theirs if stdout else kept,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = b""
        with contextlib.suppress(OSError):  # Linux's word for "nobody holds the other end any more"
            while piece := os.read(ours, 65536):
                drawn += piece
        os.close(ours)
        assert process.wait() in (0, 1), drawn
        kept.seek(0)
        piped = kept.read()
    return drawn.decode().replace("\r\n", "\n"), piped.decode()


@pytest.mark.parametrize(
    "arguments", [("plan", "phi-4"), ("plan", "phi-4", "--gpu", "NVIDIA A10")], ids=" ".join
)
@pytest.mark.parametrize("columns", [80, 100])
def test_a_plan_fits_the_terminal_and_uses_it(arguments: tuple[str, ...], columns: int, root: Path) -> None:
    drawn, _ = on_terminal(root, *arguments, columns=columns, NO_COLOR="1")
    longest = max(len(line) for line in drawn.splitlines() if not line.startswith("next: "))
    assert columns - 6 <= longest <= columns


def test_the_table_of_a_terminal_says_what_the_one_of_a_pipe_says(root: Path) -> None:
    drawn = on_terminal(root, "plan", "phi-4", NO_COLOR="1")[0].split()
    _, piped = on_terminal(root, "plan", "phi-4", stdout=False)
    rows = [line.split() for line in piped.splitlines() if "×" in line and line.count("GiB") == 2]
    assert len(rows) > 10
    assert [word for row in rows for word in row if word not in drawn] == []


def test_a_pipe_gets_the_table_unbroken_and_without_colours(root: Path) -> None:
    _, piped = on_terminal(root, "plan", "phi-4", stdout=False)
    head = "INSTANCE TYPE  GPUS  VERDICT  USED  ENOUGH  NEEDS/GPU  BUDGET/GPU  LONGEST CONTEXT  PRICE/H"
    assert re.sub("  +", "  ", piped.splitlines()[4]) == head
    assert "\x1b" not in piped


def test_a_plan_has_colours_unless_they_are_not_wanted(root: Path) -> None:
    assert "\x1b[32m" in on_terminal(root, "plan", "phi-4")[0]
    assert "\x1b" not in on_terminal(root, "plan", "phi-4", NO_COLOR="1")[0]
    assert "\x1b" not in on_terminal(root, "plan", "phi-4", TERM="dumb")[0]


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["check", "phi-4"], ["plan", "phi-4"]], ids=" ".join
)
def test_rich_is_loaded_only_where_something_is_drawn(arguments: list[str], root: Path) -> None:
    code = (
        "import sys\nfrom kaito_catalog.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    print('rich' in sys.modules, file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stderr.splitlines()[-1] == "False"


def test_progress_is_drawn_on_stderr_and_the_result_stays_as_it_is(root: Path) -> None:
    drawn, piped = on_terminal(root, "check", "--format", "json", stdout=False)
    alone = subprocess.run(
        [sys.executable, "-m", "kaito_catalog", "check", "--format", "json"], cwd=root, capture_output=True
    )
    assert piped == alone.stdout.decode()
    assert alone.stderr == b""
    assert re.search(r"\b[0-9]+/[0-9]+ 0:00:0", re.sub(r"\x1b\[[0-9;]*m", "", drawn))


@pytest.mark.parametrize("stdout", [True, False])
def test_a_dumb_terminal_gets_no_progress(stdout: bool, root: Path) -> None:
    drawn, _ = on_terminal(root, "check", stdout=stdout, TERM="dumb")
    assert "\x1b" not in drawn
    assert ("ok: " in drawn) is stdout


def test_progress_has_no_colours_with_no_color(root: Path) -> None:
    drawn, _ = on_terminal(root, "check", NO_COLOR="1")
    assert "0:00:0" in drawn
    assert re.findall(r"\x1b\[[0-9;]*[34][0-9][0-9;]*m", drawn) == []


DRAW = """
import sys
from kaito_catalog.cli.common import emit, say
from kaito_catalog.cli.progress import Progress
with Progress(lambda: 2, wait_seconds=0) as progress:
    progress.step("[red]one[/] \\x1b[31m")
    say("said [bold]" + "x" * 100)
    emit("a result [/]\\n")
    progress.step("two")
print("after")
"""


def test_names_and_lines_are_drawn_as_they_are(root: Path) -> None:
    drawn, _ = on_terminal(root, command=["-c", DRAW])
    assert "[red]one[/] \\u001b[31m" in drawn
    assert "said [bold]" + "x" * 100 + "\n" in drawn
    assert "a result [/]\n" in drawn
    assert drawn.endswith("after\n")


def test_a_result_of_a_pipe_does_not_go_through_the_drawing(root: Path) -> None:
    drawn, piped = on_terminal(root, command=["-c", DRAW], stdout=False)
    assert piped == "a result [/]\nafter\n"
    assert "a result" not in drawn


def test_quick_work_draws_nothing(root: Path) -> None:
    code = DRAW.replace("wait_seconds=0", "wait_seconds=60")
    drawn, _ = on_terminal(root, command=["-c", code])
    assert drawn == "said [bold]" + "x" * 100 + "\na result [/]\nafter\n"
