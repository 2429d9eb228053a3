"""AttnPlugProcessor: diffusers' attention processor over a processor plugin or, on a GPU, over attend().

On a CPU in fp32 the whole layer runs in libattnsag through the processor's .so, on the module's own memory: every
name of DESIGN's list works, LoRA and IP-Adapter weights given as keyword arguments under diffusers' names.  On other
devices and types, where gradients are wanted, and where LoRA or another wrapper sits in the module's linears, torch
computes the projections and an op (with gradients: torch) the attention: names that stand for the plain layer alone.
"""
import ctypes as C
import weakref

import torch

from . import _abi as abi
from ._attend import attend
from ._engine import device_of, registry, thread
from ._library import AttnPlugError, plug, sag
from ._view import torch_view

_PLAIN = ("standard", "fused")
_computers = {}


def _computer(threads):
    """One for the process and number of threads; it lives as long as the process."""
    if threads not in _computers:
        made, mine = C.c_void_p(), thread()
        mine.error.raise_for(sag().attn_computer_open(registry(), device_of("cpu", 0), threads, made, mine.error.ref))
        _computers[threads] = made
    return _computers[threads]


def _name(text):
    """The processor's plugin and op of a name; "standard" and the like stand for themselves."""
    found, mine = abi.Name(size=C.sizeof(abi.Name)), thread()
    mine.error.raise_for(plug().attn_name_find(text.encode(), found, mine.error.ref))
    if not found.processor:
        raise AttnPlugError(2, "processor \"%s\" is the name of an op, expected a processor's; see attnplug.names()" % text)
    return found.processor.decode(), found.op.decode()


def _params(values):
    """(array, count, what must stay alive) of a dictionary of numbers, texts and tensors."""
    array, alive = (abi.Param * max(len(values), 1))(), []
    for at, (name, value) in zip(array, values.items()):
        at.name = name.encode()
        if isinstance(value, torch.Tensor):
            value = value.detach().to(torch.float32).cpu().contiguous()
            view = torch_view(value)
            view.data = value.data_ptr()
            at.kind, at.tensor = abi.PARAM_TENSOR, C.pointer(view)
            alive += [value, view]
        elif isinstance(value, str):
            at.kind, at.text = abi.PARAM_TEXT, value.encode()
        elif isinstance(value, (bool, int)):
            at.kind, at.i = abi.PARAM_INT, int(value)
        elif isinstance(value, float):
            at.kind, at.f = abi.PARAM_FLOAT, value
        else:
            raise TypeError("attnplug: parameter %s is %r, expected a number, a text or a tensor" % (name, value))
    return array, len(values), alive


def _flat(values):
    """Lists become name.0, name.1, ..., as the plugins call them."""
    flat = {}
    for name, value in values.items():
        for key, item in ([(name, value)] if not isinstance(value, (list, tuple)) else
                          [("%s.%d" % (name, i), x) for i, x in enumerate(value)]):
            flat[key] = item
    return flat


def _tensor(t):
    view = torch_view(t)
    view.data = t.data_ptr()
    return view


def _fill_linear(linear, module):
    if module is None:
        return
    weight = module.weight.detach()
    linear.weight = _tensor(weight.reshape(weight.shape[0], -1))
    if getattr(module, "bias", None) is not None:
        linear.bias = _tensor(module.bias.detach())


def _fill_norm(norm, module):
    """nn.GroupNorm, nn.LayerNorm, or diffusers' SpatialNorm."""
    if module is None:
        return
    if hasattr(module, "conv_y"):
        _fill_norm(norm, module.norm_layer)
        norm.kind = abi.NORM_SPATIAL
        _fill_linear(norm.conv_y, module.conv_y)
        _fill_linear(norm.conv_b, module.conv_b)
        return
    norm.kind = abi.NORM_GROUP if isinstance(module, torch.nn.GroupNorm) else abi.NORM_LAYER
    norm.groups = getattr(module, "num_groups", 0)
    norm.eps = module.eps
    if module.weight is not None:
        norm.weight = _tensor(module.weight.detach())
    if module.bias is not None:
        norm.bias = _tensor(module.bias.detach())


