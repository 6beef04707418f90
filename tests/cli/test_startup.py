"""What a command imports: a run nothing that it does not use, and what only answers neither PyTorch nor NumPy."""

import json
import subprocess
import sys

import pytest
from helpers import QUICK, run_folders

# Runs the command lines in argv[1], and writes the modules that were imported at the first step and at the end.
PROGRAM = """
import json, sys
from mtlrun.cli.main import dispatch

commands, file, trains = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3] == "trains"
modules = {}
if trains:
    from mtlrun.runs.run import run
    modules["imported"] = sorted(sys.modules)
    from mtlrun.training.trainer import Trainer

    def train_step(self, *arguments):
        plain(self, *arguments)
        modules.setdefault("first step", sorted(sys.modules))

    plain, Trainer.train_step = Trainer.train_step, train_step
codes = []
for command in commands:
    try:
        codes.append(dispatch(command))
    except SystemExit as error:
        codes.append(error.code)
modules["end"] = sorted(sys.modules)
json.dump({"codes": codes, "modules": modules}, open(file, "w"))
"""


def imported(tmp_path, commands, *, trains):
    """Run commands in a process of their own; return their exit codes, and the modules at some moments."""
    file = tmp_path / "modules.json"
    arguments = [json.dumps(commands), str(file), "trains" if trains else "answers"]
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True)
    result = json.loads(file.read_text())
    return result["codes"], {moment: set(modules) for moment, modules in result["modules"].items()}


def room(modules, name):
    """Return the modules of a room of mtlrun, without the name of the room; its packages are left out."""
    prefix = f"mtlrun.{name}."
    inside = {module.removeprefix(prefix) for module in modules if module.startswith(prefix)}
    return {module for module in inside if not any(other.startswith(f"{module}.") for other in inside)}


@pytest.mark.slow
def test_a_default_run_imports_what_it_uses(tmp_path):
    codes, modules = imported(tmp_path, [["trainer=smoke", "runtime.quiet=true"]], trains=True)
    assert codes == [0]

    # PyTorch's optimizers import its compiler themselves, when the first one is made.
    assert not {"torch._dynamo", "torchmetrics"} & modules["imported"]
    # torchmetrics, which imports SciPy and torchvision, comes with the first evaluation.
    unused = {"sklearn", "pandas", "pycocotools"}
    # torchmetrics also imports Matplotlib, where that is installed.
    assert not (unused | {"torchmetrics", "scipy", "torchvision", "PIL", "matplotlib"}) & modules["first step"]
    assert not unused & modules["end"]

    assert room(modules["end"], "weightings") == {
        "base", "capabilities", "combine", "equal", "inner_products", "precision", "state.active_tasks",
        "state.generators", "state.learner", "transfer",
    }  # fmt: skip
    blocks = {"blocks.batchnorm_statistics", "blocks.checkpointed", "blocks.last_layer", "blocks.layers"}
    assert room(modules["end"], "models") - blocks == {
        "base", "computation", "gradient_scale", "hard", "backbones.base", "backbones.lenet", "backbones.width",
        "heads.dense", "heads.detection", "heads.mlp",
    }  # fmt: skip
    datasets = {module for module in room(modules["end"], "datasets") if not module.startswith("batches.")}
    assert datasets == {
        "base", "input_columns", "multidigits", "generation.overlay", "generation.room", "generation.splitting",
        "split_names", "tables.inputs.keys",
    }  # fmt: skip
    elsewhere = ("losses.", "metrics.", "resampling.")
    tasks = {module for module in room(modules["end"], "tasks") if not module.startswith(elsewhere)}
    assert tasks == {"averaging", "base", "class_task", "classification", "counting"}


def test_commands_that_train_nothing_import_neither_torch_nor_numpy(tmp_path, mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    (folder,) = run_folders()
    commands = [["--help"], ["--version"], ["list", "models", "weightings"], ["compare", str(folder)], ["--cfg", "job"]]
    without_answer = [["affinity", str(folder), "--by", "training,performance"], ["no_command"]]
    codes, modules = imported(tmp_path, [*commands, *without_answer], trains=False)
    assert codes == [0] * len(commands) + [2, 2]
    packages = {module.split(".")[0] for module in modules["end"]}
    assert not {"torch", "numpy", "torchvision", "torchmetrics", "tensorboard", "sklearn", "pandas"} & packages
    assert not [name for name in ("datasets", "models", "tasks", "weightings") if f"mtlrun.{name}" in modules["end"]]
