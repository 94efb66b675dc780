"""Sampling: VAR's own tokens exactly, by one generator; and as teacher forcing has it."""

import json

import pytest
import torch

from mclr_fast.models.var import VAR, VQVAE
from mclr_fast.models.var.inference import generate, generate_smooth
from mclr_fast.models.var.scales import ramp
from mclr_fast.sampling.autoregressive import drawn_at, drawn_by

LOGITS = 5e-5  # absolute


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("var_logits")
    arrays = {name: torch.from_numpy(file[name]) for name in file if name.startswith(("infer", "var/"))}
    wanted = [name for name in file if name.startswith("vqvae/param/quantize")]
    arrays |= {name: torch.from_numpy(file[name]) for name in wanted}
    return arrays | {"config": json.loads(str(file["config_json"]))}


@pytest.fixture(scope="module")
def net(recorded):
    net = VAR(vocab_size=32, z_channels=8, **recorded["config"]["var"]["ctor"])
    state = {n.removeprefix("var/param/"): a for n, a in recorded.items() if n.startswith("var/param/")}
    net.load_state_dict(state)
    return net.eval()


@pytest.fixture(scope="module")
def quantizer(recorded):
    quantizer = VQVAE(vocab_size=32, z_channels=8, ch=32, v_patch_nums=(1, 2, 3, 4)).quantizer
    prefix = "vqvae/param/quantize."
    quantizer.load_state_dict(
        {n.removeprefix(prefix): a for n, a in recorded.items() if n.startswith(prefix)}
    )
    return quantizer.eval()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Seen:
    """A way of drawing that keeps the probabilities it is given."""

    def __init__(self, draw):
        self.draw, self.logs = draw, []

    def __call__(self, probabilities, begin):
        self.logs.append(probabilities.log())
        return self.draw(probabilities, begin)


def test_their_greedy_tokens(recorded, net, quantizer):
    found = net.generate(recorded["infer/label_B"], quantizer, cfg=1.5, top_k=1, generator=seeded(0))
    assert torch.equal(found, recorded["infer/idx_BL"]) and found.dtype == torch.int64


def test_their_drawn_tokens(recorded, net, quantizer):
    """Probabilities through top-k and top-p, drawn in their order from one generator."""
    options = dict(cfg=1.5, top_k=8, top_p=0.9)
    found = net.generate(recorded["infer/label_B"], quantizer, **options, generator=seeded(11))
    assert torch.equal(found, recorded["infer_stoch/idx_BL"])


def test_their_unconditional_tokens(recorded, net, quantizer):
    for none in (-1, 10):
        found = net.generate(torch.full((3,), none), quantizer, top_k=1)
        assert torch.equal(found, recorded["infer_uncond/idx_BL"])


def test_labels_drawn_by_the_same_generator(recorded, net, quantizer):
    generator = seeded(11)
    labels = torch.multinomial(torch.full((10,), 0.1), 3, replacement=True, generator=generator)
    assert torch.equal(labels, recorded["infer_nolabel/label_B"])
    found = net.generate(labels, quantizer, top_k=1, generator=generator)
    assert torch.equal(found, recorded["infer_nolabel/idx_BL"])


@pytest.mark.parametrize("case", ["infer_stoch", "infer_uncond"])
def test_logits_before_tokens_are_dropped(recorded, net, quantizer, case):
    """The probabilities that the recorded tokens would be drawn from, scale by scale."""
    labels = recorded["infer/label_B"] if case == "infer_stoch" else torch.full((3,), -1)
    tokens = recorded[f"{case}/idx_BL"]
    seen = Seen(lambda p, begin: tokens[:, begin : begin + p.shape[1]])
    generate(net, labels, quantizer, cfg=1.5 if case == "infer_stoch" else 0.0, draw=seen)
    found, expected = torch.cat(seen.logs, dim=1), recorded[f"{case}/cfg_logits"].log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * LOGITS)


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_cached_calls_are_teacher_forcing(quantizer, l2_norm, shared):
    """Scale by scale with kept keys and values, guided by the ramp, as in one masked call."""
    torch.manual_seed(1)
    sizes = dict(vocab_size=32, z_channels=8, num_classes=5, depth=2, embed_dim=32, num_heads=2)
    net = VAR(**sizes, attn_l2_norm=l2_norm, shared_aln=shared, patch_nums=(1, 2, 3, 4)).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        labels, seen = torch.tensor([0, 4, 2]), Seen(drawn_by(seeded(3)))
        tokens = generate(net, labels, quantizer, cfg=2.0, draw=seen)
        both = torch.stack([labels, torch.full((3,), -1)], dim=1)
        given, none = net(both, quantizer.teacher_inputs(tokens)).unbind(1)
    t = 2.0 * torch.tensor([ramp(k, 4) for k, side in enumerate((1, 2, 3, 4)) for _ in range(side**2)])
    expected = ((1 + t)[:, None] * given - t[:, None] * none).log_softmax(-1)
    torch.testing.assert_close(torch.cat(seen.logs, dim=1), expected, rtol=0, atol=LOGITS)
    assert t[0] == 0 and t[-1] == 2  # the first scale is never guided


