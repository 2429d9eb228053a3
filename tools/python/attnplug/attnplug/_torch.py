"""attend() on torch tensors, and the same as the operator torch.ops.attnplug.attend, which torch.compile keeps whole."""
import torch

from . import _abi as abi
from ._attend import _APPROXIMATE, _shape_check, make_call
from ._engine import Plan, keep, thread
from ._view import torch_view

_compiler = getattr(torch, "compiler", None)
compiling = getattr(_compiler, "is_compiling", None) or torch._dynamo.is_compiling
_empty = torch.empty


def _stream(index):
    return torch.cuda.current_stream(index).cuda_stream


def _inference_only(*tensors):
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError("attnplug: no gradients: call under torch.no_grad() or on tensors that want none")


def _new_plan(tensors, band, scale, op, approximate, f32_scores, align):
    views = {name: torch_view(t) for name, t in tensors.items()}
    for name in ("q", "k", "v", "out"):
        views[name].align = align
    q = tensors["q"].device
    if any(t.device != q for t in tensors.values()):
        raise ValueError("attnplug: tensors on %s, expected one device" % sorted({str(t.device) for t in tensors.values()}))
    threads = torch.get_num_threads() if q.type == "cpu" else 0
    return Plan(q.type, q.index or 0, op, make_call(views, band, scale, abi.F32_SCORES if f32_scores else 0),
                _APPROXIMATE if approximate else 0, threads)


def _outputs(q, k, v, out, want_lse, want_mass):
    b, h, nq, _ = q.shape
    if out is None:
        out = q.new_empty((b, h, nq, v.shape[3]))
    lse = _empty((b, h, nq), dtype=torch.float32, device=q.device) if want_lse else None
    mass = _empty((b, k.shape[2]), dtype=torch.float32, device=q.device) if want_mass else None
    return out, lse, mass


def _optional(tensors, scores, bias, mask, lse, mass):
    if bias is not None:
        tensors["bias"] = bias.expand(scores)
    if mask is not None:
        tensors["mask"] = mask.expand(scores)
    if lse is not None:
        tensors["lse"] = lse
    if mass is not None:
        tensors["key_mass"] = mass
    return tensors


def _run(mine, plan, on_gpu, device, tensors):
    """tensors: those besides q, k, v and out, whose pointers are set."""
    call = plan.call
    for name, t in tensors:
        getattr(plan, name).data = t.data_ptr()
    if not on_gpu:
        call.scratch, call.scratch_bytes = mine.host_scratch(plan.scratch_bytes), mine.scratch_bytes
        mine.error.raise_for(plan.run(plan.handle, plan.ref, mine.error.ref))
        return
    # From torch's own allocator: ordered on the stream, and safe in a graph that is being captured.
    scratch = _empty(max(plan.scratch_bytes, 1), dtype=torch.uint8, device=device)
    call.scratch, call.scratch_bytes = scratch.data_ptr(), scratch.numel()
    call.stream = _stream(device.index)
    mine.error.raise_for(plan.run(plan.handle, plan.ref, mine.error.ref))


def attend(q, k, v, bias, mask, band, scale, op, out, want_lse, want_mass, approximate, f32_scores):
    if torch.is_grad_enabled():
        _inference_only(q, k, v, bias)
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        _shape_check(q.shape, k.shape, v.shape)
    given = out
    out, lse, mass = _outputs(q, k, v, out, want_lse, want_mass)
    device = q.device
    pq, pk, pv, po = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
    align = 16 if not (pq | pk | pv | po) & 15 else 0
    more = ()
    if bias is not None or mask is not None or lse is not None or mass is not None:
        scores = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        more = tuple(_optional({}, scores, bias, mask, lse, mass).items())
    mine = thread()
    key = (q.shape, q.stride(), q.dtype, device, k.shape, k.stride(), k.dtype, v.shape, v.stride(), v.dtype,
           given is not None and (out.shape, out.stride(), out.dtype), align, band, scale, op, approximate, f32_scores,
           tuple((n, t.shape, t.stride(), t.dtype) for n, t in more) if more else None)
    plan = mine.plans.get(key)
    if plan is None:
        tensors = {"q": q, "k": k, "v": v, "out": out, **dict(more)}
        plan = keep(mine, key, _new_plan(tensors, band, scale, op, approximate, f32_scores, align))
    plan.q.data, plan.k.data, plan.v.data, plan.out.data = pq, pk, pv, po
    _run(mine, plan, q.is_cuda, device, more)
    if lse is None and mass is None:
        return out
    return tuple(t for t in (out, lse, mass) if t is not None)


# The operator: flat arguments, three results of which the unasked ones are empty.
_SCHEMA = ("attend(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? mask, int[]? band, float? scale, "
           "str? op, bool lse, bool key_mass, bool approximate, bool f32_scores) -> (Tensor, Tensor, Tensor)")


def _impl(query, key, value, bias, mask, band, scale, op, lse, key_mass, approximate, f32_scores):
    made = attend(query.detach(), key.detach(), value.detach(), bias, mask, tuple(band) if band else None, scale, op,
                  None, lse, key_mass, approximate, f32_scores)
    made = list(made) if isinstance(made, tuple) else [made]
    nothing = query.new_empty(0, dtype=torch.float32)
    out = made.pop(0)
    return out, made.pop(0) if lse else nothing, made.pop(0) if key_mass else nothing.clone()


def _shapes(query, key, value, bias, mask, band, scale, op, lse, key_mass, approximate, f32_scores):
    out, got_lse, mass = _outputs(query, key, value, None, lse, key_mass)
    nothing = query.new_empty(0, dtype=torch.float32)
    return out, got_lse if lse else nothing, mass if key_mass else query.new_empty(0, dtype=torch.float32)


_library = torch.library.Library("attnplug", "DEF")
_library.define(_SCHEMA)
for _key in ("CPU", "CUDA"):
    _library.impl("attend", _impl, _key)
(getattr(torch.library, "register_fake", None) or torch.library.impl_abstract)("attnplug::attend")(_shapes)


def attend_op(q, k, v, bias, mask, band, scale, op, out, want_lse, want_mass, approximate, f32_scores):
    """attend() in a graph that is being compiled."""
    made, lse, mass = torch.ops.attnplug.attend(q, k, v, bias, mask, list(band) if band else None, scale, op, want_lse,
                                                want_mass, approximate, f32_scores)
    if out is not None:
        made = out.copy_(made)
    asked = (made,) + ((lse,) if want_lse else ()) + ((mass,) if want_mass else ())
    return asked if len(asked) > 1 else made
