"""Which reader reads the input that was named: by what the run was trained on, and by what the input is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlrun.datasets.files.finder import FileFinder
from mtlrun.datasets.tables.reading.stream import open_stream
from mtlrun.deployment.images import ImageReader, PixelEncoder, find_images
from mtlrun.deployment.inputs import InputReader
from mtlrun.deployment.predictor import Predictor
from mtlrun.deployment.tables import TableEncoder, TableReader, source_of
from mtlrun.errors import DataError

#: The keys of a dataset that may be given for new inputs: how a file is read, and where images are.
INPUT_KEYS = ("missing", "separator", "encoding", "decimal", "thousands", "id_column", "file_column", "root")
_TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zip")


def open_input(predictor: Predictor, inputs: Sequence[Path], dataset: Mapping[str, Any]) -> InputReader:
    """Return the reader of an input.

    Args:
        predictor: of the run.
        inputs: a table; or a folder of images, image files, or a table that names some.
        dataset: the node `dataset` of the run's config, with what was given for this input.

    Raises:
        DataError: an input does not exist, or is none that this run can predict.
    """
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder, as seen from {Path.cwd()}")
    encoder = predictor.encoder_for(dataset)
    if isinstance(encoder, TableEncoder):
        if len(inputs) != 1 or inputs[0].is_dir():
            found = f"{len(inputs)} files" if len(inputs) > 1 else f"the folder {inputs[0]}"
            raise DataError(
                f"--input: this run predicts the rows of a table; name one CSV or Parquet file, found {found}"
            )
        return TableReader(str(inputs[0]), encoder)
    if len(inputs) == 1 and inputs[0].suffix.lower() in _TABLES and inputs[0].is_file():
        return _named_images(inputs[0], encoder, dataset)
    return _images(inputs, encoder)


def _images(inputs: Sequence[Path], encoder: PixelEncoder) -> ImageReader:
    """Return the reader of image files, and of those in folders; those of a single folder go by their paths in it."""
    paths, ids = list[Path](), list[str]()
    for path in inputs:
        found = find_images(path, encoder) if path.is_dir() else [path]
        paths += found
        ids += (
            [str(each.relative_to(path)) for each in found] if len(inputs) == 1 and path.is_dir() else map(str, found)
        )
    return ImageReader(paths, ids, encoder)


def _named_images(table: Path, encoder: PixelEncoder, dataset: Mapping[str, Any]) -> ImageReader:
    """Return the reader of the images that a table names, a row for each."""
    stream = open_stream(str(table), source_of(dataset))
    column, id_column = dataset.get("file_column") or "file", dataset.get("id_column")
    if column not in stream.names:
        raise DataError(
            f"{table}: there is no column {column!r} with the files of the images (dataset.file_column); "
            f"it has {', '.join(stream.names[:8])}"
        )
    id_column = id_column if id_column in stream.names else None
    root = Path(dataset["root"]) if dataset.get("root") and Path(dataset["root"]).is_dir() else table.parent
    finder, paths, ids = FileFinder(str(root)), list[Path](), list[str | int]()
    wrong: dict[int, str] = {}
    for block in stream.blocks([column, *([id_column] if id_column else [])], [column]):
        cells = block.table.texts(column)
        names = block.table.texts(id_column) if id_column else [None] * len(cells)
        for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
            number = block.table.numbers[row]
            path = None
            try:
                path = finder.find(cell) if cell is not None else None
                problem = "the cell is empty" if cell is None else f"there is no file {root / cell}"
            except DataError as error:
                problem = str(error)
            if path is None:
                wrong[len(paths)] = f"row {number}, column {column}: {block.wrong.get(row, problem)}"
            paths.append(path or root)
            ids.append(name if name is not None else str(number) if id_column else number)
    return ImageReader(paths, ids, encoder, wrong, ids_are_numbers=id_column is None)
