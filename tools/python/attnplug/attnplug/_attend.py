"""attend(): softmax(scale Q K^T + bias) V by a plugin, on the memory that the tensors have.

The contract is abi/attn_abi.h section 3; the router chooses (host-stub/router).  Inference only.
"""
import ctypes as C

from . import _abi as abi
from ._engine import Plan, keep, router, thread
from ._library import AttnPlugError, plug
from ._view import numpy_view, torch_view

_APPROXIMATE = 2  # attn_router.h: ATTN_ROUTE_APPROXIMATE


def band_of(is_causal, window):
    """(lowest, highest) j - i that a query may see, or None.  window: W for |i - j| <= W, or (left, right)."""
    low, high = (window if isinstance(window, (tuple, list)) else (window, window)) if window is not None else (None, None)
    if not is_causal and low is None and high is None:
        return None
    top = abi.INT64_MAX if high is None else int(high)
    return (abi.INT64_MIN if low is None else -int(low), min(top, 0) if is_causal else top)


def make_call(views, band, scale, flags):
    call = abi.OpCall(size=C.sizeof(abi.OpCall), scale=scale or 0.0)
    for name, view in views.items():
        setattr(call, name, view)
    if band:
        call.flags |= abi.BAND
        call.band_lo, call.band_hi = band
    call.flags |= flags
    return call


def _shape_check(q, k, v):
    if not (len(q) == len(k) == len(v) == 4):
        raise ValueError("attnplug: query, key and value have %d, %d and %d dimensions, expected [B, H, N, D] each" %
                         (len(q), len(k), len(v)))


def attend(query, key, value, *, bias=None, mask=None, is_causal=False, window=None, scale=None, op=None, out=None,
           return_lse=False, return_key_mass=False, approximate=False, f32_scores=False):
    """out [B, H, Nq, Dv] = softmax(scale query key^T + bias) value.

    query [B, H, Nq, D], key [B, Hk, Nk, D], value [B, Hk, Nk, Dv]: torch tensors on the CPU or a GPU, or NumPy arrays;
    H a multiple of Hk; any strides, no copy is made.  bias: floats added to the scaled scores; mask: booleans, True may
    be seen; both broadcast to [B, H, Nq, Nk].  is_causal: query i sees keys up to i.  window: W for |i - j| <= W, or
    (left, right).  scale: 1/sqrt(D) where None.  op: a name of DESIGN's ("memory_efficient", "cuda_flash",
    "AttnProcessor2_0", ...), None for ATTNPLUG_OP or the fastest.  out: where to write, or None.
    With return_lse and return_key_mass the result is a tuple (out, lse [B, H, Nq] fp32, key_mass [B, Nk] fp32), as far
    as asked for.  On a GPU the work is queued on torch's current stream and may be captured in a torch.cuda.graph.
    Raises AttnPlugError with the plugin's reason where it is refused.  Any thread may call.
    """
    if type(query).__module__ == "numpy":
        return _attend_numpy(query, key, value, bias, mask, band_of(is_causal, window), scale, op, out, return_lse,
                             return_key_mass, approximate, f32_scores)
    from . import _torch
    band = band_of(is_causal, window) if is_causal or window is not None else None
    if _torch.compiling():
        return _torch.attend_op(query, key, value, bias, mask, band, scale, op, out, return_lse, return_key_mass,
                                approximate, f32_scores)
    return _torch.attend(query, key, value, bias, mask, band, scale, op, out, return_lse, return_key_mass, approximate,
                         f32_scores)


def _attend_numpy(q, k, v, bias, mask, band, scale, op, out, want_lse, want_mass, approximate, f32_scores):
    import numpy as np
    _shape_check(q.shape, k.shape, v.shape)
    shape = (q.shape[0], q.shape[1], q.shape[2], v.shape[3])
    scores = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    arrays = {"q": q, "k": k, "v": v, "out": np.empty(shape, q.dtype) if out is None else out}
    if bias is not None:
        arrays["bias"] = np.broadcast_to(bias, scores)
    if mask is not None:
        arrays["mask"] = np.broadcast_to(mask, scores)
    if want_lse:
        arrays["lse"] = np.empty(shape[:3], np.float32)
    if want_mass:
        arrays["key_mass"] = np.empty((shape[0], k.shape[2]), np.float32)
    views = {name: numpy_view(a) for name, a in arrays.items()}
    mine = thread()
    id_ = ("numpy", tuple((n, a.shape, a.strides, a.dtype.char) for n, a in arrays.items()), band, scale, op,
           approximate, f32_scores)
    plan = mine.plans.get(id_)
    if plan is None:
        call = make_call(views, band, scale, abi.F32_SCORES if f32_scores else 0)
        plan = keep(mine, id_, Plan("cpu", 0, op, call, _APPROXIMATE if approximate else 0))
    for name, a in arrays.items():
        getattr(plan, name).data = a.__array_interface__["data"][0]
    plan.call.scratch, plan.call.scratch_bytes = mine.host_scratch(plan.scratch_bytes), mine.scratch_bytes
    mine.error.raise_for(plan.run(plan.handle, plan.ref, mine.error.ref))
    asked = (arrays["out"],) + tuple(arrays[n] for n in ("lse", "key_mass") if n in arrays)
    return asked if len(asked) > 1 else asked[0]


def why(query, key, value, *, bias=None, mask=None, is_causal=False, window=None, scale=None, approximate=False):
    """Every op in the order in which it would be asked for this call: a list of dictionaries with the op's id, whether
    it is the one taken, why not, which rule put it there, and the measured microseconds (0: none)."""
    view = numpy_view if type(query).__module__ == "numpy" else torch_view
    scores = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    views = {"q": view(query), "k": view(key), "v": view(value), "out": view(query)}
    views["out"].shape[3], order = value.shape[3], 1
    for i in (3, 2, 1, 0):
        views["out"].stride[i], order = order, order * max(views["out"].shape[i], 1)
    for name, given in (("bias", bias), ("mask", mask)):
        if given is not None:
            wide = given.expand(scores) if hasattr(given, "expand") else __import__("numpy").broadcast_to(given, scores)
            views[name] = view(wide)
    call = make_call(views, band_of(is_causal, window), scale, 0)
    kind, index = ("cuda", views["q"].device_id) if views["q"].device_type == abi.CUDA else ("cpu", 0)
    count, mine, flags = C.c_uint32(), thread(), _APPROXIMATE if approximate else 0
    mine.error.raise_for(plug().attn_router_why(router(kind, index), call, flags, None, 0, count, mine.error.ref))
    rows = (abi.Why * max(count.value, 1))()
    for row in rows:
        row.size = C.sizeof(abi.Why)
    mine.error.raise_for(plug().attn_router_why(router(kind, index), call, flags, rows, len(rows), count,
                                                mine.error.ref))
    return [{"op": r.op.decode(), "taken": bool(r.taken), "reason": r.reason.decode(), "source": r.source.decode(),
             "measured_us": r.measured_us} for r in rows[:count.value]]


def names():
    """Every name that may stand for an op or a processor: {name: (processor or None, op)}."""
    found, name, index = {}, abi.Name(size=C.sizeof(abi.Name)), 0
    while plug().attn_name_get(index, name) == 0:
        found[name.name.decode()] = (name.processor.decode() if name.processor else None, name.op.decode())
        index += 1
    return found


__all__ = ["attend", "why", "names", "AttnPlugError"]
