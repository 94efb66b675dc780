"""What other programs make of a network around its weights, and files that are something else."""

import gzip
import json
import lzma

import numpy as np
import pytest
import torch
from producers import ARGUMENTS as TINY
from producers import net_of, persistent_net, wrapped, write
from safetensors.torch import save_file
from stand_ins import snapshot, training_state_content, var_state

from mclr_fast import convert
from mclr_fast.models import Model, describe, load, read_config, read_state, resolve, save_model
from mclr_fast.models.storage.pickled import read_pickled
from mclr_fast.models.var import VQVAE
from mclr_fast.models.var.presets import PATCH_NUMS
from mclr_fast.models.var.snapshot import vqvae_arguments


@pytest.fixture
def door(capsys):
    """`door(*arguments)` -> exit code, stderr."""

    def call(*arguments):
        return convert.main(list(map(str, arguments))), capsys.readouterr().err

    return call


def same(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


STATE = net_of().state_dict()
AROUND = {  # what is around a state_dict -> (what the file holds, what is said)
    "torch.compile": ({f"_orig_mod.{k}": v for k, v in STATE.items()}, "undone: '_orig_mod.' in its names"),
    "DDP": ({f"module.{k}": v for k, v in STATE.items()}, "undone: 'module.' in its names"),
    "both": ({f"_orig_mod.module.{k}": v for k, v in STATE.items()}, "'_orig_mod.module.' in its names"),
    "a compiled part": ({k.replace("unet.", "unet._orig_mod."): v for k, v in STATE.items()}, "'_orig_mod.'"),
    "FSDP": ({f"_fsdp_wrapped_module.{k}": v for k, v in STATE.items()}, "'_fsdp_wrapped_module.'"),
    "checkpointing": (
        {k.replace(".conv", "._checkpoint_wrapped_module.conv"): v for k, v in STATE.items()},
        "'_checkpoint_wrapped_module.'",
    ),
    "AveragedModel": (
        {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in STATE.items()}},
        "'module.' in its names, 1 other tensors beside it",
    ),
    "a module's name": ({f"denoiser.net.{k}": v for k, v in STATE.items()}, "'denoiser.net.' in its names"),
    "other tensors": (
        {"loss.weight": torch.ones(2), **{f"net.{k}": v for k, v in STATE.items()}},
        "'net.' in its names, 1 other tensors beside it",
    ),
    "ema": ({"ema": STATE, "step": 3}, "its network is under 'ema'"),
    "state_dict": ({"state_dict": {f"model.{k}": v for k, v in STATE.items()}}, "under 'state_dict'"),
    "model": ({"model": STATE, "optimizer": {"state": {}, "param_groups": []}}, "under 'model'"),
    "deeper": ({"checkpoint": {"net": STATE}}, "under 'checkpoint.net'"),
}  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.robust("wrappers")
def test_what_is_around_a_state_is_undone_and_said(tmp_path, door, around):
    """Prefixes and dictionaries around a state are taken off, and a note says which."""
    content, says = AROUND[around]
    path = tmp_path / "x.pt"
    torch.save(content, path)
    code, err = door(path, tmp_path / "base")
    assert code == 0 and says in err and all(line.startswith("note: ") for line in err.splitlines())
    assert same(load(tmp_path / "base").state_dict(), STATE) and same(read_pickled(path).state(), STATE)


@pytest.mark.robust("wrappers")
def test_nothing_is_said_where_nothing_was_done(tmp_path, door):
    """A plain state is read without a note."""
    path = tmp_path / "x.pkl"
    path.write_bytes(snapshot(net_of(), TINY))
    assert door(path, tmp_path / "base") == (0, "")


@pytest.mark.robust("wrappers")
def test_of_several_networks_one_is_named(tmp_path, door):
    """Of the weights and an average one has to be named; an object under "ema" is EDM2's own choice."""
    twice = {name: value * 2 for name, value in STATE.items()}
    path = tmp_path / "x.pt"
    torch.save({"model": STATE, "ema": twice, "epoch": 1}, path)
    code, err = door(path, tmp_path / "no")
    assert code == 1 and "holds several networks, under 'model', 'ema': convert it with --part" in err
    with pytest.raises(ValueError, match="several networks"):
        load(path)
    for part, state in (("model", STATE), ("ema", twice)):
        assert door(path, tmp_path / part, "--part", part)[0] == 0
        assert same(load(tmp_path / part).state_dict(), state)
    code, err = door(path, tmp_path / "no", "--part", "net")
    assert code == 1 and "no network under 'net', but under 'model', 'ema'" in err
    torch.save({f"{prefix}.{k}": v for prefix in ("online", "ema") for k, v in STATE.items()}, path)
    code, err = door(path, tmp_path / "no")
    assert code == 1 and "several networks, under 'online', 'ema'" in err
    assert door(path, tmp_path / "online", "--part", "online")[0] == 0
    net = persistent_net(net_of(), TINY)
    write(path, {"net": wrapped(net), "ema": net}, "zip", 2)
    assert read_pickled(path).config["format"] == "edm2-snapshot"


