"""Selection of the best evaluation: skill scores, the order that they give, what is monitored, patience."""

import itertools
import math
import random
from types import SimpleNamespace

import pytest
import torch

from mtlrun.errors import CheckpointError
from mtlrun.training.selection import SelectedModel, Selection, TaskBests, merge_states
from mtlrun.training.skill import Skills

DIRECTIONS = {"digit": {"loss": "min", "accuracy": "max"}, "size": {"loss": "min", "rmse": "min"}}
MAIN = {"digit": "accuracy", "size": "rmse"}
TRIVIAL = {"digit": {"loss": 2.0, "accuracy": 0.2}, "size": {"loss": 25.0, "rmse": 5.0}}


def metrics(accuracy, rmse, digit_loss=1.0):
    return {"digit": {"loss": digit_loss, "accuracy": accuracy}, "size": {"loss": rmse**2, "rmse": rmse}}


def make(monitor="mean_skill", tasks=("digit", "size"), trivial=TRIVIAL, perfect=None, **options):
    skills = Skills(DIRECTIONS, perfect or {}, {"val": trivial})
    return Selection(tasks, monitor, MAIN, skills, **options)


def update_all(selection, *evaluations):
    """Make evaluations numbered from 1, ten steps and one epoch each."""
    selected = []
    for number, found in enumerate(evaluations, start=1):
        selection.skills.fix_references(found)
        selected.append(selection.update(number, epoch=number, step=10 * number, metrics=found))
    return selected


# --------------------------------------------------------------------------------------------------- skill scores


@pytest.mark.parametrize(
    ("metric", "trivial", "value", "expected"),
    [
        ("accuracy", 0.2, 0.2, 0.0),
        ("accuracy", 0.2, 1.0, 1.0),
        ("accuracy", 0.2, 0.6, 0.5),
        ("accuracy", 0.2, 0.0, -0.25),
        ("accuracy", math.nan, 0.3, 0.3),  # a correlation, which is not defined for a constant
        ("accuracy", 1.0, 0.9, -0.1),  # one class only
        ("accuracy", 60.0, 72.0, 12 / 59),  # in percent, and nobody declared that 100 is perfect
        ("loss", 2.0, 0.5, 0.75),
        ("loss", 2.0, 5.0, -1.5),
        ("loss", 0.0, 0.5, -0.5),
        ("loss", -2.0, -3.0, 0.5),
    ],
)
def test_skill_is_the_way_from_a_constant_prediction_to_a_perfect_one(metric, trivial, value, expected):
    skills = Skills(DIRECTIONS, {}, {"val": {"digit": {metric: trivial}}})
    skills.fix_references({"digit": {metric: value}})
    assert float(skills.skill("digit", metric, value)) == pytest.approx(expected)


def test_a_task_may_declare_what_is_perfect():
    skills = Skills(DIRECTIONS, {"digit": {"accuracy": 100.0}}, {"val": {"digit": {"accuracy": 20.0}}})
    skills.fix_references(metrics(60.0, 1.0))
    assert float(skills.skill("digit", "accuracy", 60.0)) == pytest.approx(0.5)


def test_without_a_constant_prediction_the_reference_is_the_first_finite_value():
    skills = Skills(DIRECTIONS)
    for value in (math.nan, 4.0, 3.0):
        skills.fix_references(metrics(0.5, value))
    assert float(skills.skill("size", "rmse", 3.0)) == pytest.approx(0.25)
    assert not skills.has_constant("size", "rmse")
    assert skills.skill("size", "rmse", math.inf) is None


# ------------------------------------------------------------------------------------------------------ the order


def random_evaluations(generator, count):
    """Return evaluations with ties, zeros, negative values, values of all sizes, NaN and infinity."""

    def value():
        kind = generator.random()
        if kind < 0.15:
            return generator.choice([math.nan, math.inf, -math.inf])
        return generator.choice(
            [0.0, -1.0, 0.5, generator.random(), generator.gauss(0, 1) * 10 ** generator.randint(-9, 9)]
        )

    return [{task: {name: value() for name in names} for task, names in DIRECTIONS.items()} for _ in range(count)]


def random_trivial(generator):
    return {
        task: {name: generator.choice([math.nan, 0.0, 1.0, generator.random(), -2.0]) for name in names}
        for task, names in DIRECTIONS.items()
        if generator.random() < 0.8
    }


