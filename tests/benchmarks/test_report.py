"""The report says what the results say, and whether a promise was kept."""

import json
from types import SimpleNamespace

import interleave
import pytest
import report
from suite import Suite


def record(row, **info):
    ranges = {key: [value * 0.9, value * 1.1] for key, value in info.items() if key in report.RATIOS}
    times = {"milliseconds": {"ours": 250.0, "naive": 900.0}, "spread": {"ours": 0.03, "naive": 0.01}}
    return {"name": row, "extra_info": {"row": row, "ranges": ranges, **times, **info}}


RECORDS = [
    record("step-bf16-k3", dtype="torch.bfloat16", over_naive=3.6, over_floor=1.3,
        machine={"processor": "a processor", "cores": 2}),
    record("step-bf16-k7", dtype="torch.bfloat16", over_naive=3.6, no_compile="too long"),
    record(
        "pointwise-qkv_norm", dtype="torch.bfloat16", direction="forward", size="past cache",
        share_of_copy=0.4, share_of_bound=0.9, bound_by_arithmetic=True,
    ),
    record(
        "pointwise-qkv_norm", dtype="torch.float32", direction="forward", size="past cache",
        share_of_copy=0.4, share_of_bound=0.9, bound_by_arithmetic=False,
    ),
    record("pointwise-qkv_norm", dtype="torch.float32", size="network", case="64x8x8", over_compile=1.4),
]  # fmt: skip


def met(row, key, records=RECORDS):
    return [line.met for line in report.lines_of(records) if (line.row, line.key) == (row, key)]


def test_a_promise_is_kept_or_not_by_its_own_ratio():
    assert met("step-bf16-k3", "over_naive") == ["yes"]
    assert met("step-bf16-k3", "over_floor") == ["NO"]  # at most, not at least
    assert met("step-bf16-k7", "over_naive") == ["NO"]
    assert met("step-bf16-k7", "over_compile") == [""]
    # Arithmetic bounds the bf16 op: its share of the bound counts, for fp32 that of the copy.
    assert met("pointwise-qkv_norm", "share_of_copy") == ["", "NO"]
    assert met("pointwise-qkv_norm", "share_of_bound") == ["yes", ""]
    assert met("pointwise-qkv_norm", "over_compile") == ["yes"]


def test_every_target_has_a_row_that_is_written():
    rows = {"step-bf16-k3", "step-bf16-k7", "step-fp32-k3", "step-embedded", "memory-k15", "contrast-loss"}
    rows |= {"step-default", "step-gpu-s64-k3"}
    sampled = {f"sampler-b{n}-fp32" for n in (1, 8, 64, 250)} | {"sampler-b64-bf16"}
    sampled |= {f"sampler-gpu-b{n}" for n in (1, 8, 64)}
    assert {target.where["row"] for target in report.TARGETS} == rows | sampled | {
        "head-cc-dpo",
        "head-memory",
        "head-one-pass",
        "head-two-passes",
        "optimizer",
        "pointwise-",
        "data-png",
        "data-wait",
        "var-step",
    }
    assert {target.key for target in report.TARGETS} <= set(report.RATIOS)


def test_text_table_and_markdown():
    text = report.text_table(RECORDS)
    assert "250 ms (3%)" in text and "3.24 to 3.96" in text
    assert "too long" in text and "nan" not in text
    assert len(text.splitlines()) == 1 + len(report.lines_of(RECORDS))
    markdown = report.markdown(RECORDS)
    assert "cores 2" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + len(report.lines_of(RECORDS))


def test_a_page_and_a_picture_are_written(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"benchmarks": [*RECORDS, {"name": "other", "extra_info": {}}]}))
    text, image = report.write(results, tmp_path / "out")
    assert "step-bf16-k3" in text.read_text()
    assert image.read_bytes().startswith(b"\x89PNG")


def test_ratios_are_of_the_same_round():
    """A machine that slows down by half between rounds leaves every ratio as it is."""
    slow, fast = interleave.Times((2.0, 4.0, 1.0)), interleave.Times((1.0, 2.0, 0.5))
    assert slow.ratios(fast) == [2.0, 2.0, 2.0]
    assert slow.median == 2.0
    assert interleave.interquartile_range(slow.seconds) == pytest.approx(1.5)
    assert interleave.interquartile_range([3.0]) == 0


def test_what_the_summary_would_pass_over_is_not_taken():
    """A benchmark without a row, and a ratio that no line shows."""
    benchmark = SimpleNamespace(name="test_step", fullname="bench.py::test_step", extra_info={})
    with pytest.raises(ValueError, match="test_step: row False"):
        Suite(quick=True).record(benchmark, {"over_torch": [2.0]})
    benchmark.extra_info["row"] = "step"
    with pytest.raises(ValueError, match="over_nothing"):
        Suite(quick=True).record(benchmark, {"over_nothing": [2.0]})
