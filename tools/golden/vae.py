"""Autoencoders: latents to a picture, before it is clamped to -1..1.

The latents are what the decoder takes: already divided by scaling_factor.
"""

import common
import models

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


def main():
    for name in SIZES:
        write(name)


if __name__ == "__main__":
    main()
