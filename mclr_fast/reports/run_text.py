"""What the report says in words, made from the run's numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mclr_fast.evaluation.rows import Row

from .html_page import Tile
from .run_data import LogLine, RunData
from .summary import Interval
from .words import AGAINST, CURVES, END, FD, FINE_TUNING, PURPOSES, Metric, label

FD_SPELLED = "Fréchet distance (FD)"
MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def subtitle(run: RunData) -> str:
    """What such a run is for."""
    return PURPOSES.get(run.objective, FINE_TUNING)


def headline(run: RunData) -> str:
    """What the run did, in one sentence made from its numbers."""
    if proof := run.summary.proof:
        before = _mean_row([entry.base for entry in proof])
        after = _mean_row([entry.trained for entry in proof])
        count = f"passed with {sum(entry.passed for entry in proof)} of {len(proof)} seeds"
        return f"{run.title} {count}; on average {_changes(before, after)}{_cost(run, after)}."
    seen = f"{run.summary.images_seen:,} images seen"
    if not run.trained:
        return f"{run.title}, {seen}: no evaluation yet."
    row = run.best if run.best in run.trained else run.trained[-1]
    at = f"{row.images_seen:,} images seen"
    if not run.base:
        return f"{run.title}, {at}: {_values(row)}{_cost(run, row)}."
    changes = _changes(run.base, row)
    if not changes:
        return f"{run.title}, {at}: no metric was measured for both it and the base."
    before, after = run.base.fd, row.fd
    if None in (before, after):
        return f"{run.title}, {at}: {changes}{_cost(run, row)}."
    fd = f"{FD_SPELLED} {change(FD, run.base, row)}"
    if after >= before:
        return f"{run.title} did not lower FD in this run; at its best, {at}: {fd}."
    return f"{run.title}, {at}: {fd}{_cost(run, row)}."


def tiles(run: RunData) -> Iterable[Tile]:
    """Each metric from the base to the kept checkpoint, which way is better, and what a sample costs."""
    row = run.best or next(reversed(run.trained), None)
    if run.summary.proof or not run.base or row is None:
        return
    for metric in CURVES:
        before, after = metric.of(run.base), metric.of(row)
        if None in (before, after):
            continue
        verdict = "" if metric.text(before) == metric.text(after) else "worse"
        if verdict and (after < before) == (metric.arrow == "↓"):
            verdict = "better"
        yield Tile(
            f"{metric.title} {metric.arrow}", change(metric, run.base, row), verdict, verdict or "the same"
        )
    guided = max((each.nfe for each in run.guided), default=0)
    if row.nfe:
        remark = f"guidance: {guided}" if guided else ""
        yield Tile("Network calls a sample", str(row.nfe), "", remark)


def _cost(run: RunData, row: Row) -> str:
    if not row.nfe:
        return ""
    guided = max((guided.nfe for guided in run.guided), default=0)
    instead = f" instead of guidance's {guided}" if guided > row.nfe else ""
    return f", at {row.nfe} network calls a sample{instead}"


def _changes(before: Row, after: Row) -> str:
    return ", ".join(
        f"{_word(m)}{NBSP}{change(m, before, after)}"
        for m in CURVES
        if None not in (m.of(before), m.of(after))
    )


def change(metric: Metric, before: Row, after: Row) -> str:
    """A metric's value in two rows, with an arrow between them; never broken over lines."""
    values = (metric.text(metric.of(row)) for row in (before, after))
    return f"{NBSP}→{NBSP}".join(values)


def _values(row: Row) -> str:
    values = (f"{_word(m)} {m.text(m.of(row))}" for m in CURVES if m.of(row) is not None)
    return ", ".join(values) or "no metric was measured"


def _word(metric: Metric) -> str:
    return metric.title if metric.title.isupper() else metric.title.lower()


