"""Whole models in one file with original names, as diffusers converts and runs them.

The weights are numbers that follow from each tensor's name (weight() below),
so that a test writes the file itself and only its names and shapes are stored,
in metadata "listing". original_<name>.safetensors holds
  prompt_embeds, negative_prompt_embeds [1,77,C]
  final_latents [1,4,h,w], image [1,H,W,3] uint8
  ema_latents [1,4,h,w]     the same run with the averaged weights
"""

import sys
import tempfile
from pathlib import Path

import common  # first: it sets what the libraries read when they are imported

import numpy as np
import original_names
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionSAGPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import convert_from_ckpt as upstream
from models import SD_BETAS, vae_config
from tokenizer import clip_folder
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# Sizes that the file's shapes tell: 8 heads or heads of 64, groups of 32.
KINDS = {
    "ldm1": {
        "unet": {
            "block_out_channels": [32, 64],
            "layers_per_block": 2,
            "sample_size": 64,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 64,
            "attention_head_dim": 8,
        },
        "vae": vae_config([32, 64], 32, 1),
        "text": {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2,
                 "intermediate_size": 96, "hidden_act": "quick_gelu"},
        "scheduler": {},
        "pad": "<|endoftext|>",
        "ema": True,
    },
    "ldm2": {
        "unet": {
            "block_out_channels": [64, 128],
            "layers_per_block": 1,
            "sample_size": 64,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 128,
            "attention_head_dim": [1, 2],
            "use_linear_projection": True,
        },
        "vae": vae_config([32, 32], 32, 2),
        "text": {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 23,
                 "intermediate_size": 160, "hidden_act": "gelu"},
        "scheduler": {"prediction_type": "v_prediction"},
        "pad": "!",
        "ema": False,
    },
}
PROMPT, NEGATIVE, SEED = "a photo of a cat!", "dog, 2nd", 11
CALL = {"height": 32, "width": 48, "num_inference_steps": 3, "guidance_scale": 3.0, "sag_scale": 0.75}


def weight(name, shape):
    """Numbers in 1/1024 steps from splitmix64 of the name's FNV-1a hash: exact in fp16."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    k = (z >> np.uint64(53)).astype(np.int64) - 1024
    if len(shape) == 1 and name.endswith("weight"):
        x = 1 + (k >> 4) / 256
    elif len(shape) == 1:
        x = k / 8192
    else:
        halvings = max((int(np.prod(shape[1:])).bit_length() - 1) // 2 - 1, 0)
        x = k / 1024 / 2**halvings
    return torch.from_numpy(np.asarray(x, dtype=np.float32).reshape(shape))


def convert(kind, state, ema):
    settings = KINDS[kind]
    unet = UNet2DConditionModel(**settings["unet"])
    converted = upstream.convert_ldm_unet_checkpoint(dict(state), {**unet.config}, extract_ema=ema)
    unet.load_state_dict(converted)
    vae = AutoencoderKL(**settings["vae"])
    vae.load_state_dict(upstream.convert_ldm_vae_checkpoint(dict(state), None))
    config = CLIPTextConfig(vocab_size=49408, **settings["text"])
    if config.hidden_act == "gelu":
        CLIPTextConfig.from_pretrained = lambda *args, **kwargs: config  # it is on no disk here
        text = upstream.convert_open_clip_checkpoint(dict(state), "stabilityai/stable-diffusion-2")
    else:
        text = upstream.convert_ldm_clip_checkpoint(dict(state), text_encoder=CLIPTextModel(config))
    return unet.eval(), vae.eval(), text.eval()


def pipeline(kind, state, ema):
    settings = KINDS[kind]
    unet, vae, text = convert(kind, state, ema)
    with tempfile.TemporaryDirectory() as folder:
        clip_folder(Path(folder), settings["pad"])
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    # What download_from_original_stable_diffusion_ckpt makes, for scheduler_type "ddim".
    scheduler = DDIMScheduler(**SD_BETAS, steps_offset=1, **settings["scheduler"])
    pipe = StableDiffusionSAGPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe):
    kept = []
    picture = pipe(
        PROMPT, negative_prompt=NEGATIVE, **CALL, generator=torch.Generator().manual_seed(SEED),
        callback=lambda i, t, x: kept.append(x.clone()),
    ).images
    return kept[-1], torch.from_numpy(np.stack([np.asarray(p) for p in picture]))


def write(kind):
    settings = KINDS[kind]
    config = CLIPTextConfig(vocab_size=49408, **settings["text"])
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**settings["unet"]), AutoencoderKL(**settings["vae"])
        text = CLIPTextModel(config)
    shapes = {n: list(t.shape) for n, t in original_names.whole(unet, vae, text).items()}
    if settings["ema"]:
        shapes.update({new: shapes[old] for new, old in original_names.ema(shapes).items()})
    state = {name: weight(name, shape) for name, shape in shapes.items()}
    pipe = pipeline(kind, state, ema=False)
    embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    latents, image = run(pipe)
    tensors = {"prompt_embeds": embeds, "negative_prompt_embeds": negative, "final_latents": latents, "image": image}
    if settings["ema"]:
        tensors["ema_latents"] = run(pipeline(kind, state, ema=True))[0]
    listing = "\n".join(f"{n} {','.join(map(str, s))}" for n, s in sorted(shapes.items()))
    common.save(
        f"original_{kind}.safetensors",
        tensors,
        listing=listing,
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        settings={**CALL, "seed": SEED},
    )


def main():
    for kind in sys.argv[1:] or KINDS:
        write(kind)


if __name__ == "__main__":
    main()
