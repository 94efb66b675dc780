import math

import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import mp_cat_silu


def formula(a, b, t):
    """Row i of the results reads row i // R of an operand that has fewer rows."""
    rows = torch.arange(max(len(a), len(b)))
    a, b = (x[rows // max(len(rows) // max(len(x), 1), 1)] for x in (a, b))
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    x = torch.cat([a * (scale * (1 - t) / a.shape[1] ** 0.5), b * (scale * t / b.shape[1] ** 0.5)], dim=1)
    return x, x * x.sigmoid() / 0.596


@pytest.mark.parametrize(
    ("shape", "num_skip"),
    [((0, 4, 2, 2), 3), ((1, 1, 1, 1), 1), ((3, 5, 7, 3), 2), ((2, 8, 4, 4), 8)],
)
@pytest.mark.parametrize("t", [0.35, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, num_skip, t, dtype):
    a = layout(torch.randn(shape, dtype=dtype))
    b = layout(torch.randn(shape[0], num_skip, *shape[2:], dtype=dtype))
    assert_same(lambda a, b: mp_cat_silu(a, b, t), lambda a, b: formula(a, b, t), a, b)


@pytest.mark.parametrize(("rows_a", "rows_b"), [(4, 4), (2, 6), (6, 2), (0, 0)])
@pytest.mark.parametrize("channels", [(1, 17), (8, 3), (17, 8), (64, 32), (3, 1), (600, 500)])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (19, 23)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_operands(assert_same, rows_a, rows_b, channels, size, dtype):
    if sum(channels) > 1000 and size > (7, 5):
        pytest.skip("large, and no other case")
    a, b = (
        torch.randn(rows, c, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for rows, c in zip((rows_a, rows_b), channels, strict=True)
    )
    assert_same(lambda a, b: mp_cat_silu(a, b, 0.35), lambda a, b: formula(a, b, 0.35), a, b)


def test_gradcheck():
    a = torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b: mp_cat_silu(a, b, 0.35), (a, b))
    assert gradcheck(lambda a, b: mp_cat_silu(a[:1], b, 0.35), (a, b))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_magnitude_is_kept(t):
    """Of unit inputs the result has unit mean square, whatever the widths."""
    x, _ = mp_cat_silu(torch.ones(1, 3, 2, 2), torch.ones(1, 11, 2, 2), t)
    torch.testing.assert_close(x.square().mean(), torch.tensor(1.0))


@pytest.mark.parametrize("unused", [0, 1])
def test_unused_results(unused):
    a, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4, requires_grad=True)
    found = torch.autograd.grad(mp_cat_silu(a, b, 0.3)[1 - unused].sum(), (a, b))
    expected = torch.autograd.grad(formula(a, b, 0.3)[1 - unused].sum(), (a, b))
    torch.testing.assert_close(found, expected)


def test_strided():
    a, b = torch.randn(2, 4, 6, 8, 10)
    found = mp_cat_silu(a[::2, 1:4, ::3], b[::2, 1:3, ::3], 0.3)
    torch.testing.assert_close(found, formula(a[::2, 1:4, ::3], b[::2, 1:3, ::3], 0.3))


def test_registration(implementation):
    if implementation == "reference":
        pytest.skip("a fused op's registration")
    a, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(4, 5, 4, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.mclr_fast.mp_cat_silu.default, (a, b, 0.3))
    arguments = *torch.randn(3, 4, 8, 4, 4), 0.3, 2, 4, 3
    torch.library.opcheck(torch.ops.mclr_fast.mp_cat_silu_backward.default, arguments)


def test_compile(implementation):
    if implementation == "reference":
        pytest.skip("plain torch")
    a, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(4, 5, 4, 4, requires_grad=True)

    def total(a, b):
        return sum(y.square().sum() for y in mp_cat_silu(a, b, 0.3))

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(a, b), (a, b))
    torch.testing.assert_close(found, torch.autograd.grad(total(a, b), (a, b)))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5), r"not \[2, 3, 4, 4\] and \[2, 3, 4, 5\]"),
        (torch.zeros(2, 3), torch.zeros(2, 3), r"not \[2, 3\] and \[2, 3\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4), "a has 2 rows and b 3"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).bfloat16(), "bfloat16"),
    ],
)
def test_errors(a, b, message):
    with pytest.raises(ValueError, match=message):
        mp_cat_silu(a, b, 0.3)
