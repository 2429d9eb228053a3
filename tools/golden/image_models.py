"""Image encoders, a safety checker and IP-Adapters, tiny and random, and what they compute.

Writes models/tiny-image/{image_encoder,image_encoder_gelu,safety_checker,feature_extractor}, the adapters
models/tiny-image/ip-adapter{,-plus,-full}.safetensors for tiny-sd1, image_encoder.safetensors,
image_projection.safetensors and safety_checker.safetensors.
"""

import shutil
import sys

import common
import models

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

FOLDER = common.MODELS / "tiny-image"
ADAPTERS = ["ip-adapter", "ip-adapter-plus", "ip-adapter-full"]

ENCODERS = {
    "image_encoder": {
        "hidden_size": 24,
        "intermediate_size": 50,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 30,
        "patch_size": 10,
        "projection_dim": 24,
        "hidden_act": "quick_gelu",
    },
    "image_encoder_gelu": {
        "hidden_size": 20,
        "intermediate_size": 45,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 7,
        "projection_dim": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-4,
    },
}


def encoder(name):
    return CLIPVisionModelWithProjection.from_pretrained(FOLDER / name).float().eval()


def write_encoders():
    tensors = {}
    for i, (name, config) in enumerate(ENCODERS.items()):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
        common.randomise(model, 900 + i).half().save_pretrained(FOLDER / name)
        model = encoder(name)
        size = config["image_size"]
        pixels = common.normal(common.generator(910 + i), 2 - i, 3, size, size)
        out = model(pixels, output_hidden_states=True)
        tensors[f"{name}.pixels"] = pixels
        tensors[f"{name}.image_embeds"] = out.image_embeds
        tensors[f"{name}.penultimate"] = out.hidden_states[-2]
    common.save("image_encoder.safetensors", tensors)


def adapter(kind, unet, rng):
    """The tensors of an adapter under the names of its first publication."""
    cross = unet.config.cross_attention_dim
    width, embeds = ENCODERS["image_encoder"]["hidden_size"], ENCODERS["image_encoder"]["projection_dim"]
    t = {}

    def linear(name, out, inner, bias=True):
        t[f"{name}.weight"] = rng.standard_normal((out, inner)) / np.sqrt(inner)
        if bias:
            t[f"{name}.bias"] = 0.1 * rng.standard_normal(out)

    def norm(name, n):
        t[f"{name}.weight"] = 1 + 0.2 * rng.standard_normal(n)
        t[f"{name}.bias"] = 0.1 * rng.standard_normal(n)

    if kind == "ip-adapter":
        linear("image_proj.proj", 4 * cross, embeds)
        norm("image_proj.norm", cross)
    elif kind == "ip-adapter-full":
        linear("image_proj.proj.0", width, width)
        linear("image_proj.proj.2", cross, width)
        norm("image_proj.proj.3", cross)
    else:
        hidden, inner = 12, 64
        t["image_proj.latents"] = rng.standard_normal((1, 5, hidden))
        linear("image_proj.proj_in", hidden, width)
        linear("image_proj.proj_out", cross, hidden)
        norm("image_proj.norm_out", cross)
        for i in range(4):
            name = f"image_proj.layers.{i}"
            norm(f"{name}.0.norm1", hidden)
            norm(f"{name}.0.norm2", hidden)
            linear(f"{name}.0.to_q", inner, hidden, False)
            linear(f"{name}.0.to_kv", 2 * inner, hidden, False)
            linear(f"{name}.0.to_out", hidden, inner, False)
            norm(f"{name}.1.0", hidden)
            linear(f"{name}.1.1", 4 * hidden, hidden, False)
            linear(f"{name}.1.3", hidden, 4 * hidden, False)
    layers = [n for n in unet.attn_processors if not n.endswith("attn1.processor")]
    for i, name in enumerate(layers):
        out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("k", "v"):
            linear(f"ip_adapter.{2 * i + 1}.to_{part}_ip", out, cross, False)
    return {k: torch.from_numpy(np.asarray(v, dtype=np.float32)).half() for k, v in t.items()}


