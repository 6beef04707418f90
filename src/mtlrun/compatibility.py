"""Which tasks, model and weighting go together; what does not is refused before the run, with the reason."""

from collections.abc import Mapping
from typing import Any

from mtlrun.models import MultiTaskModel, SharedRepresentationModel
from mtlrun.tasks import Task
from mtlrun.weightings import Equal, GradientWeighting, JacobianWeighting, Weighting


def check_weighting(
    weighting: Weighting, model: MultiTaskModel | None, tasks: Mapping[str, Task], config: Mapping[str, Any]
) -> list[str]:
    """Return the problems of training `tasks` with `model` under `weighting`.

    Args:
        weighting: before `setup`.
        model: None if it could not be built.
        tasks: those that could be built.
        config: the resolved config, for the names that the user chose.
    """
    name = f"weighting={config['names']['weighting']}"
    problems = []
    if tasks and len(tasks) < weighting.minimum_tasks:
        problems.append(
            f"{name} combines the gradients of {weighting.minimum_tasks} tasks or more, found {len(tasks)} "
            f"({', '.join(tasks)}); use weighting=equal"
        )
    problems += [
        f"tasks.{task}.weight={options.weight} has no effect with {name}; use weighting=static"
        for task, options in tasks.items()
        if options.weight != 1.0 and not weighting.uses_task_weights
    ]
    if model is not None:
        problems += _check_model(weighting, name, model, f"model={config['names']['model']}")
    return problems


def _check_model(weighting: Weighting, name: str, model: MultiTaskModel, model_name: str) -> list[str]:
    if model.independent_tasks and not (isinstance(weighting, Equal) and weighting.reduction == "sum"):
        return [
            f"{name}: {model_name} trains each task as if it were alone, so there is nothing to weigh; "
            "use weighting=equal weighting.reduction=sum"
        ]
    if not isinstance(weighting, GradientWeighting | JacobianWeighting):
        return []
    if not model.shared_parameters():
        return [
            f"{name} combines the tasks' gradients by the shared parameters, and {model_name} has none; use a "
            "weighting of losses (equal, static, uncertainty, dwa) or a model that shares (hard, cross_stitch)"
        ]
    if weighting.grad_source != "shared" and not isinstance(model, SharedRepresentationModel):
        return [
            f"weighting.grad_source={weighting.grad_source} needs a model with one shared representation, and "
            f"{model_name} has none; use weighting.grad_source=shared"
        ]
    return []
