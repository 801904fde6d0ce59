"""Measures speed on a model of real size: a 1.2-billion-parameter llama of random weights is compiled to q4 and decodes
tokens, in turns with a plain reader of memory, which is the roof. Prints one table; nothing here passes or fails."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from c_api import Sequence

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "build/bin"


def call(*command):
    """Standard output and the seconds that the program took."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"measure: {' '.join(map(str, command))} ended with code {done.returncode}")
    return done.stdout, time.monotonic() - start


def read_bandwidth():
    """GB/s, the best of several numbers of threads."""
    return float(re.search(r"best GB/s ([\d.]+)", call(PROGRAMS / "freeport-read-bandwidth")[0])[1])


def make_checkpoint(folder, model):
    if not (folder / "config.json").exists():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        print(f"writing {model} to {folder}", flush=True)
        call(sys.executable, ROOT / "test/models/make_bench_checkpoint.py", model, folder)
    return folder


def compile_package(checkpoint, package, weights):
    """(seconds, peak memory in bytes). A process of its own waits for the compiler, so that no other child counts."""
    code = ("import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(code)")
    output, seconds = call(sys.executable, "-c", code, PROGRAMS / "freeport", "compile", checkpoint, "-o", package,
                           "--weights", weights, "--target", "cpu")
    return seconds, int(output.split()[-1])


def steps_per_second(sequence, tokens, count):
    start = time.perf_counter()
    for _ in range(count):
        sequence.step(tokens)
    return count / (time.perf_counter() - start)


def spread(values, digits):
    """The median, and the range behind it."""
    return f"{statistics.median(values):.{digits}f}  ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure_decoding(package, threads, read, arguments):
    """Rows of the table. Each round reads memory, decodes, and reads memory again."""
    sequence = Sequence(package, "cpu", threads)
    steps_per_second(sequence, [1], 2)  # touches every page
    speeds, bandwidths, shares = [], [], []
    for _ in range(arguments.rounds):
        before = read_bandwidth()
        speeds.append(steps_per_second(sequence, [7], arguments.tokens))
        bandwidths.append((before + read_bandwidth()) / 2)
        shares.append(speeds[-1] * read / 1e9 / bandwidths[-1] * 100)
    prompt = [1 + i for i in range(arguments.prompt)]
    prompts = [steps_per_second(sequence, prompt, 1) * len(prompt) for _ in range(2)]
    sequence.close()
    return [(f"decoding, {threads} threads", spread(speeds, 2), "tokens/s"),
            ("  weights read", spread([speed * read / 1e9 for speed in speeds], 2), "GB/s"),
            ("  memory, read plainly", spread(bandwidths, 2), "GB/s"),
            ("  share of it", spread(shares, 0), "%"),
            (f"  prompt of {arguments.prompt} tokens", spread(prompts, 1), "tokens/s")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "freeport-bench",
                        help="keeps the checkpoint (2.5 GB) for the next time; default: %(default)s")
    parser.add_argument("--weights", default="q4")
    parser.add_argument("--tokens", type=int, default=24, help="of a round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt; default: %(default)s")
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, os.cpu_count()}))
    arguments = parser.parse_args()

    checkpoint = make_checkpoint(arguments.folder / "llama-1b", "llama-1b")
    package = arguments.folder / f"llama-1b-{arguments.weights}.port"
    print(f"compiling to {arguments.weights}", flush=True)
    seconds, memory = compile_package(checkpoint, package, arguments.weights)
    description = json.loads(call(PROGRAMS / "freeport", "inspect", package, "--json")[0])
    # The embedding is tied to the head, so that a token reads every parameter once.
    read = sum(entry["bytes"] for entry in description["parameters"])
    rows = [("compiling", f"{seconds:.1f}", "s"), ("peak memory of the compiler", f"{memory / 1e6:.0f}", "MB"),
            ("package", f"{package.stat().st_size / 1e6:.0f}", "MB"), ("weights", f"{read / 1e6:.0f}", "MB")]
    for threads in arguments.threads:
        print(f"decoding on {threads} threads", flush=True)
        rows += measure_decoding(package, threads, read, arguments)
    print(f"\nllama-1b, {arguments.weights}, cpu; medians (least to most) of {arguments.rounds} rounds")
    for name, value, unit in rows:
        print(f"  {name:<30}{value:>26} {unit}")


if __name__ == "__main__":
    main()
