"""Small models with random weights, in diffusers' folder format.

Between them they use every option of the UNet, the autoencoder and the text
encoder that Stable Diffusion 1.x and 2.x set, and the rarer ones beside.
Run as a program it writes tests/golden/models/<name>/.
"""

import json
import shutil
import sys

import common  # first: it sets what the libraries read when they are imported

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "scheduler": DDIMScheduler,
}

SD_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def vae_config(channels, groups, layers, **more):
    return {
        "block_out_channels": channels,
        "norm_num_groups": groups,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "latent_channels": 4,
        **more,
    }


def text_config(width, heads, layers, act, **more):
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": 3 * width + 5,
        "hidden_act": act,
        "vocab_size": 99,
        "bos_token_id": 97,
        "eos_token_id": 98,
        "pad_token_id": 98,
        **more,
    }


# One head count for all blocks, 1x1 convolutions around each transformer.
TINY_SD1 = {
    "unet": {
        "block_out_channels": [8, 12, 16],
        "layers_per_block": 2,
        "sample_size": 16,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 20,
        "attention_head_dim": 2,
    },
    "vae": vae_config([4, 4, 8], 2, 2, scaling_factor=0.18215),
    "text_encoder": text_config(20, 4, 3, "quick_gelu"),
    "scheduler": {**SD_BETAS, "steps_offset": 1},
}

# Head counts by block, linear projections, fp32 scores, velocity prediction.
TINY_SD2 = {
    "unet": {
        "block_out_channels": [8, 8, 12, 16],
        "layers_per_block": 2,
        "sample_size": 24,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": 28,
        "attention_head_dim": [1, 2, 3, 4],
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "vae": vae_config([4, 8, 8], 4, 2, scaling_factor=0.18215),
    "text_encoder": text_config(28, 2, 4, "gelu", pad_token_id=0),
    "scheduler": {**SD_BETAS, "steps_offset": 1, "prediction_type": "v_prediction"},
}

# What few models set: cross-attention only, asymmetric down-sampling, the
# other order and shift of the time embedding, several transformers a block,
# layers by block, channels and groups that are no powers of two.
TINY_ODD = {
    "unet": {
        "block_out_channels": [6, 9],
        "layers_per_block": [1, 2],
        "sample_size": 12,
        "norm_num_groups": 3,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 13,
        "attention_head_dim": 3,
        "only_cross_attention": [False, True],
        "mid_block_only_cross_attention": False,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "transformer_layers_per_block": [1, 2],
        "norm_eps": 1e-6,
    },
    "vae": vae_config([6, 9], 3, 1, scaling_factor=0.5),
    "text_encoder": text_config(13, 1, 2, "quick_gelu"),
    "scheduler": {**SD_BETAS, "timestep_spacing": "trailing", "set_alpha_to_one": True},
}

# The time embedding as scale and shift, inputs centred, rescaled mid block.
TINY_SHIFT = {
    "unet": {
        "block_out_channels": [8, 12],
        "layers_per_block": 1,
        "sample_size": 12,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 12,
        "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift",
        "center_input_sample": True,
        "mid_block_scale_factor": 2.0,
    },
    "vae": vae_config([4, 8], 4, 1, scaling_factor=0.25),
    "text_encoder": text_config(12, 3, 2, "gelu"),
    "scheduler": {**SD_BETAS, "timestep_spacing": "linspace"},
}

RANDOM = {
    "tiny-sd1": TINY_SD1,
    "tiny-sd2": TINY_SD2,
    "tiny-odd": TINY_ODD,
    "tiny-shift": TINY_SHIFT,
}
NAMES = ["sag-fast", *RANDOM]


def sag_fast():
    """The components of diffusers' own fast test of its SAG pipeline, seeds included.

    diffusers v0.26.3 tests/pipelines/stable_diffusion_sag/test_stable_diffusion_sag.py
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=2,
        sample_size=8,
        norm_num_groups=1,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
    )
    scheduler = DDIMScheduler(**SD_BETAS)
    torch.manual_seed(0)
    vae = AutoencoderKL(**vae_config([4, 8], 1, 1, in_channels=3, out_channels=3))
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            bos_token_id=0,
            eos_token_id=2,
            hidden_size=8,
            num_hidden_layers=2,
            intermediate_size=37,
            layer_norm_eps=1e-05,
            num_attention_heads=4,
            pad_token_id=1,
            vocab_size=1000,
        )
    )
    return {"unet": unet, "vae": vae, "text_encoder": text_encoder, "scheduler": scheduler}


def random_model(name):
    config = RANDOM[name]
    seed = 100 * (1 + list(RANDOM).index(name))
    unet = common.randomise(UNet2DConditionModel(**config["unet"]), seed)
    vae = common.randomise(AutoencoderKL(**config["vae"]), seed + 1)
    text = common.randomise(CLIPTextModel(CLIPTextConfig(**config["text_encoder"])), seed + 2)
    return {
        "unet": unet.half(),
        "vae": vae.half(),
        "text_encoder": text.half(),
        "scheduler": DDIMScheduler(**config["scheduler"]),
    }


def load(name, *parts):
    """Parts of a stored model, in fp32 whatever its files hold."""
    loaded = []
    for part in parts:
        folder = common.model_folder(name) / part
        if part == "scheduler":
            loaded.append(DDIMScheduler.from_pretrained(folder))
        else:
            loaded.append(CLASSES[part].from_pretrained(folder).float().eval())
    return loaded if len(loaded) > 1 else loaded[0]


def write(name):
    folder = common.model_folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    components = sag_fast() if name == "sag-fast" else random_model(name)
    for part, component in components.items():
        component.save_pretrained(folder / part)
    index = {"_class_name": "StableDiffusionSAGPipeline", "_diffusers_version": "0.26.3"}
    for part, component in components.items():
        library = "transformers" if part == "text_encoder" else "diffusers"
        index[part] = [library, type(component).__name__]
    for part in ("feature_extractor", "image_encoder", "safety_checker", "tokenizer"):
        index[part] = [None, None]
    index["requires_safety_checker"] = False
    text = json.dumps(dict(sorted(index.items())), indent=2) + "\n"
    (folder / "model_index.json").write_text(text)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"models/{name}/  {size:,} bytes", file=sys.stderr)


def main():
    for name in NAMES:
        write(name)


if __name__ == "__main__":
    main()
