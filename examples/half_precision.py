"""A model's weights in half precision, as the embedded VAR ships: half the bytes, read as ever.

Run: python examples/half_precision.py MODEL OUT

MODEL is anything that `mclr_fast.load` takes; OUT a folder for model.safetensors and config.json.
"""

import argparse
from pathlib import Path

from mclr_fast.models import save_model
from mclr_fast.models.storage.files import read_state


def main(arguments: list[str] | None = None) -> None:
    """Read, round, write; numbers that are no fractions stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    config, state = read_state(options.model)
    half = {name: each.half() if each.is_floating_point() else each for name, each in state.items()}
    save_model(options.out, half, config)


if __name__ == "__main__":
    main()
