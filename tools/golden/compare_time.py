"""Seconds and peak memory of diffusers' SAG pipeline, and of a command beside it.

    compare_time.py [--runs N] [--threads N] [--model DIR] [--pixels N]
                    [--steps N] [--cold] [-- COMMAND ARGUMENT...]

The demo model, 25 steps, 128 pixels, guidance 5, SAG 0.75, fp32, DDIM, or
what the options say. Each run of diffusers is a process of its own, taken in
turns with the COMMAND (for example attnplug sag with the same settings).
Printed are the medians, with the fastest and the slowest, of
  process   from start to exit, imports and loading included
  pipeline  the call alone, text to PIL picture, in a process that has made
            one picture before
  memory    the largest resident set of a process
--cold leaves out the pictures that only fill caches and warm the call: for a
model of full size, where one picture takes a minute.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent.parent / "host-stub" / "models" / "emoji-128"
SETTINGS = {
    "prompt": "red heart",
    "height": 128,
    "width": 128,
    "num_inference_steps": 25,
    "guidance_scale": 5.0,
    "sag_scale": 0.75,
}


def picture(threads, repeats, model, settings):
    """In a child: load, make a picture, then more of them on the clock."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from diffusers import StableDiffusionSAGPipeline

    torch.set_num_threads(threads)
    started = time.perf_counter()
    pipe = StableDiffusionSAGPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter() - started
    calls = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        pipe(**settings, generator=torch.Generator("cpu").manual_seed(0))
        calls.append(time.perf_counter() - started)
    print(json.dumps({"load": loaded, "first": calls[0], "later": calls[1:]}))


def run(command):
    """Seconds, peak resident MB and output of a process that must succeed."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"compare_time.py: exit {child.returncode} from {' '.join(command)}")
    return seconds, usage.ru_maxrss / 1024, output


def show(label, seconds):
    print(f"{label:28} {statistics.median(seconds):7.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default=str(DEMO))
    parser.add_argument("--pixels", type=int, default=SETTINGS["height"])
    parser.add_argument("--steps", type=int, default=SETTINGS["num_inference_steps"])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--child", type=int, metavar="REPEATS", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    if args.child is not None:
        sizes = {"height": args.pixels, "width": args.pixels, "num_inference_steps": args.steps}
        return picture(args.threads, args.child, args.model, {**SETTINGS, **sizes})
    own = [sys.executable, "-W", "ignore", __file__, "--threads", str(args.threads), "--model", args.model]
    own += ["--pixels", str(args.pixels), "--steps", str(args.steps), "--child"]
    diffusers, other = [], []
    if not args.cold:
        run([*own, "0"])  # fills the file cache
    for _ in range(args.runs):
        diffusers.append(run([*own, "0"]))
        if args.command:
            other.append(run(args.command))
    show("diffusers process", [seconds for seconds, _, _ in diffusers])
    firsts = [json.loads(output) for _, _, output in diffusers]
    show("  of it: loading the model", [first["load"] for first in firsts])
    show("  of it: the first picture", [first["first"] for first in firsts])
    if not args.cold:
        _, _, output = run([*own, str(args.runs)])
        show("diffusers pipeline, warm", json.loads(output)["later"])
    print(f"{'diffusers memory':28} {max(memory for _, memory, _ in diffusers):7.0f} MB")
    if other:
        show("command process", [seconds for seconds, _, _ in other])
        print(f"{'command memory':28} {max(memory for _, memory, _ in other):7.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
