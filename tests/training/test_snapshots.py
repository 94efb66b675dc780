"""Snapshots of averages, and averages of other widths reconstructed from them."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mclr_fast import ema as door
from mclr_fast.models import load, read_config, save_model
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.training.snapshots import Snapshot, find_snapshots, reconstruct, write_reconstructions

STEPS = 48
STDS = (0.05, 0.1, 0.07, 0.2)  # the first two are what NVIDIA keeps; the others are what is wanted


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny):
    """A run's folder with snapshots of four averages at every 4th step of 48."""
    from zips import write_zip

    from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
    from mclr_fast.experiments import run as run_module
    from mclr_fast.experiments.run import Run
    from mclr_fast.models import describe
    from mclr_fast.runtime.process.ranks import Ranks

    files = tmp_path_factory.mktemp("kept")
    save_model(files / "base", tiny.tiny_net().state_dict(), describe(tiny.NET))
    data = tiny.TinyData()
    write_zip(files / "data.zip", data.images(range(len(data))), data.labels)
    config = RunConfig(
        recipe="tiny",
        outdir=files / "run",
        data=str(files / "data.zip"),
        init=str(files / "base"),
        objective=ObjectiveConfig(P_mean=0.0, P_std=0.5),
        train=TrainConfig(
            duration=STEPS * tiny.BATCH, batch_size=tiny.BATCH, lr=1e-2, precision="fp32", ema="power",
            ema_stds=STDS, ema_snapshot_every=4 * tiny.BATCH,
        ),
        eval=EvalConfig(num_steps=2),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "write_report", lambda outdir: None)
        Run(config, Ranks("cpu"), tiny.StopAfter(0)).execute()
    return files / "run"


@pytest.fixture
def two_widths(kept, tmp_path):
    """A copy of the run in which only 0.050 and 0.100 were kept."""
    for folder in (kept / "snapshots").iterdir():
        if folder.name.endswith(("-0.050", "-0.100")):
            shutil.copytree(folder, tmp_path / "run" / "snapshots" / folder.name)
    return tmp_path / "run"


def average(run, images, label):
    return load_file(run / "snapshots" / f"mclr-{images:012d}-{label}" / "model.safetensors")


def flat(state):
    return torch.cat([tensor.flatten() for tensor in state.values()])


def test_every_average_at_every_mark(kept, tiny):
    found = find_snapshots(kept)
    times = sorted({s.images_seen for s in found})
    assert times == [4 * i * tiny.BATCH for i in range(1, 13)]
    assert [s.std for s in found] == sorted(STDS) * 12
    said = read_config(found[-1].path)
    assert (said["images_seen"], said["ema_std"], said["objective"]) == (STEPS * tiny.BATCH, 0.2, "mclr")
    net, final = load(found[0].path), load(kept / "checkpoints" / "final-mclr")
    assert net.state_dict().keys() == final.state_dict().keys()
    end = average(kept, STEPS * tiny.BATCH, "0.050")
    assert all(torch.equal(end[name], value) for name, value in final.state_dict().items())


@pytest.mark.parametrize(("std", "images"), [(0.07, 48), (0.2, 48), (0.07, 30)])
def test_reconstruction_is_the_tracked_average(kept, two_widths, tiny, tmp_path, std, images):
    """Of a width that these snapshots do not have, compared with the one that the run tracked."""
    images *= tiny.BATCH
    label = f"{std:.3f}"
    if images != STEPS * tiny.BATCH:  # no snapshot there: compare with its neighbours in time
        ((path, error),) = write_reconstructions(two_widths, [std], tmp_path / "out", images)
        before, after = (flat(average(kept, t * tiny.BATCH, label)) for t in (28, 32))
        middle, found = (before + after) / 2, flat(load_file(path / "model.safetensors"))
        assert (found - middle).norm() < 0.25 * (after - before).norm()
        return
    ((path, error),) = write_reconstructions(two_widths, [std], tmp_path / "out", None)
    assert path == tmp_path / "out" / label and 0 < error < 0.1
    found, truth = load_file(path / "model.safetensors"), average(kept, images, label)
    nearest = min((flat(average(kept, images, other)) - flat(truth)).norm() for other in ("0.050", "0.100"))
    assert (flat(found) - flat(truth)).norm() < 0.05 * nearest
    assert all(torch.equal(found[name], value) for name, value in truth.items() if "freqs" in name)
    said = read_config(path)
    assert (said["ema_std"], said["images_seen"], said["reconstructed_from"]) == (std, images, 24)
    assert said["sampler"] == read_config(kept / "checkpoints" / "final-mclr")["sampler"] != {}
    load(path)


