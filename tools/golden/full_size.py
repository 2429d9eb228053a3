"""Stable Diffusion 1.5 and 2.1 in their full sizes with random weights.

  full_size.py make sd15|sd21 FOLDER       writes a model folder, fp32, about 5 GB
  full_size.py checkpoint FOLDER FILE      the same as one file with original names
  full_size.py reference FOLDER FILE.npy   draws with diffusers' pipeline
  full_size.py compare FILE.npy FILE.npy   the largest difference of two pictures

Nothing of it is stored: the weights are torch's own initial ones, seeded.
"""

import json
import sys
from pathlib import Path

import common  # first: it sets what the libraries read when they are imported

import numpy as np
import original_names
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionSAGPipeline, UNet2DConditionModel
from models import SD_BETAS
from safetensors.torch import save_file
from tokenizer import clip_folder
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNET = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
KINDS = {
    "sd15": {
        "unet": {**UNET, "cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
        "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                         "num_hidden_layers": 12, "hidden_act": "quick_gelu"},
        "scheduler": {**SD_BETAS, "steps_offset": 1},
        "pad": "<|endoftext|>",
    },
    "sd21": {
        "unet": {**UNET, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
                 "use_linear_projection": True, "upcast_attention": True, "sample_size": 96},
        "text_encoder": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                         "num_hidden_layers": 23, "hidden_act": "gelu"},
        "scheduler": {**SD_BETAS, "steps_offset": 1, "prediction_type": "v_prediction"},
        "pad": "!",
    },
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}
CALL = {"height": 256, "width": 256, "num_inference_steps": 4, "guidance_scale": 7.5, "sag_scale": 0.75}


def make(kind, folder):
    settings, folder = KINDS[kind], Path(folder)
    torch.manual_seed(1)
    UNet2DConditionModel(**settings["unet"]).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    config = CLIPTextConfig(vocab_size=49408, **settings["text_encoder"])
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    DDIMScheduler(**settings["scheduler"]).save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir(exist_ok=True)
    clip_folder(folder / "tokenizer", settings["pad"])
    (folder / "model_index.json").write_text(json.dumps(INDEX))


def parts(folder):
    folder = Path(folder)
    return (
        UNet2DConditionModel.from_pretrained(folder / "unet"),
        AutoencoderKL.from_pretrained(folder / "vae"),
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
    )


def checkpoint(folder, path):
    unet, vae, text = parts(folder)
    state = original_names.whole(unet, vae, text)
    original_names.check(state, unet, vae)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def reference(folder, path):
    unet, vae, text = parts(folder)
    pipe = StableDiffusionSAGPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer"),
        unet=unet,
        scheduler=DDIMScheduler.from_pretrained(Path(folder) / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    image = pipe(
        "a photo of a cat", **CALL, generator=torch.Generator("cpu").manual_seed(0), output_type="np"
    ).images
    np.save(path, image)


def compare(a, b):
    a, b = np.load(a) * 255, np.load(b) * 255
    difference = np.abs(np.round(a) - np.round(b))
    print(f"largest difference {difference.max():.0f}/255, {(difference > 0).mean():.2%} of values differ; "
          f"unrounded {np.abs(a - b).max():.4f}/255; the picture's deviation {a.std():.1f}/255")


if __name__ == "__main__":
    commands = {"make": make, "checkpoint": checkpoint, "reference": reference, "compare": compare}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