def with_fixed_references(generator, evaluations, **options):
    selection = make(trivial=random_trivial(generator), **options)
    for found in evaluations:
        selection.skills.fix_references(found)
    return selection


def is_better(selection, one, other):
    """Return True if `one` replaces `other`."""
    selection.number, selection.metrics = 1, other
    return selection.update(2, 2, 20, one)


def test_evaluations_are_totally_ordered():
    generator = random.Random(0)
    for _ in range(300):
        three = random_evaluations(generator, 3)
        selection = with_fixed_references(generator, three)
        better = {(i, j): is_better(selection, three[i], three[j]) for i in range(3) for j in range(3)}
        assert not any(better[i, i] for i in range(3))
        for i, j, k in itertools.permutations(range(3)):
            assert not (better[i, j] and better[j, i])
            assert not (better[i, j] and better[j, k]) or better[i, k]
            assert not (better[i, k] and not better[j, k]) or better[i, j]  # ties are an equivalence


def test_the_selected_evaluation_does_not_depend_on_the_order_and_is_not_dominated():
    def dominates(one, other):
        """Return True if `one` is at least as good in all main metrics, and better in one; not defined is worst."""
        pairs = []
        for task, name in MAIN.items():
            sign = 1 if DIRECTIONS[task][name] == "max" else -1
            pairs.append(
                [sign * found[task][name] if math.isfinite(found[task][name]) else -math.inf for found in (one, other)]
            )
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    generator = random.Random(1)
    for _ in range(300):
        evaluations = random_evaluations(generator, 6)
        selection = with_fixed_references(generator, evaluations)
        kept = []
        for _ in range(3):
            selection.number = 0
            update_all(selection, *evaluations)
            assert not any(dominates(found, selection.metrics) for found in evaluations)
            kept.append(selection.metrics)
            generator.shuffle(evaluations)
        assert all(not is_better(selection, one, other) for one in kept for other in kept)


def test_units_do_not_matter():
    def in_other_units(found):
        size = {"rmse": found["size"]["rmse"] * 1024, "loss": found["size"]["loss"] * 1024**2}
        return {**found, "size": size}

    generator = random.Random(2)
    for _ in range(200):
        evaluations = [metrics(*(generator.choice([generator.random(), 0.5]) for _ in range(3))) for _ in range(8)]
        plain, scaled = make(), make(trivial=in_other_units(TRIVIAL))
        assert update_all(plain, *evaluations) == update_all(scaled, *map(in_other_units, evaluations))


def test_patience_ends_whatever_the_metrics_do():
    generator = random.Random(3)
    for _ in range(50):
        cycle = random_evaluations(generator, 4)
        selection = make(trivial=random_trivial(generator), patience=5)
        selected = update_all(selection, *(cycle * 4))
        assert not any(selected[4:])
        assert selection.out_of_patience(9)


def test_an_error_that_can_fall_by_any_factor_does_not_outweigh_an_accuracy():
    # The mean of relative changes prefers the first one: accuracy +12 %, and the rmse 63 % larger.
    early, late = metrics(0.85, 0.5), metrics(0.952, 0.815)
    assert update_all(make(), early, late) == [True, True]
    selection = make()
    update_all(selection, early, late)
    assert selection.skill() == pytest.approx(((0.952 - 0.2) / 0.8 + 1 - 0.815 / 5) / 2)


def test_a_metric_that_was_zero_does_not_stick():
    assert update_all(make(), metrics(0.0, 4.0), metrics(0.1, 5.0), metrics(0.8, 4.0)) == [True, False, True]


def test_equal_scores_are_decided_by_the_losses_and_then_the_earlier_one_stays():
    found = update_all(make(), metrics(0.8, 4.0, 1.0), metrics(0.8, 4.0, 0.9), metrics(0.8, 4.0, 0.9))
    assert found == [True, True, False]


def test_of_two_losses_in_other_units_neither_outweighs_the_other():
    def found(digit_loss, size_loss):
        return {"digit": {"loss": digit_loss, "accuracy": 0.8}, "size": {"loss": size_loss, "rmse": 4.0}}

    assert update_all(make(), found(1.0, 16.0), found(0.5, 17.0), found(0.9, 16.0)) == [True, True, False]


