"""`python -m mclr_fast.share`: what leaves this machine by the hub's own client, and what comes back."""

import hashlib
import json
import sys

import pytest
import torch
from hub_server import ORGANIZATION, TOKEN, USER, serving_hub

from mclr_fast import sample, share, train
from mclr_fast.models import describe, load, model_from_config, read_config, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage import on_hub
from mclr_fast.models.storage.card import card
from mclr_fast.models.storage.files import SHIPPED
from mclr_fast.models.var import VQVAE

NET = dict(img_resolution=8, img_channels=1, label_dim=3, model_channels=8, channel_mult=[1], num_blocks=1)
SHA = "0123456789abcdef" * 4
NAME = f"{USER}/digits"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # it uploads in either way
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    on_hub.local.cache_clear()
    with serving_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
    on_hub.local.cache_clear()


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    base = {"model": "/home/me/secret/base", "sha256": SHA}
    said = describe(
        NET, licence="CC BY-NC-SA 4.0", base=base, judged={"protocol": "fid", "ref": ["/data/r.zip"]}
    )
    save_model(tmp_path / "run/checkpoints/best", Precond(**NET).state_dict(), said)
    return tmp_path / "run/checkpoints/best"


@pytest.fixture
def door(capsys):
    """`door(DIR, *options)` -> exit code, stdout, stderr."""

    def call(folder, *options, to=f"hf:{NAME}"):
        code = share.main([str(folder), "--to", to, *options])
        return (code, *capsys.readouterr())

    return call


def test_a_run_is_shared_and_loaded_by_its_address(hub, model, door, tmp_path, capsys):
    code, out, err = door(model.parents[1])
    assert (code, err) == (0, "") and f"public: {hub.address}/{NAME}" in out
    _, files = hub.files(NAME)
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    said = json.loads(files["config.json"])
    assert files["README.md"].decode() == card(said, f"hf:{NAME}")
    assert f"mclr_fast.sample hf:{NAME}" in files["README.md"].decode()
    assert 'license: "cc-by-nc-sa-4.0"' in files["README.md"].decode()

    net, ours = load(f"hf:{NAME}"), load(model)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in net.state_dict().items())
    options = ["--seeds", "0-2", "--num-steps", "2", "--outdir", str(tmp_path / "out"), "--device", "cpu"]
    assert sample.main([f"hf:{NAME}", *options]) == 0 and "3 images" in capsys.readouterr().out


def test_paths_of_this_machine_stay_here(hub, model, door):
    assert door(model)[0] == 0
    files = hub.files(NAME)[1]
    said = json.loads(files["config.json"])
    assert said["base"] == {"model": "base", "sha256": SHA} and said["judged"]["ref"] == ["r.zip"]
    assert not any(b"/home/me" in content or b"/data/" in content for content in files.values())


def test_what_is_no_part_of_the_model_stays_here(hub, model, door):
    for name in ("optimizer.pt", "train.zip", ".env"):
        (model / name).write_text("mine")
    code, out, _ = door(model)
    assert code == 0 and "left out: .env, optimizer.pt, train.zip" in out
    assert sorted(hub.files(NAME)[1]) == ["README.md", "config.json", "model.safetensors"]


def test_a_dry_run_asks_nobody(hub, model, door, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = door(model, "--dry-run")
    assert (code, err, hub.asked, hub.repositories) == (0, "", [], {})
    size = (model / "model.safetensors").stat().st_size
    assert "licence CC BY-NC-SA 4.0" in out and f"would upload to hf:{NAME}" in out
    assert [line.split()[1] for line in out.splitlines() if "model.safetensors" in line] == [f"{size:,}"]


def test_the_report_goes_along_if_asked(hub, model, door):
    assert "has no report.html" in door(model, "--with-report")[2] and not hub.asked
    run = model.parents[1]
    (run / "figures").mkdir()
    for name in ("report.html", "figures/fd.png", "log.jsonl"):
        (run / name).write_bytes(b"x" + name.encode())
    assert door(run)[0] == 0 and "report.html" not in hub.files(NAME)[1]
    assert door(run, "--with-report")[0] == 0
    assert {"report.html", "figures/fd.png"} <= hub.files(NAME)[1].keys()
    assert "log.jsonl" not in hub.files(NAME)[1]


def test_a_model_is_shared_again_as_a_new_commit(hub, model, door):
    assert door(model)[0] == 0
    torch.manual_seed(1)
    save_model(model, Precond(**NET).state_dict(), read_config(model))
    assert door(model)[0] == 0
    assert len(hub.repositories[NAME]["commits"]) == 2
    assert hub.files(NAME)[1]["model.safetensors"] == (model / "model.safetensors").read_bytes()


def test_private_is_private_or_nothing_is_uploaded(hub, model, door):
    code, out, _ = door(model, "--private")
    assert code == 0 and "private:" in out and hub.repositories[NAME]["private"]
    hub.repositories[NAME]["private"] = False
    asked = len(hub.asked)
    code, _, err = door(model, "--private")
    assert code == 1 and "is there and public; nothing was uploaded" in err
    assert not [path for method, path, _ in hub.asked[asked:] if method == "PUT" or "commit" in path]


def test_somebody_elses_repository(hub, model, door):
    code, _, err = door(model, to="hf:stranger/digits")
    assert code == 1 and f"is stranger's, and this token is for {USER}, {ORGANIZATION}" in err
    assert not hub.repositories
    assert door(model, to=f"hf:{ORGANIZATION}/digits")[0] == 0


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "set HF_TOKEN to a token with the right to write"),
        ("hf_wrong", "does not take this token (401"),
    ],
)
def test_a_token_that_is_missing_or_wrong(hub, model, door, monkeypatch, token, words):
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    code, _, err = door(model)
    assert code == 1 and words in err and err.count("\n") == 1


