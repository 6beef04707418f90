"""Pretrained weights for backbones made of torchvision's networks, and checks of their arguments."""

import pickle
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights


def check_images(name: str, input_shape: Sequence[int], smallest: int = 1) -> None:
    """Raise ValueError unless inputs are images (channels, height, width) of at least `smallest` pixels a side."""
    if len(input_shape) != 3:
        raise ValueError(f"{name} needs images (channels, height, width), found inputs of shape {tuple(input_shape)}")
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{name} needs images of {smallest} x {smallest} or more, found inputs of shape {tuple(input_shape)}"
        )


def check_pretrained(weights: str | None, input_shape: Sequence[int], **arguments: tuple[Any, Any]) -> None:
    """Raise ValueError if weights are given and the network is not the one that they were trained in.

    Args:
        weights: the backbone's argument.
        input_shape: shape of one image.
        arguments: {name: (its value, the value that the weights need)}.
    """
    if weights is None:
        return
    if input_shape[0] != 3:
        raise ValueError(f"weights need images of 3 channels, found inputs of shape {tuple(input_shape)}")
    for name, (found, needed) in arguments.items():
        if found != needed:
            raise ValueError(f"weights need {name}={needed}, found {name}={found}")


def load_weights(network: nn.Module, weights: str, model: str, without: str) -> None:
    """Load pretrained weights into a network; see `read_weights` and `fill`."""
    fill(network, read_weights(weights, model), weights, model, without)


def read_weights(weights: str, model: str) -> dict[str, Tensor]:
    """Return the pretrained state_dict of one of torchvision's networks; it is cached, so do not modify its tensors.

    torchvision's weights expect images that are normalized as in their training; that is up to the dataset.

    Args:
        weights: one of torchvision's names for this network, such as `IMAGENET1K_V1` or `DEFAULT`, which torchvision
            downloads once; or the path of a file with a state_dict of this network, saved by torch.save.
        model: torchvision's name of the network.

    Raises:
        ValueError: beginning with `weights`: unknown name, missing or unreadable file, not a state_dict.
    """
    names = get_model_weights(model).__members__
    if weights in names:
        entry = names[weights]
        try:
            return _download(entry)
        except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"weights: {weights} of {model} could not be downloaded or read ({_reason(error)}); "
                f"download {entry.url} by hand and set backbone.weights=<file>"
            ) from error
    path = Path(weights).expanduser()
    if not path.exists():
        if len(path.parts) > 1 or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            raise ValueError(f"weights: there is no file {path.absolute()}")
        raise ValueError(
            f"weights must be null, one of {', '.join(names)} (torchvision's for {model}) or the path of a file, "
            f"found {weights!r}"
        )
    try:
        state = _open(path.resolve(), path.stat().st_mtime_ns)
    except Exception as error:  # other files may fail in any way
        raise ValueError(f"weights: {path} cannot be read as a file of torch.save ({_reason(error)})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} holds no state_dict, {{name: tensor}}; save network.state_dict() alone")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], weights: str, model: str, without: str) -> None:
    """Copy a state_dict of torchvision's into a network that uses the same keys.

    Args:
        network: `state` must hold all of its parameters and buffers.
        state: of torchvision's network.
        weights: origin of `state`, for messages.
        model: torchvision's name of the network, for messages.
        without: prefix of the keys that are left out, those of the classifier.

    Raises:
        ValueError: beginning with `weights`: keys or shapes do not match.
    """
    # A plain dict carries no version, so that modules accept keys from before torchvision renamed them.
    kept = {key: value for key, value in state.items() if not key.startswith(without)}
    try:
        missing, unexpected = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:  # its second line names the first shape that differs
        problem = str(error).splitlines()[1].strip().rstrip(".")
        raise ValueError(f"weights: {weights} does not fit {model}: {problem}") from error
    problems = [f"lacks {_some(missing)}"] if missing else []
    problems += [f"has {_some(unexpected)}, which the network has no place for"] if unexpected else []
    if problems:
        raise ValueError(f"weights: {weights} does not fit {model}: it {' and '.join(problems)}")


# A model makes several networks from the same weights, so the file that was read last is cached.
@lru_cache(maxsize=1)
def _download(entry: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = entry.get_state_dict(
        progress=False, check_hash=True, map_location="cpu", weights_only=True
    )
    return state


@lru_cache(maxsize=1)
def _open(path: Path, modified: int) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _some(keys: Sequence[str]) -> str:
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
