"""What becomes of the columns of the input: kinds, other notations, dates, lists, and advice that works."""

import shlex
from pathlib import Path

import numpy
import pandas
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mtlrun.datasets import Table
from mtlrun.errors import DataError

KIND = "mtlrun.tasks.Regression"
ROWS = 60
DAYS = pandas.date_range("2020-01-01", periods=ROWS, freq="17D")
NUMBERS = [number * 1.25 for number in range(ROWS)]


def frame(**columns):
    """Return a table of a number, a target, and the given columns, whose texts are repeated as often as needed."""
    random = numpy.random.default_rng(0)
    repeated = {name: [cells[row % len(cells)] for row in range(ROWS)] for name, cells in columns.items()}
    return pandas.DataFrame({"x": random.normal(size=ROWS).round(3), "y": range(ROWS), **repeated})


def write(**columns):
    frame(**columns).to_csv("table.csv", index=False)


def table(*overrides, **options):
    """Build the dataset with overrides as they are typed into a shell."""
    words = [word for override in overrides for word in shlex.split(override)]
    keys = {key.key_or_group: key.value() for key in OverridesParser.create().parse_overrides(words)}
    if keys.pop("backbone", None) == "embedding_mlp":
        keys["category_encoding"] = "index"
    given = {key.removeprefix("dataset."): value for key, value in keys.items()}
    return Table(**{"path": "table.csv", "tasks": ["y"], "kinds": [KIND]} | given | options)


def refusal(*overrides):
    with pytest.raises(DataError) as error:
        table(*overrides)
    return str(error.value)


def ways(message):
    """Return the overrides that a message advises, by the words before them."""
    lines = message.splitlines()
    found = lines[lines.index("What settles them:") + 1 :] if len(lines) > 1 else message.split("; ")[1:]
    return {line.split(": ", 1)[0].strip(): line.split(": ", 1)[1] for line in found if ": " in line}


# {what a column holds: (cells, words of the message)}; none of them may become categories without being asked for.
REFUSED = {
    "decimal commas": (["0,35", "0,5", "-1,2", "1"], "number in another notation"),
    "few decimal commas": (["0,5", "1,5"], "number in another notation"),
    "thousands": (["1,234", "2,500", "12,000"], "number in another notation"),
    "thousands and decimals": (["1,234.50", "12.25"], "number in another notation"),
    "German thousands": (["1.234,50", "999,25"], "number in another notation"),
    "spaces": (["1 234", "12 500", "7"], "number in another notation"),
    "unbreakable spaces": (["1\u00a0234", "12\u00a0500"], "number in another notation"),
    "percent": (["12%", "3.5 %"], "a number with a sign"),
    "currency": (["$1,234.50", "$12"], "a number with a sign"),
    "euros": (["12,50 €", "7,25 €"], "a number with a sign"),
    "dates": (["2020-01-05", "2021-02-03"], "is a date or a time"),
    "German dates": (["05.01.2020", "13.02.2021"], "is a date or a time"),
    "American dates": (["1/25/2020", "12/5/2021"], "is a date or a time"),
    "short dates": (["25-Jan-20", "03-Feb-21"], "is a date or a time"),
    "moments": (["2020-01-05 12:30:00", "2021-02-03T10:00:00Z"], "is a date or a time"),
    "times": (["12:30", "7:05"], "is a date or a time"),
    "lists": (["[1, 2]", "[3]"], "is a list"),
    "lists without brackets": (["1;2;3", "4;5"], "is a list"),
    "blood pressure": (["120/80", "147/101", "95/60"], "is a list"),
    "lists of texts": (["cat|dog", "dog", "cat|bird", "bird|dog", "cat|cow"], "is a list of texts"),
    "words for missing": (["1", "2.5", "n/a", "7"], "where most of the column are numbers"),
    "many words for missing": (["1", "2.5", "?", "?", "?", "?"], "where most of the column are numbers"),
    "infinity": (["1", "2.5", "inf", "7"], "where most of the column are numbers"),
    "typing errors": (["1", "2.5", "3O", "7"], "where most of the column are numbers"),
    "names": ([f"name {number}" for number in range(ROWS)], "different texts in training"),
}
KEPT = {
    "versions": ["1.2.3", "1.10.0", "2.0.1"],
    "codes": ["1-2", "3-4", "10-2"],
    "ranges": ["10-20", "20-30", "30-40"],
    "seasons": ["2019-20", "2020-21"],
    "intervals": ["(10, 20]", "(20, 30]"],
    "floors": ["1st", "2nd", "3rd"],
    "yes": ["yes", "no"],
    "true": ["True", "False"],
    "months": ["Jan", "May"],
    "sizes": ["10 kg", "20 kg"],
    "addresses": ["10.0.0.1", "10.0.0.2"],
    "sentences": ["Hello, you", "Bye; now, then"],
    "words": ["none", "some", "?", "a"],
}


