"""Measures speed on a model of real size: a 1.2-billion-parameter llama of random weights is compiled to q4, decodes some
tokens, and is compared with what the memory of this machine can deliver. Prints one table; nothing here passes or fails."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "build/bin"
ROUNDS = 3


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


def decode(package, tokens, threads):
    """Tokens per second fed one by one. Two lengths are timed, so that starting and mapping the file cancel out."""
    options = ["-t", threads] if threads else []
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (4, 4 + tokens):
            ids = ",".join(str(1 + i) for i in range(count))
            command = [PROGRAMS / "freeport", "logits", package, "--ids", ids, "-o", Path(folder) / "logits.npy",
                       "--device", "cpu", "--chunk", 1, *options]
            seconds.append(min(call(*command)[1] for _ in range(ROUNDS)))
    return tokens / (seconds[1] - seconds[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "freeport-bench",
                        help="keeps the checkpoint (2.5 GB) for the next time; default: %(default)s")
    parser.add_argument("--weights", default="q4")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, help="default: what freeport chooses")
    arguments = parser.parse_args()

    checkpoint = make_checkpoint(arguments.folder / "llama-1b", "llama-1b")
    package = arguments.folder / f"llama-1b-{arguments.weights}.port"
    seconds, memory = compile_package(checkpoint, package, arguments.weights)
    size = package.stat().st_size
    before = read_bandwidth()
    speed = decode(package, arguments.tokens, arguments.threads)
    after = read_bandwidth()
    description = json.loads(call(PROGRAMS / "freeport", "inspect", package, "--json")[0])
    read = sum(entry["bytes"] for entry in description["parameters"])
    bandwidth = (before + after) / 2
    rows = [("compile", f"{seconds:.1f} s"), ("peak memory of the compiler", f"{memory / 1e6:.0f} MB"),
            ("package", f"{size / 1e6:.0f} MB"), ("decoding", f"{speed:.2f} tokens/s"),
            ("weights read per token", f"{read / 1e6:.0f} MB"), ("read while decoding", f"{speed * read / 1e9:.2f} GB/s"),
            ("read bandwidth before and after", f"{before:.2f} and {after:.2f} GB/s"),
            ("share of the bandwidth", f"{speed * read / 1e9 / bandwidth:.0%}")]
    print(f"\nllama-1b, {arguments.weights}, cpu")
    for name, value in rows:
        print(f"  {name:<34}{value:>22}")


if __name__ == "__main__":
    main()
