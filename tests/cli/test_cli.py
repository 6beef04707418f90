"""The command line: what it refuses and how it says so, and what it answers without training."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUICK, read_record, run_folders, start


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimiser.lr=1"], ["optimiser.lr=1: unknown key 'optimiser'", "did you mean 'optimizer'?"]),
        (["+optimizer.lrr=1"], ["optimizer.lrr: unknown key", "did you mean 'lr'?"]),
        (["weighting=gradnorm", "weighting.alhpa=1"], ["weighting has no key 'alhpa'", "did you mean 'alpha'?"]),
        (["+typo=1"], ["typo: unknown key", "allowed here: seed, tasks, dataset"]),
        (["trainer.epoch=3"], ["trainer has no key 'epoch'", "did you mean 'epochs'?"]),
        (["+trainer.epoch=3"], ["trainer.epoch: unknown key", "did you mean 'epochs'?"]),
        (["+runtime.devise=cpu"], ["runtime.devise: unknown key", "did you mean 'device'?"]),
        (["model=hrad"], ["no model named 'hrad'", "did you mean 'hard'?"]),
        (["~weighting"], ["weighting is missing"]),
        (["model=null"], ["model=null: "]),
        (["+names.foo=3"], ["names: unknown key; the program fills in the names of the chosen options"]),
        (["seed=abc"], ["seed must be a whole number >= 0, found 'abc'"]),
        (["seed=-1"], ["seed must be >= 0, found -1"]),
        (["optimizer.lr=0"], ["optimizer.lr must be > 0, found 0"]),
        (["optimizer.lr=abc"], ["optimizer.lr must be a number > 0, found 'abc'"]),
        (["optimizer.betas=3"], ["optimizer.betas must be a list of 2 numbers in [0, 1), found 3"]),
        (["optimizer.betas=[2,0.9]"], ["optimizer.betas[0] must be in [0, 1), found 2"]),
        (["tasks.left.lr=-0.1"], ["tasks.left.lr must be > 0, found -0.1"]),
        (["tasks.lft.lr=1"], ["tasks.lft: unknown task", "did you mean 'left'?"]),
        (["+tasks.lft.lr=1"], ["tasks.lft: unknown task", "did you mean 'left'?"]),
        (["+tasks.up._target_=mtlrun.tasks.Regression"], ["dataset=multidigits has no labels for it", "left, right"]),
        (["trainer.epochs=1.5"], ["trainer.epochs must be a whole number >= 1 or null, found 1.5"]),
        (["trainer.batch_size=0"], ["trainer.batch_size must be >= 1, or null, found 0"]),
        (["trainer.steps=5"], ["epochs or steps must be null, found 30 and 5"]),
        (["trainer.monitor=left/acc"], ["trainer.monitor must be one of mean_skill, per_task, left/loss"]),
        (["trainer.clip_norm=-1"], ["trainer.clip_norm must be > 0, or null for no clipping, found -1"]),
        (["runtime.device=gpu"], ["runtime.device must be one of auto, cpu", "found 'gpu'"]),
        (["runtime.study=../x"], ["runtime.study must be a folder name, found '../x'"]),
        (["backbone=lenet", "dataset.size=10"], ["backbone: lenet needs images of 16 x 16 or more"]),
        (["dataset.shift=9"], ["dataset.shift must be in [0, 8], found 9"]),
        (["backbone.dropout=1"], ["backbone.dropout must be in [0, 1), found 1"]),
        (["tasks.left.num_classes=5"], ["train split, task left: targets must be in 0..4", "at sample "]),
        (["tasks.right.weight=0.2"], ["tasks.right.weight=0.2 has no effect", "use weighting=static"]),
        (["weighting=static", "weighting.weights=[1]"], ["weights must hold one number for each of the 2 tasks"]),
        (["~tasks.right", "weighting=pcgrad"], ["gradients of 2 tasks or more, found 1 (left)", "use weighting=equal"]),
        (["model=soft", "weighting=mgda"], ["model=soft has none", "mtlrun list models"]),
        (["model=single", "weighting=dwa"], ["nothing to weigh", "use weighting=equal"]),
        (["model=cross_stitch", "weighting=mgda", "weighting.grad_wrt=representation"], ["grad_wrt=shared"]),
        (
            ["backbone=resnet18", "backbone.stem=imagenet", "trainer.batch_size=1", "dataset.pairs_per_image=1"],
            ["trainer.batch_size=1: the smallest batch has 1 sample", "BatchNorm needs 2 or more"],
        ),
        (
            ["backbone=resnet18", "backbone.stem=imagenet", "trainer.batch_size=359", "dataset.pairs_per_image=1"],
            None,  # 1077 = 3 * 359: no batch of one
        ),
        (["optimizer.lr=[1"], ["optimizer.lr=[1: not understood; a bracket is opened and not closed"]),
        (["optimizer.lr=[16, ]"], ["between the last comma and the bracket: optimizer.lr=[16]"]),
        (["model=hard", "gradnorm"], ["gradnorm: not understood; write weighting=gradnorm"]),
        (["dataset=csv", "dataset.targets={place: [x, y]}"], ["add it as in +dataset.targets.place=..."]),
        (["lst"], ["lst: no such command", "did you mean 'list'?"]),
        (["list", "modl"], ["did you mean 'models'?"]),
        (["optimizer._target_=torch.optim.Adm"], ["optimizer._target_=torch.optim.Adm: cannot be imported"]),
        (["+weighting.c=${nowhere}"], ["Interpolation key 'nowhere' not found"]),
        (["-m", "weighting=equal,pcgard"], ["there is no weighting named 'pcgard'", "did you mean 'pcgrad'?"]),
        (["-m", "weighting=mgda,pcgrad", "weighting.head_loss=unweighted"], ["write ++weighting.head_loss=unweighted"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
)  # fmt: skip
def test_bad_input_gets_a_clear_message_exit_code_2_and_leaves_nothing(arguments, said, mtlrun):
    if said is None:
        from mtlrun.config.compose import compose
        from mtlrun.setup.prepare import prepare

        prepare(compose(arguments))
        return
    code, out, err = mtlrun(*arguments)
    assert code == 2
    assert all(part in err for part in said), err
    assert "Traceback" not in out + err
    assert not list(Path().iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is a GPU")
def test_an_absent_gpu_is_named_with_what_there_is(mtlrun):
    code, _, err = mtlrun("runtime.device=cuda")
    assert code == 2
    assert "runtime.device=cuda: PyTorch finds no such device here; available: auto, cpu" in err


def test_all_problems_are_listed_together(mtlrun):
    code, _, err = mtlrun(
        "optimiser.lr=3", "model=hrad", "weighting.alhpa=2", "+typo=1", "trainer.batch_size=0", "optimizer.lr=-1"
    )
    assert code == 2
    problems = [line for line in err.splitlines() if line.startswith("  - ")]
    assert len(problems) == 6
    assert err.startswith("mtlrun: 6 problems; nothing was started")
    for name in ("'hrad'", "'optimiser'", "'alhpa'", "typo", "trainer.batch_size", "optimizer.lr must"):
        assert sum(name in problem for problem in problems) == 1


def test_options_may_stand_anywhere(mtlrun, tmp_path):
    folder = tmp_path / "cf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text("# @package _global_\ndefaults: [multidigits]\ndataset: {size: 10}\n")
    for arguments in (
        ["dataset=small", "--config-dir", "cf", *QUICK],
        [*QUICK, "-m", "seed=1", "-cd=cf", "dataset=small"],
        ["dataset=small", "--cfg", "job", "--config-dir=cf", "--resolve", "seed=3"],
        ["dataset=small", "seed=3", "-cd", "cf", "--resolve", "-c", "job"],
    ):
        code, out, err = mtlrun(*arguments)
        assert code == 0, err
        assert ("-s1-small-" in out or "-s0-small-" in out) == (arguments[-1] != "job" and "job" not in arguments)
        assert ("size: 10" in out) == ("job" in arguments)
    assert len(run_folders()) == 2


@pytest.mark.parametrize("spelling", ["dataset.path={}/d.csv", "dataset.path={{train: {0}/d.csv, test: {0}/d.csv}}"])
@pytest.mark.parametrize("folder", ["~", "~/my data", "~/größe", "~/a=b (1)"])
def test_a_path_may_begin_with_the_users_folder(mtlrun, monkeypatch, tmp_path, folder, spelling):
    if "(" in folder and "{{" in spelling:
        folder = "~"  # a part of a mapping with brackets needs quotes
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = Path(folder).expanduser()
    place.mkdir(parents=True)
    (place / "d.csv").write_text("x,y\n" + "".join(f"{row},{row % 7}\n" for row in range(40)))
    command = ["dataset=csv", spelling.format(folder), "+task@tasks.y=regression", "trainer=smoke"]
    code, _, err = mtlrun(*command, "runtime.root=~/out")
    assert code == 0, err
    (found,) = run_folders(tmp_path / "home" / "out")
    path = read_record(found)["config"]["dataset"]["path"]
    assert {path} if isinstance(path, str) else set(path.values()) == {str(place / "d.csv")}


def test_a_path_of_a_yaml_file_may_begin_with_the_users_folder(mtlrun, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"{row},{row % 7}\n" for row in range(40)))
    (tmp_path / "cf" / "dataset").mkdir(parents=True)
    head = "# @package _global_\ndefaults: [csv, /task@tasks.y: regression]\n"
    (tmp_path / "cf" / "dataset" / "mine.yaml").write_text(head + "dataset: {path: ~/d.csv, missing: ['~', '']}\n")
    code, _, err = mtlrun("--config-dir=~/cf", "dataset=mine", "trainer=smoke")
    assert code == 0, err
    dataset = read_record(run_folders()[0])["config"]["dataset"]
    assert (dataset["path"], dataset["missing"]) == (str(tmp_path / "d.csv"), ["~", ""])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["weighting=equal,uncertainty"],
            ["weighting=equal,uncertainty: several values are a sweep, a run for each: add -m"],
        ),
        (
            ["seed=range(0,3)", "optimizer.lrr=1"],
            ["seed=range(0,3): several values", "optimizer.lrr=1: optimizer has no"],
        ),
        (["dataset=csv", "dataset.path=[a", "+task@tasks.y=regression"], ["dataset.path=[a: not understood"]),
        (["dataset=csv", "+task@tasks.y=[", "tasks.y.num_outputs=2"], ["+task@tasks.y=[: not understood"]),
        (
            ["dataset=cvs", "dataset.path=d.csv", "+task@tasks.y=regression", "tasks.y.weight=1"],
            ["dataset=cvs: there is no"],
        ),
        (["trainer.epochs=[", "dataset.shift=9"], ["trainer.epochs=[: not understood", "dataset.shift must be in"]),
        (["dataset=cvs", "optimizer.lr=-1"], ["dataset=cvs: there is no", "optimizer.lr must be > 0"]),
        (["experiment=no", "tasks.z.lr=1"], ["experiment=no: there is no experiment named 'no'"]),
        (
            ["dataset=csv", "dataset.path=d.csv", "tasks.y=binary"],
            ["tasks.y=binary: a task is added by +task@tasks.y=binary"],
        ),
        (
            ["dataset=csv", "dataset.path=d.csv", "+tasks.y=binary"],
            ["tasks.y=binary: a task is added by +task@tasks.y=binary"],
        ),
        (
            ["dataset=csv", "dataset.path=d.csv", "+task@tasks.y=binary", "dataset.classes.y=a,b"],
            [
                "dataset.classes.y=a,b: several values are a sweep, a run for each: add -m; if it is a list, write "
                "'dataset.classes.y=[a,b]'"
            ],
        ),
        (
            ["dataset=csv", "dataset.path=d.csv", "+task@tasks.y=binary", "dataset.exclude=film"],
            ["dataset.exclude must be a list of texts or whole numbers, found 'film', as in 'dataset.exclude=[film]'"],
        ),
        (
            ["dataset=d.csv", "+task@tasks.y=binary"],
            ["dataset=d.csv: a table of your own is dataset=csv dataset.path=d.csv"],
        ),
    ],
)
def test_each_problem_is_named_once_and_none_that_follows_from_another(mtlrun, arguments, expected):
    code, _, err = mtlrun(*arguments)
    assert code == 2
    problems = [line.removeprefix("  - ").removeprefix("mtlrun: ") for line in err.splitlines()]
    problems = problems if len(problems) == 1 else problems[1:]
    assert len(problems) == len(expected), err
    assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True)), err


@pytest.mark.parametrize(
    "name",
    ["a.b", "my col", "my-col", "2019", "keys", "values", "items", "pop", "type", "train", "Größe", "_x", "shared"],
)
def test_the_line_for_a_task_that_cannot_have_its_name_works_as_it_is_printed(mtlrun, name):
    Path("d.csv").write_text(f"x,{name}\n" + "".join(f"{row},{row % 7}\n" for row in range(40)))
    command = ["dataset=csv", "dataset.path=d.csv", "trainer=smoke"]
    code, _, err = mtlrun(*command, f"+task@tasks.{name}=regression")
    assert code == 2
    assert f"tasks.{name}: a task cannot have this name: " in err
    assert len(err.splitlines()) == 1
    (allowed,) = re.findall(r"name it (\w+), say", err)
    (advice,) = re.findall(r"'(\+dataset\.targets[^']*)'", err)
    code, _, err = mtlrun(*command, f"+task@tasks.{allowed}=regression", advice)
    assert code == 0, err
    assert list(read_record(run_folders()[0])["test"]) == [allowed]


def test_a_wrong_shared_learning_rate_is_reported_once(mtlrun):
    _, _, err = mtlrun("optimizer.lr=-1")
    assert err == "mtlrun: optimizer.lr must be > 0, found -1\n"


def test_a_folder_that_cannot_be_written_is_refused(mtlrun, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = mtlrun("runtime.root=file/below")
    assert code == 2
    assert "file is a file" in err
    code, _, err = mtlrun("runtime.root=/proc/nothing")
    assert code == 2
    assert "runtime.root: /proc" in err


def test_version_is_that_of_mtlrun(mtlrun):
    from importlib.metadata import version

    assert mtlrun("--version") == (0, f"mtlrun {version('mtlrun')}\n", "")


def test_help_names_groups_keys_and_commands():
    process = start("--help")
    out, _ = process.communicate()
    assert process.returncode == 0
    for part in ("equal, ", "batch_size: 256", "mtlrun list models", "runtime.rerun=true"):
        assert part in out


@pytest.mark.parametrize(("kind", "group"), [("models", "model"), ("weightings", "weighting"), ("datasets", "dataset")])
def test_list_shows_each_option_with_its_summary(kind, group, mtlrun):
    code, out, _ = mtlrun("list", kind)
    assert code == 0
    title, _, *rows = out.splitlines()
    assert title.strip() == kind
    shipped = Path(__file__).parents[2].joinpath("conf", group).glob("[!_]*.yaml")
    assert [row.split()[0] for row in rows] == sorted(path.stem for path in shipped)
    assert all(len(row.split()) > 4 for row in rows)


def test_names_from_papers_are_understood_and_the_canonical_name_is_printed(mtlrun):
    code, _, err = mtlrun("-m", *QUICK, "weighting=EW,UW", "model=HPS")
    assert code == 0
    assert err.splitlines() == [
        "weighting=EW is weighting=equal",
        "weighting=UW is weighting=uncertainty",
        "model=HPS is model=hard",
    ]
    assert sorted(folder.name[:-9] for folder in run_folders()) == [
        "hard-equal-lr0.001-s0-multidigits",
        "hard-uncertainty-lr0.001-s0-multidigits",
    ]


def test_list_shows_papers(mtlrun):
    _, out, _ = mtlrun("list", "weightings")
    (row,) = [line for line in out.splitlines() if line.split()[0] == "gradnorm"]
    assert "ICML 2018" in row


def test_the_end_of_a_run_shows_test_metrics_with_arrows(mtlrun):
    code, out, err = mtlrun(*QUICK[:-1], "runtime.num_threads=1")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    test = read_record(run_folders()[0])["test"]
    assert ["left", "loss", "=", "log_loss", "↓", f"{test['left']['loss']:.4f}"] in [line[:6] for line in lines]
    assert ["accuracy", "↑", f"{test['right']['accuracy']:.4f}"] in [line[:3] for line in lines]
    assert "hard-equal-lr0.001-s0-multidigits" in out  # the config tree
    assert any(line[:2] == ["shared", "1,616"] for line in lines)  # the parameter groups: 100 * 16 + 16
    assert "selected on validation: left, right at epoch" in out
    assert max(len(line) for line in out.splitlines()) > 200  # a pipe's lines are neither wrapped nor cut
    assert "\x1b" not in out


def test_quiet_shows_one_line(mtlrun):
    code, out, err = mtlrun(*QUICK)
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert "completed: test left accuracy" in line


def test_a_sweep_trains_each_combination_that_can_be_trained(mtlrun):
    words = ["-m", *QUICK, "model=soft,hard", "weighting=equal,mgda", "seed=0,1"]
    code, out, err = mtlrun(*words)
    assert (code, out, run_folders()) == (2, "", [])
    assert err.count("weighting=mgda combines the tasks' gradients") == 1
    code, out, err = mtlrun(*words, "hydra.launcher.illegal=skip")
    assert code == 0, err
    assert sorted(folder.name[:-9] for folder in run_folders()) == [
        "hard-equal-lr0.001-s0-multidigits",
        "hard-equal-lr0.001-s1-multidigits",
        "hard-mgda-lr0.001-s0-multidigits",
        "hard-mgda-lr0.001-s1-multidigits",
        "soft-equal-lr0.001-s0-multidigits",
        "soft-equal-lr0.001-s1-multidigits",
    ]
    assert out.count("completed in") == 6
    assert [path.name for path in Path().iterdir()] == ["outputs"]
    assert [path.name for path in Path("outputs").iterdir()] == ["runs"]


def test_a_study_is_a_named_sweep_with_its_own_folder(mtlrun):
    code, _, err = mtlrun("-m", "study=models_digits", *QUICK, "seed=3", "model=hard,soft")
    assert code == 0, err
    assert sorted(folder.name[:-9] for folder in run_folders("outputs/models_digits")) == [
        "hard-equal-lr0.001-s3-multidigits",
        "soft-equal-lr0.001-s3-multidigits",
    ]


@pytest.mark.parametrize("arguments", [[], ["weighting=mgda"], ["--resolve", "model=mmoe"]])
def test_help_is_the_text_that_hydra_makes_of_the_template(arguments, mtlrun, monkeypatch):
    own = mtlrun("--help", *arguments)
    assert own[0] == 0
    monkeypatch.setattr("mtlrun.cli.help.help_text", lambda *_, **__: None)
    assert mtlrun("--help", *arguments) == own


def test_help_with_another_template_is_left_to_hydra(mtlrun):
    code, out, _ = mtlrun("--help", "hydra/help=default")
    assert code == 0
    assert "Powered by Hydra" in out


def test_a_single_run_is_composed_once(mtlrun, monkeypatch):
    monkeypatch.setattr("mtlrun.cli.main.train_one", lambda *_: 0)
    monkeypatch.setattr("hydra.main", None)
    assert mtlrun("weighting=mgda", "seed=3")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["weighting=MGDA", "tasks.left.weight=2", "seed=3"],
        ["dataset=toy2d", "model=single", "backbone=mlp", "+experiment=digits_gradnorm"],
        ["study=models_digits", "model=hard,mmoe", "hydra.sweeper.params=null"],
        ["hydra.mode=RUN"],
        ["hydra.verbose=true"],
        ["hydra.job.chdir=false", "runtime.study=${hydra:job.name}"],
        ["model=hard,mmoe"],
        ["-m", "seed=0,1", "hydra/launcher=basic"],
        ["weighting=nope"],
        ["--config-dir", "conf", "tasks.left.lr=${hydra:nothing}"],
    ],
)
def test_a_run_that_is_composed_once_is_the_one_that_hydra_runs(arguments, mtlrun, monkeypatch, tmp_path):
    (tmp_path / "conf").mkdir()
    trained = []
    monkeypatch.setattr(
        "mtlrun.cli.main.train_one", lambda config, overrides, _: trained.append((config, overrides)) or 0
    )
    ours = mtlrun(*arguments)
    count = len(trained)
    monkeypatch.setattr("mtlrun.config.compose.compose_single_run", lambda *_: None)
    assert mtlrun(*arguments) == ours
    assert trained[:count] == trained[count:]


@pytest.mark.slow
def test_a_sweep_of_one_run_is_said_to_be_none(mtlrun):
    hint = "mtlrun: -m: no key has several values, such as seed=0,1,2, so this is one run\n"
    Path("conf/experiment").mkdir(parents=True)
    params = {"hydra": {"sweeper": {"params": {"seed": "7,8"}}}}
    Path("conf/experiment/two.yaml").write_text("# @package _global_\n" + yaml.safe_dump(params))
    for words, runs in ((["seed=7"], 1), (["seed=7,8"], 2), (["--config-dir", "conf", "experiment=two"], 2)):
        code, out, err = mtlrun("-m", *words, *QUICK)
        assert code == 0
        assert f"\n{runs} completed\n" in out
        assert err == (hint if runs == 1 else "")
