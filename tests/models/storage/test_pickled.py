"""Others' files through the door of models: what they are found to be, and what is said of the rest."""

import pickle
from collections import OrderedDict

import pytest
import torch
from stand_ins import ARGUMENTS, VAR, snapshot, training_state, var_state

from mclr_fast.models import load, read_config, read_state, resolve, weights_file
from mclr_fast.models.edm2 import PRESETS, Precond
from mclr_fast.models.storage.pickled import read_pickled

DEFAULTS = dict(sigma_data=0.5, label_balance=0.5, concat_balance=0.5, res_balance=0.3, attn_balance=0.3)


def same(net, state, dtype=torch.float32):
    own = net.state_dict()
    return own.keys() == state.keys() and all(
        torch.equal(value.to(dtype).float(), state[name].float()) and value.shape == state[name].shape
        for name, value in own.items()
    )


def test_a_snapshot_is_its_network_and_what_is_known_of_it(theirs, mark):
    net, path, _ = theirs
    config = read_config(path)
    assert config["net"] == ARGUMENTS | DEFAULTS | {"clip_act": 256, "resample_filter": [1, 1]}
    assert {key: value for key, value in config.items() if key != "net"} == {
        "family": "edm2",
        "format": "edm2-snapshot",
        "licence": "unknown",
        "encoder": "StabilityVAEEncoder",
    }
    _, state = read_state(path)
    assert {value.dtype for value in state.values()} == {torch.float16} and same(net, state, torch.float16)
    loaded = load(path, dtype=torch.bfloat16)
    assert same(net, loaded.state_dict(), torch.float16) and loaded.dtype == torch.bfloat16
    assert not loaded.training and resolve(path) == weights_file(str(path)) == path and not mark.exists()


def test_what_it_computes(theirs):
    """The loaded net is the net, to half precision of its weights."""
    net, path, _ = theirs
    x, sigma, labels = torch.randn(2, 4, 8, 8), torch.tensor([0.5, 2.0]), torch.tensor([0, 2])
    with torch.no_grad():
        assert torch.allclose(load(path)(x, sigma, labels), net.eval()(x, sigma, labels), atol=3e-3)


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("edm2-img64-s-1073741-0.075.pkl", "CC BY-NC-SA 4.0"),
        ("edm2-img512-xs-uncond-2147483-0.045.pkl", "CC BY-NC-SA 4.0"),
        ("edm2-img512-l-ddo.pkl", "CC BY-NC-SA 4.0"),
        ("network-snapshot-0008388-0.100.pkl", "unknown"),
        ("my-edm2-img64-s-1073741-0.075.pkl", "unknown"),
    ],
)
def test_the_licence_follows_from_the_published_name(theirs, name, licence):
    path = theirs[1].rename(theirs[1].with_name(name))
    assert read_config(path)["licence"] == licence


def test_attributes_go_before_arguments(tmp_path):
    """They are what the published network computes with."""
    net = Precond(**ARGUMENTS | {"sigma_data": 0.7, "res_balance": 0.4})
    path = tmp_path / "x.pkl"
    path.write_bytes(snapshot(net, ARGUMENTS | {"sigma_data": 0.7, "res_balance": 0.4}))
    assert load(path).sigma_data == 0.7 and read_config(path)["net"]["res_balance"] == 0.4


def test_a_training_state_gives_its_weights_or_an_average(theirs):
    net, _, path = theirs
    config = read_config(path)
    assert config["format"] == "edm2-training-state" and config["net"].items() >= ARGUMENTS.items()
    weights = torch.load(path, weights_only=False, pickle_module=_WithoutTheirs)
    assert same(load(path), weights["net"]) and not same(net, weights["net"])
    average = read_pickled(path, ema=0.1)
    assert average.config["ema_std"] == 0.1
    assert all(torch.equal(average.state()[name], value) for name, value in weights["ema"]["emas"][1].items())
    with pytest.raises(ValueError, match=r"no average of std 0\.2, but \[0\.05, 0\.1\]"):
        read_pickled(path, ema=0.2)


class _WithoutTheirs:
    """pickle, where their EasyDict is a dict: the test's own view of its own file."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return dict if name == "EasyDict" else super().find_class(module, name)

    load, loads = pickle.load, pickle.loads


@pytest.mark.parametrize("name", ["edm2-img512-xs", "edm2-img64-s"])
def test_arguments_by_names_and_shapes(tmp_path, name):
    """A preset's state_dict, at a sixteenth of its width, tells all its arguments."""
    preset = PRESETS[name].net
    arguments = preset | {"model_channels": 16, "label_dim": 10, "channels_per_head": 64}
    net = Precond(**arguments)
    path = tmp_path / "state.pt"
    torch.save(OrderedDict(net.state_dict()), path)
    found = read_config(path)["net"]
    expected = dict(channel_mult=[1, 2, 3, 4], num_blocks=3, attn_resolutions=[8], logvar_channels=128)
    del arguments["channels_per_head"]
    assert found == arguments | expected | {"sigma_data": 0.5}
    assert same(load(path), net.state_dict())


