"""Files as programs write them, at every pickle protocol and under both numpy majors' names."""

import argparse
import pathlib
import pickle
import types
from collections import OrderedDict

import numpy as np
import torch
from stand_ins import (
    EasyDict,
    persistent_net,
    snapshot_content,
    their_modules,
    training_state_content,
)
from torch.distributed.algorithms.join import _JoinConfig

from mclr_fast.integrations.nvlabs_edm2 import CCALoss, CCDPOLoss, DDOLoss, MCLRLoss
from mclr_fast.models.edm2 import Precond

CORES = ("numpy.core", "numpy._core")
ARGUMENTS = dict(img_resolution=4, img_channels=1, label_dim=2, model_channels=4, channel_mult=[1])
ARGUMENTS |= dict(num_blocks=1, attn_resolutions=[], logvar_channels=4)
NOISE = dict(P_mean=-0.4, P_std=1.0)


def pickling(core, names=None):
    """A module like pickle whose Pickler writes numpy's functions under `core`; names: what it named."""
    names = set() if names is None else names

    class Pickler(pickle._Pickler):
        """Writes a name without looking whether this interpreter has it."""

        def save_global(self, obj, name=None):
            name = name or getattr(obj, "__qualname__", obj.__name__)
            module = pickle.whichmodule(obj, name)
            for each in CORES:
                if module.startswith(f"{each}."):
                    module = module.replace(each, core, 1)
            if self.proto < 3:
                module, name = pickle._compat_pickle.REVERSE_NAME_MAPPING.get((module, name), (module, name))
                module = pickle._compat_pickle.REVERSE_IMPORT_MAPPING.get(module, module)
            names.add(f"{module}.{name}")
            if self.proto >= 4:
                self.save(module)
                self.save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            self.memoize(obj)

        dispatch = pickle._Pickler.dispatch | {types.FunctionType: save_global}
        dispatch[type] = save_global

    def dump(value, file, protocol=None):
        Pickler(file, protocol).dump(value)

    return types.SimpleNamespace(__name__="pickle", Pickler=Pickler, dump=dump)


def write(path, value, form, protocol, core="numpy._core", names=None):
    """form: "pickle", or torch.save's "zip" or "stream"."""
    module = pickling(core, names)
    with their_modules(), open(path, "wb") as file:
        if form == "pickle":
            module.dump(value, file, protocol)
        else:
            zipped = form == "zip"
            torch.save(value, file, module, protocol, _use_new_zipfile_serialization=zipped)
    return path


def instance(module, name, state):
    """An object that pickles as one of a class of that name, by its attributes."""
    made = type(name, (), {"__module__": module, "__qualname__": name})()
    made.__dict__.update(state)
    return made


def wrapped(net, name="DistributedDataParallel", module="torch.nn.parallel.distributed"):
    """A network in one of torch's wrappers, with what is special in its attributes."""
    buckets = instance("torch.nn.parallel.distributed", "_BucketCapacityConfig", {"cap": 25})
    state = {
        "training": True, "_parameters": {}, "_buffers": {}, "_modules": {"module": net},
        "_non_persistent_buffers_set": set(), "_join_config": _JoinConfig(False, False, False),
        "device": torch.device("cpu"), "parameters_to_ignore": {"a"}, "_bucket_config": buckets,
    }  # fmt: skip
    return instance(module, name, state)


def net_of(**arguments):
    torch.manual_seed(0)
    net = Precond(**ARGUMENTS | arguments)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("_gain"):
                parameter.fill_(0.5)
    return net


