"""Processors with weights of their own: LoRA, Custom Diffusion, IP-Adapter; cross-frame."""

import common
import formula
from processors_standard import ADDED, ADDED_LAYERS, CROSS, LAYERS, Q, SELF, TO_TEXT, case

import torch
from diffusers.models import attention_processor as ap
from diffusers.pipelines.text_to_video_synthesis import pipeline_text_to_video_zero as video


def scalar(value):
    return lambda _rng: torch.tensor(float(value))


def pair(rank, inputs, outputs):
    """What makes down and up of one low-rank term."""
    def down(rng):
        return common.normal(rng, rank, inputs) / inputs**0.5

    def up(rng):
        return common.normal(rng, outputs, rank) / rank**0.5

    return down, up


def adapter(prefix, widths, rank, alpha=None):
    """Tensors of one LoRA by the names that a file has; widths: name to (in, out)."""
    made = {}
    for name, (inputs, outputs) in widths.items():
        down, up = pair(rank, inputs, outputs)
        made[f"{prefix}{name}_lora.down.weight"] = down
        made[f"{prefix}{name}_lora.up.weight"] = up
    if alpha is not None:
        made[f"{prefix}network_alpha"] = scalar(alpha)
    return made


TO_TEXT_WIDTHS = {"to_q": (12, 12), "to_k": (10, 12), "to_v": (10, 12), "to_out": (12, 12)}
ADDED_WIDTHS = {name: (12, 12) for name in ("to_q", "to_k", "to_v", "to_out")}
ADDED_WIDTHS |= {name: (10, 12) for name in ("add_k_proj", "add_v_proj")}

# name: (layer, words of the command line, arguments of the class, scale, alpha in the file)
LORA = {
    "self": ("self", "", {}, None, None),
    "cross_alpha": ("cross", "rank=3,scale=0.7", {"cross_attention_dim": 10, "rank": 3}, 0.7, 2.0),
    "ranks": (
        "self",
        "rank=2,q_rank=3,v_rank=5,out_rank=1,scale=1.3",
        {"rank": 2, "q_rank": 3, "v_rank": 5, "out_rank": 1},
        1.3,
        None,
    ),
    "vae": ("vae", "rank=2,scale=-0.5", {"rank": 2}, -0.5, None),
    "mask_rows": ("mask_rows", "scale=0.4", {"cross_attention_dim": 10}, 0.4, 8.0),
    "unscaled": ("unscaled", "", {"cross_attention_dim": 10}, None, None),
    "zero": ("cross", "scale=0", {"cross_attention_dim": 10}, 0.0, None),
}


def words(name, text):
    return f"{name}:{text}" if text else name


def lora_case(name, make, compute, text, arguments, scale, alpha, **more):
    def made():
        return make(12, network_alpha=alpha, **{"cross_attention_dim": None, **arguments})

    return case(
        words(name, text),
        made,
        compute,
        adapters=[("", 1.0 if scale is None else scale, alpha)],
        call_scale=scale,
        extra={"network_alpha": scalar(alpha)} if alpha is not None else {},
        **more,
    )


