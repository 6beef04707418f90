"""The compiled functions of a model, in regions that task gradients may be taken between."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import FunctionType
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import Tensor

from mtlrun.errors import ConfigError
from mtlrun.models.base import MultiTaskModel, SharedRepresentationModel

#: The compiler behind `torch.compile`.
BACKEND = "inductor"

_LOGGER_OF_LIMITS = "torch._dynamo.convert_frame"

logger = logging.getLogger(__name__)


class CompiledFunctions:
    """Compiled `encode` and `decode`, or `forward`, of a model, which it calls in training mode from now on.

    With a representation, trunk and heads are regions of their own, a head for each task: the representation exists
    between them, and the gradient of a task goes through that task's head alone. Any other model is one region, whose
    backward pass computes the gradients of all heads, for those of one task too. The model's parameters and the keys of
    its state are what they were. In evaluation mode nothing is compiled.

    Args:
        model: on its device, in the memory format that it stays in.
        single_backward: True if each graph is walked once, and may reuse what it keeps for that; this is set for the
            process, since PyTorch also asks for it when a graph is walked.
    """

    def __init__(self, model: MultiTaskModel, *, single_backward: bool) -> None:
        self._model = model
        torch.compiler.reset()  # what was compiled for another run of this process would change how this one is
        functorch.donated_buffer = single_backward
        self._is_on = True
        #: Graphs compiled so far.
        self.num_graphs = 0
        self._expected = True
        if isinstance(model, SharedRepresentationModel):
            self._replace("encode", self._compile(model.encode, "encode"))
            takes_tasks = "tasks" in signature(model.decode).parameters
            self._replace("decode", self._heads(model) if takes_tasks else self._compile(model.decode, "decode"))
        else:
            self._replace("forward", self._compile(model.forward, "forward"))
        logging.getLogger(_LOGGER_OF_LIMITS).addFilter(_note_limit)
        # While it compiles a head, PyTorch looks at whatever its input has, and warns itself of that.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf Tensor")
        # Whether they are used is what `trainer.precision` says.
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores for float32 matrix multiplication")

    def started(self) -> None:
        """Note that all that is expected has been compiled; from now on each graph that is compiled is logged."""
        self._expected = False
        logger.info("the model is compiled: %d graphs", self.num_graphs)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within a `with` block, run the model as it is written."""
        self._is_on = False
        try:
            yield
        finally:
            self._is_on = True

    def _replace(self, name: str, compiled: Callable[..., Any]) -> None:
        """Have the model call a compiled function in place of a method, where it trains."""
        written = getattr(self._model, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not (self._is_on and self._model.training):
                return written(*args, **kwargs)
            # The graph with gradients also where none are asked for: losses that are compared are rounded alike.
            with torch.enable_grad():
                return compiled(*args, **kwargs)

        setattr(self._model, name, call)  # an attribute of this object, which no state holds

    def _heads(self, model: SharedRepresentationModel) -> Callable[..., dict[str, Tensor]]:
        """Return `decode` with a compiled function for each task."""
        written = model.decode

        def head(task: str) -> Callable[..., Any]:
            def decode(representation: Tensor, **options: Any) -> Tensor:
                return written(representation, tasks=(task,), **options)[task]

            return self._compile(decode, f"decode_{task}")

        heads = {task: head(task) for task in model.task_names}

        def decode(representation: Tensor, tasks: Sequence[str] | None = None, **options: Any) -> dict[str, Tensor]:
            return {task: heads[task](representation, **options) for task in model.requested(tasks)}

        return decode

    def _compile(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a compiled function, of a code object of its own: PyTorch counts compilations by these."""

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        code = call.__code__.replace(co_name=name)
        copy = FunctionType(code, call.__globals__, name, call.__defaults__, call.__closure__)
        compiled = torch.compile(copy, backend=self._backend)

        def run(*args: Any, **kwargs: Any) -> Any:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return compiled(*args, **kwargs)
            except TorchDynamoException as error:
                why = next(line for line in [*str(error).splitlines(), "no reason is given"] if _says_why(line))
                raise ConfigError(
                    f"trainer.compile=true: PyTorch cannot compile the model ({type(error).__name__}: {why}); use "
                    "trainer.compile=false"
                ) from error

        return run

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        """Compile a graph."""
        from torch._dynamo import lookup_backend

        self.num_graphs += 1
        if not self._expected:
            logger.info("a part of the model is compiled again, for another shape or mode: %d graphs", self.num_graphs)
        options = (
            {"config_patches": {"fallback_random": True}} if BACKEND == "inductor" else {}
        )  # the same dropout masks
        return lookup_backend(BACKEND)(graph, inputs, **options)


def _says_why(line: str) -> bool:
    return bool(line.strip()) and not line.endswith("raised:")


def _note_limit(record: logging.LogRecord) -> bool:
    """Log in one line that a function is compiled no more; return False for the line that this replaces."""
    if "torch._dynamo hit config" not in str(record.msg):
        return True
    logger.warning(
        "trainer.compile=true: a part of the model was compiled %s times, for other shapes or tasks, and PyTorch does "
        "it no more often; what comes now is computed as without the key, and trainer.compile=false may be faster",
        record.args[1] if isinstance(record.args, tuple) else "many",
    )
    return False
