"""What the convolutions' benchmark times, on the CPU: what the step makes."""

import convolutions
import pytest
import torch


@pytest.fixture
def timed(monkeypatch):
    """The results of what is timed, in its order."""
    results = []

    def milliseconds(function):
        results.append(function())
        return float(len(results))

    monkeypatch.setattr(convolutions, "milliseconds", milliseconds)
    monkeypatch.setattr(convolutions, "image", lambda *shape: torch.randn(shape))
    return results


def test_doubled_images_are_made_by_the_network_s_own_op(timed):
    """Doubled, and joined of a convolution's windows, forward and backward: each of its own size."""
    row = convolutions.doubled(2, 8, 4)
    times = row["double"], row["join"]
    (up, up_grad), (joined, joined_grad) = (
        [timed[int(time[name]) - 1] for name in ("forward", "backward")] for time in times
    )
    assert up.shape == joined.shape == (2, 8, 8, 8)
    assert torch.equal(up[:, :, ::2, ::2], up[:, :, 1::2, 1::2])
    assert up_grad[0].shape == (2, 8, 4, 4) and joined_grad[0].shape == (2, 32, 5, 5)
