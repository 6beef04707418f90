"""What a run leaves behind, as far as it must not depend on faults on the way, as texts and numbers that compare."""

import hashlib
import json
import struct
from pathlib import Path

#: Keys of a record, and of the progress in last.pt, that tell of the time, the machine, or the way to the end.
_OF_THE_WAY = {"started", "ended", "seconds", "waiting", "resumed", "peak_memory_mib", "environment", "overrides"}


def find_outcome(root):
    """Return {what: content} of the one run below `root`."""
    import torch

    (record_path,) = Path(root).glob("*/*/record.json")
    folder = record_path.parent
    names = {_without_time(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    record = {key: value for key, value in json.loads(record_path.read_text()).items() if key not in _OF_THE_WAY}
    del record["config"]["runtime"]
    lost = [note for note in record["notes"] if note.endswith("the run goes on without it")]
    record["notes"] = [note for note in record["notes"] if note not in lost]
    found = {
        # One that was continued has one more checkpoint, and one that could not write its log has none.
        "files": sorted(names.keys() - {"checkpoints/previous.pt", "run.log"}),
        "record": record,
        "lost": lost,
        "log": "NUL bytes" if "run.log" in names and b"\0" in names["run.log"].read_bytes() else "",
    }
    for name, path in names.items():
        if name == "events":
            found[name] = read_events(path)
        elif name in ("checkpoints/last.pt", "checkpoints/best.pt"):
            found[name] = dict(_flat(torch.load(path, weights_only=True), ""))
        elif path.suffix in (".jsonl", ".json", ".csv") and name != "record.json":
            found[name] = path.read_text()
    return found


def read_events(path):
    """Return [step, tag, value] of each scalar of an event file, and the tags of the rest.

    Raises:
        ValueError: it is damaged.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    content, found, place = path.read_bytes(), [], 0
    while place < len(content):
        header = content[place : place + 8]
        (size,), (check,) = struct.unpack("<Q", header), struct.unpack("<I", content[place + 8 : place + 12])
        data = content[place + 12 : place + 12 + size]
        place += 16 + size
        if check != masked_crc32c(header) or content[place - 4 : place] != struct.pack("<I", masked_crc32c(data)):
            raise ValueError(f"{path.name} is damaged before byte {place} of {len(content)}")
        event = Event.FromString(data)
        for value in event.summary.value:
            is_scalar = value.HasField("simple_value")
            found.append([event.step, value.tag, repr(value.simple_value) if is_scalar else ""])
    return found


def differences(expected, found):
    """Return in words where two outcomes differ, [] where they do not.

    One observer may be lost, which a note says; the event file may then lack its end, or not be there.
    """
    expected, found = dict(expected), dict(found)
    lost = expected["lost"] = found["lost"]
    if len(lost) > 1 or not all("run.log" in note or "tfevents" in note for note in lost):
        return [f"lost: {lost}"]
    if "tfevents" in "".join(lost):
        events = found["events"] = found.get("events", [])
        expected["events"] = expected["events"][: len(events)]
        found["files"] = sorted({*found["files"], "events"})
    if found == expected:
        return []
    return [
        f"{what}: {_difference(expected.get(what), found.get(what))}"
        for what in sorted(expected.keys() | found.keys())
        if expected.get(what) != found.get(what)
    ]


def _difference(expected, found):
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
        return "; ".join(f"{key} {_difference(expected.get(key), found.get(key))}" for key in keys)[:300]
    if isinstance(expected, str) and isinstance(found, str):
        expected, found = expected.splitlines(), found.splitlines()
    if isinstance(expected, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            if one != other:
                return f"item {number} is {str(other)[:100]!r} and not {str(one)[:100]!r}"
        return f"{len(found)} items and not {len(expected)}"
    return f"is {str(found)[:100]} and not {str(expected)[:100]}"


def _without_time(path):
    return "events" if path.name.startswith("events.") else str(path)


def _flat(state, name):
    """Yield (name, content) of all that a checkpoint holds; tensors as a hash."""
    if isinstance(state, dict):
        for key, value in state.items():
            # Files give their sizes, and the event file holds the config, with `runtime`.
            if f"{name}.{key}" != ".observers" and (name != ".progress" or key not in _OF_THE_WAY):
                yield from _flat(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from _flat(value, f"{name}.{number}")
    elif hasattr(state, "numpy"):
        content = state.contiguous().numpy().tobytes()
        yield name, f"{list(state.shape)} {state.dtype} {hashlib.sha256(content).hexdigest()[:16]}"
    else:
        yield name, repr(state)
