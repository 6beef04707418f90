"""docs/your_data.md and the pages below it are true: their commands work on their files, and answer what they show."""

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import read_record, run_folders

DOCUMENTS = Path(__file__).parents[2] / "docs"
PAGES = ["your_data.md", *(f"your_data/{path.name}" for path in sorted((DOCUMENTS / "your_data").glob("*.md")))]


def blocks(page):
    """Yield (language, content, name of the file that it is, or None) of each block of code, in their order."""
    text = (DOCUMENTS / page).read_text()
    for found in re.finditer(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        name = re.search(r"`([\w./]+\.\w+)`(, [^:`]*)?:", before)
        yield found[1], found[2], name[1] if name else None


def lay_files(page):
    for language, content, name in blocks(page):
        if language in ("csv", "yaml", "python"):
            assert name is not None, f"{page}: a block of {language} is no file:\n{content}"
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_answer_what_it_shows(mtlrun, page):
    lay_files(page)
    shown = ""
    expected = [*blocks(page), ("end", "", None)]
    for (language, content, _), (after, answer, _) in pairwise(expected):
        if language != "sh":
            continue
        shown, codes = "", []
        for line in content.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            if program == "python":
                subprocess.run([sys.executable, *arguments], check=True)
                continue
            code, out, err = mtlrun(*arguments)
            shown += out + err
            codes.append(code)
        answers = answer.splitlines() if after == "text" else []
        refused = sum(text.startswith("mtlrun: ") for text in answers)
        assert sorted(codes) == [0] * (len(codes) - refused) + [2] * refused, shown
        for text in answers:
            assert text in shown, f"{page}, after {content}: not shown: {text}\nbut {shown}"


HOUSES = ["--config-dir", "conf", "dataset=houses"]


@pytest.mark.parametrize(
    ("old", "new", "arguments", "message"),
    [
        ("655000", "about 600000", [], "houses.csv, column price, row 7: 'about 600000' is not a finite number"),
        ("", "", ["tasks.kind.num_classes=2"], "kind: tasks.kind.num_classes=2, and the column has 3 labels: flat"),
        ("", "", ["dataset.fractions=[0.5,0.5,0.5]"], "dataset.fractions must be three numbers > 0 that sum to 1"),
    ],
)
def test_errors_end_the_command_and_leave_nothing(mtlrun, old, new, arguments, message):
    lay_files("your_data.md")
    file = Path("houses.csv")
    file.write_text(file.read_text().replace(old, new) if old else file.read_text())
    code, _, err = mtlrun(*HOUSES, *arguments)
    assert code == 2
    assert message in err
    assert not run_folders()


def test_a_table_without_a_file_or_tasks_is_refused_with_what_to_type(mtlrun):
    lay_files("your_data.md")
    code, _, err = mtlrun("dataset=csv")
    assert code == 2
    assert "dataset.path must name a CSV or Parquet file, as in dataset.path=houses.csv" in err
    code, _, err = mtlrun("dataset=csv", "dataset.path=houses.csv")
    assert code == 2
    assert "as in dataset.predict=[quick]; houses.csv has: id, size, rooms, heating, city, price, kind, quick" in err


def test_recorded_splits_hold_the_ids_of_the_rows(mtlrun):
    lay_files("your_data.md")
    code, _, err = mtlrun(*HOUSES, "trainer=smoke", "seed=3")
    assert code == 0, err
    (folder,) = run_folders()
    assert sorted(read_record(folder)["config"]["tasks"]) == ["kind", "price", "quick"]
    splits = json.loads((folder / "splits.json").read_text())
    assert sorted(splits["train"] + splits["val"] + splits["test"]) == [f"h{number:02}" for number in range(1, 25)]
    assert [len(splits[name]) for name in ("train", "val", "test")] == [17, 4, 3]


def headings_of(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_links_lead_to_headings():
    for page in PAGES:
        text = (DOCUMENTS / page).read_text()
        for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]*)\)", text)):
            file = (DOCUMENTS / page).parent / target if target else DOCUMENTS / page
            assert file.is_file(), f"{page}: {target}"
            assert not anchor or anchor in headings_of(file), f"{page}: {target}#{anchor}"
