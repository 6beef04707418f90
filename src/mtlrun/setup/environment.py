"""Device, seeds and threads, and the description of the environment in the record."""

import os
import platform
import random
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch
from threadpoolctl import ThreadpoolController

from mtlrun.errors import ConfigError
from mtlrun.setup.commits import commit_of_folder, commit_of_mtlrun

_PACKAGES = ("mtlrun", "torch", "torchvision", "torchmetrics", "numpy", "hydra-core", "scikit-learn")


def choose_device(name: str) -> torch.device:
    """Return the device for `runtime.device`: auto, cpu, cuda or cuda:<n>.

    Raises:
        ConfigError: there is no device of that name on this machine.
    """
    available = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name == "auto":
        return torch.device(available[1] if len(available) > 1 else "cpu")
    allowed = ", ".join(["auto", *available])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"runtime.device must be one of {allowed}, found {name!r}") from None
    full_name = f"cuda:{device.index or 0}" if device.type == "cuda" else device.type
    if full_name not in available:
        raise ConfigError(f"runtime.device={name}: PyTorch finds no such device here; available: {allowed}")
    return torch.device(full_name)


def use_device(device: torch.device) -> None:
    """Let what names no GPU in particular be on this one, rather than on the first one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # PyTorch says so of the thread that makes backward passes, and does what is needed.
        warnings.filterwarnings("ignore", message="Attempting to run cuBLAS, but there was no current CUDA context")


def set_seed(seed: int, *, deterministic: bool) -> None:
    """Seed all global generators; `deterministic` also makes CUDA use deterministic algorithms."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    tune_convolutions(not deterministic)
    # Looked at once in a process, at its first product of matrices on a GPU; deterministic algorithms need it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def tune_convolutions(wanted: bool) -> None:
    """Let cuDNN try its algorithms for each size of a batch that it has not met, and keep the fastest, or not.

    It pays where sizes recur.
    """
    torch.backends.cudnn.benchmark = wanted


def use_tf32(allowed: bool) -> None:
    """Let GPUs round the factors of float32 matrix products and convolutions to TF32, or keep all of their digits.

    PyTorch rounds those of convolutions by default. These switches set the newer ones, `fp32_precision`, as well; where
    the newer ones alone are set, PyTorch raises when these are read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the newer ones
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def keep_solvers_on_one_thread() -> None:
    """Limit NumPy's OpenBLAS, not PyTorch's, to one thread: on K x K matrices several only wait for each other."""
    _limit_openblas("numpy" in sys.modules, "scipy.linalg" in sys.modules)


@cache
def _limit_openblas(*_: bool) -> None:
    """Limit what is loaded, which it takes a while to find out; NumPy and SciPy each bring a library of their own."""
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)


def use_threads(number: int) -> None:
    """Let PyTorch use so many threads on the CPU, whatever the machine has, since sums depend on how they are divided.

    Raises:
        ConfigError: it does not, as with the environment variable OMP_THREAD_LIMIT.
    """
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)
    if torch.get_num_threads() != number:
        raise ConfigError(
            f"runtime.num_threads={number}: PyTorch is limited to {torch.get_num_threads()} here, with which results "
            "would differ; is OMP_THREAD_LIMIT set?"
        )


def describe(device: torch.device) -> dict[str, Any]:
    """Return versions, hardware, and the commits of mtlrun and of the current folder."""
    environment: dict[str, Any] = {
        **describe_code(),
        "git": commit_of_folder(),
        "platform": platform.platform(),
        "host": platform.node(),
        "device": str(device),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    if device.type == "cuda":
        environment["gpu"] = torch.cuda.get_device_name(device)
        environment["cuda"] = torch.version.cuda
        environment["cudnn"] = torch.backends.cudnn.version()
        environment["driver"] = _driver_version()
        environment["tf32"] = torch.backends.cuda.matmul.allow_tf32
        environment["cudnn_benchmark"] = torch.backends.cudnn.benchmark
        environment["deterministic"] = torch.are_deterministic_algorithms_enabled()
    return environment


def _driver_version() -> str | None:
    """Return the version of NVIDIA's driver, None if the system does not show it."""
    with suppress(OSError):
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", Path("/proc/driver/nvidia/version").read_text())
        return found[1] if found else None
    return None


@cache
def describe_code() -> Mapping[str, Any]:
    """Return the commit of mtlrun, and versions: of the code that this process has begun with."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"mtlrun": commit_of_mtlrun(), "versions": versions}
