"""Calls of the C libraries: every signature is the header's, and what does not fit it is an error."""

import json
import re
from pathlib import Path

import pytest
import torch

from mclr_fast.ops import _native

HEADER = Path(__file__).parents[2] / "csrc/include/mclr_fast.h"


@pytest.fixture(autouse=True)
def implementation():
    """The libraries are called by name here, so nothing is chosen."""


@pytest.fixture
def library():
    """A library that nothing was called of yet."""
    found, reason = _native.load("cpu")
    if found is None:
        pytest.skip(reason)
    return _native.Library(Path(found._library._name), found._functions)


def cat_silu(library, scale_a, scale_b, images=1):
    """mp_cat_silu of one pixel of two channels."""
    a, b, cat, y = torch.tensor([3.0]), torch.tensor([5.0]), torch.zeros(2), torch.zeros(2)
    library.mp_cat_silu_forward(0, a, b, cat, y, images, 1, 1, 1, 1, 0, 0, scale_a, scale_b)
    return cat.tolist()


def test_the_declarations_are_the_headers(library):
    """As many functions and arguments, each an int64_t, a float or a pointer, in its order."""
    text = re.sub(r"//.*", "", HEADER.read_text())
    declared = re.findall(r"(\w+) mclr_(\w+)\(([^)]*)\);", text)
    assert len(declared) > 20 and len(declared) == len(library._functions)
    for result, name, arguments in declared:
        kinds = library._functions[name].split()
        assert kinds[0] == result and kinds[0] == ("int64_t" if name.endswith("_cuda") else "void")
        assert len(kinds) == 1 + len(arguments.split(","))
        for kind, argument in zip(kinds[1:], arguments.split(","), strict=True):
            words = argument.split()
            assert kind == "pointer" if "*" in argument else words[:-1] == [kind], (name, argument)
        assert set(kinds[1:]) <= {"pointer", "int64_t", "float"}


@pytest.mark.parametrize("scales", [(2, 0.5), (2.0, 0.5), (2, 1), (0.5, 2)])
def test_an_int_in_a_floats_place_is_converted(library, scales):
    """Whatever the first call was."""
    for _ in range(2):
        assert cat_silu(library, *scales) == [3 * scales[0], 5 * scales[1]]
    assert cat_silu(library, 0.25, 3) == [0.75, 15.0]


@pytest.mark.parametrize("images", [1.0, torch.ones(2), None])
def test_what_is_no_int_in_an_ints_place_is_an_error(library, images):
    with pytest.raises(TypeError, match=r"^mp_cat_silu_forward: argument 6: "):
        cat_silu(library, 1.0, 1.0, images)


@pytest.mark.parametrize("arguments", [(), (0, None, None, None, 0), (0, None, None, None, 0, 1, 2)])
def test_arguments_are_counted(library, arguments):
    message = f"built with 6 arguments, not {len(arguments)}: `pip install -e .`"
    with pytest.raises(TypeError, match=message):
        library.pixel_norm_silu_forward(*arguments)


def test_a_function_that_was_not_built_is_named(library):
    with pytest.raises(AttributeError, match=r"no some_op: `pip install -e \.` builds"):
        library.some_op(1)


def test_kernels_without_declarations_are_not_called(tmp_path, monkeypatch):
    """What a setup.py before them built."""
    (tmp_path / "build.json").write_text(json.dumps({"cpu": "", "cuda": ""}))
    monkeypatch.setattr(_native, "FOLDER", tmp_path)
    _native.load.cache_clear()
    assert _native.load("cpu") == (None, f"built by an older setup.py; {_native.BUILD_AGAIN}")
    _native.load.cache_clear()


@pytest.mark.parametrize(
    ("machine", "capability", "bf16", "expected"),
    [
        ("x86_64", "AVX512", True, "avx512_bf16"),
        ("x86_64", "AVX512", False, "avx512"),
        ("AMD64", "AVX2", True, "avx2"),
        ("x86_64", "NO AVX", False, None),
        ("x86_64", "DEFAULT", False, None),
        ("aarch64", "DEFAULT", False, "generic"),
        ("aarch64", "SVE256", False, "generic"),
        ("arm64", "NO AVX", False, "generic"),
    ],
)
def test_the_build_that_a_processor_runs(monkeypatch, machine, capability, bf16, expected):
    monkeypatch.setattr(_native.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    assert _native._instruction_set() == expected
