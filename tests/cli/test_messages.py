"""What a new user types and what is answered: one line for one cause, exit code 2, and nothing on disk."""

from pathlib import Path

import pytest
from helpers import read_record, run_folders

WORDS = [
    (["model", "=", "hard"], ["model = hard: no spaces stand around the =; write model=hard"]),
    (["model = hard"], ["model = hard: no spaces stand around the =; write model=hard"]),
    (["seed=1", "model", "=hard"], ["model =hard: no spaces stand around the =; write model=hard"]),
    (["model=", "hard", "seed=1"], ["model= hard: no spaces stand around the =; write model=hard"]),
    (["-m", "model=hard,", "mmoe"], ["model=hard, mmoe: no spaces stand between the values; write model=hard,mmoe"]),
    (["optimizer.lr:", "3"], ["optimizer.lr: 3: a key has an = behind it; write optimizer.lr=3"]),
    (["model:hard"], ["model:hard: a key has an = behind it; write model=hard"]),
    (["-model=hard"], ["-model=hard: a key has no dashes; write model=hard"]),
    (["--model", "hard"], ["--model hard: a key has no dashes; write model=hard"]),
    (["--trainer.epochs=3", "seed=-1"], ["--trainer.epochs=3: a key has no dashes; write", "seed must be >= 0"]),
    (["--lr=3"], ["--lr=3: a key has no dashes; unknown key 'lr'; did you mean optimizer.lr,"]),
    (["--models"], ["--models: there is no such option; the options are: --help, "]),
    (["hard"], ["hard: not understood; write model=hard"]),
    (["seed=1", "gradnorm"], ["gradnorm: not understood; write weighting=gradnorm"]),
    (["--cfg"], ["--cfg/-c: expected one argument; see: mtlrun --help"]),
    (["--cfg", "jobs"], ["--cfg/-c: invalid choice: 'jobs'"]),
]  # fmt: skip
KEYS = [
    (["lr=0.01"], ["lr=0.01: unknown key 'lr'; did you mean optimizer.lr, tasks.<task>.lr or weighting.lr (of"]),
    (["+lr=0.01"], ["lr: unknown key 'lr'; did you mean optimizer.lr, tasks.<task>.lr or weighting.lr (of"]),
    (["epochs=3", "batchsize=8"], ["epochs=3: unknown key 'epochs'; did you mean trainer.epochs?", "batchsize=8: unk"]),
    (["momentum=.9"], ["momentum=.9: unknown key 'momentum'; did you mean"]),
    (["path=d.csv"], ["path=d.csv: unknown key 'path'; did you mean dataset.path (of dataset=csv)?"]),
    (["optimizer.epochs=3"], ["optimizer.epochs=3: optimizer has no key 'epochs'; did you mean trainer.epochs? all"]),
    (["+optimizer.epochs=3"], ["optimizer.epochs: unknown key; did you mean trainer.epochs? Adam takes: lr"]),
    (["weighting.c=.3"], ["weighting.c=.3: weighting has no key 'c'; did you mean weighting.c (of weighting=cagrad)?"]),
    (["optimizer.learning_rate=1"], ["optimizer.learning_rate=1: optimizer has no key 'learning_rate'; did you mean "]),
    (["models=hard"], ["models=hard: unknown key 'models'; did you mean 'model'?"]),
    (["-m", "study=folds"], ["dataset.fold=0: dataset has no key 'fold'; did you mean dataset.fold (of"]),
    (["~tasks.x"], ["~tasks.x: unknown task; the tasks are: left, right"]),
    (["hydra.mode=nope"], ["hydra.mode=nope: Invalid value 'nope', expected one of [RUN, MULTIRUN]"]),
]  # fmt: skip
VALUES = [
    (["trainer=null", "model=null"], ["trainer=null: every run needs one; available: by_size", "model=null: every"]),
    (["study=null"], ["study=null: that is the default; leave it out"]),
    (["tasks=null"], ["tasks is missing; every run needs one or more, as in +task@tasks.<name>=<kind>"]),
    (["seed=null"], ["seed is missing; every run needs one, as in seed=0"]),
    (["seed={}"], ["seed must be a whole number >= 0, found {}"]),
    (["hydra.searchpath=[nope]"], ["hydra.searchpath: there are no configs in nope; write file://<folder>"]),
    (["-cd", "/nope", "trainer.epochs=-1"], ["--config-dir=/nope: there is no such", "trainer.epochs must be >"]),
    (["-cd", "/nope", "trainer.epochs=-1", "dataset=mine"], ["--config-dir=/nope: there is no such folder"]),
    *(([f"~{key}"], [f"{key} is missing; every run needs one"]) for key in ("seed", "runtime", "optimizer")),
    (["weighting=[a,b]"], ["weighting=[a,b]: one weighting is chosen, not a list; for a run with each, write -m"]),
    (["weighting=[equal,mgda]"], ["weighting: one weighting is chosen, not a list; for a run with each, write -m"]),
    (["weighting={c: 1}"], ["weighting={c: 1}: an option of weighting is chosen by its name, and its keys are"]),
    (["runtime.study=${nope}"], ["runtime.study: Interpolation key 'nope' not found; a text that has ${ in it"]),
    (["runtime.study=???"], ["runtime.study must be given, as in runtime.study=<value>; ??? stands for"]),
    (["weighting=db_mtl", "weighting.variant=x", "--cfg", "job"], ["weighting.variant=x: unknown variant; the"]),
]  # fmt: skip
SWEEPS = [
    (["hydra.sweeper.params=3"], "hydra.sweeper.params must be a mapping or null, found 3"),
    (["++hydra.sweeper.params={seed: {a: 1}}"], "hydra.sweeper: seed: {'a': 1} is not understood; write values as on"),
    (["hydra/launcher=basic", "hydra.launcher.workers=2"],
     "hydra.launcher.workers=2: hydra.launcher has no key 'workers'; allowed here: nothing (with hydra/launcher=basic;"
      " hydra/launcher=mtlrun has it)"),
    (["hydra.launcher._target_=hydra_plugins.my.Launcher"], "hydra.launcher._target_=hydra_plugins.my.Launcher: no p"),
    (["hydra.searchpath=[file:///nope]"], "hydra.searchpath: there are no configs in /nope; write file://<folder>"),
]  # fmt: skip
OPTIMIZERS = [
    (["+optimizer.capturable=true", "runtime.device=cpu"], ["optimizer.capturable=True: torch.optim.Adam ca"]),
    (["+optimizer.differentiable=true", "seed=-1"], ["seed must", "optimizer.differentiable=True: torch.optim.Adam c"]),
    (["+optimizer.fused=true", "+optimizer.foreach=true"], ["optimizer.fused=True: torch.optim.Adam cannot train t"]),
    (["+optimizer.maximize=true"], ["optimizer.maximize=true would make the losses larger; leave it out"]),
    (["optimizer._target_=torch.optim.SparseAdam"], ["optimizer.weight_decay: unknown key; did you mean weighting."]),
    (["optimizer._target_=torch.optim.SparseAdam", "~optimizer.weight_decay"],
     ["optimizer: torch.optim.SparseAdam cannot train this run: SparseAdam does not support dense"]),
    (["optimizer._target_=torch.optim.Muon", "~optimizer.betas", "~optimizer.eps"], ["optimizer: Muon only supports"]),
    (["optimizer=adam", "optimizer._target_=torch.optim.LBFGS", "~optimizer.betas", "~optimizer.eps",
      "~optimizer.weight_decay"], ["optimizer: torch.optim.LBFGS cannot train this run: LBFGS.step() missing 1 req"]),
]  # fmt: skip


