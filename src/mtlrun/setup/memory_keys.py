"""The keys of `trainer` that save memory, and which runs may have them."""

from collections.abc import Iterator, Mapping
from typing import Any

from mtlrun.config.settings import Settings
from mtlrun.datasets import MultiTaskDataset
from mtlrun.models import CutsTrunk, MultiTaskModel
from mtlrun.models.blocks.checkpointed import Checkpointed, checkpoint_activations
from mtlrun.setup.loaders import has_source_statistics
from mtlrun.weightings import GradientWeighting, LossWeighting, Weighting


def check_memory_keys(
    settings: Settings,
    weighting: Weighting,
    model: MultiTaskModel,
    dataset: MultiTaskDataset,
    config: Mapping[str, Any],
) -> list[str]:
    """Return a problem for each key that does not work, or has no effect, in this run.

    Args:
        settings: the group `trainer`.
        weighting: before `setup`.
        model, dataset: of the run.
        config: the resolved config, for the names in the messages.
    """
    name = f"weighting={config['names']['weighting']}"
    problems = []
    if settings.two_pass and (reason := _why_not_two_pass(weighting)):
        problems.append(f"trainer.two_pass=true: {name} {reason}; use trainer.two_pass=false")
    if settings.two_pass and settings.stream_rows:
        problems.append("trainer.two_pass=true: trainer.stream_rows=true ends with that pass anyway; leave it out")
    if settings.stream_rows:
        problems += [
            f"trainer.stream_rows=true: {reason}; use trainer.stream_rows=false"
            for reason in _why_not_stream(settings, weighting, model, name, f"model={config['names']['model']}")
        ]
    if settings.checkpoint_activations:
        where = f"model={config['names']['model']}"
        problems += [
            f"trainer.checkpoint_activations=true: {reason}; use trainer.checkpoint_activations=false"
            for reason in _why_not_checkpoint(settings, model, dataset, where)
        ]
    return problems


def _why_not_stream(
    settings: Settings, weighting: Weighting, model: MultiTaskModel, name: str, where: str
) -> Iterator[str]:
    """Yield the reasons why task gradients cannot be taken in segments."""
    if reason := _why_not_two_pass(weighting):
        yield f"{name} {reason}"
    elif isinstance(weighting, GradientWeighting) and weighting.grad_wrt != "shared":
        yield f"weighting.grad_wrt={weighting.grad_wrt} takes no gradients of all shared parameters that it could save"
    if settings.micro_batches != 1:
        yield "the task gradients of micro-batches are summed up as a whole (trainer.micro_batches=1 is needed)"
    if settings.vmap_backward:
        yield "trainer.vmap_backward=true makes the tasks' backward passes in one call, and not in segments"
    if not isinstance(model, CutsTrunk):
        yield f"{where} has no shared part that is a chain of stages, as model=hard has"
        return
    parameters = [id(parameter) for stage in model.link_parameters() for parameter in stage]
    if sorted(parameters) != sorted(map(id, model.shared_parameters())):
        yield f"the backbone of {where} has parameters that do not belong to exactly one of its stages"


def use_memory_keys(settings: Settings, model: MultiTaskModel) -> None:
    """Let a model do what the keys ask of it."""
    if settings.checkpoint_activations:
        checkpoint_activations(model)
    if settings.stream_rows and isinstance(model, CutsTrunk):
        model.cuts_trunk = True


def _why_not_checkpoint(
    settings: Settings, model: MultiTaskModel, dataset: MultiTaskDataset, where: str
) -> Iterator[str]:
    """Yield the reasons why activations cannot be computed anew."""
    if settings.vmap_backward:
        yield "trainer.vmap_backward=true makes the tasks' backward passes in one call, in which nothing can be"
    modules = list(model.modules())
    if not any(isinstance(module, Checkpointed) for module in modules):
        yield f"{where} has no backbone of stages, and no head for pixels or boxes"
    # Statistics of a source are in place during the forward pass only; a frozen backbone computes with them.
    if has_source_statistics(dataset) and any(getattr(each, "frozen", False) is True for each in modules):
        yield f"{where} has a frozen backbone with statistics per source (dataset.sampling.batch_norm=per_source)"


def _why_not_two_pass(weighting: Weighting) -> str:
    """Return why the key does not work with a weighting, continuing its name; empty if it does."""
    if isinstance(weighting, GradientWeighting):
        return ""
    if isinstance(weighting, LossWeighting):
        return "makes one backward pass as it is"
    return "combines every entry of the task gradients, and makes no weights for a second pass"
