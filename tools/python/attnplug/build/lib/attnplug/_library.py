"""Finds and loads libattnplug and libattnsag, and makes exceptions of their statuses."""
import ctypes as C
import os

from . import _abi as abi

PTR = C.POINTER
_P, _U32 = C.c_void_p, C.c_uint32
_ERR = PTR(abi.Error)

# Function: argument types (the result is a status), or (arguments, result).
_PLUG = {
    "attn_registry_open": [PTR(abi.RegistryOptions), PTR(_P), _ERR],
    "attn_pool_open": [_U32, PTR(_P), _ERR],
    "attn_pool_host": ([_P], _P),
    "attn_router_open": [_P, PTR(abi.Device), _P, PTR(_P), _ERR],
    "attn_router_prepare": [_P, C.c_char_p, PTR(abi.Param), _U32, _U32, PTR(abi.OpCall), PTR(_P), PTR(C.c_uint64), _ERR],
    "attn_router_why": [_P, PTR(abi.OpCall), _U32, PTR(abi.Why), _U32, PTR(_U32), _ERR],
    "attn_plan_op": ([_P], C.c_char_p),
    "attn_plan_run": [_P, PTR(abi.OpCall), _ERR],
    "attn_plan_release": ([_P], None),
    "attn_name_get": [_U32, PTR(abi.Name)],
    "attn_name_find": [C.c_char_p, PTR(abi.Name), _ERR],
    "attn_status_name": ([C.c_int32], C.c_char_p),
    "attn_host_version": ([], C.c_char_p),
}
_SAG = {
    "attn_computer_open": [_P, PTR(abi.Device), _U32, PTR(_P), _ERR],
    "attn_layer_bind": [_P, PTR(abi.Layer), PTR(abi.LayerSpec), PTR(_P), _ERR],
    "attn_layer_unbind": ([_P], None),
    "attn_layer_op": ([_P], C.c_char_p),
    "attn_layer_run": [_P, PTR(abi.LayerCall), _ERR],
}


class AttnPlugError(RuntimeError):
    """What the library said no to; `status` is its code, the text names the thing, its value and what was expected."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class ErrorText:
    """An attn_error to hand to a call, used again and again by one thread."""

    def __init__(self):
        self.buffer = C.create_string_buffer(1024)
        self.error = abi.Error(C.sizeof(abi.Error), 1024, C.addressof(self.buffer), 0)
        self.ref = C.byref(self.error)

    def raise_for(self, status):
        if status:
            raise AttnPlugError(status, self.buffer.value.decode("utf-8", "replace") or "status %d" % status)


def _candidates(name):
    """ATTNPLUG_LIBRARY (libattnplug's path), the build tree that this file lies in, the system's libraries."""
    chosen = os.environ.get("ATTNPLUG_LIBRARY")
    if chosen:
        return [os.path.join(os.path.dirname(os.path.abspath(chosen)), name)]
    root = os.path.abspath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "..", ".."))
    return [os.path.join(root, "build", name), name + ".0"]


def _load(name, functions):
    said = []
    for path in _candidates(name):
        if os.path.isabs(path) and not os.path.exists(path):
            said.append("%s is not there" % path)
            continue
        try:
            library = C.CDLL(path)
        except OSError as error:
            said.append(str(error))
            continue
        for function, types in functions.items():
            f = getattr(library, function)
            f.argtypes, f.restype = types if isinstance(types, tuple) else (types, C.c_int32)
        return library
    raise ImportError("attnplug: no %s: %s; set ATTNPLUG_LIBRARY to libattnplug.so's path" % (name, "; ".join(said)))


_loaded = {}


def plug():
    """libattnplug: loader and router."""
    return _loaded.get("plug") or _loaded.setdefault("plug", _load("libattnplug.so", _PLUG))


def sag():
    """libattnsag: whole attention layers."""
    plug()
    return _loaded.get("sag") or _loaded.setdefault("sag", _load("libattnsag.so", _SAG))
