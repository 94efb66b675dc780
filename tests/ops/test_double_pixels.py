import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from mclr_fast.ops import double_pixels, halve_pixels

SHAPES = [(0, 4, 2, 2), (1, 4, 1, 1), (2, 12, 5, 3), (3, 132, 2, 4), (2, 64, 17, 9)]
BOTH = pytest.mark.parametrize("phases", [False, True])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def formula(x, phases):
    """By an index of every pixel of the result."""
    batch, channels, height, width = x.shape
    height, width = 2 * (height - phases), 2 * (width - phases)
    row, column = torch.arange(height)[:, None], torch.arange(width)
    i, j = phases * (row % 2), phases * (column % 2)
    parts = x.reshape(batch, 2, 2, channels // 4, *x.shape[2:]) if phases else x[:, None, None]
    found = parts.permute(1, 2, 4, 5, 0, 3)[i, j, row // 2 + i, column // 2 + j]  # [2H,2W,B,C]
    return found.permute(2, 3, 0, 1)


@BOTH
@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_formula(assert_same, layout, shape, dtype, phases):
    x = layout(torch.randn(shape, dtype=dtype))
    assert_same(lambda x: double_pixels(x, phases=phases), lambda x: formula(x, phases), x)


@DTYPES
def test_pixels_are_moved_to_the_bit(dtype):
    x = torch.randn(2, 8, 6, 4, dtype=dtype)
    x[0, 0, 0, 0], x[1, 3, 2, 2] = torch.inf, torch.nan
    for found, expected in (
        (double_pixels(x), F.interpolate(x, scale_factor=2, mode="nearest")),
        (double_pixels(x, phases=True), formula(x, True)),
    ):
        assert torch.equal(found.nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))
        assert torch.equal(found.isnan(), expected.isnan())


@DTYPES
@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 1, 2, 4), (2, 33, 6, 2), (3, 64, 18, 34)])
def test_means(assert_same, layout, shape, dtype):
    x = layout(torch.randn(shape, dtype=dtype))
    assert_same(halve_pixels, lambda x: x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)), x)


@BOTH
def test_large_images(assert_same, phases):
    """More than one thread's, and with windows that no pixel reads."""
    x = torch.randn(3, 32, 33, 41).contiguous(memory_format=torch.channels_last)
    assert_same(lambda x: double_pixels(x, phases=phases), lambda x: formula(x, phases), x)


@BOTH
def test_gradcheck(phases):
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda x: double_pixels(x, phases=phases), x)
    assert gradcheck(lambda x: halve_pixels(x), torch.randn(2, 3, 4, 2, dtype=torch.float64).requires_grad_())


@BOTH
def test_strided(phases):
    x = torch.randn(4, 10, 5, 9)
    found = double_pixels(x[::2, 1:9, 1:, ::3], phases=phases)
    torch.testing.assert_close(found, formula(x[::2, 1:9, 1:, ::3], phases), rtol=0, atol=0)


@BOTH
def test_the_result_is_channels_last(implementation, phases):
    if implementation == "reference":
        pytest.skip("torch's own choice")
    assert double_pixels(torch.randn(2, 8, 4, 4), phases=phases).is_contiguous(
        memory_format=torch.channels_last
    )


@BOTH
def test_registration(implementation, phases):
    if implementation == "reference":
        pytest.skip("a fused op's registration")
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.mclr_fast.double_pixels.default, (x, phases))
    torch.library.opcheck(torch.ops.mclr_fast.double_pixels_backward.default, (x.detach(), phases))
    torch.library.opcheck(torch.ops.mclr_fast.halve_pixels.default, (x,))
    torch.library.opcheck(torch.ops.mclr_fast.halve_pixels_backward.default, (x.detach(),))


@BOTH
def test_compile(implementation, phases):
    if implementation == "reference":
        pytest.skip("plain torch")
    x = torch.randn(2, 8, 4, 4, requires_grad=True)

    def total(x):
        return double_pixels(x, phases=phases).square().sum()

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(total(x), x))


@pytest.mark.parametrize(
    ("shape", "phases", "wanted"),
    [
        ((2, 3, 4), False, r"\[B,C,H,W\]"),
        ((2, 6, 4, 4), True, r"\[B,4C,H\+1,W\+1\]"),
        ((2, 4, 0, 4), True, r"\[B,4C,H\+1,W\+1\]"),
    ],
)
def test_errors(shape, phases, wanted):
    with pytest.raises(ValueError, match=f"x must be {wanted}, not "):
        double_pixels(torch.zeros(shape), phases=phases)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 5, 4), (2, 3, 4, 5)])
def test_errors_of_means(shape):
    with pytest.raises(ValueError, match=r"x must be \[B,C,2H,2W\], not "):
        halve_pixels(torch.zeros(shape))
