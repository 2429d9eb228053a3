"""The contract (abi/attn_abi.h) and libattnplug's structs in ctypes.  Field for field; sizes are checked on import."""
import ctypes as C

CPU, CUDA = 1, 2
BAND, F32_SCORES, F32_SOFTMAX = 1, 2, 4
INT64_MIN, INT64_MAX = -2**63, 2**63 - 1
UNSUPPORTED = 1
NOT_FOUND = 64
PTR = C.POINTER

# Element type by name, as torch and NumPy spell it: DLPack's code, bits.
DTYPES = {"float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16), "float64": (2, 64), "uint8": (1, 8),
          "bool": (1, 8)}


class Error(C.Structure):
    _fields_ = [("size", C.c_uint32), ("capacity", C.c_uint32), ("text", C.c_void_p), ("vendor_code", C.c_int64)]


class Device(C.Structure):
    _fields_ = [("type", C.c_int32), ("id", C.c_int32), ("runtime", C.c_char * 24)]


class Tensor(C.Structure):
    _fields_ = [("data", C.c_void_p), ("shape", C.c_int64 * 4), ("stride", C.c_int64 * 4), ("device_type", C.c_int32),
                ("device_id", C.c_int32), ("code", C.c_uint8), ("bits", C.c_uint8), ("lanes", C.c_uint16),
                ("rank", C.c_uint32), ("align", C.c_uint32), ("reserved", C.c_uint32)]


class Param(C.Structure):
    _fields_ = [("name", C.c_char_p), ("kind", C.c_uint32), ("reserved", C.c_uint32), ("i", C.c_int64),
                ("f", C.c_double), ("text", C.c_char_p), ("tensor", PTR(Tensor))]


PARAM_INT, PARAM_FLOAT, PARAM_TEXT, PARAM_TENSOR = 1, 2, 3, 4

TENSORS = ("q", "k", "v", "out", "bias", "mask", "lse", "key_mass", "probs")


class OpCall(C.Structure):
    _fields_ = ([("size", C.c_uint32), ("flags", C.c_uint32)] + [(n, Tensor) for n in TENSORS] +
                [("band_lo", C.c_int64), ("band_hi", C.c_int64), ("scale", C.c_float), ("reserved", C.c_uint32),
                 ("stream", C.c_void_p), ("scratch", C.c_void_p), ("scratch_bytes", C.c_uint64), ("ext", C.c_void_p)])


class Linear(C.Structure):
    _fields_ = [("weight", Tensor), ("bias", Tensor), ("terms", C.c_void_p), ("n_terms", C.c_uint32),
                ("reserved", C.c_uint32)]


class Norm(C.Structure):
    _fields_ = [("kind", C.c_uint32), ("groups", C.c_uint32), ("eps", C.c_float), ("reserved", C.c_uint32),
                ("weight", Tensor), ("bias", Tensor), ("conv_y", Linear), ("conv_b", Linear)]


NORM_LAYER, NORM_GROUP, NORM_SPATIAL = 1, 2, 3
RESIDUAL, ONLY_CROSS, UPCAST_ATTENTION, UPCAST_SOFTMAX = 1, 2, 4, 8


class Layer(C.Structure):
    _fields_ = ([("size", C.c_uint32), ("flags", C.c_uint32), ("name", C.c_char_p), ("heads", C.c_int64),
                 ("dim_head", C.c_int64), ("query_dim", C.c_int64), ("cross_dim", C.c_int64), ("scale", C.c_float),
                 ("rescale", C.c_float)] +
                [(n, Linear) for n in ("to_q", "to_k", "to_v", "to_out", "add_k", "add_v")] +
                [(n, Norm) for n in ("group_norm", "norm_cross", "spatial_norm")] + [("ext", C.c_void_p)])


class LayerCall(C.Structure):
    _fields_ = ([("size", C.c_uint32), ("flags", C.c_uint32)] +
                [(n, Tensor) for n in ("hidden", "encoder", "out", "bias", "mask", "temb", "lse", "key_mass", "probs")] +
                [("images", PTR(Tensor)), ("n_images", C.c_uint32), ("n_params", C.c_uint32), ("params", PTR(Param)),
                 ("work", C.c_void_p), ("ext", C.c_void_p)])


class LayerSpec(C.Structure):
    _fields_ = [("size", C.c_uint32), ("flags", C.c_uint32), ("processor", C.c_char_p), ("op", C.c_char_p),
                ("params", PTR(Param)), ("n_params", C.c_uint32), ("reserved", C.c_uint32)]


class RegistryOptions(C.Structure):
    _fields_ = [("size", C.c_uint32), ("flags", C.c_uint32), ("paths", PTR(C.c_char_p)), ("n_paths", C.c_uint32),
                ("reserved", C.c_uint32), ("log", C.c_void_p), ("log_ctx", C.c_void_p)]


class Why(C.Structure):
    _fields_ = [("size", C.c_uint32), ("taken", C.c_uint32), ("op", C.c_char * 64), ("reason", C.c_char * 256),
                ("source", C.c_char * 64), ("measured_us", C.c_double)]


class Name(C.Structure):
    _fields_ = [("size", C.c_uint32), ("flags", C.c_uint32), ("name", C.c_char_p), ("processor", C.c_char_p),
                ("op", C.c_char_p), ("note", C.c_char_p)]


class Head(C.Structure):
    _fields_ = [("magic", C.c_uint32), ("abi", C.c_uint32), ("size", C.c_uint32), ("flags", C.c_uint32),
                ("devices", C.c_uint64), ("dtypes", C.c_uint64), ("id", C.c_char * 64), ("version", C.c_char * 16),
                ("vendor", C.c_char * 32), ("summary", C.c_char * 96)]


assert [C.sizeof(t) for t in (Error, Tensor, Param, OpCall, Linear, Norm, Layer, LayerCall, Head)] == [
    24, 96, 48, 928, 208, 624, 3184, 912, 240]
