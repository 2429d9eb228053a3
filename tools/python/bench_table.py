#!/usr/bin/env python3
"""Writes the table of a bench_peers.py JSON into a README, between its two marker lines:

    bench_table.py JSON README.md [MARK]

MARK is the word of those lines, 'bench' if none is given.
"""
import json
import sys

MARKS = "<!-- %s: begin -->", "<!-- %s: end -->"


def table(result):
    lines = ["`%s`, %s, %s" % (result["command"], result["device"],
                               ", ".join("%s %s" % x for x in result["versions"].items())), "",
             "| B, H, Nq x Nk, D | dtype, layout | us | TFLOP/s | fastest peer, us | ratio | error |", "|---|---|---|---|---|---|---|"]
    times = {}
    for r in result["rows"]:
        key = (tuple(r["shape"]), r["dtype"], r["layout"], r["key_mass"], r.get("causal"))
        times[key, r["op"]] = r["median_ms"] * 1e3
        if "ratio" not in r:
            continue
        b, h, nq, nk, d = r["shape"]
        lines.append("| %d, %d, %d x %d, %d%s | %s, %s | %.2f | %.0f | %s %.2f | %.2f | %.1e |" %
                     (b, h, nq, nk, d, ", `key_mass`" if r["key_mass"] else ", causal" if r.get("causal") else "", r["dtype"], r["layout"], r["median_ms"] * 1e3, r["tflops"],
                      r["peer"], times[key, r["peer"]], r["ratio"], r["error"]))
    return "\n".join(lines)


def main():
    with open(sys.argv[1]) as f:
        result = json.load(f)
    with open(sys.argv[2]) as f:
        text = f.read()
    begin, end = (m % (sys.argv[3] if len(sys.argv) > 3 else "bench") for m in MARKS)
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    with open(sys.argv[2], "w") as f:
        f.write(head + begin + "\n" + table(result) + "\n" + end + tail)


if __name__ == "__main__":
    main()
