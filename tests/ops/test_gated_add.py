import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import gated_add


def formula(x, y, gate):
    return x + gate[:, None] * y


def operands(batch, length, channels, dtype=torch.float32):
    x, y = (torch.randn(batch, length, channels) for _ in range(2))
    return x, y.to(dtype), torch.randn(batch, channels)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (1, 1, 1), (3, 5, 7), (2, 70, 48), (2, 33, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, shape, dtype):
    assert_same(gated_add, formula, *operands(*shape, dtype))


def test_gradcheck():
    assert gradcheck(gated_add, [x.double().requires_grad_() for x in operands(2, 3, 4)])


def test_a_stream_keeps_its_precision():
    """What the branch adds is not rounded to the branch's dtype."""
    x, y, gate = operands(2, 5, 40, torch.bfloat16)
    assert gated_add(x, y, gate).dtype == torch.float32
    torch.testing.assert_close(gated_add(x, y, gate), formula(x, y.float(), gate))


def test_gate_of_zero_lets_the_stream_through():
    x, y, _ = operands(2, 5, 40)
    assert torch.equal(gated_add(x, y, torch.zeros(2, 40)), x)


def test_strided(assert_same):
    x, y, _ = operands(4, 6, 20)
    gate = torch.randn(2, 6, 10).unbind(1)[1]
    assert_same(gated_add, formula, x[::2, ::2, ::2], y[::2, ::2, 1::2], gate)


def test_gates_gradient_is_the_same_for_any_number_of_threads(assert_same_for_any_threads):
    assert_same_for_any_threads(gated_add, *operands(2, 200, 256))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(implementation, dtype):
    if implementation == "reference":
        pytest.skip("plain torch")
    x, y, gate = operands(2, 3, 20, dtype)
    inputs = [each.requires_grad_() for each in (x, y, gate)]
    torch.library.opcheck(torch.ops.mclr_fast.gated_add.default, inputs)
    backward = torch.ops.mclr_fast.gated_add_backward.default
    torch.library.opcheck(backward, (torch.randn(2, 3, 20), y.detach(), gate.detach()))


def test_compile():
    inputs = [x.requires_grad_() for x in operands(2, 3, 20, torch.bfloat16)]

    def loss(*inputs):
        return gated_add(*inputs).square().sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*inputs), inputs)
    for value, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(value, truth)


def test_shapes_alone():
    x, gate = torch.empty(2, 3, 8, device="meta"), torch.empty(2, 8, device="meta")
    found = gated_add(x, x.bfloat16(), gate)
    assert found.shape == x.shape and found.dtype == torch.float32 and found.is_meta


@pytest.mark.parametrize(
    ("x", "y", "gate", "text"),
    [
        ((2, 8), (2, 8), (2, 8), r"x must be \[B,L,C\] with C > 0, not \[2, 8\]"),
        ((2, 3, 8), (2, 1, 8), (2, 8), r"y must be \[2, 3, 8\], as x is, not \[2, 1, 8\]"),
        ((2, 3, 8), (2, 3, 8), (1, 8), r"gate must be \[2, 8\], one an image, not \[1, 8\]"),
    ],
)
def test_bad_shapes(x, y, gate, text):
    with pytest.raises(ValueError, match=text):
        gated_add(torch.zeros(x), torch.zeros(y), torch.zeros(gate))
