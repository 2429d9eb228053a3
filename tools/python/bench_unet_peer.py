#!/usr/bin/env python3
"""PyTorch's time for the UNet that bench_pipeline times: diffusers' UNet2DConditionModel of Stable Diffusion 1.5's sizes.

fp16, channels last, 64 x 64 latents, 77 tokens, random weights; medians in milliseconds, eager and as a CUDA graph, for
batches of 1 and 2, as one JSON object. --compile adds torch.compile (about a minute to warm up). Needs torch, diffusers
and a GPU. Exit 77 where one is missing.
"""
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
try:
    import diffusers
    import torch
except ImportError as e:
    print("SKIP bench_unet_peer: %s" % e)
    sys.exit(77)
if not torch.cuda.is_available():
    print("SKIP bench_unet_peer: no CUDA device")
    sys.exit(77)
import random_model  # noqa: E402


def median(run, n):
    times = []
    for _ in range(n):
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(times), 3)


def graph_of(model, inputs):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(*inputs)
    return graph


@torch.no_grad()
def main():
    torch.manual_seed(0)
    config = {k: v for k, v in random_model.CONFIGS["unet"].items() if not k.startswith("_")}
    model = diffusers.UNet2DConditionModel(**config).half().cuda().eval().to(memory_format=torch.channels_last)
    out = {"torch": torch.__version__, "diffusers": diffusers.__version__, "device": torch.cuda.get_device_name()}
    for batch in (1, 2):
        x = torch.randn(batch, 4, 64, 64, device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
        t = torch.full((batch,), 500.0, device="cuda")
        states = torch.randn(batch, 77, 768, device="cuda", dtype=torch.float16)
        graph = graph_of(model, (x, t, states))
        out["eager%d_ms" % batch] = median(lambda: model(x, t, states), 10)
        out["graph%d_ms" % batch] = median(graph.replay, 50)
    if "--compile" in sys.argv[1:]:
        fast = torch.compile(model, mode="max-autotune-no-cudagraphs", fullgraph=True)
        graph = graph_of(fast, (x, t, states))
        out["compile2_ms"] = median(graph.replay, 50)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
