"""The report: its content, and its two renderers."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest
from synthetic import make_record, make_study, write_records

from mtlrun.comparison.building import compare
from mtlrun.comparison.commands import training_commands
from mtlrun.comparison.report.content import make_document
from mtlrun.comparison.report.document import (
    Cell,
    Code,
    Column,
    Details,
    Document,
    Paragraph,
    Picture,
    Points,
    Section,
    Table,
)  # fmt: skip
from mtlrun.comparison.report.html import as_html
from mtlrun.comparison.report.markdown import as_markdown
from mtlrun.comparison.run import Run
from mtlrun.comparison.table import Options

SWEPT = ("hydra.sweeper.params", "hydra.sweeper.runs", "hydra.sweeper.exclude")
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = (
    "</code></script><script>alert('x')</script> <img src=x onerror=y> \"q\" a|b `c` *d* [e](f) \x1b[31m\u202e&lt;"
)
SHOWN = HOSTILE.replace("\x1b", "").replace("\u202e", "")
SVG = (
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><defs><path id="{0}-1"/></defs>'
    '<use href="#{0}-1"/></svg>'
)


class Page(HTMLParser):
    """What a browser finds in a page: its tags with their attributes, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def document_of(records, **options):
    comparison = compare([Run(record, Path("outputs", record.run_id)) for record in records], **options)
    return make_document(comparison, command="mtlrun report outputs", now=NOW)


def text_of(document):
    return as_markdown(document, "pictures")[0]


def section(document, title):
    (found,) = [each for each in document.sections if each.title == title]
    return found


def test_texts_of_others_are_shown_and_not_obeyed():
    cells = [Cell(HOSTILE, HOSTILE, mark=mark) for mark in ("", "best", "second", "differs", "bad")]
    table = Table(HOSTILE, [Column(HOSTILE)] * 5, [cells], [cells])
    svg = {name: SVG.format(name) for name in "pq"}
    blocks = [Paragraph(HOSTILE, lead=True), Paragraph(HOSTILE), Points([HOSTILE], HOSTILE), Code([HOSTILE]), table,
              Picture(svg["p"], HOSTILE, HOSTILE, "p"), Picture(svg["q"], HOSTILE, HOSTILE, "q"),
              Details(HOSTILE, [Code([HOSTILE])])]  # fmt: skip
    document = Document(HOSTILE, [HOSTILE], [Section(HOSTILE, blocks)])
    harmless = Document("T", ["f"], [Section("S", [Paragraph("p")])])

    page, other = Page(as_html(document)), Page(as_html(harmless))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.texts.count(SHOWN) >= 10  # whole, wherever it stands
    assert [text for text in page.texts if "use strict" in text] == [
        text for text in other.texts if "use strict" in text
    ]
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    assert {link.removeprefix("#") for link in page.attributes("href")} <= set(identifiers)

    text, pictures = as_markdown(document, "pictures")
    outside_code = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not re.search(r"(?<!\\)[`*\[|]c|<(?!br>)|[\x1b\u202e]", "\n".join(outside_code))
    (row,) = {line.count("|") - line.count("\\|") for line in outside_code if line.startswith("| ")}
    assert row == 6
    assert pictures == {"pictures/p.svg": svg["p"], "pictures/q.svg": svg["q"]}


def test_both_formats_have_all_sections_and_load_nothing():
    records = make_study({"equal": 0.9, "mgda": 0.8}) + make_study({"single": 0.85}, key="model")
    document = document_of(records)
    html, text = as_html(document), text_of(document)
    titles = [section.title for section in document.sections]
    assert re.findall(r"<h2 id=[^>]*>(.*?)</h2>", html) == titles
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|<link|\ssrc=", html)
    cells = {text.strip() for text in Page(html).texts}
    for row in section(document, "Results").blocks[0].rows:
        assert {cell.text for cell in row if cell.text} <= cells
        assert all(cell.text in text for cell in row)


