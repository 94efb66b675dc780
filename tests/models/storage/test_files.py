"""Model folders: what `load` reads, and what it says of a folder it cannot."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mclr_fast.config import EvalConfig
from mclr_fast.models import Model, load, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage.files import resolve

ARGUMENTS = dict(img_resolution=8, img_channels=1, label_dim=3, model_channels=8)
ARGUMENTS |= dict(channel_mult=[1, 2], num_blocks=1, logvar_channels=8)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = Precond(**ARGUMENTS)
    with torch.no_grad():
        net.unet.out_gain.fill_(0.5)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"family": "edm2", "net": ARGUMENTS}))
    return tmp_path


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_load_gives_the_files_weights_in_eval_mode(folder, name):
    net = load(folder / name)
    state = load_file(folder / "model.safetensors")
    assert not net.training
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert state["unet.out_gain"].shape == ()
    assert net(torch.randn(2, 1, 8, 8), torch.ones(2), torch.tensor([0, 2])).shape == (2, 1, 8, 8)


def test_of_a_run_it_is_the_best_model_or_the_final_one(folder):
    run = folder / "run" / "checkpoints"
    for name in ("best", "final-denoising", "final-mclr"):
        shutil.copytree(folder, run / name, ignore=shutil.ignore_patterns("run"))
    assert resolve(folder / "run") == run / "best"
    for name in ("best", "final-denoising"):  # without evaluations; then without the control
        shutil.rmtree(run / name)
        assert resolve(folder / "run") == run / "final-mclr"
    (run / "final-mclr").rename(run / "final-denoising")
    assert resolve(folder / "run") == run / "final-denoising"


def test_a_model_is_sampled_with_its_own_numbers():
    said = {"family": "edm2", "net": ARGUMENTS, "sampler": {"num_steps": 12, "sigma_max": 40.0}}
    defaults = Model.of(said).sampler_defaults
    assert (defaults["num_steps"], defaults["sigma_max"], defaults["sigma_min"]) == (12, 40.0, 0.002)
    assert Model.of({"family": "edm2", "net": ARGUMENTS}).sampler_defaults["num_steps"] == 32


def test_the_dtype_may_be_chosen(folder):
    assert load(str(folder), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_half_precision_files_become_float32(folder):
    path = folder / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    assert {value.dtype for value in load(folder).state_dict().values()} == {torch.float32}


def test_a_saved_model_says_how_it_is_sampled(folder):
    """All numbers: its own, then its family's; a VQVAE is not sampled."""
    edm2 = {"num_steps": 32, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "classes": "random"}
    net = {"family": "edm2", "net": ARGUMENTS}
    var = {"family": "var", "net": {}, "sampler": {"top_k": 9}}
    for said, numbers in (
        (net, edm2),
        (net | {"sampler": {"num_steps": 5}}, edm2 | {"num_steps": 5}),
        (var, {"top_k": 9, "top_p": 0.0, "classes": "in turn"}),
        ({"family": "vqvae", "net": {}}, None),
    ):
        save_model(folder / "saved", load(folder).state_dict(), said)
        assert json.loads((folder / "saved" / "config.json").read_text()).get("sampler") == numbers


def test_what_a_run_samples_with_is_what_its_models_say():
    """Its own numbers before the base's, those that it never varies too."""
    base = {"num_steps": 5, "rho": 5.0, "classes": "in turn"}
    model = Model.of({"family": "edm2", "net": {}, "sampler": base})
    said = model.sampler_of_run(EvalConfig(num_steps=9, sigma_max=40.0))
    numbers = {"num_steps": 9, "sigma_min": 0.002, "sigma_max": 40.0, "rho": 7.0}
    assert said == {**numbers, "classes": "in turn"}
    var = Model.of({"family": "var", "net": {}, "sampler": {"top_k": 9}})
    assert var.sampler_of_run(EvalConfig(top_p=0.5)) == {"top_k": 9, "top_p": 0.5, "classes": "in turn"}


def test_a_missing_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no model at .*absent: .*config\.json is missing"):
        load(folder / "absent")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing\. A model is a folder"):
        load(folder)


def test_damaged_weights_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(folder)


def test_weights_of_other_shapes_are_refused(folder):
    (folder / "config.json").write_text(json.dumps({"family": "edm2", "net": ARGUMENTS | {"label_dim": 4}}))
    message = r"does not fit .*'unet\.emb_label\.weight' is \[16, 3\] in the file and \[16, 4\]"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_weights_of_other_names_are_refused(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["unet.out_gain"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"1 tensors are missing or unknown, first 'unet\.out_gain'"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "does not describe a model"),
        ('{"family": "edm2"}', "has no 'net'"),
        ('{"family": "edm3", "net": {}}', "family 'edm3' is unknown; known: edm2"),
        ('{"net": {}}', "family None is unknown"),
    ],
)
def test_a_config_that_describes_no_model_is_refused(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(folder)