def lora():
    for name, make, more, chosen in [
        ("LoRAAttnProcessor", ap.LoRAAttnProcessor, {}, LORA),
        ("LoRAAttnProcessor2_0", ap.LoRAAttnProcessor2_0, {"torch_scale": True}, LORA),
        ("LoRAXFormersAttnProcessor", ap.LoRAXFormersAttnProcessor, {}, ["self", "cross_alpha", "ranks", "unscaled"]),
    ]:
        for layer in chosen:
            config, shapes = LAYERS[LORA[layer][0]]
            yield f"{name}_{layer}", lora_case(name, make, formula.standard, *LORA[layer][1:], **more), config, shapes

    # alpha as a parameter instead of a tensor of the file
    config, shapes = LAYERS["self"]
    made = lora_case("LoRAAttnProcessor2_0", ap.LoRAAttnProcessor2_0, formula.standard,
                     "network_alpha=3", {}, None, 3, torch_scale=True)
    made["extra"] = {}
    yield "LoRAAttnProcessor2_0_alpha_parameter", made, config, shapes

    # Upstream never installs the terms of add_k_proj and add_v_proj.
    name = "LoRAAttnAddedKVProcessor"
    for layer, text, rank, scale, alpha in [
        ("text", "", 4, None, None),
        ("mask", "rank=3,scale=0.6", 3, 0.6, 2.0),
        ("only_cross", "scale=1.5", 4, 1.5, None),
    ]:
        config, shapes = ADDED_LAYERS[layer]
        if layer == "only_cross":  # no to_k and to_v to be added to
            yield f"{name}_{layer}", only_cross_lora(name, text, scale), config, shapes
            continue
        arguments = {"cross_attention_dim": 10, "rank": rank}
        made = lora_case(name, ap.LoRAAttnAddedKVProcessor, formula.added_kv, text, arguments, scale, alpha, wrong=True)
        yield f"{name}_{layer}", made, config, shapes

    # Several at once, each with its scale; upstream holds one.
    config, shapes = LAYERS["cross"]
    extra = adapter("first.", TO_TEXT_WIDTHS, 4, 2.0) | adapter("second.", TO_TEXT_WIDTHS, 4)
    for name, torch_scale in (("LoRAAttnProcessor", False), ("LoRAAttnProcessor2_0", True)):
        made = case(
            f"{name}:first.scale=0.7,second.scale=-0.4",
            None,
            torch_scale=torch_scale,
            adapters=[("first.", 0.7), ("second.", -0.4)],
            extra=extra,
            wrong=True,
        )
        yield f"{name}_two", made, config, shapes


def only_cross_lora(name, text, scale):
    widths = {k: v for k, v in ADDED_WIDTHS.items() if k not in ("to_k", "to_v")}
    return case(
        words(name, text), None, formula.added_kv, adapters=[("", scale)], extra=adapter("", widths, 4), wrong=True
    )


PLAIN_NORMS = {**TO_TEXT, "residual_connection": True, "rescale_output_factor": 2.0, "norm_num_groups": 3}

# name: (layer, words, arguments of the class)
CUSTOM = {
    "cross": (LAYERS["cross"], "hidden_size=12,cross_attention_dim=10", {"cross_attention_dim": 10}),
    "all": (LAYERS["cross"], "train_kv=true,train_q_out=true", {"cross_attention_dim": 10, "train_q_out": True}),
    "kv": (LAYERS["cross"], "train_q_out=false", {"cross_attention_dim": 10, "train_q_out": False}),
    "q_out": (LAYERS["cross"], "train_kv=false,train_q_out=true", {"train_kv": False, "train_q_out": True}),
    "untrained": (LAYERS["cross"], "train_kv=false,train_q_out=false", {"train_kv": False, "train_q_out": False}),
    "self": (LAYERS["self"], "", {}),
    "out_bias": (
        LAYERS["cross"],
        "train_q_out=true,out_bias=false,dropout=0.1",
        {"cross_attention_dim": 10, "train_q_out": True, "out_bias": False, "dropout": 0.1},
    ),
    "norms_ignored": ((PLAIN_NORMS, CROSS), "train_q_out=true", {"cross_attention_dim": 10, "train_q_out": True}),
    "norm_cross_group": (LAYERS["norm_cross_group"], "", {"cross_attention_dim": 10}),
    "mask_self": (LAYERS["mask_self"], "", {}),
    "mask_cross": (LAYERS["mask_cross"], "", {"cross_attention_dim": 10}),
    "unscaled": (LAYERS["unscaled"], "", {"cross_attention_dim": 10}),
}


