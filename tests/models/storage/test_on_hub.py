"""Models of the hub by address: one commit, checked, kept, and a line for what goes wrong."""

import shutil

import pytest
import torch
from hub_server import TOKEN, serving_hub

from mclr_fast.models import describe, load, read_config, resolve, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage import on_hub
from mclr_fast.models.storage.published import to_download
from mclr_fast.models.var import VQVAE
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.remote import hub as runtime_hub

NET = dict(img_resolution=8, img_channels=1, label_dim=3, model_channels=8, channel_mult=[1], num_blocks=1)
NAME = "hf:somebody/digits"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """A hub that has nothing, an empty cache, no token, and no memory of addresses."""
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    on_hub.local.cache_clear()
    with serving_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
    on_hub.local.cache_clear()


def saved(folder, seed=0, **said):
    torch.manual_seed(seed)
    save_model(folder, Precond(**NET).state_dict(), describe(NET, **said))
    return folder


def files(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def shared(tmp_path, hub):
    """(the model's folder, its commit) of what the hub has."""
    folder = saved(tmp_path / "model", licence="MIT")
    return folder, hub.commit("somebody/digits", files(folder) | {"notes.txt": b"no part of it"})


def again(text=NAME):
    """As a later process resolves it."""
    on_hub.local.cache_clear()
    return resolve(text)


def test_it_is_loaded_and_only_what_is_the_model_is_downloaded(hub, shared, capsys):
    net, (folder, commit) = load(NAME), shared
    ours = load(folder).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in net.state_dict().items())
    assert sorted(files(resolve(NAME))) == ["config.json", "model.safetensors"]
    assert resolve(NAME).name == commit and on_hub.pinned(NAME) == f"{NAME}@{commit}"
    assert "licence MIT" in capsys.readouterr().err  # before the large file
    assert on_hub.pinned("runs/x") == "runs/x"


def test_a_process_sees_one_commit_and_the_next_the_newest(hub, shared, tmp_path):
    first = resolve(NAME)
    newer = hub.commit("somebody/digits", files(saved(tmp_path / "newer", seed=1)))
    assert resolve(NAME) == first
    assert again().name == newer and again(f"{NAME}@{shared[1]}") == first


def test_without_network_it_is_what_it_was(hub, shared, capsys):
    there = resolve(NAME)
    hub.down = True
    assert again() == there
    assert f"taken as it was when last asked: commit {shared[1]}" in capsys.readouterr().err
    asked = len(hub.asked)
    resolve(f"{NAME}@main")
    with pytest.raises(RunError, match="does not answer now"):
        resolve("hf:somebody/other")
    assert len(hub.asked) == asked + 2


def test_a_commit_is_asked_about_once(hub, shared):
    name = f"{NAME}@{shared[1]}"
    resolve(name)
    asked = len(hub.asked)
    again(name)
    assert len(hub.asked) == asked


def test_no_network_at_all(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"127.0.0.1:9 does not answer \(.+\): look at the network"):
        resolve(NAME)


@pytest.mark.parametrize("bad", ["config.json", "model.safetensors"])
def test_what_does_not_arrive_whole_is_not_kept(hub, shared, bad):
    hub.bad = bad
    with pytest.raises(RunError, match=r"SHA-256|did not arrive"):
        resolve(NAME)
    hub.bad = None
    assert load(NAME) is not None


def test_a_private_model_needs_the_token_and_only_the_hub_sees_it(hub, tmp_path, monkeypatch):
    hub.commit("somebody/digits", files(saved(tmp_path / "model")), private=True)
    with pytest.raises(RunError, match=r"not there, or cannot be read without a token \(HF_TOKEN"):
        resolve(NAME)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    assert resolve(NAME).is_dir()
    assert {token for _, path, token in hub.asked if path.startswith("/cdn")} == {None}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(RunError, match="cannot be read with this token"):
        again()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:somebody", "write hf:USER/NAME, or"), ("hf://somebody/digits", "hf:USER/NAME"),
        ("hf:some..body/digits", "names no model"), (f"{NAME}@v9", "has no revision 'v9'"),
        ("hf:nobody/none", "is not there, or cannot be read"),
    ],
)  # fmt: skip
def test_addresses_that_mean_nothing(shared, name, words):
    with pytest.raises((RunError, ValueError), match=words):
        resolve(name)


def test_a_repository_of_something_else(hub):
    hub.commit("somebody/digits", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(
        RunError, match=r"no model of mclr_fast: model.safetensors missing \(it has config.json"
    ):
        resolve(NAME)
    assert not [path for _, path, _ in hub.asked if path.endswith(".bin")]
    hub.commit("somebody/digits", {"config.json": b"[1]", "model.safetensors": b""})
    with pytest.raises(RunError, match=r"its config\.json has no 'net'"):
        resolve(NAME)
    assert not [path for _, path, _ in hub.asked if path.endswith("model.safetensors")]


def test_a_vqvae_beside_it_comes_along(hub, tmp_path):
    sizes = dict(vocab_size=8, z_channels=8, ch=32, v_patch_nums=[1, 2], ch_mult=[1, 1])
    save_model(tmp_path / "model/vqvae", VQVAE(**sizes).state_dict(), describe(sizes, "vqvae"))
    net = dict(
        vocab_size=8, z_channels=8, num_classes=2, depth=1, embed_dim=8, num_heads=1, patch_nums=[1, 2]
    )
    save_model(tmp_path / "model", {}, describe(net | {"vqvae": "vqvae"}, "var"))
    hub.commit("somebody/digits", files(tmp_path / "model"))
    assert resolve(read_config(NAME)["net"]["vqvae"]).parent == resolve(NAME)
    outside = files(tmp_path / "model") | {"../up/config.json": b"{}"}
    outside["config.json"] = outside["config.json"].replace(b'"vqvae": "vqvae"', b'"vqvae": "../up"')
    hub.commit("somebody/digits", outside)
    again()
    assert not [path for _, path, _ in hub.asked if "up/" in path]


def test_a_dry_run_is_told_of_it_without_asking(hub, shared):
    there = to_download(NAME)
    assert f"{hub.address}/somebody/digits" in str(there) and not hub.asked
    resolve(NAME)
    assert to_download(NAME) is None


def test_the_token_of_the_hubs_own_login(tmp_path, monkeypatch):
    assert runtime_hub.token() is None
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "mine"))
    (tmp_path / "mine").write_text("hf_mine")
    assert runtime_hub.token() == "hf_mine"
    monkeypatch.setenv("HF_TOKEN", " hf_said ")
    assert runtime_hub.token() == "hf_said"
