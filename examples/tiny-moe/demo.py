"""Compiles this folder's checkpoint for every backend of this build and lets it continue a prompt on every device of this
machine: first in f32, where every token must be the one that the reference implementation chose (golden.json), then in q8
and q4, where tokens may differ from those, but not between devices. Ends with the logits of all devices, bit for bit."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FREEPORT = FOLDER.parent.parent / "build/bin/freeport"
BEGIN = "<｜begin▁of▁sentence｜>"  # the tokenizer puts it in front of every prompt by itself


def call(*arguments, **options):
    """The standard output of `freeport ARGUMENTS` and the seconds it took; its errors go to the terminal."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in (FREEPORT, *arguments)], encoding="utf-8",
                          **{"stdout": subprocess.PIPE, **options})
    if done.returncode != 0:
        sys.exit(f"demo: freeport {' '.join(map(str, arguments))} ended with code {done.returncode}")
    return done.stdout, time.monotonic() - start


def generate(package, prompt, count, device):
    output, seconds = call("run", package, "-p", prompt, "-n", count, "--temp", 0, "--device", device,
                           "--ignore-eos", "--json")
    return json.loads(output.strip().splitlines()[-1]), seconds


def main():
    golden = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))["greedy"]
    count, prompts = golden["new_tokens"], golden["prompts"]
    found = json.loads(call("devices", "--json")[0])
    for entry in found:
        if not entry["usable"]:
            print(f"without {entry['backend']}: {entry['reason']}")
    backends = list(dict.fromkeys(entry["backend"] for entry in found if entry["backend"] != "reference"))
    devices = list(dict.fromkeys(entry["backend"] for entry in found if entry["usable"]))
    devices.sort(key="cpu".__ne__)  # the fastest first
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="freeport-demo-") as scratch:
        for weights in ("f32", "q8", "q4"):
            package = Path(scratch) / f"tiny-moe-{weights}.port"
            _, seconds = call("compile", FOLDER, "-o", package, "--weights", weights, "--target", ",".join(backends))
            print(f"\n{weights}: compiled for {', '.join(backends)} in {seconds:.1f} s, "
                  f"{package.stat().st_size / 1e6:.1f} MB", flush=True)
            for number, expected in enumerate(prompts if weights == "f32" else prompts[:1]):
                prompt = expected["prompt_text"].removeprefix(BEGIN)
                judge = None
                for device in devices if number == 0 else devices[:1]:
                    result, seconds = generate(package, prompt, count, device)
                    if judge is None:
                        judge = expected if weights == "f32" else result
                        print(f"  > {prompt}|{result['text']}".replace("\n", "\n    "))
                    same = result["prompt_ids"] == expected["prompt_ids"] and result["ids"] == judge["ids"]
                    wrong += not same
                    verdict = "all equal to " + ("golden.json" if weights == "f32" else devices[0])
                    print(f"    ({device}: {count} tokens in {seconds:.2f} s, {verdict if same else 'DIFFERENT'})", flush=True)
        print()
        call("verify", package, "--devices", ",".join(["reference"] + [name for name in devices if name != "reference"]),
             stdout=None)
    if wrong:
        sys.exit(f"demo: expects the same tokens everywhere, {wrong} texts differ")


if __name__ == "__main__":
    main()
