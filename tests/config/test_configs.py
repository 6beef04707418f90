"""The shipped YAML: every option composes, builds and trains."""

from functools import cache
from itertools import product

import hydra_shortcuts
import pytest
import yaml
from helpers import CONF, QUICK, choose_weighting, diagonal, read_record, run_folders, sample_of, shipped_node

import mtlrun.tasks
import mtlrun.weightings
from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build, check_arguments, locate
from mtlrun.config.schema import GROUPS
from mtlrun.errors import ConfigError
from mtlrun.weightings.capabilities import ObservesLossesAfterStep

SMOKE = [option for option in QUICK if not option.startswith("trainer.")] + ["trainer=smoke"]


def options(group):
    return [entry.name for entry in entries(group)]


#: Studies that are for some datasets only, with one of them.
DATASETS = {"study=folds": ["dataset=csv"]}


@cache
def composed(group, name):
    return compose([*DATASETS.get(f"{group}={name}", []), f"{group}={name}"])


@cache
def facts_of(group, name):
    (facts,) = [entry.facts for entry in entries(group) if entry.name == name]
    return facts


@pytest.mark.parametrize("group", [*GROUPS, "experiment", "study"])
def test_every_option_composes_and_its_arguments_are_the_constructors(group):
    violations = []
    for name in options(group):
        try:
            config = composed(group, name)
        except ConfigError as error:
            violations.append(f"{group}={name}: {error}")
            continue
        if group in ("weighting", "model", "backbone"):
            expected = shipped_node(group, name)
            literal = {key: value for key, value in expected.items() if "${" not in str(value)}
            if config[group].keys() != expected.keys() or config[group] | literal != config[group]:
                violations.append(f"{group}={name}: the helper's node {expected} is not {config[group]}")
        for node_name, node in config.items():
            if isinstance(node, dict) and "_target_" in node:
                arguments = {key: value for key, value in node.items() if key != "_target_"}
                target = locate(node["_target_"], node_name)
                problems = check_arguments(target, arguments, node_name, complete=False)
                violations += [f"{group}={name}: {problem}" for problem in problems]
    assert violations == []


def test_every_option_has_a_summary_or_a_paper():
    heads = {
        f"{group}/{entry.name}": entry.summary or entry.facts.get("paper", "")
        for group in (*GROUPS, "experiment", "study")
        for entry in entries(group)
    }
    assert {name: head for name, head in heads.items() if len(head) <= 10} == {}


#: Models that are run with every weighting; the others with one of each kind.
THOROUGH = {"hard", "single", "soft", "cross_stitch"}
ONE_OF_EACH_KIND = ["equal", "graddrop", "pcgrad", "uncertainty"]
PAIRS = [
    (model, weighting)
    for model, weighting in product(options("model"), options("weighting"))
    if model in THOROUGH or weighting in ONE_OF_EACH_KIND
]
#: Each model with one kind of weighting, each kind with several models.
DIAGONAL = diagonal(options("model"), ONE_OF_EACH_KIND)


def is_sampled(model, weighting):
    return model == "hard" or weighting == "equal" or (model, weighting) in DIAGONAL


@pytest.mark.parametrize(("model", "weighting"), sample_of(is_sampled, PAIRS))
def test_every_model_trains_with_every_weighting_or_the_pair_is_refused(model, weighting, mtlrun):
    check_pair("multidigits", model, weighting, mtlrun, *SMOKE, "backbone.hidden=[16,8]")


SCENES = [
    "trainer=smoke", "trainer.batch_size=4", "trainer.eval_batch_size=4", "runtime.quiet=true", "backbone.width=0.0625",
    "dataset.size=24", "dataset.num_train=10", "dataset.num_val=5", "dataset.num_test=5",
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "weighting"),
    sample_of(lambda *pair: pair in DIAGONAL, product(options("model"), ONE_OF_EACH_KIND)),
)
def test_every_model_trains_on_dense_tasks(model, weighting, mtlrun):
    check_pair("scenes", model, weighting, mtlrun, *SCENES)


def check_pair(dataset, model, weighting, mtlrun, *overrides):
    words = choose_weighting(weighting, primary="left")
    code, _, err = mtlrun(*overrides, f"dataset={dataset}", f"model={model}", *words)
    facts, shares = facts_of("weighting", weighting), facts_of("model", model)["shares"]
    gradients = facts["sees"] != "losses"
    representation = "representation" in facts["models"] and "one representation" not in shares
    if (model == "single" and weighting != "equal") or ("nothing" in shares and gradients) or representation:
        assert code == 2
        assert f"weighting={weighting}" in err or "weighting.grad_wrt" in err
        assert f"model={model}" in err
        assert not run_folders()
    else:
        assert code == 0, err
        assert read_record(run_folders()[0])["status"] == "completed"


KINDS = {
    "losses": mtlrun.weightings.LossWeighting,
    "inner products": mtlrun.weightings.GradientWeighting,
    "gradients": mtlrun.weightings.JacobianWeighting,
}


