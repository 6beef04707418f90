"""How the files of tables are read: separators, encodings, compression, missing cells, kinds of Parquet columns."""

import bz2
import datetime
import decimal
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy
import pandas
import pytest

from mtlrun.datasets import Table
from mtlrun.datasets.tables.reading import csv_file, layout
from mtlrun.datasets.tables.reading.notation import Notation
from mtlrun.datasets.tables.reading.read import read
from mtlrun.errors import DataError

REGRESSION = {"tasks": ["y"], "kinds": ["mtlrun.tasks.Regression"]}
PLAIN = "id,a,y\nu,1,0.5\nv,2,1.5\nw,,2.5\n"


def write(content, name="table.csv"):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def cells(table):
    return {name: table.texts(name) for name in table.names}


def refused(message, *arguments, **options):
    with pytest.raises(DataError, match=message):
        read(*arguments, **options)


EXPECTED = {"id": ["u", "v", "w"], "a": ["1", "2", None], "y": ["0.5", "1.5", "2.5"]}


def test_the_same_table_is_read_from_every_layout():
    tabs, bars = PLAIN.replace(",", "\t"), PLAIN.replace(",", "|")
    contents = [
        (PLAIN, {}), (PLAIN, {"separator": ","}), (PLAIN.replace(",", ";"), {}), (tabs, {}), (bars, {}),
        (tabs, {"separator": "\t"}), (PLAIN.rstrip("\n"), {}), (PLAIN.replace("\n", "\r\n"), {}),
        (PLAIN.replace("\n", "\r"), {}), (PLAIN.replace(",", " , "), {}), (PLAIN + "\n\n,,\n", {}),
        ("\ufeff" + PLAIN, {}), ("\ufeff" + PLAIN, {"encoding": "latin-1"}), (PLAIN.encode("utf-16"), {}),
        (PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}), (PLAIN.replace("u,1", '"u","1"'), {}),
        (PLAIN.replace(",", "   ").replace("w      ", "w NA "), {"separator": r"\s+"}),
        (PLAIN.replace(",", "::"), {"separator": "::"}),
    ]  # fmt: skip
    for number, (content, options) in enumerate(contents):
        assert cells(read(write(content), **options)) == EXPECTED, number
    assert cells(read(write(tabs, "table.tsv"))) == EXPECTED


def test_compressed_files_are_read():
    data = PLAIN.encode()
    for suffix, compress in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        assert cells(read(write(compress(data), "table.csv" + suffix))) == EXPECTED
    with zipfile.ZipFile("table.csv.zip", "w") as archive:
        archive.writestr("table.csv", data)
    assert cells(read("table.csv.zip")) == EXPECTED
    many = "a,y\n" + "1,2\n" * 5000  # more rows than the size of the file leads to expect
    assert read(write(gzip.compress(many.encode()), "many.csv.gz")).floats("a").sum() == 5000
    with zipfile.ZipFile("two.zip", "w") as archive:
        archive.writestr("a.csv", data)
        archive.writestr("b.csv", data)
    refused("two.zip: an archive must hold one file, found 2", "two.zip")
    refused("t.csv.gz: the file cannot be read: ", write(b"\x1f\x8bno", "t.csv.gz"))
    refused("t.csv: the content is that of a .gz file", write(gzip.compress(data), "t.csv"))


def test_a_found_separator_is_told_and_an_unclear_one_refused():
    assert read(write(PLAIN)).notes == []
    (note,) = read(write(PLAIN.replace(",", "\t"))).notes
    assert "dataset.separator=tab" in note
    header = write(PLAIN.replace(",", ";"))
    refused(r"header is one cell with dataset.separator=','.*'dataset.separator=\";\"'", header, separator=",")
    refused("may be separated by ',' or by ';'", write("a,b;c\n1,2;3\n"))
    assert read(write("a;b (m,s)\n1;2\n3;4\n")).names == ["a", "b (m,s)"]
    assert read(write("a\n1\n2\n")).names == ["a"]


