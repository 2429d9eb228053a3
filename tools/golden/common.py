"""What every script here shares: folders, seeds, threads, weights, writing files."""

import json
import logging
import os
import struct
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import numpy as np
import torch

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

# Sums are ordered by the thread that makes them, so the count is fixed.
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)

REPO = Path(__file__).resolve().parent.parent.parent
OUT = Path(os.environ.get("ATTNPLUG_GOLDEN_OUT", REPO / "tests" / "golden"))
MODELS = OUT / "models"
DEMO = REPO / "host-stub" / "models" / "emoji-128"

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


def model_folder(name):
    """The folder of a model by the name that the files carry."""
    return DEMO if name == "emoji-128" else MODELS / name


def generator(seed):
    """NumPy's PCG64: its stream is promised never to change."""
    return np.random.default_rng(seed)


def normal(rng, *shape, outliers=True):
    """Normal numbers, one in a hundred of them eight times as large."""
    x = rng.standard_normal(shape, dtype=np.float32)
    if outliers:
        x = np.where(rng.random(shape) < 0.01, 8 * x, x)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def randomise(module, seed, half=True):
    """Weights that keep every path alive: norms away from one, biases from zero.

    Matrices are scaled by their fan-in, so that activations neither vanish
    nor explode. With half, each value is one that fp16 can hold.
    """
    rng = generator(seed)
    for name, p in sorted(module.named_parameters()):
        x = rng.standard_normal(p.shape, dtype=np.float32)
        if p.ndim == 1 and name.endswith("weight"):
            x = 1 + 0.2 * x
        elif p.ndim == 1:
            x = 0.1 * x
        elif "embedding" in name.rpartition(".")[0].rpartition(".")[2]:
            x = 0.5 * x
        else:
            x = x / np.sqrt(np.prod(p.shape[1:]))
        x = torch.from_numpy(np.asarray(x, dtype=np.float32))
        p.copy_(x.half().float() if half else x)
    return module.eval()


def save(path, tensors, **metadata):
    """Write a .safetensors file whose bytes depend on its contents alone.

    Metadata values that are not strings are stored as JSON.
    """
    path = Path(path)
    path = path if path.is_absolute() else OUT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {}
    if metadata:
        header["__metadata__"] = {
            k: v if isinstance(v, str) else json.dumps(v, sort_keys=True)
            for k, v in sorted(metadata.items())
        }
    blobs, at = [], 0
    # The widest first keeps every tensor aligned to its own size.
    for name in sorted(tensors, key=lambda n: (-as_tensor(tensors[n]).element_size(), n)):
        t = as_tensor(tensors[name])
        blob = t.flatten().view(torch.uint8).numpy().tobytes() if t.numel() else b""
        header[name] = {
            "dtype": _DTYPES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [at, at + len(blob)],
        }
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    print(f"{path.relative_to(OUT)}  {path.stat().st_size:,} bytes", file=sys.stderr)


def as_tensor(x):
    x = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(x))
    return x.detach().cpu().contiguous()
