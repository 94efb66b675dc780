import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import pixel_norm_silu

SHAPES = [(0, 4, 2, 2), (1, 3, 1, 1), (3, 5, 7, 3), (2, 33, 4, 4)]
WIDTHS = [3, 8, 16, 17, 64]


def formula(x):
    x = x / (1e-4 + x.square().mean(1, keepdim=True).sqrt())
    return x, x * x.sigmoid() / 0.596


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, dtype):
    assert_same(pixel_norm_silu, formula, layout(torch.randn(shape, dtype=dtype)))


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("size", [(2, 3), (23, 29)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths(assert_same, layout, channels, size, dtype):
    assert_same(pixel_norm_silu, formula, layout(torch.randn(2, channels, *size, dtype=dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wide_pixel(assert_same, dtype):
    x = torch.randn(2, 1100, 3, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    assert_same(pixel_norm_silu, formula, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_channel(layout, dtype):
    """n is the sign, and the gradient a difference of equals: it is held to the size of those."""
    x = layout(torch.randn(2, 1, 5, 7, dtype=dtype)).requires_grad_()
    exact = x.detach().double().requires_grad_()
    results, truths = pixel_norm_silu(x), formula(exact)
    eps = torch.finfo(dtype).eps
    for result, truth in zip(results, truths, strict=True):
        assert (result - truth).abs().max() <= 4 * eps
    (grad,) = torch.autograd.grad(sum(results).sum(), x)
    (truth,) = torch.autograd.grad(sum(truths).sum(), exact)
    assert ((grad - truth).abs() <= 16 * eps / exact.abs()).all()


def test_gradcheck():
    assert gradcheck(pixel_norm_silu, torch.randn(2, 3, 2, 2, dtype=torch.float64).requires_grad_())


@pytest.mark.parametrize("channels", [4, 16])
def test_a_zero_pixel_stays_zero(channels):
    x = torch.randn(1, channels, 2, 2)
    x[..., 0, 1] = 0
    x.requires_grad_()
    normalized, activated = pixel_norm_silu(x)
    assert not normalized[..., 0, 1].any() and not activated[..., 0, 1].any()
    (grad,) = torch.autograd.grad(normalized.sum(), x)
    torch.testing.assert_close(grad[..., 0, 1], torch.full((1, channels), 1e4))


def test_a_nan_stays_in_its_pixel():
    x = torch.randn(1, 5, 2, 3)
    x[0, 3, 1, 1] = torch.nan
    for y in pixel_norm_silu(x):
        assert y[0, :, 1, 1].isnan().all() and y.isnan().sum() == 5


@pytest.mark.parametrize("unused", [0, 1])
def test_unused_results(unused):
    x = torch.randn(2, 5, 4, 4, requires_grad=True)
    found = torch.autograd.grad(pixel_norm_silu(x)[1 - unused].sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(formula(x)[1 - unused].sum(), x))


def test_strided():
    x = torch.randn(4, 6, 8, 10)
    found = pixel_norm_silu(x[::2, 1:4, ::3])
    torch.testing.assert_close(found, formula(x[::2, 1:4, ::3]))


def test_registration(implementation):
    if implementation == "reference":
        pytest.skip("a fused op's registration")
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.mclr_fast.pixel_norm_silu.default, (x,))
    arguments = tuple(torch.randn(3, 2, 3, 4, 4))
    torch.library.opcheck(torch.ops.mclr_fast.pixel_norm_silu_backward.default, arguments)


def test_compile(implementation):
    if implementation == "reference":
        pytest.skip("plain torch")
    x = torch.randn(2, 3, 4, 4, requires_grad=True)

    def total(x):
        return sum(y.square().sum() for y in pixel_norm_silu(x))

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(total(x), x))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4, 4)])
def test_errors(shape):
    with pytest.raises(ValueError, match=r"x must be \[B,C,H,W\] with C > 0, not \["):
        pixel_norm_silu(torch.zeros(shape))
