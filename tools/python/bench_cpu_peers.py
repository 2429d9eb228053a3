#!/usr/bin/env python3
"""memory_efficient against PyTorch's scaled_dot_product_attention on the CPU, in one process.

    python tools/python/bench_cpu_peers.py --build build --out plugins/ops/memory_efficient/bench.json

Each round runs PyTorch and then every variant of the plugin once, so that what
else the machine does falls on all of them; the ratio is the median of the
rounds' own ratios. Outputs are compared with PyTorch in float64 first.
Needs PyTorch (any wheel for the CPU) and a build of this repository.
"""

import argparse
import ctypes as c
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = [
    (2, 8, 4096, 4096, 40),
    (2, 8, 1024, 1024, 80),
    (2, 8, 256, 256, 160),
    (2, 8, 4096, 77, 40),
    (2, 10, 4096, 4096, 64),
    (1, 1, 4096, 4096, 512),
]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BOUNDS = {"f32": 2e-6, "f16": 1e-3, "bf16": 8e-3}
BAND = 1


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p), ("shape", c.c_int64 * 4), ("stride", c.c_int64 * 4),
        ("device_type", c.c_int32), ("device_id", c.c_int32), ("code", c.c_uint8),
        ("bits", c.c_uint8), ("lanes", c.c_uint16), ("rank", c.c_uint32),
        ("align", c.c_uint32), ("reserved", c.c_uint32),
    ]

    @classmethod
    def of(cls, t):
        """A view of a torch tensor; absent for None."""
        view = cls()
        if t is not None:
            view.data, view.rank, view.lanes = t.data_ptr(), t.dim(), 1
            view.shape[: t.dim()] = t.shape
            view.stride[: t.dim()] = t.stride()
            view.device_type, view.bits = 1, t.element_size() * 8
            view.code = {torch.bfloat16: 4, torch.uint8: 1, torch.bool: 1}.get(t.dtype, 2)
        return view


class Call(c.Structure):
    _fields_ = [
        ("size", c.c_uint32), ("flags", c.c_uint32), ("q", Tensor), ("k", Tensor),
        ("v", Tensor), ("out", Tensor), ("bias", Tensor), ("mask", Tensor), ("lse", Tensor),
        ("key_mass", Tensor), ("probs", Tensor), ("band_lo", c.c_int64),
        ("band_hi", c.c_int64), ("scale", c.c_float), ("reserved", c.c_uint32),
        ("stream", c.c_void_p), ("scratch", c.c_void_p), ("scratch_bytes", c.c_uint64),
        ("ext", c.c_void_p),
    ]


class Error(c.Structure):
    _fields_ = [
        ("size", c.c_uint32), ("capacity", c.c_uint32), ("text", c.c_char_p),
        ("vendor_code", c.c_int64),
    ]


class Device(c.Structure):
    _fields_ = [("type", c.c_int32), ("id", c.c_int32), ("runtime", c.c_char * 24)]


P = c.c_void_p
STATUS = c.c_int32


class Api(c.Structure):
    _fields_ = [
        ("magic", c.c_uint32), ("abi", c.c_uint32), ("size", c.c_uint32),
        ("flags", c.c_uint32), ("devices", c.c_uint64), ("dtypes", c.c_uint64),
        ("id", c.c_char * 64), ("version", c.c_char * 16), ("vendor", c.c_char * 32),
        ("summary", c.c_char * 96),
        ("create", c.CFUNCTYPE(STATUS, P, P, P, c.c_uint32, P, P)),
        ("destroy", c.CFUNCTYPE(None, P)),
        ("supports", c.CFUNCTYPE(STATUS, P, P, P)),
        ("prepare", c.CFUNCTYPE(STATUS, P, P, P, P, P)),
        ("run", c.CFUNCTYPE(STATUS, P, P, P)),
        ("release", c.CFUNCTYPE(None, P)),
        ("query", P),
    ]


def error():
    text = c.create_string_buffer(256)
    return Error(c.sizeof(Error), 256, c.cast(text, c.c_char_p), 0), text


def checked(status, text):
    if status != 0:
        sys.exit(f"status {status}: {text.value.decode()}")


