"""Several networks of one kind side by side, run stage by stage: what coupled architectures are made of."""

from collections.abc import Callable, Collection, Iterable

from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory, Shape, StageCache

#: (number of the stage, its features in each network that runs it) -> what each network's next stage is given.
Mix = Callable[[int, list[Tensor]], list[Tensor]]


class ParallelBackbones(nn.ModuleDict):
    """One backbone per name; their features are handed to a mixing function after each stage.

    Args:
        names: one per network, such as those of the tasks.
        backbone: makes the networks.
    """

    def __init__(self, names: Iterable[str], backbone: BackboneFactory) -> None:
        super().__init__({name: backbone() for name in names})

    @property
    def first(self) -> Backbone:
        """The first network, to read shapes off."""
        found = next(iter(self.values()))
        assert isinstance(found, Backbone)
        return found

    @property
    def stage_shapes(self) -> tuple[Shape, ...]:
        """The shape of one sample's features after each stage, in each network."""
        return self.first.stage_shapes

    def forward(self, inputs: Tensor | list[Tensor], mix: Mix, last: Collection[str] | None = None) -> list[Tensor]:
        """Return what the last mixing gives for each network.

        Args:
            inputs: one batch for all networks, or one for each.
            mix: called after each stage.
            last: names of the networks whose last stage is run as well, in their order; None for all.
        """
        whole, num_stages = list(self), len(self.stage_shapes)
        running = [whole] * (num_stages - 1) + [whole if last is None else list(last)]  # at each stage
        networks: dict[str, Backbone] = dict(self.items())  # type: ignore[arg-type]
        caches: dict[str, StageCache] = {name: {} for name in networks}
        features = inputs if isinstance(inputs, list) else [inputs] * len(running[0])
        for index, names in enumerate(running):
            after = [networks[name].stage(index, own, caches[name]) for name, own in zip(names, features, strict=True)]
            features = mix(index, after)
        return features
