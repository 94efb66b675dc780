"""The VQVAE against arrays recorded from VAR's own: tokens exactly, features and images closely."""

import json
import re

import pytest
import torch

from mclr_fast.models.var import VQVAE
from mclr_fast.models.var.presets import PATCH_NUMS
from mclr_fast.models.var.quantizer import Quantizer
from mclr_fast.models.var.scales import phi_index

CLOSE = 5e-5  # absolute, of features and images


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("var_logits")
    wanted = ("vqvae/", "quant10/", "idx", "recon", "phi", "inp", "f", "x_BLCv", "infer/")
    arrays = {name: torch.from_numpy(file[name]) for name in file if name.startswith(wanted)}
    return arrays | {"config": json.loads(str(file["config_json"]))}


def group(recorded, prefix):
    return {name.removeprefix(prefix): a for name, a in recorded.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def vqvae(recorded):
    arguments = recorded["config"]["vqvae"]["ctor"]
    del arguments["test_mode"]
    net = VQVAE(**arguments)
    net.load_state_dict(group(recorded, "vqvae/param/"), strict=True)
    return net.eval()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)


def test_names_are_the_published_ones_in_their_order(recorded, vqvae):
    assert len(vqvae.state_dict()) == 324
    assert sorted(vqvae.state_dict()) == sorted(group(recorded, "vqvae/param/"))


def test_tokens_of_images(recorded, vqvae):
    with torch.no_grad():
        close(vqvae.quant_conv(vqvae.encoder(recorded["inp_B3HW"])), recorded["f"])
    tokens = vqvae.encode_tokens(recorded["inp_B3HW"])
    assert all(torch.equal(tokens[k], recorded[f"idx/{k}"]) for k in range(4)) and len(tokens) == 4


def test_images_of_tokens(recorded, vqvae):
    tokens = [recorded[f"idx/{k}"] for k in range(4)]
    close(vqvae.quantizer.decode(tokens).detach(), recorded["fhat"])
    close(vqvae.decode_tokens(tokens), recorded["recon_img"])
    close(vqvae.decode_tokens(recorded["idx_BL"]), recorded["recon_img"])
    close((vqvae.decode_tokens(recorded["infer/idx_BL"]) + 1) / 2, recorded["infer/image"])


def test_what_the_transformer_is_given(recorded, vqvae):
    close(vqvae.teacher_inputs(recorded["idx_BL"]), recorded["x_BLCv_wo_first_l"])


def test_the_published_pyramid(recorded):
    """Ten scales: two of them lie between two ticks in exact arithmetic."""
    quantizer = Quantizer(16, 4, PATCH_NUMS)
    own = quantizer.state_dict()
    quantizer.load_state_dict(own | group(recorded, "quant10/param/"), strict=True)
    assert quantizer.phi_index == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    tokens = torch.cat(quantizer.encode(recorded["quant10/f"]), dim=1)
    assert torch.equal(tokens, recorded["quant10/idx_BL"])
    with torch.no_grad():
        close(quantizer.decode(quantizer.split(tokens)), recorded["quant10/fhat"])
        close(quantizer.teacher_inputs(tokens), recorded["quant10/x_BLCv_wo_first_l"])


def test_which_convolution_follows_a_scale(recorded):
    table = recorded["phi_index_K4"]
    for num_scales in range(2, 17):
        found = [phi_index(k, num_scales, 4) for k in range(num_scales)]
        assert found == table[num_scales, :num_scales].tolist()
    assert [phi_index(k, 3, 2) for k in range(3)] == [0, 0, 1]  # ticks at 1/4 and 3/4
    assert phi_index(0, 1, 4) == 0


def test_hits_of_other_scales_are_left_out(recorded, vqvae):
    """Published weights serve any scales: the file's counts are of its own."""
    net = VQVAE(vocab_size=32, z_channels=8, ch=32, v_patch_nums=(1, 2, 4))
    net.load_state_dict(vqvae.state_dict(), strict=True)
    assert net.quantizer.ema_vocab_hit_SV.shape == (3, 32) and not net.quantizer.ema_vocab_hit_SV.any()
    assert torch.equal(net.quantizer.embedding.weight, vqvae.quantizer.embedding.weight)


def test_the_published_network_has_the_published_size():
    with torch.device("meta"):
        net = VQVAE()
    count = lambda module: sum(p.numel() for p in module.parameters()) / 1e6  # noqa: E731
    assert [round(count(each), 1) for each in (net, net.encoder, net.decoder)] == [108.9, 44.1, 64.7]
    assert net.image_shape == (3, 256, 256) and len(net.state_dict()) == 324


def test_fewer_levels_and_channels(recorded):
    """Of small grey images; by names that the published networks have too."""
    net = VQVAE(
        vocab_size=32, z_channels=8, ch=32, v_patch_nums=(1, 2, 3, 4), ch_mult=(1, 2, 1), img_channels=1
    )
    assert net.image_shape == (1, 16, 16)
    named = lambda state: {re.sub(r"\d+", "#", name) for name in state}  # noqa: E731
    assert named(net.state_dict()) == named(group(recorded, "vqvae/param/"))
    tokens = net.encode_tokens(torch.zeros(2, 1, 16, 16))
    assert [each.shape for each in tokens] == [(2, 1), (2, 4), (2, 9), (2, 16)]
    assert net.decode_tokens(tokens).shape == (2, 1, 16, 16)
    with pytest.raises(ValueError, match=r"images are \[3, 16, 16\], .* of images \[1, 16, 16\]"):
        net.encode_tokens(torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda net: net.encode_tokens(torch.zeros(1, 3, 32, 32)),
            r"images are \[3, 32, 32\].*\[3, 64, 64\]",
        ),
        (lambda net: net.encode_tokens(torch.zeros(1, 1, 64, 64)), r"images are \[1, 64, 64\]"),
        (lambda net: net.decode_tokens(torch.full((1, 30), 32)), r"tokens have 32, and .* 0 to 31"),
        (lambda net: net.decode_tokens(torch.full((1, 30), -1)), "tokens have -1"),
        (lambda net: net.decode_tokens(torch.zeros(1, 29).long()), r"29 tokens, but scales .* have 30"),
        (lambda net: net.teacher_inputs(torch.zeros(1, 680).long()), "680 tokens"),
        (lambda net: net.teacher_inputs(torch.zeros(1, 30)), "must be int64"),
        (lambda net: VQVAE(ch=16), "ch = 16 is no multiple of 32"),
        (lambda net: VQVAE(ch_mult=()), r"ch_mult = \[\] is no list of multiples"),
        (lambda net: VQVAE(ch_mult=(1, 0)), r"ch_mult = \[1, 0\]"),
        (lambda net: VQVAE(v_patch_nums=(1, 3, 2)), "do not rise"),
        (lambda net: VQVAE(v_patch_nums=(0, 1)), "no sides"),
    ],
)
def test_mistakes(vqvae, act, message):
    with pytest.raises(ValueError, match=message):
        act(vqvae)
