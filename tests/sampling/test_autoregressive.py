"""Which logits are kept, as VAR's own code keeps them; draws; the sampler of a network that draws tokens."""

import pytest
import torch

from mclr_fast.sampling.autoregressive import (
    AutoregressiveSampler,
    check_kept,
    drawn_at,
    drawn_by,
    gumbels_at,
    gumbels_by,
    kept,
)


def test_their_kept_tokens(golden):
    file = golden("var_logits")
    logits = torch.from_numpy(file["topkp/logits"])
    for k, p, keep in zip(file["topkp/top_k"], file["topkp/top_p"], file["topkp/keep"], strict=True):
        found = kept(logits, int(k), float(p))
        assert torch.equal(found > -torch.inf, torch.from_numpy(keep))
        assert torch.equal(found[found > -torch.inf], logits[found > -torch.inf])


def test_ties_with_the_last_one_stay(golden):
    file = golden("var_logits")
    found = kept(torch.from_numpy(file["topk_ties/logits"]), top_k=3)
    assert torch.equal(found > -torch.inf, torch.from_numpy(file["topk_ties/keep"]))
    assert int((found > -torch.inf).sum(-1).max()) > 3


def test_the_largest_is_always_kept():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert kept(logits, top_p=1e-9).isfinite().tolist() == [[False, True, False]]
    assert kept(logits, top_k=99).equal(logits) and kept(logits).equal(logits)


def test_uniforms_draw_what_they_fall_on():
    """Shares of 0.25, 0, 0.5, 0.25: nothing of share 0 is ever drawn, 1 - 2^-24 draws the last."""
    shares = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(1, 6, 4)
    uniforms = torch.tensor([[9.0, 0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-24]])
    assert drawn_at(uniforms)(shares, 1).tolist() == [[0, 0, 2, 2, 3, 3]]
    last = torch.tensor([[1.0, 0.0]]).expand(1, 1, 2)
    assert drawn_at(torch.tensor([[1 - 2**-24]]))(last, 0).tolist() == [[0]]


@pytest.mark.parametrize("way", ["uniforms", "generator"])
def test_draws_have_their_probabilities(way):
    shares = torch.tensor([0.1, 0.2, 0.0, 0.7]).expand(1, 20000, 4)
    generator = torch.Generator().manual_seed(0)
    draw = drawn_by(generator) if way == "generator" else drawn_at(torch.rand(1, 20000, generator=generator))
    counts = torch.bincount(draw(shares, 0).flatten(), minlength=4) / 20000
    torch.testing.assert_close(counts, shares[0, 0], rtol=0, atol=0.015)


@pytest.mark.parametrize("way", ["keys", "generator"])
def test_gumbel_noise(way):
    """Of mean 0.5772 and variance pi^2 / 6, below 0 as often as in exp(-1)."""
    logits = torch.zeros(2, 50, 400)
    gumbels = gumbels_at(torch.rand(2, 2)) if way == "keys" else gumbels_by(torch.Generator().manual_seed(0))
    noise = gumbels(logits, 0).double()
    assert noise.shape == logits.shape and len(noise.unique()) > 0.99 * noise.numel()
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.02)
    assert noise.var().item() == pytest.approx(1.64493, abs=0.05)
    assert (noise < 0).double().mean().item() == pytest.approx(0.36788, abs=0.01)


def test_noise_depends_on_a_sample_s_key_and_a_token_s_place_alone():
    keys = torch.tensor([[0.25, 0.5], [0.5, 0.25], [0.25, 0.5 + 2**-24]])
    whole = gumbels_at(keys)(torch.zeros(3, 9, 16), 0)
    assert torch.equal(gumbels_at(keys[1:2])(torch.zeros(1, 4, 16), 5), whole[1:2, 5:])
    assert len(whole.unique()) > 420  # no sample has another's, no token the one before


def test_their_generator_s_order():
    """A token's draw comes first, then the noise of all entries."""
    logits = torch.randn(2, 3, 5).masked_fill(torch.rand(2, 3, 5) < 0.3, -torch.inf)
    found = gumbels_by(torch.Generator().manual_seed(4))(logits, 0)
    generator = torch.Generator().manual_seed(4)
    torch.multinomial(logits.softmax(-1).view(-1, 5), 1, replacement=True, generator=generator)
    assert torch.equal(found, -torch.empty(2, 3, 5).exponential_(generator=generator).log())


def test_the_sampler():
    """A stream a seed; unguided it is called once a scale, guided twice; options reach the network."""
    seen = []

    def network(labels, uniforms, **options):
        seen.append(options)
        return drawn_at(uniforms)(torch.full((len(labels), 5, 8), 1 / 8), 0)

    sampler = AutoregressiveSampler(network, 5, 10, torch.device("cpu"), top_k=3, top_p=0.5)
    guided = AutoregressiveSampler(network, 5, 10, torch.device("cpu"), guidance=1.5)
    assert (sampler.nfe, guided.nfe, sampler.guidance, sampler.unguided) == (10, 20, 0.0, 0.0)
    start = sampler.start([7, 2**32 + 7, 8])
    assert (
        start.shape == (3, 5)
        and torch.equal(start[0], start[1])
        and torch.equal(start[2:], sampler.start([8]))
    )
    with sampler.held():
        tokens = sampler(start, torch.tensor([0, 0, 0]))
    assert torch.equal(tokens, (start * 8).long())
    guided(start, torch.tensor([0, 0, 0]))
    assert seen == [dict(guidance=0.0, top_k=3, top_p=0.5), dict(guidance=1.5, top_k=0, top_p=0.0)]


def test_numbers_that_are_none():
    check_kept(0, 0.0)
    check_kept(900, 1.0)
    for numbers in ((-1, 0.0), (0, -0.1), (0, float("nan"))):
        with pytest.raises(ValueError, match="must be"):
            check_kept(*numbers)
