"""StableDiffusionSAGPipeline with each scheduler that it takes: those whose timesteps are integers.

One small model, a few steps. sag_schedulers holds prompt_embeds,
negative_prompt_embeds and for each case NAME of the metadata key "cases"
  NAME.latents [B,4,h,w]             after the last call
  NAME.key_mass, NAME.mask [C,B,..]  of each call's guidance
  NAME.timesteps [C]
"""

import common
from sag import embeddings, pipeline
from scheduler_cases import KARRAS, NOISE, SD1, SD2, SDE, THRESHOLD

import diffusers
import torch

MODEL = "sag-fast"
CALL = {"guidance_scale": 3.0, "sag_scale": 0.75, "num_inference_steps": 6}
SEED = 5

CASES = {
    "ddim_trailing": ("DDIM", {**SD1, "timestep_spacing": "trailing", "set_alpha_to_one": True}),
    "ddim_threshold": ("DDIM", {**THRESHOLD, "sample_max_value": 5.0}),
    "ddim_sample": ("DDIM", {**SD1, "prediction_type": "sample", "clip_sample": True, "clip_sample_range": 3.0}),
    "ddpm": ("DDPM", SD1),
    "ddpm_v_clip": ("DDPM", {**SD2, "clip_sample": True, "clip_sample_range": 2.0}),
    "pndm": ("PNDM", SD1),
    "pndm_v": ("PNDM", SD2),
    "pndm_runge_kutta": ("PNDM", {**SD1, "skip_prk_steps": False}),
    "dpm_multistep": ("DPMSolverMultistep", SD1),
    "dpm_multistep_v_3": ("DPMSolverMultistep", {**SD2, "solver_order": 3, "timestep_spacing": "leading"}),
    "dpm_multistep_noise": ("DPMSolverMultistep", NOISE),
    "dpm_multistep_sde": ("DPMSolverMultistep", SDE),
    "dpm_singlestep": ("DPMSolverSinglestep", SD1),
    "dpm_singlestep_v_3": ("DPMSolverSinglestep", {**SD2, "solver_order": 3}),
    "deis": ("DEISMultistep", SD1),
    "deis_v": ("DEISMultistep", {**SD2, "timestep_spacing": "trailing"}),
    "unipc": ("UniPCMultistep", SD1),
    "unipc_v_3": ("UniPCMultistep", {**SD2, "solver_order": 3}),
}

# x0 by one noise level, noise put back by another: stored to show how far that is from ours.
DIFFERENT = {"dpm_multistep_karras": ("DPMSolverMultistep", KARRAS)}


def run(name, config):
    pipe = pipeline(MODEL)
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(dict(config))
    prompt, negative = embeddings(pipe, {"model": MODEL, **CALL}, 1)
    masses, masks, timesteps = [], [], []
    inner = pipe.sag_masking

    def noting(original_latents, attn_map, map_size, t, eps):
        mass = attn_map.reshape(1, -1, *attn_map.shape[1:]).mean(1).sum(1)
        masses.append(mass)
        masks.append((mass > 1.0).reshape(1, *map_size).to(torch.uint8))
        timesteps.append(float(t))
        return inner(original_latents, attn_map, map_size, t, eps)

    pipe.sag_masking = noting
    latents = pipe(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="latent",
        **CALL,
    ).images
    made = {
        "latents": latents,
        "key_mass": torch.stack(masses),
        "mask": torch.stack(masks),
        "timesteps": torch.tensor(timesteps),
    }
    return prompt, negative, made


def main():
    tensors, described = {}, {}
    for key, (name, config) in {**CASES, **DIFFERENT}.items():
        prompt, negative, made = run(name, config)
        if not torch.isfinite(made["latents"]).all():
            raise SystemExit(f"sag_schedulers.py: {key} is not finite")
        tensors.update({f"{key}.{k}": t for k, t in made.items()})
        described[key] = {"scheduler": f"{name}Scheduler", "config": config, "differs": key in DIFFERENT}
    tensors.update(prompt_embeds=prompt, negative_prompt_embeds=negative)
    settings = {**CALL, "seed": SEED}
    common.save("sag_schedulers.safetensors", tensors, model=MODEL, settings=settings, cases=described)


if __name__ == "__main__":
    main()
