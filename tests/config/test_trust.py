"""What a config may have called: components, where one stands. A refused config runs nothing, and leaves nothing."""

import copy
import re
import sys
from pathlib import Path

import pytest
import yaml
from helpers import QUICK

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.setup.prepare import prepare

EVIL = """
from pathlib import Path

Path("imported").touch()


def call(*arguments, **options):
    Path("called").touch()


class Called:
    def __init__(self, *arguments, **options):
        call()


class Instance:
    __call__ = call


instance = Instance()
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """Write a module of what must not be called."""
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield "evil_module"
    sys.modules.pop("evil_module", None)


def traces():
    return [name for name in ("imported", "called", "outputs", "multirun") if Path(name).exists()]


SHELL = "_target_: os.system, command: touch called"
CALL = {"_target_": "os.system", "command": "touch called"}

# Key, value, and how the message begins.
REFUSED = [
    ("trainer.x", CALL, "trainer.x._target_=os.system"),
    ("trainer.epochs", CALL, "trainer.epochs._target_=os.system"),
    ("trainer._target_", "os.system", "trainer._target_=os.system"),
    ("runtime._target_", "os.system", "runtime._target_=os.system"),
    ("runtime.x", [1, [CALL]], "runtime.x[1][0]._target_=os.system"),
    ("x", CALL, "x._target_=os.system"),
    ("_target_", "os.system", "_target_=os.system"),
    ("tasks._target_", "os.system", "tasks._target_=os.system"),
    ("tasks.left.head._target_", "os.system", "tasks.left.head._target_=os.system"),
    ("tasks.left._target_", "builtins.exec", "tasks.left._target_=builtins.exec"),
    ("tasks.left.lr", {"_target_": "torch.nn.Identity"}, "tasks.left.lr._target_=torch.nn.Identity: no component"),
    ("tasks.left.x", {"y": [CALL]}, "tasks.left.x.y[0]._target_=os.system"),
    ("dataset.size", {"a": CALL}, "dataset.size.a._target_=os.system"),
    ("optimizer.x", {"_target_": "hydra.utils.get_method", "path": "os.system"}, "optimizer.x._target_=hydra"),
    ("model._target_", "hydra.utils.instantiate", "model._target_=hydra.utils.instantiate must be a class"),
    ("model._target_", "mtlrun.config.targets.sys.exit", "model._target_=mtlrun.config.targets.sys.exit must"),
    ("model._target_", "mtlrun.tasks.Regression", "model._target_=mtlrun.tasks.Regression must be a class"),
    ("model._target_", 3, "model._target_=3: it must be the importable name"),
    ("backbone._target_", "torch.load", "backbone._target_=torch.load must be"),
    ("backbone._target_", "torch.hub.load", "backbone._target_=torch.hub.load must be"),
    ("scheduler._target_", "functools.partial", "scheduler._target_=functools.partial: functools is a module"),
    ("weighting._target_", "subprocess:Popen", "weighting._target_=subprocess:Popen: it must be the importable name"),
    ("weighting", {"_target_": "mtlrun.weightings.PCGrad", "losses": {"_target_": "mtlrun.weightings.PCGrad"}},
     "weighting.losses._target_=mtlrun.weightings.PCGrad must be a class that derives from LossWeighting"),
    ("dataset._partial_", True, "dataset._partial_: an object is needed here"),
    ("tasks.left.head._partial_", "yes", "tasks.left.head._partial_ must be true or false"),
    ("weighting.x", [{"_target_": "unknown.Class"}], "weighting.x[0]._target_=unknown.Class: no component stands here"),
    ("optimizer.lr", {"a": {"_target_": "unknown.Class"}}, "optimizer.lr.a._target_=unknown.Class: no component"),
    ("model._target_", "evil_module.call", "model._target_=evil_module.call must"),
    ("model._target_", "evil_module.Called", "model._target_=evil_module.Called must"),
    ("model._target_", "evil_module.instance", "model._target_=evil_module.instance must"),
]  # fmt: skip


def test_what_is_no_component_is_refused_and_not_called(evil):
    config = compose(QUICK)
    for key, value, message in REFUSED:
        changed = copy.deepcopy(config)
        *path, last = key.split(".")
        node = changed
        for name in path:
            node[name] = node.get(name) or {}
            node = node[name]
        node[last] = value
        with pytest.raises(ConfigError) as refused:
            prepare(changed)
        assert any(problem.startswith(message) for problem in refused.value.problems), refused.value
        # A module that is named where a component may stand has to be imported, to see whether it has one.
        assert traces() == (["imported"] if evil in str(value) else []), key
        Path("imported").unlink(missing_ok=True)
        sys.modules.pop(evil, None)


TABLE = ["dataset=csv", "dataset.path=x.csv", "dataset.predict=[a]"]


def test_nothing_is_called_while_a_config_is_composed(evil, monkeypatch):
    monkeypatch.setenv("EVIL_TARGET", "os.system")
    for words, message in (
        (["tasks.left.head._target_=${oc.env:EVIL_TARGET}"], "tasks.left.head._target_=os.system"),
        (["seed=${eval:1}"], "eval"),
        ([*TABLE, "dataset.task_finder=os.system"], "dataset.task_finder=os.system"),
        ([*TABLE, "dataset.task_finder=evil_module.call"], "dataset.task_finder=evil_module.call must be"),
        ([*TABLE, "+trainer.x={" + SHELL + "}"], "trainer.x._target_=os.system"),
        (["+names.model=forged"], "names: unknown key"),
        (["+found.left=forged"], "found: unknown key"),
        (["+chosen.batch_size=3"], "chosen: unknown key"),
    ):
        with pytest.raises(ConfigError) as refused:
            prepare(compose(words))
        assert message in str(refused.value)
        assert traces() == (["imported"] if evil in str(words) else []), words
        Path("imported").unlink(missing_ok=True)


def test_the_names_of_a_run_are_those_of_its_options():
    assert compose(["+hydra.runtime.choices.model=forged"])["names"]["model"] == "hard"


def test_the_command_line_calls_nothing_either(mtlrun):
    for words in ("+trainer.x={" + SHELL + "}", "tasks.left.head._target_=os.system"):
        code, _, err = mtlrun(*QUICK, words)
        assert (code, "_target_=os.system" in err, traces()) == (2, True, []), err


def test_modules_of_the_users_are_not_imported_for_a_config_that_is_refused_anyway(mtlrun, evil):
    for words in (["+typo=1"], ["+trainer.x={" + SHELL + "}"], ["weighting._target_=torch.load"]):
        code, _, err = mtlrun(*QUICK, "model._target_=evil_module.Called", *words)
        assert (code, traces()) == (2, []), err


ROOT = ["++hydra.job_logging.root={level: INFO}"]
HYDRA = [
    ["+hydra.callbacks.x={" + SHELL + "}"],
    ["+hydra.callbacks.x={_target_: evil_module.Called}"],
    ["+hydra.callbacks.x={_target_: hydra.experimental.callbacks.LogJobReturnCallback, y: {" + SHELL + "}}"],
    ["hydra.launcher._target_=evil_module.Called", "-m"],
    ["hydra.sweeper._target_=os.system", "-m", "seed=0,1"],
    ["+hydra.launcher.x={" + SHELL + "}", "-m", "seed=0,1"],
    ["+hydra.job_logging.handlers={h: {class: subprocess.Popen, args: [touch, called]}}", *ROOT],
    ["+hydra.job_logging.formatters={f: {class: evil_module.Called}}", *ROOT],
    ["+hydra.job_logging.filters={f: {x: 'ext://evil_module.instance'}}", *ROOT],
    ["+hydra.hydra_logging.handlers={h: {class: logging.StreamHandler, stream: '${hydra.job.name}'}}",
     "++hydra.hydra_logging.root={level: INFO}", "-m", "seed=0,1"],
    ["+hydra.x={" + SHELL + "}"],
]  # fmt: skip


@pytest.mark.parametrize("words", HYDRA)
def test_hydra_calls_plugins_and_callbacks_only(words, mtlrun, evil):
    code, _, err = mtlrun(*QUICK, *words)
    refused = re.search(r"hydra[.].*=.*(nothing stands|plugins|logging|module of Python|derives)", err)
    assert (code, refused is not None) == (2, True), err
    assert traces() == (["imported"] if "callbacks.x={_target_: evil" in words[0] else [])


@pytest.mark.slow
def test_a_callback_of_ones_own_is_called(mtlrun, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_callback.py").write_text(
        "from hydra.experimental.callback import Callback\n\n\n"
        "class Mine(Callback):\n    def on_job_start(self, **options):\n        open('called', 'w').close()\n"
    )
    code, _, err = mtlrun(*QUICK, "trainer.epochs=1", "+hydra.callbacks.mine._target_=my_callback.Mine")
    assert (code, Path("called").exists()) == (0, True), err


@pytest.mark.parametrize(
    "words", [["--experimental-rerun", "config.pickle"], ["--config-path", "."], ["--config-name=x"]]
)
def test_options_of_hydra_that_run_files_or_replace_the_root_are_refused(words, mtlrun):
    import pickle

    class Evil:
        def __reduce__(self):
            return open, ("called", "w")

    Path("config.pickle").write_bytes(pickle.dumps(Evil()))
    code, _, err = mtlrun(*QUICK, *words)
    assert (code, words[0].split("=")[0] in err, traces()) == (2, True, []), err


FUNCTIONS = """
import torch
from mtlrun import component


