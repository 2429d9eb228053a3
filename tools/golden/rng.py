"""Random numbers of torch's CPU generator: raw words and fp32 normals.

From 16 numbers on torch fills blocks of 16, the last one drawn again where
the count is no multiple; below 16 it draws pairs and keeps the second number
for the next call. The sequences cross both ways. Where the machine has AVX2
torch's fill takes its vector path; metadata "cpu" says what these files were
written with. Of the largest draws every STRIDE-th number is stored, and of all
of them the sum of the magnitudes. Halves are numbers of their own, drawn with
11 bits.
"""

import common

import numpy as np
import torch

SEEDS = [0, 1, 42, 2**31 - 1, 2**32 - 1, 2**32 + 5, 2**64 - 1]
SIZES = [1, 2, 3, 15, 16, 17, 31, 32, 33, 100]
LARGE = 4 * 16 * 16
MILLION, STRIDE = 1_000_000, 997
HALF_SIZES = [1, 15, 16, 17, 33, 100, LARGE]
SEQUENCES = [
    [1, 1, 1, 1],
    [3, 16, 2, 17, 1],
    [15, 15, 15],
    [16, 1, 16, 1],
    [7, 33, 100, 2, 31, 5],
]
WORDS = 700  # past the first renewal of the 624 words


def torch_generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


def raw_words(seed):
    """MT19937's words, and a check that torch's generator gives the same."""
    words = np.random.RandomState(seed % 2**32)._bit_generator.random_raw(WORDS)
    seen = torch.empty(WORDS, dtype=torch.int32).random_(generator=torch_generator(seed))
    if not np.array_equal(words % 2**31, seen.numpy()):
        raise SystemExit(f"rng.py: torch's words differ from MT19937's at seed {seed}")
    return torch.from_numpy(words.astype(np.int64))


def main():
    tensors = {"words.42": raw_words(42), "words.0": raw_words(0)[:16]}
    for seed in SEEDS:
        for n in SIZES + ([LARGE] if seed == 42 else []):
            tensors[f"randn.{seed}.{n}"] = torch.randn(n, generator=torch_generator(seed))
    for seed in SEEDS[:3]:
        for n in HALF_SIZES:
            draw = torch.randn(n, generator=torch_generator(seed), dtype=torch.float16)
            tensors[f"randn_half.{seed}.{n}"] = draw
    for name, dtype in (("million", torch.float32), ("million_half", torch.float16)):
        draw = torch.randn(MILLION, generator=torch_generator(11), dtype=dtype)
        tensors[name] = draw[::STRIDE].clone()
        tensors[f"{name}.sum"] = draw.double().abs().sum()[None]
    for i, sizes in enumerate(SEQUENCES):
        g = torch_generator(1000 + i)
        tensors[f"sequence.{1000 + i}"] = torch.cat([torch.randn(n, generator=g) for n in sizes])
    sizes = {str(1000 + i): s for i, s in enumerate(SEQUENCES)}
    cpu = torch.backends.cpu.get_cpu_capability()
    common.save("rng_torch.safetensors", tensors, sequences=sizes, cpu=cpu)


if __name__ == "__main__":
    main()
