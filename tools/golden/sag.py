"""The whole StableDiffusionSAGPipeline: latents, guidance masks and pictures.

The pipeline runs as it is; sag_masking is wrapped to note the attention that
it is given. A file holds
  latents [B,4,h,w]              where the loop starts, before init_noise_sigma
  prompt_embeds, negative_prompt_embeds [B,77,C]   where the case stores them
  variance_noise [S,B,4,h,w]     what the seed gives at each step, where stored
  key_mass [S,B,mh*mw], mask [S,B,mh,mw] uint8     if sag_scale > 0
  lora.<layer>.<linear>_lora.{down,up}.weight      rank 2, where the case has an adapter
  step_latents [K,B,4,h,w]       after the steps (from 1) of metadata "kept_steps"
  final_latents [B,4,h,w], image [B,H,W,3] uint8
"""

import common
import models
from text_encoder import token_ids

import numpy as np
import torch
from diffusers import StableDiffusionSAGPipeline
from diffusers.models.lora import LoRALinearLayer
from diffusers.pipelines.stable_diffusion_sag import pipeline_stable_diffusion_sag as sag_module
from transformers import CLIPTokenizer

# Small models get token ids in place of a text; None is no guidance.
CASES = {
    "emoji-128_heart": {
        "model": "emoji-128",
        "prompt": ["red heart"],
        "negative_prompt": [""],
        "num_inference_steps": 25,
        "guidance_scale": 5.0,
        "sag_scale": 0.75,
        "seed": [0],
        "keep_every": 10,
        "store_embeds": True,
    },
    "emoji-128_batch": {
        "model": "emoji-128",
        "prompt": ["rocket on a blue background", "cat face"],
        "negative_prompt": ["dog", ""],
        "height": 88,
        "width": 104,
        "num_inference_steps": 4,
        "guidance_scale": 7.5,
        "sag_scale": 1.0,
        "eta": 0.4,
        "clip_skip": 1,
        "seed": [3, 4],
        "keep_every": 4,
    },
    "sag-fast_upstream": {
        "model": "sag-fast",
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "sag_scale": 1.0,
        "seed": [0],
    },
    "sag-fast_cfg": {
        "model": "sag-fast",
        "height": 24,
        "width": 16,
        "num_inference_steps": 5,
        "guidance_scale": 6.0,
        "sag_scale": 0.75,
        "seed": [1, 2],
    },
    "tiny-sd1_cfg": {
        "model": "tiny-sd1",
        "height": 40,
        "width": 56,
        "num_inference_steps": 6,
        "guidance_scale": 3.0,
        "sag_scale": 0.75,
        "seed": [3],
    },
    "tiny-sd1_no_sag": {
        "model": "tiny-sd1",
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "sag_scale": 0.0,
        "seed": [4],
    },
    "tiny-sd1_no_cfg_eta": {
        "model": "tiny-sd1",
        "height": 48,
        "width": 40,
        "num_inference_steps": 5,
        "guidance_scale": 1.0,
        "sag_scale": 0.9,
        "eta": 0.7,
        "seed": [5],
    },
    "tiny-sd2_v": {
        "model": "tiny-sd2",
        "height": 72,
        "width": 48,
        "num_inference_steps": 6,
        "guidance_scale": 4.0,
        "sag_scale": 0.75,
        "seed": [6],
    },
    "tiny-sd2_v_no_cfg": {
        "model": "tiny-sd2",
        "height": 48,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 1.0,
        "sag_scale": 1.5,
        "seed": [7],
    },
    "tiny-odd_trailing": {
        "model": "tiny-odd",
        "height": 32,
        "width": 24,
        "num_inference_steps": 7,
        "guidance_scale": 2.0,
        "sag_scale": 0.5,
        "seed": [8, 9],
    },
    "tiny-shift_linspace": {
        "model": "tiny-shift",
        "num_inference_steps": 5,
        "guidance_scale": 2.0,
        "sag_scale": 1.0,
        "seed": [10],
    },
    # Two pictures of each of two prompts, all from one generator.
    "tiny-sd1_per_prompt": {
        "model": "tiny-sd1",
        "prompts": 2,
        "num_images_per_prompt": 2,
        "height": 40,
        "width": 40,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "sag_scale": 0.75,
        "eta": 0.5,
        "seed": [11],
    },
    # Start latents that no seed gave; LoRA at half its strength in both passes.
    "tiny-sd1_scale": {
        "model": "tiny-sd1",
        "height": 40,
        "width": 48,
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "sag_scale": 0.75,
        "seed": [12],
        "own_latents": True,
        "cross_attention_kwargs": {"scale": 0.5},
        "lora": [
            "down_blocks.0.attentions.1.transformer_blocks.0.attn2",
            "mid_block.attentions.0.transformer_blocks.0.attn1",
            "mid_block.attentions.0.transformer_blocks.0.attn2",
        ],
    },
}

