#!/usr/bin/env python
"""Rewrite the lists of options in README.md and docs/: each stands between `<!-- mtlrun list ... -->` and its end.

With --check nothing is written, and the exit code is 1 if a list is out of date.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

from mtlrun.cli.list import main

ROOT = Path(__file__).parents[1]
LIST = re.compile(r"(<!-- mtlrun list (.*?) -->\n).*?(<!-- end of list -->)", flags=re.DOTALL)


def generated(match):
    """Return a list with its markers, as the command between them prints it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(match[2].split())
    return f"{match[1]}{out.getvalue()}{match[3]}"


def update(check):
    """Rewrite the files, or only report which ones are out of date; return the exit code."""
    outdated = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        new = LIST.sub(generated, text)
        if new == text:
            continue
        outdated += 1
        if check:
            print(f"{path.relative_to(ROOT)}: lists are out of date; run python scripts/update_lists.py")
        else:
            path.write_text(new, encoding="utf-8")
    return int(check and outdated > 0)


if __name__ == "__main__":
    sys.exit(update(check="--check" in sys.argv[1:]))
