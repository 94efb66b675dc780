"""NVIDIA's EDM2 files as arguments of `Precond` and tensors by published names.

What they hold comes from `mclr_fast.pickles`: a network is an object of a class, with the attributes of a
torch module; nothing of its source is used.
"""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from mclr_fast.pickles.reading import is_tensor

from .network import Precond

Node = dict[str, Any]
POSITIONAL = ("img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_data", "logvar_channels")
UNUSED = {"use_fp16", "dropout"}  # of their training and machine; the dtype and dropout of a run are its own
HEAD_WIDTH = 64  # EDM2's channels_per_head
TAKEN = (
    "what names and shapes do not show is taken to be EDM2's own: channels_per_head 64, label_balance 0.5, "
    "concat_balance 0.5, res_balance 0.3, attn_balance 0.3, clip_act 256. If the run had others, convert it "
    "with --template, a snapshot or model folder of the same network."
)
BLOCK_ATTRIBUTES = ("res_balance", "attn_balance", "clip_act", "resample_filter")


def from_snapshot(network: Node) -> tuple[dict[str, Any], dict[str, Node]]:
    """(constructor arguments, tensors) of the network in a snapshot.

    Attributes that the network computes with go before the arguments it was made with.

    Errors    ValueError for another architecture.
    """
    if network.get("class") != "Precond":
        raise ValueError(f"it holds a network of class {network.get('class')!r}; EDM2's is Precond.")
    state = network["state"]
    tensors = dict(_tensors(network))
    arguments = dict(zip(POSITIONAL, state.get("_init_args") or (), strict=False))
    arguments |= state.get("_init_kwargs") or {}
    unet = state["_modules"]["unet"]["state"]
    arguments |= {name: state[name] for name in ("img_resolution", "img_channels", "label_dim", "sigma_data")}
    arguments |= {name: unet[name] for name in ("label_balance", "concat_balance")}
    for block in _objects(network, "Block"):
        for name in BLOCK_ATTRIBUTES:
            if block[name] != arguments.setdefault(name, block[name]):
                raise ValueError(f"its blocks differ in {name}: {block[name]} and {arguments[name]}.")
        _check_heads(block, arguments)
    return checked(arguments, tensors), tensors


def from_own(network: Node) -> tuple[dict[str, Any], dict[str, Node]]:
    """(config.json, tensors) of a network that was saved whole by torch.save.

    Errors    ValueError where it does not say its configuration, as those that `models.load` gave do.
    """
    description = network["state"].get("description")
    if not isinstance(description, dict) or not isinstance(description.get("net"), dict):
        raise ValueError(
            "its network does not say its configuration: save its state_dict(), or with save_model."
        )
    tensors = dict(_tensors(network))
    for name, node in tensors.items():
        if name.endswith("_gain"):  # held as [1], published as scalars
            tensors[name] = {**node, "shape": [], "stride": []}
    return description | {"net": checked(description["net"], tensors)}, tensors


