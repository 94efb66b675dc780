"""VAR as training, sampling and evaluation know it; and the VQVAE that a model names."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mclr_fast import prepare
from mclr_fast.config import ObjectiveConfig, SamplerConfig
from mclr_fast.data import open_dataset
from mclr_fast.models import Model, describe, load, save_model
from mclr_fast.models.rows import Rows
from mclr_fast.models.var import PRESETS, VQVAE

SIDES = [1, 2, 3]
NET = dict(
    vocab_size=16, z_channels=4, num_classes=5, depth=2, embed_dim=32, num_heads=2, patch_nums=SIDES
)  # fmt: skip
VQ = dict(vocab_size=16, z_channels=4, ch=32, v_patch_nums=SIDES)


@pytest.fixture(scope="module")
def vqvae():
    torch.manual_seed(0)
    return VQVAE(**VQ).eval()


@pytest.fixture(scope="module")
def folder(vqvae, tmp_path_factory):
    """A model's folder with its VQVAE inside."""
    folder = tmp_path_factory.mktemp("models") / "small"
    model = Model.of(describe(NET, "var"))
    torch.manual_seed(1)
    net = model.build()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    save_model(folder, net.state_dict(), describe(NET | {"vqvae": "vqvae"}, "var"))
    save_model(folder / "vqvae", vqvae.state_dict(), describe(VQ, "vqvae"))
    return folder


@pytest.fixture
def net(folder):
    return load(folder)


@pytest.fixture
def model(net):
    return Model.of(net.description)


def rows_of(x, labels, scale=1.0):
    num_columns = labels.shape[1]
    return Rows(
        x, labels, x.ndim == 2, {}, torch.arange(len(x)), 0, torch.tensor(scale), torch.arange(num_columns),
        num_columns,
    )  # fmt: skip


class Stored:
    """A data set of stored arrays."""

    def __init__(self, arrays):
        self.arrays, self.image_shape = arrays, arrays.shape[1:]

    def __len__(self):
        return len(self.arrays)

    def images(self, indices):
        return self.arrays[indices]


def test_facts(model):
    facts = model.facts
    assert (facts.shape, facts.num_classes, facts.dtype) == ((14,), 5, torch.int64)
    assert model.law(ObjectiveConfig())(0, torch.arange(3)) == {} and model.family.gives == {"energies"}
    assert model.family.complete({"patch_nums": (1, 2)})["patch_nums"] == [1, 2]
    assert "vqvae" not in model.family.complete(model.arguments)
    assert model.family.beside(model.arguments) == (model.arguments["vqvae"],)
    assert model.family.beside(PRESETS["var-d16"].net) == ("vae_ch160v4096z32",)
    assert model.family.beside(NET) == ()


def test_images_are_tokens_and_tokens_are_images(model, vqvae):
    images = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    codec = model.codec(Stored(images.numpy()))
    tokens = codec.encode(images)
    assert codec.shape == (14,) == tuple(tokens.shape[1:]) and tokens.dtype == torch.int64
    assert torch.equal(tokens, torch.cat(vqvae.encode_tokens(images / 127.5 - 1), dim=1))
    whole = ((vqvae.decode_tokens(tokens) + 1) / 2 * 255).to(torch.uint8)
    decoded = model.codec().decode(tokens)
    assert decoded.dtype == torch.uint8 and int((decoded.int() - whole.int()).abs().max()) <= 1
    kept = model.codec(Stored(tokens.short().numpy()))
    assert torch.equal(kept.encode(tokens.short()), tokens) and torch.equal(
        kept.stored(tokens), tokens.short()
    )
    assert not codec.mirrors and codec.makes_images and codec.num_normals == 0


def test_energies_are_minus_log_p(model, net, vqvae):
    tokens, labels = torch.randint(16, (2, 14)), torch.tensor([[0, 3, -1], [4, 2, 2]])
    family = model.family
    inputs = family.inputs(net, rows_of(tokens, labels))
    energy = family.energies(net, inputs, labels)
    with torch.no_grad():
        expected = -net.contrast_log_prob(tokens, labels, vqvae.teacher_inputs(tokens))
    torch.testing.assert_close(energy, expected)
    loss, of_own = family.own_loss(net, inputs, labels[:, :1])
    torch.testing.assert_close(loss * 14, of_own[:, 0])
    images = torch.randint(16, (2, 3, 14))  # CC-DPO's: a row's images differ
    of_images = family.energies(net, family.inputs(net, rows_of(images, labels)), labels)
    apart = [-net.log_prob(images[:, r], labels[:, r], vqvae.teacher_inputs(images[:, r])) for r in range(3)]
    torch.testing.assert_close(of_images, torch.stack(apart, dim=1))


def decided(energy, part):
    """Coefficients that a row's energies decide."""
    scale = torch.tensor([1.0, -2.0])[part]
    return scale[:, None] * torch.stack([(energy[:, 0] - energy[:, 1]).sigmoid(), energy[:, 1] / 100], dim=1)


