"""mtlrun list: every option with what its file declares, as a table on the screen or in Markdown."""

import pytest

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.config.options import entries, loss_scalings
from mtlrun.weightings import LossWeighting
from mtlrun.weightings.capabilities import LooksAhead


def test_files_of_shared_keys_are_no_options(mtlrun):
    for arguments in (["list", "weightings"], ["list", "--markdown"], ["--help"], ["weighting=gram"]):
        _, out, err = mtlrun(*arguments)
        assert "pcgrad" in out + err
        assert "_gram" not in out + err


def test_help_lists_the_users_options_too(mtlrun, tmp_path):
    (tmp_path / "conf" / "weighting").mkdir(parents=True)
    (tmp_path / "conf" / "weighting" / "mine.yaml").write_text("defaults: [_gram@_here_, _self_]\n_target_: a.Mine\n")
    (tmp_path / "conf" / "weighting" / "_ours.yaml").write_text("power: 2\n")
    _, out, _ = mtlrun("--config-dir", str(tmp_path / "conf"), "--help")
    (line,) = [line for line in out.splitlines() if line.startswith("weighting: ")]
    assert line.endswith("upgrad, mine")
    _, out, _ = mtlrun("list", "weightings", "--config-dir", str(tmp_path / "conf"))
    assert out.splitlines()[-1].split()[:3] == ["mine", "inner", "products"]


def test_markdown_has_one_row_per_option_or_per_group(mtlrun):
    code, out, _ = mtlrun("list", "weightings", "schedulers", "--markdown")
    assert code == 0
    weightings, schedulers = (table.splitlines() for table in out.split("\n\n"))
    assert weightings[0] == "| name | summary | sees | passes | models | needs | paper |"
    assert [row.split(" | ")[0].strip("| `") for row in weightings[2:]] == [item.name for item in entries("weighting")]
    assert len(schedulers) == 2 + 4
    _, out, _ = mtlrun("list", "--markdown")
    assert "| `scheduler` | `constant`, `cosine`, `exponential`, `step` |" in out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "modl"], "mtlrun: list modl: not known; did you mean 'models'? what can be listed: datasets, tasks,"),
        (["list", "models", "--config-dir"], "mtlrun: --config-dir needs a folder; usage: mtlrun list"),
        (["list", "models", "--config-dir=nowhere"], "mtlrun: --config-dir=nowhere: there is no such folder"),
        (["list", "--markdwon"], "mtlrun: list --markdwon: not known; did you mean '--markdown'?"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, mtlrun):
    code, out, err = mtlrun(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)


def test_a_weighting_needs_what_its_file_declares():
    wrong = []
    for entry in entries("weighting"):
        config = compose([f"weighting={entry.name}"])
        weighting = build(config["weighting"], "weighting")
        needs = entry.facts.get("needs")
        lowest = max(weighting.lowest_losses(len(config["tasks"])))
        if (needs == "positive losses") != (lowest == 0):
            wrong.append(f"{entry.name}: losses must be at least {lowest}, declared: {needs}")
        if (needs == "lookahead") != isinstance(weighting, LooksAhead):
            wrong.append(f"{entry.name}: LooksAhead is {isinstance(weighting, LooksAhead)}, declared: {needs}")
    assert wrong == []


def test_every_loss_weighting_without_lookahead_scales_the_losses_of_another(mtlrun):
    for name in loss_scalings():
        config = compose(["weighting=mgda", f"weighting/losses={name}"])
        assert config["weighting"]["losses"] == compose([f"weighting={name}"])["weighting"]
        assert isinstance(build(config["weighting"], "weighting").losses, LossWeighting)
    code, _, err = mtlrun("weighting=mgda", "weighting/losses=pcgrad")
    assert code == 2
    assert "there is no weighting/losses named 'pcgrad'; available: cov_weighting, dtp, dwa" in err


def test_keys_shared_by_a_kind_come_from_one_file():
    assert compose(["weighting=config"])["weighting"] == {
        "loss_transform": "identity",
        "grad_wrt": "shared",
        "head_loss": "unweighted",
        "update_weights_every": 1,
        "_target_": "mtlrun.weightings.ConFIG",
        "preferences": [1.0, 1.0],
    }
