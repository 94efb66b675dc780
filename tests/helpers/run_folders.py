"""Runs' folders, as of format 1, whose rows are short, and the pages made of them.

`in_todays_format` writes them again.
"""

import json
import re
from html.parser import HTMLParser

import numpy as np

from mclr_fast.reports import run_data as report_data
from mclr_fast.reports import run_text as report_text
from mclr_fast.reports.grid import write_grid

METRICS = ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")


def make_row(name, images_seen=0, nfe=23, **metrics):
    values = {"fd": 0.41, "is": 8.2, "precision": 0.79, "recall": 0.95, "accuracy": 0.9}
    values["fd_heldout"] = 0.45
    return {
        "name": name,
        "images_seen": images_seen,
        "nfe": nfe,
        "samples": 1000,
        **{key: (values | metrics)[key] for key in METRICS},
    }


def make_summary(**changes):
    trained = [
        make_row("mclr", n, fd=fd, precision=0.83, **{"is": 8.6})
        for n, fd in ((320, 0.35), (640, 0.29), (960, 1.4))
    ]
    guided = [make_row("cfg-3", nfe=46, fd=0.9), make_row("cfg-1.5", nfe=46, fd=0.31)]
    control = [make_row("denoising", 960, fd=0.4)]
    real = make_row("real", nfe=None, fd=0.05)
    summary = {
        "recipe": "mnist16",
        "objective": "mclr",
        "seed": 0,
        "images_seen": 960,
        "seconds": 312.4,
        "rows": [real, make_row("base"), *guided, *control, *trained],
        "best": trained[1],
        "turned_at": 960,
        "comparison": {"base": [-0.12, -0.15, -0.09], "denoising": [-0.01, -0.1, 0.08]},
        "protocol": {
            "name": "mnist16-classifier",
            "reference": "3,000 training digits",
            "samples": 1000,
            "seeds": [0, 999],
            "num_steps": 12,
            "k": 3,
        },
        "versions": {"mclr_fast": "0.1.0", "base_sha256": "ab" * 32},
    }
    return summary | changes


def make_run(outdir, summary, *, log=True, grid=None):
    outdir.mkdir(exist_ok=True)
    (outdir / "summary.json").write_text(json.dumps(summary))
    if log:
        lines = [
            {"arm": arm, "images_seen": n, "loss": 1 / n, "positive": 5.0, "negative": 6.0}
            for arm in ("mclr", "denoising")
            for n in (32, 64, 96)
        ]
        (outdir / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if grid:
        images = np.zeros((2, 3, 1, 4, 4), np.uint8)
        np.savez(outdir / "grid.npz", order=np.array(grid), **dict.fromkeys(grid, images))
    return outdir


def in_todays_format(outdir):
    """Write summary.json and grid.npz again, as runs write them now."""
    run = report_data.read_run(outdir)
    (outdir / "summary.json").write_text(json.dumps(run.summary.to_json()))
    write_grid(outdir, run.grid)


class Page(HTMLParser):
    """The page's visible text, its tags and its images."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.images, self.hidden = [], [], [], False
        self.feed(page.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", "".join(self.words)).replace("\N{MINUS SIGN}", "-")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.hidden = tag == "style"
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        self.words.append("" if self.hidden else data + " ")


def headline_of(outdir):
    return re.sub(r"\s+", " ", report_text.headline(report_data.read_run(outdir)))


def figures(outdir):
    return {path.stem for path in (outdir / "figures").iterdir()}