def test_each_table_has_pictures_of_its_own():
    records = [record for name in ("a/b", "c") for record in make_study({"equal": 0.9, "mgda": 0.8}, dataset=name)]
    document = document_of(records)
    text, files = as_markdown(document, "pictures")
    assert {f"pictures/{name}-task-against-task.svg" for name in ("a-b", "c")} <= set(files)
    assert len(files) == text.count("](pictures/")
    identifiers = Page(as_html(document)).attributes("id")
    assert any(identity.startswith("a-b-task-against-task-") for identity in identifiers)
    assert len(identifiers) == len(set(identifiers))


def test_warnings_stand_with_the_answer_and_analyses_in_their_sections():
    records = make_study({"equal": 0.9, "mgda": 0.8}) + make_study({"dwa": 0.9}, changes={"trainer.clip_norm": 1.0})
    document = document_of(records, options=Options(against="equal", pareto=True))
    (warnings,) = [block for block in section(document, "Answer").blocks if isinstance(block, Points) and block.warning]
    assert any("clipping (trainer.clip_norm)" in warning for warning in warnings.items)
    for title, captions in {
        "Differences": ["Against equal, trainer.clip_norm=None", "Over all tasks"],
        "Trade-offs": ["Trade-offs between the tasks"],
    }.items():
        found = [block.caption for block in section(document, title).blocks if isinstance(block, Table)]
        assert found == captions


def test_what_has_no_result_is_named_with_its_reason_and_folder():
    records = make_study({"equal": 0.9, "mgda": 0.8})
    records[1] = failed = make_record(1, weighting="equal", status="failed", error="ValueError: no such thing")
    gone = records.pop(5)
    assert gone.config["seed"] == 2
    records[0].notes.append("2 test samples are repeated")
    text = text_of(document_of(records))
    failures = text[text.index("## Failures") : text.index("## Commands")]
    assert "ValueError: no such thing" in failures
    assert f"outputs/{failed.run_id}".replace("_", "\\_") in failures
    assert "mgda: seed 2" in failures
    assert "2 test samples are repeated (1 of 5 runs)" in failures
    assert "All 3 runs were completed" in text_of(document_of(make_study({"equal": 0.9})))


def test_what_differs_between_runs_is_marked():
    records = make_study({"equal": 0.9, "mgda": 0.8})
    records[2].environment["versions"]["torch"] = "2.12.0"
    records[3].environment["mtlrun"]["dirty"] = True
    blocks = section(document_of(records), "Environment").blocks
    marked = {row[1].text for row in blocks[1].rows if row[1].mark == "differs"}
    assert marked == {"2.11.0", "2.12.0", "000000000000", "000000000000, with uncommitted changes"}
    assert "commit of mtlrun, torch" in blocks[0].text
    same = section(document_of(make_study({"equal": 0.9})), "Environment").blocks
    assert {row[1].mark for row in same[1].rows} == {""}


def test_where_configs_differ_is_told_from_what_they_share():
    records = make_study({"equal": 0.9, "mgda": 0.8}, seeds=2)
    for record in records[2:]:
        record.config["weighting"]["normalize"] = True
    differing, common = section(document_of(records), "Configs").blocks[:2]
    found = {row[0].text: row[1].text for row in differing.rows}
    assert found == {"equal": "weighting=equal", "mgda": "weighting=mgda, weighting.normalize=true"}
    lines = common.blocks[0].lines
    assert "trainer.epochs=30" in lines
    assert "optimizer.betas=[0.9,0.999]" in lines
    assert not [line for line in lines if line.startswith(("seed", "names.weighting"))]


@pytest.mark.parametrize("study", [[], ["study=mine"]])
def test_the_commands_train_exactly_the_runs_that_there_are(study):
    """What each command sweeps over is multiplied out again, and compared with the overrides of the runs."""
    wanted = list(product(["equal", "mgda", "pcgrad"], ["0.001", "0.01"], ["0", "1", "2"]))[:-1]
    records = [
        make_record(
            overrides=[f"weighting={name}", f"optimizer.lr={rate}", f"seed={seed}", "runtime.quiet=true", *study]
        )
        for name, rate, seed in wanted
    ]
    commands = training_commands([Run(record) for record in [*records, records[0]]])
    assert len(commands) <= 3
    found = []
    for command in commands:
        values = dict(word.split("=", 1) for word in command.split() if "=" in word)
        assert command.startswith("mtlrun -m " if any("," in value for value in values.values()) else "mtlrun ")
        keys = ("weighting", "optimizer.lr", "seed")
        found += product(*(values.pop(key).split(",") for key in keys))
        assert values == ({"study": "mine", **dict.fromkeys(SWEPT, "null")} if study else {})
    assert sorted(found) == sorted(wanted)


