"""The lists of options in README.md and docs/ are those that the command prints, and studies sweep what they claim."""

import re
import subprocess
import sys
from pathlib import Path

from mtlrun.cli.list import KINDS
from mtlrun.config.compose import compose_with_hydra
from mtlrun.config.options import entries, sweepable

ROOT = Path(__file__).parents[2]


def test_lists_are_up_to_date():
    command = [sys.executable, "scripts/update_lists.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_is_listed_in_the_components():
    listed = re.findall(r"<!-- mtlrun list --markdown (\w+) -->", (ROOT / "docs" / "components.md").read_text())
    assert listed == list(KINDS)
    assert "<!-- mtlrun list --markdown -->" in (ROOT / "README.md").read_text()


def test_studies_and_experiments_declare_how_they_run():
    required = {"study": ("sweeps", "command", "expect", "time"), "experiment": ("command", "expect", "time")}
    missing = [
        f"conf/{group}/{entry.name}.yaml: no line `# {fact}: ...` in its head"
        for group, facts in required.items()
        for entry in entries(group)
        for fact in facts
        if not entry.facts.get(fact)
    ]
    missing += [
        f"conf/{group}/{entry.name}.yaml: its command does not run it"
        for group in required
        for entry in entries(group)
        if f"{group}={entry.name}" not in entry.facts.get("command", "")
    ]
    assert missing == []


def test_a_study_sweeps_over_what_it_claims():
    wrong = []
    for entry in entries("study"):
        params = compose_with_hydra([f"study={entry.name}"]).hydra.sweeper.params
        claims = entry.facts["sweeps"].split(", ")
        kinds = [claim.removeprefix("all ") for claim in claims if claim.startswith("all ")]
        for kind in kinds:
            swept, options = str(params.get(KINDS[kind], "")).split(","), sweepable(KINDS[kind])
            wrong += [f"{entry.name} claims all {kind} and leaves out {name}" for name in options if name not in swept]
        folds = {"dataset.fold"} if "folds" in claims else set()
        unclaimed = set(params) - {KINDS[kind] for kind in kinds} - {"seed"} - folds
        wrong += [f"{entry.name} sweeps over {group}, which its head does not claim" for group in unclaimed]
    assert wrong == []