@pytest.mark.parametrize("coefficients", [torch.tensor([[0.5, -0.5], [0.25, -0.25]]), decided])
def test_contrast_is_the_gradient_of_energies(model, net, coefficients):
    tokens, labels = torch.randint(16, (2, 14)), torch.tensor([[0, 3], [4, 2]])
    inputs = model.family.inputs(net, rows_of(tokens, labels))
    energy = model.family.contrast(net, inputs, labels, coefficients)
    found = [p.grad.clone() for p in net.parameters()]
    known = coefficients if coefficients is not decided else decided(energy, slice(None))
    (model.family.energies(net, inputs, labels) * known).sum().backward()
    for p, grad in zip(net.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad - grad, grad, rtol=1e-4, atol=1e-5)
    assert energy.shape == (2, 2) and not energy.requires_grad


def test_what_training_is_told(model, net):
    family = model.family
    assert family.trainable(net, own_loss=False) == list(net.parameters())
    assert family.shard_groups(net) == list(net.blocks) and family.normalized(net) == []
    assert not family.frozen(
        load(net.description["net"]["vqvae"][: -len("/vqvae")])
    ).net.head.weight.requires_grad
    assert model.build(dropout=0.3).drop_path_rate == 0.3 and model.build().drop_path_rate == 0


def test_samples(model, net):
    """A seed's image is its own, however seeds are batched; guided ones cost twice as many calls."""
    options = SamplerConfig(top_k=8, top_p=0.9)
    sampler, guided = model.sampler(net, options), model.sampler(net, options, guidance=1.5)
    assert (sampler.nfe, guided.nfe) == (3, 6) and (sampler.top_k, sampler.top_p) == (8, 0.9)
    labels = torch.tensor([0, 1, 2])
    for each in (sampler, guided):
        whole = each(each.start([5, 6, 7]), labels)
        assert whole.shape == (3, 14) and torch.equal(each(each.start([7]), labels[2:]), whole[2:])
    assert not torch.equal(sampler(sampler.start([5, 6, 7]), labels), whole)
    with pytest.raises(ValueError, match="guided by itself"):
        model.sampler(net, options, guidance=1.5, guide=net)
    plain = model.sampler(net, SamplerConfig())
    assert (plain.top_k, plain.top_p) == (0, 0.0)


def test_on_the_meta_device(model):
    """Counting a step's memory reads no VQVAE."""
    missing = Model.of(describe(NET | {"vqvae": "/nowhere"}, "var"))
    with torch.device("meta"):
        net, tokens = missing.build(), torch.empty(2, 14, dtype=torch.int64)
        labels = torch.empty(2, 3, dtype=torch.int64)
        rows = Rows(tokens, labels, True, {}, labels[:, 0], 0, torch.empty(()), torch.empty(3).long(), 3)
        energy = missing.family.energies(net, missing.family.inputs(net, rows), labels)
    assert energy.shape == (2, 3)


def test_a_training_checkpoint_has_both(net, vqvae, tmp_path):
    """VAR's own: the transformer is taken, its VQVAE found in the same file."""
    trainer = {"config": {}, "var_wo_ddp": net.state_dict(), "vae_local": vqvae.state_dict()}
    path = tmp_path / "ar-ckpt-last.pth"
    torch.save({"epoch": 3, "iter": 0, "trainer": trainer, "args": {"depth": 2}}, path)
    found = load(path)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in found.state_dict().items())
    own = found.tokenizer.vqvae(torch.device("cpu"))
    assert torch.equal(own.quantizer.embedding.weight, vqvae.quantizer.embedding.weight)
    assert own.quantizer.patch_nums == (1, 2, 3)


def test_a_file_has_the_scales_of_its_transformer(net, vqvae, tmp_path):
    """VAR's VQVAE serves any scales: a .pth says how many, not which."""
    torch.save(vqvae.state_dict(), tmp_path / "vae_ch160v4096z32.pth")
    other = Model.of(describe(NET | {"patch_nums": [1, 2, 4]}, "var")).build()
    torch.save(other.state_dict(), tmp_path / "var.pth")
    assert load(tmp_path / "var.pth").tokenizer.vqvae(torch.device("cpu")).image_shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_nums": [1, 2]}, r"its scales are \[1, 2, 3\], the transformer's \[1, 2\]"),
        ({"patch_nums": [1, 2, 4]}, r"its scales are \[1, 2, 3\], the transformer's \[1, 2, 4\]"),
        ({"vocab_size": 8}, "it has 16 tokens of 4 channels, the transformer 8 of 4"),
        ({"z_channels": 2}, "it has 16 tokens of 4 channels, the transformer 16 of 2"),
        ({"vqvae": None}, "does not say which VQVAE its tokens are of"),
        ({"vqvae": "small"}, "is no VQVAE but a model of family 'var'"),
    ],
)
def test_a_vqvae_that_does_not_go_with_it(folder, changes, message):
    names = {"vqvae": str(folder / "vqvae"), "small": str(folder)}
    arguments = NET | {"vqvae": "vqvae"} | changes
    arguments["vqvae"] = names.get(arguments["vqvae"])
    with pytest.raises(ValueError, match=message):
        Model.of(describe(arguments, "var")).codec()


