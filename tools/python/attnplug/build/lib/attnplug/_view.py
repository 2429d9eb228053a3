"""torch tensors and NumPy arrays as the contract sees them: no copy, only shapes, strides in elements and a pointer."""
from . import _abi as abi


def describe(shape, strides, dtype, kind, index):
    """An abi.Tensor without data; dtype is the name that torch and NumPy share."""
    if dtype not in abi.DTYPES:
        raise TypeError("attnplug: element type %s, expected one of %s" % (dtype, ", ".join(abi.DTYPES)))
    if len(shape) > 4:
        raise ValueError("attnplug: a tensor of %d dimensions, expected at most 4" % len(shape))
    code, bits = abi.DTYPES[dtype]
    view = abi.Tensor(device_type=abi.CUDA if kind == "cuda" else abi.CPU, device_id=index, code=code, bits=bits,
                      lanes=1, rank=len(shape))
    for i, (extent, stride) in enumerate(zip(shape, strides)):
        view.shape[i], view.stride[i] = extent, stride
    return view


def numpy_view(array):
    if any(s % array.itemsize for s in array.strides):
        raise ValueError("attnplug: strides of %s bytes are no multiple of the element's %d" %
                         (array.strides, array.itemsize))
    return describe(array.shape, [s // array.itemsize for s in array.strides], array.dtype.name, "cpu", 0)


def torch_view(tensor):
    device = tensor.device
    if device.type not in ("cpu", "cuda"):
        raise TypeError("attnplug: a tensor on %s, expected cpu or cuda" % device)
    return describe(tensor.shape, tensor.stride(), str(tensor.dtype)[6:], device.type, device.index or 0)
