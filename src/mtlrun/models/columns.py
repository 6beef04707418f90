"""Several networks of one kind side by side, run stage by stage: what coupled architectures are made of."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory, Memory, Shape

#: (number of the stage, its features in each network) -> what each network's next stage is given.
Mix = Callable[[int, list[Tensor]], list[Tensor]]


class Columns(nn.ModuleDict):
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

    def forward(self, inputs: Tensor | list[Tensor], mix: Mix) -> list[Tensor]:
        """Return what the last mixing gives for each network.

        Args:
            inputs: one batch for all networks, or one for each.
            mix: called after each stage.
        """
        networks: list[Backbone] = list(self.values())  # type: ignore[arg-type]
        memories: list[Memory] = [{} for _ in networks]
        features = inputs if isinstance(inputs, list) else [inputs] * len(networks)
        for index in range(len(self.stage_shapes)):
            after = [
                network.stage(index, own, memory)
                for network, own, memory in zip(networks, features, memories, strict=True)
            ]
            features = mix(index, after)
        return features
