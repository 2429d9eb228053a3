"""sdpa(): torch.nn.functional.scaled_dot_product_attention through a plugin, wherever it is called from."""
import torch
from torch.overrides import TorchFunctionMode

from ._attend import attend
from ._library import AttnPlugError

_SDPA = torch.nn.functional.scaled_dot_product_attention


def _route(op, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The result, or None where the call is torch's own business."""
    if dropout_p or query.dim() not in (3, 4) or not query.dim() == key.dim() == value.dim():
        return None
    if torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value)):
        return None
    if is_causal and attn_mask is not None:
        return None  # torch says what is wrong with it
    if query.shape[-3] != key.shape[-3] and not enable_gqa or query.device.type not in ("cpu", "cuda"):
        return None
    flat = query.dim() == 3
    if flat:
        query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        attn_mask = attn_mask.unsqueeze(0) if attn_mask is not None and attn_mask.dim() == 3 else attn_mask
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        return None
    masks = {} if attn_mask is None else {"mask" if attn_mask.dtype == torch.bool else "bias": attn_mask}
    out = attend(query, key, value, is_causal=is_causal, scale=scale, op=op, **masks)
    return out.squeeze(0) if flat else out


class sdpa(TorchFunctionMode):
    """with attnplug.sdpa(): every F.scaled_dot_product_attention of this thread goes to a plugin, and falls through to
    torch where it is not for one (dropout, gradients, other devices) or where no op takes it.

    op: as in attend().  `routed` and `fell_through` count; `reason` is the last refusal's text.
    """

    def __init__(self, op=None):
        super().__init__()
        self.op, self.routed, self.fell_through, self.reason = op, 0, 0, ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not _SDPA:
            return function(*args, **kwargs)
        try:
            made = _route(self.op, *args, **kwargs)
        except (AttnPlugError, TypeError, ValueError) as error:
            made, self.reason = None, str(error)
        if made is None:
            self.fell_through += 1
            return function(*args, **kwargs)
        self.routed += 1
        return made
