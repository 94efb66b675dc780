"""What a run makes for its objective, samples and the classifier: once, kept, and shared where it fits."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from mclr_fast.data import open_dataset
from mclr_fast.models import describe, save_model
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors


@pytest.mark.parametrize("given", [False, True])
def test_missing_negatives_are_made_once_and_reused(tiny_run, files, given):
    options = {"negatives": files / "made.zip"} if given else {}
    path = files / "made.zip" if given else files / "run" / "samples" / "reference-0.zip"
    tiny_run("run", "ddo", **options).execute()
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 8 + 1
    stamp = path.stat().st_mtime_ns
    tiny_run("run", "ddo", **options).execute()
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("objective", "options"),
    [("weighted-mclr", {}), ("plus-minus", {"positives": "best"}), ("kl-mclr", {}), ("ccdpo", {})],
)
def test_runs_and_runs_again(tiny_run, files, objective, options):
    first = tiny_run("run", objective, **options).execute()
    kept = {path: path.stat().st_mtime_ns for path in (files / "run").glob("*.safetensors")}
    assert bool(kept) == (objective in ("weighted-mclr", "plus-minus"))
    if kept:
        assert 0 <= first.classifier["accuracy"] <= 1
        _, meta = load_tensors(files / "run" / "classifier.safetensors")
        assert meta["quality"] == first.classifier
    second = tiny_run("run", objective, **options).execute()
    assert second == replace(first, seconds=second.seconds)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_classifier_may_be_shared_and_must_fit(tiny_run, files):
    path = files / "classifier.safetensors"
    options = {"objective": "weighted-mclr", "classifier": path}
    first = tiny_run("one", **options).execute()
    stamp = path.stat().st_mtime_ns
    assert tiny_run("two", **options).execute().classifier == first.classifier
    assert path.stat().st_mtime_ns == stamp
    groups, meta = load_tensors(path)
    save_tensors(path, groups, {**meta, "arguments": {**meta["arguments"], "image_shape": [3, 8, 8]}})
    with pytest.raises(RunError, match=r"its image_shape is \[3, 8, 8\], this run's \[1, 8, 8\]"):
        tiny_run("three", **options)


def test_autoguidances_negatives_are_another_models(tiny_run, tiny, files):
    save_model(files / "weak", tiny.tiny_net(5).state_dict(), describe(tiny.NET))
    options = {"positives": "base", "negatives_model": str(files / "weak")}
    tiny_run("run", "plus-minus", **options).execute()
    base, negatives = (
        open_dataset(str(files / "run" / "samples" / name)).images(np.arange(8))
        for name in ("reference-0.zip", "negatives.zip")
    )
    assert not np.array_equal(base, negatives)
