"""Files of every format: a later number is refused in one line, and format 1's names are understood."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from mclr_fast.evaluation.rows import METRICS, Row
from mclr_fast.models import resolve
from mclr_fast.runtime import formats
from mclr_fast.runtime.errors import RunError

ZOO = Path(__file__).parents[1] / "golden" / "zoo"
OLD_ROW = {"images_seen": 64, "nfe": 23, "samples": 40, **dict.fromkeys(METRICS, 0.5)}


def later(read, *arguments):
    """`read` of a file one format later than any that is known."""
    return lambda: read({"format": formats.SUMMARY_FORMAT + 1}, *arguments)


@pytest.mark.parametrize(
    "read",
    [
        later(formats.config),
        later(formats.state_marker),
        later(formats.evaluation_row, "mclr"),
        later(formats.cfg),
        later(formats.grid, [], "mclr"),
        later(formats.judged),
        later(formats.summary),
    ],
)
def test_a_later_format_is_refused_in_one_line(read):
    with pytest.raises(RunError, match=r"is of format 3; .*: upgrade mclr_fast\.$") as refused:
        read()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "objective", "kind", "guidance", "unguided"),
    [
        ("real", "mclr", "real", 1.0, 1.0),
        ("base", "mclr", "base", 1.0, 1.0),
        ("cfg-1.25", "mclr", "guidance", 1.25, 1.0),
        ("cfg-3", "mclr", "guidance", 3.0, 1.0),
        ("varcfg-0.5", "mclr", "guidance", 0.5, 0.0),
        ("denoising", "mclr", "control", 1.0, 1.0),
        ("denoising-seed2", "mclr", "control", 1.0, 1.0),
        ("denoising", "denoising", "trained", 1.0, 1.0),
        ("kl-mclr", "kl-mclr", "trained", 1.0, 1.0),
        ("kl-mclr-seed0", "kl-mclr", "trained", 1.0, 1.0),
    ],
)
def test_what_a_row_of_format_1_is(name, objective, kind, guidance, unguided):
    row = Row.from_json(formats.evaluation_row({"name": name, **OLD_ROW}, objective))
    assert (row.name, row.kind, row.guidance, row.unguided) == (name, kind, guidance, unguided)
    assert (row.images_seen, row.nfe, row.samples, row.fd) == (64, 23, 40, 0.5)
    assert row.chosen_by == "mnist16" and row.seconds is None


def test_a_row_is_read_as_it_was_written():
    row = Row(
        "varcfg-1.5", "guidance", 0, 20, 50, {"fid": {"fd": 2.0}, "dino": {"fd": None}}, "fid", 1.5, 0.0, 3.5
    )
    meta = json.loads(json.dumps({"format": formats.EVALUATION_FORMAT, **row.to_json()}))
    assert Row.from_json(formats.evaluation_row(meta, "mclr")) == row
    assert {name: meta[name] for name in METRICS} == {**dict.fromkeys(METRICS), "fd": 2.0}


def test_the_grid_of_format_1():
    names = ["base", "cfg-1.5", "cfg-3", "kl-mclr-320"]
    assert [
        (e["name"], e["kind"], e["images_seen"], e["guidance"]) for e in formats.grid({}, names, "kl-mclr")
    ] == [
        ("base", "base", 0, 1.0),
        ("cfg-1.5", "guidance", 0, 1.5),
        ("cfg-3", "guidance", 0, 3.0),
        ("kl-mclr", "trained", 320, 1.0),
    ]
    (entry,) = formats.grid({}, ["denoising-64"], "denoising")
    assert (entry["kind"], entry["images_seen"]) == ("trained", 64)


@pytest.mark.parametrize("path", sorted(ZOO.glob("**/evaluations/*.safetensors")), ids=lambda p: p.stem)
def test_evaluations_of_format_1(path):
    with safe_open(path, framework="np") as file:
        meta = json.loads(file.metadata()["meta"])
    row = Row.from_json(formats.evaluation_row(meta, "mclr"))
    assert {name: row.values[name] for name in METRICS} == {name: meta[name] for name in METRICS}
    assert row.seconds == meta.get("seconds")
    kinds = {"base": "base", "cfg": "guidance", "denoising": "control", "mclr": "trained"}
    assert row.kind == kinds[path.stem.split("-")[0]]


EDM2_MODEL = {"family": "edm2", "net": {}, "made_by": "mnist16-proof", "objective": "mclr"}


def test_a_model_that_does_not_say_how_it_is_sampled():
    """The embedded runs' older models are sampled as those runs did, and guide themselves."""
    found = formats.model(EDM2_MODEL)
    assert found["sampler"] == {"num_steps": 12, "sigma_min": 0.002, "sigma_max": 40.0, "classes": "in turn"}
    assert found["null_label"] is True and found.items() >= EDM2_MODEL.items()


@pytest.mark.parametrize(
    "said",
    [
        {"sampler": {"num_steps": 3}},
        {"base": {"model": "x", "sha256": "0"}},  # of this version: its base did not say either
        {"made_by": "edm2-img64-s"},
        {"made_by": None},
        {"family": "toy"},
    ],
)
def test_other_models_say_what_they_say(said):
    assert formats.model(EDM2_MODEL | said) == EDM2_MODEL | said


def test_the_shipped_guided_rows_are_of_format_1():
    content = json.loads((resolve("mnist16-base") / "cfg.json").read_text())
    assert "format" not in content
    rows = [Row.from_json(row) for row in formats.cfg(content)["rows"]]
    assert [row.guidance for row in rows] == [1.1, 1.25, 1.5, 2.0, 3.0]
    assert {row.kind for row in rows} == {"guidance"}
    assert [row.fd for row in rows] == [row["fd"] for row in content["rows"]]


def test_a_final_run_of_a_table_of_format_1():
    own = json.loads((ZOO / "finished" / "summary.json").read_text())
    content = formats.judged({"judged": {"name": "mclr-seed0", **OLD_ROW}, "summary": own, "seconds": 2.5})
    assert content["seconds"] == 2.5
    assert Row.from_json(content["judged"]).kind == "trained"
    assert content["summary"]["kind"] == "run"
    assert formats.judged(content) == content


@pytest.mark.parametrize("marker", sorted(ZOO.glob("*/checkpoints/*-state/*/complete.json")))
def test_markers_of_format_1(marker):
    content = json.loads(marker.read_text())
    assert formats.state_marker(content) == {"format": formats.STATE_FORMAT, **content}


def test_formats_know_no_model():
    program = "import sys; import mclr_fast.runtime.formats; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("mclr_fast.")}
    assert ours == {"mclr_fast.runtime", "mclr_fast.runtime.formats", "mclr_fast.runtime.errors"}
    assert not {"torch", "numpy"} & set(done.stdout.split())
