"""One PNG of what a run's tasks predict, from the pictures that its event file holds.

    python scripts/picture.py outputs/runs/hard-equal-lr0.001-s0-scenes-0123abcd scenes.png

A column per validation sample; rows: the input, then label and prediction of each task in the order of the config. The
pictures are those of the last evaluation, or of --step.
"""

import argparse
import io
import sys
from pathlib import Path

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from mtlrun.records.event_contents import tag_of_picture
from mtlrun.training.captions import GRID

GAP = 2  # pixels between the images of a grid, and around it: that of torchvision's make_grid


def read(folder: str, step: int | None) -> list[Tensor]:
    """Return the pictures [3, height, width] of one step; exit where there are none."""
    if not Path(folder).is_dir():
        sys.exit(f"no folder {folder}")
    events = EventAccumulator(folder, size_guidance={IMAGES: 0}).Reload()
    tags = [tag for tag in events.Tags()["images"] if tag.startswith(tag_of_picture(""))]
    if not tags:
        sys.exit(f"{folder} holds no pictures: no task has some, trainer.log_pictures was 0, or it is no run's folder")
    found = []
    for tag in tags:
        by_step = {event.step: event.encoded_image_string for event in events.Images(tag)}
        chosen = max(by_step) if step is None else step
        if chosen not in by_step:
            sys.exit(f"--step must be one of {', '.join(map(str, sorted(by_step)))}, found {step}")
        shown = Image.open(io.BytesIO(by_step[chosen]))
        *box, scale = map(int, shown.info[GRID].split())  # without captions, legend and enlargement
        found.append(pil_to_tensor(shown.convert("RGB").crop(box))[:, ::scale, ::scale])
    return found


def join(pictures: list[Tensor]) -> Tensor:
    """Return the pictures one below the other; inputs that two of them share are shown once."""
    width = max(picture.shape[2] for picture in pictures)
    parts: list[Tensor] = []
    previous = torch.empty(0)
    for picture in pictures:
        inputs = picture[:, : (picture.shape[1] - GAP) // 3]  # the first of three rows: input, label, prediction
        rest = picture[:, inputs.shape[1] :] if torch.equal(inputs, previous) else picture
        previous = inputs
        if parts:
            parts[-1] = parts[-1][:, :-GAP]  # one gap between two pictures is enough
        parts.append(torch.nn.functional.pad(rest, (0, width - rest.shape[2])))
    return torch.cat(parts, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of the run")
    parser.add_argument("output", help="the PNG to write")
    parser.add_argument("--step", type=int, help="an optimizer step at which there was an evaluation")
    args = parser.parse_args()
    to_pil_image(join(read(args.folder, args.step))).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
