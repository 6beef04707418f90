"""The pictures of a comparison: what is drawn, by the structure of the figure and of its SVG."""

import builtins
import json
from xml.etree import ElementTree

import pytest
from synthetic import make_record, make_study, write_records

from mtlrun.comparison.building import compare
from mtlrun.comparison.formats.sections import sections_of
from mtlrun.comparison.plots import View, draw_all, to_png, to_svg
from mtlrun.comparison.plots.critical_difference import draw_critical_difference
from mtlrun.comparison.plots.delta_bars import draw_delta_bars
from mtlrun.comparison.plots.scatter import draw_scatter
from mtlrun.comparison.plots.style import COLORS, GRAY
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.run import Run
from mtlrun.comparison.statistics.friedman import critical_difference
from mtlrun.comparison.table import Options
from mtlrun.errors import DataError

SVG = "{http://www.w3.org/2000/svg}"
MEANS = {"equal": [0.90, 0.90], "mgda": [0.86, 0.95], "pcgrad": [0.94, 0.88], "cagrad": [0.85, 0.85]}


def table_of(root, records, *, curves=False):
    for record, folder in zip(records, write_records(root, records), strict=True):
        if curves:
            (folder / "metrics.jsonl").write_text("".join(curves_of(record)))
    (table,) = compare_folders([root]).tables
    return table


