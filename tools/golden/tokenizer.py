"""Token ids of many texts from the slow CLIPTokenizer, with no ftfy installed.

The vocabulary is the demo model's, or CLIP's own as Stable Diffusion 1.x (sd1)
and 2.x (sd2: it pads with "!") use it. Without arguments it writes
tests/golden/tokenizer_<name>.json for each: texts chosen by hand and random
ones. With --vocabulary NAME --count N --out FILE it writes N random texts
elsewhere in the same form, for a wider check than a repository should store.
"""

import argparse
import json
import sys
import tempfile
import unicodedata
from pathlib import Path

import common

import regex
from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

CHOSEN = [
    "",
    " ",
    "red heart",
    "Red   HEART\t\non a\r\nblue background",
    "cat face on a purple background and rocket",
    "a photo of an astronaut riding a horse on mars",
    "it's we're they've I'm you'll he'd don't",
    "IT'S WE'RE THEY'VE I'M YOU'LL HE'D DON'T",
    "'s 't 're 've 'm 'll 'd '' 'x 'S",
    "it\u2019s a curly apostrophe\u2026",
    "it'\u017f long s, \u212a kelvin, \u017fo",
    "rock'n'roll 'd've 'tis",
    "...,;:!?-_()[]{}<>/\\|@#$%^&*~`\"'+=",
    "hello,world!!!  (really?) -- yes...no",
    "!!!???",
    "a-b a_b a.b a/b a+b",
    "1234567890 3.14 1,000 2nd 4x4",
    "x2 2x \u00b2 \u00bd \u2167 \u0663\u0664 \u096a \U0001d7d8",
    "\u2764\ufe0f \U0001f600 \U0001f680\U0001f431",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea",
    "\u4e2d\u6587\u5b57 and \u65e5\u672c\u8a9e \u3072\u3089 \u30ab\u30bf \ud55c\uad6d\uc5b4",
    "a\u4e2db \U00020000x\U0002f800 \uf900",
    "caf\u00e9 cafe\u0301 CAF\u00c9 CAFE\u0301",
    "\u00c5ngstr\u00f6m \u212b A\u030a o\u0308",
    "\u1e9b\u0323 \ufb01 \ufb03 \u00df \u1e9e",
    "\u0130stanbul \u0131 I i \u0130\u0130",
    "\u039f\u0394\u039f\u03a3 \u03a3 \u03a3\u0391\u03a3 \u03a3. A\u03a3\u0301 \u03a3\u0345",
    "\u041f\u0420\u0418\u0412\u0415\u0422 \u043c\u0438\u0440 \u0419 \u0418\u0306",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u10d2 \u1f88 \u01c5 \u2c00 \U00010400",
    "\u1100\u1161\u11a8 \u1112\u1161\u11ab \uac00\u11a8",
    "\uac38\u11a7 \u1100\u1161\u11a7 \uac00\u11a8",  # U+11A7 composes with nothing
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u2029g\u1680h\u180ei\u202fj\u205fk",
    "a\x0bb\x0cc\x1cd\x1fe\x85f\x7fg\x01h\x1bi",
    "\ufeffbom \ufffd replacement \u00adsoft \u200ejoin\u200d \u2060",
    "\ue000 private \U000f0000 \uffff \U0010ffff \u0378 unassigned",
    "\u0301 starts with a mark \u0301\u0302",
    "q\u0307\u0323 q\u0323\u0307 \u1e0b\u0323",
    "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|> hi",
    "a<|endoftext|>b", "a <|endoftext|> b <|startoftext|>", "<|endoftext|><|endoftext|>",
    "<|endoftext |> <| endoftext|> <|\u017ftartoftext|> |endoftext|>",
    "<|startoftext|>red heart<|endoftext|>!",
    "(red:1.3) [heart] {a|b}, best quality:: --no cats",
    "http://example.com/a?b=c&d=%20 user@example.com #tag",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    "\xff\xfe \xc3\xa9 \u00c3\u00a9 \u201chi\u201d",
    "red heart " * 40,
    "a" * 500,
    ", ".join(["smiling cat with heart-eyes"] * 20),
    " ".join(str(n) for n in range(60)),
    "\U0001f600" * 30,
    "\u4e00" * 60,
]

# Texts also stored as the pipeline feeds them: padded or cut to 77.
PADDED = ["", "red heart", "it's 3 cats!", "red heart " * 40, "a" * 500, "\U0001f600" * 30]


# How many random texts are stored for each vocabulary: the text's cleaning and
# splitting are the same code for all.
RANDOM = {"emoji": 2000, "sd1": 200, "sd2": 20}
TITLES = {"emoji": "emoji-128"}