def test_images_of_another_size(model):
    with pytest.raises(ValueError, match=r"images are \[3, 64, 64\], .* \[3, 48, 48\]: prepare the data"):
        model.codec(Stored(np.zeros((1, 3, 64, 64), np.uint8)))


def test_tokens_of_another_length(model):
    """The check of data and network compares the shapes (`experiments.checks`)."""
    assert model.codec(Stored(np.zeros((1, 680), np.int16))).shape != model.facts.shape


@pytest.mark.parametrize("wrong", [16, -1])
def test_tokens_out_of_the_vocabulary(model, wrong):
    """Before any of them is on a device, where the process would end."""
    tokens = np.zeros((3, 14), np.int16)
    tokens[1, 5] = wrong
    with pytest.raises(ValueError, match=f"hold token {wrong}, and the network's are 0 to 15"):
        model.codec(Stored(tokens))


def test_prepared_tokens(folder, model, vqvae, tmp_path):
    """Of both mirror images, made once; they are what the codec makes of the pixels."""
    for i in range(4):
        (tmp_path / "raw" / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "raw" / f"{i % 2}" / f"{i}.png")
    options = ["--resolution", "48", "--mirror", "--device", "cpu"]
    assert prepare.main([str(tmp_path / "raw"), str(tmp_path / "rgb.zip"), *options]) == 0
    made = [str(tmp_path / "raw"), str(tmp_path / "tokens.zip"), *options, "--tokens", str(folder)]
    assert prepare.main([*made, "--verify"]) == 0
    pixels, tokens = open_dataset(str(tmp_path / "rgb.zip")), open_dataset(str(tmp_path / "tokens.zip"))
    stored = tokens.images(range(8))
    assert tokens.image_shape == (14,) and stored.dtype == np.int16
    assert tokens.labels.tolist() == pixels.labels.tolist() and tokens.names[7].endswith(
        "tokens-00000007.npy"
    )
    own = model.codec(pixels).encode(torch.from_numpy(pixels.images(range(8)).copy()))
    assert torch.equal(model.codec(tokens).encode(torch.from_numpy(stored)), own)
    assert not np.array_equal(stored[:4], stored[4:])
    assert prepare.main(made) == 0  # it is there
    assert prepare.main(made[:-2]) == 1  # and not of pixels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resolution", "64"), r"images are \[3, 64, 64\]"),
        (("--tokens", "mnist16-base"), "is trained on no tokens"),
        (("--latents", "vae"), "--latents or --tokens"),
    ],
)
def test_tokens_that_cannot_be_made(folder, tmp_path, capsys, options, message):
    (tmp_path / "0").mkdir()
    Image.new("RGB", (48, 48)).save(tmp_path / "0" / "0.png")
    arguments = [str(tmp_path), str(tmp_path / "out.zip"), "--resolution", "48", "--tokens", str(folder)]
    assert prepare.main([*arguments, *options, "--device", "cpu"]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_names_its_vqvae_wherever_it_is_moved(folder, tmp_path):
    moved = tmp_path / "moved"
    folder.rename(moved)
    try:
        assert json.loads((moved / "config.json").read_text())["net"]["vqvae"] == "vqvae"
        assert load(moved).description["net"]["vqvae"] == str(moved / "vqvae")
    finally:
        moved.rename(folder)


def test_grey_images_of_another_vqvae(tmp_path):
    """Whose images are taken and made, its config.json says."""
    sizes = VQ | dict(v_patch_nums=[1, 2, 4], ch_mult=[1, 1, 1], img_channels=1)
    save_model(tmp_path / "vqvae", VQVAE(**sizes).state_dict(), describe(sizes, "vqvae"))
    net = NET | {"patch_nums": [1, 2, 4], "vqvae": str(tmp_path / "vqvae")}
    model, digits = Model.of(describe(net, "var")), open_dataset("mnist16")
    codec = model.codec(digits)
    tokens = codec.encode(torch.from_numpy(digits.images(np.arange(3))))
    assert tokens.shape == (3, 21) and codec.shape == (21,)
    assert codec.decode(tokens).shape == (3, 1, 16, 16) and codec.decode(tokens).dtype == torch.uint8
    wrong = SimpleNamespace(image_shape=(3, 16, 16))
    with pytest.raises(ValueError, match=r"images are \[3, 16, 16\], and .* are \[1, 16, 16\]"):
        model.codec(wrong)
