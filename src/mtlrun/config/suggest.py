"""Suggestion of the nearest valid name, for messages about unknown ones."""

import difflib
from collections.abc import Iterable

# A table may have thousands of columns; the options of a kind are all listed.
_LISTED = 200


def suggest(name: str, allowed: Iterable[str], what: str = "allowed here") -> str:
    """Return `did you mean 'x'? allowed here: x, y, z`, or only the list if no name is similar."""
    names = [str(candidate) for candidate in allowed]
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6) or [
        folded[match] for match in difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    ]
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    listing = ", ".join(names[:_LISTED]) if names else "nothing"
    if len(names) > _LISTED:
        listing += f" and {len(names) - _LISTED:,} more"
    return f"{hint}{what}: {listing}"
