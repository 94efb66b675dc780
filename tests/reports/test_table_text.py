"""A table in words: what was better, by how much the weight closes the gap, what stopped."""

import pytest

from mclr_fast.reports.run_data import Run
from mclr_fast.reports.run_text import verdicts
from mclr_fast.reports.table_text import findings, settings_text, tried_sentences

QUALITY = {
    "heldout_images": 1500, "accuracy": 0.9, "ece_before": 0.05, "ece_after": 0.01, "nll_before": 0.4,
    "nll_after": 0.3,
}  # fmt: skip


def row(fd, inception=8.0, name="x"):
    return {"name": name, "fd": fd, "is": inception, "precision": 0.5, "recall": 0.5, "nfe": 23}


def method(*rows, stopped=None):
    runs = [{"seed": i, "judged": r, "stopped": stopped, "seconds": 60.0} for i, r in enumerate(rows)]
    tried = {"settings": {"lr": 5e-5, "num_negatives": 3}, "fd": 0.25, "stopped": stopped, "rows": []}
    return {"runs": runs, "grid": [tried], "settings": tried["settings"]}


def summary(methods):
    rows = [row(0.02, name="real"), row(0.9, name="base"), row(0.3, 9.0, "cfg-1.25")]
    return {"rows": rows, "methods": methods, "ablations": []}


def test_better_is_what_every_seed_says():
    methods = {"mclr": method(row(0.1), row(0.2)), "cca": method(row(0.3), row(0.4)),
               "ccdpo": method(row(0.15), row(0.4))}  # fmt: skip
    found = list(findings(summary(methods)))
    against = {sentence.split(",")[0]: sentence for sentence in found}
    assert "FD better (0.150 and 0.350), IS not told apart" in against["MCLR against CCA"]
    assert "FD not told apart (0.150 and 0.275)" in against["MCLR against CC-DPO"]
    assert "FD worse (0.300 and 0.150), IS better (9.00 and 8.00)" in against["CFG against MCLR"]
    assert not any("DDO" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("fd", "words"),
    [
        (0.35, "In FD the adaptive weight closes 50% of MCLR's gap to CFG, by the means."),
        (0.45, "In FD the adaptive weight widens by 50% MCLR's gap to CFG, by the means."),
    ],
)
def test_the_gap_to_guidance(fd, words):
    assert words in findings(summary({"mclr": method(row(0.4)), "weighted-mclr": method(row(fd))}))
    spread = summary({"mclr": method(row(0.4), row(0.4)), "weighted-mclr": method(row(0.2), row(0.5))})
    assert any(sentence.endswith("within the spread of the seeds.") for sentence in findings(spread))
    none = summary({"mclr": method(row(0.2)), "weighted-mclr": method(row(fd))})
    assert "In FD MCLR leaves no gap to CFG at its best FD that a weight could close." in findings(none)


@pytest.mark.parametrize(("weight", "same"), [(0.2, True), (0.35, False)])
def test_two_methods_that_are_one(weight, same):
    methods = {"gft": method(row(0.1)), "model-guidance": method(row(0.1))}
    methods["gft"]["settings"] = {"lr": 3e-4, "beta": 0.8}
    methods["model-guidance"]["settings"] = {"lr": 3e-4, "guidance_weight": weight}
    assert any("is GFT" in sentence for sentence in findings(summary(methods))) == same


def test_ablations_and_the_classifier():
    runs = [
        {"settings": {"beta": 0.01}, "fd": 0.2, "stopped": None},
        {"settings": {"beta": 0.05}, "fd": 0.1, "stopped": {"images_seen": 1600, "why": ""}},
    ]
    ablation = {"objective": "ccdpo", "option": "beta", "figure": "Figure 21", "runs": runs}
    found = list(findings({**summary({}), "ablations": [ablation], "classifier": QUALITY}))
    words = "CC-DPO by β (Figure 21), lowest FD: 0.01: 0.200; 0.05: 0.100 (stopped at 1,600 images)."
    assert f"{words} Best at 0.05." in found
    assert "1,500 held-out images" in found[-1]
    assert "calibration error 0.050 before and 0.010 after" in found[-1]
    single = Run({"classifier": QUALITY, "rows": [], "objective": "weighted-mclr"}, {}, {})
    assert found[-1] in verdicts(single)


def test_what_was_tried_and_what_stopped():
    stopped = {"images_seen": 960, "why": "the mean energy rose"}
    (sentence,) = tried_sentences(summary({"mclr": method(row(0.1), row(0.2), stopped=stopped)}))
    assert "lr 5e-5, K 3: 0.250 (stopped at 960 images)." in sentence
    assert sentence.endswith(
        "Final runs: 60 s each, seed 0 (stopped at 960 images), seed 1 (stopped at 960 images)."
    )


def test_settings_as_the_paper_writes_them():
    assert settings_text({"lr": 1e-4, "lambda_coef": 0.5, "eta": 2.0}) == "lr 1e-4, λ 0.5, η 2"
