"""Names as items of a list in a message."""


def item(name: str) -> str:
    """Return a name as it stands in a list: in quotes if it could be taken for several, or not be seen as it is."""
    is_visible = name.isprintable() and name == name.strip() and name != ""
    return name if is_visible and ", " not in name and name[0] not in "'\"" else repr(name)
