r"""All checks that need a GPU, in under ten minutes, and one page of results.

    scripts/gpu_check --out results
    scripts/gpu_check --out results --wheels wheels
    scripts/gpu_check --out results --rehearse

For a machine with one GPU and PyTorch, from a checkout alone: nothing is installed in its environment, and no network
is needed. What is not installed there is taken from a folder of wheels and put into a temporary folder. Elsewhere, for
the same version of Python, that folder is made by

    pip wheel --no-deps --wheel-dir wheels hydra-core 'omegaconf<2.4' 'antlr4-python3-runtime==4.9.*' \
        pycocotools torchjd quadprog qpsolvers cvxpy clarabel ecos osqp scs

of which the first line is needed; the rest is for detection and for TorchJD.

The parts run one after the other, the two that time nothing side by side: the tests marked `gpu`, the ways of use that
only a GPU shows, the benchmarks, and a profile. Each is a process with a time limit. `results.md` is written anew after
each part, also where one fails or is cut off; beside it lie the JSON files and the logs. --rehearse does the same at
sizes for a CPU. The exit code is 1 if a test or a way of use failed, whatever the benchmarks found.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: What a part may take beyond the budget that it knows of, to end and be ended.
_GRACE = 15.0
#: Seconds without which no other part is begun.
_LEAST = 5.0


@dataclass(frozen=True)
class Part:
    """One of the checks, a process.

    Args:
        name: of its files.
        title: on the page.
        words: of the command; a script of this folder, or a module after -m. {out} stands for the folder of results.
        seconds: time limit.
        budgeted: True for a script that takes --seconds and --json.
        must_pass: True if its failure is one of the whole check.
    """

    name: str
    title: str
    words: tuple[str, ...]
    seconds: float
    budgeted: bool = True
    must_pass: bool = False


@dataclass
class Outcome:
    """How a part ended: the exit code, None where it was cut off or not begun, and the seconds that it took."""

    part: Part
    code: int | None = None
    seconds: float = 0.0
    begun: bool = False

    @property
    def text(self) -> str:
        """The outcome in words."""
        if not self.begun:
            return "no time was left"
        return "cut off" if self.code is None else "done" if self.code == 0 else f"FAILED, exit code {self.code}"


def gpu_tests() -> list[str]:
    """Return the files with a test marked `gpu`; others may need packages that are not there."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


def make_parts(*, rehearse: bool) -> list[list[Part]]:
    """Return the parts in groups, of which those of a group run side by side, in the order of what matters most."""
    device = ("--device", "cpu" if rehearse else "cuda")
    tiny = ("--divide", "128", "--width", "0.05", "--rounds", "1") if rehearse else ()

    def sized(full: str, small: str = "") -> tuple[str, ...]:
        return tuple(shlex.split(small if rehearse else full))

    # A warning that nobody has seen yet is shown, and fails no test.
    pytest = shlex.split("-m pytest -q -m gpu -W default -p no:cacheprovider --continue-on-collection-errors")
    pytest += ["-p", "xdist.plugin", "-p", "pytest_timeout"]
    tests = (*pytest, *sized("-n 6", "-n 0"), *gpu_tests())
    uses = sized("", "--together 1 --uses 'evaluated on the CPU'")
    networks = sized("", "--networks resnet18 --tasks 2 --weightings equal mgda --warmup 0")
    keys = sized("", "--networks resnet18 --weightings equal --columns 'fused optimizer'")
    flat = sized("", "--networks resnet18 --tasks 2")
    loading = sized(
        "--rows 50000 --workers 0 4 12", "--images 40 --rows 200 --words backbone=resnet18 backbone.width=0.05"
    )
    scaling = sized("--rounds 2", "--tasks 2 --widths 1 --divide 128 --width 0.05 --rounds 1")
    scaling += ("--picture", "{out}/cost.png")
    profiled = sized("", "--divide 128 --width 0.05 --weightings mgda")
    return [
        [
            Part("tests", "Tests marked gpu", tests, 130, budgeted=False, must_pass=True),
            Part("uses", "Ways of use", ("check_uses.py", *device, *uses), 130, must_pass=True),
        ],
        [Part("networks", "Whole steps", ("benchmark_networks.py", *device, *tiny, *networks), 140)],
        [Part("keys", "Keys of trainer", ("benchmark_keys.py", *device, *tiny, *keys), 150)],
        [Part("profile", "Profile", ("profile_step.py", *device, *profiled), 35, budgeted=False)],
        [Part("flat", "Flat vectors on the CPU", ("benchmark_flat_vectors.py", *device, *tiny, *flat), 35)],
        [Part("loading", "Loading", ("benchmark_loading.py", *device, *loading), 40)],
        [Part("scaling", "Tasks and parameters", ("benchmark_scaling.py", *device, *scaling), 50)],
    ]


