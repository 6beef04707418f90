"""From task losses to `.grad`: one training step's update, of a batch at once or of its micro-batches."""

from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor

from mtlrun.gradients.assignment import add_grads, add_task_grads, clip_shared, split_like, weighted_sum
from mtlrun.gradients.gram import Gradient, gram_matrix
from mtlrun.gradients.loss_scales import LossScales
from mtlrun.gradients.micro_batches import check_micro_batches
from mtlrun.gradients.streaming import Chain, StreamedGradients
from mtlrun.gradients.task_gradients import LossGraph, Sharing, TaskGradients, backward_from
from mtlrun.gradients.update import Update
from mtlrun.gradients.weighing import weigh
from mtlrun.gradients.weighted_pass import backward_shared, backward_weighted
from mtlrun.weightings.base import (
    GradientWeighting,
    JacobianWeighting,
    LossWeighting,
    PartsWeighting,
    TaskGradientWeighting,
    Weighting,
)
from mtlrun.weightings.capabilities import ClipsSharedGradient, SeesRepresentation, SeesTensorSizes
from mtlrun.weightings.inner_products import NonFiniteGradientError, nan_unless_finite
from mtlrun.weightings.precision import full_precision, promoted
from mtlrun.weightings.state.active_tasks import at_positions, index_on


