"""scenes: rooms with spheres, boxes and cylinders, rendered on first use; three dense tasks, and detection.

Needs no files and no network. The tasks are those that are usually trained together on NYUv2, segmentation, depth and
surface normals, here with exact labels; boxes around the objects are a fourth one.
"""

import math
from typing import Annotated

import numpy
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mtlrun.config.bounds import Bounds, Fraction, FractionBelowOne, Generated, NonNegative, Seed, checked
from mtlrun.config.checks import check_one_of
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, Normalization, SplitName, TensorCache, TensorSplit
from mtlrun.datasets.files.pixels import Scale
from mtlrun.datasets.generation.rendering import SHAPES, Rooms, cast, classes, make_rays, outlines, shade

_CHUNK = 16  # rooms that are rendered together: their rays fit into a processor's cache
_MIN_VISIBLE = 8  # visible pixels of an object that has a box
_IMAGES, _NOISE, _MISSING = range(3)  # purposes of the random generators of each split


class Scenes(MultiTaskDataset):
    """Images of random rooms, with the class, the depth and the surface normal at each pixel.

    Inputs are [3, size, size]. Floor, walls, ceiling and objects have random colors and patterns that are
    independent of their class; a lamp at a random position gives shading and shadows; camera, room and objects are
    placed at random, and objects occlude each other. Targets are exact at the center of each pixel:

    - segmentation: int64 [size, size], index into `mtlrun.datasets.generation.rendering.SURFACES` (floor, wall,
      ceiling, sphere, box, cylinder).
    - depth: [1, size, size], meters along the camera's axis (not along the ray), as depth sensors measure it.
    - normals: [3, size, size], unit vectors in the camera's coordinates: x to the right, y down, z away from it.
    - objects: float32 [max_objects, 6], for `mtlrun.tasks.Detection`: the box around the visible part of each object,
      x1, y1, x2, y2 in pixels, the class (sphere, box, cylinder), 0. Objects with fewer than 8 visible pixels are left
      out.

    Each split has separate random generators, so no scene is in two of them. The first scenes of a split do not depend
    on its size. Splits are rendered on first use, about 400 images a second on one core.

    Args:
        num_train, num_val, num_test: images of the splits.
        size: side of the images in pixels.
        max_objects: the most objects in a room, which has at least 1; 0 for empty rooms.
        texture: contrast of the patterns, in [0, 1]; 0 for plain colors.
        noise: standard deviation of the camera's noise, on images in [0, 1].
        normalize: `none` for [0, 1], `centered` for [-1, 1], `imagenet` for what pretrained backbones expect.
        missing: fraction of the training images that lack a task's label, drawn separately for each task, in [0, 1).
        scenes_seed: fixes everything random in the data; the run's seed does not.
        cache: `memory`; `device`: samples lie on the GPU; `auto`: there if it has room for them.
    """

    task_names = ("segmentation", "depth", "normals", "objects")

    @checked
    def __init__(
        self,
        num_train: Generated = 1000,
        num_val: Generated = 200,
        num_test: Generated = 200,
        size: Annotated[int, Bounds(8, 10_000, limit=True)] = 64,
        max_objects: Annotated[int, Bounds(0, 1000, limit=True)] = 6,
        texture: Fraction = 0.7,
        noise: NonNegative = 0.05,
        normalize: Normalization = "none",
        missing: FractionBelowOne = 0.0,
        scenes_seed: Seed = 0,
        cache: TensorCache = "auto",
    ) -> None:
        check_one_of("cache", cache, TensorCache)
        self.cache = cache
        self.input_shape = (3, size, size)
        self._counts: dict[SplitName, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._max_objects = max_objects
        self._texture = texture
        self._noise = noise
        self.normalization = normalize
        self._scale = Scale(normalize)
        self._missing = missing
        self._seed = scenes_seed
        self._splits: dict[SplitName, TensorSplit] = {}

    def split(self, name: SplitName) -> TensorSplit:
        if name not in self._splits:
            self._splits[name] = self._render(name)
        return self._splits[name]

    def _random(self, name: SplitName, purpose: int) -> numpy.random.Generator:
        return numpy.random.default_rng([self._seed, SPLITS.index(name), purpose])

    def _render(self, name: SplitName) -> TensorSplit:
        count, (_, size, _) = self._counts[name], self.input_shape
        random, noise = self._random(name, _IMAGES), self._random(name, _NOISE)
        images = torch.empty(count, 3, size, size)
        segmentation = torch.empty(count, size, size, dtype=torch.int64)
        depth = torch.empty(count, 1, size, size)
        normals = torch.empty(count, 3, size, size)
        objects = torch.full((count, max(self._max_objects, 1), 6), -1.0)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            rooms = draw_rooms(random, part.stop - start, self._max_objects, self._texture)
            hits = cast(rooms, make_rays(rooms, size))
            grain = torch.from_numpy(noise.standard_normal(images[part].shape, dtype=numpy.float32))
            colors = shade(rooms, hits).reshape(grain.shape)
            images[part] = (colors + self._noise * grain).clamp(0, 1)
            segmentation[part] = classes(rooms, hits).reshape(-1, size, size)
            depth[part] = hits.depth.reshape(-1, 1, size, size)
            normals[part] = (rooms.camera.transpose(1, 2) @ hits.normals).reshape(-1, 3, size, size)
            objects[part, : self._max_objects] = outlines(rooms, hits, size, _MIN_VISIBLE)
        targets = {"segmentation": segmentation, "depth": depth, "normals": normals, "objects": objects}
        if name == "train":
            random = self._random(name, _MISSING)
            for task, target in targets.items():
                lacking = random.permutation(count)[: int(self._missing * count)]
                target[lacking] = -1 if task == "segmentation" else torch.nan
        return TensorSplit(self._scale.normalize_(images), targets)


class _Draws:
    """Random numbers for some rooms, taken column by column: each room has a fixed row of them."""

    def __init__(self, random: numpy.random.Generator, num_rooms: int, columns: int) -> None:
        self._numbers = torch.from_numpy(random.random((num_rooms, columns), dtype=numpy.float32))
        self._used = 0

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers between `low` and `high`, [num_rooms, *shape]."""
        stop = self._used + math.prod(shape)
        taken = self._numbers[:, self._used : stop]
        assert taken.shape[1] == stop - self._used
        self._used = stop
        return low + (high - low) * taken.reshape(len(taken), *shape)


def draw_rooms(random: numpy.random.Generator, num_rooms: int, max_objects: int, texture: float) -> Rooms:
    """Return random rooms, with `max_objects` slots for objects in each."""
    draw = _Draws(random, num_rooms, 100 + 50 * max_objects)
    size = torch.stack([draw(low=4, high=7), draw(low=2.5, high=3.2), draw(low=5, high=9)], dim=1)
    width, height, length = size.unbind(dim=1)
    position = torch.stack([width * draw(low=-0.2, high=0.2), draw(low=1.2, high=1.8), draw(low=0.3, high=0.8)], dim=1)
    yaw, pitch, roll = draw(low=-0.4, high=0.4), draw(low=0.05, high=0.45), draw(low=-0.12, high=0.12)
    focal = draw(low=0.8, high=1.1)
    light = torch.stack([width * draw(low=-0.4, high=0.4), height - 0.2, length * draw(low=0.05, high=0.8)], dim=1)
    ambient = draw(low=0.25, high=0.45)

    slots = (max_objects,)
    shapes = (draw(*slots) * len(SHAPES)).long()
    number = (draw() * max_objects).long() + 1
    shapes[torch.arange(max_objects) >= number[:, None]] = -1
    halves = draw(*slots, 3, low=0.2, high=0.55)
    halves[..., 2] = torch.where(shapes == 2, halves[..., 0], halves[..., 2])
    halves = torch.where(shapes[..., None] == 0, halves[..., :1], halves)
    upright = draw(*slots) < 0.6
    axes = _rotations(draw(*slots, 3), upright)
    # Half of the extent of its bounding box along the world's axes.
    extent = (axes.abs() * halves[..., None, :]).sum(dim=3)
    # In view of the camera, within the room, on the floor or in the air.
    bearing = yaw[:, None] + draw(*slots, low=-0.85, high=0.85) * torch.atan(0.5 / focal)[:, None]
    distance = draw(*slots, low=2.0, high=6.0)
    limit = (width[:, None] / 2 - extent[..., 0]).clamp(min=0)
    x = (position[:, :1] + distance * bearing.sin()).clamp(-limit, limit)
    z = torch.minimum(position[:, 2:] + distance * bearing.cos(), length[:, None] - extent[..., 2])
    lift = torch.where(draw(*slots) < 0.3, draw(*slots, high=0.7), 0.0)
    y = torch.minimum(extent[..., 1] + lift, height[:, None] - extent[..., 1])
    centers = torch.stack([x, y, z], dim=2)
    paint = _draw_paint(draw, 3 + max_objects, texture)
    camera = _camera(yaw, pitch, roll)
    return Rooms(position, camera, focal, size, light, ambient, shapes, centers, halves, axes, paint)


def _draw_paint(draw: _Draws, surfaces: int, texture: float) -> Tensor:
    """Return `Rooms.paint`."""
    first, other = draw(surfaces, 3, low=0.1, high=0.9), draw(surfaces, 3, low=0.1, high=0.9)
    second = first + texture * (other - first)
    # Random directions, and wavelengths of 20 cm to 2 m.
    waves = [
        normalize(draw(surfaces, 3, low=-1, high=1), dim=2) * 2 * math.pi / (0.2 * 10 ** draw(surfaces, 1))
        for _ in range(2)
    ]
    phases = draw(surfaces, 2, high=2 * math.pi)
    sharpness = 2 * 10 ** draw(surfaces, 1)
    return torch.cat([first, second, *waves, phases, sharpness], dim=2)


def _rotations(draws: Tensor, upright: Tensor) -> Tensor:
    """Return rotations, axes as columns [..., 3, 3], from numbers in [0, 1), [..., 3]; only around y if `upright`."""
    first = draws[..., 0]
    alpha, beta, gamma = (2 * math.pi * draws).unbind(dim=-1)
    # Quaternions: around y by alpha; or Shoemake's, which are uniform over all rotations.
    around_y = [0 * alpha, (alpha / 2).sin(), 0 * alpha, (alpha / 2).cos()]
    inner, outer = first.sqrt(), (1 - first).sqrt()
    free = [outer * beta.sin(), outer * beta.cos(), inner * gamma.sin(), inner * gamma.cos()]
    x, y, z, w = (torch.where(upright, one, other) for one, other in zip(around_y, free, strict=True))
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*upright.shape, 3, 3)


def _camera(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Return the axes right, down and forward as columns, [N, 3, 3]; without rotation the camera looks along z."""
    forward = torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()], dim=1)
    level = torch.stack([yaw.cos(), torch.zeros_like(yaw), -yaw.sin()], dim=1)
    right = roll.cos()[:, None] * level + roll.sin()[:, None] * torch.linalg.cross(level, forward)
    return torch.stack([right, torch.linalg.cross(right, forward), forward], dim=2)