def refused(mtlrun, *arguments):
    """Return the problems that a command line is refused for."""
    before = set(Path().rglob("*"))
    code, out, err = mtlrun(*arguments)
    assert code == 2, (arguments, out, err)
    assert set(Path().rglob("*")) == before, arguments
    first, *more = err.splitlines()
    problems = [line.removeprefix("  - ") for line in more] or [first.removeprefix("mtlrun: ")]
    assert not more or first.startswith(f"mtlrun: {len(more)} problems; nothing was started"), err
    assert "Traceback" not in err
    return problems


def test_words_of_thousands_of_letters_do_not_fill_the_screen(mtlrun):
    for key in ("dataset=", "dataset=csv dataset.predict=[y] dataset.path=", "model.nope="):
        *words, last = key.split()
        (problem,) = refused(mtlrun, *words, last + 5000 * "x")
        assert len(problem) < 800, problem
        assert "x" * 20 in problem


def test_what_a_sweep_cannot_be_made_of_is_one_line(mtlrun):
    for arguments, expected in SWEEPS:
        (problem,) = refused(mtlrun, "-m", "dataset=kendall_toy", "seed=0,1", *arguments)
        assert problem.startswith(expected), problem


@pytest.mark.parametrize("cases", [WORDS, KEYS, VALUES, OPTIMIZERS], ids=["words", "keys", "values", "optimizers"])
def test_one_line_says_what_is_wrong_and_what_to_write(mtlrun, cases):
    for arguments, expected in cases:
        problems = refused(mtlrun, *arguments)
        assert len(problems) == len(expected), (arguments, problems)
        assert all(map(str.startswith, problems, expected)), (arguments, problems)


