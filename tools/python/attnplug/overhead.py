#!/usr/bin/env python3
"""What attend() costs over the C call under it: the smallest attention there is (1, 1, 1 x 1, 8), best of 20 runs."""
import time

import torch

import attnplug
from attnplug._engine import thread


def best(call, turns=1000):
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(turns):
            call()
        times.append((time.perf_counter() - start) / turns)
    return 1e6 * min(times)


q, k, v = (torch.randn(1, 1, 1, 8) for _ in range(3))
whole = best(lambda: attnplug.attend(q, k, v))
out = torch.empty(1, 1, 1, 8)
attnplug.attend(q, k, v, out=out)  # the plan whose pointers stay good
plan = list(thread().plans.values())[-1]
alone = best(lambda: plan.run(plan.handle, plan.ref, None))
print("torch %s: attend() %.1f us, attn_plan_run through ctypes %.1f us, overhead %.1f us" %
      (torch.__version__, whole, alone, whole - alone))
