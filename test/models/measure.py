"""Measures a model of real size: a 1.2-billion-parameter llama of random weights is compiled, then `freeport bench` reads a
prompt and generates, beside the machine's own limits. Prints one table; nothing here passes or fails."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FREEPORT = ROOT / "build/bin/freeport"


def call(*command):
    """Standard output and the seconds that the program took."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"measure: {' '.join(map(str, command))} ended with code {done.returncode}")
    return done.stdout, time.monotonic() - start


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
    output, seconds = call(sys.executable, "-c", code, FREEPORT, "compile", checkpoint, "-o", package, "--weights",
                           weights, "--target", "cpu")
    return seconds, int(output.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "freeport-bench",
                        help="keeps the checkpoint (2.5 GB) for the next time; default: %(default)s")
    parser.add_argument("--weights", default="q4")
    parser.add_argument("--tokens", type=int, default=64, help="to generate; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt; default: %(default)s")
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, os.cpu_count()}))
    arguments = parser.parse_args()

    checkpoint = make_checkpoint(arguments.folder / "llama-1b", "llama-1b")
    package = arguments.folder / f"llama-1b-{arguments.weights}.port"
    print(f"compiling to {arguments.weights}", flush=True)
    seconds, memory = compile_package(checkpoint, package, arguments.weights)
    rows = [("compiling", f"{seconds:.1f} s"), ("peak memory of the compiler", f"{memory / 1e6:.0f} MB"),
            ("package", f"{package.stat().st_size / 1e6:.0f} MB")]
    for threads in arguments.threads:
        print(f"measuring {threads} threads", flush=True)
        output, _ = call(FREEPORT, "bench", package, "-p", arguments.prompt, "-n", arguments.tokens, "-r",
                         arguments.rounds, "-t", threads, "-o", "json")
        for test in json.loads(output):
            rows.append((f"{test['test']}, {threads} threads",
                         f"{test['tokens_per_second']:.1f} ± {test['stddev']:.1f} tokens/s, {test['bandwidth_share']:.0%} of "
                         f"the read bandwidth, {test['peak_share']:.0%} of the multiply-add peak"))
    print(f"\nllama-1b, {arguments.weights}, cpu")
    for name, value in rows:
        print(f"  {name:<30}{value}")


if __name__ == "__main__":
    main()