@pytest.mark.robust("wrappers")
def test_wrappers_in_a_training_state(tmp_path, door):
    """They are taken off around the weights and around each average."""
    content = training_state_content(net_of())
    state, averages = content["net"], content["ema"]["emas"]
    content["net"] = {f"_orig_mod.{name}": value for name, value in state.items()}
    content["ema"]["emas"] = [{f"module.{name}": value for name, value in each.items()} for each in averages]
    path = write(tmp_path / "x.pt", content, "zip", 2)
    code, err = door(path, tmp_path / "net")
    assert code == 0 and same(load(tmp_path / "net").state_dict(), state) and "'_orig_mod.' in its" in err
    code, err = door(path, tmp_path / "ema", "--ema", 0.1)
    assert code == 0 and same(load(tmp_path / "ema").state_dict(), averages[1])
    assert "'module.' in its names" in err


@pytest.mark.robust("wrappers")
def test_networks_in_lists_and_below_averages(tmp_path, door):
    """[net, optimizer] and averages by their std are found; stds may be numpy's."""
    path = tmp_path / "x.pt"
    torch.save([STATE, {"state": {}, "param_groups": []}], path)
    code, err = door(path, tmp_path / "list")
    assert code == 0 and "its network is under '0'" in err
    twice = {name: value * 2 for name, value in STATE.items()}
    torch.save({"emas": {"0.05": STATE, "0.1": twice}}, path)
    assert door(path, tmp_path / "average", "--part", "0.1")[0] == 0
    assert same(load(tmp_path / "average").state_dict(), twice)
    content = training_state_content(net_of(), stds=(np.float32(0.05), np.float32(0.1)))
    write(path, content, "zip", 2)
    assert door(path, tmp_path / "std", "--ema", 0.1)[0] == 0
    assert same(load(tmp_path / "std").state_dict(), content["ema"]["emas"][1])
    code, err = door(path, tmp_path / "no", "--ema", 0.101)
    assert code == 1 and "no average of std 0.101" in err


@pytest.mark.robust("producers")
def test_our_own_network_saved_whole(tmp_path, door):
    """As `load` gave it, it says everything and is read; as its class made it, it is refused."""
    path, net = tmp_path / "x.pt", load("mnist16-base")
    torch.save({"ema": net}, path)
    assert door(path, tmp_path / "back") == (0, "")
    back = load(tmp_path / "back")
    assert same(back.state_dict(), net.state_dict()) and back.state_dict()["unet.out_gain"].shape == ()
    assert all(back.description[key] == net.description[key] for key in ("net", "null_label"))
    assert back.description["sampler"] == Model.of(net.description).sampler_defaults
    torch.save(net_of(), path)
    code, err = door(path, tmp_path / "no")
    assert code == 1 and "does not say its configuration: save its state_dict()" in err


@pytest.mark.robust("wrappers")
def test_names_with_and_without_a_wrapper(tmp_path):
    """Names of which some have a prefix and some not are refused."""
    path = tmp_path / "x.pt"
    torch.save({**STATE, "module.unet.out_gain": torch.ones([])}, path)
    with pytest.raises(ValueError, match=r"'unet\.out_gain' twice, with and without module\."):
        load(path)


