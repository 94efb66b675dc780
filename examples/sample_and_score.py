"""Samples of a model under several strengths of guidance, and their scores, without a file in between.

Run: python examples/sample_and_score.py
"""

import torch

from mclr_fast import generate, load, score


def main(
    model: str = "mnist16-base", guidance: tuple[float, ...] = (1.0, 1.25, 2.0), num: int = 1000
) -> list[dict]:
    """Print a row for each strength. Of other models: score(images, "img64.zip", "fid,is"), 50,000 images."""
    net, rows = load(model), []
    labels = torch.arange(num) % 10
    for strength in guidance:
        images = generate(net, range(num), labels.tolist(), guidance=strength)  # uint8 [n,C,H,W]
        rows.append(score(images, None, "mnist16", labels=labels)["mnist16"])
        shown = "  ".join(
            f"{name} {rows[-1][name]:.3f}" for name in ("fd", "is", "precision", "recall", "accuracy")
        )
        print(f"guidance {strength:<5g} {shown}")
    return rows


if __name__ == "__main__":
    main()
