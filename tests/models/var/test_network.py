"""The transformer against arrays recorded from VAR's own, and against itself evaluated one by one."""

import json
import math

import pytest
import torch

from mclr_fast.models.var import PRESETS, VAR

LOGITS = 5e-5  # absolute
LIKELIHOOD = 1e-3  # absolute, of an image's
SMALL = dict(
    vocab_size=16, z_channels=4, num_classes=5, depth=2, embed_dim=32, num_heads=2, patch_nums=(1, 2, 3)
)  # fmt: skip


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("var_logits")
    left_out = ("vqvae/", "quant10/", "topk", "config_json")
    arrays = {name: torch.from_numpy(file[name]) for name in file if not name.startswith(left_out)}
    return arrays | {"config": json.loads(str(file["config_json"]))}


def group(recorded, prefix):
    return {name.removeprefix(prefix): a for name, a in recorded.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def theirs(recorded):
    ctor = recorded["config"]["var"]["ctor"]
    net = VAR(vocab_size=32, z_channels=8, **ctor)
    net.load_state_dict(group(recorded, "var/param/"), strict=True)
    return net.eval()


def small(seed=0, **overrides):
    """A network none of whose weights is 0."""
    torch.manual_seed(seed)
    net = VAR(**SMALL | overrides)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net.eval()


def inputs_of(net, *shape):
    return torch.randn(*shape, net.length - 1, SMALL["z_channels"])


def test_logits(recorded, theirs):
    with torch.no_grad():
        logits = theirs(recorded["label_B"], recorded["x_BLCv_wo_first_l"])
        none = theirs(torch.full((3,), -1), recorded["x_BLCv_wo_first_l"])
        assert torch.equal(none, theirs(torch.full((3,), 10), recorded["x_BLCv_wo_first_l"]))
    torch.testing.assert_close(logits, recorded["logits_BLV"], rtol=0, atol=LOGITS)
    torch.testing.assert_close(none, recorded["logits_uncond_BLV"], rtol=0, atol=LOGITS)


def test_likelihoods(recorded, theirs):
    with torch.no_grad():
        found = theirs.log_prob(recorded["idx_BL"], recorded["label_B"], recorded["x_BLCv_wo_first_l"])
        pairs = torch.stack([recorded["label_B"], torch.full((3,), 10)], dim=1)
        both = theirs.contrast_log_prob(recorded["idx_BL"], pairs, recorded["x_BLCv_wo_first_l"])
    expected = torch.stack([recorded["loglik_B"], recorded["loglik_uncond_B"]], dim=1)
    torch.testing.assert_close(found, recorded["loglik_B"], rtol=0, atol=LIKELIHOOD)
    torch.testing.assert_close(both, expected, rtol=0, atol=LIKELIHOOD)


def test_gradients(recorded, theirs):
    theirs.zero_grad()
    theirs.log_prob(recorded["idx_BL"], recorded["label_B"], recorded["x_BLCv_wo_first_l"]).sum().backward()
    expected = group(recorded, "gradnorm_sum_ll/")
    found = {name: p.grad.norm() for name, p in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    for name, norm in expected.items():
        torch.testing.assert_close(found[name], norm, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_against_its_formulas_in_float64(l2_norm, shared):
    """Both kinds of attention and of AdaLN, written out token by token."""
    net = small(attn_l2_norm=l2_norm, shared_aln=shared)
    if l2_norm:
        net.blocks[0].attn.scale_mul_1H11.data[0, 0] = 5.0  # above ln 100, where it is clamped
    labels, x = torch.tensor([3, 5]), inputs_of(net, 2)
    with torch.no_grad():
        found = net(labels, x)
    torch.testing.assert_close(found.double(), written_out(net, labels, x), rtol=0, atol=LOGITS)


def written_out(net, labels, x):
    """VAR's forward pass as the paper's formulas have it, in float64, of published names."""
    w = {name: value.double() for name, value in net.state_dict().items()}
    linear = lambda name, h: h @ w[f"{name}.weight"].T + w[f"{name}.bias"]  # noqa: E731
    cond = w["class_emb.weight"][labels]
    given = torch.nn.functional.silu(cond)
    first = (cond[:, None] + w["pos_start"]).expand(2, 1, 32)
    h = torch.cat([first, linear("word_embed", x.double())], dim=1)
    levels = net.lvl_1L[0]
    h = h + w["lvl_embed.weight"][levels] + w["pos_1LC"]
    norm = lambda h: (h - h.mean(-1, True)) / (h.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()  # noqa: E731
    gelu = lambda h: 0.5 * h * (1 + torch.tanh((2 / math.pi) ** 0.5 * (h + 0.044715 * h**3)))  # noqa: E731
    for i in range(2):
        name = f"blocks.{i}"
        if net.shared_aln:
            six = linear("shared_ada_lin.1", given).view(2, 6, 32) + w[f"{name}.ada_gss"][0]
        else:
            six = linear(f"{name}.ada_lin.1", given).view(2, 6, 32)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = six[:, :, None].unbind(1)
        qkv = (norm(h) * (1 + scale1) + shift1) @ w[f"{name}.attn.mat_qkv.weight"].T
        q, k, v = qkv.split(32, dim=-1)
        q, v = q + w[f"{name}.attn.q_bias"], v + w[f"{name}.attn.v_bias"]
        seen = torch.zeros_like(h)
        for head in range(2):
            part = slice(16 * head, 16 * head + 16)
            qh, kh, scale = q[..., part], k[..., part], 0.25 / 4
            if f"{name}.attn.scale_mul_1H11" in w:
                qh, kh = qh / qh.norm(dim=-1, keepdim=True), kh / kh.norm(dim=-1, keepdim=True)
                scale = min(w[f"{name}.attn.scale_mul_1H11"][0, head].item(), math.log(100))
                scale = math.exp(scale)
            scores = (scale * qh @ kh.mT).masked_fill(levels[:, None] < levels, -torch.inf)
            seen[..., part] = scores.softmax(-1) @ v[..., part]
        h = h + gamma1 * linear(f"{name}.attn.proj", seen)
        inside = gelu(linear(f"{name}.ffn.fc1", norm(h) * (1 + scale2) + shift2))
        h = h + gamma2 * linear(f"{name}.ffn.fc2", inside)
    scale, shift = linear("head_nm.ada_lin.1", given).view(2, 2, 1, 32).unbind(1)
    return linear("head", norm(h) * (1 + scale) + shift)


def test_rows_of_labels_are_calls_of_one(recorded):
    """Logits, likelihoods and gradients; with images of their own too."""
    net = small()
    labels, x = torch.tensor([[0, 3, -1], [4, 4, 1]]), inputs_of(net, 2)
    tokens = torch.randint(16, (2, net.length))
    apart = torch.stack([net(labels[:, r], x) for r in range(3)], dim=1)
    torch.testing.assert_close(net(labels, x), apart, rtol=0, atol=1e-5)
    nll = net(labels, x, tokens)
    expected = -apart.log_softmax(-1).gather(-1, tokens[:, None, :, None].expand(2, 3, -1, 1)).sum((2, 3))
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    images, theirs = inputs_of(net, 2, 3), torch.randint(16, (2, 3, net.length))
    of_images = torch.stack([net(labels[:, r], images[:, r], theirs[:, r]) for r in range(3)], dim=1)
    torch.testing.assert_close(net(labels, images, theirs), of_images, rtol=1e-5, atol=1e-5)
    own = torch.autograd.grad(nll.sum(), list(net.parameters()), retain_graph=True)
    known = net(labels, x, tokens, coefficients=torch.ones(2, 3))
    for found, wanted in zip(torch.autograd.grad(known.sum(), list(net.parameters())), own, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_finer_scales_are_not_seen():
    net = small()
    x = inputs_of(net, 1)
    changed = x.clone()
    changed[:, 4:] += 1  # the third scale's
    with torch.no_grad():
        one, other = net(torch.tensor([2]), x), net(torch.tensor([2]), changed)
    assert torch.equal(one[:, :5], other[:, :5]) and not torch.allclose(one[:, 5:], other[:, 5:])


def test_labels_are_as_given_in_training_too():
    """Likelihoods are of the labels that are given: the network itself drops none."""
    net = small(cond_drop_rate=1.0).train()
    labels, x = torch.tensor([1, 2]), inputs_of(net, 2)
    with torch.no_grad():
        assert torch.equal(net(labels, x), net.eval()(labels, x))


def test_left_out_branches_are_an_image_s():
    """All labels of an image lose the same branches; in evaluation none is lost."""
    net = small(drop_path_rate=0.9).train()
    x, same = inputs_of(net, 8), torch.full((8, 2), 3)
    with torch.no_grad():
        found = net(same, x)
        torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=1e-5)
        assert not torch.allclose(found, net.eval()(same, x), atol=1e-2)
        u = torch.rand(20000, 4, generator=torch.Generator().manual_seed(0))
        kept = net.kept_branches(u)
        assert kept[:, 0].eq(1).all() and kept[:, 1].unique().tolist() == pytest.approx([0, 10])
        torch.testing.assert_close(kept.mean(0)[1], torch.ones(2), rtol=0, atol=0.1)


def test_bfloat16():
    net, rounded = small(), small(dtype=torch.bfloat16)
    labels, x, tokens = torch.tensor([[1, 2]]), inputs_of(net, 1), torch.randint(16, (1, net.length))
    nll, rough = net(labels, x, tokens), rounded(labels, x, tokens)
    assert rounded(labels, x).dtype == rough.dtype == torch.float32
    torch.testing.assert_close(rough, nll, rtol=0.02, atol=0)
    rough.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in rounded.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "entries", "length"),
    [
        ("var-d16", 310.3, 220, 680),
        ("var-d20", 600.9, 272, 680),
        ("var-d24", 1033.4, 324, 680),
        ("var-d30", 2010.0, 402, 680),
        ("var-d36-s", 2353.9, 446, 2240),
    ],
)
def test_presets_have_the_published_size(name, parameters, entries, length):
    with torch.device("meta"):
        net = VAR(**PRESETS[name].net)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == parameters
    assert len(net.state_dict()) == entries and net.length == length
    assert all(p.ndim > 0 for p in net.parameters())  # FSDP2 takes none of 0 dimensions
    assert PRESETS[name].drop_path_rate == pytest.approx(0.1 * net.head.in_features / 64 / 24)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda net, x, t: net(torch.tensor([6]), x, t), r"labels have 6, and classes .* are -1 to 5"),
        (lambda net, x, t: net(torch.tensor([-2]), x, t), "labels have -2"),
        (lambda net, x, t: net(torch.tensor([1.0]), x, t), "labels must be int64"),
        (
            lambda net, x, t: net(torch.tensor([1]), x, t + 16),
            "targets have .* vocabulary's tokens are 0 to 15",
        ),
        (lambda net, x, t: net(torch.tensor([1]), x, t[:, 1:]), r"targets are \[1, 13\], not \[1, 14\]"),
        (lambda net, x, t: net(torch.tensor([1]), x[:, :8], t), r"inputs are \[1, 8, 4\].*\[1, 13, 4\]"),
        (
            lambda net, x, t: VAR(**SMALL | {"num_heads": 3}),
            "embed_dim = 32 cannot be cut into num_heads = 3",
        ),
    ],
)
def test_mistakes(act, message):
    net = small()
    with pytest.raises(ValueError, match=message):
        act(net, inputs_of(net, 1), torch.randint(16, (1, net.length)))