class GradientStep:
    """The update that a weighting makes of one batch's losses: `add` once, or once per micro-batch, then `finish`.

    As before `loss.backward()`, the caller has called `optimizer.zero_grad()`. A weighting of losses weighs each loss
    by the gradient of its objective, so one backward pass is made per `add`. Task gradients are summed over the
    micro-batches and combined once, in `finish`.

    In two passes, the task gradients of a GradientWeighting serve for its weights only, and the shared parameters get
    the gradient of the weighted losses, by one more pass. Of micro-batches, whose graphs are not kept, that is a second
    forward pass as well: while `measures_first`, `measure` is called for each of them, and then `add` for each, with
    the same random numbers.

    Args:
        weighting: after `setup`; where not all of its tasks have a loss, `weighting.active` holds those that do.
        sharing: the parameters that the K losses reach.
        micro_batches: True if `add` is called once per micro-batch, False if once for the whole batch.
        batch_losses: the losses [K] of the whole batch, without graph; for micro-batches, where
            `weighting.needs_batch_losses`.
        want_gram: take the Gram matrix for the log even where the method does not need it; for a weighting of losses
            this costs K more backward passes.
        vmap: make the K backward passes over the shared part in one call, where vmap can; it takes more memory, and is
            faster for small networks only.
        two_pass: see above; without effect on weightings that are none of the Gram matrix.
        guarded: True if the caller does not use a `.grad` that is not finite. A JacobianWeighting's task gradients on a
            GPU are then not waited for: one that is not finite raises no error, but makes the `.grad` of all NaN.

    Raises:
        ValueError: the weighting compares gradients, and there are no shared parameters; or it cannot be computed from
            micro-batches.
    """

    def __init__(
        self,
        weighting: Weighting,
        sharing: Sharing,
        *,
        micro_batches: bool = False,
        batch_losses: Tensor | None = None,
        want_gram: bool = False,
        vmap: bool = False,
        two_pass: bool = False,
        guarded: bool = False,
    ) -> None:
        if not isinstance(weighting, LossWeighting | GradientWeighting | JacobianWeighting):
            raise TypeError(f"{type(weighting).__name__} is none of the three kinds of weighting")
        if isinstance(weighting, TaskGradientWeighting) and not sharing.shared:
            raise ValueError(f"{type(weighting).__name__} needs shared parameters, found none")
        self._weighting: LossWeighting | GradientWeighting | JacobianWeighting = weighting
        self._sharing = sharing
        self._micro_batches = micro_batches
        self._batch_losses = None if batch_losses is None else promoted(batch_losses)
        self._want_gram = want_gram
        self._vmap = vmap
        self._two_pass = two_pass and isinstance(weighting, GradientWeighting)
        self._checked = not guarded or any(parameter.is_cpu for parameter in sharing.shared[:1])
        self._losses: Tensor | None = None  # [K], summed over the calls of `add`
        self._gradients: TaskGradients | None = None
        self._representation: Tensor | None = None
        self._graph_of_batch: LossGraph | None = None  # in two passes, for the second one
        # What the weighting makes of the batch's losses before any gradient is taken.
        self._factors: Tensor | None = None  # [K], of a LossWeighting
        self._scales = LossScales()  # of a TaskGradientWeighting
        # Weights that are known before `add`: those of an earlier step, used again, or what `measure` has led to.
        self._weights = weighting.kept_weights() if isinstance(weighting, GradientWeighting) else None
        self._gram: Tensor | None = None  # what they were made from, if that was in this step
        self._parts: list[tuple[Tensor, Tensor]] = []  # Jacobian and losses of each part, of a PartsWeighting
        if micro_batches:
            check_micro_batches(weighting, has_losses=batch_losses is not None, two_pass=self._two_pass)
        #: True if `measure` is to be called for each micro-batch before `add` is.
        self.measures_first = self._two_pass and micro_batches and self._weights is None

    def measure(
        self, losses: Sequence[Tensor], positions: Sequence[int], *, representation: Tensor | None = None
    ) -> None:
        """Take the task gradients of a micro-batch, for the weights alone.

        Args:
            losses, positions, representation: see `add`.
        """
        if not losses:
            return
        losses = [promoted(loss) for loss in losses]
        self._add_losses(torch.stack(losses).detach(), positions)
        assert isinstance(self._weighting, GradientWeighting)
        self._representation = representation
        graph = self._graph(self._scales.scaled(losses, positions), positions)
        self._add_gradients(TaskGradients.take(graph, self._weighting.grad_wrt), positions)

    def add(
        self,
        losses: Sequence[Tensor],
        positions: Sequence[int] | None = None,
        *,
        representation: Tensor | None = None,
        cuts: Sequence[Tensor | None] = (),
        regularizer: Tensor | None = None,
        parts: Sequence[Sequence[Tensor]] = (),
    ) -> None:
        """Make the backward passes of a batch or micro-batch.

        Args:
            losses: scalars with their graph. Those of micro-batches must add up to the batch's: sums over the labeled
                samples, divided by the whole batch's number of them.
            positions: which of the K tasks these are; None for all of them, in order.
            representation: the tensor that separates shared from task-specific parameters, if there is one.
            cuts: those after each of `sharing.links`, in two passes of a whole batch: task gradients are then taken
                and dropped in segments.
            regularizer: a scalar that joins the objective outside the weighting.
            parts: for a PartsWeighting, the K losses of each part of the batch.

        Raises:
            ValueError: the arguments do not fit together, or a whole batch is followed by another.
        """
        if parts and not isinstance(self._weighting, PartsWeighting):
            raise ValueError(f"parts are for a PartsWeighting, found {type(self._weighting).__name__}")
        if not losses:
            if regularizer is not None:
                regularizer.backward()
            return
        if positions is None:
            positions = range(len(self._sharing.task_params))
        if len(losses) != len(positions):
            raise ValueError(f"{len(positions)} tasks need as many losses, found {len(losses)}")
        losses = [promoted(loss) for loss in losses]
        parts = [[promoted(loss) for loss in part] for part in parts]
        stacked = torch.stack(losses)
        if self.measures_first:
            self._find_weights()
        if self._gram is None:  # else `measure` was given the losses
            self._add_losses(stacked.detach(), positions)
        if isinstance(self._weighting, LossWeighting):
            self._add_objective(stacked, losses, positions, regularizer)
            return
        if regularizer is not None:
            regularizer.backward(retain_graph=True)  # it may be made of features, which are used again below
        self._representation = representation
        if parts:
            self._add_parts(parts)
            return
        graph = self._graph(self._scales.scaled(losses, positions), positions)
        if self._weights is not None:
            assert isinstance(self._weighting, GradientWeighting)
            backward_weighted(graph, [self._weights[place] for place in positions], self._weighting.head_loss)
        else:
            self._add_gradients(self._take(graph, cuts), positions)
            self._graph_of_batch = graph if self._two_pass else None

    def finish(self) -> Update:
        """Combine the task gradients, set `.grad`, and return what was done.

        Raises:
            NonFiniteGradientError: before anything is combined.
        """
        losses = self.losses()
        try:
            update = self._combine(losses)
        except NonFiniteGradientError as error:
            error.losses = losses
            raise
        for method in self._weighting.capable_of(ClipsSharedGradient):
            if method.max_norm is not None:
                clip_shared(self._sharing.shared, method.max_norm)
        return update

    def losses(self) -> Tensor:
        """Return the losses [K] added so far, without graph."""
        if self._losses is None:
            raise ValueError("there are no losses: add some before finish")
        return self._losses if self._losses.dtype == self._dtype else self._losses.to(self._dtype)

    def _combine(self, losses: Tensor) -> Update:
        if isinstance(self._weighting, LossWeighting):
            gram = None if self._gradients is None else gram_matrix(self._gradients.compared)
            return Update(losses, self._factors, gram)
        if self._weights is not None:
            return Update(losses, self._scales.effective(self._weights), self._gram)
        with torch.no_grad():
            if self._parts:
                return self._combine_parts(losses)
            if isinstance(self._weighting, GradientWeighting):
                return self._combine_weighted(losses)
            return self._combine_jacobian(losses)

    # ------------------------------------------------------------------------------------ what is added to the step

    def _add_losses(self, values: Tensor, positions: Sequence[int]) -> None:
        """Sum up the losses; at the first ones, let the weighting make of the batch's losses what it needs."""
        num_tasks = len(self._sharing.task_params)
        if not self._micro_batches and (self._losses is not None or len(positions) < num_tasks):
            raise ValueError(
                "a whole batch is added once, with all its tasks; for micro-batches, set micro_batches=True"
            )
        if self._losses is not None:
            self._losses = self._losses.to(torch.float64, copy=True)  # the first ones share memory with the graph's
            self._losses[index_on(positions, values.device)] += values
            return
        self._dtype = values.dtype
        if len(positions) == num_tasks:
            self._losses = values
        else:
            self._losses = values.new_zeros(num_tasks, dtype=torch.float64)
            self._losses[index_on(positions, values.device)] += values
        batch_losses = self._batch_losses
        if batch_losses is None and self._micro_batches:
            batch_losses = values.new_ones(num_tasks)  # placeholders: the weights do not depend on their values
        if isinstance(self._weighting, LossWeighting):
            if batch_losses is not None:
                leaf = batch_losses.detach().clone().requires_grad_()
                self._weighting.scalarize(leaf).backward()  # also the gradient of what the weighting learns
                self._factors = leaf.grad
            return
        batch_losses = values if batch_losses is None else batch_losses
        self._scales = LossScales(*self._weighting.scale_losses(batch_losses))

    def _add_objective(
        self, stacked: Tensor, losses: Sequence[Tensor], positions: Sequence[int], regularizer: Tensor | None
    ) -> None:
        """Make the backward pass of a LossWeighting, after those for the log."""
        assert isinstance(self._weighting, LossWeighting)
        if self._want_gram and self._sharing.shared:
            gradients = TaskGradients.take(self._graph(losses, positions), retain=True)
            self._add_gradients(gradients, positions)
        if self._factors is None:  # the losses of the whole batch: its objective's own backward pass gives the weights
            stacked.retain_grad()
            objective = self._weighting.scalarize(stacked)
        else:
            objective = (at_positions(self._factors, positions) * stacked).sum()
        if regularizer is not None:
            objective = objective + regularizer
        backward_from(objective)
        if self._factors is None:
            self._factors = stacked.grad

    def _add_gradients(self, gradients: TaskGradients, positions: Sequence[int]) -> None:
        grad_wrt = self._weighting.grad_wrt if isinstance(self._weighting, TaskGradientWeighting) else "shared"
        if self._gradients is None and len(positions) == len(self._sharing.task_params):
            self._gradients = gradients
            return
        if self._gradients is None:
            self._gradients = TaskGradients.zeros(
                self._differentiated(), grad_wrt, as_matrix=isinstance(self._weighting, JacobianWeighting)
            )
        if grad_wrt == "representation":
            self._gradients.append(gradients, positions)
        else:
            self._gradients.add(gradients, positions)

    def _add_parts(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """Take the Jacobian of each part; the gradients of the tasks' own parameters add up to their mean."""
        assert isinstance(self._weighting, PartsWeighting)
        positions = range(len(self._sharing.task_params))
        for number, part in enumerate(parts):
            values = self._scales.seen(torch.stack([loss.detach() for loss in part]))
            graph = self._graph(self._scales.scaled(part, positions), positions)
            gradients = TaskGradients.take(
                graph, self._weighting.grad_wrt, retain=number < len(parts) - 1, as_matrix=True
            )
            if self._gradients is not None:
                gradients.add_reached(self._gradients)
            self._gradients = gradients
            self._parts.append((gradients.jacobian(checked=self._checked), values))
            add_task_grads(self._sharing, gradients.task_params, [1 / len(parts)] * len(positions))

    def _take(self, graph: LossGraph, cuts: Sequence[Tensor | None]) -> TaskGradients:
        assert isinstance(self._weighting, TaskGradientWeighting)
        if cuts and self._two_pass:
            return StreamedGradients.stream(graph, Chain(self._sharing.links, cuts))
        as_matrix = isinstance(self._weighting, JacobianWeighting)
        return TaskGradients.take(graph, self._weighting.grad_wrt, retain_shared=self._two_pass, as_matrix=as_matrix)

    def _graph(self, losses: Sequence[Tensor], positions: Sequence[int]) -> LossGraph:
        sharing = self._differentiated()
        if len(positions) < len(sharing.task_params):
            task_params = [sharing.task_params[position] for position in positions]
            sharing = Sharing(sharing.shared, task_params, sharing.last_layer)
        return LossGraph(losses, sharing, self._representation, self._vmap)

    def _differentiated(self) -> Sharing:
        """Return the parameters that gradients are taken of: only shared ones have a say in the weights."""
        return self._sharing.without_task_params() if self.measures_first else self._sharing

    # ------------------------------------------------------------------------------------ combining, at the end

    def _combine_weighted(self, losses: Tensor) -> Update:
        """Weigh the task gradients; in two passes, they are dropped before the second one.

        Where there is a representation, that pass begins there, which spares it the heads.
        """
        weighting, gradients = self._weighting, self._gradients
        assert isinstance(weighting, GradientWeighting)
        assert gradients is not None
        factors, gram = weigh(weighting, gradients, self._scales.seen(losses))
        task_factors = factors if weighting.head_loss == "weighted" else [1.0] * len(factors)
        add_task_grads(self._sharing, gradients.task_params, task_factors)
        if weighting.grad_wrt == "shared" and not self._two_pass:
            self._set_shared_grad(weighted_sum(gradients.compared, factors, gradients.joined))
            return Update(losses, self._scales.effective(factors), gram)
        joined = gradients.joined if weighting.grad_wrt == "representation" else None
        gradients.compared, gradients.joined = [], None
        if gradients.representation:
            self._send_back(weighted_sum(gradients.representation, factors, joined))
        elif self._graph_of_batch is not None:
            backward_shared(self._graph_of_batch, factors)
        return Update(losses, self._scales.effective(factors), gram)

    def _find_weights(self) -> None:
        """Turn what was measured into weights, and drop it."""
        assert isinstance(self._weighting, GradientWeighting)
        assert self._gradients is not None
        self.measures_first, losses = False, self.losses()
        try:
            with torch.no_grad():
                self._weights, self._gram = weigh(self._weighting, self._gradients, self._scales.seen(losses))
        except NonFiniteGradientError as error:
            error.losses = losses
            raise
        self._gradients = None

    def _combine_jacobian(self, losses: Tensor) -> Update:
        weighting, gradients = self._weighting, self._gradients
        assert isinstance(weighting, JacobianWeighting)
        assert gradients is not None
        jacobian = gradients.jacobian(checked=self._checked)
        gram = gram_matrix(gradients.compared) if self._want_gram else None
        if isinstance(weighting, SeesRepresentation) and self._representation is not None:
            weighting.observe_representation(self._representation.detach())
        if isinstance(weighting, SeesTensorSizes):
            weighting.observe_tensor_sizes([tensor.numel() for tensor in self._inputs()])
        with full_precision():
            direction = weighting.combine(jacobian, self._scales.seen(losses))
        factors = [1.0] * len(losses) if weighting.head_weights is None else weighting.head_weights
        add_task_grads(self._sharing, gradients.task_params, factors)
        self._set_direction(direction, [jacobian])
        return Update(losses, gram=gram)

    def _combine_parts(self, losses: Tensor) -> Update:
        assert isinstance(self._weighting, PartsWeighting)
        assert self._gradients is not None
        jacobians = [jacobian for jacobian, _ in self._parts]
        with full_precision():
            direction = self._weighting.combine_parts(jacobians, torch.stack([values for _, values in self._parts]))
        self._set_direction(direction, jacobians)
        return Update(losses)

    def _inputs(self) -> Sequence[Tensor]:
        """Return what the task gradients of a JacobianWeighting are taken with respect to."""
        representation = self._representation if self._weighting.grad_wrt != "shared" else None
        return self._sharing.shared if representation is None else [representation]

    def _set_direction(self, direction: Tensor, jacobians: Sequence[Tensor]) -> None:
        """Set `.grad` of the shared parameters to what a JacobianWeighting has made of `jacobians`."""
        direction = direction if self._checked else nan_unless_finite(direction, jacobians)
        self._set_shared_grad(split_like(direction, self._inputs()))

    def _set_shared_grad(self, direction: Gradient) -> None:
        """Set `.grad` of the shared parameters that a loss reaches; a direction at the representation is sent back."""
        assert isinstance(self._weighting, TaskGradientWeighting)
        assert self._gradients is not None
        if self._weighting.grad_wrt != "shared":
            self._send_back(direction)
            return
        reached = self._gradients.reached
        add_grads(list(compress(self._sharing.shared, reached)), list(compress(direction, reached)))

    def _send_back(self, direction: Gradient) -> None:
        """Set `.grad` of the shared parameters from a direction at the representation, which frees the graph."""
        representation = self._representation
        if representation is not None and self._gradients is not None and any(self._gradients.reached):
            backward_from(representation, direction[0], self._sharing.shared)
