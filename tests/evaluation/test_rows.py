"""A row of a table: what it says, what chooses, and what is the best of several."""

from dataclasses import replace

from mclr_fast.evaluation.rows import Row, lowest_fd

ROW = Row("mclr", "trained", 64, 23, 100, {"fid": {"fd": 3.0}, "is": {"is": 8.0, "fd": None}}, "fid")


def with_fd(fd, **changes):
    return replace(ROW, metrics={"fid": {"fd": fd}}, **changes)


def test_the_lowest_fd_of_a_kind_is_the_best():
    rows = [with_fd(3.0), with_fd(2.0, images_seen=128), with_fd(2.0, images_seen=192), with_fd(2.5)]
    assert lowest_fd([with_fd(1.0, kind="control"), *rows], "trained") is rows[1]  # the first of equals
    assert lowest_fd(rows, "base") is None


def test_a_row_is_read_as_it_was_written():
    for row in (ROW, replace(ROW, guidance=1.4, strength=0.5, seconds=2.0), ROW.timed(7.0)):
        assert Row.from_json(row.to_json()) == row
    assert ROW.to_json()["fd"] == 3.0 and ROW.to_json()["is"] == 8.0 and ROW.to_json()["accuracy"] is None


def test_values_are_of_the_protocol_that_chooses_first():
    row = replace(ROW, metrics={"a": {"fd": 1.0, "is": 2.0}, "b": {"fd": 5.0, "is": None}}, chosen_by="b")
    assert row.values == {"fd": 5.0, "is": 2.0} and row.fd == 5.0
