import math

import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import mp_sum_clip, mp_sum_clip_silu


def formula(a, b, t, clip):
    """Row i of the result reads row i // R of an operand that has fewer rows."""
    rows = torch.arange(max(len(a), len(b)))
    a, b = (x[rows // max(len(rows) // max(len(x), 1), 1)] for x in (a, b))
    x = ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)
    return x if clip is None else torch.where(x.abs() <= clip, x, clip * x.detach().sign())


def formula_silu(a, b, t, clip):
    x = formula(a, b, t, clip)
    return x, x * x.sigmoid() / 0.596


def away_from_the_clip(a, b, t, clip):
    """The operands with zeros where their sum is so near the clip that rounding may carry it across."""
    if clip is None:
        return a, b
    total = formula(a.double(), b.double(), t, None).abs()
    near = (total - clip).abs() <= 4 * torch.finfo(a.dtype).eps * clip
    return a.masked_fill(near, 0), b.masked_fill(near, 0)


def operands(rows_a, rows_b, image, dtype):
    pair = (torch.randn(rows, *image, dtype=dtype) for rows in (rows_a, rows_b))
    return [x.contiguous(memory_format=torch.channels_last) for x in pair]


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 1, 1, 1), (3, 5, 7, 3)])
@pytest.mark.parametrize("t", [0.3, 0.5])
@pytest.mark.parametrize("clip", [None, 0.7, 256.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, t, clip, dtype):
    a, b = (layout(torch.randn(shape, dtype=dtype)) for _ in range(2))
    a, b = away_from_the_clip(a, b, t, clip)
    assert_same(lambda a, b: mp_sum_clip(a, b, t, clip), lambda a, b: formula(a, b, t, clip), a, b)


@pytest.mark.parametrize(("rows_a", "rows_b"), [(6, 6), (2, 6), (6, 2), (0, 0)])
@pytest.mark.parametrize("image", [(1, 1, 1), (3, 5, 7), (8, 4, 4), (17, 3, 3), (64, 11, 13)])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula_with_silu_and_shared_operands(assert_same, rows_a, rows_b, image, clip, dtype):
    a, b = operands(rows_a, rows_b, image, dtype)
    if clip and dtype == torch.bfloat16:
        a, b = 4 * a.round().clamp(-1, 1), b / 4  # no sum is so near the clip that rounding may cross it
    assert_same(
        lambda a, b: mp_sum_clip_silu(a, b, 0.3, clip), lambda a, b: formula_silu(a, b, 0.3, clip), a, b
    )


@pytest.mark.parametrize(("rows_a", "rows_b"), [(2, 6), (6, 2)])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_shared_operands(assert_same, rows_a, rows_b, clip):
    a, b = operands(rows_a, rows_b, (9, 31, 31), torch.float32)
    assert_same(lambda a, b: mp_sum_clip(a, b, 0.3, clip), lambda a, b: formula(a, b, 0.3, clip), a, b)


def test_gradcheck():
    a, b = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b: mp_sum_clip(a, b, 0.3, 0.7), (a, b))
    assert gradcheck(lambda a, b: mp_sum_clip_silu(a[:1], b, 0.3, 0.7), (a, b))


def test_clipped_values_get_no_gradient():
    a = torch.tensor([-3.0, 0.1, 3.0], requires_grad=True)
    y = mp_sum_clip(a, torch.zeros(3), 0.0, 1.0)
    assert y.tolist() == [-1.0, a[1].item(), 1.0]
    assert torch.autograd.grad(y.sum(), a)[0].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [0.7, 0.703, 100.1])  # none of them a bfloat16
def test_clipped_images_get_no_gradient(dtype, clip):
    a = torch.tensor([-2 * clip, clip / 2, 2 * clip], dtype=dtype).view(1, 3, 1, 1).requires_grad_()
    y = mp_sum_clip(a, torch.zeros_like(a), 0.0, clip)
    limit = torch.tensor(clip, dtype=dtype).item()
    assert y.flatten().tolist() == [-limit, a.flatten()[1].item(), limit]
    assert torch.autograd.grad(y.sum(), a)[0].flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_nan_stays_one(clip):
    a = torch.full((1, 2, 2, 2), torch.nan)
    out, silu = mp_sum_clip_silu(a, torch.zeros_like(a), 0.5, clip)
    assert out.isnan().all() and silu.isnan().all()


@pytest.mark.parametrize("unused", [0, 1])
def test_unused_results(unused):
    a, b = torch.randn(2, 2, 3, 4, 4, requires_grad=True)
    both = mp_sum_clip_silu(a, b, 0.3, 0.7)
    found = torch.autograd.grad(both[1 - unused].sum(), (a, b))
    expected = torch.autograd.grad(formula_silu(a, b, 0.3, 0.7)[1 - unused].sum(), (a, b))
    torch.testing.assert_close(found, expected)


def test_strided():
    a, b = torch.randn(2, 4, 6, 8, 10)
    found = mp_sum_clip(a[::2, 1:4, ::3], b[::2, 1:4, ::3], 0.3, 0.7)
    torch.testing.assert_close(found, formula(a, b, 0.3, 0.7)[::2, 1:4, ::3])
    a, b = a.transpose(0, 1)[:, :1], b.transpose(0, 1)[:, 1:2]
    torch.testing.assert_close(mp_sum_clip(a, b, 0.3), formula(a, b, 0.3, None))


@pytest.mark.parametrize("with_silu", [False, True])
@pytest.mark.parametrize("clip", [0.7, math.inf])
def test_registration(implementation, with_silu, clip):
    if implementation == "reference":
        pytest.skip("a fused op's registration")
    a, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(4, 3, 4, 4, requires_grad=True)
    overload = torch.ops.mclr_fast.mp_sum_clip_silu if with_silu else torch.ops.mclr_fast.mp_sum_clip
    torch.library.opcheck(overload.default, (a, b, 0.3, clip))
    backward = torch.ops.mclr_fast.mp_sum_clip_backward.default
    torch.library.opcheck(backward, (torch.randn(4, 3, 4, 4), None, 0.3, math.inf, 2, 4))


def test_compile(implementation):
    if implementation == "reference":
        pytest.skip("plain torch")
    a, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(4, 3, 4, 4, requires_grad=True)

    def both(a, b):
        return sum(y.sum() for y in mp_sum_clip_silu(a, b, 0.3, 0.7)) + mp_sum_clip(a, b, 0.5).square().sum()

    found = torch.autograd.grad(torch.compile(both, backend="aot_eager", fullgraph=True)(a, b), (a, b))
    torch.testing.assert_close(found, torch.autograd.grad(both(a, b), (a, b)))


@pytest.mark.parametrize(
    ("a", "b", "clip", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 4), None, r"not \[2, 3, 4, 4\] and \[2, 4, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4), None, "a has 2 rows and b 3"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(3, 3, 4, 4), None, "a has 0 rows and b 3"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).bfloat16(), None, "bfloat16"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), -1.0, "clip must be positive"),
    ],
)
def test_errors(a, b, clip, message):
    with pytest.raises(ValueError, match=message):
        mp_sum_clip(a, b, 0.3, clip)
    with pytest.raises(ValueError, match=message):
        mp_sum_clip_silu(a, b, 0.3, clip)
