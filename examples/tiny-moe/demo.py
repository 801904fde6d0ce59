"""Compiles this folder's checkpoint for the CPU and lets it continue a prompt: first in f32, where every token must be
the one that the reference implementation chose (golden.json), then in q8 and q4, where tokens may differ."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FREEPORT = FOLDER.parent.parent / "build/bin/freeport"
BEGIN = "<｜begin▁of▁sentence｜>"  # the tokenizer puts it in front of every prompt by itself


def call(*arguments):
    """The standard output of `freeport ARGUMENTS` and the seconds it took; its errors go to the terminal."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in (FREEPORT, *arguments)], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"demo: freeport {' '.join(map(str, arguments))} ended with code {done.returncode}")
    return done.stdout, time.monotonic() - start


def generate(package, prompt, count):
    output, seconds = call("run", package, "-p", prompt, "-n", count, "--temp", 0, "--device", "cpu",
                           "--ignore-eos", "--json")
    return json.loads(output.strip().splitlines()[-1]), seconds


def main():
    golden = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))["greedy"]
    count, prompts = golden["new_tokens"], golden["prompts"]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="freeport-demo-") as scratch:
        for weights in ("f32", "q8", "q4"):
            package = Path(scratch) / f"tiny-moe-{weights}.port"
            _, seconds = call("compile", FOLDER, "-o", package, "--weights", weights, "--target", "cpu")
            size = package.stat().st_size / 1e6
            print(f"\n{weights}: compiled in {seconds:.1f} s, {size:.1f} MB", flush=True)
            for expected in prompts if weights == "f32" else prompts[:1]:
                prompt = expected["prompt_text"].removeprefix(BEGIN)
                result, seconds = generate(package, prompt, count)
                print(f"  > {prompt}|{result['text']}".replace("\n", "\n    "))
                verdict = ""
                if weights == "f32":
                    same = result["prompt_ids"] == expected["prompt_ids"] and result["ids"] == expected["ids"]
                    verdict = ", all equal to the reference" if same else ", DIFFERENT from the reference"
                    wrong += not same
                print(f"    ({count} tokens in {seconds:.2f} s{verdict})", flush=True)
    if wrong:
        sys.exit(f"demo: expects the tokens of golden.json for all {len(prompts)} prompts, {wrong} differ")


if __name__ == "__main__":
    main()
