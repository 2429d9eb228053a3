"""Whole pipelines with IP-Adapters on tiny-sd1: latents and pictures from image prompts.

Without self-attention guidance it is diffusers' StableDiffusionPipeline as it is. Its SAG pipeline cannot
run an IP-Adapter at 0.26.3 (issue 7064): it asks for hidden states whatever the adapter reads, and gives a
guided UNet the embeddings of one half. So there the UNet is handed what is meant: negative and positive
embeddings in the guided pass, the negative ones in the degraded pass (the positive ones without guidance).
Files hold latents, prompt_embeds, negative_prompt_embeds, final_latents, image (uint8); with SAG also
key_mass and mask as in sag.py.
"""

import common
import image_models
import models
from text_encoder import token_ids

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionSAGPipeline
from diffusers.models.embeddings import ImageProjection
from PIL import Image
from transformers import CLIPImageProcessor

CASES = {
    "plain": {
        "adapters": ["ip-adapter"],
        "scales": [0.7],
        "images": [["rgb8.png"]],
        "sag_scale": 0.0,
        "seed": 21,
    },
    # Two adapters, the first with two pictures.
    "several": {
        "adapters": ["ip-adapter", "ip-adapter-plus"],
        "scales": [0.6, 0.9],
        "images": [["rgb8.png", "rgb_420.jpg"], ["lossless.webp"]],
        "sag_scale": 0.0,
        "seed": 22,
    },
    "sag_full": {
        "adapters": ["ip-adapter-full"],
        "scales": [0.8],
        "images": [["rgb8.png"]],
        "sag_scale": 0.75,
        "seed": 23,
    },
    "sag_plus": {
        "adapters": ["ip-adapter-plus"],
        "scales": [1.0],
        "images": [["grey8.png"]],
        "sag_scale": 1.0,
        "guidance_scale": 1.0,
        "seed": 24,
    },
}


def load(case):
    text_encoder, unet, vae, scheduler = models.load("tiny-sd1", "text_encoder", "unet", "vae", "scheduler")
    unet._load_ip_adapter_weights([image_models.state_dict(kind) for kind in case["adapters"]])
    parts = {
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": None,
        "unet": unet,
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": CLIPImageProcessor.from_pretrained(image_models.FOLDER / "feature_extractor"),
        "image_encoder": image_models.encoder("image_encoder"),
        "requires_safety_checker": False,
    }
    pipe = (StableDiffusionSAGPipeline if case["sag_scale"] else StableDiffusionPipeline)(**parts)
    pipe.set_progress_bar_config(disable=True)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "num_tokens"):
            processor.scale = case["scales"]
    return pipe


def embeddings(pipe, images):
    """One for each adapter: positive and negative, [1, pictures, ...]."""
    out = []
    for pictures, layer in zip(images, pipe.unet.encoder_hid_proj.image_projection_layers):
        states = not isinstance(layer, ImageProjection)
        out.append([e[None] for e in pipe.encode_image(pictures, "cpu", 1, states)])
    return out


def insert(unet, embeds, guided):
    """Gives the UNet what each pass is meant to see."""
    inner = unet.forward

    def forward(sample, *args, **kwargs):
        both = guided and sample.shape[0] == 2
        images = [torch.cat([n, p]) if both else (n if guided else p) for p, n in embeds]
        return inner(sample, *args, **{**kwargs, "added_cond_kwargs": {"image_embeds": images}})

    unet.forward = forward


def write(name, case):
    pipe = load(case)
    guidance = case.get("guidance_scale", 3.0)
    images = [[Image.open(common.OUT / "pictures" / f).convert("RGB") for f in files] for files in case["images"]]
    encoder = pipe.text_encoder
    positive = encoder(token_ids(encoder.config, [9], 29)).last_hidden_state
    negative = encoder(token_ids(encoder.config, [5], 31)).last_hidden_state
    settings = {"height": 40, "width": 48, "num_inference_steps": 4, "guidance_scale": guidance}
    extra, masses, masks, starts, steps = {}, [], [], [], []
    if case["sag_scale"]:
        insert(pipe.unet, embeddings(pipe, images), guidance > 1)
        settings["sag_scale"] = case["sag_scale"]
        inner = pipe.sag_masking

        def noting(original_latents, attn_map, map_size, t, eps):
            mass = attn_map.reshape(1, -1, *attn_map.shape[1:]).mean(1).sum(1)
            masses.append(mass)
            masks.append((mass > 1.0).to(torch.uint8))
            return inner(original_latents, attn_map, map_size, t, eps)

        pipe.sag_masking = noting
    else:
        extra["ip_adapter_image"] = [i if len(i) > 1 else i[0] for i in images]
    prepare = pipe.prepare_latents

    def starting(*args):
        starts.append(prepare(*args))
        return starts[0]

    pipe.prepare_latents = starting
    picture = pipe(
        prompt_embeds=positive,
        negative_prompt_embeds=negative if guidance > 1 else None,
        generator=torch.Generator("cpu").manual_seed(case["seed"]),
        callback=lambda i, t, x: steps.append(x.clone()),
        callback_steps=1,
        output_type="pil",
        **settings,
        **extra,
    ).images
    tensors = {
        "latents": starts[0],  # DDIM's init_noise_sigma is 1
        "prompt_embeds": positive,
        "negative_prompt_embeds": negative,
        "final_latents": steps[-1],
        "image": torch.from_numpy(np.stack([np.asarray(p) for p in picture])),
    }
    if masses:
        tensors["key_mass"], tensors["mask"] = torch.stack(masses), torch.stack(masks)
    common.save(f"image_prompt_{name}.safetensors", tensors, case=case, settings=settings)


def main():
    for name, case in CASES.items():
        write(name, case)


if __name__ == "__main__":
    main()