@pytest.mark.robust("producers")
def test_traditional_ema(tmp_path, door):
    """Its one average is taken, whatever std is asked for; where there is none that is an error."""
    content = training_state_content(net_of())
    (_, average), content["ema"] = content["ema"]["emas"], None
    path = tmp_path / "training-state-0000001.pt"
    write(path, content, "zip", 2)
    code, err = door(path, tmp_path / "no", "--ema", 0.1)
    assert code == 1 and "no average of std 0.1, but none" in err
    layouts = {
        "nested": {"halflife_Mimg": 0.5, "rampup_ratio": 0.05, "ema": average},
        "endless": {"halflife_Mimg": float("inf"), "rampup_ratio": None, "ema": average},
        "flat": average,
    }
    for name, content["ema"] in layouts.items():
        write(path, content, "zip", 2)
        code, err = door(path, tmp_path / name, "--ema", 0.1)
        assert code == 0 and "its average is EDM2's traditional one" in err
        assert same(load(tmp_path / name).state_dict(), average)
    assert read_config(tmp_path / "nested")["ema_halflife_Mimg"] == 0.5
    assert door(path, tmp_path / "trained")[0] == 0 and same(
        load(tmp_path / "trained").state_dict(), content["net"]
    )


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


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 560123456\n"
THINGS = {
    "a git-lfs pointer": (POINTER, "a git-lfs pointer, 134 bytes that stand for a file of 560,123,456"),
    "a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page (HTML), not the file"),
    "a page, with a BOM": (b"\xef\xbb\xbf<html lang=en>", "a web page (HTML)"),
    "a server's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, such as"),
    "JSON": (b'{"error": "not found"}', "JSON, such as a server's error message"),
    "gzip": (gzip.compress(b"x"), "compressed by gzip: unpack it first"),
    "xz": (lzma.compress(b"x"), "compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "compressed by zstd"),
    "nothing": (b"", "it is empty"),
    "zeros": (bytes(5000), "zeros at its start"),
    "numpy's": (b"\x93NUMPY\x01\x00v\x00", "an array of numpy's (.npy)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "a text": (b"Invalid username or password.", "a text that begins 'Invalid username or password.'"),
    "a text of opcodes": (b"Not Found", "a text that begins 'Not Found'"),
    "a tar": (b"x" * 257 + b"ustar" + bytes(500), "a tar archive"),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.robust("wrappers")
def test_a_file_that_is_something_else_is_named_for_what_it_is(tmp_path, door, thing):
    """One line names it: a git-lfs pointer, a page of HTML, an archive, an image, zeros, nothing."""
    content, says = THINGS[thing]
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    code, err = door(path, tmp_path / "base")
    assert code == 1 and says in err and err.count("\n") == 1 and not (tmp_path / "base").exists()


@pytest.mark.robust("wrappers")
def test_zips_that_torch_save_did_not_write(tmp_path):
    """They are named: numpy's arrays, a TorchScript program, a data set."""
    import zipfile

    path, whole = tmp_path / "x.pt", tmp_path / "whole.pt"
    torch.save(STATE, whole)
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="its end is missing: its download or copy was cut short"):
        load(path)
    for names, says in (
        (
            ["a/00000/img.png", "dataset.json"],
            "zip of 2 files, the first 'a/00000/img.png', such as a data set",
        ),
        (["mu.npy"], "a zip of numpy arrays"),
        (["m/data.pkl", "m/constants.pkl"], "a TorchScript program"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        with pytest.raises(ValueError, match=says):
            load(path)


@pytest.mark.robust("wrappers")
def test_a_folder_s_files_are_named_too(tmp_path):
    """A clone without git-lfs and a page saved as config.json are named for what they are."""
    save_model(tmp_path, STATE, describe(TINY))
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged but a git-lfs pointer"):
        load(tmp_path)
    (tmp_path / "config.json").write_bytes(b"<!doctype html>")
    with pytest.raises(ValueError, match=r"config\.json is not JSON but a web page"):
        load(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.robust("wrappers")
def test_a_config_with_a_byte_order_mark(tmp_path, encoding):
    """It is read as Windows editors and shells write it."""
    save_model(tmp_path, STATE, describe(TINY))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_bytes(text.encode(encoding))
    assert same(load(tmp_path).state_dict(), STATE)


@pytest.mark.parametrize(
    "name", ["NET.PKL", "net.pkl?download=true", "net.bin", "net", "net.pkl.1", "net.ckpt", "edm2 (1).Pt"]
)
@pytest.mark.robust("wrappers")
def test_a_file_is_read_whatever_its_name(tmp_path, name):
    """It is known by its content: .PKL, a download's query, no suffix."""
    path = tmp_path / name
    path.write_bytes(snapshot(net_of(), TINY))
    assert resolve(path) == resolve(str(path)) == path
    assert read_config(path)["format"] == "edm2-snapshot"


@pytest.mark.robust("wrappers")
def test_safetensors_by_themselves(tmp_path):
    """An error says which file has to lie beside them."""
    save_file(STATE, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"it is safetensors: give the folder"):
        load(tmp_path / "net.safetensors")
    save_model(tmp_path / "base", STATE, describe(TINY))
    for name in ("config.json", "model.safetensors"):
        assert resolve(tmp_path / "base" / name) == tmp_path / "base"


def test_the_licence_of_a_published_file_saved_under_its_address(tmp_path):
    path = tmp_path / "edm2-img64-s-1073741-0.075.PKL?download=true"
    path.write_bytes(snapshot(net_of(), TINY))
    assert read_config(path)["licence"] == "CC BY-NC-SA 4.0"