def test_an_evaluation_in_which_more_is_defined_is_better():
    nothing, accuracy, all_of_it = metrics(math.nan, math.nan), metrics(0.9, math.nan), metrics(0.1, 9.0)
    assert update_all(make(), nothing, accuracy, all_of_it, accuracy) == [True, True, True, False]


def test_a_metric_that_is_never_defined_does_not_decide():
    selection = make()
    found = update_all(selection, *(metrics(math.nan, rmse) for rmse in (4.0, 3.0, 3.5)))
    assert found == [True, True, False]
    assert selection.skill() == pytest.approx(0.4)
    assert math.isnan(make_updated("digit/accuracy", metrics(math.nan, 3.0)).skill())


def make_updated(monitor, *evaluations):
    selection = make(monitor)
    update_all(selection, *evaluations)
    return selection


# ---------------------------------------------------------------------------------------------- what is monitored


def test_first_evaluation_is_selected_whatever_it_is():
    selection = make_updated("mean_skill", metrics(math.nan, 9.0))
    assert (selection.number, selection.epoch, selection.step) == (1, 1, 10)


def test_monitor_may_name_one_metric_of_one_task():
    selection = make("digit/loss")
    found = update_all(selection, metrics(0.8, 4.0, 1.0), metrics(0.9, 3.0, 1.1), metrics(0.1, 9.0, 0.9))
    assert found == [True, False, True]
    assert selection.monitored() == [("digit", "loss")]
    assert selection.skill() == pytest.approx(1 - 0.9 / 2)


def test_a_selection_of_some_tasks_counts_and_keeps_only_these():
    selection = make(tasks=["size"])
    assert update_all(selection, metrics(0.8, 4.0), metrics(0.1, 3.9), metrics(0.9, 4.5)) == [True, True, False]
    assert selection.metrics == {"size": {"loss": 3.9**2, "rmse": 3.9}}
    assert selection.monitored() == [("size", "rmse")]


def test_the_skill_must_improve_by_more_than_min_delta():
    selection = make("size/rmse", min_delta=0.25)
    evaluations = [
        metrics(0, rmse, loss) for rmse, loss in [(4.0, 1.0), (3.0, 1.0), (2.75, 1.0), (2.5, 1.0), (2.5, 0.5)]
    ]
    assert update_all(selection, *evaluations) == [True, False, False, True, False]


def test_selected_metrics_are_a_copy():
    selection, found = make(), metrics(0.8, 4.0)
    update_all(selection, found)
    found["digit"]["accuracy"] = 0.0
    assert selection.metrics["digit"]["accuracy"] == 0.8


def test_patience_counts_evaluations_since_the_selected_one():
    selection = make("size/rmse", patience=2)
    update_all(selection, metrics(0, 4.0), metrics(0, 3.0), metrics(0, 3.5), metrics(0, 3.5))
    assert [selection.out_of_patience(number) for number in (2, 3, 4, 5)] == [False, False, True, True]


def test_without_patience_training_is_never_ended():
    assert not make_updated("mean_skill", metrics(0.8, 4.0)).out_of_patience(10**6)


def test_state_makes_another_selection_continue_as_the_first():
    selection, other = make(patience=3), make(patience=3)
    update_all(selection, metrics(0.8, 4.0), metrics(0.9, 4.0))
    other.skills.load_state_dict(selection.skills.state_dict())
    other.load_state_dict(selection.state_dict())
    assert other == selection
    assert other != make(patience=3)
    assert not other.update(3, 3, 30, metrics(0.85, 4.0))
    assert other.out_of_patience(5)


def test_summary_holds_the_rule_the_step_and_the_skill():
    selection = make(tasks=("digit",))
    update_all(selection, metrics(0.8, 4.0), metrics(0.9, 4.0))
    expected = {"tasks": ["digit"], "rule": "mean_skill", "epoch": 2, "step": 20, "skill": pytest.approx(0.875)}
    assert selection.summary() == expected