def from_state_dict(tensors: dict[str, Node], sigma_data: float = 0.5) -> dict[str, Any]:
    """Constructor arguments, from published names and shapes; what those do not tell has EDM2's default.

    Errors    ValueError for names that are not EDM2's.
    """
    try:
        shape = {name: node["shape"] for name, node in tensors.items()}
        (first,) = (name for name in shape if re.fullmatch(r"unet\.enc\.\d+x\d+_conv\.weight", name))
        widths = {
            int(match[1]): shape[name][0]
            for name in shape
            if (match := re.fullmatch(r"unet\.dec\.(\d+)x\d+_block0\.conv_res1\.weight", name))
        }
        resolutions = sorted(widths, reverse=True)
        attention = {
            re.match(r"unet\.\w+\.(\d+)x", name)[1]
            for name in shape
            if "attn_qkv" in name and "_block" in name
        }
        num_blocks = sum(
            bool(re.fullmatch(rf"unet\.enc\.{resolutions[0]}x\d+_block\d+\.conv_res1\.weight", name))
            for name in shape
        )
        _check_head_width(shape)
        channels = math.gcd(*widths.values())
        noise_width, emb_width = shape["unet.emb_noise.weight"][::-1]
        arguments = dict(
            img_resolution=resolutions[0],
            img_channels=shape[first][1] - 1,
            label_dim=shape.get("unet.emb_label.weight", [0, 0])[1],
            sigma_data=sigma_data,
            logvar_channels=shape["logvar_linear.weight"][1],
            model_channels=channels,
            channel_mult=[widths[resolution] // channels for resolution in resolutions],
            num_blocks=num_blocks,
            attn_resolutions=sorted(map(int, attention), reverse=True),
        )
        if noise_width != widths[resolutions[0]]:
            arguments["channel_mult_noise"] = noise_width / channels
        if emb_width != max(widths.values()):
            arguments["channel_mult_emb"] = emb_width / channels
    except HeadsError:
        raise
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        raise ValueError("its tensors are not named and shaped as EDM2's.") from None
    return checked(arguments, tensors)


class HeadsError(ValueError):
    """Its attention is not of heads as wide as EDM2's."""


def _check_head_width(shape: dict[str, list[int]]) -> None:
    """A block has attention where it is at least a head wide; the decoder's first always wants it."""
    for block in (name.removesuffix(".conv_res1.weight") for name in shape if ".conv_res1." in name):
        width = shape[f"{block}.conv_res1.weight"][0]
        attends = f"{block}.attn_qkv.weight" in shape
        if (attends and width < HEAD_WIDTH) or (
            not attends and width >= HEAD_WIDTH and re.search(r"\.dec\.\d+x\d+_in0$", block)
        ):
            raise HeadsError(
                f"its {block!r}, {width} channels wide, has {'' if attends else 'no '}attention, so its "
                f"channels_per_head is not EDM2's {HEAD_WIDTH}, and the file does not say it: convert "
                "it with --template, a snapshot or model folder of the same network."
            )


def _check_heads(block: dict[str, Any], arguments: dict[str, Any]) -> None:
    """What a block computes with is what its arguments would make."""
    heads, width = block.get("num_heads"), block.get("out_channels")
    if not heads or not width:
        return
    expected = width // arguments.setdefault("channels_per_head", HEAD_WIDTH)
    if heads != expected:
        raise ValueError(
            f"its blocks of {width} channels have {heads} heads, not {expected} as they were made with."
        )


def checked(arguments: dict[str, Any], tensors: dict[str, Node]) -> dict[str, Any]:
    """The arguments that `Precond` knows, of a size that the tensors can be of."""
    kept = {name: value for name, value in arguments.items() if name not in UNUSED}
    unknown = sorted(kept.keys() - inspect.signature(Precond).parameters.keys() | kept.keys() & {"dtype"})
    if unknown:
        raise ValueError(f"its network was made with {unknown[0]!r}, which EDM2's does not have.")
    for name, value in kept.items():
        for number in value if isinstance(value, list) else [value]:
            if not (number is None or isinstance(number, int | float)):
                raise ValueError(f"its network was made with {name} = {str(value)[:40]}.")
    mult, num_blocks = kept.get("channel_mult", (1, 2, 3, 4)), kept.get("num_blocks", 3)
    if not (
        isinstance(mult, list | tuple)
        and isinstance(num_blocks, int)
        and len(mult) * num_blocks <= len(tensors)
    ):
        raise ValueError(
            f"its network cannot have channel_mult {str(mult)[:40]} and num_blocks {num_blocks}."
        )
    return kept


def _tensors(module: Node, prefix: str = ""):
    """(published name, tensor) in a state_dict's order."""
    state = module["state"]
    hidden = state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, node in (state.get(kind) or {}).items():
            if is_tensor(node) and name not in hidden:
                yield f"{prefix}{name}", node
    for name, child in (state.get("_modules") or {}).items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _objects(module: Node, class_name: str):
    """The attributes of every module of a class."""
    if module["class"] == class_name:
        yield module["state"]
    for child in (module["state"].get("_modules") or {}).values():
        if child is not None:
            yield from _objects(child, class_name)
