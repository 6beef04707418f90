"""Texts of others, such as names in a table or in a record, made harmless for a terminal."""

# Control characters but for the end of a line and the tabulator, which a terminal obeys: C0, DEL and C1. Marks that
# turn the direction of a text, so that it is read as another one. Halves of surrogate pairs, which no encoding has.
_OBEYED = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_HALVES = range(0xD800, 0xE000)
_REMOVED = dict.fromkeys(code for code in (*_OBEYED, *_HALVES) if chr(code) not in "\n\t")


def printable(text: object) -> str:
    r"""Return a text without the characters that a terminal obeys instead of showing them.

    >>> printable("\x1b[31mred")
    '[31mred'
    """
    shown = str(text)
    return shown if shown.isascii() and shown.isprintable() else shown.translate(_REMOVED)