class Check:
    """The run of all parts, and its page.

    Args:
        groups: as `make_parts` returns them.
        out: folder of the page, the JSON files and the logs.
        end: by `time.monotonic()`, when all must have ended.
        path: folders for PYTHONPATH.
        facts: lines of the page on machine and versions.
    """

    def __init__(
        self, groups: Sequence[Sequence[Part]], out: Path, end: float, path: Sequence[Path], facts: Sequence[str]
    ) -> None:
        self.groups, self.out, self.end, self.facts = groups, out, end, facts
        self.outcomes = {part.name: Outcome(part) for group in groups for part in group}
        python_path = os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])
        # Other plugins of pytest, of which a machine may have many, are not wanted, and take seconds to load.
        alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self.environment = os.environ | alone | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}

    def run(self) -> int:
        """Run all parts; return the exit code."""
        self.write()
        for group in self.groups:
            begin = time.monotonic()
            enough = self.end - begin > _LEAST
            running = [(self.outcomes[part.name], self.start(part)) for part in group if enough]
            for outcome, process in running:
                self.finish(outcome, process, begin)
                print(f"{outcome.part.name}: {outcome.text}, {outcome.seconds:.0f} s", flush=True)
                self.write()
        failed = [outcome for outcome in self.outcomes.values() if outcome.part.must_pass and outcome.code != 0]
        return 1 if failed else 0

    def left(self, part: Part) -> float:
        """Return the seconds that a part may take."""
        return min(part.seconds, self.end - time.monotonic())

    def start(self, part: Part) -> "subprocess.Popen[bytes]":
        """Start a part, whose output goes to its log."""
        words = [sys.executable, *(word.replace("{out}", str(self.out)) for word in part.words)]
        if part.words[0].endswith(".py"):
            words[1] = str(ROOT / "scripts" / words[1])
            words += ["--json", str(self.out / f"{part.name}.json")]
        if part.budgeted:  # with time to end by itself
            words += ["--seconds", f"{max(1.0, self.left(part) - _GRACE):.0f}"]
        with (self.out / f"{part.name}.log").open("wb") as log:
            log.write(f"{shlex.join(words)}\n\n".encode())
            log.flush()
            self.outcomes[part.name].begun = True
            return subprocess.Popen(
                words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )

    def finish(self, outcome: Outcome, process: "subprocess.Popen[bytes]", begin: float) -> None:
        """Wait for a part until its time is over, and end it and all that it started.

        pytest names what has failed by then if it is interrupted; the benchmarks write what they have at SIGTERM.
        """
        limit = min(outcome.part.seconds, self.end - begin)
        with suppress(subprocess.TimeoutExpired):
            outcome.code = process.wait(timeout=max(0.1, begin + limit - time.monotonic()))
        asking = signal.SIGTERM if outcome.part.budgeted else signal.SIGINT
        for number in (asking, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(timeout=5)
        outcome.seconds = time.monotonic() - begin

    def write(self) -> None:
        """Write the page as it stands."""
        lines = ["# Checked on a GPU", "", *self.facts, ""]
        found = {name: self.read(name) for name in self.outcomes}
        aims = [aim for content in found.values() for aim in content.get("aims", [])]
        if aims:
            lines += ["| aim | found | met |", "|---|---|---|"]
            met = {True: "yes", False: "**no**", None: "not measured"}
            lines += [f"| {aim['text']} | {aim['found']} | {met[aim['met']]} |" for aim in aims]
        lines += ["", "| part | outcome | seconds |", "|---|---|---|"]
        lines += [f"| {one.part.title} | {one.text} | {one.seconds:.0f} |" for one in self.outcomes.values()]
        for name, outcome in self.outcomes.items():
            if outcome.begun:
                lines += ["", f"## {outcome.part.title}", "", *self.section(outcome, found[name])]
        partial = self.out / "results.part"
        partial.write_text("\n".join(lines) + "\n")
        partial.replace(self.out / "results.md")

    def section(self, outcome: Outcome, content: dict[str, Any]) -> list[str]:
        """Return what the page says of one part: its command, tables and notes, and the end of its log."""
        lines = []
        if "command" in content:
            lines += [f"    {content['command']}", "", content["machine"], ""]
        for table in content.get("tables", []):
            rows = [table["header"], ["---"] * len(table["header"]), *table["rows"]]
            lines += [f"**{table['title']}**", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
        for note in content.get("notes", []):
            lines += [f"- {note}"]
        if not content or outcome.code != 0:
            log = (self.out / f"{outcome.part.name}.log").read_text(errors="replace").splitlines()
            lines += ["", "```", *log[-25 if outcome.code != 0 else -5 :], "```"]
        return lines

    def read(self, name: str) -> dict[str, Any]:
        """Return the JSON of a part; nothing if it has written none."""
        try:
            content: dict[str, Any] = json.loads((self.out / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return content


def unpack(wheels: Path, folder: Path) -> list[str]:
    """Install the wheels below `folder`; return a line for each that does not fit this Python."""
    found = [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    if not subprocess.run([*pip, *found], capture_output=True, check=False).returncode:
        return []
    problems = []
    for wheel in found:
        done = subprocess.run([*pip, wheel], capture_output=True, text=True, check=False)
        if done.returncode:
            problems.append(f"{wheel} could not be unpacked: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return problems


def name_package(folder: Path) -> None:
    """Let the checkout be known as an installed package, of which it reads its version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")


def output(*command: str) -> str:
    """Return what a program prints; nothing where there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def describe(rehearse: bool) -> list[str]:
    """Return what the page says on the machine, the versions and the command."""
    commit = output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    gpu = output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    kind = "A rehearsal at sizes for a CPU: no figure here says anything.\n\n" if rehearse else ""
    return [
        f"{kind}    {shlex.join(['scripts/gpu_check', *sys.argv[1:]])}",
        "",
        f"GPU: {gpu or 'none found'}. {os.cpu_count()} CPUs, {platform.platform()}, "
        f"Python {platform.python_version()}. Commit {commit or 'unknown'}, {time.strftime('%Y-%m-%d %H:%M')}.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder for the page and its data")
    wheels = os.environ.get("MTLRUN_WHEELS")
    parser.add_argument("--wheels", type=Path, default=wheels and Path(wheels), help="folder; default $MTLRUN_WHEELS")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which all has ended")
    parser.add_argument("--parts", nargs="+", help="only these: tests, uses, networks, keys, ...")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    groups = make_parts(rehearse=arguments.rehearse)
    if arguments.parts:
        names = [part.name for group in groups for part in group]
        if unknown := set(arguments.parts) - set(names):
            parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(names)}")
        groups = [[part for part in group if part.name in arguments.parts] for group in groups]
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    conf = ROOT / "src" / "mtlrun" / "conf"
    linked = not conf.exists()  # an installation has a copy there, a checkout has conf/ beside src/
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        problems = unpack(arguments.wheels, site) if arguments.wheels else []
        name_package(site)
        sys.path.insert(0, str(site))
        if missing := [package for package in ("hydra", "omegaconf", "torch") if find_spec(package) is None]:
            parser.error(f"{', '.join(missing)} cannot be imported; give a folder of wheels by --wheels, see --help")
        if linked:
            conf.symlink_to(Path("..") / ".." / "conf")
        try:
            facts = [*describe(arguments.rehearse), *(f"\n{problem}" for problem in problems)]
            code = Check(groups, out, end, [ROOT / "src", site], facts).run()
        finally:
            if linked:
                conf.unlink()
    print(out / "results.md")
    return code


if __name__ == "__main__":
    sys.exit(main())
