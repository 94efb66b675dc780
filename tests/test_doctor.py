"""The checklist says what is there, what is not, and never fails."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import torch

import mclr_fast
from mclr_fast import doctor, ops
from mclr_fast.experiments import checklist as machine


@pytest.fixture
def checklist(capsys):
    """checklist() -> {name: (tick, what is said)} of a run."""

    def run():
        assert doctor.main([]) == 0
        lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        return {words[1]: (words[0], words[2]) for words in lines if words[0] in "✓✗"}

    return run


def test_versions_are_those_installed(checklist):
    found = checklist()
    assert found["mclr_fast"] == ("✓", mclr_fast.__version__)
    assert found["torch"] == ("✓", torch.__version__)


def test_a_missing_package_is_not_ticked(checklist, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert checklist()["triton"] == ("✗", "not installed")


@pytest.mark.parametrize("native", [True, False])
def test_precision_is_the_trainers_choice(monkeypatch, native):
    dtype = torch.bfloat16 if native else torch.float32
    monkeypatch.setattr(machine, "choose_dtype", lambda precision, device: dtype)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = {name: (present, text) for present, name, text in machine._processors()}
    expected = "native: auto picks bf16" if native else "not native: auto picks fp32"
    assert lines["cpu bf16"] == (native, expected)
    assert lines["cuda"] == (False, "none")
    assert f"torch threads: {torch.get_num_threads()}" in lines["cpu"][1]


def test_each_gpu_has_a_line(monkeypatch):
    class Device:
        name, total_memory, major, minor = "Some GPU", 80 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    lines = {name: (present, text) for present, name, text in machine._processors()}
    assert lines["cuda:1"] == (True, "Some GPU, 80 GiB, capability 9.0")
    assert lines["cuda bf16"] == (True, "native: auto picks bf16")


def test_compilers_are_where_they_are_found(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/g++" if name == "g++" else None)
    assert list(machine._compilers()) == [
        (True, "C++ compiler", "/bin/g++"),
        (False, "nvcc", "not found"),
    ]


def test_optional_packages(checklist, monkeypatch):
    """apex counts only with its compiled part; DALI's parent package may be missing."""

    def find_spec(name):
        if name == "nvidia.dali":
            raise ModuleNotFoundError(name)
        return object() if name in ("apex", "mlxtend.data") else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    found = checklist()
    assert found["mlxtend"] == ("✓", "installed")
    assert found["apex"][0] == found["nvidia-dali"][0] == "✗"
    assert found["apex"][1].startswith("not installed")


@pytest.mark.robust("talking")
def test_a_package_that_does_not_import_is_said_to_be_broken(checklist, monkeypatch):
    """A broken tensorboard is a line of the checklist with what it raises, and the others have theirs."""

    def find_spec(name):
        if name == "tensorboard.summary":
            raise TypeError("Descriptors cannot\nbe created")
        if name == "wandb.sdk":
            raise ValueError("wandb.__spec__ is None")
        return object()

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    found = checklist()
    assert found["tensorboard"][0] == "✗"
    assert found["tensorboard"][1].startswith("broken: Descriptors cannot be created (--tensorboard")
    assert found["wandb"][1].startswith("broken: wandb.__spec__ is None")
    assert found["mlxtend"] == ("✓", "installed")


def test_shipped_files_are_there_or_missing(checklist, monkeypatch, tmp_path):
    (tmp_path / "mnist16-base").mkdir()
    (tmp_path / "mnist16-base" / "model.safetensors").write_bytes(b"x" * 1234)
    monkeypatch.setattr(machine, "ASSETS", tmp_path)
    found = checklist()
    assert found["mnist16-base/model.safetensors"] == ("✓", "1,234 bytes")
    assert found["mnist16-base/config.json"] == ("✗", "missing")
    assert (
        found["mnist16-var-base/model.safetensors"] == found["mnist16-vqvae/config.json"] == ("✗", "missing")
    )


def test_each_op_says_its_implementation(checklist):
    found = checklist()
    for op, implementation, reason in ops.implementations():
        assert found[op] == ("✓", f"{implementation:<11} {reason}")


def test_as_a_command_without_ticks():
    """A terminal that knows only ASCII gets the text."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "mclr_fast.doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split() == [r"\u2713", "mclr_fast", mclr_fast.__version__]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as exit_:
        doctor.main(["--help"])
    assert exit_.value.code == 0
    assert "example:\n  python -m mclr_fast.doctor" in capsys.readouterr().out
