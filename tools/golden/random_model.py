#!/usr/bin/env python3
"""A model folder of Stable Diffusion 1.5's sizes with random weights: random_model.py DIR [options]

For timing where no trained weights are at hand: names, shapes and configs are those of the real
model (diffusers' format), values come from a seed, scaled so that activations stay finite in fp16.
Needs torch alone. DIR/embeds.safetensors has prompt embeddings for `attnplug sag --prompt-embeds`.

  --dtype f16|f32   of the stored weights (f16)
  --seed N          (0)
  --device D        where torch draws the numbers; the same seed gives others elsewhere (cpu)
  --text-encoder    writes the text encoder too (there is no tokenizer: embeddings stand for prompts)
"""
import argparse
import json
import os

import torch

CHANNELS = (320, 640, 1280, 1280)
CROSS = 768
TIME = 1280


class Writer:
    """Collects (name, shape, kind) and writes one .safetensors file from the seed."""

    def __init__(self, args):
        self.args = args
        self.tensors = []

    def add(self, name, shape, kind="weight", gain=1.0):
        self.tensors.append((name, shape, kind, gain))

    def linear(self, name, out, inner, bias=True, gain=1.0):
        self.add(name + ".weight", (out, inner), gain=gain)
        if bias:
            self.add(name + ".bias", (out,), "bias")

    def conv(self, name, out, inner, kernel, gain=1.0):
        self.add(name + ".weight", (out, inner, kernel, kernel), gain=gain)
        self.add(name + ".bias", (out,), "bias")

    def norm(self, name, channels):
        self.add(name + ".weight", (channels,), "one")
        self.add(name + ".bias", (channels,), "bias")

    def values(self, shape, kind, gain, generator):
        x = torch.randn(shape, generator=generator, device=self.args.device)
        if kind == "weight":
            fan_in = x.numel() // shape[0]
            x *= gain * fan_in ** -0.5
        elif kind == "one":
            x = 1 + 0.1 * x
        elif kind == "bias":
            x *= 0.02
        return x

    def write(self, path):
        dtype, name = (torch.float16, "F16") if self.args.dtype == "f16" else (torch.float32, "F32")
        header, at = {}, 0
        for tensor, shape, _, _ in self.tensors:
            size = torch.Size(shape).numel() * dtype.itemsize
            header[tensor] = {"dtype": name, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        generator = torch.Generator(device=self.args.device).manual_seed(self.args.seed)
        with open(path, "wb") as f:
            f.write(len(text).to_bytes(8, "little"))
            f.write(text)
            for _, shape, kind, gain in self.tensors:
                x = self.values(shape, kind, gain, generator).to(dtype).cpu().contiguous()
                f.write(memoryview(x.view(torch.uint8).flatten().numpy()))


def resnet(w, name, inner, out, time=TIME):
    w.norm(name + ".norm1", inner)
    w.conv(name + ".conv1", out, inner, 3)
    if time:
        w.linear(name + ".time_emb_proj", out, time)
    w.norm(name + ".norm2", out)
    w.conv(name + ".conv2", out, out, 3, gain=0.3)
    if inner != out:
        w.conv(name + ".conv_shortcut", out, inner, 1)


def attention(w, name, channels, cross):
    w.linear(name + ".to_q", channels, channels, bias=False)
    w.linear(name + ".to_k", channels, cross, bias=False)
    w.linear(name + ".to_v", channels, cross, bias=False)
    w.linear(name + ".to_out.0", channels, channels, gain=0.3)


def transformer(w, name, channels):
    w.norm(name + ".norm", channels)
    w.conv(name + ".proj_in", channels, channels, 1)
    block = name + ".transformer_blocks.0"
    for i, cross in ((1, channels), (2, CROSS)):
        w.norm("%s.norm%d" % (block, i), channels)
        attention(w, "%s.attn%d" % (block, i), channels, cross)
    w.norm(block + ".norm3", channels)
    w.linear(block + ".ff.net.0.proj", 8 * channels, channels)
    w.linear(block + ".ff.net.2", channels, 4 * channels, gain=0.3)
    w.conv(name + ".proj_out", channels, channels, 1, gain=0.3)


def unet(w):
    w.conv("conv_in", CHANNELS[0], 4, 3)
    w.linear("time_embedding.linear_1", TIME, CHANNELS[0])
    w.linear("time_embedding.linear_2", TIME, TIME)
    skips, inner = [CHANNELS[0]], CHANNELS[0]
    for i, out in enumerate(CHANNELS):
        for j in range(2):
            resnet(w, "down_blocks.%d.resnets.%d" % (i, j), inner, out)
            if i < 3:
                transformer(w, "down_blocks.%d.attentions.%d" % (i, j), out)
            inner = out
            skips.append(out)
        if i < 3:
            w.conv("down_blocks.%d.downsamplers.0.conv" % i, out, out, 3)
            skips.append(out)
    resnet(w, "mid_block.resnets.0", inner, inner)
    transformer(w, "mid_block.attentions.0", inner)
    resnet(w, "mid_block.resnets.1", inner, inner)
    for i, out in enumerate(reversed(CHANNELS)):
        for j in range(3):
            resnet(w, "up_blocks.%d.resnets.%d" % (i, j), inner + skips.pop(), out)
            inner = out
            if i > 0:
                transformer(w, "up_blocks.%d.attentions.%d" % (i, j), out)
        if i < 3:
            w.conv("up_blocks.%d.upsamplers.0.conv" % i, out, out, 3)
    w.norm("conv_norm_out", CHANNELS[0])
    w.conv("conv_out", 4, CHANNELS[0], 3)


def vae_decoder(w):
    w.conv("post_quant_conv", 4, 4, 1)
    w.conv("decoder.conv_in", 512, 4, 3)
    for i in range(2):
        resnet(w, "decoder.mid_block.resnets.%d" % i, 512, 512, time=0)
    attn = "decoder.mid_block.attentions.0"
    w.norm(attn + ".group_norm", 512)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        w.linear("%s.%s" % (attn, name), 512, 512)
    inner = 512
    for i, out in enumerate((512, 512, 256, 128)):
        for j in range(3):
            resnet(w, "decoder.up_blocks.%d.resnets.%d" % (i, j), inner, out, time=0)
            inner = out
        if i < 3:
            w.conv("decoder.up_blocks.%d.upsamplers.0.conv" % i, out, out, 3)
    w.norm("decoder.conv_norm_out", 128)
    w.conv("decoder.conv_out", 3, 128, 3)


def text_encoder(w):
    w.add("text_model.embeddings.token_embedding.weight", (49408, 768), "bias")
    w.add("text_model.embeddings.position_embedding.weight", (77, 768), "bias")
    for i in range(12):
        layer = "text_model.encoder.layers.%d" % i
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            w.linear("%s.self_attn.%s" % (layer, name), 768, 768)
        w.linear(layer + ".mlp.fc1", 3072, 768)
        w.linear(layer + ".mlp.fc2", 768, 3072)
        w.norm(layer + ".layer_norm1", 768)
        w.norm(layer + ".layer_norm2", 768)
    w.norm("text_model.final_layer_norm", 768)


CONFIGS = {
    "unet": {
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": CHANNELS, "center_input_sample": False, "cross_attention_dim": CROSS,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
        "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32, "out_channels": 4,
        "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3},
    "vae": {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4,
        "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
        "scaling_factor": 0.18215, "up_block_types": ["UpDecoderBlock2D"] * 4},
    "text_encoder": {
        "model_type": "clip_text_model", "hidden_act": "quick_gelu", "hidden_size": 768,
        "intermediate_size": 3072, "layer_norm_eps": 1e-5, "max_position_embeddings": 77,
        "num_attention_heads": 12, "num_hidden_layers": 12, "vocab_size": 49408},
    "scheduler": {
        "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": False, "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "set_alpha_to_one": False, "steps_offset": 1},
}
PARTS = {"unet": (unet, "diffusion_pytorch_model"), "vae": (vae_decoder, "diffusion_pytorch_model"),
         "text_encoder": (text_encoder, "model")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--dtype", choices=("f16", "f32"), default="f16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--text-encoder", action="store_true")
    args = parser.parse_args()
    parts = ["unet", "vae"] + (["text_encoder"] if args.text_encoder else [])
    for part in parts + ["scheduler"]:
        os.makedirs(os.path.join(args.dir, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        with open(os.path.join(args.dir, part, config), "w") as f:
            json.dump(CONFIGS[part], f, indent=2)
    for part in parts:
        w = Writer(args)
        build, base = PARTS[part]
        build(w)
        w.write(os.path.join(args.dir, part, base + ".safetensors"))
    embeds = Writer(argparse.Namespace(dtype="f32", seed=args.seed + 1, device=args.device))
    embeds.add("prompt_embeds", (1, 77, CROSS), "value")
    embeds.add("negative_prompt_embeds", (1, 77, CROSS), "value")
    embeds.write(os.path.join(args.dir, "embeds.safetensors"))
    with open(os.path.join(args.dir, "model_index.json"), "w") as f:
        json.dump({"_class_name": "StableDiffusionSAGPipeline"}, f)


if __name__ == "__main__":
    main()