def test_facts_that_list_shows_of_weightings_are_true():
    violations = []
    for entry in entries("weighting"):
        target = locate(composed("weighting", entry.name)["weighting"]["_target_"], "weighting")
        sees, passes = entry.facts.get("sees", ""), entry.facts.get("passes", "")
        expected = {"one": "1", "one per task": "K"}[target.backward_passes]
        if issubclass(target, mtlrun.weightings.PartsWeighting):
            expected = f"{target.num_parts} K, on parts of the batch"
        statements = {
            f"sees {sees}": issubclass(target, KINDS.get(sees, ())),
            f"{passes} backward passes, not {expected}": passes.startswith(expected),
            "a second forward pass": ("2 forward" in passes) == issubclass(target, ObservesLossesAfterStep),
            "paper": bool(entry.facts.get("paper")),
        }
        violations += [f"{entry.name}: {statement}" for statement, true in statements.items() if not true]
    assert violations == []


def test_every_weighting_has_the_keys_that_compose_with_all_of_its_kind():
    expected = {
        "losses": {"loss_transform"},
        "inner products": {"loss_transform", "head_loss", "update_weights_every", "grad_wrt"},
        "gradients": {"loss_transform", "grad_wrt"},
    }
    missing = {
        name: expected[facts_of("weighting", name)["sees"]] - set(composed("weighting", name)["weighting"])
        for name in options("weighting")
    }
    assert {name: keys for name, keys in missing.items() if keys} == {}


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_every_optimizer_and_scheduler_trains(optimizer, scheduler, mtlrun):
    code, _, err = mtlrun(*SMOKE, f"optimizer={optimizer}", f"scheduler={scheduler}", "scheduler.warmup_epochs=0.5")
    assert code == 0, err


@pytest.mark.parametrize("backbone", options("backbone"))
def test_every_backbone_trains(backbone, mtlrun):
    images, vectors = ["dataset.pairs_per_image=1", "dataset.size=16"], ["dataset=mmoe_synthetic"]
    of_backbone = {"embedding_mlp": vectors, "tabular": [*vectors, "backbone.numbers=plain"]}  # it has no quantiles
    code, _, err = mtlrun(
        "trainer=smoke", "trainer.batch_size=8", "trainer.eval_batch_size=8", "runtime.quiet=true",
        f"backbone={backbone}", "backbone.width=0.125", *of_backbone.get(backbone, images),
    )  # fmt: skip
    assert code == 0, err


def test_grad_wrt_is_set_by_a_plain_key(mtlrun):
    for source in ("shared", "representation", "last_layer"):
        code, _, err = mtlrun(*SMOKE, "weighting=mgda", f"weighting.grad_wrt={source}")
        assert code == 0, err
    assert len(run_folders()) == 3


def test_build_makes_nested_objects_first_and_passes_the_program_s_arguments():
    head = {"_target_": "mtlrun.models.heads.MLPHead", "_partial_": True, "hidden": [3]}
    task = build({"_target_": "mtlrun.tasks.Regression", "head": head}, "task", num_outputs=2)
    assert task.output_size == 2
    assert len(task.head((5,), (2,))) == 3
    with pytest.raises(ConfigError, match=r"task.num_outputs is filled in by the program"):
        build({"_target_": "mtlrun.tasks.Regression", "num_outputs": 1}, "task", num_outputs=2)
    with pytest.raises(ConfigError, match=r"task.head.hiden: unknown key; did you mean 'hidden'"):
        build({"_target_": "mtlrun.tasks.Regression", "head": head | {"hiden": 1}}, "task")


def test_a_partial_is_built_when_it_is_called_and_checked_before():
    head = build({"_target_": "mtlrun.models.heads.MLPHead", "_partial_": True, "hidden": [3]}, "head")
    assert [tuple(weight.shape) for weight in head((5,), (2,)).parameters()] == [(3, 5), (3,), (2, 3), (2,)]
    with pytest.raises(ConfigError, match=r"head.hiden: unknown key; did you mean 'hidden'"):
        build({"_target_": "mtlrun.models.heads.MLPHead", "_partial_": True, "hiden": [3]}, "head")


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=scenes", "+task@tasks.more=detection", "tasks.more.num_classes=3"],
        ["weighting=mgda", "weighting/losses=dwa", "model=mmoe", "optimizer.lr=0.5"],
        [f"experiment={options('experiment')[0]}"],
    ],
)
def test_the_shortcuts_of_these_tests_give_what_hydra_gives(overrides, monkeypatch):
    first, again = compose(overrides), compose(overrides)
    with monkeypatch.context() as patch:
        hydra_shortcuts.leave(patch)
        assert compose(overrides) == first == again


def test_every_block_of_a_study_trains(mtlrun):
    found = {}
    for name in options("study"):
        sweeper = yaml.safe_load((CONF / "study" / f"{name}.yaml").read_text())["hydra"]["sweeper"]
        for block in sweeper.get("runs", []):
            first = [
                f"{key}={values[0] if isinstance(values, list) else values.split(',')[0]}"
                for key, values in block.items()
            ]
            found[name, *first] = mtlrun(f"study={name}", *first, *QUICK, "trainer.epochs=1", f"runtime.study={name}")
    assert len(found) >= 3
    assert {key: err for key, (code, _, err) in found.items() if code} == {}
