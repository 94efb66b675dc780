"""Graphs of callables: one a shape, rows padded, none where it fails. On the CPU a stand-in captures."""

import pytest
import torch

from mclr_fast.runtime.device.graphs import Graphs


class StandIn:
    """A replay computes again from the inputs that stay, into one tensor that stays."""

    def __init__(self, fail=None):
        self.warm, self.captured, self.replays, self.fail = [], [], 0, fail

    def warm_up(self, function, inputs):
        self.warm.append(len(inputs[0]))
        return function(*inputs)

    def capture(self, function, inputs):
        self.captured.append([tuple(value.shape) for value in inputs])
        if self.fail:
            raise self.fail
        result = function(*inputs)

        def replay():
            self.replays += 1
            return result.copy_(function(*inputs))

        return replay


def double(x, labels):
    return 2 * x + labels[:, None]


def inputs(rows, width=3):
    return torch.randn(rows, width), torch.arange(rows)


def check(graphs, rows, width=3):
    given = inputs(rows, width)
    found = graphs(*given)
    assert found.shape == (rows, width) and torch.equal(found, double(*given))


def test_a_shape_is_warmed_up_captured_once_and_replayed():
    device = StandIn()
    graphs = Graphs(double, device=device)
    for _ in range(4):
        check(graphs, 4)
    assert device.warm == [4] and device.captured == [[(4, 3), (4,)]] and device.replays == 3


def test_fewer_rows_are_padded_and_more_are_captured_anew():
    device = StandIn()
    graphs = Graphs(double, device=device)
    for rows in (4, 1, 4, 1, 3, 6, 5, 6, 4):
        check(graphs, rows)
    assert device.warm == [4, 6]
    assert [shapes[0] for shapes in device.captured] == [(4, 3), (6, 3)]
    assert device.replays == 5
    check(graphs, 2, width=5)
    assert device.warm == [4, 6, 2] and len(device.captured) == 2


def test_a_result_is_the_callers():
    graphs = Graphs(double, device=StandIn())
    check(graphs, 2)
    first = inputs(2)
    kept = graphs(*first)
    check(graphs, 2)
    assert torch.equal(kept, double(*first))


def test_a_capture_that_fails_is_said_once_and_done_without():
    device, said = StandIn(fail=RuntimeError("operation not permitted\nwhen capturing")), []
    graphs = Graphs(double, say=said.append, device=device)
    for _ in range(4):
        check(graphs, 2)
    assert len(device.captured) == 1 and not device.replays
    assert said == ["without a CUDA graph, kernel by kernel: operation not permitted"]


def test_a_mistake_in_the_function_is_not_swallowed():
    graphs = Graphs(double, device=StandIn(fail=ValueError("labels")))
    check(graphs, 2)
    with pytest.raises(ValueError, match="labels"):
        graphs(*inputs(2))


def test_no_rows_and_the_cpu_are_eager():
    device = StandIn()
    check(Graphs(double, device=device), 0)
    assert not device.warm
    graphs = Graphs(double)
    for _ in range(3):
        check(graphs, 2)


@pytest.mark.gpu
def test_on_a_gpu_a_graph_gives_what_the_function_gives():
    said = []
    graphs = Graphs(double, say=said.append)
    for rows in (4, 4, 2, 4):
        given = [value.cuda() for value in inputs(rows)]
        torch.testing.assert_close(graphs(*given), double(*given))
    assert not said


@pytest.mark.gpu
def test_on_a_gpu_what_waits_for_the_host_is_done_without_a_graph():
    said = []

    def waits(x, labels):
        return double(x, labels) + x.sum().item()

    given = [value.cuda() for value in inputs(4)]
    graphs = Graphs(waits, say=said.append)
    for _ in range(3):
        torch.testing.assert_close(graphs(*given), waits(*given))
    assert len(said) == 1
