"""Attention itself in float64: out, lse and key_mass for stored q, k and v.

softmax(scale Q K^T + bias) V over the keys that mask and band leave. Nothing
here is run through a library: this is the formula, in NumPy. A row that may
attend to nothing gives out 0, lse minus infinity and adds nothing to key_mass.
"""

import common

import numpy as np
import torch

# name: (dtype, B, H, Hkv, Nq, Nk, D, options)
CASES = {
    "basic": ("f32", 1, 2, 2, 29, 47, 40, {}),
    "one": ("f32", 1, 1, 1, 1, 1, 1, {}),
    "one_key": ("f32", 2, 1, 1, 5, 1, 3, {}),
    "one_query": ("f32", 1, 2, 2, 1, 67, 16, {}),
    "batch_d17": ("f32", 3, 2, 2, 13, 11, 17, {}),
    "d160": ("f32", 1, 1, 1, 7, 11, 160, {}),
    "many_keys": ("f32", 1, 1, 1, 3, 701, 8, {}),
    "many_queries": ("f32", 1, 1, 1, 301, 5, 8, {}),
    "sharp": ("f32", 1, 2, 2, 19, 23, 24, {"scale": 1.0}),
    "flat": ("f32", 1, 2, 2, 19, 23, 24, {"scale": 0.01}),
    "bias": ("f32", 2, 2, 2, 11, 13, 20, {"bias": (2, 2, 11, 13)}),
    "bias_heads": ("f32", 2, 3, 3, 7, 9, 8, {"bias": (1, 3, 7, 9)}),
    "bias_keys": ("f32", 2, 2, 2, 7, 31, 8, {"bias": (2, 1, 1, 31)}),
    "bias_huge": ("f32", 2, 2, 2, 7, 31, 8, {"bias": (2, 1, 1, 31), "bias_off": -10000.0}),
    "bias_infinite": ("f32", 2, 2, 2, 7, 31, 8, {"bias": (2, 2, 7, 31), "bias_off": -np.inf}),
    "mask": ("f32", 2, 2, 2, 12, 21, 16, {"mask": (2, 2, 12, 21), "empty_rows": True}),
    "mask_keys": ("f32", 3, 2, 2, 6, 21, 16, {"mask": (3, 1, 1, 21), "empty_rows": True}),
    "mask_queries": ("f32", 1, 2, 2, 9, 10, 8, {"mask": (1, 1, 9, 1)}),
    "causal": ("f32", 1, 2, 2, 33, 33, 12, {"causal": "top-left"}),
    "causal_top_left_wide": ("f32", 1, 1, 1, 9, 22, 8, {"causal": "top-left"}),
    "causal_top_left_tall": ("f32", 1, 1, 1, 22, 9, 8, {"causal": "top-left"}),
    "causal_bottom_right_wide": ("f32", 1, 1, 1, 9, 22, 8, {"causal": "bottom-right"}),
    "causal_bottom_right_tall": ("f32", 1, 1, 1, 22, 9, 8, {"causal": "bottom-right"}),
    "window": ("f32", 1, 2, 2, 35, 35, 8, {"window": (3, 2)}),
    "window_self": ("f32", 1, 1, 1, 8, 11, 8, {"window": (0, 0)}),
    "window_left": ("f32", 1, 1, 1, 30, 17, 8, {"window": (5, -1)}),
    "window_right": ("f32", 1, 1, 1, 17, 30, 8, {"window": (-1, 4)}),
    "window_causal": ("f32", 1, 2, 2, 19, 40, 8, {"window": (6, -1), "causal": "bottom-right"}),
    "gqa": ("f32", 2, 6, 2, 9, 14, 16, {}),
    "mqa_causal": ("f32", 1, 4, 1, 15, 15, 16, {"causal": "bottom-right"}),
    "everything": (
        "f32", 2, 4, 2, 13, 21, 20,
        {"bias": (1, 4, 13, 21), "mask": (2, 1, 13, 21), "window": (9, 5), "scale": 0.3,
         "causal": "bottom-right", "empty_rows": True},
    ),
    "f16": ("f16", 1, 2, 2, 19, 31, 40, {}),
    "f16_d64_gqa": ("f16", 1, 4, 2, 9, 22, 64, {"causal": "bottom-right"}),
    "f16_mask": ("f16", 2, 2, 2, 12, 21, 16, {"mask": (2, 1, 12, 21), "empty_rows": True}),
    "bf16": ("bf16", 1, 2, 2, 19, 31, 40, {}),
    "bf16_window_d80": ("bf16", 1, 1, 1, 33, 33, 80, {"window": (7, 7)}),
    "bf16_mask": ("bf16", 2, 2, 2, 12, 21, 16, {"mask": (2, 1, 12, 21), "empty_rows": True}),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def band(nq, nk, causal, window):
    """Which of the keys j a query i may see: lo <= j - i <= hi."""
    a = nk - nq if causal == "bottom-right" else 0
    left, right = window
    lo = -np.inf if left < 0 else a - left
    hi = np.inf if right < 0 else a + right
    if causal != "0":
        hi = min(hi, a)
    offset = np.arange(nk)[None, :] - np.arange(nq)[:, None]
    return (lo <= offset) & (offset <= hi)


def attention(q, k, v, scale=None, bias=None, allowed=None):
    """out, lse and key_mass, all float64; k and v may have fewer heads than q."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    probs = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + np.where(np.isfinite(top), top, 0))[..., 0]
    return probs @ v, lse, probs.mean(1).sum(1)


def write(name, seed):
    dtype, batch, heads, kv_heads, nq, nk, dim, options = CASES[name]
    rng = common.generator(seed)
    q = common.normal(rng, batch, heads, nq, dim).to(DTYPES[dtype])
    k = common.normal(rng, batch, kv_heads, nk, dim).to(DTYPES[dtype])
    v = common.normal(rng, batch, kv_heads, nk, dim).to(DTYPES[dtype])
    tensors, metadata = {"q": q, "k": k, "v": v}, {}
    causal, window = options.get("causal", "0"), options.get("window", (-1, -1))
    allowed = band(nq, nk, causal, window)
    bias = None
    if "bias" in options:
        bias = common.normal(rng, *options["bias"])
        if "bias_off" in options:
            off = torch.from_numpy(rng.random(options["bias"]) < 0.4)
            off[..., 0] = False  # minus infinity must leave each row a key
            bias[off] = options["bias_off"]
        tensors["bias"] = bias
        bias = bias.double().numpy()
    if "mask" in options:
        mask = rng.random(options["mask"]) < 0.7
        if options.get("empty_rows"):
            mask[-1, ..., -1, :] = False
        # Any non-zero byte lets a key be seen.
        values = rng.integers(1, 256, size=mask.shape, dtype=np.uint8)
        tensors["mask"] = torch.from_numpy(np.where(mask, values, 0).astype(np.uint8))
        allowed = allowed & mask
    for key in ("scale", "causal"):
        if key in options:
            metadata[key] = str(options[key])
    if "window" in options:
        metadata["window"] = "%d,%d" % window
    out, lse, key_mass = attention(
        *(t.double().numpy() for t in (q, k, v)), options.get("scale"), bias, allowed
    )
    for key, value in {"out": out, "lse": lse, "key_mass": key_mass}.items():
        tensors[key] = torch.from_numpy(value).float()
    common.save(f"ops/attend_{name}.safetensors", tensors, **metadata)


def main():
    for i, name in enumerate(CASES):
        write(name, 200 + i)


if __name__ == "__main__":
    main()
