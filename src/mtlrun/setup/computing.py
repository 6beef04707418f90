"""The precision, memory format and compilation of a run's model: checked, set, and tried on a first batch."""

from collections.abc import Mapping

import torch
from torch import nn

from mtlrun.config.diagnosis import first_line
from mtlrun.config.settings import Settings
from mtlrun.datasets import Loader
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel
from mtlrun.models.computation import Computation
from mtlrun.models.gradient_scale import GradientScale
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, untouched
from mtlrun.weightings import LossWeighting, Weighting
from mtlrun.weightings.capabilities import LooksAhead

#: Keys that do not work with `compile`, and why.
_NOT_COMPILED = {
    "vmap_backward": "vmap cannot enter the backward pass of a compiled model",
    "checkpoint_activations": "PyTorch decides by itself which activations of a compiled model are kept",
    "stream_rows": "a trunk that is compiled has no stages to go back through one by one",
    "cuda_graph": "passes of a compiled model are not captured",
}

# Channels in a block of oneDNN's convolutions with AVX-512; 8 with AVX2.
_TOO_NARROW = 16


def check_computation(settings: Settings, model: MultiTaskModel | None, device: torch.device, name: str) -> list[str]:
    """Return the reasons why a model cannot compute as the keys of `trainer` ask for.

    Args:
        settings: the group `trainer`.
        model: None if it could not be built.
        device: of the run.
        name: of the backbone, for the message.
    """
    problems = []
    if settings.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        problems.append(
            f"trainer.precision=bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp16, tf32 or fp32"
        )
    if settings.channels_last and model is not None and all(each.dim() != 4 for each in model.parameters()):
        problems.append(f"trainer.channels_last=true is for convolutions, and backbone={name} has none; leave it out")
    if settings.channels_last and model is not None and device.type == "cpu" and any(map(_corrupts, model.modules())):
        problems.append(
            f"trainer.channels_last=true: backbone={name} has 1x1 convolutions with strides and fewer than "
            f"{_TOO_NARROW} input channels, which write beyond their memory on a CPU (a bug of oneDNN, "
            "github.com/uxlfoundation/oneDNN/issues/6035); leave it out, or use a GPU or a wider backbone"
        )
    if settings.compile:
        problems += [
            f"trainer.{key}=true: {why}; use trainer.{key}=false or trainer.compile=false"
            for key, why in _NOT_COMPILED.items()
            if getattr(settings, key)
        ]
    return problems


def _corrupts(module: nn.Module) -> bool:
    """Return True for a layer whose backward pass in channels_last is not safe on a CPU."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < _TOO_NARROW
    )


def set_computation(model: MultiTaskModel, weighting: Weighting, settings: Settings) -> None:
    """Have the model, which is on its device, compute as the keys of `trainer` ask for under a weighting."""
    model.computation = Computation(settings.precision, channels_last=settings.channels_last)
    if settings.precision == "fp16":
        scale = model.computation.scale = GradientScale(next(model.parameters()).device)
        scale.unscale_at(model.parameters())
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    if settings.compile:
        from mtlrun.models.compiled import CompiledFunctions  # slow to import, as is what it needs

        several = settings.log_gradients_every is not None or settings.log_affinity_every is not None
        single_backward = isinstance(weighting, LossWeighting) and not weighting.capable_of(LooksAhead) and not several
        model.computation.compiled = CompiledFunctions(model, single_backward=single_backward)


def try_computation(
    model: MultiTaskModel, tasks: Mapping[str, Task], loader: Loader, device: torch.device, settings: Settings
) -> None:
    """Send a batch through a model that is compiled, or in half precision, and back; all is then as it was.

    Args:
        model, tasks: on the device.
        loader: of the training split.
        device: of the run.
        settings: the group `trainer`.

    Raises:
        ConfigError: the model cannot be compiled, or some operation is not there in that precision.
    """
    computation = model.computation
    if computation.compiled is None and settings.precision in ("fp32", "tf32"):
        return
    batch = LabeledBatch.load(tasks, loader.first(loader.batch_size), device)
    model.train()
    try:
        with untouched(model):
            first = BatchPass(model, next(batch.split(settings.micro_batches)))
            found = [*first.weighted_losses(batch).values(), first.regularizer(batch.num_samples)]
            terms = [term for term in found if term is not None]
            if terms:  # or no task has a label in this batch
                torch.stack(terms).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        key = "compile=true" if settings.compile else f"precision={settings.precision}"
        raise ConfigError(
            f"trainer.{key}: a first batch cannot be computed so ({type(error).__name__}: {first_line(error)}); leave "
            "the key out"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
    if computation.compiled is not None:
        computation.compiled.started()


def describe_computation(settings: Settings, device: torch.device) -> list[str]:
    """Return what a user would want to know about the precision on this device."""
    if settings.precision == "tf32" and device.type != "cuda":
        return [f"trainer.precision=tf32 is for GPUs of NVIDIA; on {device} float32 keeps all of its digits"]
    return []
