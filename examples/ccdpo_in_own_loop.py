"""CC-DPO in a loop of your own: a frozen reference, and a checkpoint that it goes on from.

Run: python examples/ccdpo_in_own_loop.py
"""

from pathlib import Path

import numpy as np
import torch

from mclr_fast import CCDPOLoss, load
from mclr_fast.data import open_dataset
from mclr_fast.models.edm2 import force_weight_norm_


def main(state: Path = Path("ccdpo.pt"), steps: int = 10) -> list[float]:
    """Train for so many steps more than the state at that path; each step's loss."""
    net, data = load("mnist16-base").train(), open_dataset("mnist16")
    loss_fn = CCDPOLoss(
        beta=0.05, reference="mnist16-base", P_mean=-0.5, P_std=1.2
    )  # or reference=net: a copy
    optimizer, done, losses = torch.optim.Adam(net.parameters(), lr=1e-4), 0, []
    if state.exists():
        saved = torch.load(state)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        loss_fn.__setstate__(saved["loss"])  # it refuses another reference than it began with
        done = saved["done"]
    for step in range(done, done + steps):
        torch.manual_seed(step)
        drawn = np.random.default_rng(step).integers(len(data), size=32)
        images = torch.from_numpy(data.images(drawn)).float() / 127.5 - 1
        loss = loss_fn(net, images, torch.from_numpy(data.labels[drawn])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        force_weight_norm_(net)
        losses.append(loss.item())
    saved = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "loss": loss_fn.__getstate__()}
    torch.save({**saved, "done": done + steps}, state)
    print(f"steps {done} to {done + steps - 1}: loss {losses[0]:.3f} -> {losses[-1]:.3f}; {state}")
    return losses


if __name__ == "__main__":
    main()
