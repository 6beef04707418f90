"""The keys with which a run that is out of memory may fit."""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from mtlrun.setup.compatibility import check_affinity, check_weighting
from mtlrun.setup.computing import check_computation
from mtlrun.setup.memory_keys import check_memory_keys
from mtlrun.setup.plain_passes import limits_of_plain_passes
from mtlrun.training.parts import Parts
from mtlrun.weightings import GradientWeighting


def keys_that_help(parts: Parts, config: Mapping[str, Any], *, evaluating: bool) -> list[str]:
    """Return the keys that would save memory and that this run may have, those that change the least first.

    Args:
        parts: of the run.
        config: of the run.
        evaluating: it was an evaluation that did not fit, and not a step.
    """
    settings = parts.settings
    keys = []
    if evaluating:
        keys += [f"trainer.eval_batch_size={settings.eval_batch_size // 2}"] if settings.eval_batch_size > 1 else []
    else:
        keys += _of_a_step(parts, config)
    if settings.precision in ("fp32", "tf32") and _is_allowed(parts, config, precision="bf16"):
        keys.append("trainer.precision=bf16")
    batch_size = parts.loaders["train"].batch_size
    if not evaluating and batch_size > 1:
        keys.append(f"trainer.batch_size={batch_size // 2}")
    return keys


def _of_a_step(parts: Parts, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that leave the update of a step as it is, and the one that takes other task gradients."""
    settings, weighting, loader = parts.settings, parts.weighting, parts.loaders["train"]
    more = 2 * settings.micro_batches
    if 2 * more <= loader.batch_size and _is_allowed(parts, config, micro_batches=more):
        yield f"trainer.micro_batches={more}"
    saves = settings.two_pass or settings.stream_rows
    if not saves and _is_allowed(parts, config, two_pass=True):
        yield "trainer.two_pass=true"
    if isinstance(weighting, GradientWeighting) and weighting.grad_wrt == "shared" and not settings.stream_rows:
        elsewhere = copy(weighting)
        elsewhere.grad_wrt = "representation"
        if not loader.per_source and _is_allowed(replace(parts, weighting=elsewhere), config):
            yield "weighting.grad_wrt=representation"
    streamed = {"stream_rows": True, "two_pass": False}
    if not settings.stream_rows and not loader.per_source and _is_allowed(parts, config, **streamed):
        yield "trainer.stream_rows=true" + (" in place of trainer.two_pass" if settings.two_pass else "")
    if not settings.checkpoint_activations and _is_allowed(parts, config, checkpoint_activations=True):
        yield "trainer.checkpoint_activations=true"


def _is_allowed(parts: Parts, config: Mapping[str, Any], **changes: Any) -> bool:
    """Return True if the run would not be refused with these values of keys of `trainer`."""
    changed = {**config, "trainer": {**config["trainer"], **changes}}
    settings = replace(parts.settings, **changes)
    problems = check_weighting(parts.weighting, parts.model, parts.tasks, changed)
    problems += check_memory_keys(settings, parts.weighting, parts.model, parts.dataset, changed)
    problems += check_affinity(settings, parts.model, parts.tasks, changed)
    if settings.cuda_graph:
        problems += limits_of_plain_passes(replace(parts, settings=settings), "CUDA graphs")
    return not problems + check_computation(settings, parts.model, parts.device, str(config["names"]["backbone"]))
