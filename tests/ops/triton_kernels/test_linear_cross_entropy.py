import pytest
import torch

from mclr_fast.ops import _head_chunks
from mclr_fast.ops.triton_kernels import linear_cross_entropy

SHAPES = [(0, 5), (1, 1), (3, 7), (4, 64), (2, 1000), (3, 9001)]  # the last in two tiles


@pytest.fixture
def chunk(randn, device):
    """chunk(shape, dtype): logits, targets, coefficients, and room for nll, peak and total."""

    def chunk(shape, dtype):
        rows, vocab = shape
        targets = torch.randint(vocab, (rows,)).to(device)
        targets[:2] = torch.tensor([vocab - 1, 0])[:rows]
        return 3 * randn(*shape, dtype=dtype), targets, randn(rows), *torch.empty(3, rows, device=device)

    return chunk


def evaluate(logits, targets, coefficients):
    """nll, and coefficients times its gradient."""
    logits = logits.detach().requires_grad_()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nll = wide.logsumexp(1) - wide.gather(1, targets[:, None])[:, 0]
    (grad,) = torch.autograd.grad(nll, logits, coefficients.to(nll.dtype))
    return nll.detach(), grad


@pytest.mark.parametrize("shape", SHAPES)
def test_formula(chunk, near, dtype, shape):
    logits, targets, coefficients, nll, peak, total = chunk(shape, dtype)
    before = logits.clone()
    eager, truth = evaluate(before, targets, coefficients), evaluate(before.double(), targets, coefficients)
    linear_cross_entropy.forward(logits, targets, None, nll, peak, total)
    assert torch.equal(logits, before)
    near(nll, eager[0], truth[0])
    found = linear_cross_entropy.backward(coefficients, logits, targets, peak, total)
    assert found is logits
    near(found, eager[1], truth[1])

    *_, at_once = linear_cross_entropy.forward(before, targets, coefficients, nll, peak, total)
    near(nll, eager[0], truth[0])
    near(at_once, eager[1], truth[1])


def test_a_token_out_of_the_vocabulary_makes_nan(chunk):
    logits, targets, coefficients, nll, peak, total = chunk((4, 40), torch.float32)
    targets[1], targets[2] = -1, 40
    again = logits.clone()
    linear_cross_entropy.forward(logits, targets, coefficients, nll, peak, total)
    linear_cross_entropy.backward(coefficients, again, targets, peak, total)
    expected = [False, True, True, False]
    assert nll.isnan().tolist() == expected
    assert logits.isnan().all(1).tolist() == again.isnan().all(1).tolist() == expected
    assert logits.isnan().any(1).tolist() == again.isnan().any(1).tolist() == expected


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_head_in_chunks(randn, device, near, monkeypatch, with_bias):
    """The products around the kernels, float32, in three chunks: both ways to the gradients."""
    monkeypatch.setattr(_head_chunks, "CHUNK", 200)
    hidden, weight, bias = randn(11, 6), randn(50, 6), randn(50) if with_bias else None
    targets, coefficients = torch.randint(50, (11,)).to(device), randn(11)

    def evaluate(*operands):
        inputs = [x.detach().requires_grad_() for x in operands if x is not None]
        logits = inputs[0] @ inputs[1].T + (inputs[2] if with_bias else 0)
        nll = logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]
        return [nll.detach(), *torch.autograd.grad(nll, inputs, coefficients.to(nll.dtype))]

    eager = evaluate(hidden, weight, bias)
    truth = evaluate(*(None if x is None else x.double() for x in (hidden, weight, bias)))
    kernels, wanted = linear_cross_entropy.Kernels(bias), [True, True, with_bias]
    nll, level = _head_chunks.loss(kernels, hidden, weight, targets)
    once = _head_chunks.loss_and_gradients(kernels, hidden, weight, targets, coefficients, wanted)
    twice = nll, _head_chunks.gradients(kernels, coefficients, hidden, weight, targets, level, wanted)
    for nll, found in (once, twice):
        values = [nll, found.hidden, found.weight, found.bias]
        for value, plain, true in zip(values, eager, truth, strict=False):
            near(value, plain, true)
        assert found.bias.shape == (50 if with_bias else 0,)