def test_the_key_separator_may_be_a_word():
    write(PLAIN.replace(",", "\t").replace("\t\t", "\t3\t"))
    for separator in ("tab", r"\t", "\t"):
        assert Table("table.csv", separator=separator, exclude=["id"], fractions=[0.3, 0.3, 0.4], **REGRESSION)
    for separator in ("", "((", '"'):
        with pytest.raises(ValueError, match="separator must be a character or a regular expression, found"):
            Table("table.csv", separator=separator, **REGRESSION)


def test_encodings_are_told_apart():
    text = "größe,y\n1,é\n"
    refused(r"table.csv, line 1: 'größe,y' is not UTF-8.*dataset.encoding=latin-1", write(text.encode("latin-1")))
    assert cells(read("table.csv", encoding="latin-1")) == {"größe": ["1"], "y": ["é"]}
    refused("the file is UTF-8, and dataset.encoding=cp1252 would garble it", write(text), encoding="cp1252")
    refused("not in dataset.encoding=ascii|the file is UTF-8", write(text), encoding="ascii")
    for wrong in ("latin-one", "base64", "", "a\0b"):
        with pytest.raises(ValueError, match="encoding must name one that Python knows"):
            read("table.csv", encoding=wrong)


def test_other_kinds_of_files_are_refused_by_name():
    refused("workbooks of Excel.*save the sheet as CSV", write("x", "table.xlsx"))
    refused("workbooks of Excel", write(b"PK\x03\x04...", "table.csv"))
    refused("workbooks of Excel", write(b"\xd0\xcf\x11\xe0...", "table.csv"))
    refused("files ending in .json cannot be read", write("{}", "table.json"))
    refused("the content is that of a .parquet file", write(b"PAR1", "table.csv"))
    Path("folder.csv").mkdir()
    refused("folder.csv: this is a folder", "folder.csv")


def test_rows_that_do_not_fit_the_header_are_refused_with_their_number():
    refused("row 4: found 2 cells, and the header names 3 columns", write("a,b,c\n1,2,3\n\n1,2\n"))
    refused("row 3: found 4 cells", write('a,b,c\n"1\n1",2,3\n1,2,3,4\n'))
    refused("row 2: found 3 cells.*give|row 2: found 3 cells.*name that column", write("a,b\nx,1,2\ny,3,4\n"))
    refused("row 2: found 2 cells.*begins with # is a comment, delete it", write("# made by hand\na,b\n1,2\n"))
    refused("row 3: found 1 cell.*may not be closed", write('a,b\n1,2\n"3,4\n5,6\n7,8\n'))
    refused("there are no rows beneath the header", write("a,b\n"))
    refused("there are no rows beneath the header", write("a,b"))
    refused("the file is empty", write(" \n\n"))
    refused("row 2: found 2 cells, and the header names 1 column;", write("# a\n1,2\n"))
    refused("table.csv: row 3: a quote is opened there and never closed", write('a,b\n1,2\n1,"2\n3,4\n'))
    assert read(write("#a,b\n1,2\n")).names == ["#a", "b"]


def test_columns_without_a_name_are_left_out():
    table = read(write(",a,y,\n0,1,2,\n1,3,4,\n"))
    assert table.names == ["a", "y"]
    assert "without a name in the header, left out: column 1, 4" in table.notes[0]
    refused("the header has the column 'a' twice", write("a, a ,b\n1,2,3\n"))


def test_numbers_and_texts_are_the_same_however_they_are_divided_into_parts(monkeypatch):
    """Columns that begin with numbers and go on with texts are read again as texts, which keep their zeros."""
    random = numpy.random.default_rng(0)
    frame = pandas.DataFrame(random.normal(size=(900, 3)), columns=["a", "b", "c"])
    frame["mixed"] = [f"{number:03}" for number in range(899)] + ["x"]
    frame["gaps"] = [None if number % 3 else number for number in range(900)]
    frame.to_csv("table.csv", index=False)
    whole = read("table.csv")
    monkeypatch.setattr(csv_file, "_CHUNK_CELLS", 50)
    monkeypatch.setattr(csv_file, "_CHUNK_ROWS", 7)
    parts = read("table.csv")
    for table in (whole, parts):
        assert [table.cells[name].are_numbers for name in table.names] == [True, True, True, False, True]
        assert table.texts("mixed")[:3] == ["000", "001", "002"]
        numpy.testing.assert_array_equal(table.floats("a"), frame["a"].to_numpy())
        numpy.testing.assert_array_equal(table.floats("gaps"), frame["gaps"].to_numpy(dtype=float))
        assert table.texts("b")[5] == str(frame["b"][5])


