"""Writes tests/golden/FILES.md: every reference file with its tensors and shapes."""

import json
import struct

import common

HEAD = """# Every reference file

Written by `tools/golden/listing.py`; what the names mean is in
[README.md](README.md). A shape without a type is fp32.
"""


def header(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(size))


def tensors(content):
    words = []
    for name, entry in sorted(content.items()):
        if name == "__metadata__":
            continue
        kind = "" if entry["dtype"] == "F32" else " " + entry["dtype"].lower()
        words.append(f"{name} [{','.join(map(str, entry['shape']))}]{kind}")
    return ", ".join(words)


def line(path):
    name = path.relative_to(common.OUT).as_posix()
    if path.suffix != ".safetensors":
        return f"| `{name}` | {path.stat().st_size:,} | JSON |"
    content = header(path)
    metadata = content.get("__metadata__", {})
    if name.startswith("models/"):
        return f"| `{name}` | {path.stat().st_size:,} | {len(content) - 1} weights |"
    if name.startswith("processors/"):
        # The weights follow from the layer's configuration.
        content = {k: v for k, v in content.items() if not k.startswith("attn.")}
        told = f"`{metadata['processor']}`, {metadata['reference']}"
        told += f" (diffusers {metadata['upstream']})" if "upstream" in metadata else ""
        return f"| `{name}` | {path.stat().st_size:,} | {told}: {tensors(content)} |"
    if name.startswith(("rng_", "schedulers_")):
        return f"| `{name}` | {path.stat().st_size:,} | {len(content) - 1} tensors, named in README.md |"
    return f"| `{name}` | {path.stat().st_size:,} | {tensors(content)} |"


def main():
    files = [p for p in sorted(common.OUT.rglob("*")) if p.is_file() and p.suffix != ".md"]
    total = sum(p.stat().st_size for p in files)
    rows = "\n".join(line(p) for p in files)
    text = f"{HEAD}\n{len(files)} files, {total:,} bytes.\n\n| file | bytes | holds |\n|---|---|---|\n{rows}\n"
    (common.OUT / "FILES.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
