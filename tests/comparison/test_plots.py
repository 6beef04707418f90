"""The pictures of a comparison: what is drawn, by the structure of the figure and of its SVG."""

import builtins
from xml.etree import ElementTree

import pytest
from synthetic import make_study, write_records

from mtlrun.comparison.plots import draw_all, to_png, to_svg
from mtlrun.comparison.reading import compare_folders
from mtlrun.comparison.statistics.friedman import critical_difference
from mtlrun.errors import DataError

SVG = "{http://www.w3.org/2000/svg}"
MEANS = {"equal": [0.90, 0.90], "mgda": [0.86, 0.95], "pcgrad": [0.94, 0.88], "cagrad": [0.85, 0.85]}


def table_of(root, records, **options):
    (table,) = compare_folders(
        [*dict.fromkeys(folder.parent for folder in write_records(root, records, **options))]
    ).tables
    return table


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures of four methods with three seeds and a single-task baseline, by name."""
    records = make_study(MEANS, seeds=3)
    for task in ("left", "right"):
        records += make_study({"single": 0.88}, seeds=3, tasks=(task,), key="model")
    found = draw_all(table_of(tmp_path_factory.mktemp("study"), records, evaluations=6))
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


def test_critical_difference_is_that_of_the_statistics_and_more_seeds_shrink_it(drawn, tmp_path):
    lengths = []
    few = drawn["critical-difference"]
    many = next(
        picture
        for picture in draw_all(table_of(tmp_path, make_study(MEANS, seeds=12))).pictures
        if picture.name == "critical-difference"
    )
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


def test_what_cannot_be_drawn_is_left_out_with_the_reason(tmp_path):
    found = draw_all(table_of(tmp_path, make_study({"equal": 0.9, "mgda": 0.91}, tasks=("left",))))
    assert found.pictures == []
    assert found.left_out[0] == "no picture of task against task: it needs two tasks, and there is 1 task"


def test_missing_library_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    def without(name, *arguments, importing=builtins.__import__, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return importing(name, *arguments, **options)

    table = table_of(tmp_path, make_study({"equal": 0.9, "mgda": 0.91}))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"matplotlib, which is not installed: pip install 'mtlrun\[report\]'"):
        draw_all(table)
