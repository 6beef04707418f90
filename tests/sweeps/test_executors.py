"""Sweeps beyond this machine: Slurm as submitit runs jobs on one machine, and as false programs, and Ray."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import sweep_shortcuts
from helpers import read_record, run_folders

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.records.lock import Holder
from mtlrun.records.record import Record
from mtlrun.records.submissions import Submission, find_queued
from mtlrun.runs.run import run
from mtlrun.sweeps import local, slurm
from mtlrun.sweeps.announcement import announced
from mtlrun.sweeps.jobs import Job
from mtlrun.sweeps.local import LocalExecutor
from mtlrun.sweeps.processes import Processes
from mtlrun.sweeps.remote import Pack, Setting, Worker, request
from mtlrun.sweeps.slurm import SlurmExecutor
from mtlrun.sweeps.slurm_options import SlurmOptions

# What submitit starts on this machine goes on when its launcher is gone.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
TOY = ["dataset=kendall_toy", "backbone=mlp", "backbone.hidden=[16]", "runtime.quiet=true", "runtime.num_threads=1"]
SUBMITIT = ["hydra/launcher=slurm", "hydra.launcher.slurm.cluster=local", "hydra.launcher.slurm.runs_per_job=3"]
RAY = ["hydra/launcher=ray", "hydra.launcher.ray.address=local"]
# A dataset that can be prepared, and cannot be trained.
FAULTY = """
import os
from mtlrun.datasets import KendallToy

class Faulty(KendallToy):
    def __init__(self, how="", **options):
        super().__init__(**options)
        self._how = how

    def split(self, name):
        if name == "train" and self._how == "kill" and os.path.exists("begun"):
            os.kill(os.getpid(), 9)
        return super().split(name)
"""


def start(*words):
    """Start a sweep in a process of its own."""
    line = [sys.executable, "-m", "mtlrun", "-m", *words]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(what):
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + 200
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def faulty():
    """Return the words of runs of which one is killed."""
    Path("faulty.py").write_text(FAULTY)
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/faulty.yaml").write_text(
        "# @package _global_\ndefaults: [kendall_toy@_here_, _self_]\ndataset:\n  _target_: faulty.Faulty\n  how: ''\n"
    )
    Path("begun").touch()
    return ["--config-dir=conf", *TOY, "dataset=faulty", "trainer.epochs=2", "dataset.how='',kill,none"]


def check_that_one_of_three_failed(code, out, err):
    assert code == 1, out + err
    assert out.count("submitted") == 3
    assert "2 completed, 1 failed" in out
    assert out.count("killed (SIGKILL), perhaps for want of memory") == 2  # when it happens, and at the end
    assert "1 of 3 runs failed; the same command tries them again" in err
    assert [read_record(folder)["status"] for folder in run_folders()] == ["completed"] * 2


@pytest.mark.slow
def test_submitit_trains_runs_and_one_that_fails_ends_nothing_else(faulty, mtlrun):
    check_that_one_of_three_failed(*mtlrun("-m", *faulty, *SUBMITIT, "hydra.launcher.workers=1"))


@pytest.mark.slow
def test_ray_trains_runs_and_one_that_fails_ends_nothing_else(faulty):
    line = [sys.executable, "-m", "mtlrun", "-m", *faulty, *RAY, "hydra.launcher.workers=1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    check_that_one_of_three_failed(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("number", [
    pytest.param(signal.SIGUSR2, marks=pytest.mark.slow), pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive),
])  # fmt: skip
def test_a_job_that_makes_room_saves_checkpoints_and_goes_on_when_it_is_queued_again(number, mtlrun, monkeypatch):
    words = [*TOY, "trainer.epochs=20", "trainer.batch_size=2", "seed=0,1", *SUBMITIT]
    launcher = start(*words)
    wait_for(lambda: list(Path("outputs/runs").glob("*/checkpoints/last.pt")))
    (packs,) = Path("outputs/runs/.sweeps/slurm").glob("*/packs.json")
    launcher.kill()
    launcher.wait()
    # As Slurm does: all processes of the job get the signal.
    (controller,) = json.loads(packs.read_text())["packs"]
    for process in descendants(int(controller)):
        os.kill(process, number)
    if number == signal.SIGTERM:  # whether the job is queued again is up to Slurm
        wait_for(lambda: not descendants(int(controller)))
        assert [read_record(folder)["status"] for folder in run_folders()] == ["interrupted"]
        return
    output = packs.parent / f"{controller}_0_log.err"
    wait_for(lambda: "Requeued" in output.read_text() + output.with_suffix(".out").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(SlurmExecutor, "_submitit", None)  # nothing is submitted twice
        assert mtlrun("-m", *words)[0] == 0
    records = [read_record(folder) for folder in run_folders()]
    assert [record["status"] for record in records] == ["completed"] * 2
    assert any(record["resumed"] for record in records)
    assert not packs.parent.parent.exists()


def descendants(pid):
    """Return the IDs of the processes below one."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = path.read_text().split() if path.exists() else []
    return [entry for child in map(int, children) for entry in [child, *descendants(child)]]


