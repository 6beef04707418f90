"""Ray casting of rooms with objects: the depth, normal and surface of each pixel, exact to float32; and shading.

World coordinates are x, y up, z, in meters; the floor is y = 0. Camera coordinates are x to the right, y down, z away
from the camera. N rooms are rendered at once, each with P = size * size rays; no image depends on another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("sphere", "box", "cylinder")
SURFACES = ("floor", "wall", "ceiling", *SHAPES)
_NUM_ROOM = 3  # surfaces of the room; those of the objects follow
_GAP = 1e-3  # distance of the start of a shadow ray from its surface, in meters


@dataclass(frozen=True)
class Rooms:
    """N rooms of S objects each; an object is the unit sphere, box or cylinder (along y), scaled, rotated and moved.

    Args:
        position: of the camera, [N, 3].
        camera: its axes right, down and forward as columns, [N, 3, 3].
        focal: focal length in image widths, [N].
        size: width (x, around 0), height and length (z, from 0), [N, 3].
        light: position of the lamp, [N, 3].
        ambient: fraction of the light that comes from all directions, [N].
        shapes: index into SHAPES, [N, S]; -1 for no object.
        centers: [N, S, 3].
        halves: half of the extent along each of the object's axes, [N, S, 3].
        axes: the object's axes as columns, [N, S, 3, 3].
        paint: of floor, walls, ceiling and objects, [N, 3 + S, 15]: two colors, two wave vectors, two phases, and the
            sharpness of the pattern's edges; see `shade`.
    """

    position: Tensor
    camera: Tensor
    focal: Tensor
    size: Tensor
    light: Tensor
    ambient: Tensor
    shapes: Tensor
    centers: Tensor
    halves: Tensor
    axes: Tensor
    paint: Tensor


@dataclass(frozen=True)
class Hits:
    """The first surface that each ray of N cameras hits.

    Args:
        depth: along the camera's z axis, not along the ray, [N, P].
        normals: of length 1, on the visible side, in world coordinates, [N, 3, P].
        painted: index into `Rooms.paint` for each pixel, [N, P].
        points: in world coordinates, [N, 3, P].
        local: the same points relative to the center of the object, along its axes, [N, 3, P].
    """

    depth: Tensor
    normals: Tensor
    painted: Tensor
    points: Tensor
    local: Tensor


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
    depth, slot = torch.cat([walls[:, None], _hit_objects(rooms, origin, rays)], dim=1).min(dim=1)

    # The geometry of the surface that was hit, for each pixel; the room is a box as well.
    axes = torch.cat([torch.eye(3).expand(num_rooms, 1, 3, 3), rooms.axes], dim=1)
    halves = torch.cat([half[:, None], rooms.halves], dim=1)
    centers = torch.cat([middle[:, None], rooms.centers], dim=1)
    shapes = torch.cat([torch.full((num_rooms, 1), SHAPES.index("box")), rooms.shapes], dim=1)
    pixel_axes = _of_pixels(axes.flatten(2), slot).unflatten(1, (3, 3))
    pixel_halves = _of_pixels(halves, slot)
    points = origin + depth[:, None] * rays
    local = ((points - _of_pixels(centers, slot))[:, :, None] * pixel_axes).sum(dim=1)
    units = local / pixel_halves
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
        local=local,
    )


def classes(rooms: Rooms, hits: Hits) -> Tensor:
    """Return an index into SURFACES for each pixel, [N, P]."""
    room = torch.arange(_NUM_ROOM).expand(len(rooms.shapes), -1)
    return torch.cat([room, rooms.shapes + _NUM_ROOM], dim=1).gather(1, hits.painted)


def outlines(rooms: Rooms, hits: Hits, size: int, least: int) -> Tensor:
    """Return the box around the visible part of each object: x1, y1, x2, y2 in pixels, index into SHAPES, 0; [N, S, 6].

    Objects with fewer than `least` visible pixels, and slots without an object, are filled with -1.
    """
    slots = torch.arange(rooms.shapes.shape[1])[:, None] + _NUM_ROOM
    visible = (hits.painted[:, None] == slots).unflatten(2, (size, size))
    ends = []
    for along in (visible.any(dim=2), visible.any(dim=3)):  # columns, rows
        steps = torch.arange(size)
        ends.append((torch.where(along, steps, size).amin(dim=2), torch.where(along, steps + 1, 0).amax(dim=2)))
    (left, right), (top, bottom) = ends
    boxes = torch.stack([left, top, right, bottom, rooms.shapes, torch.zeros_like(left)], dim=2)
    enough = visible.sum(dim=(2, 3)) >= least
    return torch.where(enough[..., None], boxes, -1).float()


def shade(rooms: Rooms, hits: Hits) -> Tensor:
    """Return the colors of the pixels, [N, 3, P] in [0, 1]: paint that is lit by a lamp, with shadows.

    The paint of a surface is a pattern in space: the product of two waves, with edges of variable sharpness.
    """
    first, second, wave_1, wave_2, rest = _of_pixels(rooms.paint, hits.painted).split(3, dim=1)
    phases = [(wave * hits.local).sum(dim=1) for wave in (wave_1, wave_2)]
    waves = torch.sin(phases[0] + rest[:, 0]) * torch.sin(phases[1] + rest[:, 1])
    colors: Tensor = first + torch.sigmoid(rest[:, 2] * waves)[:, None] * (second - first)

    to_lamp = rooms.light[:, :, None] - hits.points
    square = to_lamp.square().sum(dim=1)
    facing = (hits.normals * to_lamp).sum(dim=1).clamp(min=0) / square.sqrt()
    in_shadow = (_hit_objects(rooms, hits.points + _GAP * hits.normals, to_lamp) < 1).any(dim=1)
    lit = torch.where(in_shadow, 0.0, facing) * 1.6 / (1 + 0.06 * square)
    ambient = rooms.ambient[:, None]
    # The root stands for a camera's gamma correction, which brings intensities closer to perceived brightness.
    return (colors * (ambient + (1 - ambient) * lit)[:, None]).clamp(0, 1).sqrt()


def _hit_objects(rooms: Rooms, origin: Tensor, rays: Tensor) -> Tensor:
    """Return the distance to the first hit of each object, in lengths of `rays`, [N, S, P]; infinite if it is missed.

    Args:
        rooms: N rooms of S objects.
        origin: starts of the rays, outside the objects, [N, 3, P] or [N, 3, 1].
        rays: [N, 3, P].
    """
    num_rooms, num_objects = rooms.shapes.shape
    num_rays = rays.shape[2]
    distances = rays.new_full((num_rooms * num_objects, num_rays), torch.inf)
    # Into the coordinates of each object, in which it is the unit shape.
    rotation = (rooms.axes / rooms.halves[:, :, None]).transpose(2, 3)
    to_local = rotation.flatten(1, 2)
    offset = (rotation @ rooms.centers[..., None]).flatten(1, 2)
    starts = (to_local @ origin - offset).unflatten(1, (num_objects, 3)).flatten(0, 1)
    directions = (to_local @ rays).unflatten(1, (num_objects, 3)).flatten(0, 1)
    for index, interval in enumerate((_through_sphere, _through_box, _through_cylinder)):
        rows = (rooms.shapes.flatten() == index).nonzero().squeeze(1)
        enter, leave = interval(starts[rows], directions[rows])
        distances[rows] = torch.where((enter < leave) & (enter > 0), enter, torch.inf)
    return distances.view(num_rooms, num_objects, num_rays)


def _through_sphere(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays [M, k, P] enter and leave the unit ball of k dimensions, [M, P]; NaN if they miss it."""
    square = ray.square().sum(dim=1).clamp(min=1e-12)
    nearest = -(start * ray).sum(dim=1) / square
    # Relative to the point nearest to the center, since the usual formula loses digits if the ball is far away.
    rest = 1 - (start + nearest[:, None] * ray).square().sum(dim=1)
    reach = (rest / square).sqrt()
    return nearest - reach, nearest + reach