class Plugin:
    """memory_efficient with one kind of kernels; `cpu` as in ATTNPLUG_CPU, "" for its own choice."""

    def __init__(self, path, host, cpu):
        # The plugin reads the environment when an op is created.
        os.environ["ATTNPLUG_CPU"] = cpu
        self.api = Api.in_dll(c.CDLL(path), "attn_op_v1")
        self.op = P()
        err, text = error()
        device = Device(1, 0, b"cpu")
        self.status = self.api.create(host, c.byref(device), None, 0, c.byref(self.op), c.byref(err))
        self.text = text.value.decode()

    def bind(self, q, k, v, out, **extra):
        """Prepares a call and returns a function that runs it, and the scratch it takes."""
        call = Call(size=c.sizeof(Call), q=Tensor.of(q), k=Tensor.of(k), v=Tensor.of(v),
                    out=Tensor.of(out))
        for name in ("bias", "mask", "lse", "key_mass"):
            setattr(call, name, Tensor.of(extra.get(name)))
        if "band" in extra:
            call.flags, (call.band_lo, call.band_hi) = BAND, extra["band"]
        plan, scratch, (err, text) = P(), c.c_uint64(), error()
        checked(self.api.prepare(self.op, c.byref(call), c.byref(plan), c.byref(scratch),
                                 c.byref(err)), text)
        room = torch.empty(scratch.value + 256, dtype=torch.uint8)
        call.scratch = (room.data_ptr() + 255) // 256 * 256
        call.scratch_bytes = scratch.value
        keep = (room, q, k, v, out, extra)

        def run(call=call, plan=plan, keep=keep):
            checked(self.api.run(plan, c.byref(call), c.byref(err)), text)

        return run, scratch.value


def inputs(shape, dtype):
    """Normal with 1 % outliers of 8 times."""
    torch.manual_seed(7)
    b, h, nq, nk, d = shape

    def normal(n):
        t = torch.randn(b, h, n, d)
        return torch.where(torch.rand_like(t) < 0.01, 8 * t, t).to(dtype)

    q, k, v = normal(nq), normal(nk), normal(nk)
    return q, k, v, torch.full_like(q, math.nan)


def distance(out, q, k, v, rows=32):
    """Relative L2 to float64, of some rows of every head."""
    q, k, v = (t.double() for t in (q[:, :, -rows:], k, v))
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
    expected = weights @ v
    return float((out[:, :, -rows:].double() - expected).norm() / expected.norm())


