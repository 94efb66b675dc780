"""Published names and https addresses where a model is asked for."""

from dataclasses import replace

import pytest
import torch

from mclr_fast.models import Model, load, read_config, resolve
from mclr_fast.models.edm2 import PRESETS
from mclr_fast.models.storage import published
from mclr_fast.models.storage.pickled import NVIDIA_FILES, VAR_FILES
from mclr_fast.models.storage.published import FILES, find, local, to_download
from mclr_fast.models.var import VAR
from mclr_fast.runtime.errors import RunError

NAME = "edm2-img64-s-1073741-0.075"


@pytest.fixture
def there(server, theirs, monkeypatch):
    """The server has a snapshot, published as NAME."""
    server.content = theirs[1].read_bytes()
    monkeypatch.setitem(FILES, NAME, replace(FILES[NAME], address=server.address))
    return server


def test_the_paper_s_bases_are_where_nvidia_has_them():
    root = "https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions"
    for name in (NAME, "edm2-img512-l-1879048-0.085", "edm2-img512-xs-uncond-2147483-0.015"):
        assert find(name).address == f"{root}/{name}.pkl"
        assert find(find(name).address) is find(name)
    assert find(NAME).about == "EDM2-S, ImageNet-64, 1,024 Mi images, EMA 0.075"
    assert "1,792 Mi images" in find("edm2-img512-l-1879048-0.085").about
    assert find("mnist16-base") is None and find("base/") is None


def test_every_entry_is_whole():
    assert len(published.PRESETS) == 36 and len({file.address for file in FILES.values()}) == len(FILES)
    for name, (net, gnet, guidance) in published.PRESETS.items():
        assert FILES[net].kind == "network" and name.startswith(net.rpartition("-uncond")[0] or name[:9])
        assert (gnet is None) == (guidance == 1) and (gnet is None or gnet in FILES)
    networks = [file for file in FILES.values() if file.kind == "network"]
    files = {file.name: file.address.rpartition("/")[2] for file in networks}
    var = {name for name in files if VAR_FILES.fullmatch(files[name])}
    assert var == {*(f"var_d{depth}" for depth in (16, 20, 24, 30, 36)), "vae_ch160v4096z32"}
    assert all(NVIDIA_FILES.fullmatch(files[name]) for name in files.keys() - var)
    diffusion = [name for name in files if "var_d" not in name and "vae" not in name]
    assert all(any(name.startswith(f"{preset}-") for preset in PRESETS) for name in diffusion)
    assert {file.name for file in FILES.values()} - {file.name for file in networks} == {
        "edm2-img64-ref",
        "edm2-img512-ref",
    }


@pytest.mark.parametrize("by", ["name", "address"])
def test_a_model_is_downloaded_when_it_is_named_and_read_as_data(there, theirs, mark, capsys, by):
    named = NAME if by == "name" else there.address
    assert to_download(named).address == there.address and not there.asked
    path = resolve(named)
    assert path.read_bytes() == theirs[1].read_bytes() and to_download(named) is None
    assert read_config(named)["format"] == "edm2-snapshot"
    own, loaded = theirs[0].state_dict(), load(named).state_dict()
    assert all(torch.equal(loaded[key], value.half().float()) for key, value in own.items())
    assert len(there.asked) == 1 and not mark.exists()
    assert "licence CC BY-NC-SA 4.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("https://h.co/a/net.pkl?download=true", "https://h.co/a/net.pkl?download=true"),
        ("HTTPS://H.co/A/net.PKL", "https://h.co/A/net.PKL"),
        ("https://h.co/net.pkl#readme", "https://h.co/net.pkl"),
        ("https://huggingface.co/u/r/blob/main/net.pkl", "https://huggingface.co/u/r/resolve/main/net.pkl"),
        (f"{published.DDO}/edm2-img64-s-ddo.pkl?download=true", f"{published.DDO}/edm2-img64-s-ddo.pkl"),
        (
            f"{published.DDO}/edm2-img64-s-ddo.pkl".replace("/resolve/", "/blob/"),
            f"{published.DDO}/edm2-img64-s-ddo.pkl",
        ),
    ],
)
def test_addresses_as_browsers_show_them(shown, address):
    found = find(shown)
    assert (
        found.address == address
        and to_download(shown).place.name == address.rpartition("/")[2].partition("?")[0]
    )
    assert (found.licence == "unknown") == ("h.co" in address or "/u/r/" in address)