def _mean_row(rows: Sequence[Row]) -> Row:
    """The first row, with the means of all rows' metrics."""

    def mean(metric: Metric) -> float | None:
        values = [metric.of(row) for row in rows]
        return None if None in values else sum(values) / len(values)

    return replace(rows[0], metrics={rows[0].chosen_by: {metric.key: mean(metric) for metric in CURVES}})


def verdicts(run: RunData) -> Iterable[str]:
    """What qualifies the headline: an early stop, intervals, guidance's best, if FD turned or levelled."""
    summary = run.summary
    if summary.proof:
        return
    if summary.stopped:
        yield f"Stopped at {summary.stopped.images_seen:,} images seen: {summary.stopped.why}."
    if summary.classifier:
        yield classifier_sentence(summary.classifier)
    for name, interval in summary.comparison.items():
        if name == END:
            continue
        text = interval_text(interval)
        yield f"FD, difference from {AGAINST.get(name, name)} [95% interval]: {text}, {_reading(interval)}."
    scored = [row for row in run.guided if row.fd is not None]
    if scored and run.trained:
        row = min(scored, key=lambda row: row.fd)
        calls = f" ({row.nfe} network calls a sample)" if row.nfe else ""
        yield f"Guidance at its best FD, {label(row)}{calls}: {_values(row)}."
    if summary.turned_at is not None:
        yield f"FD turned at {summary.turned_at:,} images seen: every later evaluation is higher.{_turn(run)}"
    rows = [row for row in run.trained if row.fd is not None]
    if not run.base and len(rows) > 1:
        middle, last = rows[(len(rows) - 1) // 2], rows[-1]
        change = (last.fd - middle.fd) / middle.fd
        yield (
            f"FD over the second half of training, {middle.images_seen:,} to "
            f"{last.images_seen:,} images: {FD.text(middle.fd)} → {FD.text(last.fd)} "
            f"({_signed(f'{change:+.0%}')}); "
            f"lowest {FD.text(min(row.fd for row in rows))}."
        )


def _turn(run: RunData) -> str:
    """Whether the lowest FD is told apart from the last."""
    interval = run.summary.comparison.get(END)
    if interval is None:
        return ""
    return (
        f" Lowest, difference from the last [95% interval]: {interval_text(interval)}, {_reading(interval)}."
    )


def classifier_sentence(quality: dict[str, Any]) -> str:
    """How good the classifier is whose p(c|x_t) weighs the negatives, on images it has not seen."""
    before, after = quality["ece_before"], quality["ece_after"]
    return (
        f"The noise-conditional classifier, on {quality['heldout_images']:,} held-out images under all noise "
        f"levels: accuracy {quality['accuracy']:.3f}, calibration error {before:.3f} before and {after:.3f} "
        f"after its temperatures, negative log-likelihood {quality['nll_after']:.3f}."
    )


def interval_text(interval: Interval) -> str:
    """A difference of FDs and, in brackets, its interval."""
    difference, low, high = (_signed(f"{'-' if v < 0 else '+'}{FD.text(abs(v))}") for v in interval)
    return f"{difference} [{low},{NBSP}{high}]"


def _reading(interval: Interval) -> str:
    _, low, high = interval
    if high < 0:
        return "lower"
    return "higher" if low > 0 else "not told apart (the interval includes 0)"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def grid_note(run: RunData) -> str:
    """How to read the same-noise grid."""
    marked = " ★ marks the kept checkpoint, the one with the best FD." if run.best else ""
    return (
        "In a block, every image starts from the same noise: columns are classes, rows are models. "
        "The more the columns differ, the more the model makes of the class."
        + marked
        + _verdict_note(run)
        + _grid_choice(run)
    )


def _verdict_note(run: RunData) -> str:
    if not any(entry.verdicts is not None for entry in run.grid):
        return ""
    return " Below an image: the class asked for, and what the classifier that judges this run takes it for."


def _grid_choice(run: RunData) -> str:
    if not run.base or len(run.summary.grid_seeds or ()) < 2:
        return ""
    return (
        " Nobody picked the noises: the first is the first sampling seed's; the other is, of the first 20, "
        "the one where the classifier finds the base's samples least like the classes asked for."
    )


def tradeoff_note(run: RunData) -> str:
    """How to read the trade-off curves."""
    text = (
        "CFG is one curve over guidance (the small numbers), "
        f"{run.title} one curve over training, from Start to End; both leave from the base."
    )
    if run.dial:
        text += " The strength dial is the base with its weights moved towards the best model's, and beyond."
    if run.guided_best:
        text += " Best + CFG is that model under guidance, at twice the calls."
    return text


def final_note(run: RunData) -> str:
    """What the final rows are."""
    samples = run.summary.final[0].samples
    return (
        f"{samples:,} samples a row, of seeds after those that chose the checkpoint and the guidance: the "
        "rows to compare with other work's."
    )


def metrics_note(run: RunData) -> str:
    """What the panels over images seen leave out."""
    return "Guidance is not shown here: it trains nothing." if run.guided else ""


def loss_note(run: RunData) -> str:
    """How to read energies, where both rise: the difference is what is trained."""
    lines = [line for line in run.log.get(run.objective, []) if None not in (line.positive, line.negative)]
    if len(lines) < 2:
        return ""
    tenth = max(len(lines) // 10, 1)

    def mean(part: Sequence[LogLine]) -> tuple[float, float]:
        right = sum(line.positive for line in part) / len(part)
        return right, sum(line.negative for line in part) / len(part)

    (right, wrong), (right_end, wrong_end) = mean(lines[:tenth]), mean(lines[-tenth:])
    text = (
        "An energy is the weighted squared error of the denoised image: low where the model finds the image "
        f"likely under that label. Wrong minus right: {wrong - right:.3g} over the first tenth of the log, "
        f"{wrong_end - right_end:.3g} over the last."
    )
    if right_end > right:
        text += (
            " The right label's energy rises as well: the objective rewards the difference, and gives "
            "up some of the one for more of the other. Running too far this way is what raises FD again."
        )
    return text


def words(run: RunData) -> Iterable[tuple[str, str]]:
    """The report's words, for a reader who meets them here: term and meaning."""
    yield (
        "FD",
        (
            "Fréchet distance between the features of the samples and of the reference images; lower is "
            "better, 0 is the same mean and covariance"
        ),
    )
    yield "IS", "Inception Score: how clear the classes are, and how varied; higher is better"
    yield "Precision", "share of the samples that look like real images"
    yield "Recall", "share of the real images that the samples cover"
    yield "Accuracy", "share of the samples that a classifier gives the class asked for"
    yield "Network calls", "what one sample costs"
    if run.rows("real"):
        yield "Real images", "held-out ones, scored like samples: what can be reached"
    yield from judged_by(run)
    if run.guided:
        none = f"{run.guided[0].unguided:g} = none"
        yield "CFG", f"the base with classifier-free guidance of that strength ({none}).{_guide(run)}"
    if run.guided_best:
        yield "Best + CFG", "the kept checkpoint under guidance of that strength"
    if run.dial:
        yield "Dial", "weights between the base (0) and the kept checkpoint (1), or beyond it"
    if run.control:
        yield "Control", "the same base trained on with the denoising loss, for as many images"


def judged_by(run: RunData) -> Iterable[tuple[str, str]]:
    """How good the classifier is that was trained to judge, where one was."""
    for about in (run.summary.protocol or {}).get("protocols", {}).values():
        if "accuracy" in about:
            yield (
                "The classifier",
                f"was trained on {about['train_images']:,} real images, and gets "
                f"{about['accuracy']:.1%} of {about['heldout_images']:,} others right; features are its: "
                f"rows of another classifier than {about['weights'][:12]} do not compare",
            )


def _guide(run: RunData) -> str:
    """Which network guides, where that is another."""
    guide = (run.summary.protocol or {}).get("guide")
    if guide is None:
        return ""
    kind = ", which knows classes: that is autoguidance, and no CFG" if guide["num_classes"] else ""
    return f" {guide['model']} guides{kind}."
