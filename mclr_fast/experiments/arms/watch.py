"""How a run is watched: log.txt's lines, and the time that is left of all of it."""

from __future__ import annotations

from mclr_fast.config import RunConfig
from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.stages import duration
from mclr_fast.training.trainer import Trainer

from .work import Work, samples_of, work_of

# Metrics of a printed row, their digits.
SAID = {
    "fd": 4,
    "is": 3,
    "precision": 3,
    "recall": 3,
    "accuracy": 3,
}


class TimeLeft:
    """Seconds that a run still takes, from what its parts have taken so far."""

    def __init__(self, work: Work):
        self._work = work
        self._seen = dict.fromkeys(work.images, 0)
        self._rates: dict[str, float] = {}  # seconds an evaluation in training, by arm
        self._left = work.samples + work.final_samples
        self._sampled, self._seconds = 0, 0.0  # of the rows that were timed

    def trained(self, arm: str, images_seen: int, seconds_an_image: float | None) -> None:
        """An arm stands there; seconds_an_image: what it takes now, None where that was not measured."""
        self._seen[arm] = images_seen
        if seconds_an_image is not None:
            self._rates[arm] = seconds_an_image / self._work.columns[arm]

    def scored(self, row: Row, *, timed: bool) -> None:
        """A row is there. timed: its seconds were measured in this run."""
        samples = samples_of(row)
        self._left = max(self._left - samples, 0)
        if timed and samples and row.seconds is not None:
            self._sampled += samples
            self._seconds += row.seconds

    def seconds(self) -> float | None:
        """Of training, the control's too, and of rows; None while one of them has not been measured.

        An arm that has not begun is taken to need as long an evaluation as the one before.
        """
        total = 0.0
        for arm, images in self._work.images.items():
            if (left := max(images - self._seen[arm], 0)) == 0:
                continue
            rate = self._rates.get(arm, next(reversed(self._rates.values()), None))
            if rate is None:
                return None
            total += left * self._work.columns[arm] * rate
        if self._left and not self._sampled:
            return None
        return total + (self._left * self._seconds / self._sampled if self._left else 0.0)


class Watch:
    """Says what a run has come to, in log.txt and for the user; on other ranks it says nothing."""

    def __init__(self, config: RunConfig, log: RunLog):
        self.log = log
        self.left = TimeLeft(work_of(config))
        self.duration = config.train.duration
        self._last = (0, 0.0)  # images seen and seconds of training, at the arm's last line

    def say(self, text: str) -> None:
        """One line."""
        self.log.say(text)

    def row(self, row: Row, *, timed: bool = True) -> None:
        """A row, and that so much less is left. timed: as `TimeLeft.scored` has it."""
        self.left.scored(row, timed=timed)
        values = row.values
        metrics = "  ".join(
            f"{name.upper() if len(name) < 3 else name} {values[name]:.{digits}f}"
            for name, digits in SAID.items()
            if values.get(name) is not None
        )
        self.say(f"{row.name:>10} {row.images_seen:>8,} images  {metrics}  {row.nfe} calls a sample")

    def begins(self, trainer: Trainer) -> None:
        """An arm's training begins, or goes on."""
        self._last = trainer.images_seen, trainer.seconds
        self.left.trained(trainer.arm, trainer.images_seen, _pace(trainer.images_seen, trainer.seconds))

    def milestone(self, trainer: Trainer) -> None:
        """An arm's training stands at a mark, and what was to be done there is done."""
        images, seconds = self._last
        pace = _pace(trainer.images_seen - images, trainer.seconds - seconds)
        if pace is None:  # it stood here already when it was resumed
            return
        self._last = trainer.images_seen, trainer.seconds
        self.left.trained(trainer.arm, trainer.images_seen, pace)
        left = self.left.seconds()
        parts = [
            f"{trainer.arm}: {trainer.images_seen:,} of {self.duration:,} images",
            f"{1 / pace:,.{0 if pace < 0.01 else 1}f} images/s",
            *trainer.lines.words(),
            "time left not yet known" if left is None else f"{duration(left)} left of the run",
        ]
        self.say(", ".join(parts))


def _pace(images: int, seconds: float) -> float | None:
    """Seconds an image; None where none was trained on."""
    return seconds / images if images > 0 and seconds > 0 else None
