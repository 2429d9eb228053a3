"""attend(), the operator and sdpa() against torch in double precision.  python -m unittest, with torch and NumPy."""
import threading
import unittest

import numpy as np
import torch
import torch.nn.functional as F

import attnplug


def normal(*shape, dtype=torch.float32):
    """Normal numbers with 1 % of outliers of 8 times."""
    x = torch.randn(*shape)
    return (x * torch.where(torch.rand(*shape) < 0.01, 8.0, 1.0)).to(dtype)


def reference(q, k, v, bias=None, mask=None, scale=None):
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = q @ k.transpose(2, 3) * (scale or q.shape[3] ** -0.5)
    s = s if bias is None else s + bias.double()
    s = s if mask is None else s.masked_fill(~mask, float("-inf"))
    return s, torch.softmax(s, 3) @ v


def error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


class Attend(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(7)

    def test_shapes_and_strides(self):
        for b, h, hk, nq, nk, d in ((2, 8, 8, 130, 77, 40), (1, 4, 2, 33, 65, 64), (1, 1, 1, 1, 9, 8), (3, 5, 5, 17, 17, 160)):
            q, k, v = normal(b, nq, h, d).transpose(1, 2), normal(b, hk, nk, d), normal(b, nk, hk, d).transpose(1, 2)
            self.assertLess(error(attnplug.attend(q, k, v), reference(q, k, v)[1]), 2e-6)

    def test_halves_where_an_op_takes_them(self):
        q, k, v = (normal(1, 4, 50, 40, dtype=torch.float16) for _ in range(3))
        self.assertLess(error(attnplug.attend(q, k, v), reference(q, k, v)[1]), 1e-3)

    def test_bias_mask_band_scale(self):
        q, k, v = normal(2, 3, 20, 40), normal(2, 3, 31, 40), normal(2, 3, 31, 40)
        bias, mask = normal(1, 3, 20, 31), torch.rand(2, 1, 20, 31) > 0.3
        self.assertLess(error(attnplug.attend(q, k, v, bias=bias, scale=0.3), reference(q, k, v, bias, scale=0.3)[1]), 2e-6)
        self.assertLess(error(attnplug.attend(q, k, v, mask=mask), reference(q, k, v, mask=mask)[1]), 2e-6)
        i, j = torch.arange(20)[:, None], torch.arange(31)[None]
        self.assertLess(error(attnplug.attend(q, k, v, is_causal=True), reference(q, k, v, mask=(j <= i)[None, None])[1]), 2e-6)
        near = ((i - j).abs() <= 15)[None, None]
        self.assertLess(error(attnplug.attend(q, k, v, window=15), reference(q, k, v, mask=near)[1]), 2e-6)

    def test_lse_and_key_mass(self):
        q, k, v = normal(2, 4, 21, 40), normal(2, 4, 30, 40), normal(2, 4, 30, 40)
        out, lse, mass = attnplug.attend(q, k, v, return_lse=True, return_key_mass=True)
        scores, want = reference(q, k, v)
        self.assertLess(error(out, want), 2e-6)
        self.assertLess(error(lse, scores.logsumexp(3)), 2e-6)
        self.assertLess(error(mass, torch.softmax(scores, 3).mean(1).sum(1)), 2e-6)

    def test_numpy_is_not_copied(self):
        q, k, v = (normal(1, 2, 30, 40).numpy() for _ in range(3))
        out = np.full((1, 30, 2, 40), np.nan, np.float32)
        made = attnplug.attend(q, k, v, out=out.transpose(0, 2, 1, 3))
        self.assertEqual(made.__array_interface__["data"], out.__array_interface__["data"])
        self.assertLess(error(torch.from_numpy(made), reference(*map(torch.from_numpy, (q, k, v)))[1]), 2e-6)

    def test_refusals_name_what_is_wrong(self):
        q = normal(1, 2, 5, 40)
        for kwargs, word in (({"op": "no_such_op"}, "no_such_op"), ({"op": "cuda_flash"}, "cuda_flash")):
            with self.assertRaises(attnplug.AttnPlugError) as caught:
                attnplug.attend(q, q, q, **kwargs)
            self.assertIn(word, str(caught.exception))
        with self.assertRaises(ValueError):
            attnplug.attend(q[0], q[0], q[0])
        with self.assertRaises(attnplug.AttnPlugError):
            attnplug.attend(q, normal(1, 2, 5, 48), q)
        with self.assertRaises(TypeError):
            attnplug.attend(q.to(torch.complex64), q, q)
        with self.assertRaises(RuntimeError):
            attnplug.attend(q.clone().requires_grad_(), q, q)

    def test_threads(self):
        q, k, v = normal(1, 4, 64, 40), normal(1, 4, 64, 40), normal(1, 4, 64, 40)
        want, wrong = attnplug.attend(q, k, v), []

        def many():
            for _ in range(50):
                if not torch.equal(attnplug.attend(q, k, v), want):
                    wrong.append(1)
        threads = [threading.Thread(target=many) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])

    def test_why_and_names(self):
        q = normal(1, 2, 5, 40)
        rows = attnplug.why(q, q, q)
        self.assertEqual([r["op"] for r in rows if r["taken"]], ["org.attnplug.memory_efficient"])
        self.assertEqual(attnplug.names()["AttnProcessor2_0"], ("standard", "auto"))


