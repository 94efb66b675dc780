"""An EDM2 model, NVIDIA's or ours, fine-tuned with MCLR in a loop of your own, and saved for the doors.

Run: python examples/edm2_in_own_loop.py && python -m mclr_fast.evaluate mine
"""

import copy
from pathlib import Path

import numpy as np
import torch

from mclr_fast import MCLRLoss, load
from mclr_fast.data import open_dataset
from mclr_fast.models import save_model
from mclr_fast.models.edm2 import force_weight_norm_


def main(model: str = "mnist16-base", out: Path = Path("mine"), steps: int = 30) -> None:
    """model: a folder, edm2-img64-s-1073741-0.075.pkl, its address, ... out: the folder to save to."""
    torch.manual_seed(0)
    net, data = load(model).train(), open_dataset("mnist16")
    average = copy.deepcopy(net).eval()
    loss_fn = MCLRLoss(P_mean=-0.5, P_std=1.2, num_negatives=3)  # img64's: -0.8 and 1.6; img512's: -0.4 and 1
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99))
    for step in range(steps):
        drawn = np.random.default_rng(step).integers(len(data), size=32)
        images = torch.from_numpy(data.images(drawn)).float() / 127.5 - 1
        loss = loss_fn(net, images, torch.from_numpy(data.labels[drawn])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for kept, new in zip(average.parameters(), net.parameters(), strict=True):
            kept.data.lerp_(new.data, 0.1)
        force_weight_norm_(net)  # EDM2 (arXiv 2312.02696), eq. 66: after every step
    save_model(out, average.state_dict(), {**net.description, "objective": "mclr", "made_by": "my loop"})
    print(f"{out}: the average of {steps} steps, last loss {loss:.1f}")


if __name__ == "__main__":
    main()
