"""A saved model made ready to be sampled: guided, between its base and itself, its latents decoded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mclr_fast.config import SampleConfig
from mclr_fast.data import Codec
from mclr_fast.models import Model, interpolate, load, read_config, weights_file
from mclr_fast.models.codecs import LatentCodec
from mclr_fast.runtime.device.precision import choose_dtype
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256
from mclr_fast.runtime.logs import note
from mclr_fast.runtime.options import Check, option_of
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.sampling import Sampler, seeded_labels

from .ranges import MAX_SAMPLES, check_sampler

NUMBERS = (
    "num_steps", "sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise", "top_k", "top_p",
)  # fmt: skip
SPAN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")  # an integer, or the first and the last of some
MAX_SHOWN = 80  # characters of an option that a message repeats
NEEDS_GUIDE = (
    "{model} was not trained without a label, so it cannot guide itself: give a network that does, "
    "--gnet MODEL. {published} A model of yours that was trained with label dropout says so in its "
    'config.json: "null_label": true.'
)
PUBLISHED = {  # by channels: a network for NVIDIA's, in its release
    3: "For NVIDIA's 64x64 models none without classes is published; edm2-img64-xs-0134217-*.pkl guides "
    "edm2-img64-s (autoguidance).",
    4: "For NVIDIA's 512x512 models edm2-img512-xs-uncond-2147483-*.pkl is published.",
}


@dataclass(frozen=True)
class ReadyModel:
    """A model as it is sampled.

    Attributes: options, with the model's own numbers; base: of its strength dial, None without; decode:
        x [b,...] -> uint8 images [b,C,H,W]; dtype, what the network computes in.
    """

    model: Model
    options: SampleConfig
    base: str | None
    sampler: Sampler
    decode: Callable[[Tensor], Tensor]
    dtype: torch.dtype


def ready_model(config: SampleConfig, device: torch.device, net: nn.Module | None = None) -> ReadyModel:
    """Read and check everything, the small before the large. net: --model's, where it is loaded already.

    Errors    RunError, one line.
    """
    try:
        description = read_config(config.model) if net is None else net.description
        model = Model.of(description)
        check_known(config, model)
        config = model.sampler_options(config)
        if config.guidance is None:
            config = replace(config, guidance=model.family.unguided)
        check_sampler(config)
        check_guidance(config, model)
        decode = decoder_of(model.codec(), config.vae, device, config.model)
        base = _base(config, description)
        if net is None:
            net = load(config.model, dtype=choose_dtype(config.precision, device))
        dtype = model.family.dtype(net)
        if base is not None:
            net = interpolate(load(base, dtype=dtype), net, config.strength)
        guide = None if config.gnet is None else load(config.gnet, dtype=dtype).to(device)
        sampler = model.sampler(net.to(device), config, guidance=config.guidance, guide=guide)
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    return ReadyModel(model, config, base, sampler, decode, dtype)


def check_known(config: SampleConfig, model: Model) -> None:
    """RunError for a sampler's number that the model's sampler does not have."""
    for name in ("num_steps", "sigma_min", "sigma_max", "rho", "top_k", "top_p"):
        if getattr(config, name) is not None and name not in model.sampler_defaults:
            known = ", ".join(option_of(each) for each in model.sampler_defaults if each != "classes")
            raise RunError(f"{option_of(name)} is no option of {config.model}'s sampler, which has {known}.")
    if config.more_smooth and not model.family.smooths:
        raise RunError(f"--more-smooth is an option of VAR models' sampler, not of {config.model}'s.")


def say_instead(config: SampleConfig, own: Mapping[str, Any], whose: str) -> None:
    """Say which options are others than the model's own, or its run's, by name."""
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    given = {name: getattr(config, name, None) for name in known}
    other = [name for name in known if given[name] not in (None, (), known[name])]
    if other:
        listed = ", ".join(f"{option_of(n)} {_shown(given[n])} ({whose}: {_shown(known[n])})" for n in other)
        note(f"instead of what {config.model} says: {listed}.")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def check_guidance(config: SampleConfig, model: Model) -> None:
    """Whether there is something that guides, and it fits. RunError, ValueError or OSError."""
    Check(config)(math.isfinite, "finite", "guidance")
    unguided = model.family.unguided
    if config.guidance == unguided:
        if config.gnet or config.guidance_interval:
            option = "--gnet" if config.gnet else "--guidance-interval"
            raise RunError(
                f"{option} does nothing at --guidance {unguided:g}: raise it, or leave {option} out."
            )
        return
    if config.gnet is None:
        if model.facts.num_classes == 0:
            raise RunError(
                f"{config.model} has no classes, so nothing tells it apart from itself without them: leave "
                "--guidance out, or give a weaker network that guides it, --gnet MODEL."
            )
        if not model.null_label:
            published = PUBLISHED.get(model.facts.shape[0], "") if model.facts.num_classes == 1000 else ""
            raise RunError(NEEDS_GUIDE.format(model=config.model, published=published))
        return
    check_guide(config.gnet, config.model, model)


def check_guide(gnet: str, name: str, model: Model) -> Model:
    """The network that guides the model of that name, described. RunError, ValueError or OSError if none."""
    guide = Model.of(read_config(gnet))
    own, other = model.facts, guide.facts
    if guide.family is not model.family or other.shape != own.shape:
        raise RunError(
            f"--gnet {gnet} makes samples of {_times(other.shape)}, {name} of {_times(own.shape)}, or is of "
            "another family: take one of the same kind."
        )
    if other.num_classes not in (0, own.num_classes):
        raise RunError(
            f"--gnet {gnet} knows {other.num_classes} classes, {name} {own.num_classes}: take one with the "
            "same classes, or with none."
        )
    return guide


def parse_integers(text: str, named: Callable[[str], int] | None = None) -> list[int]:
    """The integers of a list like "1,2,5-10"; named: those of parts that are no integers, by their names.

    Errors    ValueError for anything else, and for more than MAX_SAMPLES.
    """
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    numbers: list[int] = []
    for part in text.split(","):
        found = SPAN.fullmatch(part.strip())
        if named is not None and found is None:
            numbers.append(named(part.strip()))
            continue
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise ValueError(f"{shown!r} is no list of integers like 0-15 or 1,2,5-10.")
        if len(numbers) + last - first >= MAX_SAMPLES:
            raise ValueError(
                f"{shown!r} has more than {MAX_SAMPLES:,} integers: give the rest to another command."
            )
        numbers.extend(range(first, last + 1))
    return numbers


def classes_of(model: Model, num_seeds: int, labels: str = "", balance: bool = False) -> list[int] | None:
    """Each seed's class, by its place; None: as each seed draws it. RunError for those the model lacks.

    labels, balance: as `sample` has them.
    """
    facts = model.facts
    try:
        classes = _asked(model, labels) if labels else model.classes.trained or [0]
    except ValueError as error:
        raise RunError(f"--labels: {error}") from error
    if balance and num_seeds % len(classes):
        raise RunError(
            f"--balance: {num_seeds} seeds do not divide evenly over {len(classes)} classes: give a multiple."
        )
    random = model.sampler_defaults["classes"] == "random" and facts.num_classes > 0
    if random and not (labels or balance):
        return None
    return [classes[place % len(classes)] for place in range(num_seeds)]


def _asked(model: Model, labels: str) -> list[int]:
    """The classes that --labels names, by number or by name. ValueError or RunError for those it lacks."""
    known, num_classes = model.classes, model.facts.num_classes
    one = labels in known.names  # a name with a comma in it
    numbers = (
        [known.number(labels)] if one else parse_integers(labels, known.number if known.have_names else None)
    )
    if num_classes == 0:
        raise RunError(f"--labels {labels}: the model has no classes: leave --labels out.")
    if max(numbers) >= num_classes:
        raise RunError(f"--labels {labels}: the model knows 0 to {num_classes - 1}.")
    for number in numbers:
        if number not in known.trained:
            raise RunError(
                f"--labels {labels}: class {known.word(number)} was never trained; {known.known()}."
            )
    return numbers


def drawn_classes(model: Model, seeds: Sequence[int]) -> list[int]:
    """The class that each seed draws, as EDM2 does; of those that were trained."""
    classes = model.classes.trained
    drawn = seeded_labels(seeds, model.facts.shape, len(classes)).tolist()
    return [classes[place] for place in drawn] if classes else drawn


def classes_of_seeds(
    model: Model, seeds: Sequence[int], ranks: Ranks, labels: str = "", balance: bool = False
) -> list[int]:
    """Each seed's class; where seeds draw them, every rank draws a share. All ranks call it."""
    classes = classes_of(model, len(seeds), labels, balance)
    if classes is None:
        shares = ranks.gather(drawn_classes(model, seeds[ranks.rows(len(seeds))]))
        classes = [label for share in shares for label in share]
    return classes


