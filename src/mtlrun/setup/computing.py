"""The precision and memory format that a run's model computes in: checked, set, and described."""

import torch

from mtlrun.config.settings import Settings
from mtlrun.models import MultiTaskModel
from mtlrun.models.computation import Computation


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
            f"trainer.precision=bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use tf32 or fp32"
        )
    if settings.channels_last and model is not None and all(each.dim() != 4 for each in model.parameters()):
        problems.append(f"trainer.channels_last=true is for convolutions, and backbone={name} has none; leave it out")
    return problems


def set_computation(model: MultiTaskModel, settings: Settings) -> None:
    """Have the model, which is on its device, compute as the keys ask for."""
    model.computation = Computation(settings.precision, channels_last=settings.channels_last)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)


def describe_computation(settings: Settings, device: torch.device) -> list[str]:
    """Return what a user would want to know about the precision on this device."""
    if settings.precision == "tf32" and device.type != "cuda":
        return [f"trainer.precision=tf32 is for GPUs of NVIDIA; on {device} float32 keeps all of its digits"]
    return []
