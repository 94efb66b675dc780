"""One arm of a run: one training with one objective, and what is done at its marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.methods.needs import NeedMaker
from mclr_fast.models import Model, save_model
from mclr_fast.reports.grid import sheet
from mclr_fast.reports.summary import Stop
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.training.snapshots import Snapshots
from mclr_fast.training.stopping import out_of_patience
from mclr_fast.training.trainer import Trainer

from ..identity.claim import run_hash
from ..identity.provenance import measured
from .marks import Mark, make_marks, milestone_every
from .rounds import Rounds

if TYPE_CHECKING:
    from .milestones import Milestones
    from .watch import Watch

CONTROL = "denoising"


@dataclass(frozen=True)
class Plan:
    """What one arm does that another does not.

    Attributes:
        name: of the arm and of its rows; kind: of its rows.
        config: the run's, with the objective that trains this arm; marks: its schedule.
        best: the folder, beside its states, of its best model.
        watched: whether it says when FD turns, and ends when --patience is over.
    """

    name: str
    kind: Kind
    config: RunConfig
    marks: list[Mark]
    best: str
    watched: bool


def trained_plan(config: RunConfig, *, judged: bool, refreshes: bool, earlier: Sequence[int] = ()) -> Plan:
    """The arm that the run is about.

    Args: refreshes: whether new references are of use to its objective; earlier: as `make_marks` has it.
    """
    marks = make_marks(
        config.train,
        evaluate_every=config.eval.eval_every if judged else 0,
        refresh_every=config.objective.refresh_every if refreshes else 0,
        snapshot_every=config.train.ema_snapshot_every,
        milestone_every=milestone_every(config),
        earlier=earlier,
    )
    return Plan(config.objective.objective, "trained", config, marks, best="best", watched=True)


def control_plan(config: RunConfig, *, judged: bool, earlier: Sequence[int] = ()) -> Plan | None:
    """The base trained on with the denoising loss for as many images; None in a run without a control."""
    if config.eval.control == "none" or config.objective.objective == CONTROL:
        return None
    often = judged and config.eval.control == "all"
    marks = make_marks(config.train, evaluate_every=config.eval.eval_every if often else 0, earlier=earlier)
    config = replace(config, objective=replace(config.objective, objective=CONTROL))
    return Plan(CONTROL, "control", config, marks, best=f"best-{CONTROL}", watched=False)


@dataclass(frozen=True)
class Outcome:
    """What an arm has come to.

    Attributes: evaluations, in order of time; seconds of training, over all calls of the run; skipped, bad
    minibatches left out; stopped, what ended it before its time.
    """

    name: str
    evaluations: list[Evaluation]
    seconds: float
    skipped: int
    stopped: Stop | None

    @property
    def rows(self) -> list[Row]:
        """Those of its evaluations."""
        return [evaluation.row for evaluation in self.evaluations]

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the lowest FD."""
        return best_of(self.evaluations)

    @property
    def turned_at(self) -> int | None:
        """Images seen at the lowest FD, if a later evaluation is worse."""
        best = self.best
        return None if best is None or best is self.evaluations[-1] else best.row.images_seen


