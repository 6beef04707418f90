"""What keeps the passes of a run from being captured as CUDA graphs, found before anything is written."""

import copy

import torch

from mtlrun.errors import ConfigError
from mtlrun.setup.plain_passes import limits_of_plain_passes
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.captured_passes import CapturedPasses, CudaGraphs, Graphs
from mtlrun.training.forward import forked_random_numbers
from mtlrun.training.parts import Parts


def check_cuda_graph(parts: Parts, graphs: Graphs | None = None) -> None:
    """Raise ConfigError if `trainer.cuda_graph` is set, and passes cannot be captured; a copy of the model is tried.

    Args:
        parts: of the run.
        graphs: what captures; None for CUDA.
    """
    if not parts.settings.cuda_graph:
        return
    problem = _find_problem(parts, graphs)
    if problem:
        raise ConfigError(f"trainer.cuda_graph=true: {problem}; leave it out")


def _find_problem(parts: Parts, graphs: Graphs | None) -> str:
    """Return why passes cannot be captured, "" if they can."""
    if graphs is None and parts.device.type != "cuda":
        return f"it needs a GPU, and the run is on the device {parts.device.type}"
    problem = next(limits_of_plain_passes(parts, "CUDA graphs", precision=("fp32", "tf32", "bf16")), "")
    if problem:
        return problem
    train = parts.loaders["train"]
    batch = LabeledBatch.load(parts.tasks, train.first(train.batch_size), parts.device)
    model = copy.deepcopy(parts.model).train()
    try:
        with forked_random_numbers(model.parameters()), torch.enable_grad():
            passes = CapturedPasses(model, parts.tasks, graphs or CudaGraphs(parts.device))
            if passes.forward(batch) is None:
                return "batches of this dataset have labels missing"
            passes.backward(torch.ones(len(parts.tasks), device=parts.device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first: BaseException = error  # the end of a capture that has failed is an error of its own
        while isinstance(first.__context__, RuntimeError):
            first = first.__context__
        return f"the passes cannot be captured ({str(first).splitlines()[0]})"
    return ""