def test_the_best_evaluation_of_each_task_is_known_and_survives_a_checkpoint():
    skills = make().skills
    bests, other = TaskBests(MAIN, skills), TaskBests(MAIN, skills)
    for number, found in enumerate([metrics(0.8, math.nan), metrics(0.9, math.inf), metrics(0.7, math.nan)], start=1):
        skills.fix_references(found)
        bests.update(number, number, 10 * number, found)
    other.load_state_dict(bests.state_dict())
    for summary in (bests.summary(), other.summary()):
        assert summary["digit"] == {"epoch": 2, "step": 20, "skill": pytest.approx(0.875)}
        assert math.isnan(summary["size"]["skill"])


# ------------------------------------------------------------------------------------------------ the model states


def model_that_counts():
    """Return a stand-in for a model whose only weight is the number of the evaluation."""
    state = {"weight": torch.zeros(1)}
    return SimpleNamespace(independent_tasks=False, state_dict=lambda: state, load_state_dict=state.update, state=state)


def test_a_rule_for_each_task_keeps_a_state_for_each_and_loads_one_after_the_other():
    model, skills = model_that_counts(), make().skills
    rules = [Selection([task], "per_task", MAIN, skills) for task in MAIN]
    selected = SelectedModel(model, rules)
    for number, found in enumerate([metrics(0.8, 4.0), metrics(0.9, 5.0), metrics(0.7, 3.0)], start=1):
        skills.fix_references(found)
        model.state["weight"].fill_(number)
        assert selected.update(number, number, number, found)
    loaded = [(names, int(model.state["weight"])) for names in selected.load_in_turn()]
    assert loaded == [(["digit"], 2), (["size"], 3)]
    assert selected.metrics == {"digit": metrics(0.9, 5.0)["digit"], "size": metrics(0.7, 3.0)["size"]}
    with pytest.raises(
        CheckpointError, match=r"no single best model: trainer.monitor=per_task kept 2, one for each task"
    ):
        merge_states(selected.state_dict()["model_states"])


def test_states_that_were_kept_together_are_one():
    model, skills = model_that_counts(), make().skills
    selected = SelectedModel(model, [Selection([task], "per_task", MAIN, skills) for task in MAIN])
    skills.fix_references(metrics(0.8, 4.0))
    selected.update(1, 1, 1, metrics(0.8, 4.0))
    assert [sorted(names) for names in selected.load_in_turn()] == [["digit", "size"]]
    first, second = selected.state_dict()["model_states"]
    assert first["weight"].data_ptr() == second["weight"].data_ptr()


# ---------------------------------------------------------------------------------------- metrics without a value


def test_the_loss_stands_in_for_what_the_first_evaluation_and_the_constant_lack():
    trivial = {"digit": {"loss": 0.01, "accuracy": math.nan}, "size": {"loss": 25.0, "rmse": 5.0}}
    selection = make(trivial=trivial)
    first = metrics(math.nan, math.nan, digit_loss=0.8)
    first["size"]["loss"] = 16.0  # its constant has a rmse, so that one may still come
    selection.skills.fix_references(first)
    assert selection.skills.find_undefined(first, selection.asked_for()) == [("digit", "accuracy")]
    assert selection.monitored() == [("digit", "loss"), ("size", "rmse")]
    selected = update_all(selection, first, metrics(math.nan, 4.0, 0.6), metrics(0.9, 4.0, 0.7), metrics(0.1, 4.0, 0.4))
    assert selected == [True, True, False, True]
    assert selection.skill() == pytest.approx((0.5 + 0.2) / 2)
    assert selection.summary()["stand_ins"] == {"digit/accuracy": "digit/loss"}
    other = make(trivial=trivial)
    other.skills.load_state_dict(selection.skills.state_dict())
    assert other.monitored() == selection.monitored()


@pytest.mark.parametrize(("given", "first", "reference"), [(0.02, 0.7, 0.7), (0.7, 0.02, 0.7), (None, 0.7, 0.7)])
def test_a_loss_that_stands_in_does_not_outweigh_other_tasks(given, first, reference):
    skills = Skills(DIRECTIONS, {}, {"val": {"digit": {"loss": 0.001, "accuracy": math.nan}}})
    if given is not None:
        skills.undefined["digit"], skills.references["digit"] = ["accuracy"], {"loss": given}
    found = {"digit": metrics(math.nan, 1.0, first)["digit"]}
    skills.fix_references(found)
    skills.find_undefined(found, [("digit", "accuracy")])
    assert skills.references["digit"]["loss"] == reference