def test_a_run_that_was_extended_has_the_command_that_extends():
    parent = {"run_id": "x", "folder": "outputs/runs/a b", "steps": 5}
    record = make_record(overrides=["trainer.epochs=60"], parent=parent)
    assert training_commands([Run(record)]) == ["mtlrun extend 'outputs/runs/a b' trainer.epochs=60"]


def test_the_command_line(mtlrun, tmp_path):
    write_records(tmp_path / "outputs", make_study({"equal": 0.9, "mgda": 0.8, "pcgrad": 0.85}))
    (tmp_path / "outputs" / "broken").mkdir()
    (tmp_path / "outputs" / "broken" / "record.json").write_text("{")
    code, out, err = mtlrun("report", "outputs")
    assert (code, out) == (0, "written to report.html\n")
    assert "broken/record.json is no record of a run (not JSON); it is left out" in err
    assert "broken/record.json" in Path("report.html").read_text()
    assert mtlrun("report", "outputs", "-o", "deep/er/report.md", "--group-by", "weighting")[0] == 0
    assert "mtlrun report outputs -o deep/er/report.md --group-by weighting" in Path("deep/er/report.md").read_text()
    for wrong, message in {
        ("outputs", "-o", "report.pdf"): "its suffix names no format",
        ("outputs", "--metrics", "left/nothing"): "no run has this metric",
        ("nowhere",): "there is no such folder",
    }.items():
        code, _, err = mtlrun("report", *wrong)
        assert code == 2
        assert message in err
    assert not Path("report.pdf").exists()


def lead_of(records, **options):
    return section(document_of(records, **options), "Answer").blocks[0].text


def test_the_answer_is_what_the_statistics_are():
    clear = make_study({"equal": 0.9, "mgda": 0.6, "dwa": 0.95}, seeds=5, spread=0.002)
    assert lead_of(clear).startswith("dwa is better than equal on multidigits by more than the noise over seeds; ")
    assert "mgda is worse. dwa alone has rank 1" in lead_of(clear)
    single = make_study({"single": 0.5}, key="model", seeds=5, spread=0.002)
    lead = lead_of(clear + single)
    assert (
        "dwa, mgda, hard, equal are better than single-task networks" in lead or "are better than single-task" in lead
    )

    noise = make_study({"equal": 0.9, "mgda": 0.9, "dwa": 0.912}, seeds=3, spread=0.01)
    blocks = section(document_of(noise), "Answer").blocks
    assert blocks[0].text == (
        "No weighting is shown to be better than equal on multidigits. Which weighting is the best is not known: "
        "differences between all 3 are inside the noise of 3 seeds in the metrics compared."
    )
    points = " ".join(blocks[1].items)
    assert "Whether training the tasks together helps is not known" in points
    assert "inside the noise" in points
    assert re.search(r"about [\d,]+ \(\w+ accuracy\).* seeds would show them", points)

    assert lead_of(make_study({"equal": 0.9, "mgda": 0.8}, seeds=1)) == (
        "With one seed of each weighting on multidigits no difference can be told from noise."
    )
    assert "nothing to compare it with: left accuracy 0." in lead_of(make_study({"equal": 0.9}))
    assert lead_of([make_record(status="failed")]) == "No run on multidigits has a result yet."


def test_a_method_without_any_result_is_named_and_ends_nothing():
    records = [*make_study({"equal": 0.9, "dwa": 0.9}), make_record(weighting="mgda", status="diverged")]
    document = document_of(records)
    assert any("Not all runs have a result: mgda" in point for point in section(document, "Answer").blocks[1].items)
    assert any(cell.text == "diverged" for row in section(document, "Failures").blocks[0].rows for cell in row)
