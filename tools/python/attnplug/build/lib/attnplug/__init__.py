"""Attention plugins from Python.

    attnplug.attend(query, key, value)                torch tensors (CPU, CUDA) and NumPy arrays
    attnplug.sdpa()                                   routes F.scaled_dot_product_attention while it is open
    attnplug.attention_forward(q, k, v, q_pattern=)   DiffSynth's layouts
    attnplug.AttnPlugProcessor(...)                   for pipe.unet.set_attn_processor
    attnplug.register_diffusers_backend()             "attnplug" for model.set_attention_backend

Needs libattnplug; torch, NumPy and diffusers only for what is used of them.
"""
from ._attend import attend, names, why
from ._library import AttnPlugError

__version__ = "0.1.0"
_LATER = {"attention_forward": "_layouts", "sdpa": "_sdpa", "AttnPlugProcessor": "_processor",
          "register_diffusers_backend": "_dispatcher"}
__all__ = ["attend", "names", "why", "AttnPlugError"] + list(_LATER)


def __getattr__(name):
    """What needs torch is imported when it is asked for."""
    if name not in _LATER:
        raise AttributeError("attnplug has no %s; it has %s" % (name, ", ".join(__all__)))
    from importlib import import_module
    return getattr(import_module("." + _LATER[name], __name__), name)
