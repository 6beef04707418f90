"""Values in memory, such as a column of a DataFrame, as cells of a table."""

from typing import Any

import numpy
import pandas

from mtlrun.datasets.tables.reading.cells import Cells
from mtlrun.datasets.tables.reading.missing import Missing
from mtlrun.datasets.tables.reading.notation import Notation


def cells_of_values(values: Any, missing: Missing, notation: Notation) -> Cells:
    """Return the cells of a column of pandas, as if they were read from a file that has the same numbers and texts.

    Args:
        values: a pandas Series.
        missing: cells that count as empty, besides None and NaN.
        notation: of numbers that are texts.
    """
    if pandas.api.types.is_numeric_dtype(values.dtype) and not pandas.api.types.is_bool_dtype(values.dtype):
        numbers = numpy.array(values.to_numpy(dtype=float, na_value=numpy.nan))
        missing.clear(numbers)
        return Cells(notation, values=numbers, load=lambda: _texts(values, missing))
    return Cells(notation, texts=_texts(values, missing))


def _texts(values: Any, missing: Missing) -> Any:
    """Return values as texts; whole numbers without a point, moments as Parquet files give them."""
    texts = numpy.empty(len(values), dtype=object)
    texts[:] = [None if pandas.isna(value) else _write(value) for value in values.tolist()]
    labels = list({text for text in texts if text is not None})
    absent = {label for label, mask in zip(labels, missing.among(labels), strict=True) if mask}
    texts[:] = [None if text in absent else text for text in texts]
    return texts


def _write(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip().removesuffix("+00:00").removesuffix(" 00:00:00")
