// The verbs of the command line: each adds its subcommand, and runs as its callback. A verb returns the exit code.
#pragma once

#include "runtime/model.h"
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
void add_inspect(CLI::App &app, Action &action);
void add_logits(CLI::App &app, Action &action);
void add_run(CLI::App &app, Action &action);
void add_text(CLI::App &app, Action &action);

/// Prints `error: message` to standard error, in red on a terminal, and returns 1; 130 after Ctrl-C, as shells expect.
int fail(const std::string &message);
inline int fail(const Status &status) { return fail(status.message()); }

/// Where a model runs: --device and -t.
struct DeviceArguments {
  std::string device;
  int threads = 0;
};
void add_device_options(CLI::App &verb, DeviceArguments &arguments);

/// Opens a package on a device, and says so where the reference steps in for want of better code.
Result<std::shared_ptr<Model>> open_model(const std::string &path, const DeviceArguments &arguments);

/// The tokenizer of a package or of a checkpoint folder.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string &source);

/// Token ids separated by commas; kInvalidArgument for anything else.
Result<std::vector<int32_t>> parse_ids(const std::string &text);

} // namespace freeport::cli