def test_a_kept_average_reconstructs_itself(kept, tiny, tmp_path):
    ((path, error),) = write_reconstructions(kept, [0.1], tmp_path, None)
    truth = average(kept, STEPS * tiny.BATCH, "0.100")
    for name, value in load_file(path / "model.safetensors").items():
        torch.testing.assert_close(value, truth[name], rtol=1e-4, atol=1e-4)
    assert error < 1e-4


def test_golden_reconstruction(golden, tmp_path):
    """NVIDIA's own snapshots (float16) and reconstructions of three widths: to one unit in the last place."""
    z, snapshots, names = golden("edm2_schedule"), [], ("weight", "bias", "freqs")
    for i, (images, std) in enumerate(zip(z["snap/nimg"], z["snap/std"], strict=True)):
        tensors = {name: torch.from_numpy(z[f"snap/{name}"][i].copy()) for name in names}
        (tmp_path / str(i)).mkdir()
        save_file(tensors, tmp_path / str(i) / "model.safetensors")
        snapshots.append(Snapshot(tmp_path / str(i), int(images), float(std)))
    for i, std in enumerate(z["posthoc/out_std"]):
        state, _ = reconstruct(snapshots, float(std), int(z["posthoc/out_nimg"]), ["freqs"])
        for name, tensor in state.items():
            found, truth = (x.view(np.int16).astype(int) for x in (tensor.numpy(), z[f"posthoc/{name}"][i]))
            assert tensor.dtype == torch.float16 and np.abs(found - truth).max() <= (name != "freqs")


def test_snapshots_of_a_resumed_run_are_the_same(tiny_run, files, tiny):
    options = {"ema": "power", "ema_stds": (0.1,), "ema_snapshot_every": 20}
    tiny_run("whole", train=options).execute()
    with pytest.raises(Interrupted):
        tiny_run("stopped", stop_after=3, train=options).execute()
    assert len(find_snapshots(files / "stopped")) == 1
    resumed = tiny_run("stopped", train=options)
    resumed.execute()
    resumed = tiny_run("stopped", train=options)  # once more: nothing is left to do
    resumed.execute()
    whole, stopped = (find_snapshots(files / name) for name in ("whole", "stopped"))
    # Whole steps past the multiples of 20, and the end.
    assert [s.images_seen for s in whole] == [s.images_seen for s in stopped] == [24, 48, 60, 72]
    for a, b in zip(whole, stopped, strict=True):
        a, b = load_file(a.path / "model.safetensors"), load_file(b.path / "model.safetensors")
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_door(two_widths, tmp_path, capsys):
    assert door.main([str(two_widths), "--std", "0.07", "--std", "0.15", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(tmp_path / "out" / s) for s in ("0.070", "0.150")]
    assert "error of the profile" in lines[0]
    load(tmp_path / "out" / "0.150")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--std", "0.5"], "width lies in (0, 0.2886]"),
        (["--std", "0.1", "--std", "0.1001"], "--std must be given, and once for a width"),
        ([], "--std must be given"),
        (["--std", "0.1", "--images", "577"], "--images must be above 0 and at most 576"),
        (["--std", "0.1", "--images", "0"], "--images must be above 0"),
    ],
)
def test_door_mistakes(two_widths, tmp_path, capsys, arguments, words):
    assert door.main([str(two_widths), *arguments, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert not (tmp_path / "out").exists()


def test_a_run_without_snapshots_is_one_clear_line(tmp_path, capsys):
    assert door.main([str(tmp_path), "--std", "0.1", "--out", str(tmp_path / "out")]) == 1
    assert (
        "holds no snapshots of averages: train it with --ema power --ema-snapshot" in capsys.readouterr().err
    )


def test_snapshots_that_are_damaged_are_named(two_widths, tmp_path):
    first = find_snapshots(two_widths)[0].path
    (first / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(RunError, match="do not go together"):
        write_reconstructions(two_widths, [0.1], tmp_path / "out", None)
    said = json.loads((first / "config.json").read_text())
    del said["ema_std"]
    (first / "config.json").write_text(json.dumps(said))
    with pytest.raises(RunError, match=f"{first.name} is not a snapshot of ours"):
        find_snapshots(two_widths)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"ema_snapshot_every": 12}, "--ema-snapshot-every keeps power-function averages: add --ema power"),
        ({"ema_snapshot_every": -1, "ema": "power"}, "--ema-snapshot-every must be at least 0"),
        ({"ema": "power", "ema_stds": (0.1, 0.5)}, r"--ema power: .* lies in \(0, 0\.2886\]"),
    ],
)
def test_training_mistakes(tiny_run, files, train, words):
    with pytest.raises(RunError, match=words):
        tiny_run("run", train=train)
    assert not (files / "run").exists()