def test_a_token_that_may_only_read(hub, model, door):
    hub.read_only = True
    code, _, err = door(model)
    assert code == 1 and f"does not let this token write to hf:{NAME} (403)" in err and err.count("\n") == 1


def test_no_network(hub, model, door, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = door(model)
    assert code == 1 and "127.0.0.1:9 does not answer (" in err and err.count("\n") == 1


def test_without_the_extra(hub, model, door, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = door(model)
    assert code == 1 and 'pip install "mclr_fast[hub]"' in err


def test_the_licence_is_the_weights(hub, model, door):
    assert "leave --licence out" in door(model, "--licence", "MIT")[2]
    said = {name: value for name, value in read_config(model).items() if name != "licence"}
    save_model(model, Precond(**NET).state_dict(), said)
    code, out, err = door(model)
    assert code == 0 and "licence unknown" in out and "--licence says it" in err
    assert door(model, "--licence", "MIT")[0] == 0
    files = hub.files(NAME)[1]
    assert json.loads(files["config.json"])["licence"] == "MIT" and b'license: "mit"' in files["README.md"]


def test_a_card_that_somebody_wrote_in_is_kept_with_its_licence(hub, model, door):
    written = (model / "README.md").read_text() + "\nMy own words.\n"
    (model / "README.md").write_text(written)
    assert door(model)[0] == 0 and hub.files(NAME)[1]["README.md"].decode() == written
    (model / "README.md").write_text(written.replace("cc-by-nc-sa-4.0", "mit"))
    assert "says licence mit, config.json means cc-by-nc-sa-4.0" in door(model)[2]
    (model / "README.md").write_text("My own words.")
    assert "says licence nowhere" in door(model)[2]


def test_what_is_never_shared(hub, tmp_path, door):
    (tmp_path / "run/checkpoints/mclr-state/000000000048").mkdir(parents=True)
    (tmp_path / "run/checkpoints/mclr-state/000000000048/__0_0.distcp").touch()
    assert "states are not shared" in door(tmp_path / "run")[2]
    assert "states are not shared" in door(tmp_path / "run/checkpoints/mclr-state")[2]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset.json").write_text("{}")
    assert "data are not shared" in door(tmp_path / "data")[2]
    (tmp_path / "data.zip").touch()
    assert "is a file: make a model folder of it" in door(tmp_path / "data.zip")[2]
    assert "no model at" in door(tmp_path / "nothing")[2]
    assert not hub.asked


def test_a_damaged_model_is_not_shared(hub, model, door):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert "is damaged" in door(model)[2] and not hub.asked


def test_addresses(model, door):
    assert "write hf:USER/NAME" in door(model, to="somebody/digits")[2]
    assert "names a revision" in door(model, to=f"hf:{NAME}@v1")[2]


def test_a_vqvae_of_another_folder_is_put_beside_it(hub, tmp_path, door):
    sizes = dict(vocab_size=8, z_channels=8, ch=32, v_patch_nums=[1, 2], ch_mult=[1, 1])
    save_model(tmp_path / "vq", VQVAE(**sizes).state_dict(), describe(sizes, "vqvae"))
    net = dict(
        vocab_size=8, z_channels=8, num_classes=2, depth=1, embed_dim=8, num_heads=1, patch_nums=[1, 2]
    )
    said = describe(net | {"vqvae": str(tmp_path / "vq")}, "var")
    save_model(tmp_path / "var", model_from_config(said).state_dict(), said)
    assert door(tmp_path / "var")[0] == 0
    files = hub.files(NAME)[1]
    assert {"vqvae/config.json", "vqvae/model.safetensors"} <= files.keys()
    assert json.loads(files["config.json"])["net"]["vqvae"] == "vqvae"
    assert load(read_config(f"hf:{NAME}")["net"]["vqvae"]) is not None


def test_a_run_begins_with_a_model_of_the_hub(hub, tmp_path, capsys):
    """A dry run reads its config.json alone; the run says which commit it began with."""
    base = SHIPPED / "mnist16-base"
    content = {name: (base / name).read_bytes() for name in ("config.json", "model.safetensors")}
    commit = hub.commit(NAME, content)
    options = ["--recipe", "mnist16", "--init", f"hf:{NAME}", "--outdir", str(tmp_path / "run")]
    options += ["--duration", "16", "--batch-size", "8", "--precision", "fp32"]
    options += ["--eval-every", "0", "--control", "none", "--device", "cpu"]
    assert train.main([*options, "--dry-run"]) == 0
    assert f"downloads       {hub.address}/{NAME} (hf:{NAME};" in capsys.readouterr().out
    assert not [path for _, path, _ in hub.asked if "safetensors" in path]
    assert train.main(options) == 0
    said = read_config(tmp_path / "run")
    sha256 = hashlib.sha256(content["model.safetensors"]).hexdigest()
    assert said["base"] == {"model": f"hf:{NAME}@{commit}", "sha256": sha256}
    assert f'base_model: "{NAME}"' in (tmp_path / "run/checkpoints/final-mclr/README.md").read_text()
    assert said["images_seen"] == 16 and "metrics" not in said
