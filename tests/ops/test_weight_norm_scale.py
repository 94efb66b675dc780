"""The op computes in float32 whatever the weight's dtype, so torch's gradcheck cannot be applied:
its gradients are compared with those of an independent formula in float64."""

import pytest
import torch

from mclr_fast.ops import weight_norm_scale, weight_norm_scale_grads

SHAPES = [(0, 3, 3, 3), (1, 3), (5, 7), (7, 5, 3, 3), (4, 6, 1, 1)]


def formula(weight, gain):
    rows = weight.flatten(1)
    scale = gain / rows.shape[1] ** 0.5
    return (rows / (1e-4 + rows.square().mean(1, keepdim=True).sqrt()) * scale).view(weight.shape)


def one(weight, gain=None, dtype=None):
    """The op on a single weight."""
    return weight_norm_scale([weight], [gain], [dtype or weight.dtype])[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0])
def test_formula(assert_same, shape, size):
    weight, gain = torch.randn(shape) * size, torch.tensor([0.3])
    assert_same(one, lambda w: formula(w, 1.0), weight)
    assert_same(lambda w: one(w, gain), lambda w: formula(w, gain.double()), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_at_once(assert_same, dtype):
    """Every layer for itself, gains or none, in one call."""
    gains = [None, torch.tensor([0.5]), None, None, torch.tensor([-2.0])]
    dtypes = [torch.float32] * 2 + [dtype] * 3

    def truth(*weights):
        factors = [1.0 if gain is None else gain.double() for gain in gains]
        return [formula(weight, factor) for weight, factor in zip(weights, factors, strict=True)]

    weights = [torch.randn(shape) for shape in SHAPES]
    assert_same(lambda *weights: weight_norm_scale(weights, gains, dtypes), truth, *weights)


def test_a_zero_row_has_no_gradient_of_its_norm():
    weight = torch.zeros(1, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(one(weight), weight, torch.ones(1, 4))
    torch.testing.assert_close(grad, torch.full((1, 4), 1e4 / 2))


def test_gradient_of_the_gain():
    weight, gain = torch.randn(7, 5, 3, 3), torch.tensor([0.3], requires_grad=True)
    cotangent = torch.randn_like(weight)
    (grad,) = torch.autograd.grad(one(weight, gain), gain, cotangent)
    products = formula(weight.double(), 1.0) * cotangent.double()
    assert grad.shape == (1,)
    assert (grad - products.sum()).abs() <= 1e-6 * products.abs().sum()


def test_grads_are_those_of_autograd():
    weights = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    gains = [
        None,
        torch.tensor([0.3], requires_grad=True),
        None,
        torch.tensor([2.0], requires_grad=True),
        None,
    ]
    made = weight_norm_scale(weights, gains, [torch.float32] * 5)
    grads = [torch.randn_like(w) for w in made]
    found_weights, found_gains = weight_norm_scale_grads(grads, weights, gains)
    truths = iter(torch.autograd.grad(made, [*weights, gains[1], gains[3]], grads))
    for found in [*found_weights, *found_gains]:
        if found is not None:
            torch.testing.assert_close(found, next(truths), rtol=1e-6, atol=1e-6)
    assert [found is None for found in found_gains] == [gain is None for gain in gains]


def test_scaled_grads():
    """As if the gradients had been scaled before, gains or none."""
    weights, gains = [torch.randn(7, 5, 3, 3), torch.randn(4, 6)], [None, torch.tensor([0.3])]
    grads = [torch.randn(7, 5, 3, 3), torch.randn(4, 6)]
    found = weight_norm_scale_grads(grads, weights, gains, scale=2**-16)
    truths = weight_norm_scale_grads([grad * 2**-16 for grad in grads], weights, gains)
    for values, expected in zip(found, truths, strict=True):
        for a, b in zip(values, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("gain", [None, torch.zeros(1), torch.tensor([0.3])])
def test_one_element_that_is_not_finite_spoils_its_row(bad, gain):
    """So that one element a row says whether all are finite."""
    weight, grad = torch.randn(3, 4, 3, 3), torch.randn(3, 4, 3, 3)
    weight[1, 0, 0, 0] = 0
    grad[1, 2, 1, 1] = bad
    (grad_weight,), (grad_gain,) = weight_norm_scale_grads([grad], [weight], [gain], scale=2**-16)
    assert not grad_weight[1].isfinite().any()
    assert grad_weight[0].isfinite().all() and grad_weight[2].isfinite().all()
    assert gain is None or not grad_gain.isfinite().any()


def test_results_are_channels_last(assert_same):
    weight = torch.randn(5, 4, 3, 3)
    assert one(weight).is_contiguous(memory_format=torch.channels_last)
    assert_same(one, lambda w: formula(w, 1), weight.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_cast_comes_last(dtype):
    weight, gain = torch.randn(5, 4, 3, 3), torch.tensor([0.3])
    found = one(weight, gain, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, one(weight, gain).to(dtype))


def test_lists_must_be_aligned():
    with pytest.raises(ValueError, match=r"not lists of \[1, 0, 1\]"):
        weight_norm_scale([torch.ones(2, 2)], [], [torch.float32])


def test_opcheck(implementation):
    if implementation == "reference":
        return
    weights = [torch.randn(3, 2, 3, 3, requires_grad=True), torch.randn(4, 5, requires_grad=True)]
    gains = [None, torch.tensor([0.3], requires_grad=True)]
    torch.library.opcheck(torch.ops.mclr_fast.weight_norm_scale.default, (weights, gains, [1, 0]))


def test_compiles(implementation):
    weights, gains = [torch.randn(3, 2, 3, 3), torch.randn(4, 5)], [None, torch.tensor([0.3])]
    compiled = torch.compile(weight_norm_scale, fullgraph=True)
    for found, expected in zip(
        compiled(weights, gains, [torch.bfloat16, torch.float32]),
        weight_norm_scale(weights, gains, [torch.bfloat16, torch.float32]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
