"""FCOS: matching of locations in an image with objects, the loss, and the decoding of detections.

Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019), with what torchvision's FCOS
adds: center sampling, GIoU loss, scores that are geometric means. Only `detect` synchronizes with a GPU.

Predictions are [batch, locations, num_classes + 9], see `mtlrun.models.heads.DetectionHead`; objects are
[batch, max_objects, 6], see `mtlrun.tasks.Detection`. A location is the center of a cell of one level of the pyramid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, sigmoid_focal_loss

_RADIUS = 1.5  # largest distance of a location from the center of its object, in cells
_NEAREST, _FURTHEST = 4, 8  # distance of a location from the furthest side of its object, in cells
_CANDIDATES = 1000  # highest scores per image that are considered
_EPSILON = 1e-7  # in divisions by areas, as in torchvision


@dataclass(frozen=True)
class Matches:
    """The object that each location has to predict; all [batch, locations].

    Args:
        objects: index of the object; arbitrary for an unmatched location.
        matched: mask of the locations that are matched to an object.
        ignored: mask of the unmatched locations within an ignored object, which have no loss.
    """

    objects: Tensor
    matched: Tensor
    ignored: Tensor


def match(cells: Tensor, objects: Tensor) -> Matches:
    """Match each location with the smallest object that it lies in, near its center, and whose size suits its level.

    A location is at most 1.5 cells away from the center of its object, along both axes. The furthest side of the object
    is 4 to 8 cells away; at the finest level it may be nearer, at the coarsest further.

    Args:
        cells: boxes [batch, locations, 4].
        objects: [batch, max_objects, 6].
    """
    sides = cells[..., 2:] - cells[..., :2]
    size = sides.amax(dim=2)
    lower = torch.where(size < 1.5 * size.amin(dim=1, keepdim=True), 0.0, _NEAREST * size)
    upper = torch.where(size > size.amax(dim=1, keepdim=True) / 1.5, torch.inf, _FURTHEST * size)
    locations = centers(cells)[:, :, None]
    low, high = objects[:, None, :, :2], objects[:, None, :, 2:4]
    distances = torch.cat([locations - low, high - locations], dim=3)  # [batch, locations, max_objects, 4]
    inside, furthest = distances.amin(dim=3) > 0, distances.amax(dim=3)
    near = ((locations - (low + high) / 2).abs() < _RADIUS * sides[:, :, None]).all(dim=3)
    of_level = (furthest > lower[..., None]) & (furthest <= upper[..., None])
    is_object, ignored = (objects[:, None, :, 4] >= 0), (objects[:, None, :, 5] > 0)
    areas = (high - low).prod(dim=3).expand_as(furthest)
    least, chosen = torch.where(inside & near & of_level & is_object & ~ignored, areas, torch.inf).min(dim=2)
    matched = least < torch.inf
    return Matches(chosen, matched, (inside & is_object & ignored).any(dim=2) & ~matched)


def fcos_loss(prediction: Tensor, objects: Tensor) -> Tensor:
    """Return the loss of each image, [batch]: focal loss of the classes, GIoU loss, cross-entropy of the centerness.

    The first is a sum over all locations, the others over the matched ones; each is divided by the number of matched
    locations, or by 1 if there are none.
    """
    logits, distances, centerness, cells = split(prediction)
    matches = match(cells, objects)
    matched_objects = objects.gather(1, matches.objects[..., None].expand(-1, -1, objects.shape[2]))
    # Unmatched locations get a box with a size: their loss is multiplied by 0, and NaN times 0 is NaN.
    boxes = torch.where(matches.matched[..., None], matched_objects[..., :4], cells)
    is_class = matched_objects[..., 4:5].long() == torch.arange(logits.shape[2], device=logits.device)
    classes = (is_class & matches.matched[..., None]).to(logits.dtype)
    class_loss = sigmoid_focal_loss(logits, classes).sum(dim=2) * ~matches.ignored
    box_loss = giou_loss(decode(distances, cells), boxes)
    centerness_loss = nn.functional.binary_cross_entropy_with_logits(
        centerness, _centerness(cells, boxes), reduction="none"
    )
    total: Tensor = (class_loss + (box_loss + centerness_loss) * matches.matched).sum(dim=1)
    return total / matches.matched.sum(dim=1).clamp(min=1)


@torch.no_grad()
def detect(
    prediction: Tensor, *, score_threshold: float, nms_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    """Return the detected objects.

    The score of a class at a location is the geometric mean of its probability and the centerness. The 1000 highest
    scores of an image, of those above `score_threshold`, undergo non-maximum suppression within each class.

    Returns:
        Objects [batch, max_detections, 6] as in targets, best first, padded with entries of class -1, and their scores
        [batch, max_detections].
    """
    logits, distances, centerness, cells = split(prediction)
    num_classes = logits.shape[2]
    scores = (logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt().flatten(1)
    scores, chosen = scores.topk(min(_CANDIDATES, scores.shape[1]), dim=1)
    locations, classes = chosen // num_classes, chosen % num_classes
    height, width = image_size(prediction)
    boxes = decode(distances, cells).gather(1, locations[..., None].expand(-1, -1, 4))
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    objects = prediction.new_zeros(len(prediction), max_detections, 6)
    objects[..., 4] = -1
    kept_scores = prediction.new_zeros(len(prediction), max_detections)
    for index in range(len(prediction)):
        above = scores[index] > score_threshold
        box, label, score = boxes[index][above], classes[index][above], scores[index][above]
        kept = batched_nms(box, score, label, nms_threshold)[:max_detections]
        objects[index, : len(kept), :4] = box[kept]
        objects[index, : len(kept), 4] = label[kept].to(objects.dtype)
        kept_scores[index, : len(kept)] = score[kept]
    return objects, kept_scores


def split(prediction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return class logits [..., num_classes], distances [..., 4], centerness logits [...] and cells [..., 4]."""
    logits, distances, centerness, cells = prediction.split([prediction.shape[-1] - 9, 4, 1, 4], dim=-1)
    return logits, distances, centerness.squeeze(-1), cells


