"""The table of ops, and that no op goes without a test."""

from pathlib import Path

import pytest

from mclr_fast import ops


def test_one_row_an_op():
    rows = ops.implementations()
    assert [row.op for row in rows] == list(ops.OPS) == sorted(ops.OPS)
    assert all(row.implementation and row.reason for row in rows)


@pytest.mark.parametrize("op", ops.OPS)
def test_every_op_is_public_and_tested(op):
    assert callable(getattr(ops, op)) and op in ops.__all__
    assert Path(__file__).with_name(f"test_{op}.py").is_file()
