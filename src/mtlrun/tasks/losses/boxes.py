"""Boxes at places of an image, by FCOS: which place has to find which object, the loss, and what is found.

Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019), with what torchvision's FCOS
adds: center sampling, GIoU loss, scores that are geometric means. Nothing here waits for a GPU but `detect`.

Predictions are [batch, locations, num_classes + 9], see `mtlrun.models.heads.DetectionHead`; objects are
[batch, max_objects, 6], see `mtlrun.tasks.Detection`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, sigmoid_focal_loss

_RADIUS = 1.5  # cells around the middle of an object that are to find it
_SMALL, _LARGE = 4, 8  # cells of a level between a place and the furthest side of its object
_CANDIDATES = 1000  # best scores of an image that are looked at
_EPSILON = 1e-7  # in divisions by areas, as in torchvision


@dataclass(frozen=True)
class Matches:
    """What each location has to find.

    Args:
        objects: which one, [batch, locations]; any where there is none.
        found: whether there is one, [batch, locations].
        left_out: whether it has no say: within an ignored object, and without one of its own, [batch, locations].
    """

    objects: Tensor
    found: Tensor
    left_out: Tensor


def match(cells: Tensor, objects: Tensor) -> Matches:
    """Give each location the smallest object that it lies in, near the middle, and that is of its level's size.

    A location is at most 1.5 cells away from the middle of its object, along both axes. The side of the object that is
    furthest away is so by 4 to 8 cells; by less at the finest level as well, and by more at the coarsest.

    Args:
        cells: boxes [batch, locations, 4].
        objects: [batch, max_objects, 6].
    """
    sides = cells[..., 2:] - cells[..., :2]
    size = sides.amax(dim=2)
    lower = torch.where(size < 1.5 * size.amin(dim=1, keepdim=True), 0.0, _SMALL * size)
    upper = torch.where(size > size.amax(dim=1, keepdim=True) / 1.5, torch.inf, _LARGE * size)
    places = middles(cells)[:, :, None]
    low, high = objects[:, None, :, :2], objects[:, None, :, 2:4]
    distances = torch.cat([places - low, high - places], dim=3)  # [batch, locations, max_objects, 4]
    inside, furthest = distances.amin(dim=3) > 0, distances.amax(dim=3)
    near = ((places - (low + high) / 2).abs() < _RADIUS * sides[:, :, None]).all(dim=3)
    of_level = (furthest > lower[..., None]) & (furthest <= upper[..., None])
    there, ignored = (objects[:, None, :, 4] >= 0), (objects[:, None, :, 5] > 0)
    areas = (high - low).prod(dim=3).expand_as(furthest)
    least, chosen = torch.where(inside & near & of_level & there & ~ignored, areas, torch.inf).min(dim=2)
    found = least < torch.inf
    return Matches(chosen, found, (inside & there & ignored).any(dim=2) & ~found)


def fcos_loss(prediction: Tensor, objects: Tensor) -> Tensor:
    """Return the loss of each image, [batch]: focal loss of the classes, GIoU loss, cross-entropy of the centerness.

    Each is a sum over the locations, divided by how many of them have an object to find, or by 1. Those of the classes
    are all locations, the others these.
    """
    logits, distances, centerness, cells = split(prediction)
    matches = match(cells, objects)
    own = objects.gather(1, matches.objects[..., None].expand(-1, -1, objects.shape[2]))
    # Something of a size where there is no object: it is multiplied by 0, which would not make up for a NaN.
    boxes = torch.where(matches.found[..., None], own[..., :4], cells)
    is_class = own[..., 4:5].long() == torch.arange(logits.shape[2], device=logits.device)
    wanted = (is_class & matches.found[..., None]).to(logits.dtype)
    of_classes = sigmoid_focal_loss(logits, wanted).sum(dim=2) * ~matches.left_out
    of_boxes = giou_loss(decode(distances, cells), boxes)
    of_centerness = nn.functional.binary_cross_entropy_with_logits(
        centerness, _centerness(cells, boxes), reduction="none"
    )
    total: Tensor = (of_classes + (of_boxes + of_centerness) * matches.found).sum(dim=1)
    return total / matches.found.sum(dim=1).clamp(min=1)


@torch.no_grad()
def detect(
    prediction: Tensor, *, score_threshold: float, nms_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    """Return the objects that are found.

    The score of a class at a location is the geometric mean of its probability and of the centerness. The 1000 best of
    an image that are above `score_threshold` are thinned by non-maximum suppression within each class.

    Returns:
        Objects [batch, max_detections, 6] as in targets, best first, and their scores [batch, max_detections]. Rows
        that are not used have the class -1.
    """
    logits, distances, centerness, cells = split(prediction)
    num_classes = logits.shape[2]
    scores = (logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt().flatten(1)
    scores, chosen = scores.topk(min(_CANDIDATES, scores.shape[1]), dim=1)
    places, classes = chosen // num_classes, chosen % num_classes
    height, width = image_size(prediction)
    boxes = decode(distances, cells).gather(1, places[..., None].expand(-1, -1, 4))
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    objects = prediction.new_zeros(len(prediction), max_detections, 6)
    objects[..., 4] = -1
    kept_scores = prediction.new_zeros(len(prediction), max_detections)
    for index in range(len(prediction)):
        above = scores[index] > score_threshold
        found, label, score = boxes[index][above], classes[index][above], scores[index][above]
        kept = batched_nms(found, score, label, nms_threshold)[:max_detections]
        objects[index, : len(kept), :4] = found[kept]
        objects[index, : len(kept), 4] = label[kept].to(objects.dtype)
        kept_scores[index, : len(kept)] = score[kept]
    return objects, kept_scores


def split(prediction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return class logits [..., num_classes], distances [..., 4], logits of the centerness [...] and cells [..., 4]."""
    logits, distances, centerness, cells = prediction.split([prediction.shape[-1] - 9, 4, 1, 4], dim=-1)
    return logits, distances, centerness.squeeze(-1), cells


