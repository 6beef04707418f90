"""The program of a predictor: one module of tensors alone, from encoded inputs to what all tasks predict."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.deployment.predictor import Predictor
from mtlrun.tasks import DecodesPredictions


class Program(nn.Module):
    """The model of a run with the decoding of its outputs, for export.

    Its outputs are, for each task, what its head puts out, and for the kinds that have `decode` the predictions and the
    probabilities; `output_names` has their names, in order.

    Args:
        predictor: of the tasks that are to be predicted, all of which take inputs of one shape.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self._predictor = predictor
        self.networks = nn.ModuleList(network.model for network in predictor.networks)
        #: {task: names of its outputs}: `output`, and where there is decoding `prediction` and `probability`.
        self.parts = self._find_parts()

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, `<task>.<part>`, in order."""
        return [f"{task}.{part}" for task, parts in self.parts.items() for part in parts]

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all outputs for encoded inputs [batch, *input_shape]."""
        outputs = self._predictor.run_networks(inputs, list(self._predictor.tasks))
        found: list[Tensor] = []
        for task, output in outputs.items():
            found += self._parts_of(task, output).values()
        return tuple(found)

    def example(self, batch_size: int, seed: int = 0) -> Tensor:
        """Return random inputs that the model may get: noise, and where a number is a category one of its indices."""
        generator = torch.Generator().manual_seed(seed)
        shape = self._predictor.input_shape
        inputs = torch.randn(batch_size, *shape, generator=generator)
        for index, column in enumerate(self._predictor.description.columns or ()):
            if column.kind != "number":
                high = 2 if column.kind == "indicator" else column.num_categories
                inputs[:, index] = torch.randint(high, (batch_size,), generator=generator).float()
        return inputs.to(self._predictor.device)

    def _find_parts(self) -> Mapping[str, Sequence[str]]:
        with torch.inference_mode():
            outputs = self._predictor.run_networks(self.example(2), list(self._predictor.tasks))
            return {task: list(self._parts_of(task, output)) for task, output in outputs.items()}

    def _parts_of(self, task: str, output: Tensor) -> dict[str, Tensor]:
        parts, kind = {"output": output}, self._predictor.tasks[task]
        if isinstance(kind, DecodesPredictions):
            decoded = kind.decode(output)
            parts["prediction"] = decoded.prediction
            if decoded.probabilities is not None:
                parts["probability"] = decoded.probabilities
        return parts


def without_unused(program: Program, exported: torch.export.ExportedProgram) -> bool:
    """Empty the parameters that an exported program does not use, such as those of heads that were left out.

    Args:
        program: whose networks are changed; they must be copies.
        exported: of this program.

    Returns:
        True if there were any, so that the program is to be exported anew.
    """
    signature = exported.graph_signature
    targets = signature.inputs_to_parameters | signature.inputs_to_buffers
    unused = {
        targets[node.name]
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in targets and not node.users
    }
    tensors = dict(program.named_parameters()) | dict(program.named_buffers())
    emptied = [tensors[name] for name in unused if name in tensors and tensors[name].dim()]
    for tensor in emptied:
        tensor.data = tensor.data.new_empty((0,) * tensor.dim())
    return bool(emptied)
