"""A fork server that the sweeps of all tests in a process share: to start one each would be most of their time.

What it forks has the folder, search path and environment of the sweep that asked for it, as if the server were new. The
processes that tests start take the long way, with a server of their own.
"""

import os
import socket
import subprocess
import sys

from mtlrun.sweeps import fork_server, processes

start, end_server = processes.Processes._start, processes.Processes._end
load, begin = processes.Processes.load, processes.Processes.start
_FOLDER, _PATH = "SHORTCUT_FOLDER", "SHORTCUT_PATH"
_idle = []


def take(patch):
    """Let sweeps share a server until the `MonkeyPatch` is undone."""
    patch.setattr(processes.Processes, "_start", take_idle)
    patch.setattr(processes.Processes, "_end", keep_idle)
    patch.setattr(processes.Processes, "load", load_what_can_be_shared)
    patch.setattr(processes.Processes, "start", start_with_circumstances)


def leave():
    """End the servers that are idle."""
    while _idle:
        end, life, server, _ = _idle.pop()
        processes.hang_up(end)
        processes.hang_up(life)
        server.wait()


def take_idle(self):
    """Use an idle server, or start one that may be shared later."""
    if _idle:
        self._socket, self._life, self._server, self._gpus = _idle.pop()
        self._buffer = b""
        return

    def popen(command, **options):
        return subprocess.Popen([*command[:2], __file__, *command[-2:]], **options)

    stand_in = type(sys)("subprocess")
    stand_in.Popen, stand_in.DEVNULL = popen, subprocess.DEVNULL
    processes.subprocess = stand_in
    try:
        start(self)
    finally:
        processes.subprocess = subprocess


def keep_idle(self):
    """Keep the server for the next sweep, unless something runs there."""
    if self._pids or self._gpus is None or self._server.poll() is not None:
        end_server(self)
        return
    _idle.append((self._socket, self._life, self._server, self._gpus))
    self._scratch.cleanup()


def load_what_can_be_shared(self, modules):
    """Have modules imported, but for what tests write, which the runs import themselves."""
    load(self, [name for name in modules if name.partition(".")[0] in fork_server._PACKAGES])


def start_with_circumstances(self, do, config, overrides=(), environment=None, others=()):
    """Start a process in the circumstances of this moment."""
    here = {**os.environ, **(environment or {}), _FOLDER: os.getcwd(), _PATH: os.pathsep.join(sys.path)}
    return begin(self, do, config, overrides, here, others)


def run_request(request, life):
    """Do what is asked, in the circumstances of the sweep that asked for it."""
    environment = request["environment"]
    os.chdir(environment.pop(_FOLDER))
    sys.path[:] = environment.pop(_PATH).split(os.pathsep)
    os.environ.clear()
    fork_request(request, life)


if __name__ == "__main__":
    fork_request, fork_server._run_request = fork_server._run_request, run_request
    fork_server.serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
