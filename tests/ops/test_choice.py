"""Which implementation serves a call, and what is said where one is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import _choice, _native

ROOT = Path(__file__).parents[2]
Y, EMB = torch.ones(1, 2, 1, 1), torch.zeros(1, 2)


@pytest.fixture
def implementation():
    """These tests choose for themselves."""


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A package whose kernels could not be built."""
    (tmp_path / "build.json").write_text(json.dumps({"cpu": "no C++ compiler was found", "cuda": "no nvcc"}))
    monkeypatch.setattr(_native, "FOLDER", tmp_path)
    caches = (_native.load, _choice._decision, _choice._warn_once)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_auto_falls_back_with_one_warning(nothing_built):
    with ops.using("auto"), pytest.warns(UserWarning, match="no C\\+\\+ compiler was found") as caught:
        for _ in range(3):
            assert ops.modulate_silu(Y, EMB).shape == Y.shape
            assert ops.mp_sum_clip(Y, Y, 0.5).shape == Y.shape
    assert len(caught) == 1
    assert _choice.available("modulate_silu", "cpu")[1:] == (
        "reference",
        "not built: no C++ compiler was found",
    )


def test_what_is_asked_for_must_be_there(nothing_built):
    with ops.using("fused"), pytest.raises(RuntimeError, match="modulate_silu on cpu: not built: no C"):
        ops.modulate_silu(Y, EMB)


def test_fused_insists_on_a_fused_dtype():
    with ops.using("fused"), pytest.raises(RuntimeError, match="not fused for torch"):
        ops.modulate_silu(Y.double(), EMB.double())


def test_an_unknown_choice_names_the_known_ones():
    with (
        pytest.raises(ValueError, match="one of auto, reference, fused, not 'cuda'"),
        ops.using("cuda"),
    ):
        pass
    command = [sys.executable, "-c", "import mclr_fast.ops"]
    run = subprocess.run(command, env=os.environ | {"MCLR_FAST_OPS": "fast"}, capture_output=True, text=True)
    assert run.returncode == 1 and "not 'fast'" in run.stderr


def test_the_reference_can_be_chosen():
    with ops.using("reference"):
        assert {row.implementation for row in ops.implementations()} == {"reference"}
        assert not _choice.fused("modulate_silu", Y)


def test_float64_is_the_references():
    assert not _choice.fused("modulate_silu", Y.double())


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["avx2", "avx512"])
def test_other_instruction_sets(capability, tmp_path):
    """The tests of the fused ops on the libraries that this processor would not choose by itself."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor runs one of the libraries only")
    if capability == "avx512" and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor chooses that library by itself")
    without_bf16 = "import torch; torch.cpu._is_avx512_bf16_supported = lambda: False; import pytest, sys; "
    tests = [
        str(path) for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name
    ]
    options = ["-q", "-p", "no:cacheprovider", "-k", "not reference"]
    program = without_bf16 + f"sys.exit(pytest.main({[*options, *tests]!r}))"
    env = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)  # Inductor's own forgets for which set it compiled
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-3000:]
