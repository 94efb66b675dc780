"""Numbers that cannot be meant, refused in one line before anything starts."""

from __future__ import annotations

import math

from mclr_fast.config import EvalConfig, RunConfig, SamplerConfig
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check, option_of

MAX_SAMPLES = 10_000_000  # of a command: eight times ImageNet, and their seeds and classes are held in memory


def check_sampler(config: SamplerConfig) -> None:
    """Steps, batch, noise levels and what noise is added; a number that a model does not have is None."""
    check = Check(config)
    check.at_least(1, "sample_batch")
    check.at_least(0, "S_churn", "S_min")
    check(lambda value: 0 < value < math.inf, "above 0", "S_noise")
    check.at_least(0, "top_k")
    check(lambda value: 0 <= value <= 1, "in [0, 1]", "top_p")
    if config.num_steps is None:
        return
    check.at_least(2, "num_steps")
    check(lambda value: 0 < value < math.inf, "above 0", "sigma_min", "sigma_max", "rho")
    for low, high in (("sigma_min", "sigma_max"), ("S_min", "S_max")):
        if not getattr(config, low) < getattr(config, high):
            raise RunError(
                f"{option_of(low)} {getattr(config, low)} must lie below {option_of(high)} "
                f"{getattr(config, high)}: lower the one or raise the other."
            )
    interval = config.guidance_interval
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise RunError(f"--guidance-interval {interval[0]} {interval[1]} must rise, from 0 on.")


def check_evaluation(config: EvalConfig) -> None:
    """The sampler's, and what is counted of its samples."""
    check_sampler(config)
    check = Check(config)
    check.at_least(1, "num_samples", "neighbors", "grid_noises")
    check.at_most(MAX_SAMPLES, "num_samples", "final_samples", "grid_noises")
    check.at_least(0, "eval_every", "first_seed", "patience", "final_samples")
    check(math.isfinite, "finite", "cfg_scales", "best_cfg_scales")
    check(lambda value: 0 <= value <= 2, "in [0, 2]", "dial")
    check_neighbors(config.neighbors, "num_samples", config.num_samples)


def check_neighbors(neighbors: int, name: str, num_samples: int) -> None:
    """A sample's k-th neighbour is another sample."""
    if num_samples <= neighbors:
        raise RunError(
            f"{option_of(name)} {num_samples} leaves samples without --neighbors {neighbors} others: "
            "draw more, or count fewer."
        )


def check_numbers(config: RunConfig) -> None:
    """Every number of a run that is wrong by itself, whatever the others are."""
    train, objective = Check(config.train), Check(config.objective)
    train.at_least(1, "batch_size", "duration", "keep_checkpoints")
    train.at_least(0, "micro_batch", "warmup_images", "ref_batches", "checkpoint_every", "log_every")
    train.at_least(0, "milestone_every")
    train.at_least(0, "skip_bad_batches", "ema_snapshot_every", "lr")
    train(lambda value: 0 <= value < 1, "each in [0, 1)", "betas")
    train(lambda value: 0 <= value < 1, "in [0, 1)", "dropout")
    train(lambda value: value == 0 or value > 1, "0 (never stop) or above 1", "stop_factor")
    objective.at_least(1, "num_negatives", "model_samples", "classifier_steps")
    objective.at_least(0, "refresh_every")
    objective(math.isfinite, "finite", "P_mean")
    objective(lambda value: 0 < value < math.inf, "above 0", "P_std")
    run = Check(config)
    run.at_least(0, "seed", "loader_threads", "proof_seeds", "proof_first_seed", "table_minutes")
    run(lambda value: 0 <= value < math.inf, "above 0, or 0 (ask the GPU)", "gpu_memory_gib")
    run(lambda value: 0 < value < math.inf, "above 0", "gpu_tflops")
    run.at_least(1, "proof_samples")
    run.at_most(MAX_SAMPLES, "proof_samples")
    objective.at_most(MAX_SAMPLES, "model_samples", "num_negatives")
    train.at_most(MAX_SAMPLES, "batch_size")
    check_evaluation(config.eval)
    if config.proof_seeds:
        check_neighbors(config.eval.neighbors, "proof_samples", config.proof_samples)
