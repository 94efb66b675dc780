"""What shapes do not show of a network: other programs' files carry it there and back."""

import json

import pytest
import torch
from producers import ARGUMENTS as TINY
from producers import net_of
from stand_ins import snapshot, var_state
from states import same

from mclr_fast.models import Model, describe, load, read_config, read_state, save_model
from mclr_fast.models.storage.pickled import read_pickled
from mclr_fast.models.var import VQVAE
from mclr_fast.models.var.presets import PATCH_NUMS
from mclr_fast.models.var.snapshot import vqvae_arguments

STATE = net_of().state_dict()
OTHER = dict(
    img_resolution=8, img_channels=1, label_dim=2, model_channels=32, channel_mult=[1, 2], num_blocks=1
)
OTHER |= dict(attn_resolutions=[8, 4], logvar_channels=4)
HIDDEN = {
    "channels_per_head": 16,
    "label_balance": 0.4,
    "concat_balance": 0.6,
    "res_balance": 0.2,
    "attn_balance": 0.4,
    "clip_act": 2,
    "sigma_data": 0.7,
}


def outputs(net):
    """D of fixed inputs, large enough for clip_act to matter."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 1, 8, 8, generator=generator)
    with torch.no_grad():
        return net(x, torch.tensor([0.5, 2.0]), torch.tensor([0, 1]))


@pytest.mark.parametrize("hidden", [*HIDDEN, "all"])
@pytest.mark.parametrize("to", ["edm2-training-state", "edm2-state-dict"])
@pytest.mark.robust("conversion")
def test_what_shapes_do_not_show_is_carried(tmp_path, door, hidden, to):
    """There and back it is the same network, of the same outputs; their loaders take the file as before."""
    arguments = OTHER | (HIDDEN if hidden == "all" else {hidden: HIDDEN[hidden]})
    net = net_of(**arguments)
    save_model(tmp_path / "base", net.state_dict(), describe(arguments))
    path = tmp_path / "training-state-0000000.pt"
    assert door(tmp_path / "base", "--to", to, path)[0] == 0
    code, err = door(path, tmp_path / "back")
    assert code == 0 and "is taken to be" not in err
    assert read_config(tmp_path / "back")["net"].items() >= arguments.items()
    assert torch.equal(outputs(load(tmp_path / "back")), outputs(net.eval()))
    assert not torch.equal(outputs(load(tmp_path / "back")), outputs(default_of(net, arguments)))
    content = torch.load(path, weights_only=True)
    state = content["net"] if to == "edm2-training-state" else content
    assert net.load_state_dict(state).missing_keys == [] and list(state) == list(net.state_dict())


def default_of(net, arguments):
    """The same weights in a network of EDM2's own arguments."""
    other = net_of(**OTHER, **({} if "channels_per_head" in arguments else {"channels_per_head": 64}))
    if other.state_dict().keys() != net.state_dict().keys():
        other = net_of(**OTHER, channels_per_head=32)
    other.load_state_dict(net.state_dict())
    return other.eval()


@pytest.mark.parametrize("to", ["edm2-training-state", "edm2-state-dict"])
@pytest.mark.robust("conversion")
def test_how_it_is_sampled_and_its_licence_are_carried(tmp_path, door, to):
    """There and back it is sampled with as many steps, and knows its null label and its licence."""
    path = tmp_path / "training-state-0000000.pt"
    assert door("mnist16-base", "--to", to, path)[0] == 0
    assert door(path, tmp_path / "back")[0] == 0
    base, back = read_config("mnist16-base"), read_config(tmp_path / "back")
    assert back["sampler"] == Model.of(base).sampler_defaults and back["null_label"] is True
    assert back["licence"] == base["licence"]
    save_model(tmp_path / "of", STATE, describe(TINY, licence="CC BY-NC-SA 4.0"))
    path.unlink()
    assert door(tmp_path / "of", "--to", to, path)[0] == 0
    assert read_config(path)["licence"] == "CC BY-NC-SA 4.0"


