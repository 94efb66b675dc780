"""Every GPU kernel, compiled ahead of time: no spills, 16-byte accesses, no more bytes than the op needs."""

import math
import shutil
import subprocess

import pytest

from mclr_fast.ops import OPS, audit
from mclr_fast.ops.audit import compile_cuda, compile_triton, count_bytes, machine_code

# They read or write a few partial sums, or images of 3 and 4 channels.
NARROW = {"sum_rows_kernel", "sum_chunks_kernel", "gain_kernel"}
TRITON_OPS = set(OPS) - set(compile_cuda.OPS) | {"heun_update"}


@pytest.fixture(autouse=True)
def _tools():
    if reason := compile_triton.missing() or machine_code.missing():
        pytest.skip(reason)


def check(rows):
    audited = [row for row in rows if not row.missing]
    assert audited
    for row in audited:
        assert row.spills == 0, row
        assert row.widest == 16 or row.kernel.split(" ")[0] in NARROW, row
        assert 0 < row.registers <= 255


def test_every_kernel_on_an_h100():
    """EDM2-S/64's shapes."""
    rows = audit.rows(["sm_90"], audit.NETWORKS[:1], count=False)
    check(rows)
    ops = {row.op for row in rows if not row.missing}
    assert ops >= TRITON_OPS
    if not compile_cuda.missing():
        assert ops >= set(compile_cuda.OPS)


@pytest.mark.slow
@pytest.mark.parametrize("arch", audit.ARCHITECTURES)
def test_every_shape_on_every_architecture(arch):
    check(audit.rows([arch], count=False))


@pytest.mark.skipif(bool(count_bytes.missing()), reason=count_bytes.missing())
def test_bytes_moved():
    """At most a tenth more than each operand read once and each result written once."""
    ratios = count_bytes.counted()
    assert len(ratios) >= 15
    assert all(1 <= ratio <= 1.1 for ratio in ratios.values()), ratios


def test_an_interpreter_that_cannot_run_is_said_and_not_tried(monkeypatch):
    """Triton 3.6 makes a number of an array with one element, which NumPy refuses from 2.5 on."""
    triton = pytest.importorskip("triton")
    for versions, can in (
        (("3.6.0", "2.5.0"), False),
        (("3.6.0", "2.4.9"), True),
        (("3.10.1", "2.5.5"), True),
    ):
        monkeypatch.setattr(triton, "__version__", versions[0])
        monkeypatch.setattr(count_bytes.np, "__version__", versions[1])
        assert bool(count_bytes.missing()) != can
    monkeypatch.setattr(count_bytes.np, "__version__", "2.5.0")
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    count_bytes.counted.cache_clear()
    assert count_bytes.counted() == {} and "below 2.5 it does" in count_bytes.missing()
    count_bytes.counted.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_bytes_moved_by_cuda_kernels():
    ratios = count_bytes.counted_cuda()
    assert len(ratios) == 3 and all(1 <= ratio <= 1.1 for ratio in ratios.values()), ratios


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
def test_spills_and_narrow_accesses_are_seen(tmp_path):
    source, target = tmp_path / "bad.cu", tmp_path / "bad.cubin"
    source.write_text("""
        extern "C" __global__ void spilling(const float* x, float* y) {
            float kept[64];
            for (int i = 0; i < 64; ++i) kept[i] = x[threadIdx.x + 32 * i];
            __syncthreads();
            for (int i = 0; i < 64; ++i) y[threadIdx.x + 32 * i] = kept[i] * kept[63 - i];
        }
        extern "C" __global__ void wide(const float4* x, float4* y, short* z) {
            y[threadIdx.x] = x[threadIdx.x];
            z[threadIdx.x] = 1;
        }""")
    command = ["nvcc", "-cubin", "-arch=sm_90", "-maxrregcount=32", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (codes,) = machine_code.read([target.read_bytes()], 90)
    found = {code.name: code for code in codes}
    assert found["spilling"].spills > 0 and max(found["spilling"].accesses) == 4
    assert found["wide"].spills == 0 and found["wide"].accesses == {16: 2, 2: 1}


def test_missing_tools_are_said(monkeypatch):
    monkeypatch.setattr(compile_triton, "missing", lambda: "no triton today")
    monkeypatch.setattr(compile_cuda, "missing", lambda: "no nvcc today")
    text = audit.table(audit.rows(["sm_90"]))
    assert "no triton today" in text and "no nvcc today" in text


def test_table():
    row = audit.AuditRow("op", "kernel x4", "sm_80", "32x64", 1, "", 40, 0, 0, 16, 1.0, 1.25, 3_000_000)
    text = audit.table([row, row._replace(architecture="sm_90", registers=32), row])
    assert math.isclose(row.roofline_us, 1.0)
    lines = text.splitlines()
    assert "sm_80, sm_90" in lines[0] and len({len(line) for line in lines[2:]}) == 1
    assert "| 40/32 " in lines[4] and "| 1.25 " in lines[4] and len(lines) == 6
