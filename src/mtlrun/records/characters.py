"""ASCII in place of the signs that mtlrun prints, for terminals and files that know no others."""

_ASCII = str.maketrans({
    "±": "+/-", "Δ": "Delta_", "↑": "^", "↓": "v", "†": "*", "…": "...", "×": "x", "·": ".", "−": "-", "–": "-",
    "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "━": "-", "╸": "-", "╺": "-", "│": "|", "├": "+",
    "└": "`", "─": "-",
})  # fmt: skip


def is_unicode(encoding: str) -> bool:
    """Return True if an encoding has all characters."""
    return encoding.lower().startswith("utf")


def in_ascii(text: str) -> str:
    """Return a text with ASCII in place of mtlrun's signs; other characters, such as letters of names, stay."""
    return text if text.isascii() else text.translate(_ASCII)
