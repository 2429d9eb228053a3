"""One file for each way to run an attention processor: tests/golden/processors/.

processors_standard.py lists the processors that run a layer with no weights
of their own, processors_adapters.py those that bring some. Each case is run
by the class of diffusers v0.26.3 and by the formula in float64 (layers.py).
"""

import zlib

import layers
import processors_adapters
import processors_standard


def main():
    for module in (processors_standard, processors_adapters):
        for name, case, config, shapes in module.cases():
            # By its name, so that a new case leaves the others as they are.
            seed = zlib.crc32(name.encode())
            layers.write(f"processors/{name}.safetensors", case, config, shapes, seed)


if __name__ == "__main__":
    main()