def stable_characters():
    """Code points that every Unicode version from 14 on treats alike.

    unicodedata (14.0 in Python 3.11) and the newer tables of regex must
    agree on the category, or a text's ids would depend on the library.
    """
    by_category = {}
    for cp in [*range(1, 0xD800), *range(0xE000, 0x110000)]:
        by_category.setdefault(unicodedata.category(chr(cp)), []).append(chr(cp))
    characters = []
    for category, members in by_category.items():
        characters += regex.findall(r"\p{%s}" % category, "".join(members))
    return sorted(characters)


def pools():
    every = stable_characters()
    assigned = [c for c in every if unicodedata.category(c) not in ("Cn", "Co")]

    def by(test):
        return [c for c in assigned if test(c)]

    words = "red heart cat's FACE rocket don't flag 12 blue-ish o'clock I'll Background".split()
    return [
        [chr(i) for i in range(0x20, 0x7F)],
        [w + s for w in words for s in (" ", "", ", ")],
        ["'s", "'T", "'Re", "'ve", "'M", "'LL", "'d", "'", "\u2019s", "'\u017f"],
        by(lambda c: 0x1F300 <= ord(c) < 0x1FA00)
        + ["\u200d", "\ufe0f", "\u2764", "\U0001f3fd", "\U0001f1e6", "\U0001f1ff"],
        by(lambda c: unicodedata.category(c) in ("Mn", "Mc", "Me")) + list("aeoqEA") * 40,
        by(lambda c: 0xC0 <= ord(c) < 0x250 or 0x1E00 <= ord(c) < 0x2000),
        by(lambda c: 0x370 <= ord(c) < 0x530),
        by(lambda c: 0x1100 <= ord(c) < 0x1200) + by(lambda c: 0xAC00 <= ord(c) < 0xAC80),
        by(lambda c: 0x3040 <= ord(c) < 0x3100 or 0x4E00 <= ord(c) < 0x4E80 or 0xF900 <= ord(c) < 0xFB50),
        by(lambda c: 0x590 <= ord(c) < 0xE80),
        by(lambda c: c.isspace()) + [chr(i) for i in [*range(1, 32), 0x7F, 0x85, 0x200B, 0xFEFF, 0xFFFD]],
        by(lambda c: unicodedata.category(c)[0] in "NPS"),
        by(lambda c: c.lower() != c),
        ["<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "<|", "|>", "endoftext"],
        assigned,
        every,
    ]


def random_texts(count, seed):
    rng = common.generator(seed)
    choices = pools()
    texts = []
    for _ in range(count):
        used = [choices[i] for i in rng.integers(len(choices), size=rng.integers(1, 4))]
        text = ""
        for _ in range(rng.integers(1, 9)):
            pool = used[rng.integers(len(used))]
            text += pool[rng.integers(len(pool))]
            text += " " if rng.random() < 0.1 else ""
        texts.append(text)
    return texts


def clip_folder(folder, pad):
    """CLIP's tokenizer folder from the merges that the project carries."""
    text = (common.REPO / "host-stub/pipeline/clip/merges.txt").read_text(encoding="utf-8")
    letters = list(bytes_to_unicode().values())
    merges = [tuple(line.split()) for line in text.strip().split("\n")[1:]]
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    settings = {"model_max_length": 77, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def load(name):
    if name == "emoji":
        return CLIPTokenizer.from_pretrained(common.DEMO / "tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        clip_folder(Path(folder), {"sd1": "<|endoftext|>", "sd2": "!"}[name])
        return CLIPTokenizer.from_pretrained(folder)


def write(path, name, tokenizer, texts, padded):
    def line(text, ids):
        return json.dumps({"text": text, "ids": ids}, ensure_ascii=False, separators=(",", ":"))

    whole = [line(t, tokenizer(t).input_ids) for t in texts]
    cut = [
        line(t, tokenizer(t, padding="max_length", max_length=77, truncation=True).input_ids)
        for t in padded
    ]
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"tokenizer":"%s",\n"whole":[\n' % TITLES.get(name, name) + ",\n".join(whole))
        f.write('\n],\n"padded":[\n' + ",\n".join(cut) + "\n]}\n")
    print(f"{path}  {len(texts):,} texts", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", choices=RANDOM, default="emoji")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out")
    args = parser.parse_args()
    try:
        import ftfy  # noqa: F401
    except ImportError:
        pass
    else:
        sys.exit("tokenizer.py: ftfy is installed and changes the ids: remove it")
    if args.out:
        texts = random_texts(args.count, args.seed)
        write(args.out, args.vocabulary, load(args.vocabulary), texts, [])
        return
    for name, count in RANDOM.items():
        texts = CHOSEN + random_texts(count, args.seed)
        write(common.OUT / f"tokenizer_{name}.json", name, load(name), texts, PADDED)


if __name__ == "__main__":
    main()