class Arm:
    """Trains one network as planned, judging its average on the way.

    Args:
        description: the networks' config.json.
        build: makes the network that training begins with, on the CPU.
        judge: what evaluates; None in a run without evaluations.
        needs: makes what the objective needs beside the network; None if that is nothing.
        outdir: the run's folder; watch: says what it comes to.
        milestones: keeps models and samples at its milestones.
        began: what of its options the states know otherwise, as `Claim` has it.
    """

    def __init__(
        self,
        plan: Plan,
        description: dict[str, Any],
        build: Callable[[], nn.Module],
        dataset: Dataset,
        judge: Evaluator | None,
        needs: NeedMaker | None,
        outdir: Path,
        ranks: Ranks,
        watch: Watch,
        stop: StopRequest,
        began: Mapping[str, Any] | None = None,
        milestones: Milestones | None = None,
    ):
        self.plan, self.description, self.judge = plan, description, judge
        self.ranks, self.watch = ranks, watch
        self.folder = outdir / "checkpoints"
        states = self.folder / f"{plan.name}-state"
        self.trainer = Trainer(
            plan.name,
            plan.config,
            Model.of(description),
            build(),
            dataset,
            ranks,
            watch.log,
            states,
            run_hash(plan.config, began),
            stop,
        )
        self.rounds = Rounds(self.trainer, needs, plan.marks, self.folder) if needs else None
        self.snapshots = Snapshots(self.trainer, outdir, description)
        self.milestones = milestones
        shows = judge is not None or any(mark.milestone for mark in plan.marks)
        self.net = build().to(ranks.device) if shows else None  # what samples: it takes on the averages
        self.evaluations: list[Evaluation] = []

    def run(self) -> Outcome:
        """Train to the last mark, or until something stops it, and save the final model."""
        trainer, stopped = self.trainer, None
        self.watch.begins(trainer)
        for mark in self.plan.marks:
            if self.rounds is not None:
                self.rounds.enter()
            trainer.train_until(mark.images_seen)
            if mark.snapshot and trainer.images_seen == mark.images_seen:
                self.snapshots.keep()
            if mark.milestone and self.milestones is not None and trainer.images_seen == mark.images_seen:
                state = trainer.average_state()
                arm = (self.plan.name, self.plan.kind, mark.images_seen)
                self.milestones.keep(*arm, self.net, state, self.description)
            stopped = self._pause(mark)
            self.watch.milestone(trainer)
            if stopped is not None:
                break
        trainer.states.wait()
        if stopped is not None:
            self.watch.say(f"stopped at {stopped.images_seen:,} images: {stopped.why}.")
        last = self.evaluations[-1].row if self.evaluations else None
        own = last if last is not None and last.images_seen == trainer.images_seen else None
        final = self.folder / f"final-{self.plan.name}"
        self.ranks.on_main(save_model, final, trainer.average_state(), self._described(own, chose=False))
        return Outcome(self.plan.name, self.evaluations, trainer.seconds, trainer.skipped, stopped)

    def _pause(self, mark: Mark) -> Stop | None:
        """Evaluate, or without a judge save the state, if it is time; why to go no further, if that is so.

        Training stands at the mark, but before it if it was stopped, and past it if it is a resumed one.
        """
        seen = min(mark.images_seen, self.trainer.images_seen)
        why = self.trainer.stopped if seen == self.trainer.images_seen else None
        if mark.evaluate or why is not None:
            if self.judge is None:
                self.trainer.save()
            elif (evaluation := self._evaluation(self.judge, seen)) is not None:
                self._take(evaluation)
                why = why or self._out_of_patience()
        return None if why is None else Stop(why, seen)

    def _evaluation(self, judge: Evaluator, seen: int) -> Evaluation | None:
        """The kept evaluation of the average after `seen` images, or one made now; None if it is too late.

        The best model is saved before the evaluation that made it the best is kept, as a resumed run takes
        what is kept for done.
        """
        found = judge.kept(self.plan.name, seen)
        if found is not None or seen != self.trainer.images_seen:
            return found
        self.trainer.save()
        self.net.load_state_dict(self.trainer.average_state())
        made = judge.make(self.net, self.plan.name, self.plan.kind, seen)
        best = best_of(self.evaluations)
        if best is None or made.row.fd < best.row.fd:
            said = self._described(made.row, chose=True)
            self.ranks.on_main(save_model, self.folder / self.plan.best, self.net.state_dict(), said)
        judge.keep(made)
        return made

    def _described(self, row: Row | None, *, chose: bool) -> dict[str, Any]:
        """config.json of the average as it is now, with its row. chose: whether that made it the best."""
        said = self.description | {"images_seen": self.trainer.images_seen}
        if row is not None and self.judge is not None:
            said["metrics"] = [measured(row, self.judge.seeds, chose=chose)]
        return said

    def _take(self, evaluation: Evaluation) -> None:
        """Tell of an evaluation, and protect the state of the best."""
        self.evaluations.append(evaluation)
        row = evaluation.row
        self.watch.row(row)
        self.trainer.states.protect(best_of(self.evaluations).row.images_seen)
        counts = {"images_seen": row.images_seen, "nfe": row.nfe, "samples": row.samples}
        picture = None if evaluation.grid is None else sheet(evaluation.grid.numpy())
        self.watch.log.evaluated({"name": row.name, **counts, **row.values, "seconds": row.seconds}, picture)
        if self.plan.watched:
            self._say_if_turned()

    def _say_if_turned(self) -> None:
        best, last = best_of(self.evaluations).row, self.evaluations[-1].row
        if len(self.evaluations) > 1 and self.evaluations[-2].row is best and last.fd > best.fd:
            self.watch.say(
                f"FD turned: {best.fd:.4f} at {best.images_seen:,} images, {last.fd:.4f} at "
                f"{last.images_seen:,}. The best checkpoint is kept.",
            )

    def _out_of_patience(self) -> str | None:
        patience = self.plan.config.eval.patience if self.plan.watched else 0
        return out_of_patience([evaluation.row.fd for evaluation in self.evaluations], patience)


def best_of(evaluations: list[Evaluation]) -> Evaluation | None:
    """The evaluation with the lowest FD."""
    return min(evaluations, key=lambda evaluation: evaluation.row.fd, default=None)
