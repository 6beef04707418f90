"""OnnxPredictor: an exported run, ready to predict by onnxruntime, from its file alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlrun.deployment.code import check_code
from mtlrun.deployment.exporting.export import require_onnx
from mtlrun.deployment.exporting.metadata import read_metadata
from mtlrun.deployment.predictor import Predictor, read_description, restore_tasks
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import MultiTaskModel
from mtlrun.setup.problems import Problems


class OnnxPredictor(Predictor):
    """The model of an ONNX file that `mtlrun export` wrote, with what turns its outputs into predictions."""

    _session: Any

    @staticmethod
    def open(path: Path) -> "OnnxPredictor":
        """Return the predictor of a file; it computes on the CPU.

        Raises:
            DataError: onnxruntime is missing, the file cannot be read or was not written by `mtlrun export`, or its
                tasks need code of their author's that cannot be imported.
        """
        require_onnx()
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise DataError(f"{path} is no ONNX file that can be read ({str(error).splitlines()[0]})") from error
        record, learned = read_metadata(session.get_modelmeta().custom_metadata_map, str(path))
        check_code(record.config, path, ["tasks"])
        description, problems = read_description(learned, path), Problems()
        tasks = restore_tasks(record, description, problems)
        problems.raise_if_any()
        for task in tasks.values():
            task.eval()
        predictor = OnnxPredictor(path, record, learned, description, tasks, [], torch.device("cpu"))
        predictor._session = session
        return predictor

    @property
    def model(self) -> MultiTaskModel:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.folder}: an exported file has no nn.Module; give the folder of the run")

    def run_networks(self, inputs: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        names = [f"{task}.output" for task in tasks]
        found = self._session.run(names, {"inputs": inputs.cpu().numpy()})
        return {task: torch.from_numpy(output) for task, output in zip(tasks, found, strict=True)}
