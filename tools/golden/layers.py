"""Attention layers with random weights, their inputs, and files of them.

A file holds a layer as the command "attnplug layer" reads it, and what its
processor is to give:
  attn.*                  weights, a processor's own under attn.processor.
  hidden_states, and where the case has them encoder_hidden_states,
  ip_hidden_states.<i>, attention_mask, temb
  out                     what is expected
  metadata: config (arguments of Attention), processor (the name with its
  parameters), reference (diffusers or float64), upstream (what the class of
  diffusers does where reference is float64)
"""

from types import SimpleNamespace

import common
import formula

import numpy as np
import torch
from diffusers.models import attention_processor
from diffusers.models.attention_processor import Attention

AGREES = 3e-6  # fp32 against float64, relative L2
DIFFERS = 1e-3


def memory_efficient_attention(query, key, value, attn_bias=None, op=None, scale=None):
    """In place of xFormers, which has no CPU kernel: the same formula in float64.

    [B*heads,N,D] as diffusers calls it; attn_bias broadcasts over queries.
    """
    arrays = [x.double().numpy()[None] for x in (query, key, value)]
    bias = None if attn_bias is None else attn_bias.double().numpy()[None]
    out, _, _ = formula.attention(*arrays, scale, bias)
    return torch.from_numpy(out[0]).to(query.dtype)


def no_deprecation(*_args, **_kwargs):
    """The LoRA classes announce their end at 0.26.0 by raising; this lets them run."""


attention_processor.xformers = SimpleNamespace(
    ops=SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
)
attention_processor.deprecate = no_deprecation


def randomise(module, rng):
    for name, p in sorted(module.named_parameters()):
        x = common.normal(rng, *p.shape, outliers=p.ndim > 1)
        if p.ndim == 1:
            x = 1 + 0.2 * x if name.endswith("weight") else 0.3 * x
        else:
            x = x / np.sqrt(np.prod(p.shape[1:]))
        p.copy_(x)


def make_mask(rng, shape):
    """Additive, as a UNet prepares one: 0 or -10000, the first key always seen."""
    mask = torch.from_numpy(np.where(rng.random(shape) < 0.35, -10000.0, 0.0)).float()
    mask[..., 0] = 0
    # With a row for each query it is a bias: any numbers.
    return mask + common.normal(rng, *shape) if shape[1] > 1 else mask


def make_inputs(rng, shapes):
    inputs = {"hidden_states": common.normal(rng, *shapes["hidden"])}
    if "encoder" in shapes:
        inputs["encoder_hidden_states"] = common.normal(rng, *shapes["encoder"])
    for i, shape in enumerate(shapes.get("images", [])):
        inputs[f"ip_hidden_states.{i}"] = common.normal(rng, *shape)
    if "mask" in shapes:
        inputs["attention_mask"] = make_mask(rng, shapes["mask"])
    if "temb" in shapes:
        inputs["temb"] = common.normal(rng, *shapes["temb"])
    return inputs


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def call(attn, inputs, scale):
    """Attention.forward with the inputs by its own argument names."""
    given = {k: v.clone() for k, v in inputs.items() if not k.startswith("ip_")}
    images = [v for k, v in sorted(inputs.items()) if k.startswith("ip_")]
    if images:
        given["encoder_hidden_states"] = (given["encoder_hidden_states"], images)
    if scale is not None:
        given["scale"] = scale
    return attn(**given)


def by_formula(case, config, weights, inputs):
    names = {"hidden_states": "hidden", "encoder_hidden_states": "encoder", "attention_mask": "mask"}
    given = {names.get(k, k): v for k, v in inputs.items() if not k.startswith("ip_")}
    images = [v for k, v in sorted(inputs.items()) if k.startswith("ip_")]
    if images:
        given["images"] = images
    layer = formula.Layer(
        config, weights, torch_scale=case.get("torch_scale", False), adapters=case.get("adapters", ())
    )
    return case["formula"](layer, **given, **case.get("arguments", {}))


def run_class(case, attn, inputs):
    """out of diffusers' class, or the error that it raises, in words."""
    try:
        if case.get("prepare"):
            case["prepare"](attn)
        return call(attn, inputs, case.get("call_scale")), None
    except Exception as error:  # whatever it is, the file will say so
        return None, f"raises {type(error).__name__}: {str(error).splitlines()[0]}"


def write(path, case, config, shapes, seed):
    """Make a layer, run the class and the formula on it, compare, store.

    case: processor (the words of the command line), make (a function that
    returns the processor of diffusers, or None if it has none), formula,
    arguments, adapters, torch_scale, call_scale, prepare, extra (functions
    of the generator that make tensors of the processor which its class does
    not hold), wrong (True where diffusers is known not to compute what is
    meant).
    """
    rng = common.generator(seed)
    attn = Attention(**config).eval()
    made = case["make"]() if case.get("make") else None
    if made is not None:
        attn.set_processor(made)
    randomise(attn, rng)
    state = {f"attn.{k}": v.clone() for k, v in attn.state_dict().items()}
    for name, make in case.get("extra", {}).items():
        state[f"attn.processor.{name}"] = make(rng)
    inputs = make_inputs(rng, shapes)

    weights = {k.removeprefix("attn."): v.double().numpy() for k, v in state.items()}
    exact = by_formula(case, config, weights, {k: v.double().numpy() for k, v in inputs.items()})
    metadata = {"config": config, "processor": case["processor"], "reference": "diffusers"}
    out, problem = run_class(case, attn, inputs) if made is not None else (None, "has no class for this")
    if problem is None and relative(out, exact) > DIFFERS:
        problem = f"differs by {relative(out, exact):.2g}"
    if bool(problem) != bool(case.get("wrong")):
        raise SystemExit(f"{path}: diffusers {problem or 'is right, and was said to be wrong'}")
    if problem:
        metadata.update(reference="float64", upstream=problem)
        out = torch.from_numpy(exact).float()
    elif relative(out, exact) > AGREES:
        raise SystemExit(f"{path}: diffusers and the formula differ by {relative(out, exact):.2g}")
    common.save(path, {**state, **inputs, "out": out}, **metadata)
