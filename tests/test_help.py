"""--help of every door: each option is explained, and each number has a unit or a range."""

import importlib
import re
from pathlib import Path

import pytest

import mclr_fast

PACKAGE = Path(mclr_fast.__file__).parent
DOORS = sorted(f"mclr_fast.{p.stem}" for p in PACKAGE.glob("*.py") if "def main(" in p.read_text())
DOORS += ["mclr_fast.theory.__main__"]
OPTION = re.compile(r"^ {0,2}(-{1,2}[a-zA-Z].*?|[A-Z][A-Z_]+)(?: {2,}(.*))?$")
# What a number counts or measures, or where it lies.
UNIT = re.compile(
    r"images|evaluations|steps|batches|calls|samples|seeds?\b|threads|minutes|negatives an|neighbours|noises|"
    r"states|GiB|ln sigma|1/energy|1/guidance|times its start|1 = none|at least \d|above \d|[\[(]-?\d",
    re.IGNORECASE,
)


def options(door, capsys, monkeypatch):
    """What the door's --help says: signature -> explanation."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(door).main(["--help"])
    assert ended.value.code == 0
    found, signature = {}, None
    for line in capsys.readouterr().out.splitlines():
        boxed = re.match(r"^│ (.*?) *│$", line)
        text = boxed[1] if boxed else line
        if begins := OPTION.match(text):
            signature = begins[1]
            found[signature] = begins[2] or ""
        elif text.startswith("    ") and signature:
            found[signature] += " " + text.strip()
        else:
            signature = None
    return {s: re.sub(r"\((default|required|repeatable).*", "", help).strip() for s, help in found.items()}


def test_all_doors_are_found():
    assert {"mclr_fast.train", "mclr_fast.sample", "mclr_fast.ema", "mclr_fast.doctor"} < set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_only_parses_builds_and_runs(door):
    source = Path(importlib.import_module(door).__file__)
    assert len(source.read_text().splitlines()) <= 100


@pytest.mark.parametrize("door", DOORS)
def test_every_option_is_explained(door, capsys, monkeypatch):
    found = options(door, capsys, monkeypatch)
    assert len(found) >= 2  # --help is one
    for signature, text in found.items():
        assert len(text) >= 10, f"{door}: {signature} is not explained: {text!r}"


@pytest.mark.parametrize("door", DOORS)
def test_every_number_has_a_unit_or_a_range(door, capsys, monkeypatch):
    found = options(door, capsys, monkeypatch)
    numbers = {s: text for s, text in found.items() if re.search(r"\b(INT|FLOAT)\b", s)}
    assert {s: text for s, text in numbers.items() if not UNIT.search(text)} == {}


def test_the_numbers_are_seen(capsys, monkeypatch):
    """The two tests above would pass on help that they cannot read."""
    found = options("mclr_fast.train", capsys, monkeypatch)
    assert found["--lr FLOAT"].startswith("Learning rate")
    assert "--ema-stds [FLOAT [FLOAT ...]]" in found and len(found) > 60
    numbers = [s for s in found if re.search(r"\b(INT|FLOAT)\b", s)]
    assert len(numbers) > 35
