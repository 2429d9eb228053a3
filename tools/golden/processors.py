"""One file for each way to run an attention processor: tests/golden/processors/.

processors_standard.py lists the processors that run a layer with no weights
of their own, processors_adapters.py those that bring some. Each case is run
by the class of diffusers v0.26.3 and by the formula in float64 (layers.py).
"""

import layers
import processors_adapters
import processors_standard


def main():
    seed = 1000
    for module in (processors_standard, processors_adapters):
        for name, case, config, shapes in module.cases():
            layers.write(f"processors/{name}.safetensors", case, config, shapes, seed)
            seed += 1


if __name__ == "__main__":
    main()
