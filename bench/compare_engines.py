"""Runs Freeport and llama.cpp alternately on the same GGUF files and writes one page of tables: docs/performance.md, between
its two markers. Models, packages and figures stay in a folder, so that an interrupted run goes on where it was; figures of
another build of Freeport are measured again."""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
FREEPORT = ROOT / "build/bin/freeport"
ENVIRONMENT = ROOT / ".venv-bench"
PAGE = ROOT / "docs/performance.md"
MARKERS = ("<!-- tables: ./dev bench -->\n", "<!-- end of tables -->\n")

#: (model, quantisation, bytes of its file, options of both engines); tests of one line share a process.
BOTH = [["-p", 512, "-n", 32], ["-p", 128, "-n", 32, "-b", 8]]
DEEP = [["-p", 2048, "-n", 0], ["-p", 0, "-n", 32, "-d", 2048]]
CASES = [("llama-1b", "Q4_0", 0.7e9, BOTH + DEEP), ("llama-1b", "Q8_0", 1.4e9, BOTH), ("qwen3-0.6b", "Q4_0", 0.4e9, BOTH),
         ("qwen3-0.6b", "Q8_0", 0.7e9, BOTH), ("dsv2-lite", "Q4_0", 9e9, BOTH)]
#: (quantisation of a file of llama-1b, layers, --weights), for the time that compiling takes.
COMPILED = [("Q4_0", 4, "keep"), ("Q4_0", 16, "keep"), ("Q4_0", 64, "keep"), ("F16", 16, "q4")]
COMPILED_BYTES = 5e9  # the most that one of them needs


def call(*command):
    """Standard output, seconds, and the most memory in bytes. A process of its own waits, so that no other child counts."""
    code = ("import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(code)")
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], stdout=subprocess.PIPE, encoding="utf-8")
    seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} ended with code {done.returncode}")
    output, _, memory = done.stdout.strip().rpartition("\n")
    return output, seconds, int(memory)


def set_up():
    if not (ENVIRONMENT / "ready").exists():
        print("installing llama-cpp-python (built from source, some minutes)", flush=True)
        call(sys.executable, "-m", "venv", ENVIRONMENT)
        call(ENVIRONMENT / "bin/pip", "install", "-q", "llama-cpp-python", "gguf", "numpy")
        (ENVIRONMENT / "ready").touch()


class Store:
    """Figures by key, kept in a file of one JSON object a line."""

    def __init__(self, path):
        self.path = path
        self.figures = {}
        text = path.read_text() if path.exists() else ""
        if text and not text.endswith("\n"):
            with path.open("a") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self.figures[entry["key"]] = entry["value"]
            except (ValueError, KeyError):
                print(f"bench: {path} has a line that was cut off; it is measured again", file=sys.stderr)

    def get(self, key, measure):
        if key not in self.figures:
            print(key, flush=True)
            value = measure()
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
            self.figures[key] = value
        return self.figures[key]


def model_file(folder, model, quantisation, layers=None):
    path = folder / f"{model}-{quantisation}{f'-{layers}-layers' if layers else ''}.gguf"
    if not path.exists():
        print(f"writing {path}", flush=True)
        call(ENVIRONMENT / "bin/python", ROOT / "bench/make_bench_gguf.py", model, quantisation, f"{path}.part",
             *([layers] if layers else []))
        os.replace(f"{path}.part", path)
    return path


def package_of(gguf, build):
    return gguf.with_name(f"{gguf.stem}-{build}.port")


def packages_of(gguf):
    """Of all builds."""
    return list(gguf.parent.glob(f"{gguf.stem}-????????.port"))


def compile_package(gguf, build, weights="keep"):
    for old in packages_of(gguf):
        old.unlink()
    package = package_of(gguf, build)
    _, seconds, memory = call(FREEPORT, "compile", gguf, "-o", package, "--weights", weights)
    manifest = json.loads(call(FREEPORT, "inspect", package, "--json")[0])
    return {"seconds": seconds, "memory": memory, "file": gguf.stat().st_size, "package": package.stat().st_size,
            "kernels": len(manifest["kernels"])}


def expect_space(folder, models):
    """Ends the program where the files and packages that are missing do not fit."""
    needed = COMPILED_BYTES
    for model, quantisation, size, _ in CASES:
        gguf = folder / f"{model}-{quantisation}.gguf"
        if model in models:
            needed += size * (not gguf.exists()) + size * (not packages_of(gguf))
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(f"bench: {folder}: expects {needed / 1e9:.0f} GB for models and their packages, got {free / 1e9:.0f} GB; "
                 "name another --folder, or other --models")


def cold_start(package, threads):
    """The best of five: from starting the process until it has ended with the first token's logits in a file."""
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(5):
            start = time.monotonic()
            subprocess.run([FREEPORT, "logits", package, "--ids", "1", "-o", f"{folder}/out.npy", "-t", str(threads)],
                           check=True, stdout=subprocess.DEVNULL)
            times.append(time.monotonic() - start)
        return min(times)


def measure_pair(gguf, package, options, threads):
    """One run of each engine: {"llama.cpp": list, "freeport": list, "peak": bytes of Freeport's process}."""
    theirs, _, _ = call(ENVIRONMENT / "bin/python", ROOT / "bench/llama_cpp_rates.py", gguf, *options, "-t", threads)
    ours, _, peak = call(FREEPORT, "bench", package, *options, "-t", threads, "-r", 1, "-o", "json")
    return {"llama.cpp": json.loads(theirs), "freeport": json.loads(ours), "peak": peak}


