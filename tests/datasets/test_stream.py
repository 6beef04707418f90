"""Tables that are read some rows at a time are what they are when they are read as a whole."""

from pathlib import Path

import numpy
import pandas
import pytest

from mtlrun.datasets.tables.reading.read import read
from mtlrun.datasets.tables.reading.source import Source
from mtlrun.datasets.tables.reading.stream import CsvStream, ParquetStream, open_stream
from mtlrun.errors import DataError

PLAIN = "a,b,c\n" + "".join(f"{i},{i / 7!r},{'xyz'[i % 3]}\n" for i in range(300))
FILES = {
    "plain": (PLAIN, {}),
    "empty cells and words for them": (PLAIN.replace("17,", "NA,").replace(",z", ",").replace("23,", " 23 ,"), {}),
    "quotes over several lines": ('a,b,c\n1,2,"x, y"\n3,4,"two\nlines"\n5,6,"say ""so"""\n', {}),
    "decimal commas": (PLAIN.replace(",", ";").replace(".", ","), {"decimal": ","}),
    "thousands": ("a,b,c\n1'000,2,x\n7,3,y\n", {"thousands": "'"}),
    "words among numbers": (PLAIN.replace("\n205,", "\nmany,"), {}),
    "latin": ("a,b,c\n1,2,\u00e9t\u00e9\n", {"encoding": "latin-1"}),
    "spaces between": ("a   b c\n1  2 x\n3 4   y\n", {"separator": r"\s+"}),
    "carriage returns": (PLAIN.replace("\n", "\r\n"), {}),
    "one column": ("a\n1\n2\n", {}),
    "without an end of line": ("a,b,c\n1,2,x", {}),
}


def same_cells(left, right):
    """Return True if cells are equal, as texts and as numbers."""
    return (left.missing == right.missing).all() and numpy.array_equal(left.numbers, right.numbers, equal_nan=True)


def test_blocks_together_are_the_table(monkeypatch):
    monkeypatch.setattr(CsvStream, "block_size", 300)
    for name, (text, keys) in FILES.items():
        Path("table.csv").write_text(text, encoding=keys.get("encoding", "utf-8"), newline="")
        source = Source.from_keys("table.csv", "path", **keys)
        whole = read("table.csv", source.separator, source.missing, encoding=source.encoding, notation=source.notation)
        stream = open_stream("table.csv", source)
        blocks = list(stream.blocks(stream.names, ["c"]))
        assert name != "plain" or len(blocks) > 5
        assert stream.names == whole.names, name
        assert not any(block.wrong for block in blocks), name
        assert [number for block in blocks for number in block.table.numbers] == list(whole.numbers)
        for column in whole.names:
            parts = [block.table.cells[column] for block in blocks]
            numbers = numpy.concatenate([part.numbers for part in parts])
            assert numpy.array_equal(numbers, whole.cells[column].numbers, equal_nan=True), (name, column)
            assert numpy.array_equal(numpy.concatenate([part.missing for part in parts]), whole.missing(column))
            if column == "c":
                assert [text for part in parts for text in part.texts.tolist()] == whole.texts(column), name


def test_each_row_is_there_and_wrong_ones_are_named(monkeypatch):
    text = "a,b\n1,2\n\n3\n4,5,6\n,\n7,8\n\n \n"
    for size in (2, 5, 1000):
        monkeypatch.setattr(CsvStream, "block_size", size)
        Path("table.csv").write_text(text)
        stream = open_stream("table.csv", Source.from_keys("table.csv", "path"))
        found, wrong = {}, {}
        for block in stream.blocks(["a", "b"]):
            numbers = list(block.table.numbers)
            found |= dict(zip(numbers, block.table.cells["a"].numbers.tolist(), strict=True))
            wrong |= {numbers[row]: problem for row, problem in block.wrong.items()}
        assert list(found) == [2, 3, 4, 5, 6, 7]
        assert (found[2], found[7]) == (1, 7)
        assert wrong.keys() == {3, 4, 5, 6}
        assert wrong[3] == wrong[6] == "the row is empty"
        assert wrong[4].startswith("found 1 cell, and the header names 2 columns")
        assert wrong[5].startswith("found 3 cells, and the header names 2 columns")
    for text, said in (
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n9,9\n', "row 3: a quote is opened there and never closed"),
        ('a,b\n1,2\n3,"4\n5,6"\n7,8"\n9,"9\n', "row 5: a quote is opened there and never closed"),
        ('a,b\n1,2\n"3,4\n5,6"\n7,8\n', "row 3: found 1 cell, .* a quote that is opened there may not be closed"),
    ):
        Path("table.csv").write_text(text)
        with pytest.raises(DataError, match=said):
            list(open_stream("table.csv", Source.from_keys("table.csv", "path")).blocks(["a", "b"]))


def test_parquet_in_blocks_is_the_table(monkeypatch):
    monkeypatch.setattr(ParquetStream, "block_rows", 7)
    frame = pandas.DataFrame({
        "whole": pandas.array([1, None, 3] * 10, dtype="Int64"), "number": numpy.arange(30) / 7,
        "text": ["x", None, "NA"] * 10, "category": pandas.Categorical(["u", "v", "u"] * 10),
        "day": pandas.date_range("2024-01-01", periods=30), "yes": [True, False, True] * 10,
    })  # fmt: skip
    frame.to_parquet("table.parquet")
    whole = read("table.parquet")
    stream = open_stream("table.parquet", Source.from_keys("table.parquet", "path"))
    assert stream.names == whole.names
    blocks = list(stream.blocks(stream.names))
    assert [len(block.table) for block in blocks] == [7, 7, 7, 7, 2]
    assert [number for block in blocks for number in block.table.numbers] == list(whole.numbers)
    for column in whole.names:
        texts = [text for block in blocks for text in block.table.cells[column].texts.tolist()]
        assert texts == whole.texts(column)
    with pytest.raises(DataError, match="there is no such file"):
        open_stream("absent.csv", Source.from_keys("absent.csv", "path"))
