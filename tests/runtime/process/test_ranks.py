"""Which rows are whose."""

import pytest

from mclr_fast.runtime.process.ranks import Ranks


def all_ranks(size):
    """The ranks of a run of that size, as far as they need not speak to each other."""
    found = [Ranks("cpu") for _ in range(size)]
    for rank, ranks in enumerate(found):
        ranks.rank, ranks.size = rank, size
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 8, 64])
def test_every_row_is_one_ranks(size, num_rows):
    shares = [range(num_rows)[ranks.rows(num_rows)] for ranks in all_ranks(size)]
    assert [row for share in shares for row in share] == list(range(num_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("num_rows", [1, 12, 20])
def test_gathered_rounds_are_all_rows_in_order(size, num_rows):
    """At most a batch a rank; all ranks go through every round, the last one perhaps with nothing to do."""
    rounds = [list(ranks.rounds(num_rows, batch_size=4)) for ranks in all_ranks(size)]
    gathered = []
    for parts in zip(*rounds, strict=True):
        assert len({places for places, _ in parts}) == 1
        assert all(len(mine) <= 4 for _, mine in parts)
        assert [place for _, mine in parts for place in mine] == list(parts[0][0])
        gathered += parts[0][0]
    assert gathered == list(range(num_rows))


def test_an_error_of_rank_0_is_everybodys():
    ranks = Ranks("cpu")
    assert ranks.on_main(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        ranks.on_main(divmod, 7, 0)
