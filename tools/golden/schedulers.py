"""Schedulers: timesteps, noise levels and every step of a loop with given predictions.

One file a class, schedulers_<name>. For each case NAME of the metadata key
"cases" (its configuration, steps, eta, seed, shape, kind, init_noise_sigma) it
holds
  NAME.calls [C,4]   of each call of the model: the timestep, what the input is
                     divided by, and signal and spread of the noise level, NaN
                     where add_noise could not be asked
  NAME.x [C,...]     the sample after each call
  NAME.x64           likewise with everything computed in float64: in sweeps,
                     and where fp32 loses more than the bound (solvers that
                     divide small differences)
The sample before the first call, predictions and noise come from a generator
that tests/pipeline/test_scheduler.c has too, so they are not stored.

With --sweep N it writes N random configurations a class under --out instead:
  schedulers.py --sweep 40 --seed 1 --out DIR && test_scheduler DIR
"""

import argparse
import sys
from pathlib import Path

import common
from scheduler_cases import CASES, random_case

import diffusers
import numpy as np
import torch


class Numbers:
    """A congruential generator (Knuth's MMIX) of twelve-bit fractions."""

    def __init__(self, seed):
        self.state = seed

    def draw(self, shape):
        out = np.empty(int(np.prod(shape)), np.float32)
        for i in range(out.size):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            out[i] = ((self.state >> 52) - 2048) / 1024
        return torch.from_numpy(out.reshape(shape))


class Outputs:
    """Predictions: fresh ones each call, or a line with little on top.

    Every number is exact in fp32. Real models answer smoothly; where a run has
    many calls, fresh answers would be all that a difference of them sees.
    """

    def __init__(self, numbers, shape, kind):
        self.numbers, self.shape, self.kind, self.call = numbers, shape, kind, 0
        self.start, self.slope = numbers.draw(shape), numbers.draw(shape)

    def next(self):
        fresh = self.numbers.draw(self.shape)
        call, self.call = min(self.call, 64), self.call + 1
        return fresh if self.kind == "fresh" else self.start + self.slope * call / 64 + fresh / 32


def module_of(cls):
    return sys.modules[cls.__module__]


def widen(scheduler):
    """What the steps compute with, in float64."""
    for name in ("sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down", "alphas_cumprod",
                 "final_alpha_cumprod", "one"):
        value = getattr(scheduler, name, None)
        if isinstance(value, torch.Tensor):
            setattr(scheduler, name, value.double())


def make(cls, case, wide):
    scheduler = cls.from_config(dict(case["config"]))
    scheduler.set_timesteps(case["steps"])
    if wide:
        widen(scheduler)
    return scheduler


def levels(cls, case):
    """Timestep and noise level of each call, asked of a fresh scheduler."""
    scheduler = make(cls, case, False)
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    rows = []
    for i, t in enumerate(scheduler.timesteps):
        # KDPM2's add_noise does not know of the points between.
        known = (scheduler.timesteps == t).sum() == 1 and not (cls.__name__.startswith("KDPM2") and i % 2)
        level = [float("nan")] * 2
        if known:
            level = [float(scheduler.add_noise(a, b, t[None])) for a, b in ((one, zero), (zero, one))]
        rows.append([float(t), 0.0, *level])
    return rows, float(scheduler.init_noise_sigma)


def loop(cls, case, wide):
    """The sample after each call, and what each call's input was divided by."""
    torch.set_default_dtype(torch.float64 if wide else torch.float32)
    try:
        scheduler = make(cls, case, wide)
        numbers = Numbers(case["seed"])
        dtype = torch.float64 if wide else torch.float32
        x = numbers.draw(case["shape"]).to(dtype) * float(scheduler.init_noise_sigma)
        outputs = Outputs(numbers, case["shape"], case["kind"])
        samples, divisors = [], []
        for t in scheduler.timesteps:
            output, noise = outputs.next().to(dtype), numbers.draw(case["shape"]).to(dtype)
            module_of(cls).randn_tensor = lambda *a, noise=noise, **k: noise
            ones = torch.ones(1, 1, 1, 1)
            divisors.append(1 / float(scheduler.scale_model_input(ones, t)))
            extra = {"eta": case["eta"]} if cls.__name__ == "DDIMScheduler" else {}
            x = scheduler.step(output, t, x, **extra).prev_sample
            samples.append(x.float())
        return torch.stack(samples), divisors
    finally:
        torch.set_default_dtype(torch.float32)


def trace(cls, case, wide):
    rows, init = levels(cls, case)
    x, divisors = loop(cls, case, False)
    for row, divisor in zip(rows, divisors):
        row[1] = divisor
    case["init_noise_sigma"] = init
    tensors = {"calls": torch.tensor(rows, dtype=torch.float32), "x": x}
    if wide:
        tensors["x64"] = loop(cls, case, True)[0]
    return tensors


def write(path, name, cases, wide=False):
    cls = getattr(diffusers, name)
    tensors, described, failed = {}, {}, {}
    for key, case in cases.items():
        try:
            made = trace(cls, case, wide or case.get("wide"))
        except (ValueError, IndexError, RuntimeError, AssertionError, UnboundLocalError) as why:
            if not wide:
                raise SystemExit(f"schedulers.py: {name} {key}: {why}") from why
            failed[key] = str(why)[:60]
            continue
        if not all(torch.isfinite(t).all() for k, t in made.items() if k != "calls"):
            failed[key] = "not finite"
            continue
        tensors.update({f"{key}.{k}": t for k, t in made.items()})
        described[key] = case
    if failed:
        print(f"{name}: diffusers fails on {len(failed)} of {len(cases)}: "
              f"{sorted(set(failed.values()))}", file=sys.stderr)
    common.save(path, tensors, scheduler=name, cases=described)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=common.OUT)
    args = parser.parse_args()
    common.OUT = args.out.resolve()
    for number, (name, cases) in enumerate(CASES.items()):
        if args.sweep:
            rng = common.generator([args.seed, number])
            cases = {f"random_{i}": random_case(name, rng) for i in range(args.sweep)}
        short = name.removesuffix("Scheduler")
        write(f"schedulers_{short}.safetensors", name, cases, wide=args.sweep > 0)


if __name__ == "__main__":
    main()
