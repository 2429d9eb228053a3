#!/usr/bin/env python3
"""Checks op plugins on an NVIDIA GPU against float64: python3 check_gpu.py [--quick | --lost] PLUGIN.so ...

Inputs are normal with 1 % outliers of 8 times; outputs and scratch are full of NaN before each run, each call runs
twice and must give the same bits. Bounds are relative L2: 2e-6 fp32, 1e-3 fp16, 8e-3 bf16. Needs torch.
--quick: one call for each family of kernels, short enough for compute-sanitizer.
--lost: only what a plugin says once its device has failed (in a process of its own; the full check starts it).
Exit 0: all right; 1: a check failed; 77: no device or no torch.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import torch
except ImportError:
    print("SKIP check_gpu: torch is not installed")
    sys.exit(77)
if not torch.cuda.is_available():
    print("SKIP check_gpu: no CUDA device")
    sys.exit(77)
from attn_ctypes import Op, Refused  # noqa: E402

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
BOUND = {F32: 2e-6, F16: 1e-3, BF16: 8e-3}
DEV = "cuda"
gen = torch.Generator(device=DEV)


def random(shape, dtype, layout="bhnd"):
    """[B, H, N, D] in one of several memory layouts."""
    b, h, n, d = shape
    if layout == "bnhd":
        x = torch.randn((b, n, h, d), device=DEV, generator=gen)
    elif layout == "packed":  # a slice of a fused QKV projection
        x = torch.randn((b, n, h, 3 * d), device=DEV, generator=gen)
    elif layout == "odd":  # rows at odd addresses
        x = torch.randn((b, h, n, d + 3), device=DEV, generator=gen)
    else:
        x = torch.randn((b, h, n, d), device=DEV, generator=gen)
    hot = torch.rand(x.shape, device=DEV, generator=gen) < 0.01
    x = torch.where(hot, x * 8, x).to(dtype)
    if layout == "bnhd":
        return x.transpose(1, 2)
    if layout == "packed":
        return x[..., d:2 * d].transpose(1, 2)
    if layout == "odd":
        return x[..., 1:1 + d]
    return x


def reference(q, k, v, bias, mask, band, scale):
    group = q.shape[1] // k.shape[1]
    k, v = (t.double().repeat_interleave(group, 1) for t in (k, v))
    s = q.double() @ k.transpose(2, 3) * scale
    if bias is not None:
        s = s + bias.double()
    seen = torch.ones(s.shape[2:], dtype=torch.bool, device=DEV)
    if band is not None:
        away = torch.arange(k.shape[2], device=DEV)[None] - torch.arange(q.shape[2], device=DEV)[:, None]
        seen = (away >= band[0]) & (away <= band[1])
    if mask is not None:
        seen = seen & (mask != 0)
    s = s.masked_fill(~seen, float("-inf"))
    lse = torch.logsumexp(s, -1)
    p = torch.exp(s - torch.where(torch.isinf(lse), torch.zeros_like(lse), lse)[..., None])
    return p @ v, lse, p.mean(1).sum(1), p


def distance(got, want):
    got, want = got.double(), want.double()
    if not torch.equal(torch.isinf(got), torch.isinf(want)):
        return float("inf")
    finite = ~torch.isinf(want)
    got, want = got[finite], want[finite]
    if want.numel() == 0:
        return 0.0
    return ((got - want).norm() / want.norm().clamp_min(1e-30)).item()


def poison(shape, dtype):
    return torch.full(shape, float("nan"), dtype=dtype, device=DEV)


def one(op, b, h, nq, nk, d, dtype, hkv=None, dv=None, layout="bhnd", bias=None, mask=None, band=None, wants=("lse",),
        grow=1.0, scale=0.0, wild=None):
    """None, or what is wrong. grow: later keys are so many times larger. wild: magnitudes far apart (WILD)."""
    gen.manual_seed(b * 7 + nq * 13 + nk * 17 + d)
    hkv, dv = hkv or h, dv or d
    q, k, v = random((b, h, nq, d), dtype, layout), random((b, hkv, nk, d), dtype, layout), random((b, hkv, nk, dv), dtype, layout)
    if grow != 1.0:
        k[:, :, nk // 2:] *= grow
    if bias is not None:
        bias = torch.randn([n if keep else 1 for n, keep in zip((b, h, nq, nk), bias[1])], device=DEV, generator=gen).to(bias[0]).expand(b, h, nq, nk)
    if mask is not None:
        full = (b, h, nq, nk)
        mask = (torch.rand([n if keep else 1 for n, keep in zip(full, mask)], device=DEV, generator=gen) < 0.7).to(torch.uint8)
        if mask.shape[2] > 1:
            mask[:, :, 1] = 0  # a row that sees nothing
        if wild == "garbage":
            mask[..., [j for j, _ in UNSEEN]] = 0
        mask = mask.expand(full)
    if wild:
        WILD[wild](q, k, v, mask)
    want = dict(zip(("out", "lse", "key_mass", "probs"), reference(q, k, v, bias, mask, band, scale or d ** -0.5)))
    runs = []
    for _ in range(2):
        out = poison((b, nq, h, dv), dtype).transpose(1, 2) if layout in ("bnhd", "packed") else poison((b, h, nq, dv + (3 if layout == "odd" else 0)), dtype)[..., :dv]
        extra = {"lse": poison((b, h, nq), F32), "key_mass": poison((b, nk), F32), "probs": poison((b, h, nq, nk), F32)}
        extra = {n: t for n, t in extra.items() if n in wants}
        c = op.call(q, k, v, out, bias, mask, band=band, scale=scale, **extra)
        status, why = op.supports(c)
        if status == 1:
            return "refused: " + why
        plan, need = op.prepare(c)
        scratch = poison((max(need // 4, 1),), F32)
        op.run(plan, c, torch.cuda.current_stream().cuda_stream, scratch)
        torch.cuda.synchronize()
        op.release(plan)
        runs.append(dict(out=out, **extra))
    wrong = []
    for name in runs[0]:
        e = distance(runs[0][name], want[name])
        if not e <= BOUND[dtype]:
            wrong.append("%s %.2e over %.0e" % (name, e, BOUND[dtype]))
        if not torch.equal(torch.nan_to_num(runs[0][name]), torch.nan_to_num(runs[1][name])):
            wrong.append("%s differs from run to run" % name)
    return "; ".join(wrong) or None


WILD = {
    "large": lambda q, k, v, mask: (q.mul_(1e-25), k.mul_(1e25), v.mul_(1e30)),
    "small": lambda q, k, v, mask: (q.mul_(1e12), k.mul_(1e-12), v.mul_(1e-20)),
    "rows": lambda q, k, v, mask: v[:, :, ::7].mul_(1e6),
    "columns": lambda q, k, v, mask: (v[..., 3].mul_(1e4), k[..., 1].mul_(1e-4)),
    "zeros": lambda q, k, v, mask: (v[:, :, 10:90].zero_(), k[:, :, 64:128].zero_(), q[:, :, 3].zero_()),
    "garbage": lambda q, k, v, mask: [(v[:, :, j].fill_(x), k[:, :, j].fill_(1e25)) for j, x in UNSEEN],
}
UNSEEN = ((5, 1e30), (100, 3e38), (101, 1e-30))


def cases():
    """(text, arguments of `one`)"""
    every = ("lse", "key_mass", "probs")
    for dtype in (F16, BF16, F32):
        for d in (8, 16, 24, 32, 40, 48, 64, 72, 80, 88, 96, 128, 136, 160, 192, 256, 512):
            yield dict(b=1, h=2, nq=150, nk=333, d=d, dtype=dtype)
            yield dict(b=2, h=2, nq=70, nk=77, d=d, dtype=dtype, layout="bnhd")
        for d in (40, 64, 80, 128, 160):
            yield dict(b=2, h=4, nq=130, nk=200, d=d, dtype=dtype, layout="packed", hkv=2)
            yield dict(b=2, h=3, nq=64, nk=64, d=d, dtype=dtype, wants=("lse", "key_mass"))
            yield dict(b=2, h=2, nq=130, nk=250, d=d, dtype=dtype, wants=("key_mass",), layout="bnhd")
            for h, nk in ((1, 64), (1, 200), (5, 17), (7, 63), (8, 256), (12, 64)):  # one head is no cluster, nor are twelve
                yield dict(b=2, h=h, nq=60, nk=nk, d=d, dtype=dtype, wants=("lse", "key_mass"), layout="packed")
            yield dict(b=1, h=2, nq=300, nk=700, d=d, dtype=dtype, wants=("key_mass",))
            yield dict(b=1, h=2, nq=130, nk=1000, d=d, dtype=dtype, grow=6.0)
            if dtype != F32:  # scores in the thousands: fp32 itself cannot hold the bound
                yield dict(b=1, h=2, nq=130, nk=1000, d=d, dtype=dtype, grow=100.0)
            yield dict(b=1, h=2, nq=257, nk=129, d=d, dtype=dtype)
            yield dict(b=1, h=1, nq=1, nk=1, d=d, dtype=dtype)
            yield dict(b=1, h=2, nq=100, nk=3, d=d, dtype=dtype, layout="odd")
        for d in (40, 64, 160):
            yield dict(b=2, h=2, nq=100, nk=130, d=d, dtype=dtype, bias=(dtype, (1, 1, 1, 1)), wants=every)
            yield dict(b=2, h=2, nq=100, nk=77, d=d, dtype=dtype, bias=(F32, (1, 0, 0, 1)))
            yield dict(b=2, h=2, nq=100, nk=130, d=d, dtype=dtype, mask=(1, 0, 1, 1), wants=every)
            yield dict(b=2, h=2, nq=77, nk=77, d=d, dtype=dtype, band=(-2 ** 63, 0), wants=every)
            yield dict(b=1, h=2, nq=200, nk=300, d=d, dtype=dtype, band=(-20, 30), wants=every)
            yield dict(b=1, h=2, nq=200, nk=100, d=d, dtype=dtype, band=(-50, 3), bias=(F32, (1, 1, 1, 1)), wants=("lse", "key_mass"))
            yield dict(b=1, h=4, nq=90, nk=111, d=d, dtype=dtype, hkv=2, mask=(0, 0, 0, 1), layout="odd", wants=every)
            yield dict(b=1, h=2, nq=50, nk=60, d=d, dtype=dtype, dv=24, wants=every)
            yield dict(b=1, h=2, nq=50, nk=60, d=d, dtype=dtype, scale=0.3, wants=every)
            yield dict(b=1, h=2, nq=5, nk=0, d=d, dtype=dtype)
        for d in (40, 80, 128):
            for nq, nk, band in BANDS:
                yield dict(b=1, h=3, nq=nq, nk=nk, d=d, dtype=dtype, band=band)
        for d in (8, 40, 64, 80, 128, 160):
            yield dict(b=2, h=4, nq=300, nk=400, d=d, dtype=dtype, band=(-2 ** 63, 100), layout="packed", hkv=2)
            yield dict(b=1, h=2, nq=1100, nk=1100, d=d, dtype=dtype, band=(-2 ** 63, 0), grow=6.0)
            yield dict(b=4, h=9, nq=1300, nk=1300, d=d, dtype=dtype, band=(-2 ** 63, 0), wants=("key_mass",))
            yield dict(b=2, h=9, nq=600, nk=900, d=d, dtype=dtype, band=(-70, 2 ** 63 - 1), layout="bnhd", hkv=1)
        yield dict(b=1, h=2, nq=60, nk=70, d=10, dtype=dtype, wants=every)
        yield dict(b=2, h=8, nq=1024, nk=4096, d=40, dtype=dtype, layout="bnhd")
        yield dict(b=1, h=1, nq=700, nk=2048, d=512, dtype=dtype)
        yield dict(b=2, h=20, nq=1000, nk=600, d=64, dtype=dtype)  # tall tiles, several a block
        if dtype != F32:
            yield dict(b=2, h=20, nq=1000, nk=600, d=64, dtype=dtype, grow=100.0)
        for d in (72, 104, 136, 160):  # pairs of multiprocessors, and one head too many for them
            for b, h, nq, nk in ((2, 8, 256, 256), (2, 8, 250, 193), (1, 3, 65, 129), (1, 67, 64, 256)):
                yield dict(b=b, h=h, nq=nq, nk=nk, d=d, dtype=dtype, layout="bnhd")
    for d in (1, 41, 80, 160, 192):  # fp32 key_mass: plain, and shared among blocks
        for b, h, nq, nk in ((2, 8, 64, 64), (2, 8, 256, 77), (4, 8, 1000, 77), (1, 2, 700, 128), (2, 2, 700, 200)):
            yield dict(b=b, h=h, nq=nq, nk=nk, d=d, dtype=F32, wants=("lse", "key_mass"), layout="odd")
    for d in (40, 64, 80, 128, 160, 256, 512):
        for wild in WILD:
            mask = (0, 0, 0, 1) if wild == "garbage" else None
            yield dict(b=1, h=2, nq=150, nk=333, d=d, dtype=F32, wild=wild, mask=mask, wants=("key_mass",))
            yield dict(b=2, h=2, nq=1500, nk=333, d=d, dtype=F32, wild=wild, mask=mask)


# queries that see nothing, whole tiles outside, one key each, edges without end
BANDS = ((200, 300, (-20, 30)), (130, 1000, (-2 ** 63, 870)), (1000, 130, (-2 ** 63, -870)), (1000, 130, (-2 ** 63, 0)),
         (700, 700, (-100, 0)), (513, 700, (-5, 2 ** 63 - 1)), (300, 400, (350, 380)), (300, 400, (500, 600)),
         (300, 200, (-300, -250)), (260, 520, (-2 ** 63, 2 ** 63 - 1)), (129, 257, (3, 3)))


def quick_cases():
    mass = ("lse", "key_mass")
    for dtype in (F16, BF16):
        for d in (40, 64, 80, 128, 160, 256, 512):
            yield dict(b=1, h=1, nq=140, nk=300, d=d, dtype=dtype)
        for d in (40, 64, 80, 128, 160):
            yield dict(b=1, h=1, nq=140, nk=77, d=d, dtype=dtype, layout="bnhd")
            yield dict(b=1, h=1, nq=140, nk=60, d=d, dtype=dtype)
            yield dict(b=1, h=2, nq=70, nk=200, d=d, dtype=dtype)
            yield dict(b=1, h=2, nq=64, nk=64, d=d, dtype=dtype, wants=mass)
            yield dict(b=1, h=2, nq=70, nk=130, d=d, dtype=dtype, wants=mass)
            yield dict(b=1, h=2, nq=130, nk=300, d=d, dtype=dtype, wants=mass)
        yield dict(b=1, h=1, nq=140, nk=1000, d=40, dtype=dtype, grow=100.0)
        yield dict(b=1, h=2, nq=70, nk=90, d=64, dtype=dtype, mask=(1, 0, 1, 1), wants=("lse", "key_mass", "probs"))
        for d in (40, 64, 80, 128, 160):
            yield dict(b=1, h=2, nq=300, nk=300, d=d, dtype=dtype, band=(-2 ** 63, 0))
            yield dict(b=1, h=1, nq=300, nk=300, d=d, dtype=dtype, band=(-70, 20))
    for d in (40, 64, 80, 128, 160, 256, 512):
        yield dict(b=1, h=1, nq=70, nk=90, d=d, dtype=F32, wants=mass)
        yield dict(b=1, h=1, nq=70, nk=90, d=d, dtype=F32, wild="rows")
        yield dict(b=1, h=1, nq=200, nk=150, d=d, dtype=F32, wants=mass)
    yield dict(b=1, h=2, nq=70, nk=90, d=40, dtype=F32, band=(-10, 20), wants=("lse", "key_mass", "probs"))
    yield dict(b=2, h=8, nq=1100, nk=130, d=40, dtype=F32)


def captured(op):
    """A captured run, replayed on new data, gives what a direct run gives."""
    q, k, v = (random((1, 4, 256, 64), F16) for _ in range(3))
    out = torch.empty_like(q)
    c = op.call(q, k, v, out)
    plan, need = op.prepare(c)
    scratch = torch.empty(max(need, 1), dtype=torch.uint8, device=DEV)
    op.run(plan, c, torch.cuda.current_stream().cuda_stream, scratch)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        op.run(plan, c, torch.cuda.current_stream().cuda_stream, scratch)
    q.copy_(random((1, 4, 256, 64), F16))
    out.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    e = distance(out, reference(q, k, v, None, None, None, 64 ** -0.5)[0])
    op.release(plan)
    return None if e <= BOUND[F16] else "a replayed graph is %.2e off" % e


def small_call(op):
    q, k, v = (random((1, 2, 128, 64), F16) for _ in range(3))
    out = torch.empty_like(q)
    return op.call(q, k, v, out), (q, k, v, out)


def errors(op):
    """Memory that runs out comes back as status and text, and the op works on."""
    wrong = []
    try:
        op.alloc(1 << 50)
        wrong.append("2^50 bytes of device memory were given")
    except Refused as e:
        if e.args[0] != 3 or "memory" not in e.args[1]:
            wrong.append("2^50 bytes: status %d, %s" % e.args)
    c, (q, k, v, out) = small_call(op)
    plan, need = op.prepare(c)
    scratch = torch.empty(max(need, 1), dtype=torch.uint8, device=DEV)
    op.run(plan, c, torch.cuda.current_stream().cuda_stream, scratch)
    torch.cuda.synchronize()
    e = distance(out, reference(q, k, v, None, None, None, 64 ** -0.5)[0])
    op.release(plan)
    if not e <= BOUND[F16]:
        wrong.append("after that a call is %.2e off" % e)
    return "; ".join(wrong) or None


def lost(path):
    """A kernel that writes to an address that is not there: every later call says so, none crashes."""
    op = Op(path)
    c, keep = small_call(op)
    c.out.data = 256
    plan, need = op.prepare(c)
    scratch = torch.empty(max(need, 1), dtype=torch.uint8, device=DEV)
    said = []
    for step in (lambda: op.run(plan, c, None, scratch), lambda: op.synchronize(), lambda: op.run(plan, c, None, scratch)):
        try:
            step()
        except Refused as e:
            said.append(e.args)
    print("%d of 3 steps failed: %s" % (len(said), said), flush=True)
    right = len(said) >= 2 and all(status == 4 and text for status, text in said)
    os._exit(0 if right else 1)  # no destructors: the device is gone


def lost_elsewhere(path):
    done = subprocess.run([sys.executable, os.path.abspath(__file__), "--lost", path], capture_output=True, text=True)
    return None if done.returncode == 0 else "device lost: exit %d: %s" % (done.returncode, done.stdout + done.stderr[-300:])


def main():
    if "--lost" in sys.argv[1:]:
        lost(sys.argv[-1])
    bad = 0
    quick = "--quick" in sys.argv[1:]
    for path in [a for a in sys.argv[1:] if a != "--quick"]:
        name = os.path.basename(path)
        try:
            op = Op(path)
        except Refused as e:
            print("FAIL %s: create: %s" % (name, e.args[1]))
            bad += 1
            continue
        done = refused = 0
        for case in quick_cases() if quick else cases():
            try:
                wrong = one(op, **case)
            except Refused as e:
                wrong = e.args[1]
            if wrong and wrong.startswith("refused: "):
                refused += 1
            elif wrong:
                bad += 1
                print("FAIL %s: %s: %s" % (name, wrong, {k: str(x) for k, x in case.items()}))
            done += 1
        for wrong in () if quick else (captured(op), errors(op), lost_elsewhere(path)):
            if wrong:
                bad += 1
                print("FAIL %s: %s" % (name, wrong))
        op.close()
        print("%s: %d calls, %d refused" % (name, done, refused))
    print("%d wrong" % bad)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