def _layer(attn):
    """diffusers' Attention module as data, on its own memory."""
    layer = abi.Layer(size=C.sizeof(abi.Layer), name=b"attnplug.AttnPlugProcessor", heads=attn.heads)
    inner = attn.to_q.weight.shape[0]
    layer.dim_head = inner // attn.heads
    layer.query_dim = attn.to_q.weight.shape[1]
    layer.cross_dim = attn.to_k.weight.shape[1] if attn.to_k is not None else layer.query_dim
    layer.scale, layer.rescale = attn.scale, attn.rescale_output_factor
    for flag, wanted in ((abi.RESIDUAL, attn.residual_connection), (abi.ONLY_CROSS, attn.only_cross_attention),
                         (abi.UPCAST_ATTENTION, attn.upcast_attention), (abi.UPCAST_SOFTMAX, attn.upcast_softmax)):
        layer.flags |= flag if wanted else 0
    for name, module in (("to_q", attn.to_q), ("to_k", attn.to_k), ("to_v", attn.to_v), ("to_out", attn.to_out[0]),
                         ("add_k", getattr(attn, "add_k_proj", None)), ("add_v", getattr(attn, "add_v_proj", None))):
        _fill_linear(getattr(layer, name), module)
    for name, module in (("group_norm", attn.group_norm), ("norm_cross", attn.norm_cross),
                         ("spatial_norm", attn.spatial_norm)):
        _fill_norm(getattr(layer, name), module)
    return layer


def _wrapped(attn):
    """Something else than a linear where a linear is read: PEFT's layers, diffusers' LoRACompatibleLinear with LoRA."""
    linears = [attn.to_q, attn.to_k, attn.to_v, attn.to_out[0]]
    return any(m is not None and (not isinstance(m, torch.nn.Linear) or hasattr(m, "base_layer") or
                                  getattr(m, "lora_layer", None) is not None) for m in linears)


def _wants_gradients(attn, hidden):
    return torch.is_grad_enabled() and (hidden.requires_grad or any(p.requires_grad for p in attn.parameters()))


def _addresses(attn):
    return tuple((p.data_ptr(), p._version) for p in attn.parameters())


class _Bound:
    """A module's layer bound to a processor plugin; bound anew where the module's weights moved or changed."""

    def __init__(self, attn, processor, op, values, threads):
        self.layer = _layer(attn)
        self.params, count, self.alive = _params(values)
        self.addresses = _addresses(attn)
        spec = abi.LayerSpec(size=C.sizeof(abi.LayerSpec), processor=processor.encode(),
                             op=op.encode() if op else None, params=self.params, n_params=count)
        self.handle, mine = C.c_void_p(), thread()
        mine.error.raise_for(sag().attn_layer_bind(_computer(threads), self.layer, spec, self.handle, mine.error.ref))
        self.channels = attn.to_out[0].weight.shape[0]
        self.unbind = sag().attn_layer_unbind

    def __del__(self):
        if getattr(self, "handle", None):
            self.unbind(self.handle)

    def run(self, hidden, encoder, bias, temb, images, values):
        shape = list(hidden.shape)
        shape[1 if hidden.dim() == 4 else 2] = self.channels
        out = torch.empty(shape, dtype=hidden.dtype)
        call = abi.LayerCall(size=C.sizeof(abi.LayerCall), hidden=_tensor(hidden), out=_tensor(out))
        for name, t in (("encoder", encoder), ("bias", bias), ("temb", temb)):
            if t is not None:
                setattr(call, name, _tensor(t))
        if images:
            views = (abi.Tensor * len(images))(*[_tensor(t) for t in images])
            call.images, call.n_images = views, len(images)
        params, count, alive = _params(values)
        call.params, call.n_params = params, count
        mine = thread()
        mine.error.raise_for(sag().attn_layer_run(self.handle, call, mine.error.ref))
        del alive
        return out