def test_missing_cells_are_the_same_in_csv_and_parquet():
    frame = pandas.DataFrame({
        "whole": [1, -999, 3], "float": [1.5, -999.0, numpy.nan], "text": ["u", "?", ""], "code": ["-999", "x", "y"],
        "y": [1.0, 2.0, 3.0],
    })  # fmt: skip
    frame.to_csv("table.csv", index=False)
    frame.to_parquet("table.parquet")
    for path in ("table.csv", "table.parquet"):
        for missing in ([-999, "?"], ["-999.0", "?"], ["-9.99e2", "?"]):
            table = read(path, missing=missing)
            assert cells(table) == {
                "whole": ["1", None, "3"], "float": ["1.5", None, None], "text": ["u", None, None],
                "code": [None, "x", "y"], "y": [cell.removesuffix(".0") if path == "table.parquet" else cell
                                                for cell in ("1.0", "2.0", "3.0")],
            }  # fmt: skip
            assert table.missing("whole").tolist() == [False, True, False]
        assert read(path, missing=[]).missing("text").tolist() == [False, False, True]


def test_weights_groups_and_ids_know_missing_cells():
    write("g,i,w,y,x\na,1,1,1,1\n-,2,1,2,2\nb,3,1,3,3\n")
    for key in ("group_column", "id_column"):
        with pytest.raises(DataError, match="column g, row 3: the cell is empty"):
            Table("table.csv", missing=["-"], fractions=[0.3, 0.3, 0.4], **{key: "g"}, **REGRESSION)
    write("w,y,x\n1,1,1\n-1,2,2\n1,3,3\n")
    with pytest.raises(DataError, match="column w, row 3: a weight must be a number >= 0, the cell is empty"):
        Table("table.csv", missing=[-1.0], weight_column="w", fractions=[0.3, 0.3, 0.4], **REGRESSION)


def test_types_of_parquet_are_numbers_or_texts():
    frame = pandas.DataFrame({
        "gaps": pandas.array([1, None, 2**60 + 1], dtype="Int64"),
        "flag": pandas.array([True, None, False], dtype="boolean"),
        "price": [decimal.Decimal("1.50"), None, decimal.Decimal("2.25")],
        "day": pandas.to_datetime(["2020-01-05", None, "2021-02-03"]),
        "moment": pandas.to_datetime(["2020-01-05 12:30", None, "2021-02-03 00:00"]).tz_localize("Europe/Berlin"),
        "date": [datetime.date(2020, 1, 5), None, datetime.date(2021, 2, 3)],
        "span": pandas.to_timedelta(["1 days 12:00:00", None, "3 days"]),
        "list": [[1, 2], None, [3]], "struct": [{"a": 1}, None, {"a": 2}], "bytes": [b"u", None, b"v"],
        "level": pandas.Categorical(["mid", None, "low"], categories=["low", "mid", "high"], ordered=True),
        "kind": pandas.Categorical(["v", None, "u"]), "none": [None, None, None],
    }, index=pandas.Index(["r", "s", "t"], name="row"))  # fmt: skip
    frame.to_parquet("table.parquet")
    table = read("table.parquet")
    assert cells(table) == {
        "gaps": ["1", None, str(2**60 + 1)], "flag": ["True", None, "False"], "price": ["1.50", None, "2.25"],
        "day": ["2020-01-05", None, "2021-02-03"],
        "moment": ["2020-01-05 12:30:00+01:00", None, "2021-02-03 00:00:00+01:00"],
        "date": ["2020-01-05", None, "2021-02-03"], "span": ["1 day, 12:00:00", None, "3 days, 0:00:00"],
        "list": ["[1, 2]", None, "[3]"], "struct": ['{"a": 1}', None, '{"a": 2}'], "bytes": ["u", None, "v"],
        "level": ["mid", None, "low"], "kind": ["v", None, "u"], "none": [None, None, None], "row": ["r", "s", "t"],
    }  # fmt: skip
    assert table.floats("price").tolist()[::2] == [1.5, 2.25]
    assert table.floats("span").tolist()[::2] == [1.5, 3]
    assert table.order("level") == ["low", "mid", "high"]
    assert table.order("kind") is None
    frame.reset_index(drop=True).to_parquet("table.parquet")
    assert "row" not in read("table.parquet").names
    pandas.DataFrame({"a": [1]}, index=[5]).to_parquet("table.parquet")
    assert read("table.parquet").names == ["a"]


