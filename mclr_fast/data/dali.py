"""NVIDIA DALI decodes: in its own threads, outside Python, on the CPU or on the way to a GPU."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
import PIL.Image
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.tensors import TensorCPU, TensorGPU

from .plain_loader import ImageFiles, PlainLoader

CHUNK = 512  # images that DALI holds at once
QUEUE = 2  # chunks in flight
PNG_HEADER = slice(0, 29)  # signature and IHDR: size, bit depth, colour type
MODES = {1: "L", 3: "RGB"}


class DaliLoader:
    """The images at given indices, through one DALI pipeline.

    DALI would bring other kinds of images silently to the data set's, so each file's header is looked at
    first. What it cannot decode is left to the plain loader, whose errors name the file.
    """

    def __init__(self, files: ImageFiles, num_threads: int, device: torch.device | None, plain: PlainLoader):
        self.files = files
        self.plain = plain
        self.num_threads = num_threads
        self.device = device
        self.gpu = device is not None and device.type == "cuda"
        self.latent = files.dtype == np.float32
        channels, *size = files.image_shape
        self._stored_shape = files.image_shape if self.latent else (*size, channels)
        self._stream = torch.cuda.Stream(device) if self.gpu else None
        self._header = bytes(files.view(0)[PNG_HEADER])
        self._lock = threading.Lock()
        self._chunks: Iterator[np.ndarray] = iter(())
        self._alive: deque[list[np.ndarray]] = deque(maxlen=QUEUE + 2)  # DALI reads them where they are
        self._pipeline = self._build()

    def __call__(self, indices: np.ndarray) -> np.ndarray | torch.Tensor:
        """int64 [m] -> [m, C, H, W]: an array, or a tensor on the GPU. Errors as the plain loader's."""
        with self._lock:
            self.files.expect(indices)
            self._chunks = iter(np.split(indices, range(CHUNK, len(indices), CHUNK)) if len(indices) else [])
            try:
                images = self._run_on_gpu(len(indices)) if self.gpu else self._run(len(indices))
            except Exception as error:
                self._pipeline = self._build()  # after an error the old one is of no use
                self.plain(indices)  # raises where a file is at fault
                reason = str(error).strip().splitlines()[-1]
                raise ValueError(
                    f"{self.files.path}: DALI cannot load what PIL can ({reason}): choose --loader plain"
                ) from error
        if self.latent:
            return images
        return images.permute(0, 3, 1, 2) if self.gpu else images.transpose(0, 3, 1, 2)

    def _build(self) -> Pipeline:
        pipeline = Pipeline(
            batch_size=CHUNK,
            num_threads=self.num_threads,
            device_id=self.device.index or 0 if self.gpu else None,
            prefetch_queue_depth=QUEUE,
        )
        with pipeline:
            data = fn.external_source(self._next, batch=True, no_copy=True, dtype=types.UINT8, ndim=1)
            if self.latent:
                images = fn.decoders.numpy(data)
                images = images.gpu() if self.gpu else images
            else:
                images = fn.decoders.image(
                    data,
                    device="mixed" if self.gpu else "cpu",
                    output_type=types.RGB if self.files.image_shape[0] == 3 else types.GRAY,
                    adjust_orientation=False,  # as PIL
                )
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline

    def _next(self) -> list[np.ndarray]:
        """The next chunk's files; StopIteration after the last."""
        chunk = [np.frombuffer(self._file(index), np.uint8) for index in next(self._chunks)]
        self._alive.append(chunk)
        return chunk

    def _file(self, index: int) -> memoryview | bytes:
        data = self.files.view(index)
        if not self.latent and data[PNG_HEADER] != self._header:
            with PIL.Image.open(io.BytesIO(data)) as image:
                mode, size = image.mode, image.size
            channels, height, width = self.files.image_shape
            if (mode, size) != (MODES[channels], (width, height)):
                raise ValueError(f"{self.files.names[index]!r} is a {mode} image of {size}")
        return data

    def _decoded(self) -> Iterator[tuple[slice, TensorCPU | TensorGPU]]:
        """Every chunk's place and images, which are overwritten when the next one is asked for."""
        first = 0
        while True:
            try:
                (chunk,) = self._pipeline.run()
            except StopIteration:
                self._pipeline.reset()
                return
            yield slice(first, first + len(chunk)), chunk.as_tensor()
            first += len(chunk)

    def _run(self, num_images: int) -> np.ndarray:
        images = np.empty((num_images, *self._stored_shape), self.files.dtype)
        for places, chunk in self._decoded():
            images[places] = chunk
        return images

    def _run_on_gpu(self, num_images: int) -> torch.Tensor:
        # A stream of its own: the copies then wait for no kernel of the training.
        with torch.cuda.stream(self._stream):
            dtype = torch.float32 if self.latent else torch.uint8
            images = torch.empty((num_images, *self._stored_shape), dtype=dtype, device=self.device)
            for places, chunk in self._decoded():
                images[places].copy_(torch.from_dlpack(chunk))
                self._stream.synchronize()  # SYNC: DALI writes into the chunk again
        images.record_stream(torch.cuda.current_stream(self.device))
        return images