def middles(cells: Tensor) -> Tensor:
    """Return the middles of boxes [..., 4] as points [..., 2]."""
    return (cells[..., :2] + cells[..., 2:]) / 2


def decode(distances: Tensor, cells: Tensor) -> Tensor:
    """Return boxes [..., 4] in pixels from the distances of their sides to the middles of cells, in cells' sides."""
    sides = cells[..., 2:] - cells[..., :2]
    places = middles(cells)
    return torch.cat([places - distances[..., :2] * sides, places + distances[..., 2:] * sides], dim=-1)


def image_size(prediction: Tensor) -> tuple[float, float]:
    """Return height and width of the image: how far the smallest cells reach."""
    *_, cells = split(prediction)
    size = (cells[..., 2:] - cells[..., :2]).amax(dim=-1, keepdim=True)
    ends = torch.where(size < 1.5 * size.amin(), cells[..., 2:], 0.0).flatten(0, -2).amax(dim=0)
    width, height = ends.tolist()
    return height, width


def giou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - GIoU for each pair of boxes, [...]; torchvision's waits for the GPU, since it picks by a mask.

    Source: Rezatofighi et al., "Generalized Intersection over Union" (CVPR 2019).
    """
    overlap = torch.minimum(found[..., 2:], wanted[..., 2:]) - torch.maximum(found[..., :2], wanted[..., :2])
    around = torch.maximum(found[..., 2:], wanted[..., 2:]) - torch.minimum(found[..., :2], wanted[..., :2])
    shared = overlap.clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (found, wanted)]
    union, hull = areas[0] + areas[1] - shared, around.prod(dim=-1)
    loss: Tensor = 1 - shared / (union + _EPSILON) + (hull - union) / (hull + _EPSILON)
    return loss


def _centerness(cells: Tensor, boxes: Tensor) -> Tensor:
    """Return how near the middles of cells are to those of boxes around them, in [0, 1]."""
    places = middles(cells)
    before, after = places - boxes[..., :2], boxes[..., 2:] - places
    return (torch.minimum(before, after) / torch.maximum(before, after)).prod(dim=-1).sqrt()
