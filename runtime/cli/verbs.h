// The verbs of the command line: each adds its subcommand, and runs as its callback. A verb returns the exit code.
#pragma once

#include "runtime/model.h"
#include "runtime/tokenizer.h"

#include <CLI/CLI.hpp>

#include <atomic>
#include <functional>

namespace freeport::cli {

/// The signal that asks to stop (Ctrl-C, SIGTERM), 0 before; long work looks at it.
extern std::atomic<int> interrupted;
/// `code`, or what shells expect of a program that a signal stopped.
inline int exit_code(int code) { return interrupted ? 128 + interrupted : code; }

/// What a verb does once the command line is parsed; returns the exit code.
using Action = std::function<int()>;

void add_bench(CLI::App &app, Action &action);
void add_compare(CLI::App &app, Action &action);
void add_compile(CLI::App &app, Action &action);
void add_devices(CLI::App &app, Action &action);
void add_inspect(CLI::App &app, Action &action);
void add_logits(CLI::App &app, Action &action);
void add_perplexity(CLI::App &app, Action &action);
void add_profile(CLI::App &app, Action &action);
void add_run(CLI::App &app, Action &action);
void add_text(CLI::App &app, Action &action);
void add_tune(CLI::App &app, Action &action);
void add_verify(CLI::App &app, Action &action);

/// Prints `error: message` to standard error, in red on a terminal, and returns exit_code(1).
int fail(const std::string &message);
inline int fail(const Status &status) { return fail(status.message()); }

/// All of standard input, or what came before a signal.
std::string read_standard_input();

/// All of a file of text; kNotFound where it cannot be read.
Result<std::string> read_text(const std::string &path);

/// The next line of standard input; false at its end and after a signal.
bool read_line(std::string &line);

/// Where a model runs: --device and -t.
struct DeviceArguments {
  std::string device;
  int threads = 0;
  bool timings = false; ///< whether the device measures its dispatches
};
void add_device_options(CLI::App &verb, DeviceArguments &arguments);

/// --profile: the file for what each step did; empty without it.
void add_profile_option(CLI::App &verb, std::string &path);

/// Opens a package on a device, and says so where the reference steps in for want of better code.
Result<std::shared_ptr<Model>> open_model(const std::string &path, const DeviceArguments &arguments);

/// The tokenizer of a package or of a checkpoint folder.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string &source);

/// Token ids separated by commas; kInvalidArgument for anything else.
Result<std::vector<int32_t>> parse_ids(const std::string &text);

} // namespace freeport::cli
