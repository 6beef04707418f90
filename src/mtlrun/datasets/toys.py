"""Generated regression problems from the literature, which need no files; the run's seed does not change them."""

from abc import abstractmethod
from collections.abc import Sequence
from math import sqrt
from typing import Annotated

import numpy
import torch
from torch import Tensor

from mtlrun.config.bounds import Bounds, Generated, NonNegative, PartsOrZero, Positive, Seed, Seed32, Width, checked
from mtlrun.datasets.base import SPLITS, MultiTaskDataset, SplitName, TensorSplit
from mtlrun.datasets.generation.room import check_room


class _Generated(MultiTaskDataset):
    """Base of datasets whose splits are drawn on first use, each from a separate random generator."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._splits: dict[SplitName, TensorSplit] = {}

    def split(self, name: SplitName) -> TensorSplit:
        if name not in self._splits:
            self._splits[name] = self._draw(name)
        return self._splits[name]

    def _random(self, name: SplitName) -> numpy.random.Generator:
        return numpy.random.default_rng([self._seed, 1 + SPLITS.index(name)])

    @abstractmethod
    def _draw(self, name: SplitName) -> TensorSplit:
        """Draw a split."""


class KendallToy(_Generated):
    """Two lines with noise of different strength, whose standard deviations uncertainty weighting should recover.

    Source: github.com/yaringal/multi-task-learning-example, of an author of Kendall, Gal & Cipolla, "Multi-Task
    Learning Using Uncertainty to Weigh Losses" (CVPR 2018): x ~ N(0, 1), first = 2 x + 8 + 10 e, second = 3 x + 3 + e.
    With the default keys the training split is the published one, number by number. The source has no other split:
    validation and test are further samples of the same distribution.

    Args:
        num_train, num_val, num_test: samples of the splits.
        numpy_seed: fixes the training split, drawn in the order x, first noise, second noise, and the others.
    """

    task_names = ("first", "second")
    input_shape = (1,)

    @checked
    def __init__(
        self, num_train: Generated = 100, num_val: Generated = 100, num_test: Generated = 1000, numpy_seed: Seed32 = 0
    ) -> None:
        super().__init__(numpy_seed)
        self._counts: dict[SplitName, int] = {"train": num_train, "val": num_val, "test": num_test}

    def _draw(self, name: SplitName) -> TensorSplit:
        # NumPy's legacy generator, which the published numbers come from.
        random = numpy.random.RandomState(self._seed) if name == "train" else self._random(name)
        x, first, second = (random.standard_normal((self._counts[name], 1)) for _ in range(3))
        targets = {"first": _tensor(2 * x + 8 + 10 * first), "second": _tensor(3 * x + 3 + second)}
        return TensorSplit(_tensor(x), targets)


class GradNormToy(_Generated):
    """Regression tasks f_k(x) = sigma_k tanh((B + E_k) x): similar, except for the scales of their targets.

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks"
    (ICML 2018), section 4: B ~ N(0, 10) and E_k ~ N(0, 3.5), read as standard deviations. x is normal, scaled to
    length 1; the paper specifies neither its distribution nor the number of samples.

    Args:
        sigmas: the scale of each of the tasks task_0, task_1, ...
        input_size: length of x.
        output_size: number of values that each task predicts.
        num_train, num_val, num_test: samples of the splits.
        data_seed: fixes functions and samples.
    """

    @checked
    def __init__(
        self,
        sigmas: Sequence[Positive] = (1.0, 100.0),
        input_size: Width = 250,
        output_size: Width = 100,
        num_train: Generated = 10_000,
        num_val: Generated = 1000,
        num_test: Generated = 1000,
        data_seed: Seed = 0,
    ) -> None:
        if not sigmas:
            raise ValueError(f"sigmas must list one or more numbers > 0, found {list(sigmas)}")
        super().__init__(data_seed)
        self.task_names = tuple(f"task_{index}" for index in range(len(sigmas)))
        self.input_shape = (input_size,)
        self._counts: dict[SplitName, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._sigmas = sigmas
        check_room(num_train + num_val + num_test, len(sigmas) * output_size)
        random = numpy.random.default_rng([data_seed, 0])
        basis = 10 * random.standard_normal((input_size, output_size))
        # Task by task, so that adding a task does not change the others.
        self._matrices = [basis + 3.5 * random.standard_normal(basis.shape) for _ in sigmas]

    def _draw(self, name: SplitName) -> TensorSplit:
        x = self._random(name).standard_normal((self._counts[name], *self.input_shape))
        x /= numpy.linalg.norm(x, axis=1, keepdims=True)
        tasks = zip(self.task_names, self._sigmas, self._matrices, strict=True)
        return TensorSplit(_tensor(x), {task: _tensor(sigma * numpy.tanh(x @ matrix)) for task, sigma, matrix in tasks})


class MMoESynthetic(_Generated):
    """Two regression tasks with a given correlation.

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts" (KDD
    2018), section 3.2: with orthogonal unit vectors u, v and x ~ N(0, I),

        w_1 = c u,  w_2 = c (p u + sqrt(1 - p^2) v),  y_k = w_k.x + sum_i sin(a_i w_k.x + b_i) + noise.

    The paper gives neither values nor distributions of d, c, a, b and the noise; the defaults are those of a public
    reproduction, with a_i, b_i ~ N(0, 1).

    Args:
        correlation: p, in [-1, 1]: the cosine between the weights of the two tasks.
        num_features: d, the length of x, 2 or more.
        scale: c, the length of the weights.
        num_sines: number of sines that are added.
        noise: standard deviation of the noise.
        num_train, num_val, num_test: samples of the splits.
        data_seed: fixes functions and samples. Samples and noise are the same for every correlation.
    """

    task_names = ("first", "second")

    @checked
    def __init__(
        self,
        correlation: Annotated[float, Bounds(-1, 1)] = 0.8,
        num_features: Annotated[int, Bounds(2, 10**6, limit=True)] = 100,
        scale: Positive = 0.3,
        num_sines: PartsOrZero = 5,
        noise: NonNegative = 0.1,
        num_train: Generated = 10_000,
        num_val: Generated = 1000,
        num_test: Generated = 1000,
        data_seed: Seed = 0,
    ) -> None:
        super().__init__(data_seed)
        self.input_shape = (num_features,)
        self._counts: dict[SplitName, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._noise = noise
        random = numpy.random.default_rng([data_seed, 0])
        u, v = numpy.linalg.qr(random.standard_normal((num_features, 2)))[0].T
        self._weights = [scale * u, scale * (correlation * u + sqrt(1 - correlation**2) * v)]
        self._a, self._b = random.standard_normal((2, num_sines))

    def _draw(self, name: SplitName) -> TensorSplit:
        random = self._random(name)
        x = random.standard_normal((self._counts[name], *self.input_shape))
        targets = {}
        for task, weights in zip(self.task_names, self._weights, strict=True):
            projected = x @ weights
            sines = numpy.sin(projected[:, None] * self._a + self._b).sum(axis=1)
            targets[task] = _tensor(projected + sines + self._noise * random.standard_normal(len(x)))
        return TensorSplit(_tensor(x), targets)


def _tensor(values: numpy.ndarray) -> Tensor:
    return torch.from_numpy(values).float()
