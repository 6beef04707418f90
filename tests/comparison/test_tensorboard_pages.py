"""TensorBoard as a person sees it: its pages on a small study, in a headless Chromium."""

import re
import subprocess
import sys
import time

import pytest
from browser import CHROMIUM, Browser
from helpers import QUICK, run_folders

from mtlrun.cli.main import dispatch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]
SCENES = [
    "trainer=smoke", "trainer.batch_size=4", "runtime.quiet=true", "backbone.width=0.0625", "dataset=scenes",
    "dataset.size=24", "dataset.num_train=10", "dataset.num_val=5", "dataset.num_test=5", "runtime.study=scenes",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the current folder of the module: with studies `runs`, two methods with two seeds, and `scenes`."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for weighting in ("equal", "pcgrad"):
            for seed in (0, 1):
                assert dispatch([*QUICK, f"weighting={weighting}", f"seed={seed}"]) == 0
        assert dispatch(SCENES) == 0
        assert dispatch(["tensorboard", "outputs/runs"]) == 0
    return folder


@pytest.fixture(scope="module")
def browser(folder):
    with Browser(folder, height=2400) as browser:
        yield browser


@pytest.fixture
def show(folder, browser, tmp_path):
    """Return a function that shows a page of TensorBoard for a study, and returns the browser."""
    servers = []

    def start(study, page):
        log = open(tmp_path / "tensorboard.log", "w+")  # noqa: SIM115 (as long as the server)
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", f"outputs/{study}", "--port", "0"]
        process = subprocess.Popen([*command, "--host", "localhost"], cwd=folder, stdout=log, stderr=log)
        servers.append((process, log))
        deadline = time.monotonic() + 60
        while (found := re.search(r"at (http://localhost:\d+/)", (tmp_path / "tensorboard.log").read_text())) is None:
            assert time.monotonic() < deadline, (tmp_path / "tensorboard.log").read_text()
            time.sleep(0.1)
        browser.errors.clear()
        browser.open(f"{found[1]}#{page}")
        return browser

    yield start
    for process, log in servers:
        process.terminate()
        process.wait(20)
        log.close()


def names(folder, study="runs"):
    return [path.name for path in run_folders(folder / "outputs" / study)]


def test_curves_of_runs_and_methods_are_in_groups_of_which_all_runs_have_the_first(show, folder):
    browser = show("runs", "timeseries")
    text = browser.wait_for_texts(*names(folder), "summary/equal", "summary/pcgrad", "with_band")
    groups = re.findall(r"^(\w+)\n\d+ cards?$", text, flags=re.MULTILINE)
    assert groups == ["result", "train", "update", "val", "with_band"]
    assert browser.errors == []


def test_the_table_of_runs_begins_with_what_tells_them_apart_and_the_main_metrics(show, folder):
    browser = show("runs", "hparams")
    text = browser.wait_for_texts(*names(folder), "Trial ID")
    columns = [
        "Seed", "Weighting",  # they differ
        "Backbone", "LR", "Model",
        *(f"result/main/{split}/{task}/accuracy" for split in ("test", "val") for task in ("left", "right")),
    ]  # fmt: skip
    assert "\n".join(["Color by", *columns]) in text  # the choice of colors has the columns in their order
    assert browser.errors == []


def test_charts_have_training_next_to_validation_all_tasks_and_bands_of_methods(show, folder):
    browser = show("runs", "custom_scalars")
    text = browser.wait_for_texts(
        "main metrics on validation", "left: loss in training and on validation", "weights of the tasks",
        "cosines between task gradients", "methods: mean and band", "val/left/accuracy (summary/pcgrad)",
        *(f"train/right/loss ({name})" for name in names(folder)),
        *(f"update/grad_cosine/left_right ({name})" for name in names(folder) if "pcgrad" in name),
    )  # fmt: skip
    assert text.index("main metrics on validation") < text.index("weights of the tasks")
    assert browser.errors == []


def test_pictures_are_shown_for_each_task(show, folder):
    browser = show("scenes", "images")
    (name,) = names(folder, "scenes")
    tasks = ("segmentation", "depth", "normals")
    browser.wait_for_texts(name, *(f"val_pictures/{task}" for task in tasks))
    sizes = browser.wait_for(_PICTURES)
    assert len(sizes) == 3
    assert all(width > 100 for width in sizes)
    assert browser.errors == []


# The widths of the pictures of the page, once there are three that have been loaded.
_PICTURES = """(() => {
  const found = [];
  const visit = (node) => {
    const isPicture = node.nodeName === 'IMG' && node.src.includes('individualImage');
    if (isPicture && node.naturalWidth) found.push(node.naturalWidth);
    if (node.shadowRoot) visit(node.shadowRoot);
    for (const child of node.childNodes) visit(child);
  };
  visit(document.body);
  return found.length >= 3 && found;
})()"""
