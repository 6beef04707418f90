"""A process that has imported PyTorch and mtlrun once and runs each command line in a fork of itself.

A fork takes a fifth of the time of a fresh start, and a fault ends it alone. Requests and answers are lines of JSON.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import astuple
from pathlib import Path

_LONGEST = 90  # seconds that a command may take
# What takes long to import, and only runs would.
_SLOW = (
    "pandas",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "torch._dynamo",
    "torchmetrics",
    "mtlrun.tasks.classification",
)


class ForkServer:
    """The other end: starts the process, and asks it to run command lines."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, folder, *arguments, fault=None, at=-1):
        """Run one command line in `folder`; a fault meets the `at`-th change below its folder `outputs`.

        Returns:
            A dictionary: `code`, as `subprocess` has it, `out` and `err`, and if the process lived to its end, the
            `changes` that it made, and the `outcome` of the run if the code is 0.
        """
        request = {"folder": str(folder), "arguments": arguments, "fault": fault, "at": at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve():
    """Answer requests until there are no more."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import hydra_shortcuts
    import pytest
    import torch

    import mtlrun.runs.run  # noqa: F401 (imports nearly all that a run needs)
    from mtlrun.config.compose import compose

    for module in _SLOW:
        importlib.import_module(module)
    torch.set_num_threads(1)
    hydra_shortcuts.take(pytest.MonkeyPatch())
    compose([])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes there
    gc.freeze()
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as scratch:
            answer = _fork(json.loads(line), Path(scratch))
        for module in answer.pop("modules", []):  # that this process need not have imported: the next fork has them
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        print(json.dumps(answer), file=answers, flush=True)


def _fork(request, scratch):
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _run(request, scratch)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(99)
    stop = time.monotonic() + _LONGEST
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > stop:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # its workers, if it was killed
    answer = {"code": os.waitstatus_to_exitcode(status)}
    for name in ("out", "err"):
        answer[name] = (scratch / name).read_text()
    return answer | json.loads((scratch / "rest").read_text() or "{}")


def _run(request, scratch):
    """Run a command line, write what it leaves into `scratch`, and end the process."""
    from fault_outcome import find_outcome
    from injector import Plan, install

    from mtlrun.cli.main import dispatch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(request["folder"])
    before = set(sys.modules)
    plan = Plan(os.path.abspath("outputs"), request["fault"], request["at"])
    rest = {"changes": []}
    open_rest = open(scratch / "rest", "w")  # noqa: SIM115 (before all files are watched)
    install(plan)
    code = 98
    try:
        code = dispatch(request["arguments"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 97
    gc.collect()
    rest["changes"] = [astuple(change) for change in plan.changes]
    rest["modules"] = sorted(set(sys.modules) - before - {"__main__"})
    plan.at = -1
    if code == 0 and request["fault"] is None:
        rest["outcome"] = find_outcome("outputs")
    json.dump(rest, open_rest)
    open_rest.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
