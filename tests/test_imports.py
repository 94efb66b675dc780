"""What an import costs: only what is needed is loaded. One interpreter answers for all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mclr_fast

ROOMS = ["ops", "objectives", "models", "sampling", "evaluation", "data", "integrations"]
PACKAGE = Path(mclr_fast.__file__).parent
DOORS = sorted(f"mclr_fast.{path.stem}" for path in PACKAGE.glob("*.py") if "def main(" in path.read_text())
HEAVY = {"torch", "numpy", "matplotlib", "scipy", "safetensors", "PIL", "huggingface_hub"}
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


HELP = """
import importlib, json, sys
from contextlib import redirect_stdout, suppress
from io import StringIO
loaded = {}
for name in sys.argv[1:]:
    with redirect_stdout(StringIO()), suppress(SystemExit):
        importlib.import_module(name).main(["--help"])
    loaded[name] = sorted({module.partition(".")[0] for module in sys.modules})
print(json.dumps(loaded))
"""


def test_help_loads_nothing_heavy():
    """So it comes at once; `report`, which reads arrays, is asked last."""
    names = [*sorted({*DOORS, "mclr_fast.theory.__main__"} - {"mclr_fast.report"}), "mclr_fast.report"]
    done = subprocess.run([sys.executable, "-c", HELP, *names], capture_output=True, text=True, check=True)
    found = {name: HEAVY & set(packages) for name, packages in json.loads(done.stdout).items()}
    assert len(found) > 9 and found.pop("mclr_fast.report") <= {"numpy", "safetensors"}
    assert not any(found.values()), found


def test_options_need_no_torch(loaded):
    assert "tyro" in loaded["mclr_fast.config"]
    assert "torch" not in loaded["mclr_fast.config"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_leave_tools_for_later(loaded, room):
    assert "torch" in loaded[f"mclr_fast.{room}"]
    assert not loaded[f"mclr_fast.{room}"] & {"matplotlib", "torch_fidelity", "mlxtend"}
