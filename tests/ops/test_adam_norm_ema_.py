import pytest
import torch

from mclr_fast.ops import adam_norm_ema_, force_weight_norm_, prepare_adam_norm_ema_

SHAPES = [(5, 3, 3, 3), (4, 7), (1,), (0, 3)]
LR, BETAS, EPS = 0.02, (0.9, 0.99), 1e-8


def normalized(weight):
    rows = weight.flatten(1)
    rms = rows.square().mean(1, keepdim=True).sqrt()
    return (rows / (1e-4 + rms)).view(weight.shape)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_adam_then_averages_then_norm(dtype, rtol):
    """Five steps against torch.optim.Adam, then lerp, then normalisation of the weights alone."""
    params = [torch.randn(shape, dtype=dtype) for shape in SHAPES]
    expected = [torch.nn.Parameter(p.clone()) for p in params]
    adam = torch.optim.Adam(expected, lr=LR, betas=BETAS, eps=EPS, foreach=False)
    decays = [(0.0, 0.9, 0.5, 0.99, 1.0), (0.7,) * 5]
    averages = [[p.clone() for p in params] for _ in decays]
    expected_averages = [[p.clone() for p in params] for _ in decays]
    moments = [[torch.zeros_like(p) for p in params] for _ in range(2)]

    for step in range(1, 6):
        grads = [torch.randn(shape, dtype=dtype) for shape in SHAPES]
        betas = [d[step - 1] for d in decays]
        for parameter, grad in zip(expected, grads, strict=True):
            parameter.grad = grad.clone()
        adam.step()
        for kept, beta in zip(expected_averages, betas, strict=True):
            for average, parameter in zip(kept, expected, strict=True):
                average.copy_(beta * average + (1 - beta) * parameter.detach())
        for parameter in expected[:2]:
            parameter.data = normalized(parameter.data)

        given = [g.clone() for g in grads]
        adam_norm_ema_(
            params, grads, *moments, list(zip(averages, betas, strict=True)), [True, True, False, False],
            step=step, lr=LR, betas=BETAS, eps=EPS,
        )  # fmt: skip
        assert all(torch.equal(g, h) for g, h in zip(grads, given, strict=True))

    found = [params, *averages, *moments]
    states = [adam.state[p] for p in expected]
    truths = [expected, *expected_averages]
    truths += [[s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]]
    for left, right in zip(found, truths, strict=True):
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_any_number_of_averages(count):
    """Those beyond a pass's two are of the same values: before the normalisation."""
    outcomes = []
    for chosen in (range(count), [None]):  # all at once; the result that they are averages of
        torch.manual_seed(0)
        params, grads, *moments = ([torch.rand(5, 3), torch.rand(2)] for _ in range(4))
        kept = [([torch.zeros_like(p) for p in params], 0.25 * (i or 0)) for i in chosen]
        adam_norm_ema_(params, grads, *moments, kept, [True, False], step=3, lr=LR, betas=BETAS, eps=EPS)
        outcomes.append((params, kept))
    (params, averages), (expected, [(result, _)]) = outcomes
    for a, b in zip(params, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    for average, beta in averages:
        for a, b in zip(average, result, strict=True):
            torch.testing.assert_close(a, (1 - beta) * b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_prepared_it_is_the_same_to_the_bit(count):
    """Gradients may still change between the preparation and the update."""
    outcomes = []
    for is_prepared in (False, True):
        torch.manual_seed(0)
        params, grads, *moments = ([torch.rand(5, 3), torch.rand(2)] for _ in range(4))
        averages, decays = [[torch.zeros_like(p) for p in params] for _ in range(count)], [0.25] * count
        if is_prepared:
            late = [torch.full_like(grad, torch.nan) for grad in grads]
            update = prepare_adam_norm_ema_(params, late, *moments, averages, [True, False])
            for value, grad in zip(late, grads, strict=True):
                value.copy_(grad)
            update(decays, 3, LR, BETAS, EPS)
        else:
            pairs = list(zip(averages, decays, strict=True))
            adam_norm_ema_(params, grads, *moments, pairs, [True, False], step=3, lr=LR, betas=BETAS, eps=EPS)
        outcomes.append([*params, *moments[0], *moments[1], *(v for average in averages for v in average)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_first_step_moves_every_element_by_lr():
    params, grads = [torch.zeros(3, 2)], [torch.tensor([[1e-3, -1e3], [2.0, -2.0], [1.0, 0.0]])]
    moments = [[torch.zeros(3, 2)], [torch.zeros(3, 2)]]
    adam_norm_ema_(params, grads, *moments, [], [False], step=1, lr=LR, betas=BETAS, eps=EPS)
    torch.testing.assert_close(params[0], -LR * grads[0].sign(), rtol=2e-5, atol=0)


def test_force_weight_norm_():
    """In place, per output channel, outside autograd; rows settle at RMS 1 - 1e-4."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3) * torch.tensor([0.01, 1, 5, 100]).view(4, 1, 1, 1))
    expected, pointer = normalized(weight.data.double()), weight.data_ptr()
    force_weight_norm_([weight])
    assert weight.data_ptr() == pointer and weight.grad_fn is None
    torch.testing.assert_close(weight.data.double(), expected, rtol=1e-6, atol=0)
    for _ in range(3):
        force_weight_norm_([weight])
    rms = weight.data.double().flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, 1 - 1e-4), rtol=0, atol=3e-7)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_opcheck(implementation):
    lists = [[torch.rand(3, 2), torch.rand(1)] for _ in range(6)]
    arguments = (*lists, [True, False], 3, 0.1, 0.9, 0.99, 1e-8, [0.5, 0.5])
    torch.library.opcheck(torch.ops.mclr_fast.adam_norm_ema_.default, arguments)


def test_lists_must_be_aligned():
    one = [torch.ones(1)]
    with pytest.raises(ValueError, match=r"^1 params need .* not \[0, 1, 1, 1\]"):
        adam_norm_ema_(one, [], one, one, [], [False], step=1, lr=1, betas=BETAS, eps=EPS)
