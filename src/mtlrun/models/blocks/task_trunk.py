"""One backbone that is run once per task, for architectures that add small task-specific parts to it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.func import functional_call

from mtlrun.models.backbones import Backbone, StageCache
from mtlrun.models.blocks.batchnorm_statistics import Statistics
from mtlrun.models.blocks.checkpointed import Checkpointed

#: (index of the stage, its output) -> the next stage's input.
Change = Callable[[int, Tensor], Tensor]


class TaskTrunk(Checkpointed):
    """One backbone for all tasks, run once for each of them.

    Each task has separate running statistics for the backbone's BatchNorm layers. In training its pass is normalized
    by its features alone; with shared statistics it would be normalized by a blend of all tasks' in evaluation. (A
    first stage that all tasks enter with the same features is run once, and keeps the backbone's statistics.)
    Activations can be spared for a task's whole pass, not for single stages, since the backbone holds what is the
    task's only during that pass.

    Args:
        tasks: their names.
        network: the backbone.
        frozen: the backbone is not trained and stays in evaluation mode, so that BatchNorm keeps its statistics and
            dropout is off.
    """

    def __init__(self, tasks: Iterable[str], network: Backbone, *, frozen: bool = False) -> None:
        super().__init__()
        self.network = network
        self.frozen = frozen
        self.statistics = nn.ModuleDict() if frozen else nn.ModuleDict({task: Statistics(network) for task in tasks})
        if frozen:
            network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TaskTrunk":
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, features: Tensor, cache: StageCache, start: int, change: Change | None) -> Tensor:
        if change is None:
            return self.network.run(features, cache, start)
        for index in range(start, len(self.network.stages)):
            features = change(index, self.network.run(features, cache, index, index + 1))
        return features

    def run(
        self,
        task: str,
        features: Tensor,
        cache: StageCache,
        *,
        start: int = 0,
        change: Change | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return one task's features after the last stage.

        Args:
            task: its name.
            features: input of the first stage that is run.
            cache: of this forward pass; see `Backbone.stage`.
            start: index of the first stage that is run.
            change: called after each stage.
            weights: {name in the backbone: tensor that replaces it}.
        """
        replacements = dict(weights or {})
        if task in self.statistics:
            replacements |= self.statistics[task].by_name()  # type: ignore[operator]
        return self.checkpointed(self._run_with, replacements, features, cache, start, change)

    def _run_with(
        self, replacements: Mapping[str, Tensor], features: Tensor, cache: StageCache, start: int, change: Change | None
    ) -> Tensor:
        # The backbone holds the replacements during the call only; BatchNorm updates this task's statistics in place.
        named = {
            f"network.{name}": tensor
            for name, tensor in replacements.items()
            if not (self.recomputes and name.endswith("num_batches_tracked"))
        }
        output: Tensor = functional_call(self, named, (features, cache, start, change))
        return output

    def run_tasks(
        self, tasks: Iterable[str], inputs: Tensor, change: Callable[[str, int, Tensor], Tensor]
    ) -> list[Tensor]:
        """Return each task's features, with `change(task, stage, features)` called after each stage.

        The first stage is the same for all tasks and is run once.
        """
        cache: StageCache = {}
        first = self.network.run(inputs, cache, stop=1)
        return [
            self.run(task, change(task, 0, first), dict(cache), start=1, change=partial(change, task)) for task in tasks
        ]