@pytest.mark.parametrize(
    ("folder", "said"),
    [("nope", "there is no such folder"), ("file", "this is no folder"), ("empty", "there is no YAML"), ("", "no f")],
)  # fmt: skip
def test_a_folder_of_options_that_has_none_is_refused_by_every_command(mtlrun, folder, said):
    Path("file").touch()
    Path("empty").mkdir()
    for command in ([], ["--help"], ["--cfg", "job"], ["-m", "seed=0,1"]):
        (problem,) = refused(mtlrun, *command, f"--config-dir={folder}")
        assert problem.startswith(f"--config-dir={folder}: {said}")
    if folder:
        (problem,) = refused(mtlrun, "list", "models", "-cd", folder)
        assert problem.startswith(f"--config-dir={folder}: {said}")


def test_a_task_that_is_asked_for_is_not_deleted_in_what_cfg_shows_either(mtlrun):
    Path("d.csv").write_text("x,y\n" + "".join(f"{row},{row % 7}\n" for row in range(40)))
    data = ["dataset=csv", "dataset.path=d.csv", "dataset.predict=[y]", "tasks.y.weight=1"]
    expected = "~tasks.y: dataset.predict asks for this task; leave it out there"
    assert refused(mtlrun, *data, "~tasks.y") == [expected]
    assert refused(mtlrun, *data, "~tasks.y", "--cfg", "job") == [expected]


def test_a_column_may_have_a_name_that_looks_like_a_reference_or_like_markup(mtlrun):
    columns = ["${y}", "[/red]", ":cat: [bold]z"]
    Path("d.csv").write_text(
        ",".join(["x", *columns]) + "\n" + "".join(f"{n},{n % 7},{n % 3},{n % 5}\n" for n in range(60))
    )
    words = "dataset.predict=['\\${y}', '[/red]', ':cat: [bold]z']"
    code, out, err = mtlrun("dataset=csv", "dataset.path=d.csv", words, "trainer=smoke", "runtime.root=out[1]")
    assert code == 0, err
    (folder,) = run_folders("out[1]")
    assert sorted(read_record(folder)["config"]["dataset"]["targets"].values()) == sorted(columns)
    assert all(column in out for column in [*columns, "out[1]/runs/"])
