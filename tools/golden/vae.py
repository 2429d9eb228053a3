"""Autoencoders: latents to a picture, before it is clamped to -1..1, and back.

The latents are what the decoder takes: already divided by scaling_factor.
vae_tiled.safetensors is of a picture decoded in tiles.
vae_encode.safetensors has pictures with their moments and a seeded sample.
"""

import common
import models

import torch

SIZES = {
    "sag-fast": (2, 8, 8),
    "tiny-sd1": (2, 7, 5),
    "tiny-sd2": (1, 6, 9),
    "tiny-odd": (2, 9, 7),
    "tiny-shift": (1, 5, 8),
    "emoji-128": (1, 11, 14),
}


def write(name):
    vae = models.load(name, "vae")
    batch, height, width = SIZES[name]
    latents = common.normal(common.generator(13), batch, 4, height, width, outliers=False)
    latents = latents / vae.config.scaling_factor if name == "emoji-128" else latents
    common.save(
        f"vae_{name}.safetensors",
        {"latents": latents, "image": vae.decode(latents).sample},
        model=name,
    )


# Odd sides too: the last row or column then meets the padding.
PICTURES = {
    "tiny-sd1": (2, 24, 20),
    "tiny-sd2": (1, 21, 27),
    "tiny-odd": (1, 14, 17),
    "emoji-128": (1, 32, 24),
}
SEED = 5


def encode():
    tensors = {}
    for name, (batch, height, width) in PICTURES.items():
        vae = models.load(name, "vae")
        picture = common.normal(common.generator(19), batch, 3, height, width, outliers=False)
        picture = (0.5 * picture).clamp(-1, 1)
        latents = vae.encode(picture).latent_dist
        tensors[f"{name}.picture"] = picture
        tensors[f"{name}.moments"] = latents.parameters
        tensors[f"{name}.mode"] = latents.mode()
        tensors[f"{name}.sample"] = latents.sample(torch.Generator().manual_seed(SEED))
    common.save("vae_encode.safetensors", tensors, seed=SEED)


def tiled():
    """A picture larger than the model's own, which tiled_decode takes apart."""
    name = "tiny-sd1"
    vae = models.load(name, "vae")
    vae.enable_tiling()
    latents = common.normal(common.generator(23), 1, 4, 17, 11, outliers=False)
    common.save(
        "vae_tiled.safetensors",
        {"latents": latents, "image": vae.decode(latents).sample},
        model=name,
    )


def main():
    tiled()
    for name in SIZES:
        write(name)
    encode()


if __name__ == "__main__":
    main()