def rates(store, build, folder, arguments):
    """Rows of the first table."""
    for model, quantisation, _, cases in CASES:
        if model not in arguments.models:
            continue
        gguf = model_file(folder, model, quantisation)
        package = package_of(gguf, build)
        compiled = store.get(f"{build} compile {model} {quantisation}", lambda: compile_package(gguf, build))
        if not package.exists():
            compile_package(gguf, build)
        for threads in arguments.threads:
            for options in cases:
                name = " ".join(map(str, options))
                pairs = [store.get(f"{build} {model} {quantisation} {name} -t {threads} #{number}",
                                   lambda: measure_pair(gguf, package, options, threads)) for number in range(arguments.rounds)]
                depth = options[options.index("-d") + 1] if "-d" in options else 0
                for index, test in enumerate(pairs[0]["freeport"]):
                    yield {"model": f"{model} {quantisation}", "test": test["test"], "depth": depth,
                           "sequences": test["sequences"], "threads": threads,
                           "pairs": [(pair["llama.cpp"][index], pair["freeport"][index]) for pair in pairs],
                           "peak": max(pair["peak"] for pair in pairs), "compiled": compiled}


def rate_table(rows):
    yield "| model | test | depth | sequences | threads | llama.cpp, tokens/s | Freeport, tokens/s | ratio (lowest to highest) " \
          "| of read bandwidth | of multiply-add peak |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        theirs, ours = zip(*row["pairs"])
        ratios = [b["tokens_per_second"] / a["tokens_per_second"] for a, b in row["pairs"]]
        yield (f"| {row['model']} | {row['test']} | {row['depth']} | {row['sequences']} | {row['threads']} "
               f"| {median(a['tokens_per_second'] for a in theirs):.1f} | {median(b['tokens_per_second'] for b in ours):.1f} "
               f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
               f"| {median(b['bandwidth_share'] for b in ours):.0%} | {median(b['peak_share'] for b in ours):.0%} |")


def process_table(rows, store, build, folder, threads):
    yield "| model | cold start, llama.cpp | cold start, Freeport | peak memory, llama.cpp | peak memory, Freeport | GGUF | package " \
          "| compile | its memory |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == name and row["threads"] == threads]
        model, quantisation = name.split()
        package = package_of(model_file(folder, model, quantisation), build)
        ours = store.get(f"{build} {name} cold start -t {threads}", lambda: cold_start(package, threads))
        theirs = min(a["cold_start"] for row in mine for a, _ in row["pairs"])
        their_peak = max(a["peak_bytes"] for row in mine for a, _ in row["pairs"])
        compiled = mine[0]["compiled"]
        yield (f"| {name} | {theirs * 1e3:.0f} ms | {ours * 1e3:.0f} ms | {their_peak / 1e6:.0f} MB "
               f"| {max(row['peak'] for row in mine) / 1e6:.0f} MB | {compiled['file'] / 1e6:.0f} MB "
               f"| {compiled['package'] / 1e6:.0f} MB | {compiled['seconds']:.1f} s | {compiled['memory'] / 1e6:.0f} MB |")


def compile_table(store, build, folder):
    yield "| llama-1b | layers | --weights | GGUF | compile | memory | kernels |"
    yield "|---|---:|---|---:|---:|---:|---:|"
    for quantisation, layers, weights in COMPILED:
        def measure():
            gguf = model_file(folder, "llama-1b", quantisation, layers)
            figures = compile_package(gguf, build, weights)
            gguf.unlink()
            package_of(gguf, build).unlink()
            return figures
        figures = store.get(f"{build} compile {quantisation} {layers} layers {weights}", measure)
        yield (f"| {quantisation} | {layers} | {weights} | {figures['file'] / 1e6:.0f} MB | {figures['seconds']:.1f} s "
               f"| {figures['memory'] / 1e6:.0f} MB | {figures['kernels']} |")


def machine():
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal: *(\d+)", Path("/proc/meminfo").read_text())
    return f"{processor[1] if processor else 'an unknown processor'}, {os.cpu_count()} processors, " \
           f"{int(memory[1]) / 1e6:.0f} GB of memory"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "freeport-bench",
                        help="keeps models, packages and figures for the next time (25 GB); default: %(default)s")
    parser.add_argument("--models", nargs="*", default=list(dict.fromkeys(case[0] for case in CASES)))
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs; default: %(default)s")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    expect_space(arguments.folder, arguments.models)
    set_up()
    build = hashlib.sha256(b"".join((ROOT / "build" / part).read_bytes() for part in (
        "bin/freeport", "lib/libfreeport.so", "lib/libfreeport_compiler.so"))).hexdigest()[:8]
    store = Store(arguments.folder / "figures.jsonl")
    rows = list(rates(store, build, arguments.folder, arguments))
    text = "\n".join([
        f"`./dev bench {' '.join(sys.argv[1:])}".strip() + f"`: {machine()}, {time.strftime('%Y-%m-%d')}; llama-cpp-python "
        f"{call(ENVIRONMENT / 'bin/python', '-c', 'import llama_cpp; print(llama_cpp.__version__)')[0]}, built there; medians of "
        f"{arguments.rounds} pairs.", "", *rate_table(rows), "",
        *process_table(rows, store, build, arguments.folder, max(arguments.threads)), "",
        *compile_table(store, build, arguments.folder), ""])
    print(text)
    page = PAGE.read_text()
    begin, end = (page.index(marker) for marker in MARKERS)
    PAGE.write_text(page[:begin] + MARKERS[0] + "\n" + text + "\n" + page[end:])


if __name__ == "__main__":
    main()
