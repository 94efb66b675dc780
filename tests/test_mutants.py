"""The faults of tests/mutations are still faults of this tree, and what `tests/mutants.py` makes of them."""

import ast
from dataclasses import replace
from pathlib import Path

import mutants
import pytest
from mutations import ROOMS, ROOT, faults

ALL = [fault for room in ROOMS for fault in faults(room)]


@pytest.mark.parametrize("room", ROOMS)
def test_every_fault_can_be_put_in(room):
    """Its text is in its file once, and what comes of it is Python, and other code than before."""
    assert faults(room)
    for fault in faults(room):
        text = (ROOT / fault.path).read_text()
        changed = fault.applied(text)
        if fault.path.endswith(".py"):
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), fault.name
        assert all((ROOT / test.split("::")[0]).is_file() for test in fault.tests.split()), fault.tests


def test_there_are_enough_and_each_has_its_name():
    assert len(ALL) >= 40
    assert len({(fault.room, fault.name) for fault in ALL}) == len(ALL)
    assert {path.stem for path in Path(mutants.__file__).parent.glob("mutations/[a-z]*.py")} == set(ROOMS)


def test_a_fault_that_no_longer_applies_is_an_error():
    fault = replace(ALL[0], old="no such text")
    with pytest.raises(ValueError, match=f"{fault.room}: {fault.name}: .* 0 times"):
        fault.applied("text")
