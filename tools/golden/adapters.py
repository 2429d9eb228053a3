"""LoRA, Custom Diffusion and textual inversion, loaded and run by diffusers.

lora_<model>.safetensors     adapter weights as trainers write them, kohya's
                             names and alphas, UNet and text encoder
lora_plain_tiny-sd1          a second one in diffusers' oldest form, UNet only
custom_diffusion_tiny-sd1    some layers' keys and values, some all four
adapters_<model>             what the models give with them, for the inputs
                             that unet_<model> and text_encoder_<model> hold
adapters_sag_tiny-sd1        the whole pipeline with LoRA, as in sag_*
inversion_emoji-128          vectors of new tokens, prompts with them, the
                             token ids and the text encoder's states

The LoRA backend is diffusers' own (PEFT is not installed).  It holds one
adapter, so of two the first is fused into the weights.
"""

import common
import models
import sag
from text_encoder import LENGTHS, token_ids
from unet import SIZES, TIMESTEP

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

FULL_RANK, PLAIN_RANK = 2, 3

# Modules of tiny-sd1's UNet beside its attention: one of each kind.
SD1_EXTRA = [
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.1.resnets.0.conv2",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.0.downsamplers.0.conv",
    "up_blocks.0.upsamplers.0.conv",
    "up_blocks.1.resnets.2.conv1",
    "up_blocks.2.resnets.0.conv_shortcut",
]


def wanted(model, name):
    """Does the kohya file of this model have the module?"""
    if model == "tiny-sd1":
        inside = "down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.2.attentions.1"
        if name in SD1_EXTRA:
            return True
    else:
        inside = ("down_blocks.2.attentions.1", "up_blocks.1.attentions.0")
    ends = "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"
    return name.startswith(inside) and name.endswith(ends)


def text_wanted(name):
    return name.endswith(("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"))


def pair(rng, module, rank):
    """down and up of one module, so large that leaving one out shows."""
    weight = module.weight
    down = common.normal(rng, rank, *weight.shape[1:], outliers=False) / weight[0].numel() ** 0.5
    up = common.normal(rng, weight.shape[0], rank, *[1] * (weight.ndim - 2), outliers=False) / rank**0.5
    return down.half(), up.half()


def kohya(model, unet, text_encoder, rng):
    """lora_unet_... and lora_te_... with an alpha for most modules."""
    tensors = {}
    parts = ("lora_unet_", unet, lambda n: wanted(model, n)), ("lora_te_", text_encoder, text_wanted)
    for prefix, root, takes in parts:
        for name, module in root.named_modules():
            if not takes(name):
                continue
            stem = prefix + name.replace(".", "_")
            tensors[stem + ".lora_down.weight"], tensors[stem + ".lora_up.weight"] = pair(rng, module, FULL_RANK)
            if not name.endswith(("to_v", "v_proj")):
                tensors[stem + ".alpha"] = torch.tensor(1.0 + len(name) % 3).half()
    return tensors


def plain(unet, rng):
    """<layer>.processor.to_q_lora.down.weight: what load_attn_procs of old read."""
    tensors = {}
    for name, module in unet.named_modules():
        if not name.startswith(("mid_block", "down_blocks.1")) or not name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            continue
        layer, target = name.removesuffix(".0").rsplit(".", 1)
        stem = f"{layer}.processor.{target}_lora"
        tensors[stem + ".down.weight"], tensors[stem + ".up.weight"] = pair(rng, module, PLAIN_RANK)
    return tensors


