"""Files as NVIDIA's programs write them, by their documented structure; the embedded source is a stand-in."""

import contextlib
import copy
import io
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import torch

from mclr_fast.models.var import VAR as VARNet

ARGUMENTS = dict(
    img_resolution=8, img_channels=4, label_dim=3, model_channels=64, channel_mult=[1, 2], num_blocks=1,
    attn_resolutions=[4], logvar_channels=8,
)  # fmt: skip
ATTRIBUTES = {
    "Precond": ("img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_data"),
    "UNet": ("label_balance", "concat_balance"),
    "Block": ("res_balance", "attn_balance", "clip_act", "resample_filter"),
}
DEFAULTS = dict(
    use_fp16=True, sigma_data=0.5, label_balance=0.5, concat_balance=0.5, res_balance=0.3, attn_balance=0.3,
    clip_act=256, resample_filter=[1, 1],
)  # fmt: skip


class EasyDict(dict):
    """Their dictionary, of which only the name is in the file."""


class Persistent:
    """An object that pickles as theirs do: its class's name, its attributes, and a source text."""

    def __init__(self, source, class_name, state):
        self.meta = dict(
            type="class", version=6, module_src=source, class_name=class_name, state=state
        )  # fmt: skip

    def __reduce__(self):
        return (_reconstruct_persistent_obj, (self.meta,), None)


def _reconstruct_persistent_obj(meta):
    """Stands in for the function that runs meta["module_src"]: here, the attributes are enough."""
    return meta


@contextlib.contextmanager
def their_modules():
    """dnnlib and torch_utils are importable inside, as far as a pickle needs them."""
    names = {
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": EasyDict},
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    }
    for name, members in names.items():
        sys.modules[name] = types.ModuleType(name)
        for member, value in members.items():
            setattr(sys.modules[name], member, value)
            value.__module__, value.__qualname__ = name, member
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _module(state, prefix, class_name, source, arguments):
    """The module whose tensors begin with `prefix`, and its children, as persistent objects."""
    parameters, buffers, children = OrderedDict(), OrderedDict(), OrderedDict()
    below = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for name, value in below.items():
        if "." in name:
            children[name.partition(".")[0]] = None
        elif class_name == "MPFourier":
            buffers[name] = value.half()
        else:
            parameters[name] = torch.nn.Parameter(value.half(), requires_grad=False)
    for name in children:
        children[name] = _module(state, f"{prefix}{name}.", _class_of(prefix, name), source, arguments)
    if class_name == "ModuleDict":
        modules = torch.nn.ModuleDict()
        modules._modules.update(children)
        return modules
    attributes = {name: (DEFAULTS | arguments)[name] for name in ATTRIBUTES.get(class_name, ())}
    state = {
        "training": False, "_parameters": parameters, "_buffers": buffers, "_modules": children,
        "_non_persistent_buffers_set": set(), "_forward_hooks": OrderedDict(), **attributes,
        "_init_args": (), "_init_kwargs": EasyDict(),
    }  # fmt: skip
    if class_name == "Precond":
        state["_init_kwargs"] = EasyDict(arguments, use_fp16=True, dropout=0.1)
    return Persistent(source, class_name, state)


def _class_of(prefix, name):
    if name in ("unet", "enc", "dec"):
        return {"unet": "UNet"}.get(name, "ModuleDict")
    if name.endswith("fourier"):
        return "MPFourier"
    return "Block" if prefix.endswith(("enc.", "dec.")) and not name.endswith("_conv") else "MPConv"


def snapshot(net, arguments, source="pass", class_name="Precond"):
    """The bytes of a network-snapshot .pkl of an EDM2 net made with these arguments."""
    with their_modules():
        return pickle.dumps(snapshot_content(net, arguments, source, class_name), protocol=4)


def persistent_net(net, arguments, source="pass"):
    """The network as their classes pickle it."""
    return _module(net.state_dict(), "", "Precond", source, arguments)


def snapshot_content(net, arguments, source="pass", class_name="Precond"):
    """What a snapshot holds."""
    network = persistent_net(net, arguments, source)
    network.meta["class_name"] = class_name
    encoder = Persistent(
        source, "StabilityVAEEncoder", {"scale": np.ones(4, np.float32), "_vae": None, "batch_size": 8}
    )  # fmt: skip
    return EasyDict(
        encoder=encoder, dataset_kwargs=EasyDict(path="x.zip"), loss_fn=Persistent(source, "EDM2Loss", {}),
        ema=network,
    )  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """The ordinary one, which under numpy 1 also finds what numpy 2 names."""

    def find_class(self, module, name):
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":
            module = module.replace("numpy._core", "numpy.core")
        return super().find_class(module, name)


def as_theirs(path):
    """What the ordinary unpickler makes of a snapshot: {published name: tensor} of its network."""
    with their_modules(), open(path, "rb") as file:
        content = _Unpickler(file).load()

    def tensors(module, prefix=""):
        state = module["state"] if isinstance(module, dict) else module.__dict__
        for name, value in [*state["_parameters"].items(), *state["_buffers"].items()]:
            yield f"{prefix}{name}", value.detach()
        for name, child in state["_modules"].items():
            yield from tensors(child, f"{prefix}{name}.")

    return dict(tensors(content["ema"]))


def training_state(net, stds=(0.05, 0.1)):
    """The bytes of a training-state .pt; the averages are the weights times 1 + std."""
    file = io.BytesIO()
    with their_modules():
        torch.save(training_state_content(net, stds), file)
    return file.getvalue()


def training_state_content(net, stds=(0.05, 0.1), lr=1e-3):
    """What a training state holds."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = OrderedDict(net.state_dict())
    emas = [{name: value * (1 + std) for name, value in state.items()} for std in stds]
    return dict(
        state=EasyDict(cur_nimg=4096, total_elapsed_time=1.5), net=state,
        loss_fn=dict(P_mean=-0.4, P_std=1.0, sigma_data=0.5, _init_args=(), _init_kwargs=EasyDict()),
        optimizer=optimizer.state_dict(), ema=dict(stds=list(stds), emas=emas),
    )  # fmt: skip


VAR_SIDES = [1, 2, 3]
VAR = dict(
    vocab_size=16, z_channels=4, num_classes=10, depth=2, embed_dim=128, num_heads=2, mlp_ratio=4.0,
    patch_nums=VAR_SIDES,
)  # fmt: skip


def var_state(l2_norm=True, shared=False):
    """A small state_dict of VAR's transformer, by its published names."""
    state = VARNet(**VAR, attn_l2_norm=l2_norm, shared_aln=shared).state_dict()
    buffers = {name: value for name, value in state.items() if name in ("lvl_1L", "attn_bias_for_masking")}
    return {name: torch.randn(value.shape) for name, value in state.items()} | buffers