def test_download_true(there, theirs):
    """A query reaches the server, and the file is the same."""
    own = theirs[0].state_dict()
    loaded = load(f" {there.address}?download=true ").state_dict()
    assert all(torch.equal(loaded[key], value.half().float()) for key, value in own.items())


@pytest.mark.parametrize("address", ["hf://u/r/net.pkl", "s3://bucket/net.pkl", "file:///tmp/net.pkl"])
def test_other_schemes(address):
    with pytest.raises(ValueError, match="is neither a path nor an https address"):
        resolve(address)


def test_what_was_downloaded_and_is_no_model_is_refused(there):
    there.content = b"not a pickle"
    with pytest.raises(ValueError, match=r"model\.pkl"):
        load(there.address)


def test_a_path_of_that_name_is_that_path(there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        resolve(NAME)
    assert to_download(NAME) is None and not there.asked


def test_reference_statistics_are_no_model(there):
    with pytest.raises(
        ValueError, match="edm2-img64-ref is no network but EDM2's reference statistics of Im"
    ):
        resolve("edm2-img64-ref")
    with pytest.raises(ValueError, match="is no statistics but EDM2-S"):
        local(NAME, "statistics")
    assert to_download("edm2-img64-ref", "statistics").address.endswith("/edm2/dataset-refs/img64.pkl")
    assert not there.asked


@pytest.mark.parametrize("name", ["edm2-img64-s-1073741-0.07", "edm2-img64-s-1073741-0.075.pkl"])
def test_a_name_that_is_not_published_is_told_the_nearest(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"published name\. Nearest names: .*{NAME}"):
        resolve(name)


def test_an_address_that_no_model_is_read_from(there):
    with pytest.raises(ValueError, match=r"model\.safetensors is no file that a model is read from by its"):
        resolve(there.address.replace(".pkl", ".safetensors"))
    with pytest.raises(RunError, match="names no file"):
        resolve("https://there/")
    assert not there.asked


def test_var_is_published_with_its_vqvae():
    """Depths, sizes and licences; all have one VQVAE."""
    root = "https://huggingface.co/FoundationVision/var/resolve/main"
    assert find("var_d24").address == f"{root}/var_d24.pth"
    assert find(f"{root}/vae_ch160v4096z32.pth").name == "vae_ch160v4096z32"
    assert find("var_d36").about == "VAR-d36-s, ImageNet-512" and find("var_d36").licence == "MIT"
    assert find("var_d30-ddo").licence == "CC BY-NC-SA 4.0"


def test_var_by_its_name_has_its_vqvae_by_its_own(server, tmp_path, monkeypatch):
    """The VQVAE is taken when it is needed; one that lies beside a file goes before it."""
    net = VAR(depth=1, embed_dim=8, num_heads=1, num_classes=2, patch_nums=(1, 2))
    torch.save(net.state_dict(), tmp_path / "var_d16.pth")
    server.content = (tmp_path / "var_d16.pth").read_bytes()
    monkeypatch.setitem(FILES, "var_d16", replace(FILES["var_d16"], address=f"{server.address[:-4]}.pth"))
    found = read_config("var_d16")["net"]
    assert "vqvae" not in found and found["patch_nums"] == [1, 2]
    assert Model.of(read_config("var_d16")).codec().tokenizer.source == "vae_ch160v4096z32"
    assert len(server.asked) == 1 and to_download("vae_ch160v4096z32") is not None
    (tmp_path / "vae_ch160v4096z32.pth").write_bytes(b"")
    beside = read_config(tmp_path / "var_d16.pth")["net"]["vqvae"]
    assert beside == str(tmp_path / "vae_ch160v4096z32.pth")
