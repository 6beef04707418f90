"""Export of a run: its model as an ONNX file or a program of torch.export, checked before it is kept."""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlrun.deployment.exporting.metadata import write_metadata
from mtlrun.deployment.exporting.program import Program, without_unused
from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import DataError
from mtlrun.models.computation import Computation
from mtlrun.records.folder import open_atomically

#: {format: suffix of its files}.
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
#: Sizes of the batches with which an exported program is compared; none is that of the example.
CHECKED = (1, 5)
# By how much outputs may differ, as a fraction of the largest one of their task, 1 at least.
_TOLERANCE = 1e-4

# From inputs to the outputs, in order.
_Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Args:
        path: of the file.
        outputs: their names.
        num_bytes: of the file.
        difference: the largest from what PyTorch computes, as a fraction of the largest output of the task, 1 at least.
    """

    path: Path
    outputs: Sequence[str]
    num_bytes: int
    difference: float


def export(predictor: Predictor, path: Path, form: str) -> Exported:
    """Write the model of a run as a file that needs nothing of mtlrun; the size of the batch may be any.

    Args:
        predictor: of the tasks that are to be predicted, on the CPU. What only others need is left out.
        path: of the file.
        form: `onnx` or `torch`.

    Raises:
        DataError: packages are missing, the model cannot be exported, or its outputs are not those of PyTorch.
        StorageError: the file cannot be written.
    """
    if form == "onnx":
        require_onnx()
    predictor = copy.deepcopy(predictor)  # the parameters of what is left out are emptied
    for network in predictor.networks:
        network.model.computation = Computation()  # float32, which any program that reads the file can compute
    program = Program(predictor).eval()
    expected = [(inputs := program.example(size, seed=size), _outputs(program, inputs)) for size in CHECKED]
    metadata = write_metadata(predictor, program.parts)
    try:
        with _in_silence():
            traced = _trace(program)
            if without_unused(program, traced):
                traced = _trace(program)
            content, run = (_as_onnx if form == "onnx" else _as_torch)(traced, program.output_names, metadata)
            difference = max(_compare(program.output_names, want, run(inputs)) for inputs, want in expected)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{predictor.folder}: the model cannot be exported as {form} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason is given'})"
        ) from error
    if difference > _TOLERANCE:
        raise DataError(
            f"{predictor.folder}: the exported model differs from PyTorch's by {difference:.2g} of its largest output, "
            f"and at most {_TOLERANCE:g} is allowed; nothing is written"
        )
    with open_atomically(path) as file:
        file.write(content)
    return Exported(path, program.output_names, len(content), difference)


def require_onnx() -> None:
    """Raise DataError if a package for ONNX is missing."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError(f"ONNX needs {error.name}: pip install 'mtlrun[export]'") from error


def _trace(program: Program) -> torch.export.ExportedProgram:
    example = program.example(3)
    return torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)


def _outputs(program: Program, inputs: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return list(program(inputs))


def _as_onnx(
    traced: torch.export.ExportedProgram, names: Sequence[str], metadata: dict[str, str]
) -> tuple[bytes, _Run]:
    import onnxruntime

    program: Any = torch.onnx.export(
        traced, input_names=["inputs"], output_names=list(names), dynamo=True, verbose=False
    )
    program.model.metadata_props.update(metadata)
    proto = program.model_proto
    if proto.ByteSize() >= 2**31:
        raise DataError("the model has more than 2 GiB, and an ONNX file cannot have; use --format torch")
    content: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Tensor) -> list[Tensor]:
        return [torch.from_numpy(found) for found in session.run(list(names), {"inputs": inputs.numpy()})]

    return content, run


def _as_torch(
    traced: torch.export.ExportedProgram, names: Sequence[str], metadata: dict[str, str]
) -> tuple[bytes, _Run]:
    buffer = io.BytesIO()
    torch.export.save(traced, buffer, extra_files={f"{name}.json": text for name, text in metadata.items()})
    content = buffer.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _compare(names: Sequence[str], expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Return the largest difference; predictions are made of outputs, and may differ where two classes are equal."""
    largest = 0.0
    for name, want, have in zip(names, expected, found, strict=True):
        if want.shape != have.shape or want.dtype != have.dtype:
            raise ValueError(f"{name} is {have.dtype} {list(have.shape)}, not {want.dtype} {list(want.shape)}")
        if want.numel() and not (name.endswith(".prediction") and not want.is_floating_point()):
            scale = max(1.0, float(want.abs().max()))
            difference = float((want.double() - have.double()).abs().max()) / scale
            largest = max(largest, float("inf") if difference != difference else difference)
    return largest


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keep what PyTorch's exporters remark on their own work from the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
