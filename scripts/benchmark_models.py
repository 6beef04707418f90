"""What a sharing architecture costs: parameters, MACs, and the time of a training step relative to `hard`.

    python scripts/benchmark_models.py
    python scripts/benchmark_models.py dataset=scenes backbone.width=0.25 trainer.batch_size=32

One process and one batch; each model takes turns with `hard`, so that a machine that changes its speed slows both.
The figure is the median of the ratios within a round. Overrides are those of the program.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

from timing import take_turns

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.setup.model_size import count_macs, count_parameters
from mtlrun.setup.prepare import prepare
from mtlrun.training.observers.console import short
from mtlrun.training.trainer import Trainer

ROUNDS = 9


def make(model: str, overrides: list[str]) -> Trainer:
    folder = tempfile.mkdtemp(prefix="benchmark-")
    config = compose([*overrides, f"model={model}", f"runtime.root={folder}", "runtime.num_threads=1"])
    trainer = Trainer(prepare(config), folder=Path(folder))
    trainer.parts.model.train()
    return trainer


def main() -> None:
    overrides = sys.argv[1:]
    reference = make("hard", overrides)
    batch, _ = next(reference.batches())
    print("| model | parameters | MACs per sample | time per step |\n|---|---|---|---|")
    for name in [entry.name for entry in entries("model")]:
        trainer = make(name, overrides)
        parameters = count_parameters(trainer.parts.model.parameters())
        contestants = {"reference": partial(reference.train_step, batch), name: partial(trainer.train_step, batch)}
        ratio = take_turns(contestants, trainer.parts.device, rounds=ROUNDS).ratio(name, "reference")
        cost = short(count_macs(trainer.parts.model, batch[0]))
        print(f"| `{name}` | {short(parameters)} | {cost} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
