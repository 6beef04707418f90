"""The random generators of a weighting, with states that a run can take to another device."""

import hashlib
import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class MethodGenerators:
    """Generators on the devices that a method draws on, so that no other random number depends on what it draws.

    Their states are kept by kind of device. One of a GPU goes on on any GPU; on another kind of device the numbers are
    drawn anew, from a seed that depends on the state, and so on the run's seed and on the step.

    Args:
        seed: from which they start.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._in_use: dict[torch.device, torch.Generator] = {}
        self._loaded: dict[str, Tensor] = {}  # states that nothing has been drawn from since they were loaded

    def on(self, device: torch.device) -> torch.Generator:
        """Return the generator on a device, made at its first use."""
        if device not in self._in_use:
            self._in_use[device] = self._make(device)
        return self._in_use[device]

    def _make(self, device: torch.device) -> torch.Generator:
        generator = new_generator(device)
        if device.type in self._loaded:
            generator.set_state(self._loaded.pop(device.type))
        elif self._loaded:
            kind, state = self._loaded.popitem()
            logger.warning("what the weighting drew on %s so far, it draws anew on %s from here on", kind, device.type)
            generator.manual_seed(seed_from(state))
        else:
            generator.manual_seed(self._seed)
        return generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return {kind of device: state}."""
        return self._loaded | {device.type: each.get_state() for device, each in self._in_use.items()}

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._in_use = {}
        self._loaded = {kind: state.cpu() for kind, state in states.items()}


def new_generator(device: torch.device) -> torch.Generator:
    """Return a generator on a device."""
    return torch.Generator(device)


def seed_from(state: Tensor) -> int:
    """Return a seed that depends on all of a generator's state."""
    digest = hashlib.sha256(state.cpu().numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