def state_dict(kind):
    """As diffusers' load_ip_adapter makes it of a file."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(FOLDER / f"{kind}.safetensors").items():
        part, key = name.split(".", 1)
        parts[part][key] = tensor.float()
    return parts


def write_adapters():
    unet = models.load("tiny-sd1", "unet")
    rng = common.generator(930)
    for kind in ADAPTERS:
        common.save(FOLDER / f"{kind}.safetensors", adapter(kind, unet, rng))
    tensors = {}
    inputs = load_file(common.OUT / "image_encoder.safetensors")
    unet._load_ip_adapter_weights([state_dict(kind) for kind in ADAPTERS])
    for kind, layer in zip(ADAPTERS, unet.encoder_hid_proj.image_projection_layers):
        which = "image_embeds" if kind == "ip-adapter" else "penultimate"
        tensors[kind] = layer.eval()(inputs[f"image_encoder.{which}"])
    common.save("image_projection.safetensors", tensors)


def scores(checker, pixels):
    embeds = checker.visual_projection(checker.vision_model(pixels)[1])
    return (cosine_distance(embeds, checker.special_care_embeds).numpy(),
            cosine_distance(embeds, checker.concept_embeds).numpy())


def write_checker():
    """Thresholds between the pictures' own scores, so that each part of the rule decides some."""
    vision = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 30, "patch_size": 10}
    text = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "vocab_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    checker = common.randomise(StableDiffusionSafetyChecker(config), 940)
    checker.concept_embeds.copy_(common.normal(common.generator(941), 17, 16, outliers=False).half().float())
    checker.special_care_embeds.copy_(common.normal(common.generator(942), 3, 16, outliers=False).half().float())
    processor = CLIPImageProcessor(size=30, crop_size=30)
    rng = common.generator(943)
    noise = rng.integers(0, 256, (8, 20, 24, 3)).astype(np.uint8)
    noise[::2] //= 3
    drawn = load_file(common.OUT / "sag_tiny-sd1_per_prompt.safetensors")["image"].numpy()
    pictures = [Image.fromarray(p) for p in [*drawn, *noise]]
    pixels = processor(pictures, return_tensors="pt").pixel_values
    special, concept = scores(checker, pixels)

    def top(values):
        """Which picture has the highest score, and the threshold that it alone passes."""
        order = np.argsort(values)
        return order[-1], float(values[order[-2:]].mean())

    hit, care = top(special[:, 0])
    checker.special_care_embeds_weights.copy_(torch.tensor([care, 0.99, 0.99]))
    weights = np.full(17, 0.99)
    tops = [top(concept[:, k]) for k in range(17)]
    wide = sorted(range(17), key=lambda k: tops[k][1] - concept[tops[k][0], k])
    for group in (range(4), range(4, 12)):  # one of the drawn, one of the others
        k = next(k for k in wide if tops[k][0] in group and tops[k][0] != hit)
        weights[k] = tops[k][1]
    # One that only the special care's adjustment flags: its score is 0.005 below the threshold.
    k = next(k for k in range(17) if tops[k][0] == hit)
    weights[k] = concept[hit, k] + 0.005
    checker.concept_embeds_weights.copy_(torch.tensor(weights))
    checker.half().save_pretrained(FOLDER / "safety_checker")
    processor.save_pretrained(FOLDER / "feature_extractor")

    checker = StableDiffusionSafetyChecker.from_pretrained(FOLDER / "safety_checker").float().eval()
    special, concept = scores(checker, pixels)
    _, flags = checker(clip_input=pixels, images=[np.asarray(p) for p in pictures])
    margin = np.abs(np.concatenate([special - checker.special_care_embeds_weights.numpy(),
                                    concept - checker.concept_embeds_weights.numpy()], 1))
    print(f"safety checker: {flags}, nearest score {margin.min():.4f} from its threshold, "
          f"of the drawn {margin[:4].min():.4f}", file=sys.stderr)
    common.save("safety_checker.safetensors", {
        "pictures": torch.from_numpy(noise),
        "special": torch.from_numpy(special),
        "concept": torch.from_numpy(concept),
        "flagged": torch.tensor(flags).to(torch.uint8),
    })


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_encoders()
    write_adapters()
    write_checker()
    total = sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file())
    print(f"models/tiny-image/  {total:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
