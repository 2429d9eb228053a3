"""Pictures of every kind that is read, and what Pillow and CLIPImageProcessor make of them.

Writes pictures/<name>.{png,jpg,webp} and pictures.safetensors:
  decoded.<file>        Image.open(file).convert("RGB"), uint8 [h,w,3]
  resize.in.<i>         a picture; resize.<i>.<filter>.<h>x<w> its Image.resize
  preprocess.<i>        CLIPImageProcessor(**metadata preprocess[i]["config"]), fp32 [3,h,w]
"""

import struct
import sys
import zlib

import common

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor

FOLDER = common.OUT / "pictures"
WIDTH, HEIGHT = 21, 17

# Seven passes: first column and row, then the steps (PNG specification, section 8.2).
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def scene(rng, height, width, channels):
    """Smooth colours with some noise and hard edges, so that filters and compression show."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        a, b, c = rng.random(3)
        plane = 0.5 + 0.35 * np.sin(2 + 6 * a + 9 * b * x / width + 7 * c * y / height)
        plane[(x // 5 + y // 4) % 3 == 0] *= 0.4 + 0.5 * a
        planes.append(plane + 0.08 * rng.standard_normal(plane.shape))
    return np.clip(np.stack(planes, -1), 0, 1)


def png_rows(samples, depth):
    """Rows of samples [h,w,c] packed big-endian, each with filter type 0."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            packed = row.astype(">u2").tobytes()
        elif depth == 8:
            packed = row.astype(np.uint8).tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth:]
            packed = np.packbits(bits.reshape(-1)).tobytes()
        rows.append(b"\0" + packed)
    return b"".join(rows)


def png(name, samples, depth, colour, palette=None, transparency=None, interlaced=False):
    """A PNG of any colour type and depth, which Pillow does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    data = b"".join(
        png_rows(samples[y::dy, x::dx], depth)
        for x, y, dx, dy in (ADAM7 if interlaced else [(0, 0, 1, 1)])
        if x < width and y < height
    )
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    if transparency is not None:
        parts.append(chunk(b"tRNS", transparency))
    parts += [chunk(b"IDAT", zlib.compress(data, 9)), chunk(b"IEND", b"")]
    (FOLDER / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_pngs(rng):
    def samples(channels, depth):
        return np.rint(scene(rng, HEIGHT, WIDTH, channels) * (2**depth - 1)).astype(np.uint16)

    png("rgb8", samples(3, 8), 8, 2)
    png("rgb8_interlaced", samples(3, 8), 8, 2, interlaced=True)
    png("rgb8_key", samples(3, 8), 8, 2, transparency=struct.pack(">HHH", 1, 2, 3))
    png("rgb16", samples(3, 16), 16, 2)
    png("rgba8", samples(4, 8), 8, 6)
    png("rgba16", samples(4, 16), 16, 6)
    for depth in (1, 2, 4, 8):
        png(f"grey{depth}", samples(1, depth), depth, 0)
    png("grey4_interlaced", samples(1, 4), 4, 0, interlaced=True)
    # Pillow reads 16-bit greys as numbers, whose conversion to 8 bits cuts off at 255.
    png("grey16", samples(1, 16) // 128, 16, 0)
    png("grey_alpha8", samples(2, 8), 8, 4)
    png("grey_alpha16", samples(2, 16), 16, 4)
    for depth in (1, 2, 4, 8):
        palette = rng.integers(0, 256, (2**depth, 3))
        png(f"palette{depth}", samples(1, depth), depth, 3, palette, transparency=b"\0\x80")
    png("palette_short", samples(1, 4), 4, 3, rng.integers(0, 256, (5, 3)))


def write_others(rng):
    def picture(channels, mode):
        data = np.rint(255 * scene(rng, HEIGHT, WIDTH, channels)).astype(np.uint8)
        return Image.fromarray(data.squeeze(), mode)

    rgb = picture(3, "RGB")
    rgb.save(FOLDER / "rgb_420.jpg", quality=80)
    rgb.save(FOLDER / "rgb_444.jpg", quality=95, subsampling=0)
    rgb.save(FOLDER / "rgb_422_progressive.jpg", quality=60, subsampling=1, progressive=True)
    picture(1, "L").save(FOLDER / "grey.jpg", quality=85)
    picture(4, "CMYK").save(FOLDER / "cmyk.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, which nothing here undoes
    rgb.save(FOLDER / "turned.jpg", quality=80, exif=exif)
    rgb.save(FOLDER / "lossy.webp", quality=70)
    rgb.save(FOLDER / "lossless.webp", lossless=True)
    picture(4, "RGBA").save(FOLDER / "alpha.webp", quality=80)
    picture(4, "RGBA").save(FOLDER / "alpha_lossless.webp", lossless=True, exact=True)


FILTERS = {"bicubic": 3, "bilinear": 2, "lanczos": 1, "box": 4, "hamming": 5}
SIZES = [
    ((23, 37), [(11, 12), (40, 19), (23, 50), (1, 1), (7, 44)]),
    ((5, 1), [(9, 3), (2, 2)]),
]

PREPROCESS = [
    {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    {"size": 20, "crop_size": 17},
    {"size": {"height": 19, "width": 30}, "crop_size": {"height": 25, "width": 21}},
    {"do_resize": False, "crop_size": {"height": 31, "width": 20}, "image_mean": [0.5, 0.4, 0.3]},
    {"size": 24, "crop_size": 24, "resample": 2, "do_normalize": False, "rescale_factor": 0.25},
    {"size": 24, "crop_size": 24, "do_rescale": False, "image_std": [1.5, 2.0, 3.0]},
    {"size": 16, "do_center_crop": False, "do_normalize": False, "do_rescale": False},
]


def main():
    rng = common.generator(20)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    write_pngs(rng)
    write_others(rng)
    tensors, metadata = {}, {}
    for path in sorted(FOLDER.iterdir()):
        tensors[f"decoded.{path.name}"] = np.asarray(Image.open(path).convert("RGB"))
    for i, (size, outs) in enumerate(SIZES):
        source = Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        tensors[f"resize.in.{i}"] = np.asarray(source)
        for name, number in FILTERS.items():
            for height, width in outs if name == "bicubic" else outs[:2]:
                resized = np.asarray(source.resize((width, height), number))
                tensors[f"resize.{i}.{name}.{height}x{width}"] = resized
    for i, config in enumerate(PREPROCESS):
        data = tensors["decoded.rgb_420.jpg" if i % 2 == 0 else "resize.in.0"]
        processor = CLIPImageProcessor(**config)
        pixels = processor(Image.fromarray(data), return_tensors="pt").pixel_values[0]
        tensors[f"preprocess.{i}"] = pixels.to(torch.float32).contiguous()
        metadata[f"preprocess.{i}"] = config
    common.save("pictures.safetensors", {k: torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v
                                         for k, v in tensors.items()}, **metadata)
    total = sum(p.stat().st_size for p in FOLDER.iterdir())
    print(f"pictures/  {total:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