def edm2_kinds():
    """Name -> (form, what the file holds): the network is net_of(), in a "state" as float32."""
    net = net_of()
    snapshot = lambda **more: EasyDict(snapshot_content(net, ARGUMENTS), **more)  # noqa: E731
    persistent = lambda: persistent_net(net, ARGUMENTS)  # noqa: E731
    arrays = {
        "scale": np.ones(4, np.float32),
        "bias": np.arange(4.0)[::2],
        "_vae": None,
        "batch": np.int64(8),
    }
    encoder = snapshot()["encoder"]
    encoder.meta["state"] = arrays
    reference = CCDPOLoss(0.1, **NOISE)
    reference.reference_weights = {name: value.half() for name, value in net.state_dict().items()}
    state = training_state_content(net, lr=np.float64(1e-3))
    traditional = {
        **state,
        "ema": {"halflife_Mimg": 0.5, "rampup_ratio": None, "ema": state["ema"]["emas"][1]},
    }
    beside = {
        "lr": np.float32(0.5), "step": np.int64(3), "device": torch.device("cuda", 0), "to": torch.bfloat16,
        "size": torch.Size([1, 2]), "seen": {1, 2}, "fixed": frozenset({"a"}), "none": np.zeros(0),
        "args": argparse.Namespace(outdir=pathlib.Path("a/b"), lr=0.1),
    }  # fmt: skip
    plain = OrderedDict(net.state_dict())
    return {
        "snapshot": ("pickle", snapshot()),
        "snapshot whose encoder holds arrays": ("pickle", snapshot(encoder=encoder)),
        "snapshot with MCLRLoss": ("pickle", snapshot(loss_fn=MCLRLoss(**NOISE))),
        "snapshot with CCDPOLoss": ("pickle", snapshot(loss_fn=reference)),
        "snapshot with CCALoss": ("pickle", snapshot(loss_fn=CCALoss(0.1, 2.0, **NOISE))),
        "snapshot with DDOLoss": ("pickle", snapshot(loss_fn=_ddo())),
        "snapshot of a DDP-wrapped net": ("pickle", snapshot(ema=wrapped(persistent()))),
        "torch.save of a net": ("zip", persistent()),
        "torch.save of {ema: net}": ("zip", {"ema": persistent()}),
        "torch.save of {ema: net}, older": ("stream", {"ema": persistent()}),
        "torch.save of {model: DataParallel}": (
            "zip", {"model": wrapped(persistent(), "DataParallel", "torch.nn.parallel.data_parallel")}
        ),
        "torch.save of {ema: AveragedModel}": (
            "zip", {"ema": wrapped(persistent(), "AveragedModel", "torch.optim.swa_utils")}
        ),
        "net and what is beside it": ("zip", {"ema": persistent(), **beside}),
        "torch.save of {ema: our net}": ("zip", {"ema": own_net(net)}),
        "torch.save of our net in DDP": ("zip", wrapped(own_net(net))),
        "training state": ("zip", state),
        "training state, older": ("stream", state),
        "training state with TraditionalEMA": ("zip", traditional),
        "state_dict": ("zip", plain),
        "state_dict, by pickle": ("pickle", plain),
        "state_dict of a compiled net": ("zip", {f"_orig_mod.{k}": v for k, v in plain.items()}),
        "state_dict of a DDP-wrapped net": ("zip", {f"module.{k}": v for k, v in plain.items()}),
        "{ema: state_dict}": ("zip", {"ema": plain, **beside}),
        "{state_dict: model.state_dict}": (
            "zip", {"state_dict": {f"model.{k}": v for k, v in plain.items()}, "epoch": 3},
        ),
    }  # fmt: skip


def own_net(net):
    """As `mclr_fast.load` gives it."""
    net.description = {"family": "edm2", "net": ARGUMENTS, "licence": "unknown", "null_label": True}
    return net


def _ddo():
    loss = DDOLoss.__new__(DDOLoss)
    loss.__dict__.update(NOISE, beta=0.1, alpha=2.0, negatives="x.zip", reference=None)
    return loss


def torch_kinds():
    """Name -> (form, value): what torch itself may write of a module."""
    dtypes = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
    )
    parameter = torch.nn.Parameter(torch.ones(2))
    buffer = torch.ones(2)
    parameter.tag = buffer.tag = "kept in float32"
    containers = {
        "dict": torch.nn.ModuleDict({"a": torch.nn.ParameterList([torch.ones(1)])}),
        "list": torch.nn.ModuleList([torch.nn.Sequential(torch.nn.ParameterDict({"b": torch.ones(1)}))]),
    }
    return {
        "dtypes": ("zip", [torch.ones(1).to(t) for t in (*dtypes, torch.int8, torch.uint8, torch.bool)]),
        "their names": ("zip", [*dtypes, torch.int8, torch.uint8, torch.bool]),
        "tensors with attributes": ("zip", {"p": parameter, "b": buffer}),
        "containers": ("zip", containers),
        "paths": ("zip", [instance_of_path(*name) for name in PATH_NAMES]),
    }


PATH_NAMES = [
    (module, name)
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
]


def instance_of_path(module, name):
    """What pickles as a path of Python 3.13's or another's pathlib."""
    made = type(name, (), {"__module__": module, "__qualname__": name})
    made.__reduce__ = lambda self: (made, ("a", "b"))
    return made()