def custom_diffusion():
    for name, make, default_q_out, more, wrong, chosen in [
        # The mask is prepared for as many keys as there are queries.
        ("CustomDiffusionAttnProcessor", ap.CustomDiffusionAttnProcessor, True, {}, {"mask_cross"}, CUSTOM),
        # And here it keeps three dimensions among four.
        ("CustomDiffusionAttnProcessor2_0", ap.CustomDiffusionAttnProcessor2_0, True, {"torch_scale": True},
         {"mask_cross", "mask_self"}, CUSTOM),
        ("CustomDiffusionXFormersAttnProcessor", ap.CustomDiffusionXFormersAttnProcessor, False, {}, set(),
         ["cross", "all", "mask_cross", "self"]),
    ]:
        for layer in chosen:
            (config, shapes), text, arguments = CUSTOM[layer]
            trained = {
                "train_kv": arguments.get("train_kv", True),
                "train_q_out": arguments.get("train_q_out", default_q_out),
            }
            made = case(
                words(name, text),
                lambda make=make, arguments=arguments: make(hidden_size=12, **arguments).eval(),
                formula.custom_diffusion,
                arguments=trained,
                wrong=layer in wrong,
                **more,
            )
            yield f"{name}_{layer}", made, config, shapes


# name: (layer, shapes of the image prompts, words, num_tokens, scales, what only 2_0 takes)
IP = {
    "one": ("cross", [(2, 4, 10)], "scale=0.6", [4], [0.6], False),
    "two": (
        "cross",
        [(2, 4, 10), (2, 7, 10)],
        "num_tokens.0=4,num_tokens.1=7,scale.0=0.6,scale.1=1.4",
        [4, 7],
        [0.6, 1.4],
        False,
    ),
    "pictures": ("cross", [(2, 3, 4, 10)], "num_tokens=4,scale=0.8", [4], [0.8], True),
    "mask_rows": ("mask_rows", [(2, 5, 10)], "num_tokens=5", [5], [1.0], False),
    "cross_4d": ("cross_4d", [(2, 4, 10)], "scale=-0.5", [4], [-0.5], False),
    "norm_cross_layer": ("norm_cross_layer", [(2, 4, 10)], "", [4], [1.0], False),
    "unscaled": ("unscaled", [(2, 4, 10)], "", [4], [1.0], False),
}


def ip_adapter():
    for name, make, more in [
        ("IPAdapterAttnProcessor", ap.IPAdapterAttnProcessor, {}),
        ("IPAdapterAttnProcessor2_0", ap.IPAdapterAttnProcessor2_0, {"torch_scale": True}),
    ]:
        def made_by(num_tokens, scales, make=make):
            return lambda: make(hidden_size=12, cross_attention_dim=10, num_tokens=num_tokens, scale=scales)

        for layer, (base, images, text, num_tokens, scales, only_2_0) in IP.items():
            config, shapes = LAYERS[base]
            made = case(
                words(name, text),
                made_by(num_tokens, scales),
                arguments={"scales": scales},
                wrong=only_2_0 and not more,
                **more,
            )
            yield f"{name}_{layer}", made, config, {**shapes, "images": images}
        # The old way: the image prompt is the end of the text.
        made = case(
            words(name, "num_tokens=3,scale=0.6"),
            made_by([3], [0.6]),
            formula.with_tail,
            arguments={"num_tokens": 3, "scales": [0.6]},
            **more,
        )
        yield f"{name}_tail", made, TO_TEXT, CROSS


