"""Processors without weights of their own: the plain layer, run in several ways."""

from diffusers.models import attention_processor as ap

import formula

Q = {"query_dim": 12, "heads": 3, "dim_head": 4}
SELF = {"hidden": (2, 17, 12)}
CROSS = {"hidden": (2, 17, 12), "encoder": (2, 11, 10)}
TO_TEXT = {**Q, "cross_attention_dim": 10}

# name: (arguments of Attention, shapes of the inputs)
LAYERS = {
    "self": (Q, SELF),
    "cross": (TO_TEXT, CROSS),
    "cross_same_width": (Q, {"hidden": (2, 9, 12), "encoder": (2, 5, 12)}),
    "one_token": ({"query_dim": 8, "heads": 2, "dim_head": 3}, {"hidden": (1, 1, 8)}),
    "vae": (
        {
            "query_dim": 12,
            "heads": 1,
            "dim_head": 12,
            "norm_num_groups": 3,
            "eps": 1e-6,
            "bias": True,
            "residual_connection": True,
            "upcast_softmax": True,
            "rescale_output_factor": 1.5,
        },
        {"hidden": (2, 12, 5, 3)},
    ),
    "cross_4d": (
        {**TO_TEXT, "norm_num_groups": 4, "residual_connection": True, "bias": True},
        {"hidden": (2, 12, 3, 5), "encoder": (2, 7, 10)},
    ),
    "spatial_norm": (
        {"query_dim": 32, "heads": 2, "dim_head": 3, "spatial_norm_dim": 4, "residual_connection": True},
        {"hidden": (2, 32, 3, 5), "temb": (2, 4, 2, 3)},
    ),
    "both_norms": (
        {"query_dim": 32, "heads": 2, "dim_head": 3, "spatial_norm_dim": 3, "norm_num_groups": 8},
        {"hidden": (1, 32, 3, 4), "temb": (1, 3, 7, 9)},
    ),
    "norm_cross_layer": ({**TO_TEXT, "cross_attention_norm": "layer_norm"}, CROSS),
    "norm_cross_group": (
        {**TO_TEXT, "cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 5},
        CROSS,
    ),
    "norm_cross_unused": ({**Q, "cross_attention_norm": "layer_norm"}, SELF),
    "mask_self": (Q, {**SELF, "mask": (2, 1, 17)}),
    "mask_cross": (TO_TEXT, {**CROSS, "mask": (2, 1, 11)}),
    "mask_rows": (TO_TEXT, {**CROSS, "mask": (6, 17, 11)}),
    "mask_4d": ({**Q, "norm_num_groups": 2}, {"hidden": (2, 12, 5, 3), "mask": (2, 1, 15)}),
    "biases": ({**Q, "bias": True, "out_bias": False}, SELF),
    "unscaled": ({**TO_TEXT, "scale_qk": False}, CROSS),
    "upcast": ({**TO_TEXT, "upcast_attention": True, "upcast_softmax": True}, CROSS),
    "out_dim": ({**Q, "out_dim": 20}, SELF),
    "wide_inner": ({"query_dim": 8, "heads": 5, "dim_head": 3}, {"hidden": (2, 13, 8)}),
    "rescaled": ({**Q, "residual_connection": True, "rescale_output_factor": 0.7}, SELF),
}

BRIEF = ["self", "cross", "vae", "spatial_norm", "norm_cross_group", "mask_rows", "unscaled", "out_dim"]

ADDED = {**Q, "added_kv_proj_dim": 10, "norm_num_groups": 3, "bias": True}
ADDED_SHAPES = {"hidden": (2, 12, 3, 5), "encoder": (2, 6, 10)}

ADDED_LAYERS = {
    "text": (ADDED, ADDED_SHAPES),
    "only_cross": ({**ADDED, "only_cross_attention": True}, ADDED_SHAPES),
    "no_text": (
        {**Q, "added_kv_proj_dim": 12, "norm_num_groups": 4, "rescale_output_factor": 3.0},
        {"hidden": (2, 12, 3, 5)},
    ),
    "norm_cross_group": (
        {**ADDED, "cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 2},
        ADDED_SHAPES,
    ),
    "mask": (ADDED, {**ADDED_SHAPES, "mask": (2, 1, 6)}),
    "unscaled": ({**ADDED, "scale_qk": False}, ADDED_SHAPES),
    "wide_inner": ({**ADDED, "heads": 5}, ADDED_SHAPES),
}


def case(processor, make, compute=formula.standard, **more):
    return {"processor": processor, "make": make, "formula": compute, **more}


def over(prefix, layers, names, make_case):
    for name in names:
        config, shapes = layers[name]
        yield f"{prefix}_{name}", make_case(name), config, shapes


def standard():
    yield from over("AttnProcessor", LAYERS, LAYERS, lambda n: case("AttnProcessor", ap.AttnProcessor))
    yield from over(
        "AttnProcessor2_0",
        LAYERS,
        LAYERS,
        lambda n: case("AttnProcessor2_0", ap.AttnProcessor2_0, torch_scale=True),
    )
    yield from over(
        "XFormersAttnProcessor", LAYERS, BRIEF, lambda n: case("XFormersAttnProcessor", ap.XFormersAttnProcessor)
    )
    # Not in v0.26.3: v0.28.0's formula, which in fp32 is AttnProcessor2_0's.
    yield from over(
        "AttnProcessorNPU",
        LAYERS,
        ["self", "cross", "vae", "mask_cross", "unscaled"],
        lambda n: case("AttnProcessorNPU", None, torch_scale=True, wrong=True),
    )


def sliced_case(name, size, make, compute, **more):
    return case(f"{name}:slice_size={size}", make, compute, **more)


def sliced():
    """Six rows of batch times heads: slices of 1, 2, 3 and 6 fit, 4 and 5 do not."""
    name = "SlicedAttnProcessor"
    for layer, size in [("self", 1), ("cross", 2), ("mask_rows", 3), ("vae", 2), ("cross_4d", 6), ("unscaled", 2)]:
        config, shapes = LAYERS[layer]
        made = sliced_case(name, size, lambda s=size: ap.SlicedAttnProcessor(s), formula.standard)
        yield f"{name}_{layer}_{size}", made, config, shapes
    for layer, size in [("self", 4), ("mask_cross", 5), ("cross_4d", 4)]:
        config, shapes = LAYERS[layer]
        made = sliced_case(name, size, lambda s=size: ap.SlicedAttnProcessor(s), formula.standard, wrong=True)
        yield f"{name}_{layer}_{size}", made, config, shapes
    # The words of set_attention_slice: half of the heads (here 3, so 1), one.
    for word in ("auto", "max"):
        config, shapes = LAYERS["cross"]
        made = sliced_case(name, word, lambda: ap.SlicedAttnProcessor(1), formula.standard)
        yield f"{name}_cross_{word}", made, config, shapes
    # Upstream forgets the spatial norm here, and only here.
    config, shapes = LAYERS["spatial_norm"]
    made = sliced_case(name, 2, lambda: ap.SlicedAttnProcessor(2), formula.standard, wrong=True)
    yield f"{name}_spatial_norm_2", made, config, shapes

    name = "SlicedAttnAddedKVProcessor"
    for layer, size in [("text", 2), ("mask", 3), ("only_cross", 1), ("no_text", 6)]:
        config, shapes = ADDED_LAYERS[layer]
        made = sliced_case(name, size, lambda s=size: ap.SlicedAttnAddedKVProcessor(s), formula.added_kv)
        yield f"{name}_{layer}_{size}", made, config, shapes
    config, shapes = ADDED_LAYERS["mask"]
    made = sliced_case(name, 4, lambda: ap.SlicedAttnAddedKVProcessor(4), formula.added_kv, wrong=True)
    yield f"{name}_mask_4", made, config, shapes


def added_kv():
    name = "AttnAddedKVProcessor"
    yield from over(name, ADDED_LAYERS, ADDED_LAYERS, lambda n: case(name, ap.AttnAddedKVProcessor, formula.added_kv))
    name = "AttnAddedKVProcessor2_0"
    yield from over(
        name,
        ADDED_LAYERS,
        ADDED_LAYERS,
        # It takes the inner width for the layer's own.
        lambda n: case(
            name, ap.AttnAddedKVProcessor2_0, formula.added_kv, torch_scale=True, wrong=n == "wide_inner"
        ),
    )
    name = "XFormersAttnAddedKVProcessor"
    yield from over(
        name,
        ADDED_LAYERS,
        ["text", "only_cross", "mask", "unscaled"],
        lambda n: case(name, ap.XFormersAttnAddedKVProcessor, formula.added_kv),
    )


def fused():
    """fuse_projections drops biases, and splits by the widths instead of by the call."""
    name = "FusedAttnProcessor2_0"
    wrong = {"vae", "cross_4d", "cross_same_width", "biases"}
    names = ["self", "cross", "mask_cross", "mask_4d", "norm_cross_layer", "spatial_norm", "rescaled", *sorted(wrong)]
    yield from over(
        name,
        LAYERS,
        names,
        lambda n: case(
            name,
            ap.FusedAttnProcessor2_0,
            torch_scale=True,
            prepare=lambda attn: attn.fuse_projections(),
            wrong=n in wrong,
        ),
    )


def cases():
    for family in (standard, sliced, added_kv, fused):
        yield from family()
