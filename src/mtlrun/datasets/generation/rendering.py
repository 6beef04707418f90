"""Ray casting of rooms with objects: depth, normals and what each pixel shows, exact to float32; and shading.

World coordinates are x, y up, z, in metres; the room stands on y = 0. Camera coordinates are x to the right, y down, z
away from the camera. N rooms are rendered at once, each with P = size * size rays; no image depends on another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("sphere", "box", "cylinder")
SURFACES = ("floor", "wall", "ceiling", *SHAPES)
_NUM_ROOM = 3  # surfaces of the room, which come before those of the objects
_GAP = 1e-3  # metres by which a shadow ray starts off its surface


@dataclass(frozen=True)
class Rooms:
    """N rooms of S objects each. An object is the unit sphere, box or cylinder (along y), scaled, turned and moved.

    Args:
        position: of the camera, [N, 3].
        camera: its axes right, down and forward as columns, [N, 3, 3].
        focal: focal length in image widths, [N].
        size: width (x, around 0), height and length (z, from 0), [N, 3].
        light: place of the lamp, [N, 3].
        ambient: the share of the light that comes from everywhere, [N].
        shapes: index into SHAPES, [N, S]; -1 for no object.
        centres: [N, S, 3].
        halves: half of the extent along each of its own axes, [N, S, 3].
        axes: the object's own axes as columns, [N, S, 3, 3].
        paint: of floor, walls, ceiling and objects, [N, 3 + S, 15]: two colors, two wave vectors, two phases, and how
            sharp the edges of the pattern are; see `shade`.
    """

    position: Tensor
    camera: Tensor
    focal: Tensor
    size: Tensor
    light: Tensor
    ambient: Tensor
    shapes: Tensor
    centres: Tensor
    halves: Tensor
    axes: Tensor
    paint: Tensor


@dataclass(frozen=True)
class Hits:
    """What the rays of N cameras meet.

    Args:
        depth: along the camera's z axis, not along the ray, [N, P].
        normals: of length 1, on the side that is seen, in world coordinates, [N, 3, P].
        painted: which row of `Rooms.paint` each pixel shows, [N, P].
        points: in world coordinates, [N, 3, P].
        places: the same in metres along the object's own axes, [N, 3, P].
    """

    depth: Tensor
    normals: Tensor
    painted: Tensor
    points: Tensor
    places: Tensor


def make_rays(rooms: Rooms, size: int) -> Tensor:
    """Return the direction of each pixel's ray in world coordinates, [N, 3, P]; 1 long along the camera's z axis."""
    steps = (torch.arange(size) + 0.5) / size - 0.5
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    plane = torch.stack([right, down]).flatten(1) / rooms.focal[:, None, None]
    return rooms.camera @ torch.cat([plane, torch.ones_like(plane[:, :1])], dim=1)


def cast(rooms: Rooms, rays: Tensor) -> Hits:
    """Follow each ray from the camera to the first surface."""
    num_rooms = len(rays)
    origin = rooms.position[:, :, None]
    half = rooms.size / 2
    middle = half * torch.tensor([0.0, 1.0, 1.0])
    _, walls = _through_box((origin - middle[:, :, None]) / half[:, :, None], rays / half[:, :, None])
    depth, slot = torch.cat([walls[:, None], _meet_objects(rooms, origin, rays)], dim=1).min(dim=1)

    # The geometry of what was met, for each pixel; the room is a box as well.
    axes = torch.cat([torch.eye(3).expand(num_rooms, 1, 3, 3), rooms.axes], dim=1)
    halves = torch.cat([half[:, None], rooms.halves], dim=1)
    centres = torch.cat([middle[:, None], rooms.centres], dim=1)
    shapes = torch.cat([torch.full((num_rooms, 1), SHAPES.index("box")), rooms.shapes], dim=1)
    pixel_axes = _of_pixels(axes.flatten(2), slot).unflatten(1, (3, 3))
    pixel_halves = _of_pixels(halves, slot)
    points = origin + depth[:, None] * rays
    places = ((points - _of_pixels(centres, slot))[:, :, None] * pixel_axes).sum(dim=1)
    units = places / pixel_halves
    outward, side = _normals(units, _of_pixels(shapes[..., None], slot))
    normals = ((outward / pixel_halves)[:, None] * pixel_axes).sum(dim=2)
    normals = normals * normals.square().sum(dim=1, keepdim=True).rsqrt()
    is_room = slot == 0
    of_room = torch.where(side != 1, 1, torch.where(units[:, 1] < 0, 0, 2))
    return Hits(
        depth=depth,
        normals=torch.where(is_room[:, None], -normals, normals),
        painted=torch.where(is_room, of_room, slot - 1 + _NUM_ROOM),
        points=points,
        places=places,
    )


def classes(rooms: Rooms, hits: Hits) -> Tensor:
    """Return an index into SURFACES for each pixel, [N, P]."""
    room = torch.arange(_NUM_ROOM).expand(len(rooms.shapes), -1)
    return torch.cat([room, rooms.shapes + _NUM_ROOM], dim=1).gather(1, hits.painted)


def outlines(rooms: Rooms, hits: Hits, size: int, least: int) -> Tensor:
    """Return what is seen of each object as a box: x1, y1, x2, y2 in pixels, index into SHAPES, 0; [N, S, 6].

    Objects of which fewer than `least` pixels are seen, and places without an object, are rows of -1.
    """
    slots = torch.arange(rooms.shapes.shape[1])[:, None] + _NUM_ROOM
    seen = (hits.painted[:, None] == slots).unflatten(2, (size, size))
    ends = []
    for along in (seen.any(dim=2), seen.any(dim=3)):  # columns, rows
        steps = torch.arange(size)
        ends.append((torch.where(along, steps, size).amin(dim=2), torch.where(along, steps + 1, 0).amax(dim=2)))
    (left, right), (top, bottom) = ends
    found = torch.stack([left, top, right, bottom, rooms.shapes, torch.zeros_like(left)], dim=2)
    enough = seen.sum(dim=(2, 3)) >= least
    return torch.where(enough[..., None], found, -1).float()


def shade(rooms: Rooms, hits: Hits) -> Tensor:
    """Return the colors of the pixels, [N, 3, P] in [0, 1]: of paint that is lit by a lamp, with shadows.

    The paint of a surface is a solid pattern, a product of two waves through space whose edges are more or less sharp.
    """
    first, second, wave_1, wave_2, rest = _of_pixels(rooms.paint, hits.painted).split(3, dim=1)
    phases = [(wave * hits.places).sum(dim=1) for wave in (wave_1, wave_2)]
    waves = torch.sin(phases[0] + rest[:, 0]) * torch.sin(phases[1] + rest[:, 1])
    colors: Tensor = first + torch.sigmoid(rest[:, 2] * waves)[:, None] * (second - first)

    to_lamp = rooms.light[:, :, None] - hits.points
    square = to_lamp.square().sum(dim=1)
    facing = (hits.normals * to_lamp).sum(dim=1).clamp(min=0) / square.sqrt()
    in_shadow = (_meet_objects(rooms, hits.points + _GAP * hits.normals, to_lamp) < 1).any(dim=1)
    lit = torch.where(in_shadow, 0.0, facing) * 1.6 / (1 + 0.06 * square)
    ambient = rooms.ambient[:, None]
    # The root stands for a camera's gamma: what it records is closer to what is seen than to how much light there is.
    return (colors * (ambient + (1 - ambient) * lit)[:, None]).clamp(0, 1).sqrt()


def _meet_objects(rooms: Rooms, origin: Tensor, rays: Tensor) -> Tensor:
    """Return how many `rays` away the surface of each object is first met, [N, S, P]; infinite where it is not.

    Args:
        rooms: N rooms of S objects.
        origin: where the rays start, outside the objects, [N, 3, P] or [N, 3, 1].
        rays: [N, 3, P].
    """
    num_rooms, num_objects = rooms.shapes.shape
    num_rays = rays.shape[2]
    found = rays.new_full((num_rooms * num_objects, num_rays), torch.inf)
    # Into each object's own coordinates, in which it is 1 large in all directions.
    turn = (rooms.axes / rooms.halves[:, :, None]).transpose(2, 3)
    own = turn.flatten(1, 2)
    offset = (turn @ rooms.centres[..., None]).flatten(1, 2)
    starts = (own @ origin - offset).unflatten(1, (num_objects, 3)).flatten(0, 1)
    directions = (own @ rays).unflatten(1, (num_objects, 3)).flatten(0, 1)
    for index, interval in enumerate((_through_sphere, _through_box, _through_cylinder)):
        rows = (rooms.shapes.flatten() == index).nonzero().squeeze(1)
        enter, leave = interval(starts[rows], directions[rows])
        found[rows] = torch.where((enter < leave) & (enter > 0), enter, torch.inf)
    return found.view(num_rooms, num_objects, num_rays)


def _through_sphere(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays [M, k, P] enter and leave the unit ball of k dimensions, [M, P]; NaN where they do not."""
    square = ray.square().sum(dim=1).clamp(min=1e-12)
    nearest = -(start * ray).sum(dim=1) / square
    # By the point that is nearest to the middle: the usual formula loses digits where the ball is far away.
    rest = 1 - (start + nearest[:, None] * ray).square().sum(dim=1)
    reach = (rest / square).sqrt()
    return nearest - reach, nearest + reach


