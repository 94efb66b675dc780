"""Rows of a step as a family is given them: images, labels, places in the run; cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

OWN_REFERENCE = "own_reference"
"""In `Rows.law`: the reference's energies of column 0, where they are kept; in parts with that column."""


@dataclass(frozen=True)
class Rows:
    """One rank's rows of a step, or a part of them.

    Attributes:
        x: [n,*shape], shared by the row's columns, or [n,w,*shape] (`shared` says which).
        labels: int64 [n,w]; -1 is none.
        law: what the family draws a row, by name (a noise level and its weight), and OWN_REFERENCE; each
            [n,...].
        position: of each row in the run, int64 [n]; with `seed` it keys whatever is drawn on the way.
        scale: [] float32, what the loss is multiplied by before its gradient is taken.
        columns: int64 [w], which columns these are, of rows of `num_columns`.
    """

    x: Tensor
    labels: Tensor
    shared: bool
    law: dict[str, Tensor]
    position: Tensor
    seed: int
    scale: Tensor
    columns: Tensor
    num_columns: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that may differ between rows of one shape."""
        return (self.x, self.labels, self.position, self.scale, self.columns, *self.law.values())

    def with_tensors(self, tensors: Sequence[Tensor]) -> Rows:
        """The same with others in place of `tensors`."""
        x, labels, position, scale, columns, *law = tensors
        changed: dict[str, Any] = {"law": dict(zip(self.law, law, strict=True)), "columns": columns}
        return replace(self, x=x, labels=labels, position=position, scale=scale, **changed)

    def part(self, rows: slice, columns: slice) -> Rows:
        """These rows and columns of whole rows."""
        return replace(
            self,
            x=self.x[rows] if self.shared else self.x[rows, columns],
            labels=self.labels[rows, columns],
            law={
                name: value[rows]
                for name, value in self.law.items()
                if name != OWN_REFERENCE or not columns.start
            },
            position=self.position[rows],
            columns=self.columns[columns],
        )

    def micro_batches(self, num_evaluations: int, *, separable: bool = True) -> Iterator[Rows]:
        """Whole rows cut into parts of at most `num_evaluations` (0 = one part).

        Whole rows while they fit; a row larger than a part is cut by columns, which only `separable`
        objectives allow.
        """
        num_rows, num_columns = self.labels.shape
        size = num_evaluations or num_rows * num_columns
        assert separable or size >= num_columns
        width = min(size, num_columns)
        height = max(size // num_columns, 1)
        for row in range(0, num_rows, height):
            for column in range(0, num_columns, width):
                yield self.part(slice(row, row + height), slice(column, min(column + width, num_columns)))

    def scaled(self, factor: float) -> Rows:
        """The same with the loss multiplied by a further factor."""
        return self if factor == 1 else replace(self, scale=self.scale * factor)

    def column_sums(self, energy: Tensor) -> Tensor:
        """Energies [n,w] -> their sum by column of the whole row, float64 [R], zero where there is none."""
        found = energy.detach().double().sum(dim=0)
        if len(found) == self.num_columns:
            return found
        return found.new_zeros(self.num_columns).index_copy_(0, self.columns, found)