def _through_box(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays [M, k, P] enter and leave the box from -1 to 1, [M, P]; in reverse order if they miss it."""
    inverse = _inverse(ray)
    middle, reach = -start * inverse, inverse.abs()
    return (middle - reach).amax(dim=1), (middle + reach).amin(dim=1)


def _through_cylinder(start: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave the cylinder of radius 1 around y, from -1 to 1, like the two above."""
    round_enter, round_leave = _through_sphere(start[:, ::2], ray[:, ::2])
    flat_enter, flat_leave = _through_box(start[:, 1:2], ray[:, 1:2])
    return torch.maximum(round_enter, flat_enter), torch.minimum(round_leave, flat_leave)


def _normals(units: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Return outward normals of any length [N, 3, P], and the axis of the side of a box [N, P].

    Args:
        units: points on unit shapes, [N, 3, P].
        shapes: index of the shape, [N, 1, P].
    """
    side = units.abs().max(dim=1).indices  # argmax is slower
    flat = torch.where(side[:, None] == torch.arange(3)[:, None], units, 0.0)
    upward = units * torch.tensor([[0.0], [1.0], [0.0]])
    around = units - upward
    is_cap = upward[:, 1:2].square() > around.square().sum(dim=1, keepdim=True)
    cylinder = torch.where(is_cap, upward, around)
    return torch.where(shapes == 0, units, torch.where(shapes == 1, flat, cylinder)), side


def _of_pixels(table: Tensor, index: Tensor) -> Tensor:
    """Gather for each pixel its row of a table [N, rows, columns]: [N, columns, P]."""
    columns = table.transpose(1, 2)
    return columns.gather(2, index[:, None].expand(-1, columns.shape[1], -1))


def _inverse(ray: Tensor) -> Tensor:
    """Return 1 / ray, finite even if a ray is parallel to a side."""
    return torch.where(ray.abs() < 1e-12, 1e-12, ray).reciprocal()
