"""The benchmarks' picture: four bars that a stranger reads, or none."""

from report import BARS, SHOWN_ROW, picture

RECORD = {
    "row": SHOWN_ROW,
    "machine": {"processor": "a processor", "cores": 2},
    "milliseconds": {"naive": 2000.0, "compiled": 750.0, "ours": 480.0, "floor": 400.0},
}


def test_bars_are_of_the_step_alone(tmp_path):
    """The floor and other rows have no bar; what was not run has none either."""
    other = {"extra_info": {"row": "pointwise-silu", "share_of_copy": 0.7}}
    assert picture([other, {"extra_info": RECORD}], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert set(RECORD["milliseconds"]) - set(BARS) == {"floor"}


def test_results_without_that_row_make_no_picture(tmp_path):
    assert not picture([{"extra_info": {"row": "step-fp32-k3"}}], tmp_path / "bars.png")
    assert not (tmp_path / "bars.png").exists()