def centers(boxes: Tensor) -> Tensor:
    """Return the centers [..., 2] of boxes [..., 4]."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def decode(distances: Tensor, cells: Tensor) -> Tensor:
    """Return boxes [..., 4] in pixels from the distances of their sides to the centers of cells, in units of cells."""
    sides = cells[..., 2:] - cells[..., :2]
    locations = centers(cells)
    return torch.cat([locations - distances[..., :2] * sides, locations + distances[..., 2:] * sides], dim=-1)


def image_size(prediction: Tensor) -> tuple[float, float]:
    """Return height and width of the image, which the smallest cells cover."""
    *_, cells = split(prediction)
    size = (cells[..., 2:] - cells[..., :2]).amax(dim=-1, keepdim=True)
    ends = torch.where(size < 1.5 * size.amin(), cells[..., 2:], 0.0).flatten(0, -2).amax(dim=0)
    width, height = ends.tolist()
    return height, width


def giou_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Return 1 - GIoU for each pair of boxes, [...]; torchvision's version indexes by a mask, which waits for the GPU.

    Source: Rezatofighi et al., "Generalized Intersection over Union" (CVPR 2019).
    """
    overlap = torch.minimum(predicted[..., 2:], true[..., 2:]) - torch.maximum(predicted[..., :2], true[..., :2])
    around = torch.maximum(predicted[..., 2:], true[..., 2:]) - torch.minimum(predicted[..., :2], true[..., :2])
    intersection = overlap.clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (predicted, true)]
    union, hull = areas[0] + areas[1] - intersection, around.prod(dim=-1)
    loss: Tensor = 1 - intersection / (union + _EPSILON) + (hull - union) / (hull + _EPSILON)
    return loss


def _centerness(cells: Tensor, boxes: Tensor) -> Tensor:
    """Return how near the centers of cells are to the centers of the boxes around them, in [0, 1]."""
    locations = centers(cells)
    before, after = locations - boxes[..., :2], boxes[..., 2:] - locations
    return (torch.minimum(before, after) / torch.maximum(before, after)).prod(dim=-1).sqrt()
