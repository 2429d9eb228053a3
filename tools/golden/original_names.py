"""State dicts from diffusers' names to those of the models' authors.

The opposite direction of diffusers v0.26.3
pipelines/stable_diffusion/convert_from_ckpt.py, written on its own: check()
sends the result back through diffusers and compares every tensor.
"""

import re

import torch
from diffusers.pipelines.stable_diffusion import convert_from_ckpt as upstream

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer."
OPENCLIP = "cond_stage_model.model."

UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def unet_name(name, layers, attention_up):
    """attention_up: whether up block i has attentions, by i."""
    parts = name.split(".")
    for new, old in UNET_TOP.items():
        if name.startswith(new + "."):
            return old + name[len(new) :]
    if parts[0] == "mid_block":
        where = "middle_block.1" if parts[1] == "attentions" else f"middle_block.{2 * int(parts[2])}"
        kind, rest = parts[1], parts[3:]
    else:
        level, kind, index, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op." + rest[-1]
        if kind == "upsamplers":
            last = (level + 1) * (layers + 1) - 1
            return f"output_blocks.{last}.{2 if attention_up[level] else 1}.conv." + rest[-1]
        slot = 0 if kind == "resnets" else 1
        if parts[0] == "down_blocks":
            where = f"input_blocks.{1 + level * (layers + 1) + index}.{slot}"
        else:
            where = f"output_blocks.{level * (layers + 1) + index}.{slot}"
    if kind == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    return ".".join([where, *rest])


def unet(model):
    config = model.config
    attention_up = ["CrossAttn" in t for t in config.up_block_types]
    return {
        UNET + unet_name(name, config.layers_per_block, attention_up): tensor
        for name, tensor in model.state_dict().items()
    }


def vae_name(name, levels):
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
    if ".mid.attn_1." in name:
        for new, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", name)


def vae(model):
    levels = len(model.config.block_out_channels)
    out = {}
    for name, tensor in model.state_dict().items():
        name = VAE + vae_name(name, levels)
        linear = ".mid.attn_1." in name and tensor.ndim == 2
        out[name] = tensor[:, :, None, None] if linear else tensor
    return out


def openclip_name(name):
    tops = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    name = tops.get(name, name).replace("text_model.encoder.layers.", "transformer.resblocks.")
    for new, old in {"layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn": "attn"}.items():
        name = name.replace(new, old)
    return name


def openclip(model):
    """With what Stable Diffusion 2.x does not use: the last of 24 blocks, and the projection."""
    state = model.state_dict()
    out, last = {}, model.config.num_hidden_layers - 1
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*self_attn\.)q_proj\.(weight|bias)", name)
        if match:
            tensor = torch.cat([state[f"{match[1]}{p}_proj.{match[2]}"] for p in "qkv"])
            out[OPENCLIP + openclip_name(match[1]) + "in_proj_" + match[2]] = tensor
        elif not re.search(r"self_attn\.[kv]_proj", name):
            out[OPENCLIP + openclip_name(name)] = tensor
    for name in [n for n in out if last == 22 and f".resblocks.{last}." in n]:
        out[name.replace(f".resblocks.{last}.", f".resblocks.{last + 1}.")] = torch.zeros_like(out[name])
    if last == 22:
        out[OPENCLIP + "text_projection"] = torch.eye(model.config.hidden_size)
    return out


def clip(model):
    return {CLIP + name: tensor for name, tensor in model.state_dict().items()}


def text(model):
    return openclip(model) if model.config.hidden_act == "gelu" else clip(model)


def ema(state):
    """The averaged weights' names beside the UNet's."""
    return {"model_ema." + "".join(n.split(".")[1:]): n for n in state if n.startswith(UNET)}


def whole(unet_model, vae_model, text_model):
    return {**unet(unet_model), **vae(vae_model), **text(text_model)}


def check(state, unet_model, vae_model):
    """What diffusers makes of the names is what they came from."""
    config = {**unet_model.config}
    back = upstream.convert_ldm_unet_checkpoint(dict(state), config)
    compare(back, unet_model.state_dict())
    compare(upstream.convert_ldm_vae_checkpoint(dict(state), None), vae_model.state_dict())


def compare(found, expected):
    if found.keys() != expected.keys():
        raise SystemExit(f"original_names.py: names differ: {found.keys() ^ expected.keys()}")
    for name, tensor in expected.items():
        if not torch.equal(found[name], tensor):
            raise SystemExit(f"original_names.py: {name} differs")
