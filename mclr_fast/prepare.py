"""Make a data set: `python -m mclr_fast.prepare SOURCE OUT.zip --resolution 64`; see --help."""

from __future__ import annotations

import sys
from functools import partial

from mclr_fast.config import PrepareConfig
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Crop and resize labelled images to one size and write them as an EDM2 data set.

SOURCE is a folder, .zip or .tar (.tgz, ...) with a folder (or a .tar) of images for every class, or with
a dataset.json; or with MNIST's idx files, train-images-idx3-ubyte.gz and the like. Classes are numbered by
the sorted names of their folders, which are printed. OUT.zip appears when it is whole; run the same command
again to go on with one that was stopped.

Examples:
  python -m mclr_fast.prepare imagenet/train img64.zip --resolution 64 --verify
  python -m mclr_fast.prepare ILSVRC2012_img_train.tar img512.zip --resolution 512
  python -m mclr_fast.prepare img512.zip img512-sd.zip --resolution 512 --latents sd-vae-ft-mse/ --mirror
  python -m mclr_fast.prepare imagenet/train img256-var.zip --resolution 256 --tokens var_d24 --mirror
  python -m mclr_fast.prepare pets.zip pets64.zip --within pets/train
  python -m mclr_fast.prepare fashion-mnist/ fashion32.zip --resolution 32 --pad --grey --within train
  python -m mclr_fast.prepare img64.zip --verify
"""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Parse, make, verify. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    config = parsed(PrepareConfig, given(arguments), "mclr_fast.prepare", DESCRIPTION)
    from mclr_fast.data.prepare import prepare
    from mclr_fast.runtime.process.main import fail, run_door

    if config.out is None and not config.verify:
        return fail(ValueError("name the data set to write, OUT.zip, or give --verify to check SOURCE."))

    if config.latents and config.tokens:
        return fail(ValueError("--latents or --tokens: a data set holds one of them."))

    if config.grey and (config.latents or config.tokens):
        return fail(ValueError("--grey: --latents and --tokens encode three channels; leave it out."))

    def encoder(device):
        if config.latents:
            from mclr_fast.models.vae import VAEEncoder

            return VAEEncoder(config.latents, device)
        from mclr_fast.models.tokens import TokenEncoder

        return TokenEncoder(config.tokens, config.resolution, device)

    def work(ranks, stop) -> None:
        if ranks.is_main:
            encodes = config.latents or config.tokens
            prepare(config, partial(encoder, ranks.device) if encodes else None, stop)

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
