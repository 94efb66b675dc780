"""What other programs put around a network's weights: it is taken off, and said."""

import numpy as np
import pytest
import torch
from producers import ARGUMENTS as TINY
from producers import net_of, persistent_net, wrapped, write
from stand_ins import snapshot, training_state_content
from states import same

from mclr_fast.models import Model, load, read_config
from mclr_fast.models.storage.pickled import read_pickled

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
