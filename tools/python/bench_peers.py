#!/usr/bin/env python3
"""Times op plugins beside PyTorch's attention backends on an NVIDIA GPU, in one process and on the same memory.

    python3 bench_peers.py [--rows main|fp32|band] [--json FILE] [--between other|inputs] [--shape B,H,Nq,Nk,D[,dtype[,layout]]]... PLUGIN.so ...

Each call is checked against float64 before it is timed. Times are medians of CUDA graph replays (a graph holds many
calls that rotate over buffers larger than the L2 cache), ours and the peers' in alternating rounds. `ratio` is the
fastest peer's time over ours. Peers: cuDNN, FlashAttention-2, memory-efficient and math through
torch.nn.attention.sdpa_kernel, for fp32 without TF32. For key_mass the peer stores the map: softmax of baddbmm, bmm, mean and sum.

--between puts a kernel of PyTorch's before each call, ours and the peers' alike: `other` works on memory of its own,
`inputs` writes q, k and v anew, as the projections of a model do just before. Times are then those of both kernels
less those of the kernels between alone.
"""
import argparse
import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from attn_ctypes import Op, Refused

DEV = "cuda"
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
            "mem_efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
BOUND = {"fp16": 1e-3, "bf16": 8e-3, "fp32": 2e-6}
# B, H, Nq, Nk, D, dtype, layout, key_mass[, causal]
SHAPES = [
    (2, 8, 4096, 4096, 40, "fp16", "bhnd", 0), (2, 8, 4096, 4096, 40, "fp16", "bnhd", 0),
    (2, 8, 4096, 4096, 40, "bf16", "bhnd", 0), (2, 8, 16384, 16384, 40, "fp16", "bhnd", 0),
    (2, 8, 1024, 1024, 80, "fp16", "bhnd", 0), (2, 8, 1024, 1024, 80, "fp16", "bnhd", 0),
    (2, 8, 256, 256, 160, "fp16", "bhnd", 0), (2, 8, 256, 256, 160, "fp16", "bnhd", 0),
    (2, 8, 4096, 77, 40, "fp16", "bhnd", 0), (2, 8, 4096, 77, 40, "fp16", "bnhd", 0),
    (2, 8, 1024, 77, 80, "fp16", "bhnd", 0), (2, 8, 256, 77, 160, "fp16", "bhnd", 0),
    (2, 10, 4096, 4096, 64, "fp16", "bhnd", 0), (2, 20, 1024, 1024, 64, "fp16", "bhnd", 0),
    (32, 8, 128, 128, 64, "bf16", "bhnd", 0), (1, 24, 4608, 4608, 128, "fp16", "bhnd", 0),
    (2, 8, 1024, 1024, 160, "fp16", "bhnd", 0), (1, 1, 4096, 4096, 512, "fp16", "bhnd", 0),
    (2, 8, 64, 64, 160, "fp16", "bhnd", 1), (2, 8, 256, 256, 160, "fp16", "bhnd", 1),
    (2, 8, 4096, 4096, 40, "fp16", "bhnd", 1),
]
FP32 = [s[:5] + ("fp32",) + s[6:] for s in SHAPES if s[3] != 16384 and s[5] == "fp16" and s[6] == "bhnd"]
FP32 += [(32, 8, 128, 128, 64, "fp32", "bhnd", 0), (1, 2, 2048, 2048, 256, "fp32", "bhnd", 0)]
BAND = [(2, 16, n, n, d, dtype, "bhnd", 0, 1) for dtype in ("fp16", "bf16") for n in (4096, 1024) for d in (64, 128)]
BAND += [(1, 24, 4608, 4608, 128, "fp16", "bhnd", 0, 1)] + [(2, 8, 4096, 4096, d, "fp16", "bhnd", 0, 1) for d in (40, 80, 160)]
ROWS = {"main": SHAPES, "fp32": FP32, "band": BAND}


def tensors(shape, dtype, layout):
    b, h, n, d = shape
    if layout == "bnhd":
        return torch.randn((b, n, h, d), device=DEV).to(dtype).transpose(1, 2)
    return torch.randn(shape, device=DEV).to(dtype)


