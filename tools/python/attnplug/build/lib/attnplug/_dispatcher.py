"""A backend named "attnplug" for the attention dispatcher of diffusers 0.35 and newer (models/attention_dispatch.py).

That module calls itself experimental; what is used of it is the registry's `register` and the enumeration of names.
"""
from ._attend import attend
from ._sdpa import _SDPA


def _backend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """query, key, value, result: [B, N, H, D], as the dispatcher has them; strides, not copies."""
    import torch
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if attn_mask is not None and attn_mask.dim() == 2 and attn_mask.shape == (query.shape[0], key.shape[1]):
        attn_mask = attn_mask[:, None, None, :]
    grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if dropout_p or grad:
        return _SDPA(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale,
                     **({"enable_gqa": True} if enable_gqa else {})).transpose(1, 2)
    out = torch.empty((query.shape[0], query.shape[1], query.shape[2], value.shape[3]), dtype=query.dtype,
                      device=query.device)
    masks = {} if attn_mask is None else {"mask" if attn_mask.dtype == torch.bool else "bias": attn_mask}
    attend(q, k, v, out=out.transpose(1, 2), is_causal=is_causal, scale=scale, **masks)
    return out


def register_diffusers_backend(name="attnplug"):
    """Afterwards model.set_attention_backend(name), or `with attention_backend(name)`.  Calling it twice is no harm."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
    if name not in [member.value for member in AttentionBackendName]:
        member = str.__new__(AttentionBackendName, name)
        member._name_, member._value_ = name.upper(), name
        AttentionBackendName._member_map_[member._name_] = member
        AttentionBackendName._member_names_.append(member._name_)
        AttentionBackendName._value2member_map_[name] = member
    member = AttentionBackendName(name)
    _AttentionBackendRegistry.register(member)(_backend)
    return member
