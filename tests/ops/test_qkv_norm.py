import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import qkv_norm


def formula(qkv, num_heads):
    """Channel head * 3d + c * 3 + i is component c of part i (0: q, 1: k, 2: v)."""
    depth = qkv.shape[1] // (3 * num_heads)
    flat = qkv.flatten(2)
    parts = []
    for i in range(3):
        heads = [flat[:, h * 3 * depth + i : (h + 1) * 3 * depth : 3] for h in range(num_heads)]
        part = torch.stack(heads, dim=1)
        part = part / (1e-4 + part.square().mean(2, keepdim=True).sqrt())
        parts.append(part.transpose(2, 3))
    return tuple(parts)


@pytest.mark.parametrize(
    ("shape", "num_heads"),
    [((0, 12, 2, 2), 2), ((1, 9, 1, 1), 1), ((3, 30, 5, 3), 2), ((2, 45, 2, 2), 5)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, num_heads, dtype):
    qkv = layout(torch.randn(shape, dtype=dtype))
    assert_same(lambda x: qkv_norm(x, num_heads), lambda x: formula(x, num_heads), qkv)


@pytest.mark.parametrize("depth", [3, 8, 16, 17, 64])
@pytest.mark.parametrize("num_heads", [1, 3, 12])
@pytest.mark.parametrize("size", [(1, 1), (12, 11)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depths(assert_same, depth, num_heads, size, dtype):
    qkv = torch.randn(2, 3 * num_heads * depth, *size, dtype=dtype)
    qkv = qkv.contiguous(memory_format=torch.channels_last)
    assert_same(lambda x: qkv_norm(x, num_heads), lambda x: formula(x, num_heads), qkv)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_channel_a_head(layout, dtype):
    """Every result is a sign, and the gradient a difference of equals: it is held to the size of those."""
    qkv = layout(torch.randn(2, 6, 5, 7).to(dtype)).requires_grad_()  # float32 draws: none of them is 0
    exact = qkv.detach().double().requires_grad_()
    results, truths = qkv_norm(qkv, 2), formula(exact, 2)
    eps = torch.finfo(dtype).eps
    for result, truth in zip(results, truths, strict=True):
        assert (result - truth).abs().max() <= 4 * eps
    (grad,) = torch.autograd.grad(sum(results).sum(), qkv)
    (truth,) = torch.autograd.grad(sum(truths).sum(), exact)
    assert ((grad - truth).abs() <= 16 * eps / exact.abs()).all()


def test_gradcheck():
    qkv = torch.randn(1, 12, 1, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: qkv_norm(x, 2), qkv)


def test_zeros_stay_zeros():
    qkv = torch.zeros(1, 24, 2, 2, requires_grad=True)
    results = qkv_norm(qkv, 2)
    assert not any(result.any() for result in results)
    (grad,) = torch.autograd.grad(sum(results).sum(), qkv)
    torch.testing.assert_close(grad, torch.full_like(grad, 1e4))


@pytest.mark.parametrize("used", [0, 1, 2])
def test_unused_results(used):
    qkv = torch.randn(2, 12, 3, 3, requires_grad=True)
    found = torch.autograd.grad(qkv_norm(qkv, 2)[used].sum(), qkv)
    torch.testing.assert_close(found, torch.autograd.grad(formula(qkv, 2)[used].sum(), qkv))


def test_strided():
    """Of the input, and of the gradients that attention sends back."""
    qkv = torch.randn(4, 13, 6, 5)[::2, 1:, ::2].requires_grad_()
    cotangents = [torch.randn(2, 2, 2, 15).transpose(2, 3) for _ in range(3)]
    found, expected = qkv_norm(qkv, 2), formula(qkv, 2)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(results, qkv, cotangents) for results in (found, expected)]
    torch.testing.assert_close(*grads)


def test_fused_results_are_contiguous(implementation):
    results = qkv_norm(torch.randn(2, 12, 3, 5), 2)
    assert [list(result.shape) for result in results] == [[2, 2, 15, 2]] * 3
    assert implementation == "reference" or all(result.is_contiguous() for result in results)


def test_registration(implementation):
    if implementation == "reference":
        pytest.skip("a fused op's registration")
    qkv = torch.randn(2, 12, 3, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.mclr_fast.qkv_norm.default, (qkv, 2))
    grads = tuple(torch.randn(3, 2, 2, 9, 2))
    torch.library.opcheck(torch.ops.mclr_fast.qkv_norm_backward.default, (*grads, qkv.detach(), 2))


def test_compile(implementation):
    if implementation == "reference":
        pytest.skip("plain torch")
    qkv = torch.randn(2, 12, 3, 3, requires_grad=True)

    def total(qkv):
        return sum(y.square().square().sum() for y in qkv_norm(qkv, 2))

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(qkv), qkv), torch.autograd.grad(total(qkv), qkv))


@pytest.mark.parametrize(
    ("shape", "num_heads"), [((2, 12, 3), 2), ((2, 0, 3, 3), 1), ((2, 12, 3, 3), 3), ((2, 12, 3, 3), 0)]
)
def test_errors(shape, num_heads):
    with pytest.raises(ValueError, match=f"a multiple of 3 num_heads = {3 * num_heads}, not"):
        qkv_norm(torch.zeros(shape), num_heads)
