"""AttnPlugProcessor and the dispatcher's backend against diffusers' own.  Skips what the installed diffusers lacks."""
import copy
import os
import unittest

import torch

import attnplug

try:
    import diffusers
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
except ImportError:
    diffusers = None

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[".."] * 4)
MODEL = os.path.join(ROOT, "host-stub", "models", "emoji-128")


def error(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


@unittest.skipUnless(diffusers, "no diffusers")
class Processor(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(3)
        torch.set_grad_enabled(False)
        self.addCleanup(torch.set_grad_enabled, True)

    def layers(self):
        x, text = torch.randn(2, 24, 32), torch.randn(2, 9, 20)
        yield Attention(32, heads=4, dim_head=8, bias=True), {"hidden_states": x}
        yield Attention(32, cross_attention_dim=20, heads=2, dim_head=16), {"hidden_states": x,
                                                                            "encoder_hidden_states": text}
        yield (Attention(32, heads=4, dim_head=8, norm_num_groups=4, residual_connection=True, rescale_output_factor=1.5,
                         bias=True, eps=1e-6), {"hidden_states": torch.randn(2, 32, 4, 6)})
        yield (Attention(32, cross_attention_dim=20, heads=4, dim_head=8, cross_attention_norm="layer_norm"),
               {"hidden_states": x, "encoder_hidden_states": text, "attention_mask": torch.randn(2, 1, 9)})

    def test_plain_names(self):
        for attn, call in self.layers():
            attn.set_processor(AttnProcessor())
            want = attn(**call)
            for name in ("standard", "AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor"):
                attn.set_processor(attnplug.AttnPlugProcessor(name))
                self.assertLess(error(attn(**call), want), 1e-5, name)

    def test_weights_that_change_are_read_again(self):
        attn, call = next(self.layers())
        attn.set_processor(attnplug.AttnPlugProcessor())
        before = attn(**call)
        attn.to_q.weight.mul_(2)
        after = attn(**call)
        attn.set_processor(AttnProcessor2_0())
        self.assertLess(error(after, attn(**call)), 1e-5)
        self.assertGreater(error(before, after), 1e-3)

    def test_halves_and_gradients_and_copies(self):
        attn, call = next(self.layers())
        want = attn(**call)
        attn.set_processor(attnplug.AttnPlugProcessor())
        copied = copy.deepcopy(attn)
        self.assertLess(error(copied(**call), want), 1e-5)
        half = copied.to(torch.bfloat16)
        self.assertLess(error(half(call["hidden_states"].bfloat16()), want), 3e-2)
        with torch.enable_grad():
            attn(**call).sum().backward()
        self.assertIsNotNone(attn.to_q.weight.grad)

    def test_lora_weights_as_parameters(self):
        attn = Attention(32, heads=4, dim_head=8)
        x, lora = torch.randn(1, 12, 32), {}
        want = copy.deepcopy(attn)
        for name, linear in (("to_q", want.to_q), ("to_k", want.to_k), ("to_v", want.to_v), ("to_out", want.to_out[0])):
            down, up = torch.randn(3, 32), torch.randn(32, 3)
            lora["%s_lora.down.weight" % name], lora["%s_lora.up.weight" % name] = down, up
            linear.weight += 0.5 * up @ down
        attn.set_processor(attnplug.AttnPlugProcessor("lora", rank=3, **lora))
        self.assertLess(error(attn(x, scale=0.5), want(x)), 1e-5)

    def test_refusals(self):
        with self.assertRaises(attnplug.AttnPlugError):
            attnplug.AttnPlugProcessor("no_such_processor")
        with self.assertRaises(attnplug.AttnPlugError):
            attnplug.AttnPlugProcessor("xformers")  # an op
        attn, call = next(self.layers())
        attn.set_processor(attnplug.AttnPlugProcessor("standard", no_such_parameter=1))
        with self.assertRaises(attnplug.AttnPlugError) as caught:
            attn(**call)
        self.assertIn("no_such_parameter", str(caught.exception))


@unittest.skipUnless(diffusers and hasattr(diffusers, "StableDiffusionSAGPipeline") and os.path.isdir(MODEL),
                     "no diffusers with a SAG pipeline")
class Pipeline(unittest.TestCase):
    def test_sag_on_the_built_in_model(self):
        try:
            pipe = diffusers.StableDiffusionSAGPipeline.from_pretrained(MODEL, safety_checker=None,
                                                                        requires_safety_checker=False,
                                                                        torch_dtype=torch.float32)
        except (ImportError, OSError, ValueError) as reason:
            self.skipTest(str(reason))
        pipe.set_progress_bar_config(disable=True)

        def latents():
            return pipe("red heart", num_inference_steps=25, guidance_scale=5.0, sag_scale=0.75, output_type="latent",
                        generator=torch.Generator().manual_seed(0)).images
        want = latents()
        for name in ("standard", "fused"):
            pipe.unet.set_attn_processor(attnplug.AttnPlugProcessor(name))
            got = error(latents(), want)
            print("SAG, 25 steps, %s: latents differ by %.2g" % (name, got))
            self.assertLess(got, 1e-4)


class Dispatcher(unittest.TestCase):
    def test_backend(self):
        try:
            from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
        except ImportError:
            self.skipTest("no attention dispatcher in this diffusers")
        attnplug.register_diffusers_backend()
        attnplug.register_diffusers_backend()
        torch.manual_seed(5)
        q, k, v = torch.randn(2, 30, 4, 40), torch.randn(2, 17, 4, 40), torch.randn(2, 17, 4, 40)
        mask = torch.rand(2, 17) > 0.3
        for kwargs in ({}, {"attn_mask": mask}, {"scale": 0.2}):
            want = dispatch_attention_fn(q, k, v, **kwargs)
            with attention_backend("attnplug"):
                self.assertLess(error(dispatch_attention_fn(q, k, v, **kwargs), want), 2e-5)


if __name__ == "__main__":
    unittest.main()