# What a cluster has, as far as submitting goes: jobs are noted, and wait.
PROGRAMS = {
    "sbatch": 'cp "$1" script; echo sbatch >> calls; echo "Submitted batch job 71"',
    "srun": "",
    "scancel": 'echo scancel "$@" >> calls',
    "sacct": 'echo "JobID|State|NodeList"; for n in 0 1 2; do echo "71_$n|$(cat state)|none"; done',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put the programs of Slurm into the search path; the file `state` has the state of all jobs."""
    (tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_GRACE", 0.0)
    Path("state").write_text("PENDING")


def make_jobs(*words, count=5):
    return [Job(number, compose([*TOY, *words, f"seed={number}"]), [f"seed={number}"]) for number in range(count)]


def make_executor(jobs, workers=2, **options):
    return SlurmExecutor(jobs, SlurmOptions(partition="long", runs_per_job=2, **options), workers=workers)


def test_runs_are_packed_into_an_array_which_is_submitted_once(cluster):
    jobs = make_jobs()
    executor = make_executor(jobs, mem_gb=3, options={"account": "lab"})
    for job in jobs:
        assert executor.has_room(job)
        executor.start(job)
    assert executor.wait(0.1) == []
    script = Path("script").read_text()
    for line in (
        "partition=long", "array=0-2%2", "gpus-per-node=1", "mem=3GB", "account=lab", "time=120", "cpus-per-task=1",
        "signal=USR2@120",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script
    executor.close()
    # The launcher is gone, the jobs wait; one run has ended meanwhile.
    (folder,) = Path("outputs/runs/.sweeps/slurm").iterdir()
    again = make_executor(jobs := make_jobs(count=6))
    for job in jobs[:5]:
        assert again.has_room(job)
        again.start(job)
    assert not again.has_room(jobs[5])  # three jobs are in the queue, and two may run
    report = {"number": 1, "seconds": 2.0, "outcome": {"code": 0}}
    (folder / f"{jobs[1].run_id}.json").write_text(json.dumps(report))
    ((job, outcome),) = again.wait(1)
    assert (job, outcome.code) == (jobs[1], 0)
    assert Path("calls").read_text() == "sbatch\n"
    # Ctrl-C cancels each job once.
    for job in jobs[:5]:
        again.stop(job, at_once=False)
    assert re.findall("scancel 71_[012]\n", Path("calls").read_text()) == [f"scancel 71_{n}\n" for n in range(3)]
    Path("state").write_text("CANCELLED by 0")
    ended = wait_for(lambda: again.wait(1))
    assert [outcome.code for _, outcome in ended] == [143] * 4
    again.close()


@pytest.mark.parametrize("which", [signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_a_process_that_has_not_begun_ends_it(which):
    (job,) = make_jobs("trainer.epochs=100000", count=1)
    processes = Processes()
    number = processes.start("run", job.config)
    assert processes.pid(number) is None
    processes.signal(number, which)
    ended = {}
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:
        ended = processes.wait(1)
    processes.signal(number, signal.SIGKILL)
    processes.close()
    assert ended[number].code == -which


# A fork server whose children get a signal before they have done anything, and then would train for long.
HASTY = """
import os, signal, socket, sys, time
from mtlrun.sweeps import fork_server

def fork(fork=os.fork):
    pid = fork()
    if pid == 0:
        time.sleep(0.2)
    else:
        os.kill(pid, signal.SIGTERM)
    return pid

os.fork, fork_server._count_gpus, fork_server._run_request = fork, lambda: 0, lambda *_: (time.sleep(5), os._exit(0))
fork_server.serve(socket.socket(fileno=int(sys.argv[1])), 0)
"""


def test_a_stop_signal_is_not_lost_in_the_first_moment_of_a_process():
    here, there = socket.socketpair()
    with subprocess.Popen([sys.executable, "-c", HASTY, str(there.fileno())], pass_fds=[there.fileno()]), here:
        there.close()
        for message in ({"path": sys.path}, {"id": 1, "report": "none"}):
            here.sendall(json.dumps(message).encode() + b"\n")
        answers = [json.loads(line) for line in islice(here.makefile(), 3)]
    assert answers[2]["code"] == -signal.SIGTERM


def test_the_server_of_a_sweep_ends_while_a_process_lives_that_was_forked_in_the_meantime(monkeypatch):
    monkeypatch.setattr(Processes, "_start", sweep_shortcuts.start)
    processes = Processes()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        processes._next = 1  # or else it is killed, since there is nothing to wait for
        sweep_shortcuts.end_server(processes)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_run_that_is_given_up_stops_and_its_pack_goes_on(cluster):
    endless, short = make_jobs("trainer.epochs=100000", count=1) + make_jobs("trainer.epochs=1", count=1)
    executor = make_executor([endless, short])
    for job in (endless, short):
        executor.start(job)
    executor.wait(0)
    endless.given_up = True
    executor.stop(endless, at_once=False)
    assert Path("calls").read_text() == "sbatch\n", "nothing is canceled"
    # What the Slurm job does, once it has begun.
    (folder,) = Path("outputs/runs/.sweeps/slurm").iterdir()
    Pack(Setting.here(gpus=False, places=2), [request(endless), {**request(short), "number": 1}], folder)()
    codes = {job.run_id: outcome.code for job, outcome in executor.wait(1)}
    assert codes[short.run_id] == 0
    assert codes[endless.run_id] in (128 + signal.SIGHUP, -signal.SIGHUP), "before or after its first step"
    executor.close()


def test_runs_that_go_side_by_side_are_counted_as_such():
    jobs = make_jobs("runtime.device=cpu", count=6)
    for options, workers, count in (
        ({"runs_per_job": 4, "cpus": 2}, None, 4),  # two packs, in each two of the four runs at a time
        ({"runs_per_job": 2, "cpus": 8}, None, 6),
        ({"runs_per_job": 4, "cpus": 8, "gpus": 1}, None, 2),
        ({"runs_per_job": 4, "cpus": 2, "array_size": 1}, None, 2),
        ({"runs_per_job": 4, "cpus": 2}, 1, 2),
    ):
        executor = SlurmExecutor(jobs, SlurmOptions(cluster="local", **options), workers=workers)
        assert len(executor.places) == count, (options, workers)


def test_a_submission_that_slurm_refuses_leaves_the_jobs_before_it_alone(cluster, tmp_path):
    jobs = make_jobs(count=4)
    executor = make_executor(jobs)
    for job in jobs[:2]:
        executor.start(job)
    executor.wait(0)
    (folder,) = Path("outputs/runs/.sweeps/slurm").iterdir()
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'the queue is full' >&2\nexit 1\n")
    executor.start(jobs[2])
    with pytest.raises(ConfigError, match=r"Slurm refuses the jobs: .*the queue is full"):
        executor.wait(0)
    executor.close()
    assert (folder / "packs.json").exists()
    again = make_executor(jobs)  # the same command waits for those that are queued
    assert [pack.runs for pack in again._packs] == [[jobs[0].run_id, jobs[1].run_id]]


def test_reports_are_there_for_all_sweeps_that_wait_and_then_removed(cluster):
    (job,) = make_jobs(count=1)
    first = make_executor([job])
    first.start(job)
    first.wait(0)
    second = make_executor([job])
    second.start(job)
    (folder,) = Path("outputs/runs/.sweeps/slurm").iterdir()
    report = {"number": 0, "seconds": 2.0, "outcome": {"code": 3, "kind": "DivergedError"}}
    (folder / f"{job.run_id}.json").write_text(json.dumps(report))
    run(job.config)  # for a record
    record = Record.read(job.folder)
    record.status = "diverged"
    record.write(job.folder)
    first._packs[0].job.paths.result_pickle.touch()
    with announced([job]):  # by the second one
        assert [outcome.code for _, outcome in first.wait(1)] == [3]
        first.close()
        assert folder.exists()
        assert [outcome.code for _, outcome in second.wait(1)] == [3]
    second.close()
    assert not folder.exists()


def test_a_process_that_has_the_number_of_a_job_is_not_the_job(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        holder = Holder.of(other.pid)
        try:
            for process, ended in ((holder, False), (replace(holder, began="1"), sys.platform == "linux")):
                folder = tmp_path / ".sweeps" / "slurm" / "sweep"
                folder.mkdir(parents=True, exist_ok=True)
                Submission(folder, "local", {str(other.pid): ["run"]}, {str(other.pid): process}).write()
                (submission,) = Submission.read_all(tmp_path)
                assert submission.has_ended(str(other.pid)) == ended
                assert bool(find_queued([submission])) == (not ended)
        finally:
            other.kill()


def test_limits_send_the_signal_that_runs_are_to_be_stopped_by(monkeypatch):
    (job,) = make_jobs(count=1)
    executor = LocalExecutor([job], workers=1, time_limit=1e-9, stop_by=signal.SIGHUP)
    sent = []
    monkeypatch.setattr(executor.processes, "start", lambda *_: 1)
    monkeypatch.setattr(executor.processes, "signal", lambda *arguments: sent.append(arguments))
    executor.start(job)
    executor.wait(0)
    assert sent == [(1, signal.SIGHUP)]
    executor.close()


def test_a_node_trains_as_many_runs_side_by_side_as_its_memory_has_room_for(monkeypatch):
    monkeypatch.setattr(local, "free_memory", lambda swap: 2**30)
    for places, count in ((8, 2), (1, 1)):
        worker = Worker(Setting.here(gpus=False, places=places))
        executor = worker._make_executor(make_jobs("runtime.device=cpu", count=1))
        assert len(executor.places) == count
        executor.close()


def test_a_search_submits_what_runs_side_by_side(cluster, mtlrun):
    jobs = make_jobs(count=6)
    executor = make_executor(jobs, workers=1)
    executor.hold_back()
    started = [executor.start(job) for job in jobs if executor.has_room(job)]
    assert len(started) == 2, "one pack of two runs"
    executor.close()
    words = [*TOY, "optimizer.lr=interval(0.1,1)", "hydra/launcher=slurm", "hydra.launcher.slurm.partition=x"]
    code, out, err = mtlrun("search", *words)
    assert (code, out) == (2, "")
    assert "hydra.launcher.workers is missing: the number of Slurm jobs side by side" in err
    assert not Path("outputs").exists()


def test_status_shows_what_is_queued_when_the_launcher_is_gone(cluster, mtlrun, tmp_path):
    jobs = make_jobs(count=3)
    executor = make_executor(jobs)
    for job in jobs:
        executor.start(job)
    executor.wait(0)
    (folder,) = Path("outputs/runs/.sweeps/slurm").iterdir()
    (folder / f"{jobs[1].run_id}.json").touch()  # it has ended, and its record was removed since
    code, out, err = mtlrun("status", "outputs")
    assert code == 0, err
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["queued", jobs[0].run_id, "job", "71_0"],
        ["queued", jobs[2].run_id, "job", "71_1"],
    ]
    assert "2 runs: 2 queued" in out
    # Slurm does not know of one any more: somebody has canceled it.
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho 71_1\n")
    squeue.chmod(0o755)
    assert "1 runs: 1 queued" in mtlrun("status", "outputs")[1]
    executor.close()


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ("NODE_FAIL", "Lost", "was lost (NODE_FAIL)"),
        ("OUT_OF_MEMORY", "Slurm", "hydra.launcher.slurm.mem_gb asks for more"),
        ("TIMEOUT", "Slurm", "took longer than hydra.launcher.slurm.minutes=120"),
        ("CANCELLED by 0", "Slurm", "was canceled"),
    ],
)
def test_what_slurm_says_of_a_job_that_is_gone_is_the_reason(cluster, state, kind, reason):
    jobs = make_jobs(count=3)
    executor = make_executor(jobs)
    for job in jobs:
        executor.start(job)
    executor.wait(0)
    Path("state").write_text(state)
    slurm_watcher = executor._packs[0].job.watcher
    slurm_watcher.clear()
    ended = wait_for(lambda: executor.wait(1))
    assert len(ended) == 3
    assert {outcome.kind for _, outcome in ended} == {kind}
    assert all(reason in outcome.error for _, outcome in ended)
    assert all(executor.has_room(job) for job in jobs)
    slurm_watcher.clear()


def test_what_cannot_work_is_refused(mtlrun, monkeypatch):
    words = ["-m", *TOY, "seed=0,1"]
    monkeypatch.setenv("PATH", "")
    for more, problem in {
        ("hydra/launcher=slurm",): "hydra.launcher.slurm.partition is missing",
        ("hydra/launcher=slurm", "hydra.launcher.slurm.partition=x"): "sbatch, srun, sacct, scancel not found",
        ("hydra.launcher.executor=slurm", "hydra.launcher.slurm.runs_per_job=0"): "runs_per_job=0: must be at least 1",
        ("hydra.launcher.executor=slurm", "hydra.launcher.slurm.cluster=pbs"): "must be one of slurm, local",
        ("hydra.launcher.executor=slurm", "+hydra.launcher.slurm.nodes=2"): "unknown: nodes; its keys are partition",
        ("hydra.launcher.executor=ray",): "hydra.launcher.ray.address is missing",
        ("hydra/launcher=ray", "hydra.launcher.ray.address=127.0.0.1:1"): "nothing answers there",
        ("hydra.launcher.executor=cloud",): "must be one of local, slurm, ray",
    }.items():
        code, out, err = mtlrun(*words, *more)
        assert (code, out) == (2, ""), more
        assert problem in err, err
    for name, package in {"slurm": "submitit", "ray": "ray"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        code, _, err = mtlrun(*words, f"hydra/launcher={name}", "hydra.launcher.ray.address=local")
        assert code == 2
        assert f'pip install "mtlrun[{name}]"' in err
    assert not Path("outputs").exists()
