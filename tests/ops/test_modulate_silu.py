import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import modulate_silu


def formula(y, emb):
    y = y * (1 + emb)[:, :, None, None]
    return y * y.sigmoid() / 0.596


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 1, 1, 1), (3, 5, 7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shared", [False, True])
def test_formula(assert_same, layout, shape, dtype, shared):
    emb = torch.randn(1 if shared else shape[0], shape[1], dtype=dtype)
    assert_same(modulate_silu, formula, layout(torch.randn(shape, dtype=dtype)), emb)


def test_float32_embedding_of_a_bfloat16_activation():
    y, emb = torch.randn(2, 3, 2, 2).bfloat16(), torch.randn(2, 3)
    found = modulate_silu(y, emb)
    assert found.dtype == torch.bfloat16
    expected = formula(y.double(), emb.double())
    assert (found - expected).abs().max() <= 4 * 2**-8 * expected.abs().max()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradcheck(dropout):
    y = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    emb = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    key = (0, 1, torch.arange(2))
    assert gradcheck(lambda y, emb: modulate_silu(y, emb, dropout, key), (y, emb))


def test_dropout_is_keyed(layout):
    y, emb = layout(torch.randn(4, 5, 7, 3)), torch.randn(4, 5)
    full = modulate_silu(y, emb)
    position = torch.tensor([6, 9, 6, 2**33])
    dropped = modulate_silu(y, emb, 0.25, (1, 2, position))
    keep = dropped != 0
    torch.testing.assert_close(dropped[keep], (full / 0.75)[keep], rtol=1e-6, atol=0)
    assert torch.equal(keep[0], keep[2])
    assert len({tuple(k.flatten().tolist()) for k in keep}) == 3
    alone = modulate_silu(y[3:], emb[3:], 0.25, (1, 2, position[3:]))
    torch.testing.assert_close(alone, dropped[3:], rtol=1e-6, atol=0)
    for key in [(2, 2, position), (1, 3, position)]:
        assert not torch.equal(modulate_silu(y, emb, 0.25, key) != 0, keep)


@pytest.mark.parametrize("key", [None, (0, 0, torch.arange(50))])
def test_dropout_probability(key):
    y, emb = torch.ones(50, 10, 10, 10), torch.zeros(1, 10)
    share = (modulate_silu(y, emb, 0.3, key) == 0).double().mean()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / y.numel()) ** 0.5


def test_dropout_of_nothing():
    y = torch.zeros(0, 2, 3, 3)
    assert modulate_silu(y, torch.zeros(1, 2), 0.5, (0, 0, torch.arange(0))).shape == y.shape
