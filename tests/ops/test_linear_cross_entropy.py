import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mclr_fast import ops
from mclr_fast.ops import _head_chunks, linear_cross_entropy
from mclr_fast.ops.linear_cross_entropy import _Kernels

SHAPES = [  # hidden, vocabulary
    ((0, 5, 8), 7),
    ((3,), 5),
    ((1, 1), 1),
    ((2, 3, 17), 33),
    ((2, 2, 5, 16), 64),
    ((9, 31), 100),
]


def make(shape, vocab, dtype=torch.float32):
    """hidden, weight, bias, targets; a token of the first and one of the last column among the targets."""
    hidden = torch.randn(shape).to(dtype)
    weight, bias = torch.randn(vocab, shape[-1]).to(dtype), torch.randn(vocab).to(dtype)
    targets = torch.randint(vocab, shape[:-1])
    targets.view(-1)[:2] = torch.tensor([0, vocab - 1])[: targets.numel()]
    return hidden, weight, bias, targets


def near(found, expected, units=8):
    """Products round otherwise where their operands lie otherwise in memory."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    limit = units * torch.finfo(found.dtype).eps * expected.abs().max()
    assert (found - expected).abs().max() <= limit, ((found - expected).abs().max(), limit)


def formula(targets):
    """-log p written as it is defined."""

    def nll(hidden, weight, bias):
        logits = torch.einsum("...d,vd->...v", hidden, weight) + bias
        return logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0]

    return nll


@pytest.fixture(params=[None, 200], ids=["one chunk", "chunks"])
def chunks(request, monkeypatch):
    """Of the shapes here two have more logits than a chunk of 200, and a last chunk that is shorter."""
    if request.param:
        monkeypatch.setattr(_head_chunks, "CHUNK", request.param)


@pytest.mark.parametrize(("shape", "vocab"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, chunks, shape, vocab, dtype):
    hidden, weight, bias, targets = make(shape, vocab, dtype)
    op = lambda h, w, b: linear_cross_entropy(h, w, targets, bias=b)  # noqa: E731
    assert_same(op, formula(targets), hidden / shape[-1] ** 0.5, weight, bias, unit=dtype)


def test_gradcheck():
    hidden, weight, bias, targets = make((2, 3, 4), 5, torch.float64)
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    torch.autograd.gradcheck(lambda h, w, b: linear_cross_entropy(h, w, targets, bias=b), inputs)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_published_vocabulary_and_three(assert_same, monkeypatch, dtype):
    """VAR's 4096, and a rest of registers; three chunks."""
    monkeypatch.setattr(_head_chunks, "CHUNK", 400_000)
    hidden, weight, bias, targets = make((2, 100, 24), 4099, dtype)
    op = lambda h, w, b: linear_cross_entropy(h, w, targets, bias=b)  # noqa: E731
    assert_same(op, formula(targets), hidden / 20, weight, bias, unit=dtype)


COEFFICIENTS = [(), (2,), (2, 1), (2, 3), (1, 3)]  # of targets [2,3]


