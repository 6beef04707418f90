"""From task losses to `.grad`: a batch that is computed in pieces, so that only one of them is in memory at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlrun.gradients.gram import gram_matrix
from mtlrun.gradients.rows import Problem, TaskGradients
from mtlrun.gradients.update import Update, as_seen, check_shared, combine_rows, effective, weigh_losses
from mtlrun.weightings.base import GradientWeighting, LossWeighting, RowWeighting, Weighting


class Accumulation:
    """Makes of the pieces of a batch the update that `backward` makes of the whole.

    The gradients of all pieces are added up, and combined once. A weighting of losses must know the whole batch's
    losses before the first backward pass, as their weights depend on them; so must one of gradients that transforms
    the losses. They are found in a pass without gradients.

    Args:
        weighting: after `setup`, with `active`; not a PartsWeighting.
        shared: parameters that several losses reach.
        own: for each of the K active tasks, the parameters that its loss alone reaches.
        losses: of the whole batch [K], without graph; may be None if `needs_losses(weighting)` is False.
        want_gram, batched: as for `backward`.

    Raises:
        ValueError: `grad_wrt` is not `shared`: the gradients of the pieces' representations cannot be added.
    """

    def __init__(
        self,
        weighting: Weighting,
        shared: Sequence[nn.Parameter],
        own: Sequence[Sequence[nn.Parameter]],
        losses: Tensor | None = None,
        *,
        want_gram: bool = False,
        batched: bool = False,
    ) -> None:
        self._weighting = weighting
        self._whole = Problem([], list(shared), [list(group) for group in own], batched=batched)
        self._want_gram = want_gram
        self._gradients: TaskGradients | None = None
        self._factors: Tensor | None = None  # of the losses, where they are known before the gradients
        self._kept: list[float] | None = None
        self._seen, self._slopes = losses, None
        if losses is None and needs_losses(weighting):
            raise ValueError(f"{type(weighting).__name__} needs the losses of the whole batch before its gradients")
        if isinstance(weighting, LossWeighting):
            like = next(parameter for group in (shared, *own) for parameter in group)
            leaf = (like.new_ones(len(own)) if losses is None else losses.clone()).requires_grad_()
            weighting.objective(weighting.transform(leaf)).backward()  # also of what the weighting learns
            self._factors = leaf.grad
        elif isinstance(weighting, RowWeighting):
            check_shared(weighting, shared)
            if weighting.grad_wrt != "shared":
                raise ValueError(
                    f"grad_wrt={weighting.grad_wrt} does not go with pieces of a batch, use grad_wrt=shared"
                )
            if losses is not None:
                self._seen, self._slopes = as_seen(weighting, losses)
            if isinstance(weighting, GradientWeighting):
                self._kept = weighting.kept_weights()
        else:
            raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
        self._sums = torch.zeros(len(own), dtype=torch.float64)
        self._dtype = torch.float32

    def add(self, losses: Sequence[Tensor], places: Sequence[int], regularizer: Tensor | None = None) -> None:
        """Make the backward passes of one piece.

        Args:
            losses: of the tasks with a label in the piece: the sums over its labeled samples, divided by the whole
                batch's number of them, so that they add up to the whole batch's means.
            places: where these tasks stand among the K.
            regularizer: this piece's part of what joins the objective outside the weighting.
        """
        if regularizer is not None:
            torch.autograd.backward(regularizer, retain_graph=bool(losses))
        if not losses:
            return
        own = [self._whole.own[place] for place in places]
        piece = Problem(list(losses), self._whole.shared, own, batched=self._whole.batched)
        self._sums = self._sums.to(losses[0].device)
        self._dtype = losses[0].dtype
        self._sums[list(places)] += piece.values()
        if self._factors is not None:
            if self._want_gram and piece.shared:
                self._take(piece, places, retain=True)
            factors = self._factors[list(places)]
            torch.stack([factor * loss for factor, loss in zip(factors, losses, strict=True)]).sum().backward()
        elif self._kept is not None:
            assert isinstance(self._weighting, GradientWeighting)
            piece.scale(None if self._slopes is None else self._slopes[list(places)])
            weigh_losses(self._weighting, piece, [self._kept[place] for place in places])
        else:
            self._take(piece, places, retain=False)

    def _take(self, piece: Problem, places: Sequence[int], *, retain: bool) -> None:
        if self._gradients is None:
            self._gradients = TaskGradients.zeros(self._whole)
        self._gradients.add(TaskGradients.take(piece, retain=retain), places)

    def losses(self) -> Tensor:
        """Return the losses [K] of the pieces so far."""
        return self._sums.to(self._dtype)

    def finish(self) -> Update:
        """Combine what was added, and fill `.grad`.

        Raises:
            NonFiniteGradientError: before anything is combined.
        """
        if self._factors is not None:
            gram = None if self._gradients is None else gram_matrix(self._gradients.rows).cpu()
            return Update(weights=self._factors, gram=gram)
        if self._kept is not None:
            return Update(weights=effective(self._kept, self._slopes))
        assert self._gradients is not None
        assert isinstance(self._weighting, RowWeighting)
        self._gradients.scale(self._slopes)
        seen = self.losses() if self._seen is None else self._seen
        return combine_rows(
            self._weighting, self._whole, self._gradients, seen, self._slopes, want_gram=self._want_gram
        )


def needs_losses(weighting: Weighting) -> bool:
    """Say whether the losses of the whole batch must be known before the first backward pass."""
    if isinstance(weighting, LossWeighting):
        return not weighting.ignores_losses or weighting.loss_transform != "identity"
    return isinstance(weighting, RowWeighting) and weighting.transforms
