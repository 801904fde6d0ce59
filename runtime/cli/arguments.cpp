// What several verbs take: a package and a device, a tokenizer, token ids.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <poll.h>
#include <unistd.h>

namespace freeport::cli {
namespace {

std::optional<std::string> read_file(const std::filesystem::path &path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

/// Waits until standard input has something to read. A signal may come between a look at `interrupted` and a read,
/// which would then wait for ever: so nothing waits for longer than a moment.
bool wait_for_input() {
  pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (!interrupted)
    if (::poll(&input, 1, /*milliseconds=*/100) > 0)
      return true;
  return false;
}

} // namespace

Result<std::string> read_text(const std::string &path) {
  std::error_code code;
  const std::optional<std::string> text = std::filesystem::is_directory(path, code) ? std::nullopt : read_file(path);
  if (!text)
    return Status(Code::kNotFound, path + ": expects a file of text, got none that can be read");
  return *text;
}

std::string read_standard_input() {
  std::string text;
  char piece[65536];
  while (wait_for_input()) {
    const ssize_t count = ::read(STDIN_FILENO, piece, sizeof piece);
    if (count > 0)
      text.append(piece, size_t(count));
    else if (count == 0 || errno != EINTR)
      break;
  }
  return text;
}

bool read_line(std::string &line) {
  static std::string text;
  static size_t begin = 0, searched = 0;
  line.clear();
  char piece[65536];
  while (true) {
    const size_t end = text.find('\n', searched);
    if (end != std::string::npos) {
      line.assign(text, begin, end - begin);
      begin = searched = end + 1;
      return !interrupted;
    }
    text.erase(0, begin);
    begin = 0;
    searched = text.size();
    const ssize_t count = wait_for_input() ? ::read(STDIN_FILENO, piece, sizeof piece) : 0;
    if (count > 0) {
      text.append(piece, size_t(count));
    } else if (count == 0 || errno != EINTR) {
      line.swap(text);
      text.clear();
      searched = 0;
      return !line.empty() && !interrupted;
    }
  }
}

void add_device_options(CLI::App &verb, DeviceArguments &arguments) {
  verb.add_option("--device", arguments.device,
                  "Where to run, e.g. cpu, vulkan or vulkan:1 (freeport devices lists them); without it, the first "
                  "that the package has code for");
  verb.add_option("-t,--threads", arguments.threads,
                  "Threads, at most one for each processor; without it, one for each physical core")
      ->check(CLI::Range(1, 1024));
}

void add_profile_option(CLI::App &verb, std::string &path) {
  verb.add_option("--profile", path,
                  "Also write what each thread did in each step to this file, for Chrome's or Perfetto's viewer");
}

Result<std::shared_ptr<Model>> open_model(const std::string &path, const DeviceArguments &arguments) {
  FP_ASSIGN_OR_RETURN(std::shared_ptr<const Package> package, Package::open(path));
  ModelOptions options = {arguments.device, arguments.threads};
  options.timings = arguments.timings;
  ProgressLine line;
  options.progress = [&](uint64_t done, uint64_t total) {
    line.show_bytes("copying weights to the device:", done, total);
    return !interrupted;
  };
  FP_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, Model::open(package, options));
  for (const Rejection &each : model->rejected())
    if (each.failed_self_test)
      fmt::print(stderr, "note: {}: {}; {} runs instead\n", each.executable->target()->string_view(), each.reason,
                 model->target());
  if (arguments.device.empty() && std::string_view(model->api().name) == "reference")
    fmt::print(stderr,
               "note: {} has no code for a faster device of this machine; the reference device runs it, slowly\n",
               path);
  return model;
}

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string &source) {
  const std::filesystem::path folder = source;
  std::error_code code;
  if (!std::filesystem::is_directory(folder, code)) {
    FP_ASSIGN_OR_RETURN(std::shared_ptr<const Package> package, Package::open(source));
    return freeport::open_tokenizer(*package);
  }
  std::optional<std::string> text = read_file(folder / "tokenizer.json");
  if (!text)
    return Status(Code::kNotFound, source + ": expects tokenizer.json in the folder, found none");
  return Tokenizer::create(*text, read_file(folder / "tokenizer_config.json").value_or(""));
}

Result<std::vector<int32_t>> parse_ids(const std::string &text) {
  std::vector<int32_t> ids;
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    while (at != end && *at == ' ')
      ++at;
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0)
      return Status(Code::kInvalidArgument,
                    fmt::format("--ids: expects token ids separated by commas, such as 1,2,3; got '{}'", text));
    ids.push_back(id);
    at = next;
    while (at != end && *at == ' ')
      ++at;
    if (at == end)
      return ids;
    if (*at++ != ',')
      return Status(Code::kInvalidArgument, fmt::format("--ids: expects commas between token ids, got '{}'", text));
  }
}

} // namespace freeport::cli
