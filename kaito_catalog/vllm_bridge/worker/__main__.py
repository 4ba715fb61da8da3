"""The worker that asks vLLM: exact plans, options, registries, dry runs; JSON lines in, JSON lines out.

It is started with the Python of an environment that has vLLM, as one archive (`vllm_bridge/archive`), and needs vLLM,
torch and the standard library alone. One request a line on standard input, or one as the only argument:

    {"id": 1, "op": "exact-plan", "model": "DIRECTORY", "args": {"tensor_parallel_size": 8}}

and one response a line on standard output, after any number of progress lines:

    {"id": 1, "progress": "building LlamaForCausalLM"}
    {"id": 1, "ok": true, "result": {...}}
    {"id": 1, "ok": false, "error": {"class": "bad-option", "exception": "ValueError", "message": "..."}}

Everything else that vLLM prints goes to standard error. Sizes are bytes, durations seconds.

Processes: the first one only passes requests on, and imports nothing of vLLM (`router`). Plans and option checks run
in a fork of a process that has imported vLLM once for one GPU capability and version (`warm`): imports are shared,
while no plan sees another's global state (parallel groups, the layers registered in a configuration, cached
capabilities). Engines and servers get a fresh interpreter in a process group of their own (`engine`). Whoever loses
its parent ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from kaito_catalog.vllm_bridge.worker.engine import ENGINE, run_engine
from kaito_catalog.vllm_bridge.worker.processes import ENVIRONMENT
from kaito_catalog.vllm_bridge.worker.router import Router


def main(arguments: Sequence[str]) -> int:
    """Answer one request, or all of standard input."""
    if arguments[:1] == [ENGINE]:
        run_engine(*map(int, arguments[1:]))
    output = os.dup(1)
    os.set_inheritable(output, False)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    router = Router(output)
    try:
        if arguments:
            router.answer(arguments[0])
        else:
            for line in sys.stdin:
                if line.strip():
                    router.answer(line)
    except BrokenPipeError:
        return 1
    finally:
        router.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