def test_notations_of_numbers_are_read_strictly():
    def parse(texts, *notation):
        return Notation(*notation).parse(texts).tolist()

    nan = pytest.approx(numpy.nan, nan_ok=True)
    assert parse(["0,35", "1", "-2,5e1", "+3,"], ",") == [0.35, 1, -25, 3]
    assert parse(["1.234,5", "12.345.678", "7", "1.23", "1,2,3"], ",", ".") == [1234.5, 12345678, 7, nan, nan]
    assert parse(["1,234.5", "1,234,567", "12,34", "1234,567"], ".", ",") == [1234.5, 1234567, nan, nan]
    assert parse(["1 234", "1\u00a0234,5", "\u22125"], ",", " ") == [1234, 1234.5, -5]
    assert parse(["1'234.5", "1’234"], ".", "'") == [1234.5, 1234]
    # One column may have points beside others with commas, unless its points may separate thousands.
    assert parse(["0.5", "1.25"], ",") == [0.5, 1.25]
    assert parse(["1.250", "2.500"], ",") == [nan, nan]
    for notation, message in (
        (("x",), "decimal must be"),
        ((".", "."), "must differ"),
        ((".", "x"), "thousands must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Notation(*notation)


def test_lengths_are_checked_wherever_blocks_of_the_file_end(monkeypatch):
    rows = [f'{row},"a\n{row}",{row}\n' if row % 5 == 0 else f"{row},b,\n" if row % 7 else "\n" for row in range(600)]
    for size in (2**19, 16, 7):
        monkeypatch.setattr(layout, "_BLOCK", size)
        table = read(write("x,y,z\n" + "".join(rows)))
        assert table.texts("x") == [str(row) for row, text in enumerate(rows) if text != "\n"]
        assert table.texts("y")[0] == "a\n0"
        assert table.numbers[-1] == 601
        refused("row 580: found 2 cells", write("x,y,z\n" + "".join([*rows[:578], "1,2\n", *rows[578:]])))
        refused("row 602: found 4 cells", write("x,y,z\n" + "".join([*rows, "1,2,3,4"])))


def test_a_long_or_short_row_is_found_wherever_it_is(monkeypatch):
    for key, value in (("_CHUNK_CELLS", 9), ("_CHUNK_ROWS", 3)):
        monkeypatch.setattr(csv_file, key, value)
    monkeypatch.setattr(layout, "_PROBED_CELLS", 3)
    for plain in ("1.5,2,3", "a,2,b"):
        for cells in (1, 2, 4, 5):
            for place in range(12):
                rows = [plain] * 12
                rows[place] = ",".join(["7"] * cells)
                refused(f"row {place + 2}: found {cells} cell", write("x,y,z\n" + "\n".join(rows)))


def test_a_name_that_a_wide_table_lacks_is_suggested_without_listing_all():
    write(",".join(f"g{number}" for number in range(3000)) + "\n" + ",".join(["1"] * 3000) + "\n")
    with pytest.raises(DataError, match=r"did you mean 'g2000'.* and 2,800 more") as error:
        read("table.csv").require("g_2000", "dataset.inputs")
    assert len(str(error.value)) < 2000