@pytest.mark.parametrize("shape", COEFFICIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_come_with_known_coefficients(chunks, implementation, shape, dtype):
    hidden, weight, bias, targets = make((2, 3, 17), 100, dtype)
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    coefficients = torch.randn(shape)
    spread = coefficients.reshape(shape + (1,) * (2 - len(shape))).expand(2, 3)

    plain = linear_cross_entropy(hidden, weight, targets, bias=bias)
    known = linear_cross_entropy(hidden, weight, targets, bias=bias, coefficients=coefficients)
    assert known.shape == (2, 3) and known.dtype == torch.float32
    near(known, plain)
    truth = torch.autograd.grad((plain * spread).sum(), inputs)
    found = torch.autograd.grad((known * spread).sum(), inputs, retain_graph=True)
    for a, b in zip(found, truth, strict=True):
        near(a, b)
    for factor in (-2.5, 0.0):
        scaled = torch.autograd.grad((known * spread).sum() * factor, inputs, retain_graph=True)
        for a, b in zip(scaled, found, strict=True):
            near(a, b * factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [None, 1, 2 * 4 * 100])
def test_coefficients_that_a_rows_own_nll_decide(implementation, monkeypatch, chunk, dtype):
    """CC-DPO's: a row's two columns together, however few logits a chunk has; three chunks, then two."""
    if chunk:
        monkeypatch.setattr(_head_chunks, "CHUNK", chunk)
    hidden, weight, bias, targets = make((3, 2, 4, 17), 100, dtype)
    inputs, reference = [x.requires_grad_() for x in (hidden, weight, bias)], torch.randn(3, 2)
    seen = []

    def loss_of(energies, rows=slice(None)):
        margin = (energies - reference[rows]) @ torch.tensor([-1.0, 1.0])
        return -torch.nn.functional.logsigmoid(0.1 * margin).sum()

    def coefficients(nll, rows):
        seen.append((rows.start, rows.stop, nll.shape[1:]))
        with torch.enable_grad():
            energies = nll.sum(2).requires_grad_()
            return torch.autograd.grad(loss_of(energies, rows), energies)[0]

    results = []
    for given in (None, coefficients):
        nll = linear_cross_entropy(hidden, weight, targets, bias=bias, coefficients=given)
        loss = loss_of(nll.sum(2)) * 2
        results.append([nll.detach(), loss.detach(), *torch.autograd.grad(loss, inputs)])
    for found, expected in zip(*reversed(results), strict=True):
        near(found, expected)
    if implementation == "fused":
        rows = {None: [(0, 3)], 1: [(0, 1), (1, 2), (2, 3)], 800: [(0, 1), (1, 2), (2, 3)]}[chunk]
        assert seen == [(*ends, (2, 4)) for ends in rows]


def test_a_function_is_not_called_without_gradients():
    hidden, weight, _, targets = make((2, 3, 4), 5)

    def never(nll, rows):
        raise AssertionError

    plain = linear_cross_entropy(hidden, weight, targets)
    near(linear_cross_entropy(hidden, weight, targets, coefficients=never), plain)
    with torch.no_grad():
        near(linear_cross_entropy(hidden.requires_grad_(), weight, targets, coefficients=never), plain)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_a_function_that_gives_what_does_not_fit(implementation):
    hidden, weight, _, targets = make((2, 3, 4), 5)
    with pytest.raises(ValueError, match=r"^coefficients must be of the first dimensions of \[2, 3\]"):
        linear_cross_entropy(
            hidden.requires_grad_(), weight, targets, coefficients=lambda nll, rows: nll.sum(0)
        )


def test_coefficients_of_nothing_but_zeros():
    hidden, weight, _, targets = make((2, 3, 4), 5)
    nll = linear_cross_entropy(hidden.requires_grad_(), weight, targets, coefficients=torch.zeros(2))
    (grad,) = torch.autograd.grad((nll * 0).sum(), hidden)
    assert torch.equal(grad, torch.zeros_like(hidden))


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_another_gradient_than_the_coefficients_is_refused(implementation):
    hidden, weight, _, targets = make((2, 3, 4), 5)
    nll = linear_cross_entropy(
        hidden.requires_grad_(), weight, targets, coefficients=torch.tensor([1.0, -1.0])
    )
    with pytest.raises(RuntimeError, match="is no multiple of them"):
        nll.sum().backward()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)])
def test_only_what_is_wanted(known, wanted):
    """A frozen head, or frozen states: the other gradients are the same."""
    hidden, weight, bias, targets = make((4, 5, 8), 9)
    inputs = (hidden, weight, bias)
    coefficients = torch.ones(()) if known else None

    def grads():
        trained = [x for x in inputs if x.requires_grad]
        nll = linear_cross_entropy(hidden, weight, targets, bias=bias, coefficients=coefficients)
        return torch.autograd.grad(nll.sum(), trained)

    for x in inputs:
        x.requires_grad_()
    everything = grads()
    for x, is_wanted in zip(inputs, wanted, strict=True):
        x.requires_grad_(bool(is_wanted))
    expected = [grad for grad, is_wanted in zip(everything, wanted, strict=True) if is_wanted]
    for a, b in zip(grads(), expected, strict=True):
        near(a, b)


