"""EDM2's networks without classes (label_dim 0): converted, sampled, trained with their own loss alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import ARGUMENTS, snapshot, training_state

from mclr_fast import convert, sample
from mclr_fast.experiments import run as run_module
from mclr_fast.experiments.estimates.dry_run import dry_run
from mclr_fast.methods.registry import METHODS
from mclr_fast.models import describe, load, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks

NET = ARGUMENTS | {"label_dim": 0, "img_channels": 3}
FILES = {
    "network-snapshot.pkl": lambda net: snapshot(net, NET),
    "training-state-0000004.pt": training_state,
}


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Precond(**NET).eval()
    with torch.no_grad():
        made.unet.out_gain.fill_(0.5)
    return made


@pytest.fixture
def model(net, tmp_path):
    """A model folder of it."""
    save_model(tmp_path / "model", net.state_dict(), describe(NET))
    return str(tmp_path / "model")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.robust("wrappers")
def test_a_file_of_it_is_converted(net, tmp_path, name):
    """A snapshot or training state without classes becomes a model folder of the same network."""
    (tmp_path / name).write_bytes(FILES[name](net))
    assert convert.main([str(tmp_path / name), str(tmp_path / "out")]) == 0
    found = load(tmp_path / "out")
    assert found.label_dim == 0
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 2.0])
    # A snapshot is float16, and the state is a small step of Adam's further.
    torch.testing.assert_close(found(x, sigma), net(x, sigma), rtol=0, atol=2e-2)
    assert net(x, sigma).std() > 0.2


@pytest.mark.parametrize("to", ["edm2-state-dict", "edm2-training-state"])
@pytest.mark.robust("wrappers")
def test_it_goes_there_and_back(model, net, tmp_path, to):
    """What is written of it for EDM2's programs is read back as the same network."""
    path = str(tmp_path / "training-state-0000000.pt")
    assert convert.main([model, "--to", to, path]) == 0
    assert convert.main([path, str(tmp_path / "back")]) == 0
    for name, value in load(tmp_path / "back").state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


@pytest.mark.parametrize("out", ["out", "out.npz"])
@pytest.mark.robust("wrappers")
def test_it_is_sampled(model, tmp_path, out):
    """`sample` makes its images, which are of class 0, the only one that a data set of them has."""
    arguments = [model, "--seeds", "0-2", "--num-steps", "3", "--device", "cpu"]
    assert sample.main([*arguments, "--outdir", str(tmp_path / out)]) == 0
    if out == "out":
        labels = json.loads((tmp_path / out / "dataset.json").read_text())["labels"]
        assert labels == [[f"00000{seed}.png", 0] for seed in range(3)]
    else:
        assert np.load(tmp_path / out)["arr_0"].shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "0"], "--labels 0: the model has no classes: leave --labels out."),
        (["--labels", "3,5"], "--labels 3,5: the model has no classes"),
        (["--guidance", "2"], "has no classes, so nothing tells it apart from itself without them"),
    ],
)
@pytest.mark.robust("wrappers")
def test_classes_are_not_asked_of_it(model, tmp_path, capsys, arguments, words):
    """--labels, and guidance by itself, are refused in one line that says it has no classes."""
    assert sample.main([model, *arguments, "--outdir", str(tmp_path / "out"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.robust("wrappers")
def test_a_weaker_one_guides_it(model, tmp_path):
    """Autoguidance needs no classes: --gnet takes another network without them."""
    arguments = [model, "--gnet", model, "--guidance", "2", "--seeds", "0", "--num-steps", "2"]
    assert sample.main([*arguments, "--outdir", str(tmp_path / "out"), "--device", "cpu"]) == 0


@pytest.mark.robust("wrappers")
def test_one_label_an_image_makes_a_column(net):
    """Labels [N,1] give [N,1,...] as of any network; several labels an image, which are one, are an error."""
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 2.0])
    labels = torch.zeros(2, 1, dtype=torch.int64)
    assert torch.equal(net(x, sigma, labels), net(x, sigma)[:, None])
    call = net.prepare([0.5], labels, 2)
    scaled = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert call(0, scaled).shape == (2, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="has no classes"):
        net(x, sigma, labels.expand(2, 3))


@pytest.fixture
def unconditional(run_config, files, tiny):
    """unconditional(objective): the tiny run from a base without classes."""
    arguments = tiny.NET | {"label_dim": 0}
    save_model(files / "uncond", Precond(**arguments).state_dict(), describe(arguments))
    return lambda objective: replace(run_config("run", objective), init=str(files / "uncond"))


@pytest.mark.parametrize("objective", [name for name in METHODS if name != "denoising"])
@pytest.mark.robust("wrappers")
def test_contrast_of_classes_is_refused(unconditional, files, tiny, objective):
    """Fine-tuning it by any objective but its own loss is refused in one line, by a dry run too."""
    words = rf"--init .*uncond has no classes \(label_dim 0\), which {objective} needs: give a class-cond"
    with pytest.raises(RunError, match=words) as error:
        run_module.Run(unconditional(objective), Ranks("cpu"), tiny.StopAfter(0))
    with pytest.raises(RunError, match=words):
        dry_run(unconditional(objective))
    assert "\n" not in str(error.value) and not (files / "run").exists()


@pytest.mark.robust("wrappers")
def test_its_own_loss_trains_it(unconditional, files, tiny, monkeypatch):
    """--objective denoising trains it, whatever classes the data have."""
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)
    before = load(files / "uncond").state_dict()
    run_module.Run(unconditional("denoising"), Ranks("cpu"), tiny.StopAfter(0)).execute()
    after = load(files / "run" / "checkpoints" / "final-denoising").state_dict()
    assert not torch.equal(after["unet.out_conv.weight"], before["unet.out_conv.weight"])
    assert all(torch.isfinite(value).all() for value in after.values())
