"""LTB: learning to branch, a tree of stages that is learned in training."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from mtlrun.config.bounds import FractionBelowOne, Parts, Positive, checked
from mtlrun.models.backbones import Backbone, BackboneFactory, StageCache
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones, one_of


class LTB(MultiTaskModel):
    """Layers of nodes, each of which learns which node of the preceding layer its input comes from.

    Source: Guo, Lee and Ulbricht, "Learning to Branch for Multi-Task Learning" (ICML 2020), section 3. A layer has
    `nodes` copies of one stage of the backbone. In training, the input of node j is sum_i d_ij times the output of node
    i of the preceding layer, its parent. d_j is one-hot, drawn for each batch by Gumbel-softmax: argmax_i(logit_ij +
    g_ij), with the gradient of softmax_i((logit_ij + g_ij) / temperature). Each head draws a node of the last layer in
    the same way. The temperature falls geometrically from `temperature` to `final_temperature`. During the warm-up the
    input is the mean of all possible parents, and the logits are not trained. (Before the first `on_train_step`, it is
    their mean weighted by the softmax of the logits.) In evaluation, each node has its most likely parent, the first of
    several, and what no requested task needs is not computed: nodes that are on no path, unless a later stage of the
    same copy is on one, since that stage may need the cache of earlier ones.
    BatchNorm's running statistics are taken over all drawn parents, so evaluation lags behind training during the
    warm-up and while draws vary.
    Departure: the paper trains the resulting tree again from new weights; here weights and tree come from one training.

    Shared: all nodes and their logits. Per task: the head and its logits. Size: `nodes` backbones and one head per
    task; one tree of it is used after training.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the copies of all stages; filled in from the group `backbone`.
        nodes: number per layer, >= 1; None for one per task.
        warmup_fraction: fraction of the training, in [0, 1), before branching starts. The paper has a warm-up; its
            length and the following defaults are our choice.
        temperature: at the end of the warm-up.
        final_temperature: at the end of the training.
        branching_lr_scale: learning rate of the logits as a multiple of that of the shared parameters or, for a head's
            logits, of its task.
    """

    @checked
    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        nodes: Parts | None = None,
        warmup_fraction: FractionBelowOne = 0.05,
        temperature: Positive = 5.0,
        final_temperature: Positive = 0.5,
        branching_lr_scale: Positive = 10.0,
    ) -> None:
        nodes = len(tasks) if nodes is None else nodes
        if final_temperature > temperature:
            raise ValueError(f"final_temperature must be > 0 and <= temperature, found {final_temperature}")
        super().__init__(tuple(tasks))
        self.nodes = ParallelBackbones(map(str, range(nodes)), backbone)
        shapes = one_of(self.nodes).stage_shapes
        self.heads = make_heads(tasks, shapes[-1], one_of(self.nodes).input_shape)
        #: Logits after each layer but the last, [children, parents].
        self.branching = nn.ParameterList(torch.zeros(nodes, nodes) for _ in shapes[1:])
        #: Logits of each head after the last layer, [parents].
        self.head_branching = nn.ParameterDict({task: torch.zeros(nodes) for task in tasks})
        self.warmup_fraction = warmup_fraction
        self.temperatures = (temperature, final_temperature)
        self.branching_lr_scale = branching_lr_scale
        self._sampling = False
        #: A tensor, since a number would make the compiler recompile whenever it changes.
        self._temperature: Tensor
        self.register_buffer("_temperature", torch.tensor(1.0), persistent=False)

    def on_train_step(self, epoch: float, progress: float) -> None:
        self._sampling = progress >= self.warmup_fraction
        start, end = self.temperatures
        fraction = (progress - self.warmup_fraction) / (1 - self.warmup_fraction)  # of the training after the warm-up
        # An infinite temperature weights all parents equally, and the logits' gradient is zero.
        self._temperature.fill_(start * (end / start) ** fraction if self._sampling else math.inf)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        heads = [self.head_branching[task] for task in requested]
        if self.training or torch.compiler.is_compiling():  # a traced program does not know the tree: it runs all nodes
            # Each head draws from its logits separately, so that no other task's loss reaches them.
            weights = [*(list(self._draw(layer)) for layer in self.branching), [self._draw(logits) for logits in heads]]
            features = self.nodes(inputs, lambda index, parents: _weigh(weights[index], parents))
        else:
            layers = [*self.branching, torch.stack(heads)]
            parents = iter(torch.cat([layer.argmax(dim=1) for layer in layers]).tolist())  # read from a GPU at once
            features = self._follow(inputs, [list(islice(parents, len(layer))) for layer in layers])
        return Output({task: self.heads[task](last) for task, last in zip(requested, features, strict=True)})

    def _draw(self, logits: Tensor) -> Tensor:
        """Return the weights of each child's parents [..., parents], one-hot but for the warm-up."""
        if not self.training:
            return nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits)
        if not self._sampling:
            return (logits / self._temperature).softmax(dim=-1)
        noise = -torch.empty_like(logits).exponential_().log()  # Gumbel(0, 1)
        soft = ((logits + noise) / self._temperature).softmax(dim=-1)
        hard = nn.functional.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft)
        return hard + (soft - soft.detach())

    def _follow(self, inputs: Tensor, parents: list[list[int]]) -> list[Tensor]:
        """Return the input of each head in the tree.

        Args:
            inputs: [batch, ...].
            parents: after each layer, the index of each child's parent; the last children are the heads.
        """
        needed = [set(parents[-1])]
        for layer in reversed(parents[:-1]):
            needed.insert(0, needed[0] | {layer[child] for child in needed[0]})
        networks: list[Backbone] = list(self.nodes.values())  # type: ignore[arg-type]
        caches: list[StageCache] = [{} for _ in networks]
        features = {node: networks[node].run(inputs, caches[node], stop=1) for node in needed[0]}
        for index, layer in enumerate(parents[:-1], start=1):
            features = {
                node: networks[node].run(features[layer[node]], caches[node], index, index + 1)
                for node in needed[index]
            }
        return [features[node] for node in parents[-1]]

    def parameter_groups(self) -> list[ParameterGroup]:
        scale = self.branching_lr_scale
        groups = [ParameterGroup("shared", list(self.nodes.parameters()))]
        if len(self.branching):  # none if the backbone is one stage
            groups.append(ParameterGroup("branching", list(self.branching), lr_scale=scale))
        for task, head in self.heads.items():
            groups.append(ParameterGroup(task, list(head.parameters()), task=task))
            logits = [self.head_branching[task]]
            groups.append(ParameterGroup(f"{task}_branching", logits, task=task, lr_scale=scale))
        return groups


def _weigh(weights: list[Tensor], parents: list[Tensor]) -> list[Tensor]:
    """Return each child's input: the sum of its parents' outputs, with its weights [parents]."""
    stacked = torch.stack(parents)
    return [torch.einsum("i,i...->...", child, stacked) for child in weights]
