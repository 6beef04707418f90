"""TensorBoard's event files: entries as bytes, made without PyTorch.

PyTorch's SummaryWriter opens a new file whenever it is constructed, and puts hyperparameters into a second run; so the
entries are made here, in TensorBoard's record format: the size of the data, 8 bytes, a checksum of these, 4, the data,
and their checksum, 4.
"""

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Chart:
    """A chart of the page Custom Scalars.

    Args:
        title: above the chart.
        tags: regular expressions: a line for each tag that one of them matches from its beginning.
        bands: (tag, tag of the lower edge, tag of the upper edge) of lines with a band; a chart has lines or bands.
    """

    title: str
    tags: Sequence[str] = ()
    bands: Sequence[tuple[str, str, str]] = field(default=())


def header() -> bytes:
    """Return the entry that every event file begins with."""
    from tensorboard.compat.proto.event_pb2 import Event

    return _frame(Event(wall_time=time.time(), file_version="brain.Event:2"))


def scalars(values: Mapping[str, float], step: int) -> bytes:
    """Return an entry with the points {tag: value} of curves."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return _entry([Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()], step)


def text(tag: str, markdown: str) -> bytes:
    """Return an entry with a text, for the page Text."""
    from tensorboard.plugins.text import metadata

    return _entry([_tensor(tag, metadata.create_summary_metadata("", ""), markdown.encode())], 0)


def picture(tag: str, png: bytes, size: tuple[int, int], step: int) -> bytes:
    """Return an entry with a picture in colors of `size` (width, height)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    return _entry([Summary.Value(tag=tag, image=image)], step)


def layout(categories: Mapping[str, Sequence[Chart]]) -> bytes:
    """Return an entry with the charts of the page Custom Scalars, {title: charts}.

    TensorBoard shows those of all runs together, each chart once.
    """
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    margin = layout_pb2.MarginChartContent
    shown = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(
                    title=chart.title,
                    margin=margin(
                        series=[margin.Series(value=value, lower=low, upper=high) for value, low, high in chart.bands]
                    ),
                )
                if chart.bands
                else layout_pb2.Chart(title=chart.title, multiline=layout_pb2.MultilineChartContent(tag=chart.tags))
                for chart in charts
            ],
        )
        for title, charts in categories.items()
        if charts
    ]
    content = layout_pb2.Layout(category=shown).SerializeToString()
    return _entry([_tensor(metadata.CONFIG_SUMMARY_TAG, metadata.create_summary_metadata(), content)], 0)


def session_start(hyperparameters: Mapping[str, bool | int | float | str]) -> bytes:
    """Return the entry by which a run stands in the table of the page HParams.

    No entry describes the experiment as a whole: TensorBoard would take what that of any single run declares for all
    runs. Without one it finds which hyperparameters there are, and which of them differ.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(start_time_secs=time.time())
    for key, value in hyperparameters.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[key], kind, value)
    return _hparams("session_start_info", HParamsPluginData(session_start_info=start), 0)


def session_end(step: int) -> bytes:
    """Return the entry that says that the run has ended with a result."""
    from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
    return _hparams("session_end_info", HParamsPluginData(session_end_info=end), step)


def find_whole(content: bytes) -> tuple[int, int]:
    """Return the number of bytes before the first entry that is torn, and the step of the last one before it.

    Both are 0 if nothing is left of after the first step: what stands before it is only of use as a whole.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    size = step = 0
    while size + 16 <= len(content):
        head = content[size : size + 8]
        start, end = size + 12, size + 12 + int.from_bytes(head, "little")
        data, found = content[start:end], content[size + 8 : start] + content[end : end + 4]
        if found != struct.pack("<II", masked_crc32c(head), masked_crc32c(data)):
            break
        size, step = end + 4, Event.FromString(data).step
    return (size, step) if step else (0, 0)


def _hparams(name: str, content: Any, step: int) -> bytes:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    tag = f"_hparams_/{name}"
    return _entry([Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))], step)


def _tensor(tag: str, metadata: Any, content: bytes) -> Any:
    """Return a value that holds bytes."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    tensor = TensorProto(dtype=DT_STRING, string_val=[content], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _entry(values: Sequence[Any], step: int) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return _frame(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def _frame(event: Any) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    data: bytes = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))