CALL = ("height", "width", "num_inference_steps", "guidance_scale", "sag_scale", "eta", "clip_skip",
        "num_images_per_prompt", "cross_attention_kwargs")


class ScaledStoreProcessor(sag_module.CrossAttnStoreProcessor):
    """Upstream's with AttnProcessor's scale, which it fails on."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, scale=1.0):
        batch, tokens, _ = hidden_states.shape
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states, scale))
        key = attn.head_to_batch_dim(attn.to_k(states, scale))
        value = attn.head_to_batch_dim(attn.to_v(states, scale))
        mask = attn.prepare_attention_mask(attention_mask, tokens, batch)
        self.attention_probs = attn.get_attention_scores(query, key, mask)
        hidden_states = attn.batch_to_head_dim(torch.bmm(self.attention_probs, value))
        return attn.to_out[0](hidden_states, scale)


def adapt(unet, layers):
    """Gives the layers LoRA of rank 2; the weights by the names of attn procs."""
    generator = torch.Generator("cpu").manual_seed(1234)
    weights = {}
    for name in layers:
        attn = unet.get_submodule(name)
        linears = {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": attn.to_out[0]}
        for key, linear in linears.items():
            lora = LoRALinearLayer(linear.in_features, linear.out_features, rank=2)
            for part in ("down", "up"):
                weight = getattr(lora, part).weight
                # values that fp16 can hold
                weight.data = (0.4 * torch.randn(weight.shape, generator=generator)).half().float()
                weights[f"lora.{name}.{key}_lora.{part}.weight"] = weight.data
            linear.set_lora_layer(lora)
    return weights


def both_passes(unet, kwargs):
    """The degraded pass gets the cross_attention_kwargs too, which upstream forgets."""
    inner = unet.forward

    def forward(*args, cross_attention_kwargs=None, **rest):
        return inner(*args, cross_attention_kwargs=dict(kwargs), **rest)

    unet.forward = forward


def pipeline(name):
    text_encoder, unet, vae, scheduler = models.load(name, "text_encoder", "unet", "vae", "scheduler")
    tokenizer = None
    if name == "emoji-128":
        tokenizer = CLIPTokenizer.from_pretrained(common.DEMO / "tokenizer")
    pipe = StableDiffusionSAGPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embeddings(pipe, case, batch):
    """prompt_embeds and negative_prompt_embeds, the latter None without guidance."""
    if case["model"] == "emoji-128":
        return pipe.encode_prompt(
            case["prompt"], "cpu", 1, True, case["negative_prompt"], clip_skip=case.get("clip_skip")
        )
    encoder = pipe.text_encoder
    embeds = encoder(token_ids(encoder.config, [9, 23], 29)).last_hidden_state
    embeds = torch.cat([embeds, encoder(token_ids(encoder.config, [5, 2], 31)).last_hidden_state])
    return embeds[:batch], embeds[2 : 2 + batch] if case["guidance_scale"] > 1 else None


def draws(case, shape, given):
    """The start latents and each step's noise as the seeds give them."""
    generators = [torch.Generator("cpu").manual_seed(s) for s in case["seed"]]

    def draw():
        each = shape[0] // len(generators)
        return torch.cat([torch.randn((each, *shape[1:]), generator=g) for g in generators])

    latents = draw() if given is None else given
    return latents, torch.stack([draw() for _ in range(case["num_inference_steps"])])


