"""What others wrote into tables and records does not steer the terminal that shows it."""

import json
import sys
import unicodedata
from io import StringIO
from pathlib import Path

import pytest
from helpers import QUICK, read_record

from mtlrun.records import display
from mtlrun.records.identity import run_id
from mtlrun.records.printable import printable

ESCAPE, C1, BIDI, BELL = "\x1b]0;owned\x07", "\x9b2J", "\u202e", "\b\r\x7f"
EVIL = f"{ESCAPE}{C1}{BIDI}{BELL}\x1b[1A\x1b[2K"


def is_obeyed(character):
    """Return whether a terminal obeys a character, by its properties in Unicode."""
    turning = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    marks = ("\u200e", "\u200f", "\u061c")
    return turning or character in marks or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def test_what_a_terminal_obeys_is_removed_and_nothing_else():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        kept = character in "\n\t" or not is_obeyed(character)
        assert printable(character) == character * kept, hex(code)
    assert printable("±↑ é 漢 \U0001f600 a\u200db") == "±↑ é 漢 \U0001f600 a\u200db"


def assert_harmless(*texts):
    for text in texts:
        assert text
        assert not [character for character in text if is_obeyed(character) and character not in "\n\t"], repr(text)


def test_nothing_that_a_terminal_obeys_is_printed_of_a_record(quick, mtlrun):
    folder = quick("trainer.epochs=1", "trainer.baselines=false")
    again = [*QUICK[:-1], "trainer.epochs=1", "trainer.baselines=false"]
    record = read_record(folder)
    evil = json.dumps(f"left{EVIL}")
    forged = json.loads(json.dumps(record).replace('"left"', evil))
    forged["config"]["names"] |= {"model": f"hard{EVIL}", "weighting": f"equal{EVIL}"}
    forged["main_metrics"] = {task: f"{metric}{EVIL}" for task, metric in forged["main_metrics"].items()}
    for field in ("directions", "val", "test"):
        forged[field] = {
            task: {f"{metric}{EVIL}": value for metric, value in of_task.items()}
            for task, of_task in forged[field].items()
        }
    for seed, status in ((0, "completed"), (1, "failed")):
        forged["config"]["seed"], forged["status"], forged["error"] = seed, status, f"no{EVIL}"
        forged["run_id"] = run_id(forged["config"])
        other = Path("others", forged["run_id"])
        other.mkdir(parents=True)
        (other / "record.json").write_text(json.dumps(forged))
    code, out, err = mtlrun("compare", "others", "outputs")
    assert code == 0, err
    assert "owned" in out
    assert_harmless(out + err)
    record["notes"], record["error"] = [f"note{EVIL}"], f"no{EVIL}"
    record["environment"]["git"] = {"commit": EVIL, "dirty": True}
    (folder / "record.json").write_text(json.dumps(record))
    code, out, err = mtlrun(*again)
    assert code == 0
    assert_harmless(out + err)


def test_nothing_that_a_terminal_obeys_is_printed_of_a_table(mtlrun):
    names = [f"in{EVIL}", f"out{EVIL}"]
    rows = [f"{i % 7},{f'yes{EVIL}' if i % 3 else f'no{BIDI}'}".replace("\r", "") for i in range(90)]
    Path("t.csv").write_text("\n".join([",".join(names).replace("\r", ""), *rows]), encoding="utf-8")
    words = ["dataset=csv", "dataset.path=t.csv", "trainer.epochs=1", "backbone.hidden=[4]"]
    code, out, err = mtlrun(*words, "+task@tasks.y=binary", f"+dataset.targets.y=['{names[1]}']".replace("\r", ""))
    log = "".join(path.read_text() for path in Path("outputs").glob("*/*/run.log"))
    assert_harmless(out + err, *([log] if code == 0 else []))
    code, out, err = mtlrun(*words, "dataset.predict=[absent]")
    assert code == 2
    assert_harmless(err)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_keeps_its_colors(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stdout", StringIO())
    console = display.make_console()
    console._force_terminal, console._color_system = terminal, (1 if terminal else None)
    console.print(f"{EVIL}text", style="bold", markup=False)
    shown = sys.stdout.getvalue()
    assert ("\x1b[1m" in shown) == terminal
    assert_harmless(shown.replace("\x1b[1m", "").replace("\x1b[0m", ""))
