"""open_predictor(): the predictor of a run, from its folder or from a file that it was exported to."""

from pathlib import Path

from mtlrun.deployment.exporting.onnx_predictor import OnnxPredictor
from mtlrun.deployment.predictor import Predictor


def open_predictor(path: str | Path, device: str = "auto") -> Predictor:
    """Return the predictor of a run.

    Args:
        path: the folder of a completed run; or an ONNX file of `mtlrun export`, which computes on the CPU.
        device: as `runtime.device`.

    Raises:
        DataError, ConfigError, CheckpointError: see `Predictor.load` and `OnnxPredictor.open`.
    """
    path = Path(path)
    return OnnxPredictor.open(path) if path.suffix == ".onnx" and path.is_file() else Predictor.load(path, device)
