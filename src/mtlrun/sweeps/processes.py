"""The other end of the fork server: start it, ask it for processes, and learn how they ended."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlrun.records.lock import process_exists
from mtlrun.sweeps.jobs import Outcome

_LAST = 4_000  # bytes of what a process printed that are kept
#: The `kind` of an outcome that the end of the server is the reason of, and not the run.
LOST = "Lost"
#: Seconds that processes may take to end after their server was killed, before they are killed as well.
_GRACE = 30.0
#: Environment variables that a user may set otherwise: training takes and frees the same memory with every batch, and a
#: process that gives it back to the system in between spends some percent of its time on that (glibc's malloc).
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}


class Processes:
    """Processes for runs, each a fork of one that has imported PyTorch, or is about to."""

    def __init__(self) -> None:
        self._modules: list[str] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="mtlrun-sweep-")
        self._next = 0
        self._is_closed = False
        self._pids: dict[int, int | None] = {}
        self._files: dict[int, tuple[Path, Path]] = {}
        self._lost: set[int] = set()
        self._early: dict[int, int] = {}  # {number: signal} of those that had not begun when they got it
        self._start()

    @property
    def gpus(self) -> int:
        """The number of GPUs that are visible; waits until PyTorch has been imported."""
        while self._gpus is None:
            self._read(None)
        return self._gpus

    def load(self, modules: Sequence[str]) -> None:
        """Have modules imported once for all processes that are started from now on."""
        self._modules += modules
        self._send({"modules": list(modules)})

    def start(
        self,
        do: str,
        config: Mapping[str, Any],
        overrides: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        others: Sequence[tuple[Mapping[str, Any], Sequence[str]]] = (),
    ) -> int:
        """Start a process and return a number for it.

        Args:
            do: "run" to train the config, "check" to prepare the training only, "probe" to measure a few steps.
            config: resolved.
            overrides: for the record.
            environment: variables to set in the process.
            others: configs and overrides of the runs to be trained together with this one.
        """
        self._next += 1
        number = self._next
        files = Path(self._scratch.name, f"{number}.txt"), Path(self._scratch.name, f"{number}.json")
        self._files[number] = files
        self._pids[number] = None
        self._send({
            "id": number, "do": do, "config": config, "overrides": list(overrides),
            "environment": dict(environment or {}), "output": str(files[0]), "report": str(files[1]),
            "others": [{"config": one, "overrides": list(words)} for one, words in others],
        })  # fmt: skip
        return number

    def wait(self, seconds: float | None) -> dict[int, Outcome]:
        """Wait until a process ends, or for some seconds; return {number: outcome} of those that ended."""
        ended = self._read(seconds)
        return {number: self._outcome(number, code) for number, code in ended}

    def pid(self, number: int) -> int | None:
        """Return the ID of a process; None if it has not begun yet."""
        return self._pids.get(number)

    def signal(self, number: int, which: int) -> None:
        """Send a signal to a process and, with SIGKILL, to the processes that it has started.

        One that has not begun gets it when it begins.
        """
        if number not in self._pids:
            return
        pid = self._pids[number]
        if pid is None:
            self._early[number] = which
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                (os.killpg if which == signal.SIGKILL else os.kill)(pid, which)
            except ProcessLookupError:
                os.kill(pid, which)  # which may not have made its process group yet

    def close(self) -> None:
        """End the server, which leaves no process behind: those that still run are asked to stop."""
        if not self._is_closed:
            self._is_closed = True
            self._end()

    def _end(self) -> None:
        hang_up(self._socket)
        hang_up(self._life)
        if not self._next:
            self._server.kill()  # it may still be importing
        self._server.wait()
        self._scratch.cleanup()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        here, there = socket.socketpair()
        self._life, life_there = socket.socketpair()
        environment = {
            **_ENVIRONMENT, **os.environ,
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # so that counting GPUs makes no context
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: nothing has run in the process that is forked
        }  # fmt: skip
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "mtlrun.sweeps.fork_server", str(there.fileno()), str(life_there.fileno())],
            pass_fds=(there.fileno(), life_there.fileno()), env=environment,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        there.close()
        life_there.close()
        self._socket = here
        self._buffer = b""
        self._gpus: int | None = None
        self._send({"path": sys.path})
        if self._modules:
            self._send({"modules": self._modules})

    def _send(self, request: Mapping[str, Any]) -> None:
        # If the server is gone, the next read finds out, and what was asked for counts as lost.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall((json.dumps(request) + "\n").encode())

    def _read(self, seconds: float | None) -> list[tuple[int, int]]:
        """Take in the answers of the server; return the numbers and exit codes of the processes that ended."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return []
        try:
            content = self._socket.recv(1 << 16)
        except ConnectionResetError:
            content = b""
        if not content:
            return self._restart()
        *lines, self._buffer = (self._buffer + content).split(b"\n")
        ended = []
        for line in lines:
            answer = json.loads(line)
            if "gpus" in answer:
                self._gpus = answer["gpus"]
            elif "code" in answer:
                del self._pids[answer["id"]]
                self._early.pop(answer["id"], None)
                ended.append((answer["id"], answer["code"]))
            else:
                self._pids[answer["id"]] = answer["pid"]
                if answer["id"] in self._early:
                    self.signal(answer["id"], self._early.pop(answer["id"]))
        return ended

    def _restart(self) -> list[tuple[int, int]]:
        """Start another server in place of one that was killed; its processes are stopped, and count as killed."""
        hang_up(self._life)  # which asks them to stop
        hang_up(self._socket)
        self._server.wait()
        deadline = time.monotonic() + _GRACE
        while (
            any(pid is not None and process_exists(pid) for pid in self._pids.values()) and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        for number in self._pids:
            self.signal(number, signal.SIGKILL)
        lost = [(number, -signal.SIGKILL) for number in self._pids]
        self._lost |= set(self._pids)
        self._pids.clear()
        self._early.clear()
        self._start()
        return lost

    def _outcome(self, number: int, code: int) -> Outcome:
        output, report = self._files.pop(number)
        text = ""
        with contextlib.suppress(OSError), open(output, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _LAST, 0))
            text = file.read().decode(errors="replace")
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(report.read_text())
        for path in (output, report):
            path.unlink(missing_ok=True)
        if number in self._lost:
            found["kind"] = LOST
        return Outcome(
            code, found.get("error"), found.get("kind", ""), found.get("problems", []),
            text, found.get("result"), [Outcome(**one) for one in found.get("others", [])],
        )  # fmt: skip


def hang_up(end: socket.socket) -> None:
    """Close a connection, also for processes that were forked in the meantime and hold a copy, such as data loaders."""
    with contextlib.suppress(OSError):  # the other end is gone
        end.shutdown(socket.SHUT_RDWR)
    end.close()
