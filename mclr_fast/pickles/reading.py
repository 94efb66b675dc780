"""Read another program's pickled model: `read(path)`, then `tensor(path, node)` of what it holds."""

from __future__ import annotations

import atexit
import base64
import json
import math
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from mclr_fast.pickles.worker import main; main()"
ROOT = Path(__file__).parents[2]
TIMEOUT = 120.0  # seconds a file
MAX_ANSWER = 64 << 20  # bytes
PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what Python itself may need to start
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Worker:
    """The reading process (worker.py): started at the first file, kept, and replaced when it dies."""

    def __init__(self, timeout: float = TIMEOUT):
        self.timeout = timeout
        self.starts = 0
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def read(self, path: str | Path) -> Any:
        """What the file holds, as tree.py describes it.

        Errors    FileNotFoundError; ValueError naming what no saved model holds, or saying that the file is
                  damaged or that reading it went over a limit.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
        with self._lock:
            line = self._ask(json.dumps(str(path)))
        if line is None:
            raise ValueError(f"{path} is refused: reading it went over a limit of memory or time.")
        answer = json.loads(line)
        if "refused" in answer:
            refused = f"{path} is refused: {answer['refused']} None of it was run."
            if answer["refused"].startswith("it names"):
                refused += " If it is your own, save the network's state_dict() instead."
            raise ValueError(refused)
        return answer["holds"]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _ask(self, line: str) -> bytes | None:
        """The process's answer, a line; None when it died or is too slow, and then it is ended."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._answer(self._process.stdout.fileno())
        except OSError:
            answer = None
        if answer is None:
            self.close()
        return answer

    def _start(self) -> None:
        self.starts += 1
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", PROGRAM, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        )

    def _answer(self, descriptor: int) -> bytes | None:
        deadline, parts, size = time.monotonic() + self.timeout, [], 0
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while size < MAX_ANSWER and selector.select(max(0.0, deadline - time.monotonic())):
                part = os.read(descriptor, 1 << 20)
                if not part:
                    return None
                parts.append(part)
                size += len(part)
                if part.endswith(b"\n"):
                    return b"".join(parts)
        return None


_worker = Worker()
atexit.register(_worker.close)


def read(path: str | Path) -> Any:
    """`Worker.read` of this process's own worker."""
    return _worker.read(path)


def is_tensor(node: Any) -> bool:
    """Whether a node of what `read` gave is a tensor."""
    return isinstance(node, dict) and node.get("$") == "tensor"


def tensor(path: str | Path, node: dict[str, Any]) -> torch.Tensor:
    """Read one tensor, contiguous, in the file's dtype. ValueError when the file is shorter than it was."""
    dtype, shape = DTYPES[node["dtype"]], node["shape"]
    if math.prod(shape) * dtype.itemsize > node["nbytes"]:
        raise ValueError(f"{path} describes a tensor {shape} in {node['nbytes']} bytes.")
    data = _bytes(path, node)
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).as_strided(shape, node["stride"]).contiguous()


def _bytes(path: str | Path, node: dict[str, Any]) -> bytearray:
    if "data" in node:
        return bytearray(base64.b64decode(node["data"]))
    with open(path, "rb") as file:
        if node["start"] + node["nbytes"] > os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path} ends before its tensors do.")
        file.seek(node["start"])
        return bytearray(file.read(node["nbytes"]))
