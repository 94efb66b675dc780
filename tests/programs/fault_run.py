"""A tiny run of the train door that fails on order and is called again; a program that forks for each call.

Usage: fault_run.py FOLDER SAVE_EVERY FAULT...; SAVE_EVERY: steps between saves; FAULT: as MCLR_FAST_FAULT, or
"none". Prints a line of JSON a fault: {"codes": exit codes of the calls, "losses": {images seen: loss},
"weights": hash of the final model}.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

import tiny_run as tiny
import torch
from run_log import lines
from zips import write_zip

from mclr_fast import train
from mclr_fast.experiments import run as run_module
from mclr_fast.models import describe, save_model
from mclr_fast.models.edm2 import Precond

NET = tiny.NET | {"channel_mult": [1], "attn_resolutions": []}
IMAGES, BATCH, STEPS = 20, 6, 12  # epochs end within steps 4 and 7, and with step 10
MAX_CALLS = 3


def write_files(folder):
    """A base and data."""
    torch.manual_seed(0)
    net = Precond(**NET)
    for name, parameter in net.named_parameters():
        if name.endswith("gain"):
            parameter.data.fill_(1.0)
    save_model(folder / "base", net.state_dict(), describe(NET))
    data = tiny.TinyData()
    write_zip(folder / "data.zip", data.images(range(IMAGES)), data.labels[:IMAGES])


def arguments(folder, outdir, save_every):
    """The command that is called, and called again."""
    options = {
        "init": folder / "base",
        "data": folder / "data.zip",
        "outdir": outdir,
        "batch-size": BATCH,
        "duration": STEPS * BATCH,
        "checkpoint-every": save_every * BATCH,
        "log-every": 1,
        "num-negatives": 1,
        "lr": 3e-4,
        "eval-every": 0,
        "control": "none",
        "precision": "fp32",
        "device": "cpu",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def call(command, said):
    """The door's exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            with open(said, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                try:
                    code = train.main(command)
                except Exception:
                    traceback.print_exc(file=file)
                    code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def result(outdir):
    """What a finished run has come to."""
    weights = (outdir / "checkpoints" / "final-mclr" / "model.safetensors").read_bytes()
    return {
        "losses": [[line["images_seen"], line["loss"]] for line in lines(outdir)],
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def mend(outdir, said):
    """Remove the states, where the last call's line says so."""
    if f"remove {outdir / 'checkpoints' / 'mclr-state'} or" in said.splitlines()[-1]:
        shutil.rmtree(outdir / "checkpoints" / "mclr-state")


def suffer(folder, save_every, fault):
    """Call the run with the fault, then without, until it ends; mend between calls what they ask for."""
    outdir, said = folder / "run", folder / f"{fault.replace(':', '-')}.txt"
    shutil.rmtree(outdir, ignore_errors=True)
    command, codes = arguments(folder, outdir, save_every), []
    while not codes or (codes[-1] != 0 and len(codes) < MAX_CALLS):
        os.environ["MCLR_FAST_FAULT"] = fault if not codes and fault != "none" else ""
        codes.append(call(command, said))
        mend(outdir, said.read_text())
    return {"codes": codes, **(result(outdir) if codes[-1] == 0 else {}), "said": said.read_text()}


def main(folder, save_every, *faults):
    folder = Path(folder)
    write_files(folder)
    run_module.write_report = lambda outdir: None  # takes a second
    for fault in faults:
        print(json.dumps(suffer(folder, int(save_every), fault)), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
