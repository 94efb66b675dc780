import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import modulate_layer_norm

EPS = 1e-6
SHAPES = [(0, 3, 4), (2, 0, 4), (1, 1, 3), (3, 5, 7), (2, 70, 48), (2, 33, 100)]


def formula(x, scale, shift, eps=EPS):
    x = x - x.mean(2, keepdim=True)
    x = x / (x.square().mean(2, keepdim=True) + eps).sqrt()
    return x * (1 + scale[:, None]) + shift[:, None]


def of_dtype(dtype, eps=EPS):
    """The op with a result of `dtype`."""
    return lambda x, scale, shift: modulate_layer_norm(x, scale, shift, eps, dtype)


def operands(batch, length, channels):
    return torch.randn(batch, length, channels), torch.randn(batch, channels), torch.randn(batch, channels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, shape, dtype):
    assert_same(of_dtype(dtype), formula, *operands(*shape), unit=dtype)


def test_a_mean_far_from_zero():
    """The variance is not the difference of two large numbers."""
    x, scale, shift = operands(2, 4, 300)
    found = modulate_layer_norm(x + 1000, scale, shift, EPS, torch.float32)
    truth = formula((x + 1000).double(), scale.double(), shift.double())
    torch.testing.assert_close(found.double(), truth, rtol=1e-3, atol=1e-3)


def test_eps_counts(assert_same):
    x, scale, shift = operands(2, 4, 40)
    own = lambda x, scale, shift: formula(x, scale, shift, 0.3)  # noqa: E731
    assert_same(of_dtype(torch.float32, 0.3), own, 0.5 * x, scale, shift)


def test_gradcheck():
    inputs = [x.double().requires_grad_() for x in operands(2, 3, 4)]
    assert gradcheck(of_dtype(torch.float64), inputs)


def test_channels_that_are_all_alike():
    x, scale, shift = torch.full((2, 3, 5), 2.0).requires_grad_(), torch.ones(2, 5), torch.randn(2, 5)
    found = modulate_layer_norm(x, scale, shift, EPS, torch.float32)
    torch.testing.assert_close(found, shift[:, None].expand_as(found))
    (grad,) = torch.autograd.grad(found.square().sum(), x)
    assert grad.isfinite().all()


def test_strided(assert_same):
    x, _, _ = operands(4, 6, 20)
    vectors = torch.randn(2, 6, 10).unbind(1)
    assert_same(of_dtype(torch.float32), formula, x[::2, ::2, ::2], vectors[2], vectors[4])


def test_vectors_gradients_are_the_same_for_any_number_of_threads(assert_same_for_any_threads):
    assert_same_for_any_threads(of_dtype(torch.float32), *operands(2, 200, 256))


def test_a_half_precision_stream_is_read_as_float32():
    x, scale, shift = operands(2, 3, 16)
    found = modulate_layer_norm(x.bfloat16(), scale, shift, EPS, torch.float32)
    torch.testing.assert_close(found, formula(x.bfloat16().float(), scale, shift), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(implementation, dtype):
    if implementation == "reference":
        pytest.skip("plain torch")
    inputs = [x.requires_grad_() for x in operands(2, 3, 20)]
    torch.library.opcheck(torch.ops.mclr_fast.modulate_layer_norm.default, (*inputs, EPS, dtype))
    arguments = (torch.randn(2, 3, 20, dtype=dtype), inputs[0].detach(), inputs[1].detach(), EPS)
    torch.library.opcheck(torch.ops.mclr_fast.modulate_layer_norm_backward.default, arguments)


def test_compile():
    inputs = [x.requires_grad_() for x in operands(2, 3, 20)]

    def loss(*inputs):
        return of_dtype(torch.bfloat16)(*inputs).float().square().sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*inputs), inputs)
    for value, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(value, truth)


def test_shapes_alone():
    x, vector = torch.empty(2, 3, 8, device="meta"), torch.empty(2, 8, device="meta")
    found = modulate_layer_norm(x, vector, vector, EPS, torch.bfloat16)
    assert found.shape == x.shape and found.dtype == torch.bfloat16 and found.is_meta


@pytest.mark.parametrize(
    ("x", "scale", "text"),
    [
        ((2, 8), (2, 8), r"x must be \[B,L,C\] with C > 0, not \[2, 8\]"),
        ((2, 3, 0), (2, 0), r"with C > 0, not \[2, 3, 0\]"),
        ((2, 3, 8), (1, 8), r"scale must be \[2, 8\], one an image, not \[1, 8\]"),
        ((2, 3, 8), (2, 1, 8), r"scale must be \[2, 8\], one an image, not \[2, 1, 8\]"),
    ],
)
def test_bad_shapes(x, scale, text):
    with pytest.raises(ValueError, match=text):
        modulate_layer_norm(torch.zeros(x), torch.zeros(scale), torch.zeros(scale), EPS, torch.float32)
