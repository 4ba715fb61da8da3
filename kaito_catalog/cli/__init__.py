"""The command line: calls the function of the command that the arguments name.

A command names its function as text, `check.run_check`, and that module is imported when the command runs.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from kaito_catalog.cli.arguments import USAGE, build_parser
from kaito_catalog.errors import CatalogError, visible

OK = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 clean, 1 errors found, 2 usage or unreadable input."""
    _speak_utf8()
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        importlib.import_module("kaito_catalog.cli.completion").complete(parser)
    own, serve = _behind_dashes(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(own)
    options.behind_dashes = serve
    name: str | None = getattr(options, "run", None)
    if name is None:
        parser.print_help()
        return USAGE
    try:
        code = function(name)(options)
        sys.stdout.flush()  # what cannot be written is said here, not in Python's words while it ends
        return code
    except CatalogError as error:
        print(visible(f"error: {error.message}"), file=sys.stderr)
        if error.hint:
            print(visible(f"hint: {error.hint}"), file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; what was complete is written, nothing is half done", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "the result could not be written: "
        print(visible(f"error: {where}{error.strerror or error}"), file=sys.stderr)
        return USAGE


def _behind_dashes(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str] | None]:
    """The arguments of `plan` in front of `--`, and `vllm serve`'s own behind it; None where there is no `--`."""
    if arguments[:1] != ["plan"] or "--" not in arguments:
        return arguments, None
    place = list(arguments).index("--")
    return arguments[:place], arguments[place + 1 :]


def _speak_utf8() -> None:
    """Read and print the same bytes in every locale; what is no UTF-8, such as a file's name, is shown escaped."""
    # A closed standard stream (`>&-`) is None in Python.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def function(name: str) -> Callable[[argparse.Namespace], int]:
    """The function `module.name` of this package; its module is imported now."""
    module, _, attribute = name.partition(".")
    found: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"kaito_catalog.cli.{module}"), attribute
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