@pytest.mark.robust("conversion")
def test_a_state_that_does_not_say_it(tmp_path, door):
    """EDM2's defaults are taken, and said; a template says them; what contradicts them is refused."""
    arguments = OTHER | {"model_channels": 64, "channels_per_head": 16}
    net = net_of(**arguments)
    save_model(tmp_path / "base", net.state_dict(), describe(arguments))
    path = tmp_path / "x.pt"
    torch.save(dict(net.state_dict()), path)
    code, err = door(path, tmp_path / "taken")
    assert code == 0 and "is taken to be EDM2's own: channels_per_head 64" in err
    assert not torch.equal(outputs(load(tmp_path / "taken")), outputs(net.eval()))
    (tmp_path / "same.pkl").write_bytes(snapshot(net, arguments))
    for i, template in enumerate(("base", "same.pkl")):
        assert door(path, tmp_path / f"said{i}", "--template", tmp_path / template) == (0, "")
        assert torch.equal(outputs(load(tmp_path / f"said{i}")), outputs(net))
    narrow = net_of(**OTHER, channels_per_head=16)
    torch.save(dict(narrow.state_dict()), path)
    code, err = door(path, tmp_path / "no")
    assert code == 1 and "32 channels wide, has attention, so its channels_per_head is not EDM2's 64" in err
    code, err = door(path, tmp_path / "no", "--template", tmp_path / "base")
    assert code == 1 and "does not fit the network" in err and not (tmp_path / "no").exists()


@pytest.mark.robust("conversion")
def test_heads_that_a_snapshot_computes_with(tmp_path):
    """Where its blocks' num_heads and the arguments it was made with disagree, it is refused."""
    from stand_ins import ATTRIBUTES, DEFAULTS

    net = net_of(**OTHER, channels_per_head=32)
    path = tmp_path / "x.pkl"
    ATTRIBUTES["Block"] += ("num_heads", "out_channels")
    DEFAULTS.update(num_heads=2, out_channels=64)
    try:
        path.write_bytes(snapshot(net, OTHER | {"channels_per_head": 32}))
        assert read_config(path)["net"]["channels_per_head"] == 32
        path.write_bytes(snapshot(net, OTHER | {"channels_per_head": 16}))
        with pytest.raises(ValueError, match="blocks of 64 channels have 2 heads, not 4"):
            read_config(path)
    finally:
        ATTRIBUTES["Block"] = ATTRIBUTES["Block"][:-2]
        del DEFAULTS["num_heads"], DEFAULTS["out_channels"]


@pytest.mark.robust("conversion")
def test_var_says_its_heads(tmp_path, door):
    """It says how many there are where attention is not normalised and shapes do not show it."""
    state = var_state(l2_norm=False)
    torch.save(state, tmp_path / "var.pth")
    assert door(tmp_path / "var.pth", tmp_path / "var")[0] == 0
    config = json.loads((tmp_path / "var/config.json").read_text())
    config["net"]["num_heads"] = 4
    (tmp_path / "var/config.json").write_text(json.dumps(config))
    assert door(tmp_path / "var", "--to", "var-pth", tmp_path / "out.pth")[0] == 0
    assert read_config(tmp_path / "out.pth")["net"]["num_heads"] == 4
    assert same(torch.load(tmp_path / "out.pth", weights_only=True), state)


SMALL_VQVAE = dict(z_channels=2, vocab_size=16, ch=32, v_patch_nums=[1, 2, 3], share_quant_resi=4)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.robust("producers")
def test_var_s_vqvae(tmp_path, door, nested):
    """There and back; beside a transformer, as VAR's own runs save it, by its key."""
    state = VQVAE(**SMALL_VQVAE).state_dict()
    path = tmp_path / "vae_ch160v4096z32.pth"
    torch.save({"trainer": {"var_wo_ddp": var_state(), "vae_local": state}} if nested else state, path)
    assert read_pickled(path).config["family"] == ("var" if nested else "vqvae")
    assert door(path, tmp_path / "vae", *(["--part", "vae_local"] if nested else []))[0] == 0
    config, found = read_state(tmp_path / "vae")
    assert config["net"] == SMALL_VQVAE and same(found, state)
    assert same(load(tmp_path / "vae").state_dict(), state)
    assert door(tmp_path / "vae", "--to", "var-pth", tmp_path / "back.pth")[0] == 0
    assert same(torch.load(tmp_path / "back.pth", weights_only=True), state)


def test_vqvae_s_published_shapes():
    """They tell its arguments; others are named."""
    with torch.device("meta"):
        shapes = {name: list(tensor.shape) for name, tensor in VQVAE().state_dict().items()}
    assert vqvae_arguments(shapes) == dict(
        vocab_size=4096, z_channels=32, ch=160, v_patch_nums=list(PATCH_NUMS), share_quant_resi=4
    )
    for change, says in (
        ({"more": [1]}, "'more' is \\[1\\], and unknown"),
        ({"quant_conv.bias": [9]}, "quant_conv"),
    ):
        with pytest.raises(ValueError, match=says):
            vqvae_arguments(shapes | change)