def test_without_gradients_there_is_no_graph():
    hidden, weight, _, targets = make((2, 3, 4), 5)
    weight.requires_grad_()
    with torch.no_grad():
        nll = linear_cross_entropy(hidden, weight, targets, coefficients=torch.ones(2))
    assert not nll.requires_grad
    assert not linear_cross_entropy(
        hidden, weight.detach(), targets, coefficients=torch.ones(2)
    ).requires_grad


def test_strided_operands():
    hidden, weight, bias, targets = make((4, 6, 16), 32)
    strided = [
        hidden.transpose(0, 1).contiguous().transpose(0, 1),
        weight.t().contiguous().t(),
        torch.stack([bias, bias], dim=1)[:, 0],
    ]
    found, expected = [], []
    for values, (h, w, b) in ((expected, (hidden, weight, bias)), (found, strided)):
        inputs = [x.detach().requires_grad_() for x in (h, w, b)]
        nll = linear_cross_entropy(inputs[0], inputs[1], targets.t().contiguous().t(), bias=inputs[2])
        values += [nll, *torch.autograd.grad(nll.square().sum(), inputs)]
    for a, b in zip(found, expected, strict=True):
        near(a, b)


@pytest.mark.parametrize("known", [False, True])
def test_float32_weights_under_bfloat16_states(known, chunks):
    """Products in bfloat16; the weight's gradient keeps what its chunks' sum has beyond that."""
    hidden, weight, bias, targets = make((3, 40, 16), 50)
    hidden = hidden.bfloat16().requires_grad_()
    weight.requires_grad_(), bias.requires_grad_()
    coefficients = torch.tensor([1.0, -0.5, -0.5])
    nll = linear_cross_entropy(
        hidden, weight, targets, bias=bias, coefficients=coefficients if known else None
    )
    grads = torch.autograd.grad((coefficients[:, None] * nll).sum(), (hidden, weight, bias))
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight.bfloat16(), bias)]
    loss = (coefficients[:, None] * formula(targets)(*exact)).sum()
    for found, truth in zip(grads, torch.autograd.grad(loss, exact), strict=True):
        assert (found - truth).abs().max() <= 0.02 * truth.abs().max()


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_logits_neither_overflow_nor_vanish(shift):
    hidden, weight, bias, targets = make((2, 3, 4), 20)
    hidden.requires_grad_()
    base, moved = (linear_cross_entropy(hidden, weight, targets, bias=b) for b in (bias, bias + shift))
    torch.testing.assert_close(moved, base, rtol=0, atol=4e-3)
    for nll in (base, moved):
        assert torch.autograd.grad(nll.sum(), hidden)[0].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value):
    hidden, weight, _, targets = make((3, 4), 20)
    hidden[1, 2] = value
    weight = weight.abs().requires_grad_()
    nll = linear_cross_entropy(hidden, weight, targets)
    assert nll.isfinite().tolist() == [True, False, True]
    assert not torch.autograd.grad(nll.sum(), weight)[0].isfinite().all()


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_registration_and_compile(implementation):
    hidden, weight, bias, targets = make((6, 8), 12)
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    named = torch.ops.mclr_fast
    torch.library.opcheck(named.linear_cross_entropy.default, (*inputs, targets))
    torch.library.opcheck(named.linear_cross_entropy.default, (*inputs[:2], None, targets))
    coefficients = torch.ones(6)  # opcheck's own loss is a sum
    for wanted in ([True] * 3, [True, False, False]):
        detached = [x.detach().requires_grad_(w) for x, w in zip(inputs, wanted, strict=True)]
        torch.library.opcheck(
            named.linear_cross_entropy_known.default, (*detached, targets, coefficients, wanted)
        )

    def loss(h, w, b, factor, known):
        nll = ops.linear_cross_entropy(h, w, targets, bias=b, coefficients=coefficients if known else None)
        return (nll * coefficients).sum() * factor

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for known in (False, True):
        grads = [torch.autograd.grad(f(*inputs, 2.0, known), inputs) for f in (compiled, loss)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_a_token_that_nobody_looked_at_makes_nan(implementation):
    """As on a GPU, where looking would mean waiting."""
    hidden, weight, _, _ = make((3, 4), 5)
    targets = torch.tensor([1, 5, -1])
    nll, level = torch.ops.mclr_fast.linear_cross_entropy(hidden, weight, None, targets)
    assert nll.isnan().tolist() == [False, True, True]
    grad, _, _ = torch.ops.mclr_fast.linear_cross_entropy_backward(
        torch.ones(3), hidden, weight, None, targets, level, [True, False, False]
    )
    assert grad.isnan().all(dim=1).tolist() == [False, True, True]


WRONG = {
    "weight": torch.zeros(5, 3),
    "targets": torch.zeros(3, 2, dtype=torch.int64),
    "bias": torch.zeros(4),
    "coefficients": torch.zeros(3),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(name):
    hidden, weight, bias, targets = make((2, 3, 4), 5)
    arguments = {"hidden": hidden, "weight": weight, "targets": targets, "bias": bias}
    with pytest.raises(ValueError, match=f"^{name} must be "):
        linear_cross_entropy(**arguments | {name: WRONG[name]})


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_out_of_the_vocabulary(token):
    hidden, weight, _, targets = make((2, 3, 4), 5)
    targets[1, 2] = token
    with pytest.raises(ValueError, match=f"^targets has token {token}, .*vocabulary of 5 .* 0 to 4"):
        linear_cross_entropy(hidden, weight, targets)


def test_targets_of_another_dtype():
    hidden, weight, _, targets = make((2, 3, 4), 5)
    with pytest.raises(ValueError, match=r"^targets must be int64 \[2, 3\] .* not torch.int32"):
        linear_cross_entropy(hidden, weight, targets.int())


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize(("known", "frozen", "products"), [(0, 0, 4), (1, 0, 3), (0, 1, 3), (1, 1, 2)])
def test_products_are_counted_on_the_meta_device(implementation, known, frozen, products):
    with torch.device("meta"):
        hidden, weight = torch.empty(2, 3, 16, requires_grad=True), torch.empty(50, 16)
        weight.requires_grad_(not frozen)
        targets, coefficients = torch.empty(2, 3, dtype=torch.int64), torch.empty(2)
        with FlopCounterMode(display=False, custom_mapping=ops.FLOPS) as counted:
            given = coefficients if known else None
            linear_cross_entropy(hidden, weight, targets, coefficients=given).sum().backward()
    assert hidden.grad.shape == hidden.shape
    assert counted.get_total_flops() == products * 2 * 6 * 50 * 16


class Largest(TorchDispatchMode):
    """The largest tensor that is made inside, in elements."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_no_more_logits_than_a_chunks(implementation):
    """VAR's vocabulary and five images' tokens: the ops' own tensors, seen from inside."""
    tokens, vocab, width = 5 * 680, 4096, 8
    hidden, weight, bias, targets = make((tokens, width), vocab, torch.bfloat16)
    kernels, wanted, coefficients = _Kernels(bias), [True] * 3, torch.ones(tokens)
    with Largest() as largest:
        _, level = _head_chunks.loss(kernels, hidden, weight, targets)
        _head_chunks.gradients(kernels, coefficients, hidden, weight, targets, level, wanted)
        _head_chunks.loss_and_gradients(kernels, hidden, weight, targets, coefficients, wanted)
        by_rows = (hidden, weight, targets.view(5, 680), lambda nll, rows: torch.ones(len(nll)), wanted)
        _head_chunks.loss_and_gradients_by_rows(kernels, *by_rows)
    assert 680 * vocab <= largest.numel <= _head_chunks.CHUNK < tokens * vocab
