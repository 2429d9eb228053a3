"""One attention layer in float64 NumPy, as diffusers v0.26.3 means it.

A second opinion on every reference that diffusers gives, and the reference
itself where its class raises or computes something else than was meant
(src/diffusers/models/attention_processor.py). Arrays are float64.
"""

import numpy as np

from ops import attention

DEFAULTS = {
    "cross_attention_dim": None,
    "heads": 8,
    "dim_head": 64,
    "cross_attention_norm": None,
    "cross_attention_norm_num_groups": 32,
    "norm_num_groups": None,
    "spatial_norm_dim": None,
    "scale_qk": True,
    "only_cross_attention": False,
    "eps": 1e-5,
    "rescale_output_factor": 1.0,
    "residual_connection": False,
    "out_dim": None,
}


def normalise(x, axes, eps):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)


def group_norm(x, groups, eps, weight, bias):
    """x [B,N,C]; each group of channels is normalised over all tokens."""
    b, n, c = x.shape
    y = normalise(x.reshape(b, n, groups, c // groups), (1, 3), eps)
    return y.reshape(b, n, c) * weight + bias


def tokens(x):
    """[B,C,H,W] to [B,HW,C]; three dimensions stay."""
    return x if x.ndim == 3 else x.reshape(*x.shape[:2], -1).swapaxes(1, 2)


class Layer:
    """Attention's weights by diffusers' names, with any LoRA adapters added."""

    def __init__(self, config, weights, torch_scale=False, adapters=()):
        self.config = {**DEFAULTS, **config}
        self.weights = weights
        self.adapters = adapters  # (prefix of the names, scale[, alpha if not among the weights])
        out_dim, dim_head = self.config["out_dim"], self.config["dim_head"]
        self.heads = out_dim // dim_head if out_dim else self.config["heads"]
        # scaled_dot_product_attention knows no other scale than its own.
        scaled = self.config["scale_qk"] or torch_scale
        self.scale = dim_head**-0.5 if scaled else 1.0

    def linear(self, name, x):
        w = self.weights
        y = x @ w[name + ".weight"].T
        if name + ".bias" in w:
            y = y + w[name + ".bias"]
        for prefix, scale, *given in self.adapters:
            term = f"processor.{prefix}{name.removesuffix('.0')}_lora."
            if term + "down.weight" in w:
                down, up = w[term + "down.weight"], w[term + "up.weight"]
                alpha = given[0] if given else w.get(f"processor.{prefix}network_alpha")
                factor = 1.0 if alpha is None else float(alpha) / len(down)
                y = y + scale * factor * (x @ down.T @ up.T)
        return y

    def spatial_norm(self, x, zq):
        w, (_, _, height, width) = self.weights, x.shape
        rows = np.arange(height) * zq.shape[2] // height
        columns = np.arange(width) * zq.shape[3] // width
        zq = zq[:, :, rows][:, :, :, columns]

        def conv(name):
            kernel = w[f"spatial_norm.{name}.weight"][:, :, 0, 0]
            bias = w[f"spatial_norm.{name}.bias"]
            return np.einsum("oc,bchw->bohw", kernel, zq) + bias[:, None, None]

        norm = group_norm(
            tokens(x), 32, 1e-6, w["spatial_norm.norm_layer.weight"], w["spatial_norm.norm_layer.bias"]
        )
        return norm.swapaxes(1, 2).reshape(x.shape) * conv("conv_y") + conv("conv_b")

    def group_norm(self, x):
        if self.config["norm_num_groups"] is None:
            return x
        w = self.weights
        return group_norm(
            x, self.config["norm_num_groups"], self.config["eps"], w["group_norm.weight"], w["group_norm.bias"]
        )

    def encoder(self, x):
        kind, w = self.config["cross_attention_norm"], self.weights
        if kind == "layer_norm":
            return normalise(x, (-1,), 1e-5) * w["norm_cross.weight"] + w["norm_cross.bias"]
        if kind == "group_norm":
            groups = self.config["cross_attention_norm_num_groups"]
            return group_norm(x, groups, 1e-5, w["norm_cross.weight"], w["norm_cross.bias"])
        return x

    def split(self, x):
        b, n, c = x.shape
        return x.reshape(b, n, self.heads, c // self.heads).swapaxes(1, 2)

    def attend(self, q, k, v, mask=None):
        """[B,N,heads*D] in and out; mask [B or B*heads, 1 or Nq, Nk] is added."""
        bias = None
        if mask is not None:
            if len(mask) < len(q) * self.heads:
                mask = np.repeat(mask, self.heads, axis=0)
            bias = mask.reshape(len(q), self.heads, *mask.shape[1:])
        out, _, _ = attention(self.split(q), self.split(k), self.split(v), self.scale, bias)
        return out.swapaxes(1, 2).reshape(*q.shape[:2], -1)

    def finish(self, x, residual, shape, add):
        """to_out, the input's form, the residual."""
        y = self.linear("to_out.0", x)
        if len(shape) == 4:
            y = y.swapaxes(1, 2).reshape(shape)
        return y + residual if add else y


def image_branches(layer, q, images, scales):
    """What the image prompts add to the attention of an IP-Adapter."""
    added = 0.0
    for i, (image, scale) in enumerate(zip(images, scales, strict=True)):
        image = image.reshape(len(image), -1, image.shape[-1])  # several pictures: one row of tokens
        k = layer.linear(f"processor.to_k_ip.{i}", image)
        v = layer.linear(f"processor.to_v_ip.{i}", image)
        added = added + scale * layer.attend(q, k, v)
    return added


def standard(layer, hidden, encoder=None, mask=None, temb=None, images=(), scales=()):
    """AttnProcessor and what only runs it in another way; with images, IP-Adapter."""
    config, x = layer.config, hidden
    if config["spatial_norm_dim"] is not None:
        x = layer.spatial_norm(x, temb)
    x = layer.group_norm(tokens(x))
    context = x if encoder is None else layer.encoder(encoder)
    q = layer.linear("to_q", x)
    y = layer.attend(q, layer.linear("to_k", context), layer.linear("to_v", context), mask)
    y = y + image_branches(layer, q, images, scales)
    y = layer.finish(y, hidden, hidden.shape, config["residual_connection"])
    return y / config["rescale_output_factor"]


def with_tail(layer, hidden, encoder, mask=None, num_tokens=4, scales=()):
    """IP-Adapter whose one image prompt comes as the last tokens of the text."""
    text, image = encoder[:, :-num_tokens], encoder[:, -num_tokens:]
    return standard(layer, hidden, text, mask, images=[image], scales=scales)


def added_kv(layer, hidden, encoder=None, mask=None, temb=None):
    """AttnAddedKVProcessor: keys are the text's, then the picture's own."""
    x = hidden
    if layer.config["spatial_norm_dim"] is not None:
        x = layer.spatial_norm(x, temb)
    x = tokens(x)
    # Without a text the picture stands in for it, before its group norm.
    context = x if encoder is None else layer.encoder(encoder)
    x = layer.group_norm(x)
    k, v = layer.linear("add_k_proj", context), layer.linear("add_v_proj", context)
    if not layer.config["only_cross_attention"]:
        k = np.concatenate([k, layer.linear("to_k", x)], axis=1)
        v = np.concatenate([v, layer.linear("to_v", x)], axis=1)
    if mask is not None and mask.shape[-1] < k.shape[1]:
        mask = np.pad(mask, ((0, 0), (0, 0), (0, k.shape[1] - mask.shape[-1])))
    y = layer.attend(layer.linear("to_q", x), k, v, mask)
    return layer.finish(y, hidden, hidden.shape, True)


def custom_diffusion(layer, hidden, encoder=None, mask=None, train_kv=True, train_q_out=True):
    """The layer's norms, residual and rescaling are left out, as upstream."""
    def own(name, trained):
        return f"processor.{name}_custom_diffusion" if trained else name

    context = hidden if encoder is None else layer.encoder(encoder)
    q = layer.linear(own("to_q", train_q_out), hidden)
    k = layer.linear(own("to_k", train_kv), context)
    v = layer.linear(own("to_v", train_kv), context)
    out = "processor.to_out_custom_diffusion.0" if train_q_out else "to_out.0"
    return layer.linear(out, layer.attend(q, k, v, mask))


def cross_frame(layer, hidden, encoder=None, mask=None, batch_size=2):
    """Without a text, every frame of a batch entry looks at its first frame."""
    context = hidden if encoder is None else layer.encoder(encoder)
    if encoder is None:
        frames = len(hidden) // batch_size
        context = np.repeat(hidden[::frames], frames, axis=0)
    y = layer.attend(
        layer.linear("to_q", hidden), layer.linear("to_k", context), layer.linear("to_v", context), mask
    )
    return layer.linear("to_out.0", y)
