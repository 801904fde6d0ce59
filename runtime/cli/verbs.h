// The verbs of the command line: each adds its subcommand, and runs as its callback. A verb returns the exit code.
#pragma once

#include "runtime/tokenizer.h"

#include <CLI/CLI.hpp>

#include <atomic>
#include <functional>

namespace freeport::cli {

/// Set by Ctrl-C; long work looks at it.
extern std::atomic<bool> interrupted;

/// What a verb does once the command line is parsed; returns the exit code.
using Action = std::function<int()>;

void add_compile(CLI::App &app, Action &action);
void add_text(CLI::App &app, Action &action);

/// The tokenizer of a checkpoint folder; kNotFound where it has none.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string &source);

/// Prints `error: message` to standard error, in red on a terminal, and returns 1.
int fail(const std::string &message);

} // namespace freeport::cli