def test_unusual_widths(tmp_path):
    arguments = ARGUMENTS | dict(channel_mult=[2, 3], channel_mult_noise=1, channel_mult_emb=4, label_dim=0)
    path = tmp_path / "state.pt"
    torch.save(Precond(**arguments).state_dict(), path)
    assert read_config(path)["net"] == arguments | {"sigma_data": 0.5}


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("nested", ["", "var_wo_ddp", "trainer"])
def test_var(tmp_path, l2_norm, shared, nested):
    state = var_state(l2_norm, shared)
    content = {
        "": state,
        "trainer": {"epoch": 1, "trainer": state},
        "var_wo_ddp": {"epoch": 1, "trainer": {"config": {}, "var_wo_ddp": state}, "args": {"depth": 2}},
    }
    path = tmp_path / "var_d2.pth"
    torch.save(content[nested], path)
    config, found = read_state(path)
    assert config["family"] == "var" and config["format"] == "var-pth" and config["licence"] == "unknown"
    assert config["net"] == VAR | dict(attn_l2_norm=l2_norm, shared_aln=shared)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    net = load(path, dtype=torch.bfloat16)
    assert same(net, state) and net.dtype == torch.bfloat16 and not net.training
    assert net.description["net"] == config["net"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), r"its 'head\.bias' is missing, and \[16\] in VAR"),
        (lambda state: state.update(more=torch.ones(1)), r"its 'more' is \[1\], and unknown in VAR"),
        (lambda state: state.update({"pos_start": torch.ones(1, 1, 2)}), r"'pos_start' is \[1, 1, 2\]"),
        (lambda state: state.update(lvl_1L=state["lvl_1L"].flip(1)), "lvl_1L does not count scales"),
        (lambda state: state.update(lvl_1L=torch.zeros(1, 14).long()), r"scales have \[14\] tokens"),
        (lambda state: state.pop("class_emb.weight"), "'class_emb.weight' is missing"),
        (lambda state: state.pop("word_embed.weight"), "neither EDM2's snapshot"),
    ],
)
def test_not_vars(tmp_path, change, message):
    state = var_state()
    change(state)
    path = tmp_path / "x.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=message):
        read_state(path)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=4))
    return path


@pytest.mark.robust("wrappers")
def test_other_networks(tmp_path, theirs):
    """DDO's CIFAR networks, other architectures and other dictionaries are each told what they are."""
    net = theirs[0]
    cases = {
        "class 'VPPrecond'; EDM2's is Precond": snapshot(net, ARGUMENTS, class_name="VPPrecond"),
        "made with 'patch_size'": snapshot(net, ARGUMENTS | {"patch_size": 2}),
        "channel_mult .* num_blocks 99": snapshot(net, ARGUMENTS | {"num_blocks": 99}),
        r"label_dim = \{": snapshot(net, ARGUMENTS | {"label_dim": {"a": 1}}),
        "it holds 'a', 'b': neither": {"a": 1, "b": 2},
        "holds no dictionary but '3'": 3,
        "missing or malformed": {"state": 1, "net": None, "optimizer": 2},
    }
    for message, content in cases.items():
        with pytest.raises(ValueError, match=message):
            read_pickled(write(tmp_path / "x.pkl", content))


@pytest.mark.parametrize(
    "arguments",
    [
        {"model_channels": 128},
        {"model_channels": 1 << 40},
        {"label_dim": 1 << 62},
        {"img_resolution": 1 << 60},
    ],
)
@pytest.mark.robust("conversion")
def test_arguments_that_do_not_fit_the_tensors(tmp_path, theirs, arguments):
    """It is refused before anything of that size is allocated."""
    path = write(tmp_path / "x.pkl", snapshot(theirs[0], ARGUMENTS | arguments))
    with pytest.raises(ValueError, match=r"does not fit the network|does not describe an edm2 network"):
        load(path)


def test_the_state_loads_where_theirs_was(theirs):
    """Back: names, order and shapes are those of the file, so that a strict load takes them."""
    net, path, _ = theirs
    assert list(load(path).state_dict()) == list(net.state_dict()) == list(read_pickled(path).nodes)
    assert len(training_state(net)) > 0
