"""The work of the door `sample`: which classes, what guides, where images go, and going on after a kill."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import mclr_fast
from mclr_fast.config import SampleConfig
from mclr_fast.data import open_dataset
from mclr_fast.experiments.one_model.sample_files import generate, sample_files, sheet_path
from mclr_fast.models import describe, interpolate, load, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.sampling import seeded_labels

SAMPLER = {"num_steps": 3, "sigma_max": 20.0}


@pytest.fixture
def folder(tmp_path, tiny):
    """tmp_path with models: base, tuned of it, other (another base), uncond and wide (of other classes)."""
    net, shape = tiny.tiny_net(), {k: tiny.NET[k] for k in ("img_resolution", "img_channels")}

    def save(name, net, arguments=tiny.NET, **said):
        save_model(tmp_path / name, net.state_dict(), describe(arguments, sampler=SAMPLER, **said))

    torch.manual_seed(1)
    save("base", net, null_label=True)
    save("plain", net)
    from mclr_fast.runtime.files import file_sha256

    base = {"model": str(tmp_path / "base"), "sha256": file_sha256(tmp_path / "base" / "model.safetensors")}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    save("tuned", net, base=base)
    for name, classes in (("uncond", 0), ("wide", tiny.NET["label_dim"] + 1)):
        arguments = tiny.NET | shape | {"label_dim": classes}
        save(name, Precond(**arguments).eval(), arguments)
    return tmp_path


class Stop:
    """Asks to stop at a look."""

    def __init__(self, at=None):
        self.at, self.looks = at, 0

    def check(self):
        self.looks += 1
        if self.looks == self.at:
            raise Interrupted


def config(folder, model="base", outdir="out", **options):
    settings = {"seeds": "0-6", "sample_batch": 3, "precision": "fp32", **options}
    for name in ("gnet", "base"):
        settings |= {name: str(folder / settings[name])} if name in settings else {}
    return SampleConfig(model=str(folder / model), outdir=folder / outdir, **settings)


def sample(folder, *args, stop=None, **options):
    return sample_files(config(folder, *args, **options), Ranks("cpu"), stop or Stop())


def images(folder, *args, **options):
    """What the options give, from `generate`."""
    settings = config(folder, *args, **options)
    made = {k: getattr(settings, k) for k in ("sample_batch", "precision", *options) if k != "seeds"}
    labels = made.pop("labels", None)
    return generate(settings.model, range(7), labels and [int(labels)], **made).numpy()


def refused(folder, words, *args, **options):
    with pytest.raises(RunError, match=words) as caught:
        sample(folder, *args, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


def test_classes_are_drawn_by_seed_as_in_edm2_unless_said(folder, tiny):
    sample(folder)
    data = open_dataset(str(folder / "out"))
    shape = (tiny.NET["img_channels"], *[tiny.NET["img_resolution"]] * 2)
    expected = seeded_labels(range(7), shape, tiny.NET["label_dim"])
    assert data.labels.tolist() == expected.tolist() != sorted(expected.tolist())
    np.testing.assert_array_equal(data.images(np.arange(7)), images(folder))


def test_a_model_says_its_own_sampler(folder):
    own, said = images(folder), images(folder, num_steps=3, sigma_max=20.0, rho=7.0, sigma_min=0.002)
    assert np.array_equal(own, said)
    assert not np.array_equal(own, images(folder, num_steps=4))
    path = folder / "base" / "config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"sampler": SAMPLER | {"classes": "in turn"}}))
    sample(folder)
    assert open_dataset(str(folder / "out")).labels.tolist() == [i % 4 for i in range(7)]
    path.write_text(json.dumps(described | {"sampler": {"steps": 3}}))
    with pytest.raises(RunError, match="\"sampler\" has 'steps': 3; known: "):
        sample(folder, outdir="other")


def test_published_files_have_edm2s_defaults():
    from mclr_fast.models import Model

    model = Model.of({"family": "edm2", "net": {}})
    options = model.sampler_options(SampleConfig(model="x"))
    assert (options.num_steps, options.sigma_max, options.sigma_min, options.rho) == (32, 80, 0.002, 7)
    shipped = Model.of(load("mnist16-base").description)
    options = shipped.sampler_options(SampleConfig(model="x", sigma_max=30.0))
    assert (options.num_steps, options.sigma_max) == (12, 30)
    assert shipped.null_label and shipped.sampler_defaults["classes"] == "in turn"


def test_labels_and_balance(folder):
    sample(folder, labels="1-2")
    assert open_dataset(str(folder / "out")).labels.tolist() == [1, 2, 1, 2, 1, 2, 1]
    sample(folder, outdir="even", seeds="0-7", balance=True)
    assert open_dataset(str(folder / "even")).labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    with pytest.raises(RunError, match="7 seeds do not divide evenly over 4 classes"):
        sample(folder, outdir="uneven", balance=True)


def test_what_guides(folder):
    unguided = images(folder)
    by_itself, by_other = (images(folder, guidance=3.0, **o) for o in ({}, {"gnet": "tuned"}))
    unconditional = images(folder, guidance=3.0, gnet="uncond")
    for made in (by_itself, by_other, unconditional):
        assert not np.array_equal(made, unguided)
    assert not np.array_equal(by_itself, by_other)
    np.testing.assert_array_equal(images(folder, "plain", guidance=3.0, gnet="tuned"), by_other)
    inside = images(folder, guidance=3.0, guidance_interval=(0.1, 10.0))
    assert not np.array_equal(inside, by_itself) and not np.array_equal(inside, unguided)


@pytest.mark.parametrize(
    ("words", "model", "options"),
    [
        (r"was not trained without a label.*give a network that does, --gnet", "plain", {"guidance": 2.0}),
        (r"--gnet .*wide knows 5 classes, .*base 4", "base", {"guidance": 2.0, "gnet": "wide"}),
        ("--gnet does nothing at --guidance 1", "base", {"gnet": "tuned"}),
        ("--guidance-interval does nothing at --guidance 1", "base", {"guidance_interval": (1.0, 2.0)}),
        (
            r"--guidance-interval 2\.0 1\.0 must rise",
            "base",
            {"guidance_interval": (2.0, 1.0), "guidance": 2.0},
        ),
        ("--guidance must be finite", "base", {"guidance": float("nan")}),
        ("--seeds: 'a' is no list of integers", "base", {"seeds": "a"}),
        ("--labels 4: the model knows 0 to 3", "base", {"labels": "4"}),
        ("--num-steps must be at least 2", "base", {"num_steps": 1}),
        (r"--sigma-min 0\.002 must lie below --sigma-max 0\.001", "base", {"sigma_max": 0.001}),
        (r"--S-min 2\.0 must lie below --S-max 1\.0", "base", {"S_min": 2.0, "S_max": 1.0}),
        ("--S-churn must be at least 0", "base", {"S_churn": -1.0}),
        ("--base does nothing without --strength", "tuned", {"base": "base"}),
        (r"--strength must be in \[0, 2\]", "tuned", {"strength": 3.0}),
        ("does not say which model it was fine-tuned from", "base", {"strength": 0.5}),
        ("two architectures", "tuned", {"strength": 0.5, "base": "wide"}),
        ("--vae decodes latents", "base", {"vae": "x"}),
        ("no model at .*absent", "absent", {}),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(folder, words, model, options):
    refused(folder, words, model, **options)


def test_the_published_guide_is_named(folder, tiny):
    arguments = tiny.NET | {"label_dim": 1000, "img_channels": 4}
    save_model(folder / "large", Precond(**arguments).state_dict(), describe(arguments))
    refused(folder, r"edm2-img512-xs-uncond-2147483-\*\.pkl is published", "large", guidance=2.0)


def test_strength_lies_between_the_base_and_the_model(folder, tiny):
    base, tuned = images(folder), images(folder, "tuned")
    ends = images(folder, "tuned", strength=0.0), images(folder, "tuned", strength=1.0)
    for end, expected in zip(ends, (base, tuned), strict=True):
        assert np.abs(end.astype(int) - expected).max() <= 1
    half = images(folder, "tuned", strength=0.5)
    assert not np.array_equal(half, base) and not np.array_equal(half, tuned)
    net = interpolate(load(folder / "base"), load(folder / "tuned"), 0.5)
    save_model(folder / "half", net.state_dict(), describe(tiny.NET, sampler=SAMPLER))
    assert np.abs(half.astype(int) - images(folder, "half")).max() <= 1


def test_a_base_that_is_another_by_now_is_refused(folder):
    save_model(folder / "base", load(folder / "wide").state_dict(), load(folder / "wide").description)
    refused(folder, "is not the model that .*tuned was fine-tuned from: its SHA-256", "tuned", strength=0.5)
    for file in (folder / "base").iterdir():
        file.unlink()
    refused(folder, "the base of .*tuned is not there", "tuned", strength=0.5)


@pytest.mark.parametrize("outdir", ["out", "out.zip", "out.npz"])
def test_stopped_it_goes_on_and_makes_nothing_twice(folder, outdir, monkeypatch):
    sample(folder, outdir=f"whole/{outdir}")
    with pytest.raises(Interrupted):
        sample(folder, outdir=outdir, stop=Stop(at=3))
    if outdir != "out":
        assert not (folder / outdir).exists()
    made = []
    from mclr_fast.sampling import HeunSampler

    start = HeunSampler.start
    monkeypatch.setattr(HeunSampler, "start", lambda self, seeds: made.extend(seeds) or start(self, seeds))
    assert sample(folder, outdir=outdir) == 7
    assert made == [6]
    assert sample(folder, outdir=outdir) == 7
    assert made == [6]
    assert sorted(path.name for path in folder.glob(".out*")) == []
    if outdir != "out":
        assert (folder / outdir).read_bytes() == (folder / "whole" / outdir).read_bytes()


def test_a_png_file_a_seed_and_edm2s_folders(folder):
    sample(folder, seeds="999-1001,5", subdirs=True)
    files = sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*.png"))
    assert files == ["000000/000005.png", "000000/000999.png", "001000/001000.png", "001000/001001.png"]
    assert len(open_dataset(str(folder / "out")).labels) == 4


def test_a_folder_of_other_samples_is_left_alone(folder):
    sample(folder, seeds="0-2")
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    for words, options in (
        ("made otherwise .num_steps differ", {"num_steps": 4}),
        ("made otherwise .model differ", {"model": "tuned"}),
        (r"000000\.png is of class \d, and \d is asked for now", {"labels": "0-2", "seeds": "0-2"}),
    ):
        with pytest.raises(RunError, match=words):
            sample(folder, **options)
    assert before == {path: path.read_bytes() for path in (folder / "out").iterdir()}
    sample(folder, seeds="2-4")  # the same, of other seeds: the folder grows
    assert len(open_dataset(str(folder / "out")).labels) == 5


@pytest.mark.parametrize("outdir", ["out.zip", "out.npz"])
@pytest.mark.robust("identity")
def test_a_file_of_other_samples_is_refused(folder, outdir):
    """An OUT that is there, of other seeds, options or classes, is refused; the same one is left as it is."""
    made = {"seeds": "0-3", "labels": "1", "outdir": outdir}
    sample(folder, **made)
    before = (folder / outdir).read_bytes()
    for words, options in (
        ("4 images, not 5", {"seeds": "0-4"}),
        (r"\(other seeds or options\)", {"seeds": "8-11"}),
        ("model" if outdir == "out.zip" else "other seeds or options", {"model": "tuned"}),
        ("num_steps" if outdir == "out.zip" else "other seeds or options", {"num_steps": 4}),
        (r"\(other seeds or classes\)", {"labels": "3"}),
    ):
        with pytest.raises(RunError, match=words) as error:
            sample(folder, **(made | options))
        assert "\n" not in str(error.value) and "is there, and was made otherwise" in str(error.value)
    assert sample(folder, **made) == 4
    assert (folder / outdir).read_bytes() == before


@pytest.mark.parametrize("outdir", ["out.zip", "out.npz"])
@pytest.mark.robust("identity")
def test_a_file_of_an_older_version_is_known_by_what_it_holds(folder, outdir, capsys):
    """Samples of an older version, which bear no mark of their seeds, count where number and classes fit."""
    sample(folder, seeds="0-3", outdir=outdir)
    with zipfile.ZipFile(folder / outdir, "a") as archive:
        archive.comment = b""
    assert sample(folder, seeds="0-3", outdir=outdir) == 4
    assert "is there; remove it" in capsys.readouterr().out
    with pytest.raises(RunError, match="4 images, not 6"):
        sample(folder, seeds="0-5", outdir=outdir)
    (folder / outdir).write_bytes(b"no zip")
    with pytest.raises(RunError, match="none of ours"):
        sample(folder, seeds="0-3", outdir=outdir)


@pytest.mark.parametrize(
    ("seeds", "count"), [("0-3,2", 4), ("5,5,5", 1), ("0-2,1-4,0", 5), ("7,000,7", 2), ("3-3", 1)]
)
@pytest.mark.robust("arguments")
def test_a_seed_that_is_named_twice_is_one_image(folder, seeds, count):
    """`--seeds 0-3,2` is four images in four files, and says so."""
    assert sample(folder, seeds=seeds) == count == len(list((folder / "out").glob("*.png")))


@pytest.mark.parametrize(
    "seeds", ["0-9999999999", "0-99999999999999999999", "1,2-9000000000", "-1", "3-0", ""]
)
@pytest.mark.robust("arguments")
def test_seeds_that_cannot_be_meant(folder, seeds):
    """`--seeds 0-9999999999` is refused in one line before anything is held in memory."""
    words = r"--seeds: '.*' (has more than 10,000,000 integers|is no list of)"
    with pytest.raises(RunError, match=words) as error:
        sample(folder, seeds=seeds)
    assert "\n" not in str(error.value) and not (folder / "out").exists()


def test_a_zip_is_an_edm2_data_set(folder):
    sample(folder, outdir="out.zip")
    data = open_dataset(str(folder / "out.zip"))
    np.testing.assert_array_equal(data.images(np.arange(7)), images(folder))
    assert data.names[0] == "00000/img00000000.png"


def test_an_npz_is_what_adms_evaluator_takes(folder):
    sample(folder, outdir="out.npz")
    with np.load(folder / "out.npz") as arrays:
        assert arrays["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["arr_0"].transpose(0, 3, 1, 2), images(folder))
        assert arrays["arr_1"].tolist() == generate_labels(folder)


def generate_labels(folder):
    sample(folder, outdir="labels.zip")
    with zipfile.ZipFile(folder / "labels.zip") as archive:
        return [label for _, label in json.loads(archive.read("dataset.json"))["labels"]]


@pytest.mark.parametrize("outdir", ["out", "out.zip", "out.npz"])
def test_a_contact_sheet(folder, outdir):
    sample(folder, outdir=outdir, grid=True)
    assert sheet_path(folder / outdir) == folder / "out-grid.png"
    sheet, made = np.asarray(Image.open(folder / "out-grid.png")), images(folder)
    side = made.shape[-1]
    assert sheet.shape[:2] == (3 * side, 3 * side)
    cell = np.atleast_3d(sheet[side : 2 * side, :side]).transpose(2, 0, 1)  # the second row begins with 3
    np.testing.assert_array_equal(cell, made[3])


def test_places_that_are_something_else_are_refused(folder):
    (folder / "a.zip").mkdir()
    (folder / "file").write_text("")
    for outdir, words in (("a.zip", "is a folder already"), ("file", "is a file already")):
        with pytest.raises(RunError, match=words):
            sample(folder, outdir=outdir)
    with pytest.raises(RunError, match="--subdirs is for a folder"):
        sample(folder, outdir="b.zip", subdirs=True)


def test_a_runs_folder_gives_its_best_model(folder):
    kept = folder / "run" / "checkpoints"
    kept.mkdir(parents=True)
    (folder / "run" / "config.json").write_text("{}")
    (folder / "base").rename(kept / "final-mclr")
    final = images(folder, "run")
    (folder / "tuned").rename(kept / "best")
    assert not np.array_equal(final, images(folder, "run"))
    assert load(folder / "run").description["base"]


def test_latents_are_decoded(folder, tiny, tiny_vae):
    arguments = tiny.NET | {"img_channels": 4}
    torch.manual_seed(0)
    net = Precond(**arguments)
    with torch.no_grad():
        net.unet.out_gain.fill_(0.5)
    save_model(folder / "latent", net.state_dict(), describe(arguments, sampler=SAMPLER))
    refused(folder, "makes latents of 4 channels: give their decoder, --vae", "latent")
    sample(folder, "latent", vae=str(tiny_vae))
    made = open_dataset(str(folder / "out"))
    side = 2 * tiny.NET["img_resolution"]
    assert made.image_shape == (3, side, side)
    from mclr_fast.models.codecs import LatentCodec
    from mclr_fast.models.vae import VAEDecoder

    settings = config(folder, "latent", vae=str(tiny_vae))
    from mclr_fast.experiments.ready_model import ready_model

    sampler = ready_model(settings, torch.device("cpu")).sampler
    with torch.no_grad():
        x = sampler(sampler.start([0]), torch.from_numpy(made.labels[:1]))
    expected = VAEDecoder(str(tiny_vae), torch.device("cpu"))(LatentCodec(x.shape[1:]).unscale(x))
    assert np.abs(made.images([0]).astype(int) - expected.numpy()).max() <= 1


def test_generate_takes_a_loaded_model_too(folder):
    net = mclr_fast.load(folder / "base")
    made = mclr_fast.generate(net, range(7), sample_batch=2)
    assert made.dtype == torch.uint8
    assert np.abs(made.numpy().astype(int) - images(folder)).max() <= 1
    one = generate(net, [3], labels=2)
    assert not torch.equal(one, generate(net, [3], labels=1))
    with pytest.raises(ValueError, match=r"needs a model that mclr_fast\.load gave"):
        generate(torch.nn.Linear(1, 1), [0])


def test_precision_is_an_option(folder):
    """bf16 is another network: nearly the same images, and no two precisions in one folder."""
    exact, coarse = images(folder), images(folder, precision="bf16")
    assert 0 < np.abs(exact.astype(int) - coarse).mean() < 5
    sample(folder, seeds="0")
    with pytest.raises(RunError, match=r"made otherwise .dtype differ"):
        sample_files(replace(config(folder), precision="bf16"), Ranks("cpu"), Stop())
