"""Files of pictures: SVG that fits into a page of either brightness, and PNG on white."""

import io
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from mtlrun.comparison.plots.drawing import draw_all
from mtlrun.comparison.plots.picture import TIP, Picture
from mtlrun.comparison.plots.style import require_matplotlib, styled
from mtlrun.comparison.table import Comparison
from mtlrun.records.folder import storing

FileFormat = Literal["svg", "png"]
FORMATS: tuple[FileFormat, ...] = ("svg", "png")

_DOTS_PER_INCH = 300
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# A file that is opened alone, or is an image of a page, does not know the color of its surroundings.
_ALONE = "svg{color-scheme:light dark;color:#111}@media(prefers-color-scheme:dark){svg{color:#eee}}"


def to_svg(picture: Picture, *, alone: bool = False) -> str:
    """Return a picture as one element <svg>, with a transparent background and text that can be searched.

    What is black has the color of the text around it. Ids begin with the name of the picture, so that several can stand
    in one page if their names differ.

    Args:
        picture: what to convert.
        alone: whether it is a file of its own, which becomes light where the reader's system is dark.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        picture.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _simplify(root)
    _rename_ids(root, picture.name)
    root.attrib |= {"role": "img", "aria-label": picture.title, "fill": "currentColor", "font-family": "sans-serif"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    if alone:
        style = ElementTree.Element(f"{{{_SVG}}}style")
        style.text = _ALONE
        root.insert(0, style)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def to_png(picture: Picture) -> bytes:
    """Return a picture as the content of a PNG file, black on white, with 300 dots per inch."""
    buffer = io.BytesIO()
    with styled():
        picture.figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def write_pictures(
    comparison: Comparison, folder: Path, file_format: FileFormat = "svg"
) -> tuple[list[Path], list[str]]:
    """Write the pictures of all tables into a folder, which is made; files of the same names are replaced.

    Returns:
        The files, and a sentence on each picture that there is none of.

    Raises:
        DataError: Matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    require_matplotlib()
    paths: list[Path] = []
    left_out: list[str] = []
    for table, prefix in zip(comparison.tables, prefixes([table.title for table in comparison.tables]), strict=True):
        drawn = draw_all(table)
        left_out += [f"{table.title}: {sentence}" if prefix else sentence for sentence in drawn.left_out]
        for picture in drawn.pictures:
            path = folder / f"{prefix}{picture.name}.{file_format}"
            content = to_png(picture) if file_format == "png" else to_svg(picture, alone=True).encode()
            with storing(path):
                folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            paths.append(path)
    return paths, left_out


def prefixes(titles: Sequence[str]) -> list[str]:
    """Return what the names of the pictures of each table begin with; nothing if there is one table."""
    if len(titles) == 1:
        return [""]
    plain = [re.sub(r"[^\w.-]+", "-", title).strip("-.") or "table" for title in titles]
    return [f"{text}-" if plain.count(text) == 1 else f"{text}-{place}-" for place, text in enumerate(plain, start=1)]


def _simplify(element: ElementTree.Element) -> None:
    """Remove what is not seen, and put what Matplotlib says in many words into few."""
    element.text = element.text if element.tag.endswith("}text") else None
    element.tail = None
    for child in list(element):
        _simplify(child)
        style = child.get("style", "")
        place = list(element).index(child)
        empty = child.tag.endswith(("}g", "}defs")) and not len(child)
        if empty or child.tag.endswith("}style") or style == "fill: none":
            element.remove(child)
        elif child.tag.endswith("}g") and not _says_something(child):
            element[place : place + 1] = list(child)
    for name in ("d", "x", "y", "width", "height", "points"):
        if name in element.attrib and element.tag != f"{{{_SVG}}}svg":
            element.set(name, _round(element.attrib[name]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", _shorten(element.attrib["style"]))
    styles = [child.get("style") for child in element]
    common = styles[0] if len(styles) > 1 and len(set(styles)) == 1 else None
    if common and element.tag.endswith("}g") and "style" not in element.attrib:
        element.set("style", common)
        for child in element:
            del child.attrib["style"]
    identity = element.get("id", "")
    if identity.startswith(TIP):
        del element.attrib["id"]
        tip = ElementTree.Element(f"{{{_SVG}}}title")
        tip.text = identity.removeprefix(TIP)
        element.insert(0, tip)


def _says_something(group: ElementTree.Element) -> bool:
    names = set(group.attrib) - {"id"}
    return bool(names) or any(child.tag.endswith("}title") for child in group)


def _round(numbers: str) -> str:
    """Return path data, or a number, with two digits behind the point."""
    rounded = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda match: _digits(float(match[0])), numbers)
    if re.fullmatch(r"\s*M[^MCQ]*L[^MCQ]*", rounded):
        return _relative(rounded)
    return re.sub(r"\s*([MLCQZz])\s*", r"\1", " ".join(rounded.split()))


def _relative(path: str) -> str:
    """Return a line from point to point with the steps between them, which have fewer digits."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    steps = [(x - last_x, y - last_y) for (last_x, last_y), (x, y) in pairwise(points)]
    end = "z" if path.rstrip().lower().endswith("z") else ""
    pairs = [f"{_digits(x)} {_digits(y)}" for x, y in (points[0], *steps)]
    return f"m{' '.join(pairs)}{end}".replace(" -", "-")


def _digits(number: float) -> str:
    """Return a number with at most two digits behind the point, and none that is not needed before it."""
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("0", "-0") else re.sub(r"^(-?)0\.", r"\1.", text)


def _shorten(style: str) -> str:
    """Return a style without the font, which the page chooses, and with its color of text for black."""
    style = re.sub(r"font-family:[^;]*;?", "", style)
    style = re.sub(r"font: (.*?)([\d.]+px) [^;]*", r"font: \1\2 sans-serif", style)
    return re.sub(r"\s*([:;])\s*", r"\1", style.replace("#000000", "currentColor")).rstrip("; ")


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Number the ids that something refers to, and remove the others."""
    named = {element.get("id", ""): element for element in root.iter() if "id" in element.attrib}
    names: dict[str, str] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            for used in re.findall(r"url\(#(.*?)\)", value) + ([value[1:]] if key.endswith("}href") else []):
                if used in named:
                    names.setdefault(used, f"{prefix}-{len(names) + 1}")
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in names:
            element.set("id", names[identity])
        for key, value in element.attrib.items():
            if key.endswith("}href") and value.startswith("#"):
                element.set(key, "#" + names.get(value[1:], value[1:]))
            elif "url(#" in value:
                element.set(key, re.sub(r"url\(#(.*?)\)", lambda match: f"url(#{names[match[1]]})", value))
