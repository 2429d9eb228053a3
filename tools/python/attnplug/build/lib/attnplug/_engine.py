"""One registry for the process, one router for each device, plans kept for each thread.

A plan serves one call at a time, so every thread has its own; nothing is shared but the routers, which are made once
under a lock.  What is looked up at every call is a dictionary by shapes, strides and types.
"""
import ctypes as C
import threading

from . import _abi as abi
from ._library import ErrorText, plug

_lock = threading.Lock()
_registry = None
_routers = {}
_local = threading.local()
KEPT_PLANS = 512  # of one thread; a server with ever new shapes must not grow without end


def registry():
    global _registry
    with _lock:
        if _registry is None:
            error, made = ErrorText(), C.c_void_p()
            error.raise_for(plug().attn_registry_open(None, made, error.ref))
            _registry = made
    return _registry


def device_of(kind, index):
    return abi.Device(abi.CUDA if kind == "cuda" else abi.CPU, index, b"cuda" if kind == "cuda" else b"cpu")


def router(kind, index, threads=0):
    """threads: for the CPU's pool when it is made first; 0 is one per core that the process may use."""
    found = _routers.get((kind, index))
    if found:
        return found
    files = registry()
    with _lock:
        if (kind, index) not in _routers:
            error, made, pool = ErrorText(), C.c_void_p(), C.c_void_p()
            error.raise_for(plug().attn_pool_open(threads if kind == "cpu" else 1, pool, error.ref))
            error.raise_for(plug().attn_router_open(files, device_of(kind, index), plug().attn_pool_host(pool), made,
                                                    error.ref))
            _routers[(kind, index)] = made
        return _routers[(kind, index)]


class Thread:
    """What one thread keeps."""

    def __init__(self):
        self.plans = {}
        self.error = ErrorText()
        self.scratch = None
        self.scratch_address = 0
        self.scratch_bytes = 0

    def host_scratch(self, nbytes):
        if nbytes > self.scratch_bytes:
            self.scratch = C.create_string_buffer(nbytes + 256)
            self.scratch_address = (C.addressof(self.scratch) + 255) & ~255
            self.scratch_bytes = nbytes
        return self.scratch_address


def thread():
    try:
        return _local.thread
    except AttributeError:
        _local.thread = Thread()
        return _local.thread


class Plan:
    """One op prepared for one set of shapes; the call's struct is filled once and then only pointers change."""

    def __init__(self, kind, index, op, call, flags=0, threads=0):
        self.call = call
        self.ref = C.byref(call)
        self.handle = C.c_void_p()
        self.release = plug().attn_plan_release
        scratch, mine = C.c_uint64(), thread()
        mine.error.raise_for(plug().attn_router_prepare(router(kind, index, threads), op.encode() if op else None, None,
                                                        0, flags, self.ref, self.handle, scratch, mine.error.ref))
        self.scratch_bytes = scratch.value
        self.op = plug().attn_plan_op(self.handle).decode()
        self.run = plug().attn_plan_run
        for name in abi.TENSORS:  # views of the struct's own fields
            setattr(self, name, getattr(call, name))

    def __del__(self):
        if getattr(self, "handle", None):
            self.release(self.handle)


def keep(mine, key, plan):
    if len(mine.plans) >= KEPT_PLANS:
        mine.plans.pop(next(iter(mine.plans)))
    mine.plans[key] = plan
    return plan
