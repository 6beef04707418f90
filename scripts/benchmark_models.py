"""What a sharing architecture costs: parameters, MACs, and the time of a training step relative to `hard`.

    python scripts/benchmark_models.py
    python scripts/benchmark_models.py dataset=scenes backbone.width=0.25 trainer.batch_size=32

One process and one batch; each model takes turns with `hard`, so that a machine that changes its speed slows both.
The figure is the median of the ratios of neighbors. Overrides are those of the program.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

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
        ratios = []
        for number in range(ROUNDS + 2):
            times = []
            for contestant in (reference, trainer):
                start = time.perf_counter()
                contestant.train_step(batch)
                times.append(time.perf_counter() - start)
            if number >= 2:  # the first ones warm up
                ratios.append(times[1] / times[0])
        cost = short(count_macs(trainer.parts.model, batch[0]))
        print(f"| `{name}` | {short(parameters)} | {cost} | {statistics.median(ratios):.2f} |", flush=True)


if __name__ == "__main__":
    main()
