"""Files that are something else, or under another name, are known for what they are."""

import gzip
import lzma

import pytest
import torch
from producers import ARGUMENTS as TINY
from producers import net_of
from safetensors.torch import save_file
from stand_ins import snapshot
from states import same

from mclr_fast.models import describe, load, read_config, resolve, save_model

STATE = net_of().state_dict()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 560123456\n"
THINGS = {
    "a git-lfs pointer": (POINTER, "a git-lfs pointer, 134 bytes that stand for a file of 560,123,456"),
    "a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page (HTML), not the file"),
    "a page, with a BOM": (b"\xef\xbb\xbf<html lang=en>", "a web page (HTML)"),
    "a server's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, such as"),
    "JSON": (b'{"error": "not found"}', "JSON, such as a server's error message"),
    "gzip": (gzip.compress(b"x"), "compressed by gzip: unpack it first"),
    "xz": (lzma.compress(b"x"), "compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "compressed by zstd"),
    "nothing": (b"", "it is empty"),
    "zeros": (bytes(5000), "zeros at its start"),
    "numpy's": (b"\x93NUMPY\x01\x00v\x00", "an array of numpy's (.npy)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "a text": (b"Invalid username or password.", "a text that begins 'Invalid username or password.'"),
    "a text of opcodes": (b"Not Found", "a text that begins 'Not Found'"),
    "a tar": (b"x" * 257 + b"ustar" + bytes(500), "a tar archive"),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.robust("wrappers")
def test_a_file_that_is_something_else_is_named_for_what_it_is(tmp_path, door, thing):
    """One line names it: a git-lfs pointer, a page of HTML, an archive, an image, zeros, nothing."""
    content, says = THINGS[thing]
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    code, err = door(path, tmp_path / "base")
    assert code == 1 and says in err and err.count("\n") == 1 and not (tmp_path / "base").exists()


@pytest.mark.robust("wrappers")
def test_zips_that_torch_save_did_not_write(tmp_path):
    """They are named: numpy's arrays, a TorchScript program, a data set."""
    import zipfile

    path, whole = tmp_path / "x.pt", tmp_path / "whole.pt"
    torch.save(STATE, whole)
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="its end is missing: its download or copy was cut short"):
        load(path)
    for names, says in (
        (
            ["a/00000/img.png", "dataset.json"],
            "zip of 2 files, the first 'a/00000/img.png', such as a data set",
        ),
        (["mu.npy"], "a zip of numpy arrays"),
        (["m/data.pkl", "m/constants.pkl"], "a TorchScript program"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        with pytest.raises(ValueError, match=says):
            load(path)


@pytest.mark.robust("wrappers")
def test_a_folder_s_files_are_named_too(tmp_path):
    """A clone without git-lfs and a page saved as config.json are named for what they are."""
    save_model(tmp_path, STATE, describe(TINY))
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged but a git-lfs pointer"):
        load(tmp_path)
    (tmp_path / "config.json").write_bytes(b"<!doctype html>")
    with pytest.raises(ValueError, match=r"config\.json is not JSON but a web page"):
        load(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.robust("wrappers")
def test_a_config_with_a_byte_order_mark(tmp_path, encoding):
    """It is read as Windows editors and shells write it."""
    save_model(tmp_path, STATE, describe(TINY))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_bytes(text.encode(encoding))
    assert same(load(tmp_path).state_dict(), STATE)


@pytest.mark.parametrize(
    "name", ["NET.PKL", "net.pkl?download=true", "net.bin", "net", "net.pkl.1", "net.ckpt", "edm2 (1).Pt"]
)
@pytest.mark.robust("wrappers")
def test_a_file_is_read_whatever_its_name(tmp_path, name):
    """It is known by its content: .PKL, a download's query, no suffix."""
    path = tmp_path / name
    path.write_bytes(snapshot(net_of(), TINY))
    assert resolve(path) == resolve(str(path)) == path
    assert read_config(path)["format"] == "edm2-snapshot"


@pytest.mark.robust("wrappers")
def test_safetensors_by_themselves(tmp_path):
    """An error says which file has to lie beside them."""
    save_file(STATE, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"it is safetensors: give the folder"):
        load(tmp_path / "net.safetensors")
    save_model(tmp_path / "base", STATE, describe(TINY))
    for name in ("config.json", "model.safetensors"):
        assert resolve(tmp_path / "base" / name) == tmp_path / "base"


def test_the_licence_of_a_published_file_saved_under_its_address(tmp_path):
    path = tmp_path / "edm2-img64-s-1073741-0.075.PKL?download=true"
    path.write_bytes(snapshot(net_of(), TINY))
    assert read_config(path)["licence"] == "CC BY-NC-SA 4.0"