def test_what_is_no_category_is_refused_by_name():
    write(**{name: cells for name, (cells, _) in REFUSED.items()})
    message = refusal("dataset.max_categories=20")
    assert message.startswith("table.csv: 20 columns cannot") or f"{len(REFUSED)} columns cannot be inputs" in message
    for name, (cells, words) in list(REFUSED.items()):
        write(c=cells)
        message = refusal("dataset.max_categories=20")
        assert words in message, name
        assert message.startswith("table.csv, column c: "), name


def test_genuine_categories_stay_categories():
    write(**KEPT)
    dataset = table()
    for name, cells in KEPT.items():
        assert dataset.categories[name] == sorted(cells), name


def test_all_advice_works_when_it_is_followed():
    for name, (cells, _) in REFUSED.items():
        write(c=cells)
        advised = ways(refusal("dataset.max_categories=20"))
        assert advised, name
        for what, override in advised.items():
            for choice in override.split(" (if", maxsplit=1)[0].split(" or "):
                assert table("dataset.max_categories=20", choice), (what, choice)
        if name in ("decimal commas", "thousands", "German thousands", "spaces", "unbreakable spaces"):
            assert "numbers in this notation" in advised, name
        if "date" in name or "time" in name or name == "moments":
            assert any(what.startswith("dates as numbers") for what in advised), name


def test_advice_keeps_what_is_set_and_settles_all_columns_together():
    write(name=[f"n{number}" for number in range(ROWS)], day=[str(day.date()) for day in DAYS], z=["a", "b"])
    message = refusal("dataset.exclude=[z]", "dataset.max_categories=20")
    assert "table.csv: 2 columns cannot be inputs as they are:" in message
    advised = ways(message)
    assert advised["to leave them all out"] == "'dataset.exclude=[z,name,day]'"
    assert table(advised["to leave them all out"]).features == ["x"]
    assert table("dataset.dates=[day]", "dataset.exclude=[z,name]").features == ["x", "day"]
    write(**{"the, 'name'": [f"n{number}" for number in range(ROWS)]})
    assert table(ways(refusal("dataset.max_categories=20"))["to leave it out"]).features == ["x"]


def numbers_of(dataset, column):
    """Return a column as it was before it was standardized, by the order of its rows."""
    mean, std = dataset.input_scales[column].values()
    place, values = dataset.features.index(column), numpy.empty(ROWS)
    for name, rows in dataset.rows.items():
        values[rows] = dataset.split(name).inputs[:, place].numpy() * std + mean
    return values


def test_numbers_in_another_notation_are_the_numbers_they_are():
    plain = [f"{number:.2f}" for number in NUMBERS]
    german = [f"{1000 * number:,.1f}".replace(",", "_").replace(".", ",").replace("_", ".") for number in NUMBERS]
    write(a=[cell.replace(".", ",") for cell in plain], b=german, c=plain)
    dataset = table(
        "'dataset.decimal=\",\"'", "'dataset.thousands=\".\"'", "dataset.exclude=[c]", "dataset.inputs=[a,b]"
    )
    numpy.testing.assert_allclose(numbers_of(dataset, "a"), NUMBERS, atol=1e-4)
    numpy.testing.assert_allclose(numbers_of(dataset, "b"), [1000 * number for number in NUMBERS], atol=0.1)
    # A column that plainly has points keeps them; one whose points may separate thousands is refused.
    notation = ["'dataset.decimal=\",\"'", "'dataset.thousands=\".\"'"]
    numpy.testing.assert_allclose(numbers_of(table(*notation, "dataset.inputs=[c]"), "c"), NUMBERS, atol=1e-4)
    write(c=["1.250", "12.5"])
    assert "column c" in refusal(*notation)


def test_dates_are_days_since_1970():
    expected = [(day - pandas.Timestamp("1970-01-01")).days for day in DAYS]
    formats = ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%b-%y", "%Y%m%d", "%B %d, %Y", "%Y-%m-%d %H:%M"]
    write(**{f"c{index}": [day.strftime(format) for day in DAYS] for index, format in enumerate(formats)})
    dataset = table(f"dataset.dates=[{','.join(f'c{index}' for index in range(len(formats)))}]")
    for index in range(len(formats)):
        numpy.testing.assert_allclose(numbers_of(dataset, f"c{index}"), expected, atol=1e-2)
    write(t=["12:00", "18:00", "6:00"])
    numpy.testing.assert_allclose(numbers_of(table("dataset.dates=[t]"), "t")[:3], [0.5, 0.75, 0.25], atol=1e-5)


