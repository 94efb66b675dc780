"""A table in words: what was better, by how much the weight closes the gap, what stopped."""

from dataclasses import replace

import pytest

from mclr_fast.evaluation.rows import Row
from mclr_fast.reports.run_data import RunData
from mclr_fast.reports.run_text import verdicts
from mclr_fast.reports.summary import Stop, Summary
from mclr_fast.reports.table_page import LOOKS
from mclr_fast.reports.table_summary import Ablation, Final, MethodResults, TableSummary, Tried
from mclr_fast.reports.table_text import findings, settings_text, tried_sentences
from mclr_fast.reports.words import OBJECTIVES

QUALITY = {
    "heldout_images": 1500, "accuracy": 0.9, "ece_before": 0.05, "ece_after": 0.01, "nll_before": 0.4,
    "nll_after": 0.3,
}  # fmt: skip


def row(fd, inception=8.0, kind="trained", guidance=1.0):
    metrics = {"fd": fd, "is": inception, "precision": 0.5, "recall": 0.5}
    return Row("x", kind, 0, 23, 40, {"p": metrics}, "p", guidance)


def method(*rows, stopped=None, **settings):
    runs = [Final(i, judged, [], stopped, 60.0) for i, judged in enumerate(rows)]
    settings = settings or {"lr": 5e-5, "num_negatives": 3}
    return MethodResults(settings, "", [Tried(settings, 0.25, [], stopped, 60.0)], runs)


def summary(methods):
    rows = [row(0.02, kind="real"), row(0.9, kind="base"), row(0.3, 9.0, "guidance", 1.25)]
    return TableSummary(
        recipe="table", seeds=[0], images_seen=1, seconds=1.0, rows=rows, guided=[], methods=methods,
        ablations=[], classifier=None, best=rows[0], protocol={}, judged_on=[0, 1], versions={},
    )  # fmt: skip


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
    guided = method(row(0.1), lr=3e-4, guidance_weight=weight)
    methods = {"gft": method(row(0.1), lr=3e-4, beta=0.8), "model-guidance": guided}
    assert any("is GFT" in sentence for sentence in findings(summary(methods))) == same


def test_ablations_and_the_classifier():
    runs = [
        Tried({"beta": 0.01}, 0.2, [], None, 60.0),
        Tried({"beta": 0.05}, 0.1, [], Stop("", 1600), 60.0),
    ]
    ablation = Ablation("Figure 21", "ccdpo", "beta", [0.01, 0.05], True, {}, runs)
    found = list(findings(replace(summary({}), ablations=[ablation], classifier=QUALITY)))
    words = "CC-DPO by β (Figure 21), lowest FD: 0.01: 0.200; 0.05: 0.100 (stopped at 1,600 images)."
    assert f"{words} Best at 0.05." in found
    assert "1,500 held-out images" in found[-1]
    assert "calibration error 0.050 before and 0.010 after" in found[-1]
    single = Summary(
        recipe="", objective="weighted-mclr", settings="", seed=0, images_seen=0, seconds=0.0, rows=[],
        best=None, turned_at=None, stopped=None, skipped_batches={}, classifier=QUALITY, comparison={},
        grid_seeds=None, protocol=None, versions={},
    )  # fmt: skip
    assert found[-1] in verdicts(RunData(single, {}, []))


def test_the_control_is_a_row_like_any_other():
    """MCLR is compared with it, and every objective can be drawn."""
    methods = {"mclr": method(row(0.1, 8.5)), "denoising": method(row(0.3, 8.0))}
    (line,) = (line for line in findings(summary(methods)) if "Denoising" in line)
    assert line.startswith(
        "MCLR against Denoising, the control of as many images. Here: FD better (0.100 and"
    )
    assert LOOKS.keys() == OBJECTIVES.keys() and len(set(LOOKS.values())) == len(LOOKS)


def test_what_was_tried_and_what_stopped():
    stopped = Stop("the mean energy rose", 960)
    (sentence,) = tried_sentences(summary({"mclr": method(row(0.1), row(0.2), stopped=stopped)}))
    assert "lr 5e-5, K 3: 0.250 (stopped at 960 images)." in sentence
    assert sentence.endswith(
        "Final runs: 60 s each, seed 0 (stopped at 960 images), seed 1 (stopped at 960 images)."
    )


def test_settings_as_the_paper_writes_them():
    assert settings_text({"lr": 1e-4, "lambda_coef": 0.5, "eta": 2.0}) == "lr 1e-4, λ 0.5, η 2"
