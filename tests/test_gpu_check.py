"""scripts/gpu_check: its page, whatever becomes of the parts, and the benchmarks at sizes for a CPU."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import gpu_check

    return gpu_check


def script(text):
    return ("-c", text)


def test_the_page_has_what_parts_found_that_fail_or_are_cut_off(gpu_check, tmp_path):
    content = {
        "command": "benchmark",
        "machine": "a machine",
        "tables": [{"title": "Times", "header": ["method", "ms"], "rows": [["mgda", "1.25"]]}],
        "notes": ["skipped the rest"],
        "aims": [{"text": "fast", "found": "1.4", "met": True}, {"text": "small", "found": "-", "met": None}],
    }
    found = f"open({str(tmp_path / 'found.json')!r}, 'w').write({json.dumps(content)!r}); import time; time.sleep(60)"
    part = gpu_check.Part
    groups = [
        [part("tests", "Tests", script("print('2 failed'); raise SystemExit(3)"), 20, budgeted=False, must_pass=True)],
        [part("found", "Cut off", script(found), 1.5, budgeted=False)],
        [part("late", "Late", script("pass"), 20, budgeted=False)],
    ]
    check = gpu_check.Check(groups, tmp_path, time.monotonic() + 6.5, [tmp_path], ["facts"])
    assert check.run() == 1
    page = (tmp_path / "results.md").read_text()
    for expected in (
        "| fast | 1.4 | yes |",
        "| small | - | not measured |",
        "| Tests | FAILED, exit code 3 |",
        "| Cut off | cut off |",
        "| Late | no time was left | 0 |",
        "| mgda | 1.25 |",
        "- skipped the rest",
        "2 failed",
        "facts",
    ):
        assert expected in page, page


@pytest.mark.parametrize("name", ["networks", "profile"])
def test_benchmarks_run_at_sizes_for_a_cpu(gpu_check, tmp_path, monkeypatch, name):
    run(gpu_check, tmp_path, monkeypatch, name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["keys", "flat", "loading", "scaling"])
def test_all_benchmarks_run_at_sizes_for_a_cpu(gpu_check, tmp_path, monkeypatch, name):
    run(gpu_check, tmp_path, monkeypatch, name)


def run(gpu_check, tmp_path, monkeypatch, name):
    """Run a part of the rehearsal in this process; it must have found something."""
    (part,) = [part for group in gpu_check.make_parts(rehearse=True) for part in group if part.name == name]
    path = tmp_path / "found.json"
    words = [word.replace("{out}", str(tmp_path)) for word in part.words]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(path)])
    runpy.run_path(str(SCRIPTS / words[0]), run_name="__main__")
    content = json.loads(path.read_text())
    assert all(table["rows"] for table in content["tables"]), content