def curves_of(record):
    """Weights that move from 1/2 to 3/4 but for `equal`; cosines of `mgda` alone, below 0 in the second half."""
    weighting, tasks = record.config["names"]["weighting"], list(record.main_metrics)
    for epoch in range(1, 9):
        place = {"step": 10 * epoch, "epoch": epoch}
        moved = 0.0 if weighting == "equal" else (epoch - 1) / 14
        weights = {f"weight/{task}": 4 * (0.5 + sign * moved / 2) for task, sign in zip(tasks, (1, -1), strict=False)}
        losses = {f"train/{task}/loss": 2 / epoch + record.config["seed"] for task in tasks}
        cosines = {"grad_cosine/left_right": 0.5 if epoch <= 4 else -0.25} if weighting == "mgda" else {}
        yield json.dumps({"split": "train", **place, **losses, **weights, **cosines}) + "\n"
        values = {f"val/{task}/accuracy": 1 - 1 / epoch for task in tasks}
        yield json.dumps({"split": "val", **place, "selected": False, **values}) + "\n"
    yield '{"split": "val", "step": 80, "val/left/acc'  # a line that was cut off


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures of four methods with three seeds and a single-task baseline, by name."""
    records = make_study(MEANS, seeds=3)
    for task in ("left", "right"):
        records += make_study({"single": 0.88}, seeds=3, tasks=(task,), key="model")
    found = draw_all(table_of(tmp_path_factory.mktemp("study"), records, curves=True))
    return {picture.name: picture for picture in found.pictures}


def texts(picture):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(to_svg(picture)).iter(f"{SVG}text")]


def test_svg_is_small_the_same_each_time_and_fits_into_a_page(drawn):
    ids = []
    for picture in drawn.values():
        text = to_svg(picture)
        assert text == to_svg(picture)
        assert len(text) < 100_000
        assert text.startswith("<svg ")
        assert "#000000" not in text  # but the color of the page's text
        assert "currentColor" in text
        assert "<style" not in text  # which would hold for the whole page
        root = ElementTree.fromstring(text)
        found = [element.get("id") for element in root.iter() if "id" in element.attrib]
        assert all(identity.startswith(f"{picture.name}-") for identity in found)
        ids += found
        used = [value[1:] for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
        assert {name for name in used if not name.startswith("ata:")} <= set(found)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme:dark" in to_svg(picture, alone=True)
    assert to_png(picture).startswith(b"\x89PNG")


def test_scatter_shows_all_methods_and_the_front(drawn):
    picture = drawn["task-against-task"]
    assert {*MEANS, "left accuracy ↑", "right accuracy ↑"} <= set(texts(picture))
    (axes,) = picture.figure.axes
    (front,) = [line for line in axes.lines if line.get_gid() == "tip:methods that no other one dominates"]
    assert len(front.get_xdata()) == 5  # three methods, and a step between each two; cagrad is dominated
    assert "single-task" in picture.caption


def test_delta_bars_have_the_means_of_the_table(drawn, tmp_path):
    (axes,) = drawn["delta-bars"].figure.axes
    assert len(axes.patches) == 4
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths, reverse=True)


def test_training_curves_are_means_with_a_band_of_one_deviation(drawn):
    picture = drawn["training-curves"]
    loss, accuracy, *_ = picture.figure.axes
    assert len(picture.figure.axes) == 4
    assert {*MEANS, "left loss in training", "left accuracy ↑"} <= set(texts(picture))
    assert len(loss.lines) == len(loss.collections) == len(MEANS)
    assert loss.lines[0].get_xdata() == pytest.approx(range(10, 81, 10))
    assert loss.lines[0].get_ydata() == pytest.approx([2 / epoch + 1 for epoch in range(1, 9)])  # of seeds 0, 1, 2
    band = loss.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.25 + 1 - 1, 2 + 1 + 1))
    assert accuracy.lines[0].get_ydata()[-1] == pytest.approx(1 - 1 / 8)
    assert len({(line.get_marker(), line.get_linestyle(), line.get_color()) for line in loss.lines}) == len(MEANS)


def test_task_weights_are_fractions_of_methods_that_change_them(drawn):
    picture = drawn["task-weights"]
    titles = [axes.get_title() for axes in picture.figure.axes if axes.get_title()]
    assert sorted(titles) == ["cagrad", "mgda", "pcgrad"]
    assert "Constant weights: equal." in picture.caption
    left, right = [line.get_ydata() for line in picture.figure.axes[0].lines if len(line.get_xdata()) == 8]
    assert (left[0], left[-1]) == pytest.approx((0.5, 0.75))
    assert [one + other for one, other in zip(left, right, strict=True)] == pytest.approx([1] * 8)


def test_cosines_are_means_over_parts_of_training(drawn):
    picture = drawn["gradient-cosines"]
    cells, scale = (axes.images[0] for axes in picture.figure.axes)
    values = cells.get_array()
    assert values.shape[0] == 1  # mgda
    assert [values.min(), values.max()] == [-0.25, 0.5]
    assert list(values[0].compressed()) == [0.5] * 4 + [-0.25] * 4
    assert cells.get_clim() == scale.get_clim() == (-0.5, 0.5)
    assert "+0.12" in texts(picture)
    assert "cagrad" in picture.caption


def test_of_many_methods_some_stand_out_and_all_are_named(tmp_path):
    means = {f"method_{index:02}": 0.9 + index / 1000 for index in range(16)} | {"equal": 0.9, "broken": 0.1}
    view = View(table_of(tmp_path, make_study(means, seeds=2)))
    scatter = draw_scatter(view)
    named = {text for text in texts(scatter) if text in means}
    assert {"equal", "broken", "method_15", "method_14"} <= named
    rest = scatter.caption.split("no room for the names of ")[1].rstrip(".").split(", ")
    assert named | set(rest) == set(means)
    assert "Triangles at an edge are methods beyond it: broken (left accuracy 0.0" in scatter.caption
    boxes = [text.get_window_extent() for text in scatter.figure.axes[0].texts if text.get_text()]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert len(to_svg(scatter)) < 100_000
    assert set(means) == {text.rsplit("  ", 1)[0] for text in texts(draw_critical_difference(view)) if "  " in text}


def test_names_are_without_what_most_methods_have_in_common(tmp_path):
    records = make_study(dict.fromkeys(("equal", "mgda", "pcgrad", "cagrad"), 0.9), seeds=2)
    view = View(table_of(tmp_path, records + make_study({"single": 0.9}, seeds=2, key="model")))
    labels = {name: look.label for name, look in view.looks.items()}
    assert labels.pop("single, equal") in ("single, equal", "single")
    assert set(labels.values()) == {"equal", "mgda", "pcgrad", "cagrad"}
    assert view.reference.name == "hard, equal"
    assert all(picture.caption.endswith("Methods are of model=hard if their names have no other.")
               for picture in draw_all(view.table).pictures)  # fmt: skip


def test_names_are_shown_as_they_are_and_better_is_up_and_to_the_right(tmp_path):
    names, tasks = ["$a_1$ <b>&", "任务"], ("$x$", "任务")
    records = [
        make_record(weighting=name, tasks=tasks, test={task: {"loss": value} for task in tasks})
        for name, value in zip(names, (0.2, 0.3), strict=True)
    ]
    picture = draw_scatter(View(table_of(tmp_path, records)))
    assert {*names, "$x$ loss ↓", "任务 loss ↓"} <= set(texts(picture))
    (axes,) = picture.figure.axes
    assert axes.xaxis_inverted()
    assert axes.yaxis_inverted()


def test_colors_are_seen_on_white_and_on_black():
    def luminance(color):
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for color in (*COLORS, GRAY):
        for page in ("#ffffff", "#121212"):
            dark, light = sorted((luminance(color), luminance(page)))
            assert (light + 0.05) / (dark + 0.05) >= 3, (color, page)


def test_critical_difference_is_that_of_the_statistics_and_more_seeds_shrink_it(drawn, tmp_path):
    lengths = []
    few = drawn["critical-difference"]
    many = draw_critical_difference(View(table_of(tmp_path, make_study(MEANS, seeds=12))))
    for picture, blocks in ((few, 6), (many, 24)):
        (axes,) = picture.figure.axes
        found = {line.get_gid(): line for line in axes.lines if line.get_gid()}
        (name,) = [gid for gid in found if gid.startswith("tip:critical difference")]
        expected = critical_difference(4, blocks)
        assert f"CD = {expected:.2f}" in texts(picture)
        left, right = found[name].get_xdata()
        ticks = [text for text in axes.texts if text.get_text() in ("1", "2")]
        unit = ticks[1].get_position()[0] - ticks[0].get_position()[0]
        assert (right - left) / unit == pytest.approx(expected)
        lengths.append(expected)
    assert lengths[1] == pytest.approx(lengths[0] / 2)


def folded(model, weighting, tasks=("left", "right")):
    """Return the records of a method on three folds with two seeds each."""
    return [
        make_record(seed, model=model, weighting=weighting, tasks=tasks,
                    test={task: {"accuracy": MEANS[weighting][0] + fold / 50 + seed / 500 * (fold - 1), "loss": 1.0}
                          for task in tasks},
                    changes={"dataset.num_folds": 3, "dataset.fold": fold})
        for seed in range(2) for fold in range(3)
    ]  # fmt: skip


def test_pictures_test_what_the_table_tests_which_are_folds_and_not_the_seeds_on_them():
    records = [*folded("single", "equal"), *(record for name in MEANS for record in folded("hard", name))]
    (table,) = compare([Run(record) for record in records], Options(against="mgda")).tables
    assert table.against.ranks.num_blocks == 6  # two tasks, three folds
    view = View(table)
    caption = draw_critical_difference(view).caption
    assert "over 6 blocks (a block is one task in one repetition, by the main metrics)" in caption
    assert f"p = {table.against.ranks.p:.2g}." in caption
    intervals = {row.name: row.cells["delta_p"].interval for row in table.configs if "delta_p" in row.cells}
    for row in table.configs:  # as in a long table
        row.cells["delta_p"].interval = None
    picture = draw_delta_bars(view)
    (axes,) = picture.figure.axes
    drawn = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    expected = sorted(filter(None, intervals.values()))
    assert sum(sorted(drawn), ()) == pytest.approx(sum(expected, ()))
    assert "dots: folds, each the mean over its seeds" in picture.caption


def test_metrics_that_stand_in_for_main_ones_are_drawn_and_named():
    records = make_study({"equal": 0.9, "mgda": 0.8, "dwa": 0.7})
    options = Options(metrics=("*/loss",), against="equal", pareto=True)
    (table,) = compare([Run(record) for record in records], options).tables
    found = {picture.name: picture for picture in draw_all(table).pictures}
    assert {"task-against-task", "critical-difference"} <= set(found)
    words = "by the main metrics, or where they are not shown the first ones: left loss, right loss"
    assert words in found["critical-difference"].caption
    assert words in table.trade_offs.notes
    _, overall, _ = sections_of(table)
    assert overall.notes[0].startswith(f"{words}: the probability")


def test_what_cannot_be_drawn_is_left_out_with_the_reason(tmp_path):
    found = draw_all(table_of(tmp_path, make_study({"equal": 0.9, "mgda": 0.91}, tasks=("left",))))
    assert found.pictures == []
    assert found.left_out == [
        "no picture of task against task: it needs two tasks, found 1 task",
        "no picture of change against single-task networks: no method has a single-task baseline to be held against",
        "no picture of critical difference: it needs three methods with a result in each task, found 2",
        "no picture of training curves: no metrics.jsonl beside the records has losses of training and evaluations",
        "no picture of task weights: no run has logged task weights",
        "no picture of gradient cosines: no run has logged cosines between task gradients: weightings that need only "
        "losses do not, unless trainer.log_gradients_every is set",
    ]


def test_missing_library_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    def without(name, *arguments, importing=builtins.__import__, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return importing(name, *arguments, **options)

    table = table_of(tmp_path, make_study({"equal": 0.9, "mgda": 0.91}))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"matplotlib, which is not installed: pip install 'mtlrun\[report\]'"):
        draw_all(table)
