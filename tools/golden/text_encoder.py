"""CLIP text encoders: hidden states of given token ids, for each clip_skip.

The states are those that StableDiffusionSAGPipeline.encode_prompt hands to
the UNet: after final_layer_norm, whichever layer they come from.
"""

import common
import models

import torch

# Lengths of the prompts in tokens, start and end included.
LENGTHS = [3, 41, 77]


def token_ids(config, lengths, seed):
    rng = common.generator(seed)
    special = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
    words = [i for i in range(config.vocab_size) if i not in special]
    rows = []
    for n in lengths:
        row = [config.bos_token_id, *rng.choice(words, n - 2).tolist(), config.eos_token_id]
        rows.append(row + [config.pad_token_id] * (77 - n))
    return torch.tensor(rows)


def write(name):
    encoder = models.load(name, "text_encoder")
    lengths = LENGTHS[1:2] if name == "emoji-128" else LENGTHS  # to keep the file small
    ids = token_ids(encoder.config, lengths, 7)
    out = encoder(ids, output_hidden_states=True)
    norm = encoder.text_model.final_layer_norm
    common.save(
        f"text_encoder_{name}.safetensors",
        {
            "input_ids": ids.to(torch.int32),
            "last_hidden_state": out.last_hidden_state,
            "clip_skip_1": norm(out.hidden_states[-2]),
            "clip_skip_2": norm(out.hidden_states[-3]),
        },
        model=name,
    )


def main():
    for name in [*models.NAMES, "emoji-128"]:
        write(name)


if __name__ == "__main__":
    main()
