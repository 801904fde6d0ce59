"""Measures llama.cpp (through llama-cpp-python) as `freeport bench` measures Freeport: the same tests on the same tokens,
printed as the same JSON list. Each entry also has `cold_start`, the seconds from opening the file to the first token's
logits, Python's own start left out, and `peak_bytes`, the most memory that this process had."""

import argparse
import ctypes
import json
import resource
import time

import llama_cpp


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=32)
    parser.add_argument("-d", "--depth", type=int, default=0)
    parser.add_argument("-b", "--sequences", type=int, default=1)
    parser.add_argument("-t", "--threads", type=int, required=True)
    arguments = parser.parse_args()

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    opened = time.perf_counter()
    model = llama_cpp.llama_model_load_from_file(arguments.model.encode(), llama_cpp.llama_model_default_params())
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    tokens_each = -(-(arguments.depth + max(arguments.prompt, arguments.generate) + 1) // 256) * 256
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = tokens_each * arguments.sequences
    options.n_seq_max = arguments.sequences
    options.n_batch = options.n_ubatch = 512
    options.n_threads = options.n_threads_batch = arguments.threads
    context = llama_cpp.llama_init_from_model(model, options)
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(512, 0, 1)

    def token(place):
        return (place * 2654435761 + 12345) % (1 << 31) % vocabulary

    def decode(rows):
        """`rows`: (token, position, sequence, wants logits), at most 512."""
        batch.n_tokens = len(rows)
        for i, (identity, position, sequence, logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = identity, position, logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_cpp_rates: llama_decode failed")

    def feed(sequence, first, count):
        for at in range(first, first + count, 512):
            end = min(at + 512, first + count)
            decode([(token(i), i, sequence, i == first + count - 1) for i in range(at, end)])

    decode([(token(0), 0, 0, True)])
    llama_cpp.llama_synchronize(context)
    cold_start = time.perf_counter() - opened

    def fill():
        llama_cpp.llama_memory_clear(memory, True)
        for sequence in range(arguments.sequences if arguments.depth else 0):
            feed(sequence, 0, arguments.depth)
        llama_cpp.llama_synchronize(context)

    def generate(count):
        for i in range(count):
            decode([(token(arguments.depth + i * arguments.sequences + sequence), arguments.depth + i, sequence, True)
                    for sequence in range(arguments.sequences)])

    results = []

    def measure(test, tokens, work, warm_up):
        fill()
        warm_up()
        fill()
        start = time.perf_counter()
        work()
        llama_cpp.llama_synchronize(context)
        results.append({"test": test, "tokens_per_second": tokens / (time.perf_counter() - start)})

    if arguments.prompt:
        measure(f"pp{arguments.prompt}", arguments.prompt, lambda: feed(0, arguments.depth, arguments.prompt),
                lambda: feed(0, arguments.depth, min(arguments.prompt, 64)))
    if arguments.generate:
        measure(f"tg{arguments.generate}", arguments.generate * arguments.sequences, lambda: generate(arguments.generate),
                lambda: generate(min(arguments.generate, 4)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([dict(result, cold_start=cold_start, peak_bytes=peak) for result in results]))


if __name__ == "__main__":
    main()
