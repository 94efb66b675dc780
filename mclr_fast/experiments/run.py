"""A whole run: train, evaluate, keep the best, compare with base, guidance and control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation.cfg_rows import cfg_file, stored_cfg_rows
from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.evaluation.protocols import PROTOCOLS
from mclr_fast.evaluation.rows import Row
from mclr_fast.methods.needs import NeedMaker
from mclr_fast.methods.registry import make_method
from mclr_fast.models import (
    Model,
    describe,
    get_family,
    load,
    model_from_config,
    read_config,
    resolve,
    weights_file,
)
from mclr_fast.models.classes import SAID, Classes
from mclr_fast.models.storage.on_hub import pinned
from mclr_fast.reports.grid import GridEntry, write_grid
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.summary import Summary, write_summary
from mclr_fast.reports.words import END
from mclr_fast.runtime.device.deterministic import use_deterministic_kernels
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256, write_json
from mclr_fast.runtime.locks import owned, refuse_if_owned
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import duration
from mclr_fast.runtime.trackers import open_trackers
from mclr_fast.training.optimizer import check_optimizer
from mclr_fast.training.placement import capture_words

from .after_training import after_training, final_rows
from .arms.arm import Arm, Outcome, Plan, control_plan, trained_plan
from .arms.marks import milestone_every
from .arms.milestones import Milestones
from .arms.watch import Watch
from .checks import check_fit, check_options, data_notes, net_overrides
from .identity.claim import Claim, claim_outdir, flat, lock_of
from .identity.fingerprints import fingerprints
from .identity.provenance import made_of
from .identity.versions import command, describe_device, versions
from .judging import Judging
from .new_network import check_network, length_words
from .reporting import report


class Run:
    """One run of a recipe in its folder; calling `execute` again picks up where it stopped."""

    def __init__(self, config: RunConfig, ranks: Ranks, stop: StopRequest):
        """Checks everything a user can get wrong, and claims the folder. RunError when it cannot."""
        self.config = config
        self.ranks = ranks
        self.stop = stop
        self.outdir = config.folder
        check_options(config, ranks.size)
        check_network(config)
        ranks.on_main(refuse_if_owned, lock_of(self.outdir), self.outdir)
        check_optimizer(config.train.optimizer, ranks.device)
        if config.train.deterministic:
            use_deterministic_kernels()
        try:
            self.description = read_config(config.init) if config.init else self._new_description()
            self.model = Model.of(self.description)
            loading = (config.loader, config.loader_threads, ranks.device)
            self.dataset = open_dataset(config.data, "train", *loading)
            check_fit(config, self.dataset, self.model)
            self._know_the_classes()
            self.base = self._build()
            self.needs = NeedMaker(config, self.description, self.dataset, ranks, stop)
            dtype = self.model.family.dtype(self.base)
            judged = (config, self.model, self.dataset, dtype, ranks, stop)
            self.judging = Judging(*judged) if config.is_judged else None
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise RunError(str(error)) from error
        self.claim = ranks.on_main(self._claim)
        self.log = RunLog(self.outdir / "log.jsonl" if ranks.is_main else None)
        self.watch = Watch(config, self.log)
        self.milestones = None
        if milestone_every(config):
            places = (config, self.model, self.dataset, self.watch, ranks, stop)
            self.milestones = Milestones(*places)
        ranks.on_main(self._open_trackers)
        self.base_sha256 = file_sha256(weights_file(config.init)) if config.init else None

    def execute(self) -> Summary:
        """Everything; returns the summary, which is also written with the report.

        Errors    RunError where another process executes a run in this folder.
        """
        with owned(lock_of(self.outdir), self.outdir, self.ranks), self.log:
            return self._execute()

    def _execute(self) -> Summary:
        self._announce()
        judge = self.evaluator()
        rows: list[Row] = []
        shown: list[tuple[Row, Tensor]] = []  # rows and their pictures, of the same-noise grid
        base = control = None
        if judge is not None and (real := judge.real_row()) is not None:
            rows.append(self._said(real))
        if judge is not None and self.config.init:
            base = self.evaluate_base(judge)
            shown += [(base.row, base.grid), *self._guided(judge)]
            rows += [row for row, _ in shown]
            self.base.cpu()  # until it is judged again
        if judge is None and self.milestones is not None and self.config.init:
            self.milestones.show_base(self.base_on_device())
            self.base.cpu()
        asked = {"judged": judge is not None, "earlier": self.claim.earlier}
        if plan := control_plan(self.config, **asked):
            control = self._train(plan, judge)
            rows += control.rows
        plan = trained_plan(self.config, **asked, refreshes=self._refreshes)
        trained = self._train(plan, judge, self.needs)
        rows += trained.rows
        shown += [(made.row, made.grid) for made in trained.evaluations]
        final: list[Row] = []
        if judge is not None and self.config.init:
            made = after_training(self, judge, trained)
            rows += [each.row for each in made]
            shown += [(each.row, each.grid) for each in made]
            final = final_rows(self, rows)

        others = {"base": base, "denoising": control and control.best}
        if trained.turned_at is not None:
            others[END] = trained.evaluations[-1]
        compared = compare(judge, trained.best, others)
        summary = self._summary(judge, rows, final, control, trained, compared)
        self.ranks.on_main(self._write, summary, shown, judge)
        self.watch.say(
            f"finished: {duration(summary.seconds)} of training and judging. Folder: {self.outdir}"
        )
        report(write_report, self.outdir, self.ranks)
        return summary

    def evaluator(self, seeds: range | None = None, folder: Path | None = None) -> Evaluator | None:
        """The judge of this run's rows (other seeds and folder for another judge); None without one."""
        if self.judging is None:
            return None
        return self.judging.evaluator(seeds or self.judging.seeds, folder or self.outdir / "evaluations")

    def final_evaluator(self) -> Evaluator | None:
        """The proof's judge: fresh seeds that chose no checkpoint."""
        first, count = self.config.proof_first_seed, self.config.proof_samples
        return self.evaluator(range(first, first + count), self.outdir.parent / "evaluations")

    def evaluate_base(self, judge: Evaluator) -> Evaluation:
        """The base's evaluation, and the grid's noises by it."""
        judge.choose_grid_seeds(self.base_on_device())
        evaluation = judge.evaluate(self.base_on_device(), "base", "base")
        self._said(evaluation.row)
        return evaluation

    def base_on_device(self) -> nn.Module:
        """The base, for a judge; in a run without one it stays on the CPU."""
        return self.base.to(self.ranks.device)

    def _claim(self) -> Claim:
        return claim_outdir(self.outdir, self.config, fingerprints(self.config, self.dataset))

    def _open_trackers(self) -> None:
        self.log.trackers = open_trackers(self.config, self.outdir, flat(self.config), self.log.lines())

    def _new_description(self) -> dict[str, Any]:
        """The config.json of a network that begins here; small ones say how their runs sample them."""
        config, said = self.config, {}
        known = get_family(config.family).sampler_defaults
        if config.protocol in PROTOCOLS and PROTOCOLS[config.protocol].stands_alone:
            numbers = config.eval.numbers
            said["sampler"] = {name: numbers[name] for name in numbers if name in known}
            said["sampler"]["classes"] = "in turn"
        return describe(config.net, config.family, **said)

    def _know_the_classes(self) -> None:
        """Which are trained, and their names, from the data: a network that begins here has no others."""
        labels, names = self.dataset.labels, self.dataset.class_names
        if self.config.init:
            own, self.notes = self.model.classes.and_data(labels, names)
        else:
            own, self.notes = Classes.of_data(labels, names, self.model.facts.num_classes), []
        others = {name: value for name, value in self.description.items() if name not in SAID}
        self.description = others | own.said()
        self.model = Model.of(self.description)

    def _build(self) -> nn.Module:
        """The network to train, on the CPU: --init's, or a new one from the run's seed."""
        overrides = net_overrides(self.config.train, self.ranks.device)
        if self.config.init:
            return load(self.config.init, **overrides)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return model_from_config(self.description, **overrides).eval()

    @property
    def _refreshes(self) -> bool:
        """Whether the objective has a use for new references."""
        return self.needs.method.needs_reference or self.needs.method.uses_samples

    def _guided(self, judge: Evaluator) -> list[tuple[Row, Tensor]]:
        """The base's rows under guidance and their grids: stored rows where they apply, else made here."""
        if self.config.eval.cfg_scales and not self.judging.can_guide:
            self.watch.say(
                f"no rows under guidance: {self.config.init} was not trained without a label, and no network "
                "guides it (--gnet).",
            )
            return []
        protocol, stored = judge.description(), {}
        if not self.config.eval.recompute_cfg:
            stored = stored_cfg_rows(resolve(self.config.init), self.base_sha256, protocol)
        guided = []
        for guidance in self.config.eval.cfg_scales:
            name, net = f"{self.judging.model.family.guided}-{guidance:g}", self.base_on_device()
            if guidance in stored:
                row, grid = stored[guidance], judge.grid(net, guidance)
            else:
                made = judge.evaluate(net, name, "guidance", guidance=guidance)
                row, grid = made.row, made.grid
            guided.append((self._said(row, timed=guidance not in stored), grid))
        self.judging.release_guide()
        content = cfg_file(self.base_sha256, protocol, [row for row, _ in guided])
        self.ranks.on_main(write_json, self.outdir / "cfg.json", content)
        return guided

    def _train(self, plan: Plan, judge: Evaluator | None, needs: NeedMaker | None = None) -> Outcome:
        """One arm, from its start or its saved state to its end; its network and its state are let go."""
        places = (self.outdir, self.ranks, self.watch, self.stop, self.claim.began, self.milestones)
        return Arm(plan, self._description_of(plan), self._build, self.dataset, judge, needs, *places).run()

    def _description_of(self, plan: Plan) -> dict[str, Any]:
        """The config.json of an arm's models: also how they are sampled, and what they were made of."""
        said = self.description
        inherited = ("licence", "source", "null_label", *SAID)
        origin = {key: said[key] for key in inherited if key in said}
        origin["sampler"] = self.model.sampler_defaults
        if self.judging is not None:
            origin["judged"] = self.judging.said()
            origin["sampler"] = self.model.sampler_of_run(self.config.eval)
        if make_method(plan.config.objective).label_dropout > 0:
            origin["null_label"] = True
        if self.config.init:
            origin["base"] = {"model": pinned(self.config.init), "sha256": self.base_sha256}
        return describe(
            self.model.arguments,
            said["family"],
            made_by=self.config.recipe,
            objective=plan.name,
            **made_of(plan.config, self.dataset),
            **origin,
        )

    def _summary(
        self,
        judge: Evaluator | None,
        rows: list[Row],
        final: list[Row],
        control: Outcome | None,
        trained: Outcome,
        compared: dict[str, list[float]],
    ) -> Summary:
        arms = [control, trained] if control else [trained]
        names = self.model.classes.names
        shown = judge or self.milestones
        return Summary(
            recipe=self.config.recipe,
            objective=self.config.objective.objective,
            settings=repr(self.needs.method.objective),
            seed=self.config.seed,
            images_seen=trained.stopped.images_seen if trained.stopped else self.config.train.duration,
            seconds=sum(arm.seconds for arm in arms) + sum(row.seconds or 0 for row in [*rows, *final]),
            rows=rows,
            final=final,
            best=trained.best and trained.best.row,
            turned_at=trained.turned_at,
            stopped=trained.stopped,
            skipped_batches={arm.name: arm.skipped for arm in arms},
            classifier=self.needs.quality,
            comparison=compared,
            grid_seeds=shown and shown.grid_seeds,
            grid_classes=shown and shown.grid_classes,
            grid_names=shown and [names[number] for number in shown.grid_classes if names],
            protocol=judge and judge.description(),
            versions=versions(self.ranks.device, self.base_sha256),
            command=command(self.ranks.size),
        )

    def _said(self, row: Row, *, timed: bool = True) -> Row:
        self.watch.row(row, timed=timed)
        return row

    def _write(self, summary: Summary, shown: list[tuple[Row, Tensor]], judge: Evaluator | None) -> None:
        """summary.json and the grid's pictures. shown: rows and their pictures."""
        write_summary(self.outdir, summary)
        entries = [
            GridEntry.of(row, grid.numpy(), judge.verdicts(grid)) for row, grid in shown if grid is not None
        ]
        if not entries and self.milestones is not None:
            entries = self.milestones.grids()
        write_grid(self.outdir, entries)

    def _announce(self) -> None:
        train, num_params = self.config.train, sum(p.numel() for p in self.base.parameters())
        size = f" ({self.config.size})" if self.config.size else ""
        graphs = capture_words(self.base, self.ranks, train.sharding, self.config.eval.cuda_graphs)
        self.watch.say(
            f"{self.config.recipe}: {len(self.dataset):,} images of {self.config.data}, "
            f"{num_params / 1e6:.2f}M parameters{size} in {str(self.model.family.dtype(self.base))[6:]} on "
            f"{describe_device(self.ranks.device)}, {self.ranks.size} rank(s){graphs}; "
            f"{length_words(self.config, len(self.dataset))}. Folder: {self.outdir}",
        )
        notes = [self.config.note] if self.config.note else []
        for note in [*notes, *self.notes, *data_notes(self.config, self.dataset)]:
            self.watch.say(f"note: {note}")


def compare(
    judge: Evaluator | None, best: Evaluation | None, others: dict[str, Evaluation | None]
) -> dict[str, list[float]]:
    """FD(best) - FD(other) with its bootstrap interval, on the same sampling seeds, by the other's name."""
    if judge is None or best is None:
        return {}
    found = {name: judge.difference(best, other) for name, other in others.items() if other is not None}
    return {name: interval for name, interval in found.items() if interval is not None}
