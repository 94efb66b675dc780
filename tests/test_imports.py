"""What an import costs: only what is needed is loaded. One interpreter answers for all."""

import json
import subprocess
import sys

import pytest

ROOMS = ["ops", "objectives", "models", "sampling", "evaluation", "data", "integrations"]
IMPORTS = ["mclr_fast", "mclr_fast.report", "mclr_fast.config", *(f"mclr_fast.{room}" for room in ROOMS)]
PROGRAM = """
import importlib, json, sys
loaded = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded[name] = sorted({module.partition(".")[0] for module in sys.modules})
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded():
    """Top-level packages in memory after each import, the earlier ones' among them."""
    command = [sys.executable, "-c", PROGRAM, *IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: set(packages) for name, packages in json.loads(done.stdout).items()}


def test_the_package_is_light(loaded):
    assert "mclr_fast" in loaded["mclr_fast"]
    assert not loaded["mclr_fast"] & {"torch", "numpy"}


def test_a_report_needs_no_torch_and_pictures_are_loaded_when_drawn(loaded):
    assert "numpy" in loaded["mclr_fast.report"]
    assert not loaded["mclr_fast.report"] & {"torch", "tyro", "matplotlib"}


def test_options_need_no_torch(loaded):
    assert "tyro" in loaded["mclr_fast.config"]
    assert "torch" not in loaded["mclr_fast.config"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_leave_tools_for_later(loaded, room):
    assert "torch" in loaded[f"mclr_fast.{room}"]
    assert not loaded[f"mclr_fast.{room}"] & {"matplotlib", "torch_fidelity", "mlxtend"}