class Sdpa(unittest.TestCase):
    def test_routes_and_falls_through(self):
        q, k, v = normal(2, 8, 40, 40), normal(2, 8, 50, 40), normal(2, 8, 50, 40)
        bias, mask = normal(40, 50), torch.rand(2, 1, 40, 50) > 0.3
        calls = [{}, {"is_causal": True}, {"attn_mask": bias}, {"attn_mask": mask}, {"scale": 0.2}]
        want = [F.scaled_dot_product_attention(q, k, v, **c) for c in calls]
        with attnplug.sdpa() as routed:
            got = [F.scaled_dot_product_attention(q, k, v, **c) for c in calls]
            three = F.scaled_dot_product_attention(q[0], k[0], v[0])
            self.assertEqual((routed.routed, routed.fell_through), (6, 0), routed.reason)
            leaf = q.clone().requires_grad_()
            F.scaled_dot_product_attention(leaf, k, v).sum().backward()
            F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
            F.scaled_dot_product_attention(q.double(), k.double(), v.double())
            self.assertEqual(routed.fell_through + routed.routed, 9)
            self.assertGreaterEqual(routed.fell_through, 2)
        for g, w in zip(got, want):
            self.assertLess(error(g, w.double()), 2e-5)
        self.assertLess(error(three, want[0][0].double()), 2e-5)
        self.assertIsNotNone(leaf.grad)


class Compile(unittest.TestCase):
    def test_whole_graph(self):
        compiled = torch.compile(lambda q, k, v: attnplug.attend(q * 2, k, v) + 1, fullgraph=True)
        q, k, v = normal(1, 4, 50, 40), normal(1, 4, 60, 40), normal(1, 4, 60, 40)
        self.assertLess(error(compiled(q, k, v), reference(q * 2, k, v)[1] + 1), 2e-6)


class Layouts(unittest.TestCase):
    def test_every_layout_in_and_out(self):
        heads, q, k, v = 4, normal(2, 4, 20, 16), normal(2, 4, 30, 16), normal(2, 4, 30, 16)
        want = reference(q, k, v)[1]
        into = {"b n s d": lambda x: x, "b s n d": lambda x: x.transpose(1, 2).contiguous(),
                "b s (n d)": lambda x: x.transpose(1, 2).flatten(2)}
        for pattern, turn in into.items():
            for out_pattern, back in into.items():
                got = attnplug.attention_forward(turn(q), turn(k), turn(v), pattern, pattern, pattern, out_pattern,
                                                 dims={"n": heads})
                self.assertLess(error(got, back(want)), 2e-6, (pattern, out_pattern))

    def test_mask_window_grouped(self):
        q, k, v = normal(1, 4, 20, 16), normal(1, 2, 20, 16), normal(1, 2, 20, 16)
        flat = [x.transpose(1, 2).flatten(2) for x in (q, k, v)]
        mask = torch.rand(1, 1, 20, 20) > 0.3
        got = attnplug.attention_forward(*flat, *["b s (n d)"] * 4, dims={"n": 4}, attn_mask=mask, compatibility_mode=True)
        self.assertLess(error(got, reference(q, k, v, mask=mask)[1].transpose(1, 2).flatten(2)), 2e-6)
        with self.assertRaises(ValueError):
            attnplug.attention_forward(q, k, v, "b n s")
        with self.assertRaises(ValueError):
            attnplug.attention_forward(*flat, *["b s (n d)"] * 4)


@unittest.skipUnless(torch.cuda.is_available(), "no CUDA device")
class Gpu(unittest.TestCase):
    def test_stream_and_graph(self):
        q, k, v = (normal(2, 8, 300, 40, dtype=torch.float16).cuda() for _ in range(3))
        want = reference(q, k, v)[1]
        self.assertLess(error(attnplug.attend(q, k, v), want), 1e-3)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            mine = attnplug.attend(q, k, v)
        side.synchronize()
        self.assertLess(error(mine, want), 1e-3)
        graph, static = torch.cuda.CUDAGraph(), torch.empty_like(q)
        with torch.cuda.graph(graph):
            attnplug.attend(q, k, v, out=static)
        q.copy_(q * 0.5)
        graph.replay()
        torch.cuda.synchronize()
        self.assertLess(error(static, reference(q, k, v)[1]), 1e-3)


if __name__ == "__main__":
    unittest.main()
