"""attention_forward(): DiffSynth-Studio's call (diffsynth/core/attention/attention.py), its layouts taken as strides."""
from ._attend import attend


def _axes(pattern, what):
    """ "b s (n d)" -> [["b"], ["s"], ["n", "d"]] """
    axes, group = [], None
    for word in pattern.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            group = []
        elif word == ")":
            axes.append(group)
            group = None
        else:
            (axes if group is None else group).append([word] if group is None else word)
    if sorted(sum(axes, [])) != ["b", "d", "n", "s"]:
        raise ValueError("attnplug: %s \"%s\": expected b, n, s and d once each, such as \"b s (n d)\"" % (what, pattern))
    return axes


def _split(x, axes, dims, what):
    """x as [b, n, s, d], a view; dims gives what a group cannot tell."""
    if x.dim() != len(axes):
        raise ValueError("attnplug: %s has %d dimensions, expected %d" % (what, x.dim(), len(axes)))
    sizes = []
    for axis, extent in zip(axes, x.shape):
        known = [dims.get(name) for name in axis]
        if len(axis) > 1 and known.count(None) > 1:
            raise ValueError("attnplug: %s: (%s) needs all but one of its sizes in dims" % (what, " ".join(axis)))
        product = 1
        for size in known:
            product *= size or 1
        sizes += [extent if len(axis) == 1 else size or extent // product for size in known]
    flat = sum(axes, [])
    return x.view(sizes).permute([flat.index(name) for name in "bnsd"])  # splitting a dimension never copies


def _empty_as(q, v, axes):
    """A tensor in the wanted layout, and its [b, n, s, d] view."""
    sizes = {"b": q.shape[0], "n": q.shape[1], "s": q.shape[2], "d": v.shape[3]}
    flat = sum(axes, [])
    whole = q.new_empty([sizes[name] for name in flat])
    shape = []
    for axis in axes:
        shape.append(1)
        for name in axis:
            shape[-1] *= sizes[name]
    return whole.view(shape), whole.permute([flat.index(name) for name in "bnsd"])


def attention_forward(q, k, v, q_pattern="b n s d", k_pattern="b n s d", v_pattern="b n s d", out_pattern="b n s d",
                      dims=None, attn_mask=None, scale=None, compatibility_mode=False, is_causal=False, window=None,
                      op=None):
    """Attention in any of DiffSynth's layouts: "b n s d", "b s n d", "b s (n d)", in and out; n heads, s tokens.

    dims: sizes that a grouped dimension does not tell, such as {"n": 8}.  attn_mask: booleans (True may be seen) or
    floats to be added, broadcast to [b, n, s, s'].  k and v may have fewer heads (grouped queries).
    compatibility_mode: exact ops alone.  window: W for |i - j| <= W.  Nothing is copied or transposed.
    """
    dims = dims or {}
    key_dims = {name: size for name, size in dims.items() if name != "s"}
    q4 = _split(q, _axes(q_pattern, "q_pattern"), dims, "q")
    if "d" not in key_dims:
        key_dims["d"] = q4.shape[3]
    key_dims.pop("n", None)  # grouped queries: told by d
    k4 = _split(k, _axes(k_pattern, "k_pattern"), key_dims, "k")
    v4 = _split(v, _axes(v_pattern, "v_pattern"), {"n": k4.shape[1]}, "v")
    out, out4 = _empty_as(q4, v4, _axes(out_pattern, "out_pattern"))
    masks = {}
    if attn_mask is not None:
        masks = {"mask" if str(attn_mask.dtype) == "torch.bool" else "bias": attn_mask}
    attend(q4, k4, v4, out=out4, scale=scale, is_causal=is_causal, window=window, op=op or ("torch" if
           compatibility_mode else None), **masks)
    return out
