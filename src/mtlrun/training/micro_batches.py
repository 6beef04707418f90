"""A batch that goes through the model in pieces, so that the activations of one piece only are in memory."""

import torch
from torch import Tensor

from mtlrun.gradients import Accumulation, Update, needs_losses
from mtlrun.models import MultiTaskModel
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import Forward, Reach, untouched
from mtlrun.weightings import Weighting


class InPieces:
    """What `Forward` is to a batch at once; the update is the same, but for what sees the batch as a whole: BatchNorm.

    Args:
        model: in training mode.
        batch: on the model's device.
        count: how many pieces; fewer if there are fewer samples.
    """

    def __init__(self, model: MultiTaskModel, batch: LabeledBatch, count: int) -> None:
        self._model, self._batch, self._count = model, batch, count
        #: The tasks that have a loss.
        self.active = batch.active
        self._values: Tensor | None = None

    def fill_gradients(self, weighting: Weighting, reach: Reach, *, want_gram: bool, batched: bool = False) -> Update:
        """Let the weighting make an update of the losses; see `mtlrun.gradients.Accumulation`."""
        own = [reach.own[name] for name in self.active]
        whole = self._survey()[0] if needs_losses(weighting) else None
        accumulation = Accumulation(weighting, reach.shared, own, whole, want_gram=want_gram, batched=batched)
        totals = self._batch.num_terms()
        for piece in self._batch.pieces(self._count):
            forward = Forward(self._model, piece)
            places = [self.active.index(name) for name in forward.active]
            losses = list(forward.losses.values())
            if losses:
                shares = (piece.num_terms() / totals[places]).to(losses[0].dtype)
                losses = [share * loss for share, loss in zip(shares, losses, strict=True)]
            regularizer = forward.regularizer()
            if regularizer is not None:
                regularizer = regularizer * (piece.num_samples / self._batch.num_samples)
            accumulation.add(losses, places, regularizer)
        self._values = accumulation.losses()
        return accumulation.finish()

    def values(self) -> Tensor:
        """Return the losses of the active tasks, without graph; after `fill_gradients`."""
        assert self._values is not None
        return self._values

    def performances(self) -> Tensor:
        """Return how well the active tasks do on the batch, for tasks that have such a number."""
        return self._survey(performances=True)[1]

    def values_now(self) -> Tensor:
        """Return the losses of the active tasks under the weights that the model has by now."""
        return self._survey(leave_no_trace=False)[0]

    @torch.no_grad()
    def _survey(self, *, performances: bool = False, leave_no_trace: bool = True) -> tuple[Tensor, Tensor]:
        """Return losses and performances of the active tasks, means over the whole batch.

        The random numbers are those that the pass with gradients will see.
        """
        if leave_no_trace:
            with untouched(self._model):
                return self._survey(performances=performances, leave_no_trace=False)
        totals = self._batch.num_terms()
        sums = torch.zeros(2, len(self.active), dtype=torch.float64, device=totals.device)
        dtype = torch.float32
        for piece in self._batch.pieces(self._count):
            forward = Forward(self._model, piece)
            if not forward.active:
                continue
            places = [self.active.index(name) for name in forward.active]
            dtype = forward.values().dtype
            shares = piece.num_terms() / totals[places]
            sums[0, places] += shares * forward.values()
            if performances:
                sums[1, places] += shares * forward.performances()
        return sums[0].to(dtype), sums[1].to(dtype)
