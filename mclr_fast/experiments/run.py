"""A whole run: train, evaluate, keep the best, compare with base, guidance and control."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import mclr_fast
from mclr_fast.config import RunConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation import bootstrap_frechet_difference, feature_statistics
from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.methods.needs import NeedMaker
from mclr_fast.models import (
    Model,
    describe,
    load,
    model_from_config,
    read_config,
    resolve,
    save_model,
    weights_file,
)
from mclr_fast.reports.run_page import write_report
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256, replacing, write_json
from mclr_fast.runtime.logs import RunLog, say
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest
from mclr_fast.runtime.trackers import open_trackers
from mclr_fast.training.optimizer import check_optimizer
from mclr_fast.training.stopping import out_of_patience
from mclr_fast.training.trainer import Trainer

from .cfg_rows import cfg_file, stored_cfg_rows
from .checks import check_fit, check_options, net_overrides
from .claim import claim_outdir, flat, run_hash
from .rounds import Rounds
from .snapshots import Snapshots


class Run:
    """One run of a recipe in its folder; calling `execute` again picks up where it stopped."""

    def __init__(self, config: RunConfig, ranks: Ranks, stop: StopRequest):
        """Checks everything a user can get wrong, and claims the folder. RunError when it cannot."""
        self.config = config
        self.ranks = ranks
        self.stop = stop
        self.outdir = config.folder
        self.skipped: dict[str, int] = {}
        check_options(config, ranks.size)
        check_optimizer(config.train.optimizer, ranks.device)
        try:
            self.description = (
                read_config(config.init) if config.init else describe(config.net, config.family)
            )
            self.model = Model.of(self.description)
            loading = (config.loader, config.loader_threads, ranks.device)
            self.dataset = open_dataset(config.data, "train", *loading)
            check_fit(config, self.dataset, self.model)
            self.base = self._build()
            self.needs = NeedMaker(config, self.description, self.dataset, ranks, stop)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise RunError(str(error)) from error
        ranks.on_main(claim_outdir, self.outdir, config)
        self.log = RunLog(self.outdir / "log.jsonl" if ranks.is_main else None)
        ranks.on_main(self._open_trackers)
        self.image_shape = self.model.facts.shape
        self.base_sha256 = file_sha256(weights_file(config.init)) if config.init else None

    def execute(self) -> dict:
        """Everything; returns the summary, which is also written with the report."""
        with self.log:
            return self._execute()

    def _execute(self) -> dict:
        self._announce()
        rows, seconds = [], 0.0
        evaluator = self.evaluator()
        grids: dict[str, torch.Tensor] = {}
        base = control = None
        if evaluator is not None:
            rows.append(self._real_row(evaluator))
        if evaluator is not None and self.config.init:
            base = self.evaluate_base(evaluator)
            rows.append(base.row)
            grids["base"] = base.grid
            rows += self._cfg(evaluator, grids)
        if self.config.eval.control != "none" and self.config.objective.objective != "denoising":
            objective = replace(self.config.objective, objective="denoising")
            arm_config = replace(self.config, objective=objective)
            every = self.config.eval.control == "all"
            trained, arm_seconds, _ = self._arm("denoising", arm_config, evaluator, every)
            control = best_of(trained)
            rows += [evaluation.row for evaluation in trained]
            seconds += arm_seconds
        name = self.config.objective.objective
        trained, arm_seconds, stopped = self._arm(name, self.config, evaluator, True)
        rows += [evaluation.row for evaluation in trained]
        grids |= {f"{name}-{e.row['images_seen']}": e.grid for e in trained}
        best = best_of(trained)

        summary = {
            "recipe": self.config.recipe,
            "objective": name,
            "settings": repr(self.needs.method.objective),
            "seed": self.config.seed,
            "images_seen": stopped["images_seen"] if stopped else self.config.train.duration,
            "seconds": seconds + arm_seconds + sum(row.get("seconds", 0) for row in rows),
            "rows": rows,
            "best": best and best.row,
            "turned_at": turned_at(trained),
            "stopped": stopped,
            "skipped_batches": self.skipped,
            "classifier": self.needs.quality,
            "comparison": self._compare(evaluator, best, {"base": base, "denoising": control}),
            "grid_seeds": evaluator and evaluator.grid_seeds,
            "protocol": evaluator and self.protocol_description(evaluator),
            "versions": self.versions(),
        }
        self.ranks.on_main(self._write, summary, grids)
        say(self.ranks.is_main, f"report: {self.outdir / 'report.html'}")
        return summary

    def versions(self) -> dict:
        """What the figures were made with."""
        return {
            "mclr_fast": mclr_fast.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "device": describe_device(self.ranks.device),
            "base_sha256": self.base_sha256,
        }

    def evaluator(self, seeds: range | None = None, folder: Path | None = None) -> Evaluator | None:
        """The judge of this run's rows (other seeds and folder for another judge); None without one."""
        if self.config.protocol is None or self.config.eval.eval_every == 0:
            return None
        from mclr_fast.evaluation.mnist16 import mnist16_protocol

        heldout = open_dataset(self.config.data, "heldout")
        protocol = mnist16_protocol(
            *(data.images(np.arange(len(data))) for data in (self.dataset, heldout)),
            neighbors=self.config.eval.neighbors,
        )
        self.heldout_labels = torch.from_numpy(heldout.labels)
        self.base.to(self.ranks.device)  # it is judged too; a run without a judge keeps it off the GPU
        first = self.config.eval.first_seed
        return Evaluator(
            protocol,
            self.config.eval,
            seeds or range(first, first + self.config.eval.num_samples),
            self.image_shape,
            self.dataset.num_classes,
            folder or self.outdir / "evaluations",
            self.ranks,
            self.stop,
        )

    def evaluate_base(self, evaluator: Evaluator) -> Evaluation:
        """The base's row, and the grid's noises by it."""
        evaluator.choose_grid_seeds(self.base)
        return self._evaluate(evaluator, self.base, "base", 0)

    def final_evaluator(self) -> Evaluator | None:
        """The proof's judge: fresh seeds that chose no checkpoint."""
        first, count = self.config.proof_first_seed, self.config.proof_samples
        return self.evaluator(range(first, first + count), self.outdir.parent / "evaluations")

    def protocol_description(self, evaluator: Evaluator) -> dict:
        """What the rows were measured with: only rows with the same description compare."""
        config = self.config.eval
        return {
            "name": evaluator.protocol.name,
            "reference": f"{len(evaluator.protocol.reference.features):,} training images",
            "samples": len(evaluator.seeds),
            "seeds": [evaluator.seeds[0], evaluator.seeds[-1]],
            "num_steps": config.num_steps,
            "sigma_min": config.sigma_min,
            "sigma_max": config.sigma_max,
            "k": config.neighbors,
        }

    def _open_trackers(self) -> None:
        self.log.trackers = open_trackers(self.config, self.outdir, flat(self.config), self.log.lines())

    def _build(self) -> nn.Module:
        """The network to train, on the CPU: --init's, or a new one from the run's seed."""
        overrides = net_overrides(self.config.train, self.ranks.device)
        if self.config.init:
            return load(self.config.init, **overrides)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return model_from_config(self.description, **overrides).eval()

    def _arm(
        self, name: str, config: RunConfig, evaluator: Evaluator | None, every: bool
    ) -> tuple[list[Evaluation], float, dict | None]:
        """Train one arm with evaluations on the way, to its duration or until something stops it.

        Returns its evaluations, its seconds, and why and when it was stopped.
        """
        folder = self.outdir / "checkpoints"
        trainer = Trainer(
            name,
            config,
            self.model,
            self._build(),
            self.dataset,
            self.ranks,
            self.log,
            folder / f"{name}-state",
            run_hash(config),
            self.stop,
        )
        own = name == self.config.objective.objective
        rounds = Rounds(trainer, self.needs, config, folder) if own else None
        best_folder = folder / ("best" if own else f"best-{name}")
        origin = {key: self.description[key] for key in ("licence", "source") if key in self.description}
        family, arguments = self.description["family"], self.model.arguments
        model = describe(arguments, family, made_by=self.config.recipe, objective=name, **origin)
        snapshots = Snapshots(trainer, config.train, self.outdir, model)
        net = None if evaluator is None else self._build().to(self.ranks.device)
        done: list[Evaluation] = []
        evaluated = milestones(config, every and evaluator is not None)
        why = None
        marks = {*evaluated, *rounds.marks, *snapshots.marks} if own else {*evaluated}
        for target in sorted(marks):
            if own:
                rounds.enter()
            trainer.train_until(target)
            if own:
                snapshots.keep()
            milestone = min(target, trainer.images_seen)
            why = trainer.stopped if milestone == trainer.images_seen else None
            if why is None and target not in evaluated:
                continue
            if evaluator is None:
                trainer.save()
            elif trainer.images_seen == milestone or evaluator.is_kept(name, milestone):
                if not evaluator.is_kept(name, milestone):
                    trainer.save()
                net.load_state_dict(trainer.average_state())

                def keep_best(row: dict) -> None:
                    if all(row["fd"] < evaluation.row["fd"] for evaluation in done):
                        save_model(best_folder, net.state_dict(), model)

                done.append(self._evaluate(evaluator, net, name, milestone, keep_best))
                trainer.states.protect(best_of(done).row["images_seen"])
                self.log.evaluated(done[-1].row)
                if own:
                    self._say_if_turned(done)
                    why = why or out_of_patience([e.row["fd"] for e in done], self.config.eval.patience)
            if why is not None:
                break
        trainer.states.wait()
        self.skipped[name] = trainer.skipped
        stopped = why and {"why": why, "images_seen": milestone}
        if stopped:
            say(self.ranks.is_main, f"stopped at {milestone:,} images: {why}.")
        self.ranks.on_main(save_model, folder / f"final-{name}", trainer.average_state(), model)
        return done, trainer.seconds, stopped

    def _evaluate(
        self,
        evaluator: Evaluator,
        net: nn.Module,
        name: str,
        images_seen: int,
        before_saving: Callable[[dict], None] = lambda row: None,
        guidance: float = 1.0,
    ) -> Evaluation:
        started = time.perf_counter()

        def finish(row: dict) -> None:
            row["seconds"] = time.perf_counter() - started
            before_saving(row)

        evaluation = evaluator.evaluate(net, name, images_seen, guidance=guidance, before_saving=finish)
        self._say_row(evaluation.row)
        return evaluation

    def _cfg(self, evaluator: Evaluator, grids: dict) -> list[dict]:
        """The guided rows of the base: stored ones where they apply, made here otherwise."""
        folder, protocol = resolve(self.config.init), self.protocol_description(evaluator)
        stored = {}
        if not self.config.eval.recompute_cfg:
            stored = stored_cfg_rows(folder, self.base_sha256, protocol)
        rows = []
        for guidance in self.config.eval.cfg_scales:
            name = f"cfg-{guidance:g}"
            if name in stored:
                rows.append(stored[name])
                grids[name] = evaluator.grid(self.base, guidance)
                self._say_row(rows[-1])
                continue
            made = self._evaluate(evaluator, self.base, name, 0, guidance=guidance)
            rows.append(made.row)
            grids[name] = made.grid
        untimed = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        content = cfg_file(self.base_sha256, protocol, untimed)
        self.ranks.on_main(write_json, self.outdir / "cfg.json", content)
        return rows

    def _real_row(self, evaluator: Evaluator) -> dict:
        row = evaluator.real_row(evaluator.protocol.heldout, self.heldout_labels)
        self._say_row(row)
        return row

    def _compare(self, evaluator, best: Evaluation | None, others: dict) -> dict:
        """FD(best) - FD(other) with its bootstrap interval, on the same sampling seeds."""
        if best is None:
            return {}
        reference = feature_statistics(evaluator.protocol.reference.features)
        return {
            name: list(bootstrap_frechet_difference(best.features, other.features, *reference))
            for name, other in others.items()
            if other is not None
        }

    def _write(self, summary: dict, grids: dict) -> None:
        write_json(self.outdir / "summary.json", summary)
        if grids:
            arrays = {name: grid.numpy() for name, grid in grids.items()}
            with replacing(self.outdir / "grid.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, order=np.array(list(arrays)), **arrays)
        write_report(self.outdir)

    def _announce(self) -> None:
        train, num_params = self.config.train, sum(p.numel() for p in self.base.parameters())
        say(
            self.ranks.is_main,
            f"{self.config.recipe}: {len(self.dataset):,} images of {self.config.data}, "
            f"{num_params / 1e6:.2f}M parameters in {str(self.base.dtype)[6:]} on "
            f"{describe_device(self.ranks.device)}, {self.ranks.size} rank(s); "
            f"{train.duration:,} images in steps of {train.batch_size}. Folder: {self.outdir}",
        )
        if self.config.note:
            say(self.ranks.is_main, f"note: {self.config.note}")

    def _say_row(self, row: dict) -> None:
        say(
            self.ranks.is_main,
            f"{row['name']:>10} {row['images_seen']:>8,} images  FD {row['fd']:.4f}  "
            f"IS {row['is']:.3f}  precision {row['precision']:.3f}  recall {row['recall']:.3f}  "
            f"accuracy {row['accuracy']:.3f}  {row['nfe']} calls a sample",
        )

    def _say_if_turned(self, done: list[Evaluation]) -> None:
        best, last = best_of(done).row, done[-1].row
        if len(done) > 1 and done[-2].row is best and last["fd"] > best["fd"]:
            say(
                self.ranks.is_main,
                f"FD turned: {best['fd']:.4f} at {best['images_seen']:,} images, {last['fd']:.4f} at "
                f"{last['images_seen']:,}. The best checkpoint is kept.",
            )


def milestones(config: RunConfig, every: bool) -> list[int]:
    """Images seen at which an arm is evaluated: whole steps at or past each multiple, and the end."""
    step, train = config.train.batch_size, config.train
    end = -(-train.duration // step) * step
    if not every:
        return [end]
    marks = range(config.eval.eval_every, train.duration, config.eval.eval_every)
    return sorted({-(-mark // step) * step for mark in marks} | {end})


def best_of(evaluations: list[Evaluation]) -> Evaluation | None:
    """The evaluation with the lowest FD."""
    return min(evaluations, key=lambda e: e.row["fd"], default=None)


def turned_at(evaluations: list[Evaluation]) -> int | None:
    """Images seen at the lowest FD, if a later evaluation is worse."""
    best = best_of(evaluations)
    return None if best is None or best is evaluations[-1] else best.row["images_seen"]


def describe_device(device: torch.device) -> str:
    """ "cuda (name)" or "cpu (n threads)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