def interleave(functions, seconds, least=9, most=60):
    """Times of each, in ms, from rounds in which each runs once."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    begin, order = time.perf_counter(), list(functions.items())
    while len(next(iter(times.values()))) < most:
        order.append(order.pop(0))  # another one begins; who follows whom stays
        for name, function in order:
            # Let the other side's threads, which wait by spinning, go to sleep.
            time.sleep(0.003)
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
        if time.perf_counter() - begin > seconds and len(times[name]) >= least:
            break
    return times


def summary(times):
    ordered = sorted(times)
    n = len(ordered)
    return {"median_ms": round(statistics.median(ordered), 4), "min_ms": round(ordered[0], 4),
            "p10_ms": round(ordered[n // 10], 4), "p90_ms": round(ordered[n - 1 - n // 10], 4),
            "runs": n}


def ratio(over, under):
    return round(statistics.median(a / b for a, b in zip(over, under)), 3)


def bench_shape(shape, dtype, plugins, seconds):
    q, k, v, out = inputs(shape, DTYPES[dtype])
    b, h, nq, nk, d = shape
    functions = {"pytorch": lambda: F.scaled_dot_product_attention(q, k, v)}
    row = {"shape": list(shape), "dtype": dtype, "variants": {}}
    for name, plugin in plugins.items():
        functions[name], scratch = plugin.bind(q, k, v, out)
        functions[name]()
        off = distance(out, q, k, v)
        if not off <= BOUNDS[dtype]:
            sys.exit(f"{name} {shape} {dtype}: off by {off}")
        row["variants"][name] = {"off": float(f"{off:.2g}"), "scratch_bytes": scratch}
    lse, mass = torch.empty(b, h, nq), torch.empty(b, nk)
    functions["key_mass"], _ = plugins["auto"].bind(q, k, v, out, lse=lse, key_mass=mass)
    times = interleave(functions, seconds)
    row["pytorch"] = summary(times["pytorch"])
    row["key_mass_ratio"] = ratio(times["key_mass"], times["auto"])
    for name in plugins:
        entry = summary(times[name])
        entry["gflops"] = round(4e-6 * b * h * nq * nk * d / entry["median_ms"], 1)
        entry["faster"] = ratio(times["pytorch"], times[name])
        row["variants"][name].update(entry)
    return row


def bench_options(plugin, seconds):
    """What bias, mask, band and shared key heads cost at the second shape."""
    shape = SHAPES[1]
    b, h, nq, nk, _ = shape
    q, k, v, out = inputs(shape, torch.float32)
    mask = (torch.rand(b, h, nq, nk) < 0.9).to(torch.uint8)
    bias = torch.randn(b, h, nq, nk)
    grouped = k[:, :2].contiguous(), v[:, :2].contiguous()
    lowest = -(2**63)
    functions = {
        "plain": plugin.bind(q, k, v, out)[0],
        "bias": plugin.bind(q, k, v, out, bias=bias)[0],
        "bias_of_all_heads": plugin.bind(
            q, k, v, out, bias=bias[:1, :1].expand(b, h, nq, nk))[0],
        "bias_of_keys": plugin.bind(q, k, v, out, bias=bias[:, :1, :1].expand(b, h, nq, nk))[0],
        "mask": plugin.bind(q, k, v, out, mask=mask)[0],
        "mask_of_all_heads": plugin.bind(
            q, k, v, out, mask=mask[:1, :1].expand(b, h, nq, nk))[0],
        "causal": plugin.bind(q, k, v, out, band=(lowest, 0))[0],
        "window_256": plugin.bind(q, k, v, out, band=(-128, 127))[0],
        "gqa_4": plugin.bind(q, *grouped, out)[0],
    }
    times = interleave(functions, seconds, most=200)
    return {name: ratio(times[name], times["plain"]) for name in functions if name != "plain"}


def cpu_name():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*:\s*(.*)", f.read())
    return found.group(1) if found else platform.processor()


def peaks(build):
    """GFLOP/s of multiply-adds in registers: the best of several, since the machine is shared."""
    found = [peaks_once(build) for _ in range(4)]
    return {name: max(f[name] for f in found) for name in found[0]}


def peaks_once(build):
    out = subprocess.run([f"{build}/tests/ops/test_ops", f"{build}/attnplug/v1", ".", "--bench",
                          "--peak"], capture_output=True, text=True, check=True).stdout
    return {line.split()[1]: float(line.split()[3]) for line in out.splitlines()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8, help="for each shape and type")
    parser.add_argument("--variants", default="auto,amx,avx512,avx2")
    parser.add_argument("--dtypes", default="f32,f16,bf16")
    parser.add_argument("--only-options", action="store_true", help="bias, mask, band alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    library = c.CDLL(f"{options.build}/libattnplug.so")
    library.attn_pool_host.restype = P
    pool = P()
    checked(library.attn_pool_open(options.threads, c.byref(pool), None), c.create_string_buffer(b"pool"))
    host = P(library.attn_pool_host(pool))
    plugins = {}
    for name in options.variants.split(","):
        plugin = Plugin(f"{options.build}/attnplug/v1/memory_efficient.so", host,
                        "" if name == "auto" else name)
        if plugin.status == 0:
            plugins[name] = plugin
        else:
            print(f"{name}: left out: {plugin.text}", file=sys.stderr)
    result = {
        "command": "python tools/python/bench_cpu_peers.py " + " ".join(sys.argv[1:]),
        "cpu": cpu_name(), "threads": options.threads, "system": platform.system(),
        "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
        "fma_peak_gflops": peaks(options.build), "rows": [],
    }
    for shape in SHAPES if not options.only_options else []:
        for dtype in options.dtypes.split(","):
            row = bench_shape(shape, dtype, plugins, options.seconds)
            result["rows"].append(row)
            best = row["variants"]["auto"]
            print(shape, dtype, "pytorch %.2f ms," % row["pytorch"]["median_ms"],
                  ", ".join("%s %.2f (%.2fx)" % (n, e["median_ms"], e["faster"])
                            for n, e in row["variants"].items()),
                  "key_mass %.2fx" % row["key_mass_ratio"], "off %.1e" % best["off"], flush=True)
    result["options_ratio"] = bench_options(plugins["auto"], options.seconds)
    print(result["options_ratio"])
    result["fma_peak_gflops_after"] = peaks(options.build)
    if options.out:
        with open(options.out, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