def pipeline(model):
    text_encoder, unet, vae, scheduler = models.load(model, "text_encoder", "unet", "vae", "scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(common.DEMO / "tokenizer") if model == "emoji-128" else None
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def wide(tensors):
    return {name: t.float() for name, t in tensors.items()}


def predict(unet, model, scale=None):
    """The UNet on what unet_<model> holds."""
    rng = common.generator(11)
    sample = common.normal(rng, 2, 4, *SIZES[model], outliers=False)
    states = common.normal(rng, 2, 77, unet.config.cross_attention_dim, outliers=False)
    kwargs = None if scale is None else {"scale": scale}
    return unet(sample, TIMESTEP, encoder_hidden_states=states, cross_attention_kwargs=kwargs).sample


def encode(encoder, scale=None):
    """The text encoder on the first prompt of text_encoder_<model>, as encode_prompt scales it."""
    from diffusers.models.lora import adjust_lora_scale_text_encoder

    if scale is not None:
        adjust_lora_scale_text_encoder(encoder, scale)
    return encoder(token_ids(encoder.config, LENGTHS, 7)[1:2]).last_hidden_state


def write_lora(model):
    pipe = pipeline(model)
    full = kohya(model, pipe.unet, pipe.text_encoder, common.generator(50))
    common.save(f"lora_{model}.safetensors", full)
    pipe.load_lora_weights(wide(full))
    made = {"unet.lora": predict(pipe.unet, model), "text.lora": encode(pipe.text_encoder)}
    made["unet.lora_scaled"] = predict(pipe.unet, model, -0.6)
    made["text.lora_scaled"] = encode(pipe.text_encoder, 0.3)
    if model == "tiny-sd1":
        second = plain(pipe.unet, common.generator(51))
        common.save(f"lora_plain_{model}.safetensors", second)
        fused = pipeline(model)
        fused.load_lora_weights(wide(full))
        fused.fuse_lora(lora_scale=0.7)
        fused.unet.load_attn_procs(wide(second))
        made["unet.both"] = predict(fused.unet, model, 1.2)  # 0.7 of the first, 1.2 of the second
        alone = pipeline(model)
        alone.unet.load_attn_procs(wide(second))
        made["unet.plain"] = predict(alone.unet, model)
        made |= custom_diffusion(model)
        write_sag(model, full)
    common.save(f"adapters_{model}.safetensors", made, model=model)


def custom_diffusion(model):
    pipe = pipeline(model)
    rng = common.generator(52)
    weights, entries = {}, {}
    for name in pipe.unet.attn_processors:
        layer = pipe.unet.get_submodule(name.removesuffix(".processor"))
        trained = ("to_k", "to_v") if name.startswith(("down", "mid")) else ("to_k", "to_v", "to_q", "to_out.0")
        if "attn1" in name or name.startswith("up_blocks.1"):
            entries[name] = {}
            continue
        for target in trained:
            weight = layer.get_submodule(target).weight
            key, _, tail = target.partition(".")
            stem = f"{name}.{key}_custom_diffusion" + (f".{tail}" if tail else "")
            weights[stem + ".weight"] = (common.normal(rng, *weight.shape, outliers=False) / weight.shape[1] ** 0.5).half()
            if tail:
                weights[stem + ".bias"] = (0.1 * common.normal(rng, weight.shape[0], outliers=False)).half()
    common.save(f"custom_diffusion_{model}.safetensors", weights)
    pipe.unet.load_attn_procs(wide(weights) | entries)
    return {"unet.custom_diffusion": predict(pipe.unet, model)}


def write_sag(model, full):
    """sag.py's case, its UNet with LoRA at 0.8, its embeddings as they are."""
    case = sag.CASES[f"{model}_cfg"]
    pipe = sag.pipeline(model)
    prompt_embeds, negative_embeds = sag.embeddings(pipe, case, 1)
    full = {name: t for name, t in full.items() if name.startswith("lora_unet_")}
    loaded = pipeline(model)
    loaded.load_lora_weights(wide(full))
    loaded.fuse_lora(fuse_text_encoder=False, lora_scale=0.8)
    pipe.unet = loaded.unet
    masses, inner = [], pipe.sag_masking

    def noting(original_latents, attn_map, map_size, t, eps):
        masses.append(attn_map.reshape(1, -1, *attn_map.shape[1:]).mean(1).sum(1))
        return inner(original_latents, attn_map, map_size, t, eps)

    pipe.sag_masking = noting
    settings = {key: case[key] for key in sag.CALL if key in case}
    last = []
    picture = pipe(
        prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_embeds, **settings,
        generator=torch.Generator("cpu").manual_seed(case["seed"][0]),
        callback=lambda i, t, x: last.append(x.clone()), output_type="np",
    ).images
    mass = torch.stack(masses)
    print(f"sag with LoRA: {int(((mass - 1).abs() < 1e-4).sum())} of {mass.numel()} cells near the threshold")
    common.save(
        f"adapters_sag_{model}.safetensors",
        {
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_embeds,
            "mask": (mass > 1.0).to(torch.uint8),
            "final_latents": last[-1],
            "image": torch.from_numpy((picture * 255).round().astype("uint8")),
        },
        settings={**settings, "seed": case["seed"]},
    )


PROMPTS = [
    "a <cat-toy> on a table",
    "<cat-toy>",
    "<new1> cat and <cat-toy>, red",
    "a<cat-toy>b, <NEW1> <new1>!",
    "<cat-toy>_1 alone",
    "<cat-toy>_2 <new1><new1>",
    "style.of.me at night",
    "no token of ours",
    "<cat-toy> " * 40,
]
STATES, LENGTH = 4, 20  # of how many prompts, and how many tokens of each; no token sees a later one


def write_inversion():
    pipe = pipeline("emoji-128")
    rng = common.generator(53)
    width = pipe.text_encoder.config.hidden_size
    vectors = {
        "<cat-toy>": (0.5 * common.normal(rng, 3, width, outliers=False)).half(),
        "<new1>": (0.5 * common.normal(rng, width, outliers=False)).half(),
        "style.of.me": (0.5 * common.normal(rng, 1, width, outliers=False)).half(),
    }
    for token, vector in vectors.items():
        pipe.load_textual_inversion({token: vector.float()})
    ids = [
        pipe.tokenizer(
            pipe.maybe_convert_prompt(p, pipe.tokenizer), padding="max_length", max_length=77, truncation=True
        ).input_ids
        for p in PROMPTS
    ]
    states = pipe.text_encoder(torch.tensor(ids[:STATES])).last_hidden_state[:, :LENGTH]
    ids = torch.tensor(ids, dtype=torch.int32)
    common.save("inversion_emoji-128.safetensors", {**vectors, "ids": ids, "states": states}, prompts=PROMPTS)


def main():
    write_lora("tiny-sd1")
    write_lora("tiny-sd2")
    write_inversion()


if __name__ == "__main__":
    main()
