"""What images are compared with: files of statistics, and data sets whose statistics are kept beside them."""

import json
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast import score
from mclr_fast.evaluation import feature_statistics, references
from mclr_fast.evaluation.metrics.moments import Moments
from mclr_fast.evaluation.statistics_files import (
    Statistics,
    read_statistics,
    write_reference,
    write_statistics,
)
from mclr_fast.models.storage.published import EDM2
from mclr_fast.runtime.errors import RunError


@pytest.fixture
def judged(zips, weights):
    """judged(reference, protocol): made.zip against it."""
    files = {f"{name}_weights": path for name, path in weights.items()}
    return lambda reference, protocol: score(zips[1], reference, protocol, device="cpu", **files)


@pytest.fixture
def moments(fields, see):
    """Of real.zip's images, by the stand-in for Inception."""
    mu, sigma = feature_statistics(see(torch.from_numpy(fields(40, 0)))[0])
    return Moments(40, mu, sigma)


def edm2_pickle(path, **parts):
    """A reference as EDM2 writes it."""
    held = {name: {"mu": m.mu.numpy(), "sigma": m.sigma.numpy()} for name, m in parts.items()}
    path.write_bytes(pickle.dumps({"num_images": 40, **held}, protocol=4))
    return path


def test_a_data_set_and_files_of_its_moments_give_one_number(judged, zips, tmp_path, moments):
    """EDM2's .pkl, EDM's .npz, and what is kept beside the data set."""
    by_images = judged(zips[0], "fid")
    np.savez(tmp_path / "edm.npz", mu=moments.mu, sigma=moments.sigma)
    for reference in (edm2_pickle(tmp_path / "ref.pkl", fid=moments), tmp_path / "edm.npz"):
        assert judged(reference, "fid")["fid"]["fd"] == pytest.approx(by_images["fid"]["fd"], rel=1e-6)
    assert judged(tmp_path / "real.zip.inception.npz", "fid") == by_images


def test_what_others_programs_read_of_us(tmp_path, moments):
    """EDM2 unpickles its file and takes mu and sigma by metric; EDM takes the .npz's by name."""
    sigma = torch.eye(16, dtype=torch.float64)
    both = [
        Statistics("inception", "x", moments, torch.ones(40, 8)),
        Statistics("dinov2", "x", Moments(40, sigma[0], sigma)),
    ]
    write_reference(tmp_path / "ref.pkl", both)
    held = pickle.loads((tmp_path / "ref.pkl").read_bytes())
    assert list(held) == ["num_images", "fid", "fd_dinov2"] and held["num_images"] == 40
    for name, each in zip(("fid", "fd_dinov2"), both, strict=True):
        assert list(held[name]) == ["mu", "sigma"]
        for part, array in held[name].items():
            assert type(array) is np.ndarray and array.dtype == np.float64
            np.testing.assert_array_equal(array, getattr(each.moments, part))
    names = {
        argument
        for opcode, argument, _ in pickletools.genops((tmp_path / "ref.pkl").read_bytes())
        if opcode.name == "GLOBAL"
    }
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}  # any numpy's
    write_reference(tmp_path / "ref.npz", both[:1])
    with np.load(tmp_path / "ref.npz") as held:
        assert "features" not in held and held["mu"].dtype == held["sigma"].dtype == np.float64
        np.testing.assert_array_equal(held["sigma"], moments.sigma)
    for file, count in (("ref.pkl", 2), ("ref.npz", 1)):
        found = read_statistics(str(tmp_path / file))
        assert [each.extractor for each in found] == ["inception", "dinov2"][:count]
        for each, written in zip(found, both, strict=False):
            assert each.moments.count == 40 and each.features is None
            assert torch.equal(each.moments.mu, written.moments.mu)
            assert torch.equal(each.moments.sigma, written.moments.sigma)


def test_edm2s_pickle_has_both_extractors(judged, zips, tmp_path, moments):
    judged(zips[0], "fd-dinov2")
    (dino,) = read_statistics(str(tmp_path / "real.zip.dinov2.npz"))
    path = edm2_pickle(tmp_path / "ref.pkl", fid=moments, fd_dinov2=dino.moments)
    assert judged(path, "fid,fd-dinov2") == {
        "fid": pytest.approx(judged(zips[0], "fid")["fid"], rel=1e-6),
        "fd-dinov2": judged(zips[0], "fd-dinov2")["fd-dinov2"],
    }


