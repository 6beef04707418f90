"""Learning-rate schedules: one factor for the learning rates of all parameter groups."""

from abc import ABC, abstractmethod
from math import cos, pi

from torch.optim import Optimizer

from mtlrun.config.bounds import Count, Epochs, Fraction, FractionAboveZero, checked


class Schedule(ABC):
    """Base of all schedules: the factor on all learning rates as a function of the step, without state.

    Args:
        warmup_epochs: number of epochs in which the factor rises linearly to one, before the schedule itself begins.
    """

    @checked
    def __init__(self, warmup_epochs: Epochs = 0.0) -> None:
        self.warmup_epochs = warmup_epochs

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """Return the factor for optimizer step number `step`, counted from 0."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        passed = step - warmup_steps
        return self.decay(passed / steps_per_epoch, passed / max(total_steps - warmup_steps, 1))

    @abstractmethod
    def decay(self, epochs: float, progress: float) -> float:
        """Return the factor after the warm-up.

        Args:
            epochs: number of epochs since the end of the warm-up, with fractions.
            progress: fraction of the steps after the warm-up that have been made.
        """


class Constant(Schedule):
    """Constant learning rates, after a warm-up if there is one."""

    def decay(self, epochs: float, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine period from 1 to `final_factor`, step by step, over the whole training.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017), without restarts.

    Args:
        final_factor: factor at the end, in [0, 1].
        warmup_epochs: see `Schedule`.
    """

    @checked
    def __init__(self, final_factor: Fraction = 0.0, warmup_epochs: Epochs = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.final_factor = final_factor

    def decay(self, epochs: float, progress: float) -> float:
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + cos(pi * min(progress, 1.0)))


class Step(Schedule):
    """Multiplication by `gamma` every `step_size` epochs.

    Args:
        step_size: epochs, >= 1.
        gamma: factor, in (0, 1].
        warmup_epochs: see `Schedule`.
    """

    @checked
    def __init__(self, step_size: Count = 10, gamma: FractionAboveZero = 0.5, warmup_epochs: Epochs = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.step_size = step_size
        self.gamma = gamma

    def decay(self, epochs: float, progress: float) -> float:
        return float(self.gamma ** int(epochs // self.step_size))


class Exponential(Schedule):
    """Multiplication by `gamma` after each epoch.

    Args:
        gamma: factor, in (0, 1].
        warmup_epochs: see `Schedule`.
    """

    @checked
    def __init__(self, gamma: FractionAboveZero = 0.95, warmup_epochs: Epochs = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.gamma = gamma

    def decay(self, epochs: float, progress: float) -> float:
        return float(self.gamma ** int(epochs))


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group to `factor` times its initial one."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