class AttnPlugProcessor:
    """pipe.unet.set_attn_processor(attnplug.AttnPlugProcessor())

    processor: "standard", "fused", "lora", "ip_adapter", ... or a class name of diffusers ("AttnProcessor2_0").
    op: a name, or None for the processor's own or the fastest.  params: what the plugin takes at bind (`attnplug list
    --verbose` says), scalars, texts and tensors under diffusers' names; lists become name.0, name.1.
    One object may serve all layers.  A call goes to any thread that runs the model, one at a time for each layer.
    """

    def __init__(self, processor="standard", op=None, **params):
        self.name, self.op, self.params = processor, op, _flat(params)
        self.plugin, self.named_op = _name(processor)
        self._bound = weakref.WeakKeyDictionary()

    def __getstate__(self):
        """Copies and pickles hold what was asked for; layers are bound anew."""
        return {"processor": self.name, "op": self.op, "params": self.params}

    def __setstate__(self, state):
        self.__init__(state["processor"], state["op"], **state["params"])

    def _layer_of(self, attn):
        bound = self._bound.get(attn)
        if bound is None or bound.addresses != _addresses(attn):
            self._bound[attn] = bound = _Bound(attn, self.name, self.op, self.params, torch.get_num_threads())
        return bound

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, scale=None,
                 *args, **kwargs):
        # Newer diffusers passes only those of cross_attention_kwargs that stand in the signature, so scale does.
        kwargs.update({} if scale is None else {"scale": scale})
        images = []
        if isinstance(encoder_hidden_states, (tuple, list)):
            encoder_hidden_states, images = encoder_hidden_states
        tokens = hidden_states.shape[2] * hidden_states.shape[3] if hidden_states.dim() == 4 else hidden_states.shape[1]
        keys = tokens if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        bias = self._bias(attn, attention_mask, hidden_states.shape[0], tokens, keys)
        gradients = _wants_gradients(attn, hidden_states)
        if hidden_states.device.type == "cpu" and hidden_states.dtype == torch.float32 and not gradients and \
                not _wrapped(attn):
            values = {name: value for name, value in _flat(kwargs).items() if isinstance(value, (int, float))}
            return self._layer_of(attn).run(hidden_states, encoder_hidden_states, bias, temb, images, values)
        if self.plugin not in _PLAIN or self.params or images:
            raise AttnPlugError(abi.UNSUPPORTED, "processor \"%s\" on %s in %s, gradients %s: only the plain layer runs so, "
                                "expected one of %s without parameters" %
                                (self.name, hidden_states.device, hidden_states.dtype,
                                 "wanted" if gradients else "not wanted", ", ".join(_PLAIN)))
        return self._torch(attn, hidden_states, encoder_hidden_states, bias, temb, gradients)

    @staticmethod
    def _bias(attn, mask, batch, tokens, keys):
        """diffusers' attention_mask, as its own processors prepare it, viewed as [B, H, N, keys]."""
        if mask is None:
            return None
        mask = attn.prepare_attention_mask(mask, keys, batch)
        return mask.view(batch, attn.heads, -1, mask.shape[-1]).expand(batch, attn.heads, tokens, -1)

    def _torch(self, attn, hidden, encoder, bias, temb, gradients):
        """The layer of diffusers v0.26.3 (models/attention_processor.py, Attention) with its attention by an op."""
        whole, residual = hidden.shape, hidden
        if attn.spatial_norm is not None:
            hidden = attn.spatial_norm(hidden, temb)
        if hidden.dim() == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
        if encoder is not None and attn.norm_cross is not None:
            encoder = attn.norm_encoder_hidden_states(encoder)
        source = hidden if encoder is None else encoder
        q, k, v = (linear(x).unflatten(2, (attn.heads, -1)).transpose(1, 2) for linear, x in
                   ((attn.to_q, hidden), (attn.to_k, source), (attn.to_v, source)))
        if gradients:
            made = torch.nn.functional.scaled_dot_product_attention(
                q * (attn.scale * q.shape[3] ** 0.5), k, v, attn_mask=bias).transpose(1, 2)
        else:
            made = torch.empty((q.shape[0], q.shape[2], q.shape[1], v.shape[3]), dtype=q.dtype, device=q.device)
            op = self.op or (self.named_op if self.named_op != "auto" else None)
            attend(q, k, v, bias=bias, scale=attn.scale, op=op, out=made.transpose(1, 2),
                   f32_scores=bool(attn.upcast_attention))
        made = attn.to_out[1](attn.to_out[0](made.flatten(2)))
        if len(whole) == 4:
            made = made.transpose(1, 2).reshape(whole[0], -1, whole[2], whole[3])
        if attn.residual_connection:
            made = made + residual
        return made / attn.rescale_output_factor
