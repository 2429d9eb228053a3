"""Schedulers: time steps, every step of a loop with given predictions, noising.

For each case NAME of the metadata key "cases" (its configuration, number of
steps and eta) a file holds
  NAME.timesteps      [S] int32, in the order of the loop
  NAME.model_output   [S,...] what a model would have predicted
  NAME.variance_noise [S,...] where eta > 0
  NAME.x              [S+1,...] the sample before each step and after the last
  NAME.init_noise_sigma, NAME.noisy, NAME.noise_timesteps: add_noise of
  NAME.x[0] with the noise NAME.model_output[0] at some time steps
"""

import common

import torch
from diffusers import DDIMScheduler

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
V = {**SD, "prediction_type": "v_prediction"}

# (configuration, steps, eta)
DDIM = {
    "sd1": (SD, 10, 0.0),
    "sd1_50": (SD, 50, 0.0),
    "sd1_one_step": (SD, 1, 0.0),
    "sd1_seven": (SD, 7, 0.0),
    "sd1_eta": (SD, 6, 1.0),
    "sd1_eta_third": (SD, 6, 0.3),
    "sd2_v": (V, 10, 0.0),
    "sd2_v_eta": (V, 5, 0.8),
    "offset_0": ({**SD, "steps_offset": 0}, 9, 0.0),
    "alpha_one": ({**SD, "set_alpha_to_one": True}, 6, 0.0),
    "alpha_one_eta": ({**SD, "set_alpha_to_one": True}, 4, 1.0),
    "linspace": ({**SD, "timestep_spacing": "linspace"}, 7, 0.0),
    "linspace_v": ({**V, "timestep_spacing": "linspace"}, 11, 0.0),
    "trailing": ({**SD, "timestep_spacing": "trailing"}, 7, 0.0),
    "trailing_v_eta": ({**V, "timestep_spacing": "trailing"}, 6, 0.5),
    "defaults": ({}, 8, 0.0),
    "linear": ({**SD, "beta_schedule": "linear"}, 5, 0.0),
}

DDIM_MORE = {
    "sample": ({**SD, "prediction_type": "sample"}, 6, 0.0),
    "clip_range": ({**SD, "clip_sample": True, "clip_sample_range": 1.5}, 6, 0.5),
    "thresholding": (
        {**SD, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0},
        6,
        0.0,
    ),
    "squaredcos": ({**SD, "beta_schedule": "squaredcos_cap_v2"}, 6, 0.0),
    "trained_betas": (
        {**SD, "trained_betas": [0.01 + 0.002 * i for i in range(40)], "num_train_timesteps": 40},
        5,
        0.0,
    ),
    "zero_snr": ({**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6, 0.0),
    "train_100": ({**SD, "num_train_timesteps": 100}, 9, 0.0),
}

SHAPE = (2, 4, 1, 3)


def trace(name, config, steps, eta, seed):
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    rng = common.generator(seed)
    outputs = common.normal(rng, steps, *SHAPE)
    noise = common.normal(rng, steps, *SHAPE, outliers=False)
    x = [common.normal(rng, *SHAPE, outliers=False)]
    for i, t in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(x[-1], t)
        if not torch.equal(model_input, x[-1]):
            raise SystemExit(f"schedulers.py: {name} scales its input")
        given = {"eta": eta, "variance_noise": noise[i]} if eta > 0 else {}
        x.append(scheduler.step(outputs[i], t, x[-1], **given).prev_sample)
    last = scheduler.config.num_train_timesteps - 1
    at = torch.tensor([0, last // 3, last])
    noisy = torch.stack([scheduler.add_noise(x[0], outputs[0], t[None]) for t in at])
    tensors = {
        "timesteps": scheduler.timesteps.to(torch.int32),
        "model_output": outputs,
        "x": torch.stack(x),
        "init_noise_sigma": torch.tensor([float(scheduler.init_noise_sigma)]),
        "noise_timesteps": at.to(torch.int32),
        "noisy": noisy,
    }
    if eta > 0:
        tensors["variance_noise"] = noise
    return {f"{name}.{key}": t for key, t in tensors.items()}


def write(path, cases):
    tensors, described = {}, {}
    for i, (name, (config, steps, eta)) in enumerate(cases.items()):
        tensors.update(trace(name, config, steps, eta, 19 + i))
        described[name] = {"config": config, "num_inference_steps": steps, "eta": eta}
    common.save(path, tensors, scheduler="DDIMScheduler", cases=described)


def main():
    write("schedulers_ddim.safetensors", DDIM)
    write("schedulers_ddim_more.safetensors", DDIM_MORE)


if __name__ == "__main__":
    main()
