#!/usr/bin/env python3
"""Writes the tables of plugins/ops/memory_efficient/README.md from bench.json and bench_options.json.

    python tools/python/bench_cpu_table.py plugins/ops/memory_efficient

What stands between the two marks is replaced.
"""

import json
import pathlib
import sys

BEGIN, END = "<!-- from bench.json -->", "<!-- end -->"


def shape_name(shape):
    b, h, nq, nk, d = shape
    return f"{b}, {h}, {nq} x {nk}, {d}"


def cell(entry):
    return f"{entry['median_ms']:.2f} ({entry['faster']:.2f}x)"


def tables(data, options):
    peak = max(*data["fma_peak_gflops"].values(), *data["fma_peak_gflops_after"].values())
    variants = [n for n in data["rows"][0]["variants"]]
    yield (f"Measured {data['date']} on {data['cpu']}, {data['threads']} threads, PyTorch "
           f"{data['torch']}, by `{data['command']}`. fp32 multiply-adds in registers reached "
           f"{peak:.0f} GFLOP/s in the same run, which AMX's tiles may exceed. Median milliseconds; in brackets how many times "
           "faster than PyTorch, as the median of the rounds' own ratios.")
    for dtype in dict.fromkeys(row["dtype"] for row in data["rows"]):
        yield ""
        yield (f"| {dtype}: B, H, Nq x Nk, D | PyTorch | " + " | ".join(variants)
               + " | GFLOP/s | of the peak | with key_mass | scratch | off |")
        yield "|---" * (len(variants) + 7) + "|"
        for row in (r for r in data["rows"] if r["dtype"] == dtype):
            auto = row["variants"]["auto"]
            yield (f"| {shape_name(row['shape'])} | {row['pytorch']['median_ms']:.2f} "
                   f"[{row['pytorch']['p10_ms']:.2f}, {row['pytorch']['p90_ms']:.2f}] | "
                   + " | ".join(cell(row["variants"][n]) for n in variants)
                   + f" | {auto['gflops']:.0f} | {100 * auto['gflops'] / peak:.0f} % "
                   f"| {row['key_mass_ratio']:.2f}x | {auto['scratch_bytes'] // 1024} KiB "
                   f"| {auto['off']:.1e} |")
    yield ""
    yield f"Options at 2, 8, 1024 x 1024, 80, fp32, against the plain call, by `{options['command']}`:"
    yield ""
    yield "| " + " | ".join(n.replace("_", " ") for n in options["options_ratio"]) + " |"
    yield "|---" * len(options["options_ratio"]) + "|"
    yield "| " + " | ".join(f"{v:.2f}x" for v in options["options_ratio"].values()) + " |"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    readme = folder / "README.md"
    text = readme.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    data, options = (json.loads((folder / name).read_text())
                     for name in ("bench.json", "bench_options.json"))
    body = "\n".join(tables(data, options))
    readme.write_text(text[:begin] + "\n" + body + "\n" + text[end:])


if __name__ == "__main__":
    main()