def capture(calls):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for c in calls[:2]:
            c()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for c in calls:
            c()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def replay(graph, calls):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def median(values):
    return sorted(values)[len(values) // 2]


def stored_map(q, k, v):
    b, h, n, d = q.shape
    s = torch.baddbmm(torch.empty(1, device=DEV, dtype=q.dtype).expand(b * h, n, k.shape[2]),
                      q.reshape(b * h, n, d), k.reshape(b * h, -1, d).transpose(1, 2), beta=0, alpha=d ** -0.5)
    p = torch.softmax(s, -1)
    return torch.bmm(p, v.reshape(b * h, -1, d)), p.reshape(b, h, n, -1).mean(1).sum(1)


CAUSAL = (-2 ** 63, 0)


def verify(op, shape, dtype, layout, mass, causal):
    """Relative L2 of 256 rows of each head, spread over all (of every row for key_mass), against float64; NaN where a
    value was not written."""
    b, h, nq, nk, d = shape
    q, k, v = tensors((b, h, nq, d), dtype, layout), tensors((b, h, nk, d), dtype, layout), tensors((b, h, nk, d), dtype, layout)
    out = torch.full_like(q, float("nan"))
    sums = torch.full((b, nk), float("nan"), device=DEV) if mass else None
    c = op.call(q, k, v, out, key_mass=sums, band=CAUSAL if causal else None)
    plan, need = op.prepare(c)
    scratch = torch.full((max(need // 4, 1),), float("nan"), device=DEV)
    op.run(plan, c, torch.cuda.current_stream().cuda_stream, scratch)
    torch.cuda.synchronize()
    op.release(plan)
    error, norm, columns = 0.0, 0.0, torch.zeros((b, nk), dtype=torch.float64, device=DEV)
    rows = torch.linspace(0, nq - 1, nq if mass else min(nq, 256), device=DEV, dtype=torch.float64).round().long()
    for i in range(b):
        for j in range(h):
            s = q[i, j, rows].double() @ k[i, j].double().T * d ** -0.5
            if causal:
                s = s.masked_fill(torch.arange(nk, device=DEV)[None] > rows[:, None], float("-inf"))
            p = torch.softmax(s, -1)
            want = p @ v[i, j].double()
            error += (out[i, j, rows].double() - want).pow(2).sum().item()
            norm += want.pow(2).sum().item()
            columns[i] += p.sum(0) / h
    e = math.nan if out.isnan().any() else math.sqrt(error / norm)
    if mass:
        e = max(e, ((sums.double() - columns).norm() / columns.norm()).item())
    return e


def with_between(kind, data):
    """Per set of inputs, the kernel to run before each call."""
    if kind is None:
        return None
    if kind == "other":
        own = torch.ones(1 << 20, device=DEV)
        return [lambda: own.mul_(1.0)] * len(data)
    return [lambda x=x: torch._foreach_mul_(x, 1.0) for x in data]


def bench(ops, shape, dtype_name, layout, mass, causal, rounds, between=None):
    b, h, nq, nk, d = shape
    dtype = DTYPES[dtype_name]
    size = 2 if dtype != torch.float32 else 4
    sets = max(2, min(64, math.ceil(150e6 / (size * d * b * h * 2 * (nq + nk)))))
    flop = (2.0 if causal else 4.0) * b * h * nq * nk * d
    n = max(sets, min(400, int(2e12 / flop) + 1))  # a graph's own start takes 10 us
    data = [[tensors((b, h, nq, d), dtype, layout), tensors((b, h, nk, d), dtype, layout), tensors((b, h, nk, d), dtype, layout)] for _ in range(sets)]
    graphs, errors, keep = {}, {}, []
    before = with_between(between, data)

    def record(call):
        """A graph of n times `call`, which takes the set of inputs to use."""
        calls = []
        for i in range(n):
            if before:
                calls.append(before[i % sets])
            if call:
                calls.append(lambda j=i % sets: call(j))
        return capture(calls)

    if mass:
        with torch.no_grad():
            graphs["stored map"] = record(lambda j: stored_map(*data[j]))
    for name, backend in ({} if mass else BACKENDS).items():
        if name == "math" and flop > 5e9 and d <= 256:
            continue  # far behind, and its score matrix large
        try:
            with sdpa_kernel(backend), torch.no_grad():
                graphs[name] = record(lambda j: F.scaled_dot_product_attention(*data[j], is_causal=bool(causal)))
        except RuntimeError:
            torch.cuda.synchronize()  # this backend refuses the shape
    peers = list(graphs)
    for name, op in ops.items():
        calls = []
        try:
            errors[name] = verify(op, shape, dtype, layout, mass, causal)
            for i in range(sets):
                out = torch.empty_like(data[i][0])
                sums = torch.empty((b, nk), device=DEV) if mass else None
                c = op.call(*data[i], out, key_mass=sums, band=CAUSAL if causal else None)
                plan, need = op.prepare(c)
                scratch = torch.empty(max(need, 1), dtype=torch.uint8, device=DEV)
                keep.append((out, sums, c, plan, scratch))
                calls.append(lambda o=op, x=keep[-1]: o.run(x[3], x[2], torch.cuda.current_stream().cuda_stream, x[4]))
        except Refused as e:
            print("%s refuses %s: %s" % (name, shape, e.args[1]), file=sys.stderr)
            continue
        if not errors[name] <= BOUND[dtype_name]:
            print("%s is wrong at %s: %.2e" % (name, shape, errors[name]), file=sys.stderr)
            continue
        graphs[name] = record(lambda j, c=calls: c[j]())
    if before:
        graphs["between"] = record(None)
    times = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, graph in graphs.items():
            times[name].append(replay(graph, n))
    times = {name: median(t) for name, t in times.items()}
    alone = times.pop("between", 0.0)
    times = {name: t - alone for name, t in times.items()}
    best = min(peers, key=lambda p: times[p]) if peers else None
    rows = []
    for name in times:
        row = {"op": name, "shape": list(shape), "dtype": dtype_name, "layout": layout, "key_mass": bool(mass),
               "median_ms": round(times[name], 6), "tflops": round(flop / times[name] * 1e-9, 1)}
        if causal:
            row.update(causal=True)
        if before:
            row.update(between=between, between_ms=round(alone, 6))
        if name in ops:
            row.update(peer=best, ratio=round(times[best] / times[name], 3) if best else None, error=errors[name])
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", choices=list(ROWS), default="main")
    parser.add_argument("--between", choices=("other", "inputs"))
    parser.add_argument("--shape", action="append", help="B,H,Nq,Nk,D[,dtype[,layout[,key_mass[,causal]]]]")
    parser.add_argument("plugins", nargs="+")
    args = parser.parse_args()
    torch.manual_seed(1)
    ops = {os.path.basename(p)[:-3]: Op(os.path.abspath(p)) for p in args.plugins}
    shapes = ROWS[args.rows]
    if args.shape:
        shapes = []
        for text in args.shape:
            part = text.split(",")
            part += ["fp16", "bhnd", "0", "0"][len(part) - 5:]
            shapes.append(tuple(int(x) for x in part[:5]) + (part[5], part[6], int(part[7]), int(part[8])))
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    versions.update({name: op.api.head.version.decode() for name, op in ops.items()})
    result = {"command": "python3 " + " ".join(["tools/python/bench_peers.py"] + [os.path.basename(a) if os.path.isabs(a) else a for a in sys.argv[1:]]),
              "device": torch.cuda.get_device_name(0), "versions": versions, "rows": []}
    for s in shapes:
        rows = bench(ops, s[:5], s[5], s[6], s[7], len(s) > 8 and s[8], args.rounds, args.between)
        result["rows"] += rows
        for r in rows:
            print("%-14s %-26s %s %s %s %9.2f us %6.1f TF%s" % (r["op"], s[:5], s[5], s[6], "key_mass" if s[7] else "causal" if r.get("causal") else "", r["median_ms"] * 1e3, r["tflops"],
                  "  %.2f x %s, error %.1e" % (r["ratio"], r["peer"], r["error"]) if r.get("ratio") else ""), flush=True)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