def test_days_and_months_that_cannot_be_told_apart_need_a_format():
    write(c=["3/4/2020", "5/6/2020"])
    message = refusal("dataset.dates=[c]")
    assert "the day or the month is first in '3/4/2020'" in message
    first = numbers_of(table("'dataset.dates={c: \"%d/%m/%Y\"}'"), "c")
    second = numbers_of(table("'dataset.dates={c: \"%m/%d/%Y\"}'"), "c")
    numpy.testing.assert_allclose([first[0], second[0]], [18355, 18325], atol=1e-2)
    write(c=["2020-01-05", "soon", "2020-02-05"])
    assert "'soon' in row 3 is no date" in refusal("dataset.dates=[c]")


def test_columns_without_a_cell_are_left_out_and_constant_ones_told(caplog):
    write(none=[None], same=["5"], z=["u", "v", "w"])
    with caplog.at_level("INFO", "mtlrun"):
        dataset = table("dataset.exclude=[z]")
    assert dataset.features == ["x", "same"]
    line = "columns of the inputs: 2 numbers; left out: z; without a cell: none; constant: same; 2 features"
    assert line in caplog.text
    assert "no column is left" in refusal("dataset.inputs=[none]")


def test_texts_that_training_lacks_are_counted():
    cells = ["a"] * 58 + ["b", "c"]
    data = frame(t=cells, part=["train"] * 50 + ["val"] * 5 + ["test"] * 5)
    data.to_csv("table.csv", index=False)
    (note,) = table("dataset.split_column=part").notes
    assert note == "texts that are not in train count as none of the categories: t (2 rows of test)"


def test_targets_and_weights_name_the_key_that_settles_them():
    options = {"tasks": ["t"], "kinds": [KIND], "exclude": ["y"]}
    for cells, words in [
        (["0,6", "1,5"], "dataset.decimal=\",\""), (["1,234", "2,500"], "dataset.thousands=\",\""),
        (["1", "N/A"], 'dataset.missing=["",NA,"NaN","nan","null","N/A"]'), (["5%"], "take the signs"),
        (["2020-01-05"], "a date cannot be predicted"), (["1", "inf"], "dataset.missing="),
    ]:  # fmt: skip
        write(t=cells)
        with pytest.raises(DataError, match=r"column t, row [23]: '.*' is not a finite number") as error:
            Table("table.csv", **options)
        assert words in str(error.value)
        with pytest.raises(DataError, match=r"column t, row [23]: '.*' is not a finite number"):
            Table("table.csv", **options | {"tasks": ["x"]}, weight_column="t")
    assert Path("table.csv").exists()


def test_a_word_among_numbers_in_the_notation_of_the_config_stands_for_an_empty_cell():
    write(c=["1,5", "2,25", "closed", "7,5", "1.250,75"])
    notation = ["'dataset.decimal=\",\"'", "dataset.thousands=."]
    message = refusal(*notation)
    assert "column c: 'closed' in row 4, where most of the column are numbers" in message
    dataset = table(*notation, ways(message)["for empty cells"])
    assert dataset.features == ["x", "c", "c is empty"]


def test_parquet_dates_and_lists_are_refused_like_texts():
    data = frame()
    data["day"], data["list"] = DAYS, [[1, 2]] * ROWS
    data.to_parquet("table.parquet")
    options = ["dataset.path=table.parquet"]
    message = refusal(*options)
    assert "day: '2020-01-01' in row 1 is a date or a time" in message
    assert "list: '[1, 2]' in row 1 is a list" in message
    dataset = table(*options, "dataset.dates=[day]", "dataset.exclude=[list]")
    numpy.testing.assert_allclose(numbers_of(dataset, "day")[:2], [18262, 18279], atol=1e-2)


def test_lists_and_mappings_of_dates_are_taken_from_the_command_line(mtlrun):
    write(c=["3/14/2020", "5/16/2020"])
    run = ["dataset=csv", "dataset.path=table.csv", "+task@tasks.y=regression", "trainer=smoke", "runtime.quiet=true"]
    for dates in ("[c]", '{c: "%m/%d/%Y"}', "{c: null}"):
        code, _, err = mtlrun(*run, f"dataset.dates={dates}")
        assert code == 0, err
    code, _, err = mtlrun(*run)
    assert code == 2
    assert "table.csv, column c: '3/14/2020' in row 2 is a date or a time; to leave it out: " in err
