"""UNets: one prediction each, with values from inside to find a fault by.

Sizes are odd and not square, so that every up-sampling has to be told its
size, and the batch holds two different samples.
"""

import common
import models

import torch

SIZES = {
    "sag-fast": (8, 8),
    "tiny-sd1": (11, 7),
    "tiny-sd2": (13, 18),
    "tiny-odd": (9, 7),
    "tiny-shift": (7, 10),
    "emoji-128": (19, 22),
}
TIMESTEP = 481


def modules(unet):
    """Where the probes sit, from the input to the output."""
    down, up = unet.down_blocks, unet.up_blocks
    return {
        "time_embedding": unet.time_embedding,
        "conv_in": unet.conv_in,
        "down_0": down[0],
        "mid_block": unet.mid_block,
        "up_0": up[0],
    }


def first(output):
    return output[0] if isinstance(output, tuple) else output


def write(name):
    unet = models.load(name, "unet")
    rng = common.generator(11)
    sample = common.normal(rng, 2, 4, *SIZES[name], outliers=False)
    tokens = 23 if name == "emoji-128" else 77  # to keep the file small
    states = common.normal(rng, 2, tokens, unet.config.cross_attention_dim, outliers=False)
    probes, hooks = {}, []
    for probe, module in modules(unet).items():
        def keep(_module, _inputs, output, probe=probe):
            probes["probe." + probe] = first(output).clone()

        hooks.append(module.register_forward_hook(keep))
    out = unet(sample, TIMESTEP, encoder_hidden_states=states).sample
    for hook in hooks:
        hook.remove()
    if name == "emoji-128":  # the two that tell most; the others are large
        probes = {k: v for k, v in probes.items() if k in ("probe.time_embedding", "probe.mid_block")}
    common.save(
        f"unet_{name}.safetensors",
        {
            "sample": sample,
            "timestep": torch.tensor([TIMESTEP], dtype=torch.int32),
            "encoder_hidden_states": states,
            "out": out,
            **probes,
        },
        model=name,
    )


def main():
    for name in SIZES:
        write(name)


if __name__ == "__main__":
    main()