def test_statistics_are_made_once(judged, zips, tmp_path, monkeypatch):
    """With features only where they are asked for; again for other images."""
    made = []
    seen = references._seen
    monkeypatch.setattr(references, "_seen", lambda *args: made.append(sorted(args[2])) or seen(*args))
    kept = tmp_path / "real.zip.inception.npz"
    judged(zips[0], "fid")
    judged(zips[0], "fid")
    assert made == [["inception"]] and "features" not in np.load(kept)
    both = judged(zips[0], "fid,pr-inception,fd-dinov2")
    assert made[1:] == [["dinov2", "inception"]] or made[1:] == [["inception"], ["dinov2"]]
    count = len(made)
    assert judged(zips[0], "fd-dinov2,pr-inception,fid") == both and len(made) == count
    with np.load(kept) as file:
        assert file["features"].shape == (40, 8) and json.loads(str(file["meta"]))["num_images"] == 40
    write_zip(
        zips[0],
        np.zeros((30, 3, 32, 32), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None, None],
        [0] * 30,
    )
    assert judged(zips[0], "fid") != both and len(made) > count


def test_a_reference_is_named_as_it_was_asked_for(judged, zips, monkeypatch):
    """Whether its statistics were made or read: nobody's folders get into a row."""
    offered, names = references._of_images, []

    def recorded(*args):
        wanted, statistics = offered(*args)
        names.extend(each.source for each in statistics.values())
        return wanted, statistics

    monkeypatch.setattr(references, "_of_images", recorded)
    monkeypatch.chdir(Path(zips[0]).parent)
    for _ in range(2):
        judged("real.zip", "fid")
    assert names == ["real.zip", "real.zip"]


def test_moments_of_one_and_features_of_another(judged, zips, tmp_path, moments):
    """As a .pkl that holds moments alone, and the data set."""
    shifted = moments._replace(mu=moments.mu + 1)
    found = judged([edm2_pickle(tmp_path / "ref.pkl", fid=shifted), zips[0]], "fid,pr-inception")
    alone = judged(zips[0], "fid,pr-inception")
    assert found["pr-inception"] == alone["pr-inception"]
    assert found["fid"]["fd"] > alone["fid"]["fd"] + 1


def test_of_a_large_set_features_of_some_are_kept(judged, zips, tmp_path, monkeypatch):
    """Moments are of all; images are chosen as EDM2's max_size does."""
    monkeypatch.setattr(references, "MAX_FEATURES", 12)
    whole = judged(zips[0], "fid")
    assert judged(zips[0], "fid,pr-inception")["fid"] == whole["fid"]
    (kept,) = read_statistics(str(tmp_path / "real.zip.inception.npz"))
    assert kept.features.shape == (12, 8) and kept.moments.count == 40
    order = np.arange(40)
    np.random.RandomState(0).shuffle(order)
    assert references._chosen(40).tolist() == sorted(order[:12].tolist())


def test_an_npz_of_statistics_and_images(judged, zips, tmp_path, fields, moments):
    """As OpenAI publishes them: mu and sigma of all images, and some of the images."""
    shifted, some = moments.mu + 1, fields(40, 0).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "openai.npz", mu=shifted, sigma=moments.sigma, arr_0=some)
    found, alone = judged(tmp_path / "openai.npz", "adm"), judged(zips[0], "adm")
    assert found["adm"]["precision"] == alone["adm"]["precision"]
    assert found["adm"]["fd"] > alone["adm"]["fd"] + 1


def test_a_reference_by_its_address(judged, zips, tmp_path, moments, server):
    """Downloaded, and read as data; a published name of a network is none."""
    server.content = edm2_pickle(tmp_path / "ref.pkl", fid=moments).read_bytes()
    assert judged(server.address, "fid") == judged(tmp_path / "ref.pkl", "fid")
    assert len(server.asked) == 1
    with pytest.raises(RunError, match="is no statistics but EDM2-S"):
        judged("edm2-img64-s-1073741-0.075", "fid")


