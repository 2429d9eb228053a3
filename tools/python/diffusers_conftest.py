"""A pytest plugin: diffusers' Attention modules get AttnPlugProcessor where they would get diffusers' plain one, and
dummy components get a tokenizer of single bytes in place of the one that they would fetch.  Loaded by
diffusers_tests.py."""
import json
import os
import tempfile

import attnplug
from diffusers import (AutoencoderKL, AutoencoderKLTemporalDecoder, ConsistencyDecoderVAE, UNet2DConditionModel,
                       UNet3DConditionModel, UNetMotionModel, UNetSpatioTemporalConditionModel)
from diffusers.models import attention_processor
from transformers import CLIPTokenizer

calls = 0


class Counted(attnplug.AttnPlugProcessor):
    def __call__(self, *args, **kwargs):
        global calls
        calls += 1
        return super().__call__(*args, **kwargs)


def _byte_tokenizer(cls):
    """514 tokens and no merges: fits the dummy text encoder's 1,000, whose ends are 0 and 2."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode
    letters = list(bytes_to_unicode().values())
    words = ["<|startoftext|>", letters[0], "<|endoftext|>"] + letters[1:] + [x + "</w>" for x in letters]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
        with open(vocabulary, "w") as f:
            json.dump({word: i for i, word in enumerate(words)}, f)
        with open(merges, "w") as f:
            f.write("#version: 0.2\n")
        return cls(vocabulary, merges, model_max_length=77)


def _local_tokenizer():
    theirs = CLIPTokenizer.from_pretrained.__func__

    def from_pretrained(cls, name, *args, **kwargs):
        if name == "hf-internal-testing/tiny-random-clip":
            return _byte_tokenizer(cls)
        return theirs(cls, name, *args, **kwargs)
    CLIPTokenizer.from_pretrained = classmethod(from_pretrained)


def _default_processor():
    plain = (attention_processor.AttnProcessor, attention_processor.AttnProcessor2_0)
    theirs = attention_processor.Attention.__init__

    def init(self, *args, **kwargs):
        theirs(self, *args, **kwargs)
        if isinstance(self.processor, plain):
            self.set_processor(Counted())
    attention_processor.Attention.__init__ = init

    # diffusers' set_default_attn_processor refuses classes that it does not know; here ours are the default.
    def set_default(self):
        self.set_attn_processor(Counted())
    for model in (UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel, UNetSpatioTemporalConditionModel,
                  AutoencoderKL, AutoencoderKLTemporalDecoder, ConsistencyDecoderVAE):
        model.set_default_attn_processor = set_default


def pytest_configure(config):
    _local_tokenizer()
    if os.environ.get("ATTNPLUG_DIFFUSERS_OURS") == "1":
        _default_processor()


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("attnplug: %d layer calls" % calls)
