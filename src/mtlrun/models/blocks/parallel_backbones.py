"""Several backbones of one kind side by side, run stage by stage and coupled after each stage."""

from collections.abc import Callable, Collection, Iterable

from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory, StageCache

#: (index of the stage, its output in each backbone that runs it) -> the next stage's input in each backbone.
Mix = Callable[[int, list[Tensor]], list[Tensor]]


class ParallelBackbones(nn.ModuleDict):
    """One backbone per name; a function mixes their features after each stage.

    Args:
        names: one per backbone, such as those of the tasks.
        backbone: makes one backbone.
    """

    def __init__(self, names: Iterable[str], backbone: BackboneFactory) -> None:
        super().__init__({name: backbone() for name in names})

    def forward(self, inputs: Tensor | list[Tensor], mix: Mix, last: Collection[str] | None = None) -> list[Tensor]:
        """Return the features of each backbone after the last mixing.

        Args:
            inputs: one batch for all backbones, or one for each.
            mix: called after each stage.
            last: names of the backbones that run the last stage too, in their order; None for all.
        """
        every, num_stages = list(self), len(one_of(self).stage_shapes)
        running = [every] * (num_stages - 1) + [every if last is None else list(last)]  # names, at each stage
        backbones: dict[str, Backbone] = dict(self.items())  # type: ignore[arg-type]
        caches: dict[str, StageCache] = {name: {} for name in backbones}
        features = inputs if isinstance(inputs, list) else [inputs] * len(running[0])
        for index, names in enumerate(running):
            outputs = [
                backbones[name].run(before, caches[name], index, index + 1)
                for name, before in zip(names, features, strict=True)
            ]
            features = mix(index, outputs)
        return features


def one_of(backbones: ParallelBackbones) -> Backbone:
    """Return one of the backbones, to read shapes from. It is no attribute of theirs, which might be a task's name."""
    backbone = next(iter(backbones.values()))
    assert isinstance(backbone, Backbone)
    return backbone