@pytest.mark.parametrize("reference", ["edm2-img64-ref", f"{EDM2}/dataset-refs/img64.pkl"])
def test_a_published_reference_of_another_resolution_is_not_even_downloaded(
    judged, server, monkeypatch, reference
):
    monkeypatch.setattr("mclr_fast.models.storage.published.fetch", None)
    with pytest.raises(RunError, match=r"of images of 64x64, and those that are judged are 32x32"):
        judged(reference, "fid")


@pytest.mark.parametrize("protocol", ["pr-inception", "kid"])
def test_moments_alone_have_no_precision(judged, zips, tmp_path, moments, protocol, monkeypatch):
    monkeypatch.setattr("mclr_fast.evaluation.judge.check_count", lambda *_: None)
    path = edm2_pickle(tmp_path / "ref.pkl", fid=moments)
    with pytest.raises(RunError, match=r"ref.pkl: it holds no features of inception.*name the data set too"):
        judged(path, protocol)


def test_references_that_do_not_fit(judged, zips, tmp_path, moments, fields, weights):
    """Of another protocol, resolution, network, or none at all: one line each."""
    said = {}

    def refused(reference, protocol):
        with pytest.raises(RunError) as error:
            judged(reference, protocol)
        assert "\n" not in str(error.value)
        return str(error.value)

    only_fid = edm2_pickle(tmp_path / "ref.pkl", fid=moments)
    assert "holds no statistics of dinov2" in refused(only_fid, "fd-dinov2")
    assert "nothing to compare with" in refused([], "fid")
    write_zip(tmp_path / "small.zip", fields(20, 3, size=16), [0] * 20)
    said = refused(tmp_path / "small.zip", "fid")
    assert "small.zip is of images of 16x16, and those that are judged are 32x32" in said
    own = Statistics("inception", "x", moments, size=(64, 64))
    write_statistics(tmp_path / "large.npz", own)
    assert "large.npz is of images of 64x64" in refused(tmp_path / "large.npz", "fid")
    write_statistics(tmp_path / "other.npz", Statistics("inception", "x", moments, weights="f" * 64))
    assert "other.npz was made with other weights of inception" in refused(tmp_path / "other.npz", "fid")
    wide = Moments(40, torch.zeros(9), torch.eye(9))
    wide_file = edm2_pickle(tmp_path / "wide.pkl", fid=wide)
    assert "wide.pkl holds statistics of 9 features of inception" in refused(wide_file, "fid")
    uneven = edm2_pickle(tmp_path / "uneven.pkl", fid=Moments(40, torch.zeros(8), torch.eye(9)))
    assert "mu [8] and sigma [9, 9] do not belong together" in refused(uneven, "fid")
    nan = edm2_pickle(tmp_path / "nan.pkl", fid=Moments(40, torch.zeros(8) / 0, torch.eye(8)))
    assert "not finite" in refused(nan, "fid")


@pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"num_images": 3}), pickle.dumps([1])])
@pytest.mark.parametrize("name", ["x.pkl", "x.npz"])
def test_what_is_no_file_of_statistics(judged, tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} holds no statistics of a reference"):
        judged(tmp_path / name, "fid")


def test_a_later_format_is_refused(judged, tmp_path, moments):
    meta = np.array(json.dumps({"format": 2, "extractor": "inception", "num_images": 40}))
    np.savez(tmp_path / "later.npz", mu=moments.mu, sigma=moments.sigma, meta=meta)
    with pytest.raises(RunError, match=r"later\.npz is of format 2"):
        judged(tmp_path / "later.npz", "fid")


def test_a_folder_that_cannot_be_written(judged, zips, capsys, monkeypatch):
    def full(path, statistics):
        raise RunError(f"cannot write {path}")

    monkeypatch.setattr(references, "write_statistics", full)
    assert judged(zips[0], "fid")["fid"]["fd"] > 0
    assert "cannot be written: these statistics are made again next time" in capsys.readouterr().err


def test_pickles_are_data(judged, tmp_path, mark):
    class Runs:
        def __reduce__(self):
            return open, (str(mark), "w")

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"fid": Runs()}))
    with pytest.raises(RunError, match="is refused"):
        judged(tmp_path / "evil.pkl", "fid")
    assert not mark.exists()
