"""Published models and reference statistics by name: where they are, what they are, whose licence they have.

Nothing is downloaded until a name or an address is given where a model or statistics are asked for. NVIDIA
publishes no hashes of these files; they are read as data (`pickles`), whoever answers for the address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mclr_fast.runtime.remote.downloads import fetch, is_address, place_of, shown

from . import on_hub
from .pickled import NVIDIA_LICENCE, VAR_LICENCE, VQVAE

Kind = Literal["network", "statistics"]
EDM2 = "https://nvlabs-fi-cdn.nvidia.com/edm2"
DDO = "https://huggingface.co/nvidia/DirectDiscriminativeOptimization/resolve/main"
VAR = "https://huggingface.co/FoundationVision/var/resolve/main"
NET_NAME = re.compile(r"edm2-(img64|img512)-(\w+?)(-uncond)?-(\d{7})-(0\.\d{3})")


class Sampling(NamedTuple):
    """One of EDM2's published ways to sample: a network and, with guidance g other than 1, what guides it."""

    net: str
    gnet: str | None = None
    guidance: float = 1.0


SAMPLINGS = {  # EDM2's sampling presets; "fid", "dino": what the averaging width and guidance are best for
    "img512": """
        xs-fid:               xs-2147483-0.135
        xs-dino:              xs-2147483-0.200
        s-fid:                s-2147483-0.130
        s-dino:               s-2147483-0.190
        m-fid:                m-2147483-0.100
        m-dino:               m-2147483-0.155
        l-fid:                l-1879048-0.085
        l-dino:               l-1879048-0.155
        xl-fid:               xl-1342177-0.085
        xl-dino:              xl-1342177-0.155
        xxl-fid:              xxl-0939524-0.070
        xxl-dino:             xxl-0939524-0.150
        xs-guid-fid:          xs-2147483-0.045        xs-uncond-2147483-0.045 1.4
        xs-guid-dino:         xs-2147483-0.150        xs-uncond-2147483-0.150 1.7
        s-guid-fid:           s-2147483-0.025         xs-uncond-2147483-0.025 1.4
        s-guid-dino:          s-2147483-0.085         xs-uncond-2147483-0.085 1.9
        m-guid-fid:           m-2147483-0.030         xs-uncond-2147483-0.030 1.2
        m-guid-dino:          m-2147483-0.015         xs-uncond-2147483-0.015 2.0
        l-guid-fid:           l-1879048-0.015         xs-uncond-2147483-0.015 1.2
        l-guid-dino:          l-1879048-0.035         xs-uncond-2147483-0.035 1.7
        xl-guid-fid:          xl-1342177-0.020        xs-uncond-2147483-0.020 1.2
        xl-guid-dino:         xl-1342177-0.030        xs-uncond-2147483-0.030 1.7
        xxl-guid-fid:         xxl-0939524-0.015       xs-uncond-2147483-0.015 1.2
        xxl-guid-dino:        xxl-0939524-0.015       xs-uncond-2147483-0.015 1.7
        s-autog-fid:          s-2147483-0.070         xs-0134217-0.125 2.1
        s-autog-dino:         s-2147483-0.120         xs-0134217-0.165 2.45
        xxl-autog-fid:        xxl-0939524-0.075       m-0268435-0.155 2.05
        xxl-autog-dino:       xxl-0939524-0.130       m-0268435-0.205 2.3
        s-uncond-autog-fid:   s-uncond-2147483-0.070  xs-uncond-0134217-0.110 2.85
        s-uncond-autog-dino:  s-uncond-2147483-0.090  xs-uncond-0134217-0.125 2.9
    """,
    "img64": """
        s-fid:                s-1073741-0.075
        m-fid:                m-2147483-0.060
        l-fid:                l-1073741-0.040
        xl-fid:               xl-0671088-0.040
        s-autog-fid:          s-1073741-0.045         xs-0134217-0.110 1.7
        s-autog-dino:         s-1073741-0.105         xs-0134217-0.175 2.2
    """,
}


def _samplings() -> dict[str, Sampling]:
    """Of rows "preset: network [guide guidance]", names without their "edm2-img..-"."""
    table = {}
    for resolution, rows in SAMPLINGS.items():
        for row in rows.strip().splitlines():
            preset, names = row.split(":")
            net, *guide = names.split()
            gnet, guidance = (f"edm2-{resolution}-{guide[0]}", float(guide[1])) if guide else (None, 1.0)
            table[f"edm2-{resolution}-{preset.strip()}"] = Sampling(
                f"edm2-{resolution}-{net}", gnet, guidance
            )
    return table


PRESETS: dict[str, Sampling] = _samplings()


