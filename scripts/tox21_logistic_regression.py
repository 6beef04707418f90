"""What a logistic regression per task reaches on tox21: the inputs and splits of the dataset, no network.

    python scripts/tox21_logistic_regression.py --root data

Prints the area under the ROC curve on the test split for C = 1 and for the C that is best on validation, task by task.
C is the inverse strength of the L2 penalty. About ten seconds.
"""

import argparse
from statistics import mean

from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mtlrun.datasets import SPLITS, Tox21

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def read(dataset: Tox21, name: str) -> tuple[sparse.csr_matrix, dict[str, Tensor]]:
    """Return a split's inputs, sparse, and its targets."""
    split = dataset.split(name)
    parts = [range(first, min(first + 512, len(split))) for first in range(0, len(split), 512)]
    return sparse.vstack([sparse.csr_matrix(split.batch(part)[0].numpy()) for part in parts]).tocsr(), split.targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="as dataset.root")
    dataset = Tox21(parser.parse_args().root)
    splits = {name: read(dataset, name) for name in SPLITS}
    print("| task | C = 1 | C best on validation | that C |\n|---|---|---|---|")
    plain, chosen = [], []
    for task in dataset.task_names:
        found = {}
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=2000)
            areas = {}
            for name, (inputs, targets) in splits.items():
                labeled = (targets[task] >= 0).numpy()
                rows, answers = inputs[labeled], targets[task].numpy()[labeled]
                if name == "train":
                    model.fit(rows, answers)
                else:
                    areas[name] = roc_auc_score(answers, model.decision_function(rows))
            found[strength] = areas
        best = max(STRENGTHS, key=lambda strength: found[strength]["val"])
        plain.append(found[1.0]["test"])
        chosen.append(found[best]["test"])
        print(f"| `{task}` | {plain[-1]:.4f} | {chosen[-1]:.4f} | {best:g} |")
    print(f"| mean | {mean(plain):.4f} | {mean(chosen):.4f} | |")


if __name__ == "__main__":
    main()
