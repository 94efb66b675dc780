"""Small faults, a file a room or family of models: what somebody may well get wrong, and a test has to see.

Every room's FAULTS is a list of what is wrong, its file, a text that is in the file once, what stands there
with the fault, and the tests that see it. Files are below mclr_fast/ (csrc's from the tree's root), tests
below tests/. The file still compiles with the fault.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "objectives",
    "methods",
    "training",
    "sampling",
    "evaluation",
    "data",
    "pickles",
    "models",
    "edm2",
    "var",
    "runtime",
    "experiments",
    "integrations",
    "ops",
    "csrc",
)


@dataclass(frozen=True)
class Fault:
    """One of a room. path: from the tree's root; tests: pytest's arguments, separated by spaces."""

    room: str
    name: str
    path: str
    old: str
    new: str
    tests: str

    def applied(self, text: str) -> str:
        """The file's text with the fault; ValueError where `old` is not in it exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.room}: {self.name}: {self.path} has its text {count} times, not once")
        return text.replace(self.old, self.new)


def faults(room: str) -> list[Fault]:
    """All of a room."""
    below = "" if room == "csrc" else "mclr_fast/"
    rows = import_module(f"mutations.{room}").FAULTS
    return [
        Fault(room, name, f"{below}{path}", old, new, " ".join(f"tests/{test}" for test in tests.split()))
        for name, path, old, new, tests in rows
    ]
