"""Philox against its published known answers, and as the source of a run's numbers."""

import math

import pytest
import torch

from mclr_fast.ops import random_normal, random_uniform, random_words
from mclr_fast.ops.reference.philox import philox4x32

KNOWN_ANSWERS = [  # Random123's kat_vectors, philox4x32 10: counter, key, result
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_known_answers(counter, key, result):
    found = philox4x32(tuple(torch.tensor(w) for w in words(counter)), tuple(words(key)))
    assert found.tolist() == words(result)


def test_words_are_the_blocks_of_their_counter():
    """Counter = (block, stream, position low, position high), key = (seed low, seed high)."""
    seed, stream, position = 0x299F31D0_A4093822, 0x85A308D3, 0x03707344_13198A2E
    found = random_words(seed, stream, torch.tensor([position]), 10)[0].tolist()
    blocks = [
        philox4x32(
            (torch.tensor(block), *map(torch.tensor, (stream, 0x13198A2E, 0x03707344))),
            (0xA4093822, 0x299F31D0),
        )
        for block in range(3)
    ]
    assert found == torch.cat(blocks)[:10].tolist()


@pytest.mark.parametrize("draw", [random_words, random_uniform, random_normal])
def test_a_draw_depends_on_neither_its_batch_nor_its_count(draw):
    position = torch.tensor([5, 0, 2**32, 5, 2**40 + 1])
    together = draw(3, 7, position, 37)
    alone = torch.cat([draw(3, 7, p.view(1), 37) for p in position])
    assert torch.equal(together, alone)
    assert torch.equal(together[0], together[3])
    assert torch.equal(draw(3, 7, position, 9), together[:, :9])


@pytest.mark.parametrize("draw", [random_words, random_uniform, random_normal])
def test_sizes(draw):
    assert draw(0, 0, torch.zeros(0, dtype=torch.int64), 5).shape == (0, 5)
    assert draw(0, 0, torch.tensor([1]), 1).shape == (1, 1)
    assert draw(0, 0, torch.tensor([1, 2]), 0).shape == (2, 0)


def test_every_bit_of_seed_stream_and_position_counts():
    seen = {tuple(random_words(0, 0, torch.tensor([0]), 4)[0].tolist())}
    for bit in range(63):
        seen.add(tuple(random_words(1 << bit, 0, torch.tensor([0]), 4)[0].tolist()))
        seen.add(tuple(random_words(0, 0, torch.tensor([1 << bit]), 4)[0].tolist()))
    for bit in range(32):
        seen.add(tuple(random_words(0, 1 << bit, torch.tensor([0]), 4)[0].tolist()))
    assert len(seen) == 1 + 2 * 63 + 32


def test_uniform_moments():
    u = random_uniform(1, 2, torch.arange(100), 2000).double().flatten()
    n = len(u)
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs(u.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
    counts = torch.histc(u, 16, 0, 1)
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 37.7  # chi-square, 15 degrees: p = 0.001


def test_normal_moments():
    z = random_normal(1, 2, torch.arange(100), 2001).double()
    n = z.numel()
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 4 * math.sqrt(variance / n)
    for lag in (1, 2, 3):  # both numbers of a pair, both pairs of a block
        assert abs((z[:, lag:] * z[:, :-lag]).mean()) < 4 / math.sqrt(n)
    assert abs((z[1:] * z[:-1]).mean()) < 4 / math.sqrt(n)
    assert z.abs().max() <= math.sqrt(2 * math.log(2**24))


def test_normal_is_box_muller_of_the_words():
    words = random_words(9, 1, torch.tensor([4]), 4)[0].tolist()
    found = random_normal(9, 1, torch.tensor([4]), 4)[0]
    expected = []
    for a, b in (words[:2], words[2:]):
        radius = math.sqrt(-2 * math.log(((a >> 8) + 1) / 2**24))
        angle = 2 * math.pi * (b >> 8) / 2**24
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1.2e-7, atol=1e-12)
