#!/usr/bin/env python3
"""diffusers' own tests, once as they are and once with AttnPlugProcessor as every Attention's default processor.

    diffusers_tests.py PATH [--python PYTHON] [--json FILE]

PATH: a checkout of diffusers v0.26.3 (its `tests` folder); nothing of it is copied.  PYTHON has diffusers 0.26.3,
transformers 4.37.2 and pytest (default: this one).  Everything runs offline: the dummy components' tokenizer is the
built-in model's.  Prints a table by outcome, and every test that ends otherwise than with diffusers' own processors.
"""
import argparse
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = ("tests/models/test_attention_processor.py", "tests/models/test_layers_utils.py",
         "tests/models/test_models_unet_2d_condition.py", "tests/models/test_models_unet_2d.py",
         "tests/models/test_unet_2d_blocks.py", "tests/models/test_models_vae.py",
         "tests/pipelines/stable_diffusion_sag/test_stable_diffusion_sag.py")
LINE = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED)\s+(?:\[\d+\]\s+)?(\S+?)(?:\s+-\s+(.*)|:\d+:\s+(.*))?$")


def run(python, path, ours):
    paths = [os.path.join(HERE, "attnplug"), HERE] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", ATTNPLUG_DIFFUSERS_OURS=str(int(ours)),
                       OMP_WAIT_POLICY="passive", COLUMNS="300", PYTHONPATH=os.pathsep.join(filter(None, paths)))
    command = [python, "-m", "pytest", "-p", "diffusers_conftest", "-q", "-rA", "--tb=line", "-p", "no:cacheprovider",
               "-W", "ignore", *TESTS]
    done = subprocess.run(command, cwd=path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    outcomes, calls = {}, re.search(r"attnplug: (\d+) layer calls", done.stdout)
    for line in done.stdout.splitlines():
        found = LINE.match(line)
        if found:
            # pytest counts what unittest skips under unittest's own file, wherever that lies
            name = found.group(2) if found.group(2).startswith("tests/") else "unittest"
            outcomes[name] = (found.group(1), found.group(3) or found.group(4) or "")
    if not outcomes:
        sys.exit("no test ran:\n" + done.stdout[-3000:])
    return outcomes, int(calls.group(1)) if calls else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json")
    a = parser.parse_args()
    theirs, _ = run(a.python, a.path, False)
    ours, calls = run(a.python, a.path, True)
    for name, (outcome, why) in sorted(ours.items()):
        if theirs.get(name, ("MISSING",))[0] != outcome:
            print("differs: %s: %s with theirs, %s with ours: %s" % (name, theirs.get(name, ("MISSING",))[0], outcome, why))
    differ = [n for n in theirs.keys() | ours.keys() if theirs.get(n, ("",))[0] != ours.get(n, ("",))[0]]
    for word in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
        print("%-8s %4d with theirs, %4d with ours" % (word, sum(o == word for o, _ in theirs.values()),
                                                      sum(o == word for o, _ in ours.values())))
    reasons = {}
    for name, (outcome, why) in theirs.items():
        if outcome != "PASSED":
            reasons.setdefault((outcome, why[:160]), []).append(name)
    for (outcome, why), tests in sorted(reasons.items()):
        print("%s, %d: %s" % (outcome, len(tests), why))
    print("%d layer calls went through AttnPlugProcessor" % calls)
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"passed": sorted(n for n, (o, _) in ours.items() if o == "PASSED"), "layer_calls": calls,
                       "not_passed": {"%s: %s" % k: sorted(v) for k, v in reasons.items()}, "differ": sorted(differ)},
                      f, indent=1)
    return bool(differ) or not calls


if __name__ == "__main__":
    sys.exit(main())
