"""Learning to branch."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlrun.models.backbones import Backbone, BackboneFactory, StageCache
from mtlrun.models.base import MultiTaskModel, Output, ParameterGroup, TaskLike, make_heads
from mtlrun.models.blocks.parallel_backbones import ParallelBackbones


class LTB(MultiTaskModel):
    """Layers of nodes, each of which learns from which node of the layer before it to take its input.

    Source: Guo, Lee and Ulbricht, "Learning to Branch for Multi-Task Learning" (ICML 2020), section 3. A layer has
    `nodes` copies of one of the backbone's stages. In training, node j gets sum_i d_ij times the output of node i of
    the layer before it. d_j is one-hot, drawn for each batch by Gumbel-softmax: argmax_i(logit_ij + g_ij), with the
    gradient of softmax_i((logit_ij + g_ij) / temperature). Each head draws its node of the last layer likewise. The
    temperature falls geometrically from `temperature` to `final_temperature`. In the warm-up nothing is drawn: each
    node gets the mean of all nodes before it, and the logits are not trained. (Before the first `on_train_step`, each
    gets the mean by the softmax of its logits.) In evaluation each node has its likeliest parent, the first among
    equals, and what no requested task needs is not computed: nodes on no path, unless a later stage
    of the same copy is on one, since that may look for the places of pooled maxima.
    BatchNorm's running statistics are of all parents that are drawn, so that while draws vary much, and in the warm-up,
    evaluation lags behind training.
    The paper trains the tree that was found once more from fresh weights; here weights and tree come from one training.

    Shared: all nodes and their logits. Task's own: its head, with its logits. Size: `nodes` backbones, one head per
    task, of which one tree is used after training.

    Args:
        tasks: {name: task}; filled in by the program.
        backbone: makes the copies of all stages; filled in from the group `backbone`.
        nodes: per layer, >= 1; None for one per task.
        warm_up: share of the training, in [0, 1), before branching starts. The paper warms up; the length is ours.
        temperature: at the end of the warm-up. Ours.
        final_temperature: at the end of the training. Ours.
        branching_lr_scale: learning rate of the logits as a multiple of that of the shared parameters, or, for a
            head's logits, of its task. Ours.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskLike],
        backbone: BackboneFactory,
        nodes: int | None = None,
        warm_up: float = 0.05,
        temperature: float = 5.0,
        final_temperature: float = 0.5,
        branching_lr_scale: float = 10.0,
    ) -> None:
        nodes = len(tasks) if nodes is None else nodes
        if nodes < 1:
            raise ValueError(f"nodes must be null or >= 1, found {nodes}")
        if not 0 <= warm_up < 1:
            raise ValueError(f"warm_up must be in [0, 1), found {warm_up}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be > 0 and finite, found {temperature}")
        if not 0 < final_temperature <= temperature:
            raise ValueError(f"final_temperature must be > 0 and <= temperature, found {final_temperature}")
        if not branching_lr_scale > 0:
            raise ValueError(f"branching_lr_scale must be > 0, found {branching_lr_scale}")
        super().__init__(tuple(tasks))
        self.nodes = ParallelBackbones(map(str, range(nodes)), backbone)
        shapes = self.nodes.stage_shapes
        self.heads = make_heads(tasks, shapes[-1], self.nodes.first.input_shape)
        #: After each layer but the last, [children, parents].
        self.branching = nn.ParameterList(torch.zeros(nodes, nodes) for _ in shapes[1:])
        #: After the last layer, [parents] for each head.
        self.head_branching = nn.ParameterDict({task: torch.zeros(nodes) for task in tasks})
        self.warm_up = warm_up
        self.temperatures = (temperature, final_temperature)
        self.branching_lr_scale = branching_lr_scale
        self._sampling = False
        #: A tensor, since compiled code would be compiled anew for each other number.
        self._temperature: Tensor
        self.register_buffer("_temperature", torch.tensor(1.0), persistent=False)

    def on_train_step(self, epoch: float, progress: float) -> None:
        self._sampling = progress >= self.warm_up
        start, end = self.temperatures
        fraction = (progress - self.warm_up) / (1 - self.warm_up)  # of the time after the warm-up
        # At infinity all parents are equal, and the logits' gradient is zero.
        self._temperature.fill_(start * (end / start) ** fraction if self._sampling else math.inf)

    def forward(self, inputs: Tensor, tasks: Sequence[str] | None = None) -> Output:
        requested = self.requested(tasks)
        heads = [self.head_branching[task] for task in requested]
        if self.training or torch.compiler.is_compiling():  # a traced program cannot know the tree: it runs all nodes
            # Each head's logits are drawn from on their own, so that no other task's loss reaches them.
            chosen = [*(list(self._choose(layer)) for layer in self.branching), [self._choose(own) for own in heads]]
            features = self.nodes(inputs, lambda index, parents: _weigh(chosen[index], parents))
        else:
            layers = [*self.branching, torch.stack(heads)]
            features = self._follow(inputs, [layer.argmax(dim=1).tolist() for layer in layers])
        return Output({task: self.heads[task](own) for task, own in zip(requested, features, strict=True)})

    def _choose(self, logits: Tensor) -> Tensor:
        """Return children's weights of their parents. [..., parents]."""
        if not self.training:
            return nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits)
        if not self._sampling:
            return (logits / self._temperature).softmax(dim=-1)
        noise = -torch.empty_like(logits).exponential_().log()  # Gumbel(0, 1)
        soft = ((logits + noise) / self._temperature).softmax(dim=-1)
        hard = nn.functional.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft)
        return hard + (soft - soft.detach())

    def _follow(self, inputs: Tensor, parents: list[list[int]]) -> list[Tensor]:
        """Return what each head gets along the tree in which, after each layer, each child has one parent."""
        needed = [set(parents[-1])]
        for layer in reversed(parents[:-1]):
            needed.insert(0, needed[0] | {layer[child] for child in needed[0]})
        networks: list[Backbone] = list(self.nodes.values())  # type: ignore[arg-type]
        caches: list[StageCache] = [{} for _ in networks]
        features = {node: networks[node].stage(0, inputs, caches[node]) for node in needed[0]}
        for index, layer in enumerate(parents[:-1], start=1):
            features = {
                node: networks[node].stage(index, features[layer[node]], caches[node]) for node in needed[index]
            }
        return [features[node] for node in parents[-1]]

    def parameter_groups(self) -> list[ParameterGroup]:
        scale = self.branching_lr_scale
        groups = [ParameterGroup("shared", list(self.nodes.parameters()))]
        if len(self.branching):  # none if the backbone is one stage
            groups.append(ParameterGroup("branching", list(self.branching), lr_scale=scale))
        for task, head in self.heads.items():
            groups.append(ParameterGroup(task, list(head.parameters()), task=task))
            own = [self.head_branching[task]]
            groups.append(ParameterGroup(f"{task}_branching", own, task=task, lr_scale=scale))
        return groups


def _weigh(weights: list[Tensor], parents: list[Tensor]) -> list[Tensor]:
    """Return what each child gets: the sum of what the parents gave, with its weights [parents]."""
    stacked = torch.stack(parents)
    return [torch.einsum("i,i...->...", own, stacked) for own in weights]
