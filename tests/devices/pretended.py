"""A pretended device: real numbers in the memory of the CPU, in tensors that say that they lie elsewhere.

`DEVICE` is PyTorch's `meta`, which is built in, and whose backward passes run in the thread that asks for them. Outside
of an `Accelerator` context it is what it always is, so no other test of the process is touched; inside, a tensor made
on it is an `OnDevice`, which holds its numbers. As CUDA would,

- an operation on tensors of both devices raises RuntimeError, unless one on the CPU is a number ([]);
- what makes the host wait for the device is noted, with the line of the program that asked for it. The numbers come all
  the same, so that whole runs are trained.

Not imitated: kernels, streams, the time that anything takes, pinned memory, generators (the CPU's draw), autocast.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mtlrun

DEVICE = torch.device("meta")
_CPU = torch.device("cpu")
_PROGRAM = f"{Path(mtlrun.__file__).parent}/"

#: Operations that read something from the device before they return; in inference mode some come whole that consist of
#: others elsewhere.
_READING = {
    "_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "histc", "repeat_interleave", "nms", "_linalg_check_errors", "_linalg_eigh",
    "_linalg_svd", "linalg_eig", "linalg_inv_ex", "_linalg_solve_ex", "linalg_cholesky_ex", "linalg_matrix_exp",
    "linalg_eigh", "linalg_eigvalsh", "linalg_svd", "linalg_svdvals", "linalg_solve", "linalg_inv", "linalg_cholesky",
    "argwhere",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_COPYING = {"_to_copy", "to", "copy_", "_copy_from"}
#: Operations that may take numbers, tensors [] on the CPU, beside tensors on the device, without being pointwise.
_TAKING_NUMBERS = {"fill_", "lerp", "lerp_", "index_put_", "_index_put_impl_", "set_", "detach", "lift_fresh"}


@dataclass(frozen=True)
class Wait:
    """Something for which the host waits.

    Args:
        what: `read` for numbers that come from the device, `sent` for a copy to it that is not asynchronous.
        operation: of PyTorch, such as `nonzero`.
        place: file:line of the innermost frame of the program; the test's if there is none.
    """

    what: str
    operation: str
    place: str


class OnDevice(Tensor):
    """A tensor on the pretended device; `held` has its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # no function of PyTorch is another one for it
    held: Tensor
    is_meta = False  # it has numbers, and modules may load them

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.held = held
        made.memory = _Memory(held)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Accelerator.current().run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def tolist(self) -> Any:
        return Accelerator.current().read("tolist", self).tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor on the device to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Accelerator.current().read("save", self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = OnDevice(self.held.detach().clone())
        return nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied


class _Memory:
    """The memory of one storage; what several tensors hold is counted once."""

    users: ClassVar[Counter[int]] = Counter()
    held = most = 0

    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        _Memory.users[self.key] += 1
        if _Memory.users[self.key] == 1:
            _Memory.held += self.size
            _Memory.most = max(_Memory.most, _Memory.held)

    def __del__(self) -> None:
        _Memory.users[self.key] -= 1
        if not _Memory.users[self.key]:
            del _Memory.users[self.key]
            _Memory.held -= self.size


class Accelerator(TorchDispatchMode):
    """The context in which the pretended device exists, and the record of what is done on it."""

    _current: "Accelerator | None" = None

    def __init__(self) -> None:
        super().__init__()
        #: For what the host has waited.
        self.waits: list[Wait] = []
        #: How often each operation was called.
        self.operations: Counter[str] = Counter()
        self._functions = _Functions(self)

    @classmethod
    def current(cls) -> "Accelerator":
        """Return the one whose context is entered."""
        if cls._current is None:
            raise RuntimeError("a tensor on the pretended device is used outside of its context")
        return cls._current

    def __enter__(self) -> "Accelerator":
        Accelerator._current = self
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)
        Accelerator._current = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    @contextmanager
    def measured_memory(self) -> Iterator[Callable[[], tuple[int, int]]]:
        """Give a function that returns the bytes held on the device at the start, and the most since then."""
        start = _Memory.most = _Memory.held
        yield lambda: (start, _Memory.most)

    def note(self, what: str, operation: str) -> None:
        """Note a wait, at the innermost frame of the program."""
        frame = found = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(_PROGRAM):
                found = frame
                break
            frame = frame.f_back
        place = found.f_code.co_filename.removeprefix(_PROGRAM)
        self.waits.append(Wait(what, operation, f"{place}:{found.f_lineno}"))

    def read(self, operation: str, tensor: OnDevice) -> Tensor:
        """Return the numbers of a tensor to the host, which has to wait for them."""
        self.note("read", operation)
        return tensor.held

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation of PyTorch on the numbers; its results lie where CUDA would have them."""
        here: list[OnDevice] = []
        there: list[Tensor] = []
        for value in (*args, *kwargs.values()):
            _sort(value, here, there)
        name, names, written = _describe(func)
        target = kwargs.get("device")
        if name == "to":  # in inference mode, where it may stand in any place
            target = dict(zip(names, args, strict=False)).get("device", target)
        to_device = target is not None and torch.device(target) == DEVICE
        if not here and not to_device:
            return func(*args, **kwargs)
        # CUDA has two kinds of cumulative sums.
        self.operations[
            f"{name} of whole numbers" if name == "cumsum" and not here[0].is_floating_point() else name
        ] += 1
        if name in _COPYING:
            self._check_copy(name, dict(zip(names, args, strict=False)) | kwargs, target, to_device)
        elif name in _INDEXING:
            self._check_index(name, args)
        else:
            if name in _READING and here:
                self.note("read", name)
            if here and there and not (all(each.dim() == 0 for each in there) and _takes_numbers(func, name)):
                shapes = [tuple(each.shape) for each in there]
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {shapes} on the CPU")
            if name == "where" and here and there:
                self.note("sent", name)
        result = func(*map(_bare, args), **{key: _bare(value) for key, value in kwargs.items()})
        if target is not None and not to_device:
            return result
        old: list[OnDevice] = []
        for position in written:
            _sort(args[position] if position < len(args) else kwargs.get(names[position]), old, [])
        # Inference mode lets no inference tensor be a view of another tensor.
        inference = torch.is_inference_mode_enabled()
        if func.is_view and inference and not args[0].is_inference():
            with torch.inference_mode(False):
                return _placed(result, {})
        return _placed(result, {id(each.held): each for each in old})

    def _check_copy(self, name: str, named: dict[str, Any], target: Any, to_device: bool) -> None:
        if name in ("_to_copy", "to"):
            from_device = isinstance(named["self"], OnDevice)
            to_device = to_device or (target is None and from_device)
        else:
            from_device, to_device = isinstance(named["src"], OnDevice), isinstance(named["self"], OnDevice)
        if from_device and not to_device:
            self.note("read", name)
        elif to_device and not from_device and not named.get("non_blocking"):
            self.note("sent", name)

    def _check_index(self, name: str, args: Any) -> None:
        indexed, indices, *values = args[0], [each for each in args[1] if each is not None], *args[2:]
        if not isinstance(indexed, OnDevice):
            raise RuntimeError(f"{name}: a tensor on the CPU cannot be indexed, or filled, by one on the device")
        value = values[0] if values else None
        is_number = isinstance(value, Tensor) and value.dim() == 0
        if isinstance(value, Tensor) and not isinstance(value, OnDevice) and not is_number:
            raise RuntimeError(f"{name}: expected the values on the device, found {tuple(value.shape)} on the CPU")
        masks = [each for each in indices if each.dtype in (torch.bool, torch.uint8)]
        is_fill = is_number and len(indices) == 1 and not (len(values) > 1 and values[1])  # masked_fill, by PyTorch
        if masks and not is_fill:
            self.note("read", f"{name} by a mask")
        if any(not isinstance(each, OnDevice) for each in indices):
            self.note("sent", f"{name} by an index on the CPU")
        if is_number and not isinstance(value, OnDevice):
            self.note("sent", f"{name} of a number on the CPU")


class _Functions(TorchFunctionMode):
    """Catches what PyTorch makes of Python's numbers and of modules without asking the dispatcher."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self._accelerator = accelerator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        makes = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if makes and device is not None and torch.device(device) == DEVICE:
            self._accelerator.note("sent", func.__name__)
            return OnDevice(func(*args, **kwargs | {"device": _CPU}))
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice) and device is None:
            self._accelerator.note("sent", func.__name__)
            return OnDevice(args[0].held.new_tensor(*args[1:], **kwargs))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            parts = tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)
            by_index = any(isinstance(part, Tensor) and part.dim() and part.dtype != torch.bool for part in parts)
            if func is Tensor.__setitem__ and by_index and not isinstance(args[2], Tensor):
                self._accelerator.note("sent", "index_put_ of a number")  # which is a tensor on the CPU at first
            args = (args[0], parts if isinstance(args[1], tuple) else parts[0], *args[2:])
        return func(*args, **kwargs)