def _through_box(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays [M, k, P] enter and leave the box from -1 to 1, [M, P]; in wrong order where they do not."""
    inverse = _inverse(ray)
    middle, reach = -start * inverse, inverse.abs()
    return (middle - reach).amax(dim=1), (middle + reach).amin(dim=1)


def _through_cylinder(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave the cylinder of radius 1 around y, from -1 to 1; like the two above."""
    round_enter, round_leave = _through_sphere(start[:, ::2], ray[:, ::2])
    flat_enter, flat_leave = _through_box(start[:, 1:2], ray[:, 1:2])
    return torch.maximum(round_enter, flat_enter), torch.minimum(round_leave, flat_leave)


def _normals(units: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Return outward normals of any length [N, 3, P], and which axis a box's side is on [N, P].

    Args:
        units: points on unit shapes, [N, 3, P].
        shapes: which, [N, 1, P].
    """
    side = units.abs().max(dim=1).indices  # argmax is slower
    flat = torch.where(side[:, None] == torch.arange(3)[:, None], units, 0.0)
    upward = units * torch.tensor([[0.0], [1.0], [0.0]])
    around = units - upward
    is_cap = upward[:, 1:2].square() > around.square().sum(dim=1, keepdim=True)
    cylinder = torch.where(is_cap, upward, around)
    return torch.where(shapes == 0, units, torch.where(shapes == 1, flat, cylinder)), side


def _of_pixels(table: Tensor, index: Tensor) -> Tensor:
    """Return for each pixel its row of a table [N, rows, columns]: [N, columns, P]."""
    columns = table.transpose(1, 2)
    return columns.gather(2, index[:, None].expand(-1, columns.shape[1], -1))


def _inverse(ray: Tensor) -> Tensor:
    """Return 1 / ray, finite where a ray is parallel to a side."""
    return torch.where(ray.abs() < 1e-12, 1e-12, ray).reciprocal()