def made_with(ready: ReadyModel) -> dict[str, Any]:
    """What the images are made with, as JSON: files by their SHA-256."""
    options = ready.options
    said = {name: getattr(options, name) for name in (*NUMBERS, "guidance", "guidance_interval", "strength")}
    said = {name: value for name, value in said.items() if value is not None and value != math.inf}
    files = {"model": options.model, "gnet": options.gnet, "base": ready.base}
    said |= {name: file_sha256(weights_file(path)) for name, path in files.items() if path is not None}
    said |= {"vae": options.vae} if options.vae else {}
    said |= {"more_smooth": True} if options.more_smooth else {}
    said["dtype"] = str(ready.dtype).removeprefix("torch.")
    # As JSON has it: what is read back is compared with it.
    return said | (
        {"guidance_interval": list(options.guidance_interval)} if options.guidance_interval else {}
    )


def _base(config: SampleConfig, description: dict[str, Any]) -> str | None:
    """The base of --strength; None without that option."""
    if config.strength is None:
        if config.base is not None:
            raise RunError("--base does nothing without --strength S.")
        return None
    Check(config)(lambda value: 0 <= value <= 2, "in [0, 2]", "strength")
    if config.base is not None:
        return config.base
    said = description.get("base")
    if said is None:
        raise RunError(
            f"{config.model} does not say which model it was fine-tuned from: give it with --base."
        )
    try:
        found = file_sha256(weights_file(said["model"]))
    except OSError as error:
        raise RunError(f"the base of {config.model} is not there ({error}): give it with --base.") from error
    if found != said["sha256"]:
        raise RunError(
            f"{said['model']} is not the model that {config.model} was fine-tuned from: its SHA-256 is "
            f"{found[:12]}..., not {said['sha256'][:12]}...: give the right one with --base."
        )
    return said["model"]


def decoder_of(codec: Codec, vae: str | None, device: torch.device, name: str) -> Callable[[Tensor], Tensor]:
    """What makes images, uint8 [b,C,H,W], of what a model of this name gives. RunError for a wrong vae."""
    if not isinstance(codec, LatentCodec):
        if vae is not None:
            raise RunError(f"--vae decodes latents; {name} makes images.")
        return codec.decode
    if vae is None:
        raise RunError(
            f"{name} makes latents of {codec.shape[0]} channels: give their decoder, --vae "
            "stabilityai/sd-vae-ft-mse (diffusers downloads it) or its folder."
        )
    from mclr_fast.models.vae import VAEDecoder

    decode = VAEDecoder(vae, device)
    return lambda x: decode(codec.unscale(x))


def image_shape(
    decode: Callable[[Tensor], Tensor], model: Model, device: torch.device
) -> tuple[int, int, int]:
    """(C, H, W) of the images that are decoded of what the model gives."""
    one = torch.zeros(1, *model.facts.shape, dtype=model.facts.dtype, device=device)
    return tuple(decode(one).shape[1:])


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
