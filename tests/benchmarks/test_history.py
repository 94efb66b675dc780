"""Times are kept by kind of machine, and a row is slower if it is so by more than its spread."""

import json
from pathlib import Path

import history
import pytest

from mclr_fast.runtime.device import host_memory

pytest_plugins = ["pytester"]
BENCHMARKS = Path(history.__file__).parent
CPU = {"processor": "Intel(R) Xeon(R) 8481C @ 2.70GHz", "capability": "AVX512", "cores": 2, "torch": "2.14"}
GPU = {"processor": "NVIDIA H200", "torch": "2.11.0+cu130", "copy_GBs": 4200.0}


def record(ours, spread=0.0, machine=CPU, name="benchmarks/bench_step.py::test_step[a]", **others):
    info = {"machine": machine, "milliseconds": {"ours": ours, **others}, "spread": {"ours": spread}}
    return {"fullname": name, "extra_info": info}


def test_a_kind_is_processor_capability_and_cores_or_a_gpus_name():
    assert history.kind(CPU) == "intel-r-xeon-r-8481c-2-70ghz-avx512-2-cores"
    assert history.kind(GPU) == "nvidia-h200"


def test_slower_by_more_than_both_spreads(tmp_path):
    history.keep([record(100.0, 0.03)], tmp_path, "2026-11-27")

    def judged(ours, spread):
        ((change,), new) = history.changes([record(ours, spread)], tmp_path)
        assert not new
        return change.slower, change.faster

    assert judged(105.0, 0.03) == (False, False)
    assert judged(107.0, 0.03) == (True, False)  # 7% over, ranges of 3 and 3.2%
    assert judged(107.0, 0.08) == (False, False)
    assert judged(90.0, 0.03) == (False, True)


def test_what_is_said(tmp_path):
    history.keep(
        [record(100.0, floor=50.0), record(2.0, name="benchmarks/ops/bench_b.py::b")], tmp_path, "2026-11-27"
    )
    now = [
        record(130.0, floor=51.0), record(2.0, name="bench_b.py::b"), record(1.0, name="c.py::c"),
        {"fullname": "memory.py::m", "extra_info": {"over_k1": 1.07}},
    ]  # fmt: skip
    slower, counts, new = history.text(now, tmp_path).splitlines()
    assert slower == (
        "SLOWER bench_step.py::test_step[a]: 130 ms, 100 on 2026-11-27 (+30%, spread 0%; "
        "what it is compared with +2%)"
    )
    assert counts == "1 rows slower, 0 faster, 1 within their spread"
    assert new == f"1 rows are not kept of {history.kind(CPU)}; --keep keeps them"


def test_another_kinds_times_are_not_compared_with(tmp_path):
    history.keep([record(1.0, machine=GPU)], tmp_path)
    assert history.changes([record(100.0)], tmp_path) == ([], ["bench_step.py::test_step[a]"])


def test_rows_of_other_runs_stay(tmp_path):
    history.keep([record(1.0), record(2.0, name="b.py::b")], tmp_path)
    (path,) = history.keep([record(3.0)], tmp_path)
    rows = json.loads(path.read_text())["rows"]
    assert {name: row["milliseconds"]["ours"] for name, row in rows.items()} == {
        "bench_step.py::test_step[a]": 3.0, "b.py::b": 2.0,
    }  # fmt: skip


def test_a_rows_file_is_kept_with_its_last_lines(tmp_path, monkeypatch, capsys):
    lines = [record(9.0, machine=GPU), record(7.0, machine=GPU)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(history, "FOLDER", tmp_path)
    history.main([str(tmp_path / "rows.jsonl")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "nvidia-h200.json")
    assert history.kept("nvidia-h200", tmp_path)["bench_step.py::test_step[a]"]["milliseconds"] == {
        "ours": 7.0
    }


def test_every_kept_file_can_be_read():
    for path in history.FOLDER.glob("*.json"):
        content = json.loads(path.read_text())
        assert content["rows"] and path.stem.startswith(history.kind({"processor": content["processor"]}))
        for row in content["rows"].values():
            assert {"date", "torch", "milliseconds", "spread"} == row.keys()
            assert row["milliseconds"]["ours"] > 0


@pytest.fixture
def suite_folder(pytester, monkeypatch):
    """A benchmark of one row with the options of benchmarks/conftest.py; times are kept in the folder."""
    monkeypatch.setattr(history, "FOLDER", pytester.path)
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: None)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # where tests are shared out nothing is timed
    conftest = (BENCHMARKS / "conftest.py").read_text()
    pytester.makeconftest(conftest.replace("Path(__file__).parent", f"Path({str(BENCHMARKS)!r})"))
    pytester.makepyfile(
        """
        import os
        def test_row(benchmark, suite):
            benchmark(lambda: None)
            ours = float(os.environ["OURS"])
            info = {"row": "a", "machine": {"processor": "P", "torch": "2"}, "milliseconds": {"ours": ours}}
            benchmark.extra_info.update(info, spread={"ours": 0.01})
            suite.record(benchmark, {"over_floor": [1.0]})
        """
    )
    return pytester


def test_the_options(suite_folder, monkeypatch):
    monkeypatch.setenv("OURS", "10")
    suite_folder.runpytest_inprocess("--keep", "--benchmark-only").stdout.fnmatch_lines(["kept: */p.json"])
    monkeypatch.setenv("OURS", "20")
    result = suite_folder.runpytest_inprocess("--compare", "--benchmark-only")
    result.stdout.fnmatch_lines(["SLOWER *::test_row: 20 ms, 10 on *", "1 rows slower, 0 faster, 0 within*"])
    assert result.ret == 0
    refused = suite_folder.runpytest_inprocess("--compare", "--quick")
    refused.stderr.fnmatch_lines(["ERROR: --compare: the times of --quick are not such*"])


def test_plain_malloc(suite_folder, monkeypatch):
    monkeypatch.setenv("OURS", "10")
    kept = []
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: kept.append(True))
    suite_folder.runpytest_inprocess("--plain-malloc", "--benchmark-only").assert_outcomes(passed=1)
    assert not kept
    suite_folder.runpytest_inprocess("--benchmark-only").assert_outcomes(passed=1)
    assert kept
    refused = suite_folder.runpytest_inprocess("--keep", "--plain-malloc")
    refused.stderr.fnmatch_lines(["ERROR: --keep: the times of --plain-malloc are not such*"])
