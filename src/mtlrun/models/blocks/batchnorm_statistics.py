"""Sets of running statistics for a network's BatchNorm layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Statistics(nn.Module):
    """A copy of the running statistics of a network's BatchNorm layers, and of no other buffer.

    Args:
        network: whose BatchNorm layers are read.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for layer, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                for name, statistic in module.named_buffers(recurse=False):
                    self.register_buffer(f"{layer}.{name}".replace(".", "/"), statistic.clone())

    def by_name(self) -> dict[str, Tensor]:
        """Return {name in the network: statistic}."""
        return {name.replace("/", "."): statistic for name, statistic in self.named_buffers()}


class SourceStatistics(nn.Module):
    """One set of BatchNorm running statistics per source of samples; all sources share the weights.

    Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation" (arXiv 2016), for separate
    statistics per domain.

    Args:
        network: whose BatchNorm layers they are for.
        sources: names of the sources.

    Raises:
        ValueError: the network has no BatchNorm layer with running statistics.
    """

    def __init__(self, network: nn.Module, sources: Sequence[str]) -> None:
        super().__init__()
        self._names = list(sources)
        # A list, since names of sources are free and names of modules are not.
        self.per_source = nn.ModuleList([Statistics(network) for _ in sources])
        if not list(self.per_source.buffers()):
            raise ValueError(f"{type(network).__name__} has no BatchNorm layer that keeps running statistics")

    @contextmanager
    def swap_in(self, network: nn.Module, source: str) -> Iterator[None]:
        """Within a `with` block, make `network` use (and in training mode update) the statistics of one source."""
        statistics: Statistics = self.per_source[self._names.index(source)]  # type: ignore[assignment]
        replaced = []
        for name, statistic in statistics.by_name().items():
            path, _, attribute = name.rpartition(".")
            layer = network.get_submodule(path)
            replaced.append((layer, attribute, getattr(layer, attribute)))
            setattr(layer, attribute, statistic)
        try:
            yield
        finally:
            for layer, attribute, original in replaced:
                setattr(layer, attribute, original)