def test_calls_of_the_network(net, quantizer, monkeypatch):
    """One a scale; with guidance of twice as many images."""
    seen = []
    for cfg, images in ((0.0, 3), (1.0, 6)):
        seen.clear()
        monkeypatch.setattr(
            net.head, "forward", lambda x: seen.append(x.shape) or torch.zeros(*x.shape[:2], 32)
        )
        net.generate(torch.tensor([1, 2, 3]), quantizer, cfg=cfg)
        assert [tuple(shape[:2]) for shape in seen] == [(images, n) for n in (1, 4, 9, 16)]


def test_an_image_depends_on_its_uniforms_alone(net, quantizer):
    """Streams of their own: however images are batched."""
    uniforms = torch.rand(4, 30, generator=seeded(0))
    labels = torch.tensor([0, 1, 2, 3])
    whole = generate(net, labels, quantizer, cfg=1.0, top_k=20, top_p=0.95, draw=drawn_at(uniforms))
    part = generate(net, labels[2:], quantizer, cfg=1.0, top_k=20, top_p=0.95, draw=drawn_at(uniforms[2:]))
    assert torch.equal(whole[2:], part) and len(whole.unique(dim=0)) == 4


def test_mixtures_of_entries(net, quantizer):
    """VAR's more_smooth: softmax(((1+r) logits + noise) / max(0.27 (1 - 0.95 r), 0.005)), scale by scale."""
    labels, seen = torch.tensor([0, 3]), []

    def gumbels(logits, begin):
        noise = torch.rand(logits.shape, generator=seeded(begin))
        seen.append((logits, noise))
        return noise

    found = generate_smooth(net, labels, quantizer, cfg=1.5, top_k=8, gumbels=gumbels)
    expected = 0
    for k, ((logits, noise), tau) in enumerate(zip(seen, (0.27, 0.1845, 0.099, 0.0135), strict=True)):
        assert int(logits.isfinite().sum(-1).max()) == 8
        mixture = (((1 + k / 3) * logits + noise) / tau).softmax(-1) @ quantizer.embedding.weight
        h = mixture.mT.unflatten(2, (k + 1, k + 1))
        h = torch.nn.functional.interpolate(h, (4, 4), mode="bicubic") if k < 3 else h
        conv = quantizer.quant_resi["qresi_ls"][quantizer.phi_index[k]]
        expected = expected + 0.5 * h + 0.5 * conv(h)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    first, _ = seen[0]
    plain = Seen(drawn_by(seeded(0)))
    generate(net, labels, quantizer, cfg=1.5, top_k=8, draw=plain)
    torch.testing.assert_close(first.log_softmax(-1), plain.logs[0], rtol=0, atol=LOGITS)


def test_mixtures_of_one_entry_are_tokens(net, quantizer):
    """Where noise decides for a token, its features; what comes after it is as after the token."""
    labels = torch.tensor([0, 3])
    tokens = generate(net, labels, quantizer, cfg=1.5, draw=drawn_by(seeded(5)))

    def gumbels(logits, begin):
        own = tokens[:, begin : begin + logits.shape[1]]
        return 1e4 * torch.nn.functional.one_hot(own, 32)

    found = generate_smooth(net, labels, quantizer, cfg=1.5, gumbels=gumbels)
    torch.testing.assert_close(found, quantizer.decode(quantizer.split(tokens)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": torch.tensor([11])}, "labels have 11, and classes"),
        ({"cfg": float("nan")}, "cfg must be finite"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 1.5}, r"top_p must be in \[0, 1\]"),
        ({"quantizer": dict(v_patch_nums=(1, 2, 4))}, r"its patch_nums is \(1, 2, 4\), .* \(1, 2, 3, 4\)"),
        ({"quantizer": dict(vocab_size=16)}, "its vocab_size is 16, the transformer's 32"),
        ({"quantizer": dict(z_channels=4)}, "its z_channels is 4, the transformer's 8"),
    ],
)
def test_mistakes(net, quantizer, options, message):
    own = dict(vocab_size=32, z_channels=8, v_patch_nums=(1, 2, 3, 4))
    if "quantizer" in options:
        from mclr_fast.models.var import Quantizer

        quantizer = Quantizer(**own | options.pop("quantizer"))
    arguments = {"labels": torch.tensor([1]), **options}
    with pytest.raises(ValueError, match=message):
        net.generate(arguments.pop("labels"), quantizer, **arguments)
