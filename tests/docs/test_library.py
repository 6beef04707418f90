"""docs/library.md is true: its code runs in order, and its tables name what there is."""

import re
import sys
from pathlib import Path

import pytest

import mtlrun
from mtlrun.config.aliases import ALIASES
from mtlrun.config.options import shipped

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
FRAMEWORKS = ("lightning", "accelerate")
sys.path.append(str(Path(__file__).parents[1] / "library"))


def framework(block):
    return next(
        (name for name in FRAMEWORKS if re.search(rf"^(import|from) {name}\b", block, flags=re.MULTILINE)), None
    )


def rows(heading):
    """Return the cells of the table's rows below a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ][2:]


@pytest.fixture(scope="module")
def scope():
    """What the blocks define, but for those of frameworks."""
    return {}


def test_the_code_of_the_page_runs(scope, capsys):
    lines = [f"{50 + 3 * row},{'Oak Rd' if row % 3 else 'Elm St'},{900.5 + 40 * row}" for row in range(60)]
    Path("houses.csv").write_text("\n".join(["area,street,price", *lines]))
    for block in BLOCKS:
        if framework(block) is None:
            exec(block, scope)
    shown = capsys.readouterr().out
    assert re.search(r"\{'price': [\d.]+, 'rooms': [\d.]+\}", shown)
    assert "completed {'first': {" in shown
    assert "price.prediction" in shown
    assert scope["again"].tasks == ["price", "rooms"]


def test_the_table_of_needs_is_complete():
    from small import NEEDS, REFUSED

    table = {
        name: need for names, need in rows("A training loop of your own") for name in re.findall(r"`([\w]+)`", names)
    }
    named = {name for name in shipped("weighting") if name in table}
    assert named == NEEDS.keys() | REFUSED
    for name, need in NEEDS.items():
        assert need in table[name], name
    assert all("refused" in table[name] for name in REFUSED)


def test_names_of_other_libraries_lead_to_weightings():
    for heading in ("Coming from TorchJD", "Coming from LibMTL"):
        for theirs, ours in rows(heading):
            for name in re.findall(r"`(\w+)`", theirs):
                known = ALIASES["weighting"].get(name.removesuffix("Weighting"))
                if known is not None:
                    assert re.search(rf"`{known}`", ours), (heading, name)
            for name in re.findall(r"`([a-z_]+)`", ours):
                models = shipped("model")
                assert name in (*shipped("weighting"), *models, "parts", "representation"), (heading, name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of frameworks, about themselves and PyTorch
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_example_of_a_framework_trains(name, tmp_path):
    pytest.importorskip(name)
    scope = {}
    exec(BLOCKS[0], scope)
    (block,) = (block for block in BLOCKS if framework(block) == name)
    before = [parameter.clone() for parameter in scope["model"].parameters()]
    exec(block, scope)
    if name == "lightning":
        module, trainer = scope["module"], scope["trainer"]
        assert module.balance.step == 3
        trainer.save_checkpoint(tmp_path / "module.ckpt", weights_only=False)
        again = scope["Houses"].load_from_checkpoint(tmp_path / "module.ckpt", weights_only=True)
        assert again.balance.step == 3
        assert again.balance.method.log_variance.equal(module.balance.method.log_variance)
        assert not module.balance.method.log_variance.eq(0).any()
    else:
        assert scope["balance"].step == 2
        assert any(not one.equal(other) for one, other in zip(before, scope["model"].parameters(), strict=True))
        scope["balance"].step = 0
        scope["accelerator"].load_state("state")
        assert scope["balance"].step == 2
    assert mtlrun.weighting("pcgrad").step == 0
