"""A process that imports PyTorch once, and runs each request in a fork of itself.

A fork starts in milliseconds, where a new process imports for seconds, and whatever ends it ends nothing else. This
process computes nothing: threads and CUDA contexts do not survive a fork. It talks with `mtlrun.sweeps.processes` in
lines of JSON, and ends when its other end does.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

#: Of these packages, what a run has imported is imported here, too, for the runs after it.
_PACKAGES = ("mtlrun", "torch", "torchvision", "torchmetrics", "tensorboard", "numpy", "scipy", "sklearn", "pandas")
#: Seconds without a request after which there is time to import something.
_IDLE = 0.1
#: What all runs need. PyTorch imports its compiler when the first optimizer is made, for longer than a check takes.
_EARLY = ("mtlrun.runs.run", "torch._dynamo")
#: What nearly all runs import in the course of their training.
_LATE = (
    "scipy.linalg", "scipy.stats", "scipy.signal", "torchmetrics", "mtlrun.tasks.metrics.decisions",
    "tensorboard.compat.proto.event_pb2", "tensorboard.plugins.hparams.plugin_data_pb2",
    "tensorboard.plugins.custom_scalar.layout_pb2",
)  # fmt: skip


def serve(requests: socket.socket, life: int) -> None:
    """Answer requests until there are no more.

    The first line is `{"path": sys.path}`. A request is `{"modules": [...]}`, what runs will need, or
    `{"id", "do", "config", "overrides", "environment", "output", "report", "others"}`: to "run", "check" or "probe" a
    config, the environment variables to set, the files for what is printed and for the report, and the configs and
    overrides of runs that are trained together with it. The answers are `{"gpus": n}`
    once at the start, and `{"id", "pid"}` and `{"id", "pid", "code"}` for each config.

    Args:
        requests: the socket.
        life: a socket whose other end is open as long as the other process lives.
    """
    # A cluster sends signals to all processes of a job. Runs stop after SIGTERM, and this process once they have. The
    # others are announcements, for the process that asked for them; without a handler they would kill runs as well.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    received = _Lines(requests)
    while not (lines := received.read()):
        pass
    sys.path[:] = json.loads(lines.pop(0))["path"]
    _import(list(_EARLY), None)
    _answer(requests, {"gpus": _count_gpus()})
    later = list(_LATE)
    wakeup, waker = socket.socketpair()
    waker.setblocking(False)
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    running: dict[int, dict[str, Any]] = {}
    while True:
        for line in lines:
            request = json.loads(line)
            if "modules" in request:
                _import(request["modules"], None)
                continue
            pid = _fork()
            if pid == 0:
                for end in (requests, wakeup, waker):
                    end.close()
                _run_request(request, life)
            running[pid] = request
            _answer(requests, {"id": request["id"], "pid": pid})
        lines = []
        readable, _, _ = select.select([requests, wakeup], [], [], _IDLE if later else None)
        if later and not readable:
            _import(later, _IDLE)
        if wakeup in readable:
            with contextlib.suppress(BlockingIOError):
                wakeup.recv(4096)
            later += _reap(running, requests)
        if requests in readable:
            lines = received.read()


def _fork() -> int:
    """Fork into a process that SIGTERM and SIGHUP end from its first moment on, and not only once it has set them up.

    They are blocked while this process, which ignores them, has the handlers that the other one inherits.
    """
    stopping = (signal.SIGTERM, signal.SIGHUP)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    handlers = [signal.signal(number, signal.SIG_DFL) for number in stopping]
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    else:
        for number, handler in zip(stopping, handlers, strict=True):
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


class _Lines:
    """The lines that arrive at a socket.

    Args:
        source: the socket.
    """

    def __init__(self, source: socket.socket) -> None:
        self._source, self._rest = source, b""

    def read(self) -> list[bytes]:
        """Wait for content, and return the lines that are now whole; end the process if there will be no more."""
        content = self._source.recv(1 << 16)
        if not content:
            os._exit(0)  # there is nothing to clean up, for which Python would take a while
        *lines, self._rest = (self._rest + content).split(b"\n")
        return lines


def _answer(requests: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is left to hear it
        requests.sendall((json.dumps(answer) + "\n").encode())


def _reap(running: dict[int, dict[str, Any]], requests: socket.socket) -> list[str]:
    """Answer for each child that has ended, and return the modules that they had to import."""
    imported: list[str] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        request = running.pop(pid, None)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what it started and left behind
        if request is None:
            continue
        # The other process removes the file when it has the answer.
        with contextlib.suppress(OSError, ValueError, KeyError), open(request["report"]) as file:
            imported += json.load(file)["modules"]
        _answer(requests, {"id": request["id"], "pid": pid, "code": os.waitstatus_to_exitcode(status)})
    return [module for module in dict.fromkeys(imported) if module not in sys.modules]


def _import(modules: list[str], seconds: float | None) -> None:
    """Import modules, which are taken from the list, until there are no more or so many seconds have passed."""
    until = math.inf if seconds is None else time.monotonic() + seconds
    while modules and time.monotonic() < until:
        with contextlib.suppress(Exception):  # the run itself will say what is wrong with it
            importlib.import_module(modules.pop(0))
    with contextlib.suppress(Exception):
        from mtlrun.setup.environment import describe_code, keep_solvers_on_one_thread

        keep_solvers_on_one_thread()  # both take a while, and need not be done again by each run
        describe_code()
    gc.collect()
    gc.freeze()


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()  # by NVML, which makes no context


def _run_request(request: dict[str, Any], life: int) -> None:
    """Do what is asked, in a process group of its own, report on it, and end the process."""
    report: dict[str, Any] = {}
    code = 1
    started = time.monotonic()
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides; a terminal's Ctrl-C is for it
        os.environ |= request["environment"]
        threading.Thread(target=_end_with, args=(life,), daemon=True).start()
        before = set(sys.modules)
        code = _do(request, report, started)
        report["modules"] = [name for name in sorted(set(sys.modules) - before) if name.partition(".")[0] in _PACKAGES]
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        report |= {"kind": "SystemExit", "error": f"the code called sys.exit({error.code!r})"}
        code = code or 1  # a run that ends this way was not completed
    except BaseException as error:
        report |= {"kind": type(error).__name__, "error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(Exception):
            sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            with open(request["report"], "w") as file:
                json.dump(report, file)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(life: int) -> None:
    """Stop this process, as a signal would, when the one that wants its result is gone."""
    with contextlib.suppress(OSError):
        os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _do(request: dict[str, Any], report: dict[str, Any], started: float) -> int:
    from mtlrun.errors import MtlrunError

    config = request["config"]
    try:
        if request["do"] == "check":
            from mtlrun.setup.prepare import prepare

            parts = prepare(config)
            if request["others"]:
                from mtlrun.setup.together import check_together

                check_together(parts, 1 + len(request["others"]))
            report["result"] = {
                "main_metrics": {name: task.main_metric for name, task in parts.tasks.items()},
                "skills": dataclasses.asdict(parts.skills),
            }
            return 0
        if request["do"] == "probe":
            from mtlrun.runs.probe import probe

            report["result"] = probe(config)
            return 0
        import faulthandler

        from rich.console import Console

        from mtlrun.runs.run import run

        faulthandler.enable()
        sys.argv = ["mtlrun", *request["overrides"]]  # as the record has it: the command of this run alone
        with open(os.devnull, "w") as nowhere:
            console = Console(file=nowhere)
            if request["others"]:
                return _run_together(request, report, console, started)
            record = run(config, overrides=request["overrides"], console=console, started=started)
        code, found = _describe(record)
        report |= found
        return code
    except MtlrunError as error:
        code, found = _describe(error)
        report |= found
        return code


def _run_together(request: dict[str, Any], report: dict[str, Any], console: Any, started: float) -> int:
    """Train a run and others in this process, report on all, and return the exit code of the first one."""
    from mtlrun.runs.together import run_together

    runs = [request, *request["others"]]
    words = [run["overrides"] for run in runs]
    members = run_together([run["config"] for run in runs], words, console=console, started=started)
    ends = [_describe(member.record or member.error) for member in members]
    report |= ends[0][1] | {"others": [{"code": code, **found} for code, found in ends[1:]]}
    return ends[0][0]


def _describe(end: Any) -> tuple[int, dict[str, Any]]:
    """Return exit code and report of a run that ended with a record, or with an error."""
    from mtlrun.errors import ConfigError, DivergedError, MtlrunError

    if not isinstance(end, BaseException):
        diverged = end.status == "diverged"
        return (DivergedError.exit_code, {"kind": "DivergedError", "error": end.error}) if diverged else (0, {})
    if not isinstance(end, MtlrunError):
        sys.excepthook(type(end), end, end.__traceback__)
        return 1, {"kind": type(end).__name__, "error": f"{type(end).__name__}: {end}"}
    problems = end.problems if isinstance(end, ConfigError) else [str(end)]
    return end.exit_code, {"kind": type(end).__name__, "error": str(end), "problems": problems}


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
