"""summary.json: read back as it was written, and with what its readers look for."""

import json
from pathlib import Path

import pytest

from mclr_fast.evaluation.rows import METRICS
from mclr_fast.reports.run_data import read_summary
from mclr_fast.reports.summary import Summary
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime import formats

ROOT = Path(__file__).parents[2]
OLD = [
    *sorted((ROOT / "tests/golden/zoo").glob("**/summary.json")),
    *(ROOT / "docs/results" / f"{name}.json" for name in ("mnist16-proof", "mnist16-table")),
    ROOT / "mclr_fast/assets/mnist16-base/curve.json",
]
ROW_KEYS = {"name", "kind", "guidance", "images_seen", "nfe", "samples", "metrics", *METRICS}


def folder_with(tmp_path, content):
    (tmp_path / "summary.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_summaries_of_format_1_are_read_and_written_again(tmp_path, path):
    old = json.loads(path.read_text())
    assert "format" not in old
    summary = read_summary(folder_with(tmp_path, old))
    content = json.loads(json.dumps(summary.to_json()))
    assert content["format"] == formats.SUMMARY_FORMAT == 2
    assert old.keys() <= content.keys()
    for row, expected in zip(content["rows"], old["rows"], strict=True):
        assert row.keys() >= ROW_KEYS
        assert {name: row[name] for name in expected} == expected
        assert row["metrics"][row["chosen_by"]] == {name: expected[name] for name in METRICS}
    plain = old.keys() - {"rows", "best", "proof", "guided", "methods", "ablations", "protocol"}
    if protocol := old.get("protocol"):  # it says the same, by protocol
        about = content["protocol"]["protocols"]["mnist16"]
        assert (about["k"], about["reference"]["source"]) == (protocol["k"], protocol["reference"])
        kept = protocol.keys() - {"name", "k", "reference"}
        assert {name: content["protocol"][name] for name in kept} == {name: protocol[name] for name in kept}
    assert {name: content[name] for name in plain} == {name: old[name] for name in plain}
    assert read_summary(folder_with(tmp_path, content)) == summary


def test_a_run_of_format_1(tmp_path):
    summary = read_summary(ROOT / "tests/golden/zoo/finished")
    assert isinstance(summary, Summary)
    kinds = ["real", "base", "guidance", "control", "trained", "trained", "trained"]
    assert [row.kind for row in summary.rows] == kinds
    assert [row.guidance for row in summary.of("guidance")] == [1.25]
    assert summary.best in summary.of("trained")
    assert summary.to_json()["kind"] == "run"


def test_a_proof_of_format_1():
    summary = read_summary(ROOT / "tests/golden/zoo/proof")
    old = json.loads((ROOT / "tests/golden/zoo/proof/summary.json").read_text())
    (entry,), (expected,) = summary.proof, old["proof"]
    assert (entry.base.fd, entry.control.fd, entry.trained.fd) == (
        expected["base"]["fd"],
        expected["denoising"]["fd"],
        expected["mclr"]["fd"],
    )
    assert (entry.control.kind, entry.trained.kind) == ("control", "trained")
    assert entry.fd_minus_control == expected["fd_minus_denoising"]
    content = summary.to_json()
    assert content["kind"] == "proof"
    assert content["proof"][0].keys() == expected.keys()


def test_a_table_of_format_1(tmp_path):
    content = json.loads((ROOT / "docs/results/mnist16-table.json").read_text())
    summary = read_summary(folder_with(tmp_path, content))
    assert isinstance(summary, TableSummary)
    assert [row.guidance for row in summary.of("guidance")] == [1.25]
    assert len(summary.of("trained")) == 3 * len(summary.methods)
    method = summary.methods["mclr"]
    assert [run.judged.kind for run in method.runs] == ["trained"] * 3
    assert method.runs[0].curve[0].kind == "base"
    assert summary.to_json()["kind"] == "table"
