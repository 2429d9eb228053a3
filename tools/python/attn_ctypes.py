"""abi/attn_abi.h in ctypes: an op plugin called from Python on torch tensors.

Needs torch only for what it is given; the plugin itself knows nothing of it.
"""
import ctypes as C

CUDA, CPU = 2, 1
BAND = 1
STATUS = {0: "OK", 1: "UNSUPPORTED", 2: "INVALID", 3: "NOMEM", 4: "DEVICE", 5: "INTERNAL"}


class Error(C.Structure):
    _fields_ = [("size", C.c_uint32), ("capacity", C.c_uint32), ("text", C.c_char_p),
                ("vendor_code", C.c_int64)]


class Device(C.Structure):
    _fields_ = [("type", C.c_int32), ("id", C.c_int32), ("runtime", C.c_char * 24)]


class Tensor(C.Structure):
    _fields_ = [("data", C.c_void_p), ("shape", C.c_int64 * 4), ("stride", C.c_int64 * 4),
                ("device_type", C.c_int32), ("device_id", C.c_int32), ("code", C.c_uint8),
                ("bits", C.c_uint8), ("lanes", C.c_uint16), ("rank", C.c_uint32),
                ("align", C.c_uint32), ("reserved", C.c_uint32)]


class Head(C.Structure):
    _fields_ = [("magic", C.c_uint32), ("abi", C.c_uint32), ("size", C.c_uint32),
                ("flags", C.c_uint32), ("devices", C.c_uint64), ("dtypes", C.c_uint64),
                ("id", C.c_char * 64), ("version", C.c_char * 16), ("vendor", C.c_char * 32),
                ("summary", C.c_char * 96)]


class Host(C.Structure):
    _fields_ = [("size", C.c_uint32), ("max_threads", C.c_uint32), ("ctx", C.c_void_p),
                ("log", C.c_void_p), ("parallel_for", C.c_void_p), ("query", C.c_void_p)]


TENSORS = ("q", "k", "v", "out", "bias", "mask", "lse", "key_mass", "probs")


class Call(C.Structure):
    _fields_ = ([("size", C.c_uint32), ("flags", C.c_uint32)] + [(n, Tensor) for n in TENSORS] +
                [("band_lo", C.c_int64), ("band_hi", C.c_int64), ("scale", C.c_float),
                 ("reserved", C.c_uint32), ("stream", C.c_void_p), ("scratch", C.c_void_p),
                 ("scratch_bytes", C.c_uint64), ("ext", C.c_void_p)])


PTR = C.POINTER
CREATE = C.CFUNCTYPE(C.c_int32, PTR(Host), PTR(Device), C.c_void_p, C.c_uint32, PTR(C.c_void_p),
                     PTR(Error))
FREE = C.CFUNCTYPE(None, C.c_void_p)
SUPPORTS = C.CFUNCTYPE(C.c_int32, C.c_void_p, PTR(Call), PTR(Error))
PREPARE = C.CFUNCTYPE(C.c_int32, C.c_void_p, PTR(Call), PTR(C.c_void_p), PTR(C.c_uint64),
                      PTR(Error))
RUN = C.CFUNCTYPE(C.c_int32, C.c_void_p, PTR(Call), PTR(Error))


class Api(C.Structure):
    _fields_ = [("head", Head), ("create", CREATE), ("destroy", FREE), ("supports", SUPPORTS),
                ("prepare", PREPARE), ("run", RUN), ("release", FREE), ("query", C.c_void_p)]


assert C.sizeof(Tensor) == 96 and C.sizeof(Head) == 240 and C.sizeof(Call) == 928


ALLOC = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_uint64, PTR(C.c_void_p), PTR(Error))
COPY = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_void_p, C.c_void_p, C.c_uint64, C.c_void_p, PTR(Error))
WAIT = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_void_p, PTR(Error))
QUERY = C.CFUNCTYPE(C.c_void_p, C.c_char_p)


class Memory(C.Structure):
    """attn.memory/1"""
    _fields_ = [("size", C.c_uint32), ("reserved", C.c_uint32), ("alloc", ALLOC),
                ("free", C.CFUNCTYPE(None, C.c_void_p, C.c_void_p)), ("copy_in", COPY),
                ("copy_out", COPY), ("synchronize", WAIT)]


class Refused(RuntimeError):
    """What a plugin answered instead of OK; args[0] is the status."""


def text_error():
    buffer = C.create_string_buffer(512)
    return Error(C.sizeof(Error), 512, C.cast(buffer, C.c_char_p), 0), buffer


def checked(status, buffer):
    if status:
        raise Refused(status, "%s: %s" % (STATUS.get(status, status), buffer.value.decode()))


def tensor(t):
    """A torch tensor as the contract sees it; None is an absent one. It promises the alignment that it has."""
    if t is None:
        return Tensor()
    address = t.data_ptr()
    align = min(address & -address, 256) if address else 16
    kind = str(t.dtype).split(".")[1]
    code = {"float32": 2, "float16": 2, "float64": 2, "bfloat16": 4, "uint8": 1, "bool": 1}[kind]
    r = Tensor(data=t.data_ptr(), device_type=CUDA if t.is_cuda else CPU,
               device_id=t.get_device() if t.is_cuda else 0, code=code, bits=t.element_size() * 8,
               lanes=1, rank=t.dim(), align=align)
    for i in range(t.dim()):
        r.shape[i], r.stride[i] = t.shape[i], t.stride(i)
    return r


class Op:
    """One op of a plugin file, on one CUDA device."""

    def __init__(self, path, device=0):
        self.library = C.CDLL(path)
        self.api = Api.in_dll(self.library, "attn_op_v1")
        self.host = Host(C.sizeof(Host), 1, None, None, None, None)
        self.device = Device(CUDA, device, b"cuda")
        self.op = C.c_void_p()
        err, text = text_error()
        checked(self.api.create(self.host, self.device, None, 0, self.op, err), text)

    def call(self, q, k, v, out, bias=None, mask=None, lse=None, key_mass=None, probs=None,
             band=None, scale=0.0):
        c = Call(size=C.sizeof(Call), scale=scale)
        for name, t in zip(TENSORS, (q, k, v, out, bias, mask, lse, key_mass, probs)):
            setattr(c, name, tensor(t))
        if band is not None:
            c.flags, c.band_lo, c.band_hi = BAND, band[0], band[1]
        return c

    def supports(self, c):
        err, text = text_error()
        return self.api.supports(self.op, c, err), text.value.decode()

    def prepare(self, c):
        plan, scratch = C.c_void_p(), C.c_uint64()
        err, text = text_error()
        checked(self.api.prepare(self.op, c, plan, scratch, err), text)
        return plan, scratch.value

    def run(self, plan, c, stream=None, scratch=None):
        """scratch: a torch tensor of bytes, or None. The caller keeps it alive."""
        c.stream = stream
        if scratch is not None:
            c.scratch, c.scratch_bytes = scratch.data_ptr(), scratch.numel() * scratch.element_size()
        err, text = text_error()
        checked(self.api.run(plan, c, err), text)

    def memory(self):
        return C.cast(QUERY(self.api.query)(b"attn.memory/1"), PTR(Memory)).contents

    def alloc(self, size):
        """The address; the caller frees it through memory()."""
        data = C.c_void_p()
        err, text = text_error()
        checked(self.memory().alloc(self.op, size, data, err), text)
        return data

    def synchronize(self, stream=None):
        err, text = text_error()
        checked(self.memory().synchronize(self.op, stream, err), text)

    def release(self, plan):
        self.api.release(plan)

    def close(self):
        self.api.destroy(self.op)
        self.op = None
