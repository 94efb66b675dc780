"""Which classes a model was trained with, what they are called, and how a command line names them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SAID = ("class_names", "trained_classes")  # of config.json
MOST_SHOWN = 12  # classes that a message lists


@dataclass(frozen=True)
class Classes:
    """Attributes: trained, the numbers of the classes that samples can be of; names, of all, by number."""

    trained: list[int]
    names: list[str]

    @classmethod
    def of(cls, said: Mapping[str, Any], num_classes: int) -> Classes:
        """What a config.json says: "class_names" and "trained_classes"; without, numbers, and all of them.

        Errors    ValueError for what is no list of as many names, or of numbers of classes.
        """
        names = said.get("class_names", [str(number) for number in range(num_classes)])
        trained = said.get("trained_classes", list(range(num_classes)))
        if not _is_list(names, str) or len(names) != num_classes:
            raise ValueError(f'config.json: "class_names" must be {num_classes} names, not {_short(names)}.')
        known = range(num_classes)
        if not _is_list(trained, int) or not all(number in known for number in trained):
            raise ValueError(
                f'config.json: "trained_classes" must be of 0 to {num_classes - 1}, not {_short(trained)}.'
            )
        return cls(sorted(set(trained)), names)

    @classmethod
    def of_data(cls, labels: np.ndarray, names: Sequence[str], num_classes: int) -> Classes:
        """Those of a network that knows num_classes and begins with these data: labels int64 [n]."""
        numbers = [str(number) for number in range(num_classes)]
        return cls(
            np.unique(labels).tolist() if num_classes else [], [*names, *numbers[len(names) :]][:num_classes]
        )

    def and_data(self, labels: np.ndarray, names: Sequence[str]) -> tuple[Classes, list[str]]:
        """Those of a network that goes on with these data, and a remark where names are others by now."""
        found = Classes.of_data(labels, names, len(self.names))
        trained = sorted({*self.trained, *found.trained}) if self.names else []
        pairs = list(zip(self.names, found.names, strict=True))
        merged = [old if new == str(i) else new for i, (old, new) in enumerate(pairs)]
        other = [i for i, (old, new) in enumerate(pairs) if str(i) not in (old, new) and old != new]
        remarks = []
        if other:
            first = other[0]
            remarks.append(
                f"{len(other)} of {len(pairs)} classes are called otherwise in the data than in --init's "
                f"model, such as class {first}, {found.names[first]} there and {self.names[first]} here: the "
                "data's names are kept"
            )
        return Classes(trained, merged), remarks

    def said(self) -> dict[str, Any]:
        """For config.json: nothing of classes that are all trained and have no names."""
        named = self.names != [str(number) for number in range(len(self.names))]
        all_trained = len(self.trained) == len(self.names)
        return ({"class_names": self.names} if named else {}) | (
            {} if all_trained else {"trained_classes": self.trained}
        )

    def word(self, number: int) -> str:
        """A class's number, with its name where it has one."""
        name = self.names[number]
        return name if name == str(number) else f"{number} {name}"

    @property
    def have_names(self) -> bool:
        """Whether any is called otherwise than by its number."""
        return "class_names" in self.said()

    def number(self, name: str) -> int:
        """The class of that name; in other letters' case too, where that leaves one.

        Errors    ValueError, one line, with the nearest names.
        """
        if name in self.names:
            return self.names.index(name)
        folded = [each.casefold() for each in self.names]
        if folded.count(name.casefold()) == 1:
            return folded.index(name.casefold())
        nearest = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
        near = ", ".join(self.names[folded.index(each)] for each in nearest)
        raise ValueError(
            f"no class is called {_short(name)!r}; {f'nearest: {near}' if near else self.known()}."
        )

    def known(self) -> str:
        """Those that can be sampled, to end a refusal."""
        return f"the model's are {self.listed()}"

    def listed(self) -> str:
        """Those that can be sampled: "0 cat, 1 dog", of many the first."""
        words = [self.word(number) for number in self.trained]
        more = [f"and {len(words) - MOST_SHOWN} more"] if len(words) > MOST_SHOWN else []
        return ", ".join([*words[:MOST_SHOWN], *more])


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