@component
def marked(points):
    return points.square().sum(dim=1)


def plain(points):
    return marked(points)
"""


def test_functions_stand_where_functions_are_expected_if_they_are_marked(mtlrun, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_functions.py").write_text(FUNCTIONS)
    words = ["dataset=toy2d", "trainer.epochs=1", "trainer.limit_batches=1", "runtime.quiet=true",
             "~tasks.first.function"]  # fmt: skip
    for name, expected in (("marked", 0), ("plain", 2)):
        function = f"+tasks.first.function={{_target_: my_functions.{name}, _partial_: true}}"
        code, _, err = mtlrun(*words, function)
        assert code == expected, err
    assert "marked by @mtlrun.component" in err


def test_an_argument_without_annotation_takes_components_only(mtlrun, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_model.py").write_text(
        "from mtlrun.models import HardSharing\n\n\n"
        "class Mine(HardSharing):\n    def __init__(self, tasks, backbone, extra=None):\n"
        "        super().__init__(tasks, backbone)\n        print(type(extra).__name__)\n"
    )
    file = tmp_path / "conf" / "model" / "mine.yaml"
    file.parent.mkdir(parents=True)
    for target, expected in (("torch.nn.Identity", 0), ("mtlrun.errors.ConfigError", 2), ("os.system", 2)):
        file.write_text(yaml.safe_dump({"_target_": "my_model.Mine", "extra": {"_target_": target}}))
        code, out, err = mtlrun("--config-dir", "conf", *QUICK, "trainer.epochs=1", "model=mine")
        assert (code, "Identity" in out) == (expected, not expected), err
        assert expected == 0 or f"model.extra._target_={target}" in err
