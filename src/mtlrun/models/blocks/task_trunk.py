"""One network that is run once per task: what architectures with small parts per task are made of."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.func import functional_call

from mtlrun.models.backbones import Backbone, StageCache
from mtlrun.models.blocks.batchnorm_statistics import Statistics

#: (number of the stage, its features) -> what the next stage is given.
Change = Callable[[int, Tensor], Tensor]


class TaskTrunk(nn.Module):
    """One backbone for all tasks, run once for each.

    Each task has running statistics of its own for the backbone's BatchNorm layers: its pass is normalized by its own
    features in training, and would be by a blend of all tasks' in evaluation. (A first stage that all tasks enter
    with the same features is run once and keeps the common ones.)

    Args:
        tasks: their names.
        network: the backbone.
        frozen: the backbone's parameters are not trained, and it stays in evaluation mode, so that BatchNorm keeps its
            statistics and dropout is off.
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
            features = change(index, self.network.stage(index, features, cache))
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
        """Return one task's features.

        Args:
            task: its name.
            features: what the first stage that is run is given.
            cache: of this pass; see `Backbone.stage`.
            start: number of that stage.
            change: called after each stage.
            weights: {name in the backbone: tensor} to use in place of the backbone's own.
        """
        own = dict(weights or {})
        if task in self.statistics:
            own |= self.statistics[task].by_name()  # type: ignore[operator]
        # Nothing is written to the backbone but for the time of the call, and BatchNorm updates what it is given.
        named = {f"network.{name}": tensor for name, tensor in own.items()}
        found: Tensor = functional_call(self, named, (features, cache, start, change))
        return found

    def passes(
        self, tasks: Iterable[str], inputs: Tensor, change: Callable[[str, int, Tensor], Tensor]
    ) -> list[Tensor]:
        """Return each task's features, with `change(task, stage, features)` called after each stage.

        The first stage is the same for all tasks and is run once.
        """
        cache: StageCache = {}
        first = self.network.stage(0, inputs, cache)
        return [
            self.run(task, change(task, 0, first), dict(cache), start=1, change=partial(change, task)) for task in tasks
        ]
