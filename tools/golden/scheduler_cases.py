"""The configurations that schedulers.py runs, stored ones and random ones."""

# What the folders of Stable Diffusion 1.x and 2.x say.
SD1 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD2 = {**SD1, "prediction_type": "v_prediction"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
TRAINED = {"trained_betas": [0.01 + 0.002 * i for i in range(40)], "num_train_timesteps": 40}
KARRAS = {**SD1, "use_karras_sigmas": True}
THRESHOLD = {
    **SD1,
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.9,
    "sample_max_value": 2.0,
}


def case(config, steps, eta=0.0, kind="fresh", shape=(1, 4, 3, 3)):
    return {"config": config, "steps": steps, "eta": eta, "kind": kind, "shape": list(shape)}


def pair(config, steps, **more):
    """A batch of two: thresholds are each picture's own."""
    return case(config, steps, shape=(2, 4, 1, 3), **more)


def basics(steps=7):
    return {
        "default": case({}, steps),
        "sd1": case(SD1, steps),
        "sd1_many": case(SD1, 30, kind="smooth", shape=(1, 1, 2, 3)),
        "sd2": case(SD2, steps),
        "one_step": case({**SD1, "skip_prk_steps": True}, 1),
    }


def spaced(steps=6):
    return {
        f"{spacing}_{prediction}": case(
            {**SD1, "timestep_spacing": spacing, "prediction_type": prediction}, steps
        )
        for spacing, prediction in (("leading", "v_prediction"), ("trailing", "epsilon"), ("linspace", "v_prediction"))
    }


DDIM = {
    **basics(),
    **spaced(),
    "eta": case(SD1, 6, eta=1.0),
    "sd2_eta": case(SD2, 5, eta=0.3),
    "alpha_one": case({**SD1, "set_alpha_to_one": True, "steps_offset": 0}, 9),
    "sample": case({**SD1, "prediction_type": "sample"}, 6),
    "clip_range": case({**SD1, "clip_sample": True, "clip_sample_range": 1.5}, 6, eta=0.5),
    "thresholding": pair(THRESHOLD, 6),
    "threshold_v": pair({**THRESHOLD, "prediction_type": "v_prediction", "sample_max_value": 1e6}, 5, eta=0.6),
    "linear": case({**SD1, "beta_schedule": "linear"}, 5),
    "cosine": case({**SD1, **COSINE}, 6),
    "trained_betas": case({**SD1, **TRAINED}, 5),
    "zero_snr": case({**SD2, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6),
    "train_100": case({**SD1, "num_train_timesteps": 100}, 9),
}

DDPM = {
    **basics(),
    **spaced(),
    "large": case({**SD1, "variance_type": "fixed_large"}, 6),
    "small_log": case({**SD1, "variance_type": "fixed_small_log"}, 6),
    "sigmoid": case({**SD1, "beta_schedule": "sigmoid"}, 5),
    "sample": case({**SD1, "prediction_type": "sample", "clip_sample": True}, 6),
    "thresholding": pair(THRESHOLD, 6),
    "zero_snr": case({**SD2, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6),
    "trained_betas": case({**SD1, **TRAINED}, 5),
}

PNDM = {
    **basics(),
    **spaced(),
    "runge_kutta": case({**SD1, "skip_prk_steps": False}, 6),
    "runge_kutta_v": case({**SD2, "skip_prk_steps": False, "timestep_spacing": "trailing"}, 4),
    "runge_kutta_linspace": case({**SD1, "skip_prk_steps": False, "timestep_spacing": "linspace"}, 5),
    "two": case(SD1, 2),
    "alpha_one": case({**SD1, "set_alpha_to_one": True, "steps_offset": 0}, 5),
    "cosine": case({**SD1, **COSINE}, 6),
}

NOISE = {**SD1, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
SDE = {**SD1, "algorithm_type": "sde-dpmsolver++"}
SDE_NOISE = {**SD1, "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}


def solvers():
    return {
        "order_1": case({**SD1, "solver_order": 1}, 6),
        "order_3": case({**SD1, "solver_order": 3}, 7),
        "order_3_v_many": case({**SD2, "solver_order": 3}, 20, kind="smooth", shape=(1, 1, 2, 3)),
        "sample": case({**SD1, "prediction_type": "sample"}, 6),
        "thresholding": pair(THRESHOLD, 6),
        "karras": case(KARRAS, 6),
        "karras_ends": case({**KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, 5),
        "cosine": case({**SD1, **COSINE, "prediction_type": "v_prediction"}, 6),
    }


DPM_MULTISTEP = {
    **basics(),
    **spaced(),
    **solvers(),
    "heun": case({**SD1, "solver_type": "heun"}, 6),
    "other_names": case(
        {**SD1, "algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"}, 4
    ),
    "no_lower_order": case({**SD1, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 6),
    "euler_at_final": case({**SD1, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 16, kind="smooth"),
    "lu": case({**SD1, "use_lu_lambdas": True}, 6),
    "lambda_clipped": case({**SD1, **COSINE, "lambda_min_clipped": -5.1}, 6),
    "lambda_clipped_trailing": case(
        {**SD1, **COSINE, "lambda_min_clipped": -2.0, "timestep_spacing": "trailing"}, 7
    ),
    "noise": case(NOISE, 6),
    "noise_heun": case({**NOISE, "solver_type": "heun"}, 6),
    "noise_order_3": case({**NOISE, "solver_order": 3, "prediction_type": "v_prediction"}, 6),
    "noise_threshold": pair({**NOISE, **THRESHOLD}, 6),
    "sde": case(SDE, 6),
    "sde_heun": case({**SDE, "solver_type": "heun", "prediction_type": "v_prediction"}, 6),
    "sde_karras": case({**SDE, "use_karras_sigmas": True}, 5),
    "sde_noise": case(SDE_NOISE, 6),
    "sde_noise_heun": case({**SDE_NOISE, "solver_type": "heun"}, 6),
}

DPM_SINGLESTEP = {
    **basics(),
    **{k: v for k, v in solvers().items() if k != "order_3_v_many"},
    "even": case(SD1, 8),
    "heun": case({**SD1, "solver_type": "heun"}, 6),
    "order_3_sixth": case({**SD1, "solver_order": 3, "lower_order_final": True}, 6),
    "order_3_heun": case(
        {**SD1, "solver_order": 3, "solver_type": "heun", "lower_order_final": True, "final_sigmas_type": "sigma_min"}, 8
    ),
    "raised_end": case({**SD1, "solver_order": 3, "final_sigmas_type": "sigma_min"}, 6),
    "noise": case({**NOISE, "lower_order_final": True}, 7),
    "noise_heun": case({**NOISE, "solver_type": "heun", "solver_order": 3}, 6),
    "lambda_clipped": case({**SD1, **COSINE, "lambda_min_clipped": -5.1}, 6),
}

DEIS = {
    **basics(),
    **spaced(),
    **solvers(),
    "no_lower_order": case({**SD1, "lower_order_final": False}, 6),
    # Where fp32 cancels most of a difference of logarithms.
    "order_3_v_many": {**solvers()["order_3_v_many"], "wide": True},
    "cosine": {**solvers()["cosine"], "wide": True},
    "from_dpm": case({**SD1, "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"}, 4),
}

UNIPC = {
    **basics(),
    **spaced(),
    **solvers(),
    "bh1": case({**SD1, "solver_type": "bh1", "solver_order": 3}, 6),
    "noise": case({**SD1, "predict_x0": False, "solver_order": 3}, 6),
    "noise_v": case({**SD2, "predict_x0": False}, 6),
    "corrector_off": case({**SD1, "disable_corrector": [0, 2], "solver_order": 3}, 6),
    "order_4": case({**SD1, "solver_order": 4}, 8),
    "no_lower_order": case({**SD1, "lower_order_final": False}, 6),
}

LMS = {
    **basics(),
    **spaced(),
    "sample": case({**SD1, "prediction_type": "sample"}, 6),
    "karras": case(KARRAS, 6),
    "cosine": case({**SD1, **COSINE}, 6),
}

EULER = {
    **basics(),
    **spaced(),
    "sample": case({**SD1, "prediction_type": "sample"}, 6),
    "karras": case(KARRAS, 6),
    "karras_ends": case({**KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, 5),
    "log_linear": case({**SD1, "interpolation_type": "log_linear"}, 6),
    "log_linear_karras": case({**KARRAS, "interpolation_type": "log_linear"}, 6),
    "continuous": case({**SD2, "timestep_type": "continuous"}, 6),
    "continuous_log_linear": case(
        {**SD2, "timestep_type": "continuous", "interpolation_type": "log_linear"}, 6
    ),
    "zero_snr": case({**SD2, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6),
    "trained_betas": case({**SD1, **TRAINED}, 5),
}

EULER_ANCESTRAL = {
    **basics(),
    **spaced(),
    "zero_snr": case({**SD2, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6),
    "cosine": case({**SD1, **COSINE}, 6),
}

HEUN = {
    **basics(5),
    **spaced(4),
    "sample": case({**SD1, "prediction_type": "sample"}, 4),
    "clip_range": case({**SD1, "clip_sample": True, "clip_sample_range": 1.5}, 4),
    "karras": case(KARRAS, 5),
    "exp": case({**SD1, "beta_schedule": "exp"}, 4),
}

KDPM2 = {
    **basics(5),
    **spaced(4),
    "karras": case(KARRAS, 5),
    "karras_ends": case({**KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, 4),
}

CASES = {
    "DDIMScheduler": DDIM,
    "DDPMScheduler": DDPM,
    "PNDMScheduler": PNDM,
    "DPMSolverMultistepScheduler": DPM_MULTISTEP,
    "DPMSolverSinglestepScheduler": DPM_SINGLESTEP,
    "DEISMultistepScheduler": DEIS,
    "UniPCMultistepScheduler": UNIPC,
    "LMSDiscreteScheduler": LMS,
    "EulerDiscreteScheduler": EULER,
    "EulerAncestralDiscreteScheduler": EULER_ANCESTRAL,
    "HeunDiscreteScheduler": HEUN,
    "KDPM2DiscreteScheduler": KDPM2,
    "KDPM2AncestralDiscreteScheduler": KDPM2,
}
CASES = {name: {k: dict(c) for k, c in cases.items()} for name, cases in CASES.items()}
for _number, _cases in enumerate(CASES.values()):
    for _i, _case in enumerate(_cases.values()):
        _case["seed"] = 1000 * _number + _i

FLAGS = [True, False]
COMMON = {
    "num_train_timesteps": [1000, 1000, 1000, 500, 100],
    "beta_start": [0.00085, 0.0001, 0.001],
    "beta_end": [0.012, 0.02, 0.008],
    "beta_schedule": ["linear", "scaled_linear", "scaled_linear", "squaredcos_cap_v2"],
    "prediction_type": ["epsilon", "v_prediction"],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [0, 1, 3],
}
ANY = {"prediction_type": ["epsilon", "v_prediction", "sample"]}
LIMIT = {
    "thresholding": [False, False, True],
    "dynamic_thresholding_ratio": [0.995, 0.9, 0.5],
    "sample_max_value": [1.0, 2.0, 10.0],
}
CLIP = {"clip_sample": FLAGS, "clip_sample_range": [1.0, 2.5]}
ZERO = {"rescale_betas_zero_snr": [False, False, True]}
KARRAS_ANY = {"use_karras_sigmas": FLAGS}
ENDS = {**KARRAS_ANY, "sigma_min": [None, None, 0.05], "sigma_max": [None, None, 12.0]}
SOLVER = {
    **ANY,
    **LIMIT,
    **ENDS,
    "solver_order": [1, 2, 3],
    "lower_order_final": FLAGS,
}
DPM = {
    **SOLVER,
    "solver_type": ["midpoint", "heun"],
    "final_sigmas_type": ["zero", "sigma_min"],
    "lambda_min_clipped": [-1e30, -1e30, -5.1, -2.0],
}
RANDOM = {
    "DDIMScheduler": {**ANY, **LIMIT, **CLIP, **ZERO, "set_alpha_to_one": FLAGS},
    "DDPMScheduler": {
        **ANY,
        **LIMIT,
        **CLIP,
        **ZERO,
        "variance_type": ["fixed_small", "fixed_large", "fixed_small_log"],
        "beta_schedule": [*COMMON["beta_schedule"], "sigmoid"],
    },
    "PNDMScheduler": {"skip_prk_steps": FLAGS, "set_alpha_to_one": FLAGS},
    "DPMSolverMultistepScheduler": {
        **DPM,
        "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"],
        "euler_at_final": FLAGS,
        "use_lu_lambdas": FLAGS,
    },
    "DPMSolverSinglestepScheduler": {**DPM, "algorithm_type": ["dpmsolver++", "dpmsolver"]},
    "DEISMultistepScheduler": SOLVER,
    "UniPCMultistepScheduler": {
        **SOLVER,
        "solver_order": [1, 2, 3, 4],
        "solver_type": ["bh1", "bh2"],
        "predict_x0": FLAGS,
        "disable_corrector": [[], [], [0], [0, 1, 4]],
    },
    "LMSDiscreteScheduler": {**ANY, **KARRAS_ANY},
    "EulerDiscreteScheduler": {
        **ANY,
        **ENDS,
        **ZERO,
        "interpolation_type": ["linear", "log_linear"],
        "timestep_type": ["discrete", "continuous"],
    },
    "EulerAncestralDiscreteScheduler": ZERO,
    "HeunDiscreteScheduler": {**ANY, **ENDS, **CLIP, "beta_schedule": [*COMMON["beta_schedule"], "exp"]},
    "KDPM2DiscreteScheduler": ENDS,
    "KDPM2AncestralDiscreteScheduler": ENDS,
}


def random_case(name, rng):
    """One configuration: each option left out a third of the time."""
    config = {}
    for key, values in {**COMMON, **RANDOM[name]}.items():
        if rng.random() < 2 / 3:
            config[key] = values[rng.integers(len(values))]
    if config.get("algorithm_type") in ("dpmsolver", "sde-dpmsolver"):
        config["final_sigmas_type"] = "sigma_min"  # anything else is an error
    if config.get("algorithm_type", "").startswith("sde"):
        config["solver_order"] = min(config.get("solver_order", 2), 2)
    steps = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 20, 25, 30, 50]))
    made = case(config, steps, eta=float(rng.choice([0, 0, 0.3, 1])), shape=(2, 2, 2, 3))
    made["kind"] = "smooth" if steps > 12 or rng.random() < 0.3 else "fresh"
    made["seed"] = int(rng.integers(2**31))
    return made