def _takes_numbers(func: Any, name: str) -> bool:
    return torch.Tag.pointwise in func.tags or name in _TAKING_NUMBERS or name == "where" or name.startswith("_foreach")


@cache
def _describe(func: Any) -> tuple[str, list[str], list[int]]:
    """Return an operation's name, the names of its arguments, and the places of those that it writes to."""
    arguments = func._schema.arguments
    written = [
        place for place, each in enumerate(arguments) if each.alias_info is not None and each.alias_info.is_write
    ]
    return func._schema.name.split("::")[-1], [each.name for each in arguments], written


def _sort(value: Any, here: list[OnDevice], there: list[Tensor]) -> None:
    """Add the tensors of an argument to those on the device, or to those on the CPU."""
    if isinstance(value, OnDevice):
        here.append(value)
    elif isinstance(value, Tensor):
        there.append(value)
    elif isinstance(value, list | tuple):
        for each in value:
            _sort(each, here, there)


def _bare(value: Any) -> Any:
    """Return what stands on the CPU for an argument on the device."""
    if isinstance(value, OnDevice):
        return value.held
    if isinstance(value, list | tuple):
        return [_bare(each) for each in value]
    return _CPU if isinstance(value, torch.device) and value == DEVICE else value


def _placed(result: Any, written: dict[int, OnDevice]) -> Any:
    """Return a result on the device: tensors that were written to, by their numbers' identities, else new ones."""
    if isinstance(result, list | tuple):
        return type(result)(_placed(each, written) for each in result)
    if not isinstance(result, Tensor) or isinstance(result, OnDevice):
        return result
    return written[id(result)] if id(result) in written else OnDevice(result)
