"""The verbs as a user meets them: prompts from both sides, the same text on every device, a clean end on Ctrl-C, help that
teaches, and the C program of examples/."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from command import FREEPORT, NATIVE_CPU, ROOT, checkpoint, freeport, logits, package, succeed, tiny_moe_golden

BEGIN = "<｜begin▁of▁sentence｜>"  # the tokenizer puts it in front of every prompt by itself


def first_case():
    case = tiny_moe_golden()["greedy"]["prompts"][0]
    return case["prompt_text"].removeprefix(BEGIN), case["text"], len(case["ids"])


def has_vulkan():
    return any(entry["backend"] == "vulkan" and not entry.get("reason")
               for entry in json.loads(succeed("devices", "--json").stdout))


def test_run_takes_the_prompt_from_standard_input():
    prompt, text, count = first_case()
    done = succeed("run", package("tiny-moe", "f32"), "-n", count, "--temp", 0, text=prompt)
    assert done.stdout == text + "\n"
    assert re.search(r"prompt 11 tokens, [\d.]+ tokens/s; generation 48 tokens, [\d.]+ tokens/s", done.stderr)


def test_sampling_gives_the_same_text_everywhere():
    path = package("tiny-moe", "q4")
    options = ["-p", "Once upon", "-n", 24, "--temp", 1.1, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.02]
    texts = {succeed("run", path, *options, "--seed", 7, "--device", device, "-t", threads).stdout
             for device, threads in (("cpu", 1), ("cpu", 2), ("reference", 2))}
    assert len(texts) == 1
    assert len({succeed("run", path, *options, "--seed", seed).stdout for seed in range(6)}) > 3


def test_run_stops_at_the_context():
    done = succeed("run", package("tiny-moe", "q4"), "-p", "Once", "-c", 20, "--temp", 0, "--ignore-eos", "--json")
    result = json.loads(done.stdout)
    assert result["stopped"] == "context" and len(result["prompt_ids"]) + len(result["ids"]) == 21


@pytest.mark.parametrize("options, expected", [
    (["--temp", "-1"], "temp"), (["--top-p", "0"], "top"), (["--min-p", "2"], "min"), (["--top-k", "-3"], "top"),
    (["-n", "-2"], "tokens"), (["-t", "0"], "threads"), (["-c", "100000"], "context"),
    (["--device", "cpu:1"], "selector"), (["--device", "abacus"], "abacus")], ids=str)
def test_run_refuses(options, expected):
    done = freeport("run", package("tiny-moe", "q4"), "-p", "Once", *options)
    assert done.returncode != 0 and expected in done.stderr and done.stdout == ""


def test_ctrl_c_ends_a_text_cleanly(tmp_path):
    trace = tmp_path / "trace.json"
    command = [FREEPORT, "run", package("tiny-moe", "q4"), "-p", "Once", "--temp", "0", "--ignore-eos", "--device", "reference",
               "--profile", trace]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1)  # text has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in errors.decode() and "tokens/s" in errors.decode()
    assert [event["ph"] for event in json.loads(trace.read_text())["traceEvents"]].count("X") > 50, "expects whole steps"
    assert list(tmp_path.iterdir()) == [trace]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_logits_without_a_file(tmp_path, stop):
    """The array is written as it grows; whoever stops it finds nothing, not even under a temporary name."""
    np.save(tmp_path / "ids.npy", np.ones(2000, np.int64))
    command = [FREEPORT, "logits", package("llama", "f32"), "--ids-file", tmp_path / "ids.npy", "-o", tmp_path / "out.npy",
               "--device", "reference", "--chunk", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(list(tmp_path.iterdir())) == 1:  # until the output has begun
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + stop and b"interrupted" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


@pytest.mark.parametrize("verb", ["run", "tokenize"])
def test_a_signal_ends_the_wait_for_input(verb):
    for wait in (0.0, 0.02, 0.2):
        command = [FREEPORT, verb, package("tiny-moe", "q4")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (143, -signal.SIGTERM)
        process.stdin.close()


def test_ctrl_c_ends_a_compile_without_a_file(tmp_path):
    command = [FREEPORT, "compile", checkpoint("tiny-moe"), "-o", tmp_path / "model.port", "--weights", "f32"]
    killed = 0
    for wait in (0, 0.05, 0.2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.001)  # until the temporary file is there
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode == 130:
            killed += 1
            assert list(tmp_path.iterdir()) == []
        else:
            assert process.returncode == 0, "expects a whole package or a clean end"
            (tmp_path / "model.port").unlink()
    assert killed


def test_a_reader_that_leaves_ends_the_run():
    """`freeport run … | head -c 1`: an error or a signal, but no endless run."""
    command = [FREEPORT, "run", package("tiny-moe", "q4"), "-p", "Once", "--temp", "0", "--ignore-eos"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) != 0


def test_the_stream_is_whole_characters():
    """What arrives piece by piece is UTF-8 at every moment; the pieces together are the text."""
    options = ["-p", "naïve — “café” 日本語 😀", "-n", 60, "--temp", 1.5, "--seed", 3]
    command = [str(part) for part in (FREEPORT, "run", package("tiny-moe", "f32"), *options, "--device", "reference")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pieces = []
    while piece := os.read(process.stdout.fileno(), 65536):
        pieces.append(piece)
        piece.decode("utf-8")
    assert process.wait(60) == 0
    whole = json.loads(succeed("run", package("tiny-moe", "f32"), *options, "--json").stdout)["text"]
    assert b"".join(pieces).decode("utf-8").removesuffix("\n") == whole.removesuffix("\n")


def test_compile_lists_what_it_leaves_out(tmp_path):
    done = succeed("compile", checkpoint("deepseek_v3"), "-o", tmp_path / "model.port", "--target", NATIVE_CPU)
    assert re.search(r"left out \d+ tensors .*model\.layers\.4\.", done.stderr)


def test_text_verbs_take_packages_and_folders():
    for source in (package("tiny-moe", "q4"), checkpoint("tiny-moe")):
        ids = json.loads(succeed("tokenize", source, "-p", "It is a truth", "--special").stdout)
        assert ids[0] == 0
        assert succeed("detokenize", source, "--ids", ",".join(map(str, ids))).stdout == "It is a truth\n"
        assert succeed("detokenize", source, "--special", "--jsonl", text=json.dumps(ids) + "\n").stdout == \
            json.dumps(BEGIN + "It is a truth", ensure_ascii=False) + "\n"


@pytest.mark.parametrize("options", [["--ids", "1,,2"], ["--ids", "-5"], ["--ids", "a"], []], ids=str)
def test_detokenize_refuses(options):
    done = freeport("detokenize", checkpoint("tiny-moe"), *options)
    assert done.returncode != 0 and "--ids" in done.stderr and done.stdout == ""


def test_lines_arrive_one_by_one():
    """--jsonl answers each line as it comes, and the last one without its end."""
    process = subprocess.Popen([FREEPORT, "tokenize", checkpoint("tiny-moe"), "--jsonl"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    out, _ = process.communicate(b'"a"\n"b c"\n"d"', timeout=60)
    assert process.returncode == 0 and len(out.splitlines()) == 3


def test_text_verbs_without_a_tokenizer():
    path = package("llama_tied", "q4")
    assert logits(path, [1, 2]).shape[0] == 2
    for verb in (["run", path, "-p", "a"], ["tokenize", path, "-p", "a"]):
        done = freeport(*verb)
        assert done.returncode != 0 and "tokenizer" in done.stderr


def test_logits_of_ids_on_the_command_line(tmp_path):
    path = package("llama", "q8")
    succeed("logits", path, "--ids", "5, 6,7", "-o", tmp_path / "logits.npy")
    assert np.array_equal(np.load(tmp_path / "logits.npy"), logits(path, [5, 6, 7]))
    for options in ([], ["--ids", "1", "--ids-file", "x.npy"]):
        assert freeport("logits", path, *options, "-o", tmp_path / "none.npy").returncode != 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["logits.npy"]


def test_chunks_of_any_size(tmp_path):
    """More than the prompt has, more than the program takes: the logits are the same."""
    ids = np.arange(600) % 500
    expected = logits(package("llama", "q4"), ids)
    for chunk in (599, 600, 100_000):
        assert np.array_equal(logits(package("llama", "q4"), ids, chunk=chunk), expected)


def test_more_threads_than_processors():
    done = succeed("run", package("tiny-moe", "q4"), "-p", "Once", "-n", 4, "--temp", 0, "-t", 1024)
    assert done.stderr.count("\n") == 1, done.stderr


def test_prompts_up_to_the_context():
    path = package("tiny-moe", "q4")
    options = ["-p", "Once", "--temp", 0, "--ignore-eos", "--json"]
    length = len(json.loads(succeed("run", path, *options, "-n", 0).stdout)["prompt_ids"])
    result = json.loads(succeed("run", path, *options, "-c", length).stdout)
    assert result["stopped"] == "context" and len(result["ids"]) == 1
    done = freeport("run", path, *options, "-c", length - 1)
    assert done.returncode != 0 and "-c" in done.stderr and done.stdout == ""


def test_inspect_describes(tmp_path):
    path = package("tiny-moe", "q4")
    text = succeed("inspect", path).stdout
    assert "DeepseekV3ForCausalLM" in text and "model.layers.1.mlp.experts.gate" in text
    description = json.loads(succeed("inspect", path, "--json").stdout)
    assert {entry["backend"] for entry in description["executables"]} >= {"reference", "cpu"}
    assert description["memory"]["weight_bytes"] == sum(entry["bytes"] for entry in description["parameters"])
    assert description["memory"]["page_tokens"] == 32 and len(description["kernels"]) > 10
    banks = [entry for entry in description["parameters"] if entry["name"].startswith("model.layers.1.mlp.experts.")]
    # An expert is one run of bytes from a multiple of 4 KiB on: its three matrices side by side.
    begin = min(bank["offset"] for bank in banks)
    assert len(banks) == 3 and begin % 4096 == 0 and {bank["entry_stride"] % 4096 for bank in banks} == {0}
    assert max(bank["offset"] + bank["entry_bytes"] for bank in banks) - begin == sum(bank["entry_bytes"] for bank in banks)
    bank = banks[0]
    succeed("inspect", path, "--tensor", bank["name"], "-o", tmp_path / "bank.npy")
    assert list(np.load(tmp_path / "bank.npy").shape) == bank["shape"]
    done = freeport("inspect", path, "--tensor", "nothing", "-o", tmp_path / "none.npy")
    assert done.returncode != 0 and "nothing" in done.stderr and not (tmp_path / "none.npy").exists()
    assert succeed("inspect", path, "--verify").returncode == 0


def test_targets_by_profile(tmp_path):
    def targets(*options):
        succeed("compile", checkpoint("llama"), "-o", tmp_path / "out.port", "--target", *options)
        manifest = json.loads(succeed("inspect", tmp_path / "out.port", "--json").stdout)
        return [each["target"] for each in manifest["executables"]]

    assert targets("cpu:aarch64") == ["bytecode", "aarch64-neon", "aarch64-dotprod", "aarch64-i8mm"]
    assert targets("cpu:aarch64-i8mm,cpu:x86-64-v4") == ["bytecode", "x86-64-v4-avx512vnni", "aarch64-i8mm"]
    done = freeport("compile", checkpoint("llama"), "-o", tmp_path / "none.port", "--target", "cpu:sparc")
    assert done.returncode != 0 and "PREFIX begins one of x86-64-v3, " in done.stderr and "'sparc'" in done.stderr
    assert not (tmp_path / "none.port").exists()


def test_inspect_tells_what_a_device_takes():
    path = package("tiny-moe", "q4")
    targets = json.loads(succeed("inspect", path, "--json", "--device", "reference").stdout)["executables"]
    assert [entry["backend"] for entry in targets if entry["taken"]] == ["reference"]
    assert "; taken" in succeed("inspect", path, "--device", "cpu").stdout
    assert "expects a device among" in freeport("inspect", path, "--device", "abacus").stderr


def test_devices_lists_what_there_is():
    devices = json.loads(succeed("devices", "--json").stdout)
    names = {entry["backend"]: entry for entry in devices}
    assert names["reference"]["device"] == "reference" and names["cpu"]["usable"] and names["cpu"]["memory_bytes"] > 1e9
    table = succeed("devices").stdout
    for entry in devices:
        assert entry["usable"] == (entry["reason"] is None) == (entry["device"] is not None)
        assert (entry["device"] or entry["reason"]) in table


def test_devices_tells_why_there_is_no_vulkan():
    if not any(entry["backend"] == "vulkan" for entry in json.loads(succeed("devices", "--json").stdout)):
        pytest.skip("this build has no Vulkan")
    done = subprocess.run([FREEPORT, "devices", "--json"], env={**os.environ, "VK_ICD_FILENAMES": "/nothing"},
                          capture_output=True, encoding="utf-8", check=True)
    found = [entry for entry in json.loads(done.stdout) if entry["backend"] == "vulkan"]
    assert len(found) == 1 and not found[0]["usable"] and "expects" in found[0]["reason"]


def test_help_teaches():
    for arguments in (["--help"], *([verb, "--help"] for verb in
                                    ("compile", "run", "logits", "inspect", "devices", "tokenize", "detokenize"))):
        done = succeed(*arguments)
        assert done.stderr == "" and ("Example" in done.stdout or "Start with" in done.stdout)
        assert "\033" not in done.stdout
    assert re.fullmatch(r"freeport \d+\.\d+\.\d+\n", succeed("--version").stdout)
    assert freeport("fly").returncode == 2


def test_the_c_example(tmp_path):
    """Strict C99 against the public header, linked to the runtime alone."""
    program = tmp_path / "completion"
    subprocess.run(["clang-19", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", ROOT / "examples/completion.c",
                    f"-L{ROOT}/build/lib", "-lfreeport", f"-Wl,-rpath,{ROOT}/build/lib", "-o", program], check=True)
    prompt, text, count = first_case()
    done = subprocess.run([program, package("tiny-moe", "f32"), prompt, str(count)], capture_output=True, check=True,
                          encoding="utf-8")
    assert done.stdout == text + "\n"
    for arguments in ([], [tmp_path / "absent.port", "a"]):
        failed = subprocess.run([program, *arguments], capture_output=True, encoding="utf-8")
        assert failed.returncode > 0 and failed.stderr


def test_perplexity_says_what_it_expects(tmp_path):
    path = package("tiny-moe", "q8")
    text = tmp_path / "text.txt"
    text.write_text("It is a truth universally acknowledged, that a single man must be in want of a wife.")
    figures = {size: float(succeed("perplexity", path, "-f", text, "--window", size).stdout.split()[-1]) for size in (2, 8)}
    assert figures[2] > figures[8] > 1  # less to go by
    for options, message in ((["-f", tmp_path / "none.txt"], "none.txt: expects a file of text"),
                             (["-f", tmp_path], "expects a file of text"),
                             (["-f", text, "--window", "100000"], "expects a window of at most")):
        done = freeport("perplexity", path, *options)
        assert done.returncode == 1 and message in done.stderr and done.stdout == ""
    text.write_text("")
    done = freeport("perplexity", path, "-f", text)
    assert done.returncode == 1 and "expects text of at least 1 tokens, got 0" in done.stderr


def test_compare_tells_how_far_apart_two_packages_are(tmp_path):
    """Against logits of both packages, in NumPy."""
    text = tmp_path / "text.txt"
    text.write_text("It is a truth universally acknowledged, that a single man must be in want of a wife.")
    pair = [package("tiny-moe", "f32"), package("tiny-moe", "q4")]
    figures = [float(line.rsplit(" ", 1)[1]) for line in succeed("compare", *pair, "-f", text).stdout.splitlines()]

    ids = json.loads(succeed("tokenize", pair[0], "--special", "-p", text.read_text()).stdout)
    given, target = ids[:-1], ids[1:]
    values = [logits(path, given).astype(np.float64) for path in pair]
    logs = [each - np.log(np.exp(each - each.max(-1, keepdims=True)).sum(-1, keepdims=True)) - each.max(-1, keepdims=True)
            for each in values]
    divergence = np.sum(np.exp(logs[0]) * (logs[0] - logs[1]), -1)
    expected = [np.exp(-each[np.arange(len(target)), target].mean()) for each in logs]
    expected += [len(target), divergence.mean(), np.quantile(divergence, 0.99, method="nearest"),
                 100 * np.mean(logs[0].argmax(-1) == logs[1].argmax(-1))]
    np.testing.assert_allclose(figures[:-1], expected, rtol=1e-3, atol=2e-6)
    assert 0 < figures[-1] < 50  # routers flip, though rarely

    same = succeed("compare", pair[0], pair[0], "-f", text).stdout.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in same[3:]] == ["0.000000", "0.000000", "100.000", "0.000"]
    done = freeport("compare", pair[0], package("llama", "q4"), "-f", text)
    assert done.returncode == 1 and done.stdout == "" and "error: " in done.stderr


def test_fast_numerics_differ_a_little(tmp_path):
    """On the CPU, which fuses; the reference knows one arithmetic only."""
    portable, fast = package("tiny-moe", "f32"), tmp_path / "fast.port"
    succeed("compile", checkpoint("tiny-moe"), "-o", fast, "--weights", "f32", "--numerics", "fast", "--target", NATIVE_CPU)
    assert json.loads(succeed("inspect", fast, "--json").stdout)["numerics"] == "fast"
    ids = list(range(100, 140))
    expected, found = logits(portable, ids), logits(fast, ids)
    assert not np.array_equal(expected, found)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found, logits(fast, ids, chunk=7, threads=1))
    np.testing.assert_array_equal(logits(fast, ids, device="reference"), expected)
    done = freeport("verify", fast)
    assert done.returncode == 1 and "expects portable numerics, got fast" in done.stderr
    done = freeport("compile", checkpoint("tiny-moe"), "-o", fast, "--numerics", "quick")
    assert done.returncode == 2 and "quick" in done.stderr


def test_quantised_keys_take_less_memory(tmp_path):
    described = [json.loads(succeed("inspect", package("llama", "q4", keys), "--json").stdout) for keys in ("", "q8")]
    assert "--cache-type-k q8" in json.dumps(described[1]) and "--cache-type-k" not in json.dumps(described[0])
    assert "--weights q4 --cache-type-k q8\n" in succeed("inspect", package("llama", "q4", "q8")).stdout
    plain, quantised = ([state["page_bytes"] for state in each["states"]] for each in described)
    config = json.loads((checkpoint("llama") / "config.json").read_text())
    heads, size = config["num_key_value_heads"], config["hidden_size"] // config["num_attention_heads"]
    assert size == 32 and plain == [heads * 2 * 2 * 32 * size] * len(plain)
    assert quantised == [heads * (32 * size + 2 * 32 + 2 * 32 * size)] * len(plain)  # codes and scales, values
    done = freeport("compile", checkpoint("tiny-moe"), "-o", tmp_path / "model.port", "--cache-type-k", "q8")
    assert done.returncode == 1 and "got latent attention" in done.stderr
    done = freeport("compile", checkpoint("llama"), "-o", tmp_path / "model.port", "--cache-type-k", "q4")
    assert done.returncode != 0 and "q8" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_profile_times_every_dispatch():
    out = succeed("profile", package("tiny-moe", "q4"), "-p", 40, "-d", 5, "-r", 2).stdout
    for step in ("one token", "40 tokens"):
        count, total, waited, between = map(float, re.search(
            rf"^{step}: (\d+) dispatches, ([\d.]+) ms, of which threads waited ([\d.]+) ms; ([\d.]+) µs between", out,
            re.M).groups())
        assert count > 50 and total > waited and between < 1e3 * waited + 1
    rows = re.findall(r"^\| (route|latent_attention|experts) .*\| ([\d.]+) % \|", out, re.M)
    assert {name for name, _ in rows} == {"route", "latent_attention", "experts"}
    assert 50 < sum(float(share) for share in re.findall(r"^\| .*?\| ([\d.]+) % \|", out, re.M)) < 210


@pytest.mark.parametrize("device", ["cpu", "vulkan", "reference"])
def test_profile_file_shows_steps_and_threads(tmp_path, device):
    path, trace = package("tiny-moe", "q4"), tmp_path / "trace.json"
    if device == "vulkan":
        if not has_vulkan():
            pytest.skip("no Vulkan device")
        path = tmp_path / "vulkan.port"
        succeed("compile", checkpoint("tiny-moe"), "-o", path, "--weights", "q4", "--target", "vulkan")
    succeed("run", path, "-p", "It is a truth", "-n", 4, "--ignore-eos", "--device", device, "--profile", trace)
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    steps = [event for event in events if event["tid"] == 0]
    assert len(steps) == 4  # the prompt, and all tokens but the last
    assert [step["args"]["tokens"] > 1 for step in steps] == [True, False, False, False]
    threads = {event["tid"] for event in events} - {0}
    assert 1 <= len(threads) <= (1 if device == "vulkan" else os.cpu_count())
    for step in steps:
        inside = [event for event in events if event["tid"] and step["ts"] <= event["ts"] < step["ts"] + step["dur"]]
        assert len({event["args"]["dispatch"] for event in inside}) > 50
        assert sum(event["args"]["bytes"] for event in inside) > 0
        assert all(event["ts"] + event["dur"] <= step["ts"] + step["dur"] + 1 for event in inside)
        for thread in threads if device != "vulkan" else ():  # a GPU's clock is its own
            mine = sorted((event["ts"], event["dur"]) for event in inside if event["tid"] == thread)
            assert all(at + length <= after + 0.01 for (at, length), (after, _) in zip(mine, mine[1:]))
    succeed("bench", path, "-p", 5, "-n", 2, "-r", 1, "--device", device, "--profile", trace)
    assert len([e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "step of 5 tokens"]) == 2
    done = freeport("run", path, "-p", "a", "-n", 1, "--profile", tmp_path / "absent" / "trace.json")
    assert done.returncode == 1 and "trace.json: cannot be written" in done.stderr
    done = freeport("run", path, "-p", "a", "-n", 1, "--profile", "/dev/full")
    assert done.returncode == 1 and "disk full" in done.stderr


def test_bench_measures_in_three_forms():
    path = package("tiny-moe", "q4")
    options = ["-p", 40, "-n", 3, "-r", 2, "-d", 5, "-b", 2]
    prompt, generation = json.loads(succeed("bench", path, *options, "-o", "json").stdout)
    assert (prompt["test"], generation["test"]) == ("pp40", "tg3")
    for result in (prompt, generation):
        assert set(result) == {"test", "tokens_per_second", "stddev", "gigabytes_per_second", "bandwidth_share",
                               "gops_per_core", "peak_share", "depth", "sequences"}
        assert all(result[key] > 0 for key in ("tokens_per_second", "gigabytes_per_second", "gops_per_core"))
        assert result["depth"] == 5
    assert (prompt["sequences"], generation["sequences"]) == (1, 2)
    table = succeed("bench", path, "-p", 0, "-n", 2, "-r", 1).stdout
    assert re.match(r"\| test \| tokens_per_second .*\n\|---.*\n\| tg2 \| [\d.]+ \|", table)
    lines = succeed("bench", path, "-p", 8, "-n", 0, "-r", 1, "-o", "csv").stdout.splitlines()
    assert lines[0].startswith("test,tokens_per_second,stddev") and lines[1].startswith("pp8,") and len(lines) == 2


def test_bench_says_what_it_expects():
    path = package("tiny-moe", "q4")
    done = freeport("bench", path, "-p", 100000, "-n", 0)
    assert done.returncode == 1 and re.search("expects a depth and a prompt or generation of at most .*got 100000", done.stderr)
    for options, message in ((["-p", 0, "-n", 0], "expects a prompt or a generation"), (["-o", "xml"], "xml"),
                             (["-r", 0], "repeat")):
        done = freeport("bench", path, *options)
        assert done.returncode == 2 and message in done.stderr + done.stdout


def test_bench_counts_the_weights_that_a_token_needs():
    """Bytes and operations follow from the shapes: a dense model with a tied head reads all of its matrices once."""
    path = package("llama_tied", "f32")
    (result,) = json.loads(succeed("bench", path, "-p", 0, "-n", 4, "-r", 1, "-t", 1, "-o", "json").stdout)
    parameters = json.loads(succeed("inspect", path, "--json").stdout)["parameters"]
    matrices = [entry for entry in parameters if len(entry["shape"]) == 2]
    expected = sum(entry["bytes"] for entry in matrices) / 1e9
    assert abs(result["gigabytes_per_second"] / result["tokens_per_second"] / expected - 1) < 1e-6
    expected = 2 * sum(np.prod(entry["shape"]) for entry in matrices) / 1e9
    assert abs(result["gops_per_core"] / result["tokens_per_second"] / expected - 1) < 1e-6
