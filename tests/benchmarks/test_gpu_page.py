"""The GPU's figures in the documents are those of the kept run, and a new run's take their place."""

import json
import shutil

import gpu_page
import pytest


@pytest.mark.parametrize("page", gpu_page.PAGES, ids=lambda page: page.name)
def test_the_pages_are_the_kept_run(page):
    text, results = page.read_text(), json.loads(gpu_page.RESULTS.read_text())
    assert gpu_page.with_blocks(text, results) == text


def test_every_block_stands_once():
    text = "".join(page.read_text() for page in gpu_page.PAGES)
    for name in gpu_page.BLOCKS:
        assert text.count(f"<!-- gpu:{name} -->") == 1
    assert text.count("<!-- end -->") == len(gpu_page.BLOCKS)


@pytest.fixture
def folder(tmp_path):
    """Copies of the pages and the kept results."""
    for path in (*gpu_page.PAGES, gpu_page.RESULTS):
        shutil.copy(path, tmp_path)
    return tmp_path


def write(folder, *arguments):
    pages = [folder / page.name for page in gpu_page.PAGES]
    gpu_page.main([*map(str, arguments)], folder / gpu_page.RESULTS.name, pages)
    return [page.read_text() for page in pages]


def record(row, num_images, ours, **info):
    info = {"row": row, "num_images": num_images, "peak_GiB": 20.0, "spread": {"ours": 0.01}, **info}
    info |= {"milliseconds": {"ours": ours, "floor": 60.0}, "ranges": {k: [1, 2] for k in info}}
    info["machine"] = {"processor": "NVIDIA B300", "torch": "2.12", "copy_GBs": 7000.0}
    return {"name": row, "fullname": f"bench_step_gpu.py::test_step[{row}]", "extra_info": info}


def test_a_runs_figures_take_the_old_ones_place(folder):
    """The last line of a row counts; what is not of the run stays."""
    lines = [
        record("step-gpu-s64-k3", 16, 99.0),
        record("step-gpu-s64-k3-n64", 64, 300.0, not_run={"over_nvlabs": "nvlabs: out of memory"}),
        record("step-gpu-s64-k3", 16, 77.7, over_nvlabs=2.4, over_naive=6.125, over_busy=1.07),
        record("step-gpu-s64-k7", 8, 80.0, over_floor=1.5),
    ]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, readme = write(folder, "--rows", rows)
    assert "One NVIDIA B300, torch 2.12, copies at 7,000 GB/s." in page
    assert "| the step | 77.7 ms (1%) | 300.0 ms (1%) |" in page and "99.0" not in page.split("## Before")[0]
    assert "| over_nvlabs, N(1+K) | 2.40 (at least 2.3: yes) | not run: nvlabs: out of memory |" in page
    assert "| over its kernels | 1.07 (at most 1.06: NO) | - |" in page
    assert "| step-gpu-s64-k7 |" in page
    assert "On one B300, EDM2-S's step" in readme and "6.12 times faster than Algorithm 1" in readme
    assert "| 64 | 1,748 ms |" in page  # the sampler's are kept
    assert write(folder) == [page, readme]


def test_a_run_without_the_readmes_row_changes_nothing(folder):
    rows, before = folder / "rows.jsonl", write(folder)
    rows.write_text(json.dumps(record("step-gpu-s64-k3-n64", 64, 300.0)))
    with pytest.raises(SystemExit, match=r"no row step-gpu-s64-k3 \(N = 16\)"):
        write(folder, "--rows", rows)
    assert write(folder) == before


def test_a_profile_takes_the_old_ones_place(folder):
    rows = [
        {
            "N": 4, "graphs": "on", "wall_ms": 28.0, "busy_ms": 27.0, "over_busy": 1.04, "launches": 45,
            "reserved_GiB": 9.0, "cudnn_benchmark": False, "kernels": [["gemm", 3, 20.0], ["add", 4, 7.0]],
        }
    ]  # fmt: skip
    (folder / "profile.json").write_text(json.dumps(rows))
    page, _ = write(folder, "--profile", folder / "profile.json")
    assert (
        "| 4 | on | 28.0 ms | 27.0 ms | 1.04 | 45 | 9.0 GiB |" in page
        and "158" not in page.split("## Before")[0]
    )
    assert "| `gemm` | 3 | 20.0 |" in page and "| 0 others |  | 0.0 |" in page