@dataclass(frozen=True)
class Published:
    """A file that anybody can download.

    Attributes: kind: what it holds; None where only its address was given. about: what it is, in words.
        side: in pixels, of the images that statistics are of; else None.
    """

    name: str
    address: str
    about: str
    licence: str
    kind: Kind | None
    side: int | None = None

    @property
    def place(self) -> Path:
        """Where it lies once it is downloaded."""
        return place_of(self.address)

    @property
    def is_here(self) -> bool:
        """Whether nothing would be downloaded."""
        return self.place.is_file()

    def __str__(self) -> str:
        about = f"{self.about}, " if self.about else ""
        return f"{shown(self.address)} ({about}licence {self.licence})"


def _edm2_net(name: str) -> Published:
    resolution, size, unconditional, kimg, std = NET_NAME.fullmatch(name).groups()
    images = -(-int(kimg) * 1000 // 2**20)  # snapshots lie at multiples of 1 Mi, names round down
    about = f"EDM2-{size.upper()}, ImageNet-{resolution.removeprefix('img')}, {images:,} Mi images, EMA {std}"
    about += ", without labels" * bool(unconditional)
    return Published(name, f"{EDM2}/posthoc-reconstructions/{name}.pkl", about, NVIDIA_LICENCE, "network")


def _files() -> dict[str, Published]:
    nets = {net for sampling in PRESETS.values() for net in (sampling.net, sampling.gnet) if net}
    files = [_edm2_net(name) for name in sorted(nets)]
    for name, resolution in (("edm2-img64-s-ddo", 64), ("edm2-img512-l-ddo", 512)):
        about = f"EDM2-{name.split('-')[2].upper()}, ImageNet-{resolution}, fine-tuned by DDO's authors"
        files.append(Published(name, f"{DDO}/{name}.pkl", about, NVIDIA_LICENCE, "network"))
    for depth, side in ((16, 256), (20, 256), (24, 256), (30, 256), (36, 512)):
        name, about = f"var_d{depth}", f"VAR-d{depth}{'-s' * (side == 512)}, ImageNet-{side}"
        files.append(Published(name, f"{VAR}/{name}.pth", about, VAR_LICENCE, "network"))
    files.append(Published(VQVAE, f"{VAR}/{VQVAE}.pth", "VAR's VQVAE", VAR_LICENCE, "network"))
    for depth in (16, 30):
        name, about = f"var_d{depth}-ddo", f"VAR-d{depth}, ImageNet-256, fine-tuned by DDO's authors"
        files.append(Published(name, f"{DDO}/{name}.pth", about, NVIDIA_LICENCE, "network"))
    for side in (64, 512):
        about = f"EDM2's reference statistics of ImageNet-{side}"
        address = f"{EDM2}/dataset-refs/img{side}.pkl"
        files.append(Published(f"edm2-img{side}-ref", address, about, NVIDIA_LICENCE, "statistics", side))
    return {file.name: file for file in files}


FILES: dict[str, Published] = _files()


def find(text: str) -> Published | None:
    """What a name or an https address stands for; None for anything else."""
    if is_address(text):
        address = direct(text)
        bare = re.sub(r"\?download=(true|1)$", "", address)  # another query may mean another file
        known = next((file for file in FILES.values() if file.address in (address, bare)), None)
        return known or Published(place_of(address).name, address, "", "unknown", None)
    return FILES.get(text)


def direct(address: str) -> str:
    """The address of the file itself, of one as browsers show it: Hugging Face's page of it, a fragment."""
    scheme, _, rest = address.partition("://")
    host, slash, place = rest.partition("#")[0].partition("/")
    if host.lower() in ("huggingface.co", "hf.co"):
        place = place.replace("/blob/", "/resolve/", 1)
    return f"{scheme.lower()}://{host.lower() if '@' not in host else host}{slash}{place}"


def to_download(text: str | Path | None, kind: Kind = "network") -> Published | on_hub.HubModel | None:
    """What naming that would download now: nothing for a path, or for what is in the cache.

    Errors: ValueError where it is published but of another kind.
    """
    file = on_hub.find(text) if kind == "network" else None
    file = file or _of_kind(text, kind)
    return None if file is None or file.is_here else file


def local(text: str | Path | None, kind: Kind = "network") -> Path | None:
    """The file of a name or an address, downloaded first where it is not there; None for anything else.

    Errors: those of `fetch`; ValueError where it is of another kind.
    """
    file = _of_kind(text, kind)
    if file is None:
        return None
    note = f"{file.about}; licence {file.licence}" if file.about else f"licence {file.licence}"
    return fetch(file.address, note=note)


def _of_kind(text: str | Path | None, kind: Kind) -> Published | None:
    """An existing path of a published name is that path."""
    if not isinstance(text, str) or (not is_address(text) and Path(text).exists()):
        return None
    file = find(text)
    if file is not None and file.kind not in (kind, None):
        raise ValueError(f"{text} is no {kind} but {file.about}.")
    return file
