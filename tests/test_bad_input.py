"""Bad input at the doors: exit code 1 after one clear line, and nothing half-written."""

import json

import pytest
from PIL import Image

from mclr_fast import convert, evaluate, sample, train
from mclr_fast.models import describe, save_model
from mclr_fast.models.edm2 import Precond

CPU = ["--device", "cpu"]
RUN = [
    "--eval-every",
    "0",
    "--control",
    "none",
    "--batch-size",
    "8",
    "--duration",
    "64",
    "--outdir",
    "out",
    *CPU,
]


@pytest.fixture
def refused(files, capsys, monkeypatch):
    """refused(module, *arguments): the one line of a door that is called beside `files`; out is not made."""
    monkeypatch.chdir(files)

    def call(module, *arguments):
        assert module.main(list(map(str, arguments))) == 1
        err = capsys.readouterr().err
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in err and err.endswith(f"{line}\n")
        assert not (files / "out").exists() or module is train
        return line

    return call


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("", "'' is no list of integers like 0-15 or 1,2,5-10"),
        ("a", "'a' is no list"),
        ("3-1", "'3-1' is no list"),
        ("0-", "'0-' is no list"),
        ("1,,2", "'1,,2' is no list"),
        ("0x10", "'0x10' is no list"),
        ("0-9999999999", "'0-9999999999' has more than 10,000,000 integers"),
        ("5,0-9999999", "'5,0-9999999' has more than 10,000,000 integers"),
        ("9" * 5000, f"'{'9' * 80}...' is no list"),
    ],
)
@pytest.mark.robust("arguments")
def test_seeds_and_classes_that_do_not_parse(refused, seeds, words):
    """One line shows what was given and what is meant; nothing is written."""
    for option in ("--seeds", "--labels"):
        if seeds or option == "--seeds":  # no --labels are the model's own classes
            line = refused(sample, "base", option, seeds, "--outdir", "out", *CPU)
            assert line.startswith(f"error: {option}: {words}")


@pytest.mark.parametrize("options", [["--num-samples", "9999999999"], ["--repeats", "9999999999"]])
@pytest.mark.robust("arguments")
def test_more_samples_than_can_be_meant(refused, options):
    """They are refused before anything is held in memory."""
    line = refused(evaluate, "base", *options, *CPU)
    assert f"{options[0]} must be at most 10,000,000, not 9999999999" in line


@pytest.mark.parametrize(
    ("module", "options"), [(sample, ["--outdir", "out"]), (evaluate, ["--protocol", "is"])]
)
@pytest.mark.robust("arguments")
def test_a_guide_of_other_classes(refused, files, tiny, module, options):
    """It is refused with both numbers."""
    arguments = tiny.NET | {"label_dim": 5}
    save_model(files / "wide", Precond(**arguments).state_dict(), describe(arguments))
    line = refused(module, "base", "--gnet", "wide", "--guidance", "2", *options, *CPU)
    assert "--gnet wide knows 5 classes, base 4" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no image", "'018.png' cannot be read (it is no image that PIL knows)"),
        (b"\x89PNG\r\n\x1a\n", "'018.png' cannot be read"),
        (("L", (16, 16)), "'018.png' has shape 1x16x16, the first image 1x8x8"),
        (("RGB", (8, 8)), "'018.png' has shape 3x8x8, the first image 1x8x8"),
        (("RGBA", (8, 8)), "'018.png' is uint8 4x8x8 (RGBA); expected grey or RGB"),
    ],
)
@pytest.mark.robust("pixels")
def test_images_that_cannot_be_trained_on(refused, files, content, words):
    """They are found as they are read, where opening a data set looks at others."""
    names = [f"{i:03}.png" for i in range(40)]
    (files / "images").mkdir()
    for name in names:
        Image.new("L", (8, 8)).save(files / "images" / name)
    bad = files / "images" / names[18]
    bad.write_bytes(content) if isinstance(content, bytes) else Image.new(*content).save(bad)
    labels = [[name, i % 4] for i, name in enumerate(names)]
    (files / "images" / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert words in refused(train, "--init", "base", "--data", "images", *RUN)
    assert [path.name for path in (files / "out").rglob("*") if path.suffix in (".safetensors", ".pt")] == []


FAULTS = {
    "404": ({"status": 404}, "does not answer with the file but: 404 Not Found"),
    "cut": ({"stops_after": 1000}, "was cut short (the connection was closed): 1,000 of 1,024,000 bytes"),
    "page": ({"content": b"<!doctype html><p>Log in"}, "is a web page, not a file"),
    "junk": ({"content": b"junk" * 100}, "is refused"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (sample, ["ADDRESS", "--outdir", "out", *CPU]),
        (sample, ["base", "--gnet", "ADDRESS", "--guidance", "2", "--outdir", "out", *CPU]),
        (evaluate, ["ADDRESS", "--protocol", "is", *CPU]),
        (train, ["--init", "ADDRESS", "--data", "data.zip", *RUN]),
        (convert, ["ADDRESS", "out"]),
    ],
)
@pytest.mark.robust("wrappers")
def test_a_model_that_does_not_come_from_its_address(refused, files, server, fault, module, arguments):
    """One line says what the server answered: an error, a page, half a file."""
    settings, words = FAULTS[fault]
    for name, value in settings.items():
        setattr(server, name, value)
    line = refused(module, *[server.address if word == "ADDRESS" else word for word in arguments])
    assert words in line and (server.address in line or fault == "junk")
    assert not (files / "out").exists()
    if fault != "junk":  # which came whole, and is no model
        assert not list((files / "cache").rglob("model.pkl"))


@pytest.mark.robust("wrappers")
def test_an_address_without_a_server(refused, server):
    """One line says that it does not answer, and where the file may be put."""
    for module, arguments in ((sample, CPU), (convert, ["out"]), (train, ["--data", "data.zip", *RUN])):
        model = ["--init"] * (module is train) + ["http://127.0.0.1:9/model.pkl"]
        assert "does not answer with the file but: Connection refused" in refused(module, *model, *arguments)


@pytest.mark.parametrize("outdir", ["images", "images.zip", "images.npz"])
def test_images_made_before_that_a_contact_sheet_cannot_show(refused, files, outdir):
    arguments = ["base", "--seeds", "0-3,2", "--num-steps", "2", "--outdir", outdir, *CPU]
    assert sample.main(arguments) == 0
    made = files / outdir
    if made.is_dir():
        assert len(list(made.glob("*.png"))) == 4  # a seed once
        made = made / "000001.png"
    made.write_bytes(b"no image")
    words = "holds an image that cannot be read" if outdir == "images" else "is there, and is none of ours"
    assert f"{outdir} {words}" in refused(sample, *arguments, "--grid")
    assert not (files / "images-grid.png").exists()
