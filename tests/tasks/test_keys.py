"""What a task's constructor takes is a key that can be set without `+`, and every kind can be added by name."""

import inspect
from pathlib import Path

import pytest
from helpers import read_record, run_folders, shipped_node

import mtlrun.tasks
from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build, constructor_parameters, locate
from mtlrun.tasks import Task

CONF = Path(__file__).parents[2] / "conf"
FILES = [*sorted(CONF.glob("dataset/[!_]*.yaml")), *sorted(CONF.glob("task/[!_]*.yaml"))]
# A head may be chosen by the model, and what stands at a pixel without a label is a matter of the files.
LEFT_OUT = {"head", "ignore_index"}


def nodes(path):
    """Return the tasks of a file by name, none where they are the user's."""
    if path.parent.name == "task":
        return {path.stem: shipped_node("task", path.stem)}
    return compose([f"dataset={path.stem}"])["tasks"]


def test_every_argument_of_a_task_is_a_key_of_its_file():
    missing = {}
    for path in FILES:
        for name, node in nodes(path).items():
            parameters = set(constructor_parameters(locate(node["_target_"], name)))
            missing[f"{path.parent.name}/{path.stem}: {name}"] = parameters - LEFT_OUT - set(node)
    assert {place: keys for place, keys in missing.items() if keys} == {}


def test_keys_that_choose_a_loss_are_explained_where_they_come_first():
    unexplained = []
    for path in FILES:
        lines = [line.strip() for line in path.read_text().splitlines()]
        for key in ("class_weights", "criterion", "focal_gamma"):
            places = [number for number, line in enumerate(lines) if line.startswith(f"{key}:")]
            if places and not lines[places[0] - 1].startswith("# "):
                unexplained.append(f"{path.parent.name}/{path.stem}: {key}")
    assert unexplained == []


def test_every_kind_has_a_name():
    kinds = [getattr(mtlrun.tasks, name) for name in mtlrun.tasks.__all__]
    expected = {kind for kind in kinds if issubclass(kind, Task) and not inspect.isabstract(kind)}
    # What an objective is made of is a function, which none of the shipped names stands for.
    expected -= {mtlrun.tasks.Objective}
    assert {locate(nodes(path)[path.stem]["_target_"], "") for path in CONF.glob("task/[!_]*.yaml")} == expected


@pytest.mark.parametrize("kind", ["segmentation", "depth", "normals"])
def test_dense_kinds_are_added_by_name(kind):
    config = compose(["dataset=scenes", f"+task@tasks.more={kind}", "optimizer.lr=0.5"])
    task = build(config["tasks"]["more"], "tasks.more")
    assert task.dense
    assert task.lr == 0.5


TABLE = "x,kind,quick,grade,visits,a,b\n" + "".join(
    f"{row},{'uvw'[row % 3]},{row % 2},{row % 4},{row % 5},{row % 2},{row // 2 % 2}\n" for row in range(40)
)
RUN = [
    "dataset=csv", "dataset.path=rows.csv", "trainer.epochs=1", "trainer.batch_size=16", "runtime.quiet=true",
    "dataset.inputs=[x]", "+dataset.targets.both=[a,b]",
    "+task@tasks.kind=classification", "tasks.kind.num_classes=3", "tasks.kind.criterion=focal",
    "tasks.kind.class_weights=balanced", "+task@tasks.quick=binary", "tasks.quick.class_weights=[1,2]",
    "+task@tasks.both=multilabel", "tasks.both.criterion=focal", "tasks.both.focal_gamma=1",
    "+task@tasks.grade=ordinal", "tasks.grade.num_levels=4", "tasks.grade.criterion=corn",
    "+task@tasks.visits=count",
]  # fmt: skip


def test_kinds_of_tables_are_added_by_name_and_their_losses_chosen(mtlrun):
    Path("rows.csv").write_text(TABLE)
    code, _, err = mtlrun(*RUN)
    assert code == 0, err
    (folder,) = run_folders()
    assert set(read_record(folder)["test"]) == {"kind", "quick", "both", "grade", "visits"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["left.criterion=hinge"], "left.criterion must be one of 'cross_entropy', 'focal', found 'hinge'"),
        (["left.focal_gamma=-2"], "left.focal_gamma must be >= 0, found -2"),
        (
            ["right.criterion=focal", "right.label_smoothing=0.1"],
            "right.label_smoothing must be 0 with criterion=focal, found 0.1",
        ),
    ],
)
def test_an_unknown_loss_is_refused_with_its_key(overrides, message, mtlrun):
    code, _, err = mtlrun(*(f"tasks.{override}" for override in overrides))
    assert code == 2
    assert f"tasks.{message}" in err
    assert not run_folders()