VIDEO = {
    "frames": ((Q, {"hidden": (6, 9, 12)}), 2),
    "one_batch": ((Q, {"hidden": (4, 9, 12)}), 1),
    "one_frame": ((Q, {"hidden": (2, 9, 12)}), 2),
    "cross": ((TO_TEXT, {"hidden": (4, 9, 12), "encoder": (4, 5, 10)}), 2),
    "mask": ((Q, {"hidden": (4, 9, 12), "mask": (4, 1, 9)}), 2),
    "norm_cross_group": (
        ({**TO_TEXT, "cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 5},
         {"hidden": (4, 9, 12), "encoder": (4, 5, 10)}),
        2,
    ),
    "norms_ignored": (({**Q, "residual_connection": True, "rescale_output_factor": 2.0, "norm_num_groups": 3},
                       {"hidden": (4, 9, 12)}), 2),
    "unscaled": (({**Q, "scale_qk": False}, {"hidden": (4, 9, 12)}), 2),
}


def cross_frame():
    for name, make, more in [
        ("CrossFrameAttnProcessor", video.CrossFrameAttnProcessor, {}),
        ("CrossFrameAttnProcessor2_0", video.CrossFrameAttnProcessor2_0, {"torch_scale": True}),
    ]:
        for layer, ((config, shapes), batch_size) in VIDEO.items():
            text = "" if batch_size == 2 else f"batch_size={batch_size}"
            made = case(
                words(name, text),
                lambda make=make, batch_size=batch_size: make(batch_size),
                formula.cross_frame,
                arguments={"batch_size": batch_size},
                **more,
            )
            yield f"{name}_{layer}", made, config, shapes


def composed():
    """What has no class upstream: two processors, or one over another op."""
    config, shapes = ADDED_LAYERS["mask"]
    made = case("lora+added_kv:rank=3,scale=0.7", None, formula.added_kv, adapters=[("", 0.7)],
                extra=adapter("", ADDED_WIDTHS, 3, 2.0), wrong=True)
    yield "lora+added_kv_mask", made, config, shapes

    config, shapes = LAYERS["cross"]
    image = {
        f"{name}.0.weight": (lambda rng: common.normal(rng, 12, 10) / 10**0.5) for name in ("to_k_ip", "to_v_ip")
    }
    made = case("lora+ip_adapter:rank=2,scale=0.7,scale.0=0.5", None, adapters=[("", 0.7)],
                arguments={"scales": [0.5]}, extra=adapter("", TO_TEXT_WIDTHS, 2) | image, wrong=True)
    yield "lora+ip_adapter_cross", made, config, {**shapes, "images": [(2, 4, 10)]}

    made = case("lora+standard:rank=2,scale=0.7", None, adapters=[("", 0.7)],
                extra=adapter("", TO_TEXT_WIDTHS, 2), wrong=True)
    yield "lora+standard_cross", made, config, shapes

    frames = {"hidden": (6, 9, 12)}
    made = case("lora+cross_frame:rank=2,scale=0.7,batch_size=3", None, formula.cross_frame,
                adapters=[("", 0.7)], arguments={"batch_size": 3},
                extra=adapter("", {name: (12, 12) for name in TO_TEXT_WIDTHS}, 2), wrong=True)
    yield "lora+cross_frame_frames", made, Q, frames

    for op in ("sliced", "math"):
        name = "CustomDiffusionXFormersAttnProcessor"
        made = case(
            f"{name}:attention_op={op}",
            lambda op=op: ap.CustomDiffusionXFormersAttnProcessor(
                hidden_size=12, cross_attention_dim=10, attention_op=op
            ).eval(),
            formula.custom_diffusion,
            arguments={"train_q_out": False},
        )
        yield f"{name}_over_{op}", made, TO_TEXT, CROSS
        made = case(
            f"XFormersAttnProcessor:attention_op={op}", lambda op=op: ap.XFormersAttnProcessor(attention_op=op)
        )
        yield f"XFormersAttnProcessor_over_{op}", made, Q, SELF
        made = case(
            f"XFormersAttnAddedKVProcessor:attention_op={op}",
            lambda op=op: ap.XFormersAttnAddedKVProcessor(attention_op=op),
            formula.added_kv,
        )
        yield f"XFormersAttnAddedKVProcessor_over_{op}", made, ADDED, ADDED_LAYERS["text"][1]


def cases():
    for family in (lora, custom_diffusion, ip_adapter, cross_frame, composed):
        yield from family()