def write(name, case):
    pipe = pipeline(case["model"])
    seeds = case["seed"]
    prompts = case.get("prompts", len(seeds))
    images = prompts * case.get("num_images_per_prompt", 1)
    prompt_embeds, negative_embeds = embeddings(pipe, case, prompts)
    lora = adapt(pipe.unet, case["lora"]) if "lora" in case else {}
    store = sag_module.CrossAttnStoreProcessor
    if "cross_attention_kwargs" in case:
        both_passes(pipe.unet, case["cross_attention_kwargs"])
        sag_module.CrossAttnStoreProcessor = ScaledStoreProcessor
    own = None
    if case.get("own_latents"):
        side = [case[k] // pipe.vae_scale_factor for k in ("height", "width")]
        own = torch.randn((images, 4, *side), generator=torch.Generator("cpu").manual_seed(4321))
    masses, masks, steps, starts = [], [], [], []
    inner, prepare = pipe.sag_masking, pipe.prepare_latents

    def noting(original_latents, attn_map, map_size, t, eps):
        mass = attn_map.reshape(images, -1, *attn_map.shape[1:]).mean(1).sum(1)
        masses.append(mass)
        masks.append((mass > 1.0).reshape(images, *map_size).to(torch.uint8))
        return inner(original_latents, attn_map, map_size, t, eps)

    def starting(*args):
        starts.append(prepare(*args))
        return starts[0]

    pipe.sag_masking, pipe.prepare_latents = noting, starting
    settings = {key: case[key] for key in CALL if key in case}
    text = case["model"] == "emoji-128"
    # A text goes in as text, so that the tokenizer and clip_skip count.
    given = (
        {"prompt": case["prompt"], "negative_prompt": case["negative_prompt"]}
        if text
        else {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_embeds}
    )
    generators = [torch.Generator("cpu").manual_seed(s) for s in seeds]
    picture = pipe(
        **given,
        **settings,
        generator=generators if len(seeds) > 1 else generators[0],
        latents=own,
        callback=lambda i, t, x: steps.append(x.clone()),
        output_type="pil",
    ).images
    sag_module.CrossAttnStoreProcessor = store
    latents, noise = draws(case, steps[0].shape, own)
    if not torch.equal(latents * pipe.scheduler.init_noise_sigma, starts[0]):
        raise SystemExit(f"sag.py: {name} did not start from its seed")
    every = case.get("keep_every", 1)
    kept = [i for i in range(1, len(steps)) if i == 1 or i % every == 0]  # the last is final_latents
    tensors = {
        **lora,
        "latents": latents,
        "step_latents": torch.stack([steps[i - 1] for i in kept]),
        "final_latents": steps[-1],
        "image": torch.from_numpy(np.stack([np.asarray(p) for p in picture])),
    }
    if masses:
        tensors["key_mass"] = torch.stack(masses)
        tensors["mask"] = torch.stack(masks)
        near = (tensors["key_mass"] - 1).abs() < 1e-4
        print(f"{name}: {int(near.sum())} of {near.numel()} cells within 1e-4 of the threshold, "
              f"{tensors['mask'].float().mean():.0%} masked")
    if case.get("eta", 0) > 0 and not text:  # a text's case starts from its seed anyway
        tensors["variance_noise"] = noise
    if not text or case.get("store_embeds"):
        tensors["prompt_embeds"] = prompt_embeds
        if negative_embeds is not None:
            tensors["negative_prompt_embeds"] = negative_embeds
    height, width = tensors["image"].shape[1:3]
    settings.update({"height": height, "width": width, "seed": seeds})
    if own is not None:
        settings["latents"] = True
    if text:
        settings.update(given)
    common.save(f"sag_{name}.safetensors", tensors, model=case["model"], settings=settings, kept_steps=kept)


def main():
    for name, case in CASES.items():
        write(name, case)


if __name__ == "__main__":
    main()
