// Which device and which of the package's executables: an explicit choice is kept or refused, never replaced. Weights
// go to the device in as few memories as its limit allows, none of which cuts a parameter.
#include "runtime/model.h"

#include "runtime/registry.h"
#include "runtime/single_dispatch.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace freeport {
namespace {

/// Bytes that are written between two calls of the progress function.
constexpr uint64_t kWriteBytes = uint64_t(32) << 20;

bool has_code(const Package &package, const fp_device_api &api) {
  const auto &executables = *package.manifest().executables();
  return std::any_of(executables.begin(), executables.end(), [&](const package::Executable *executable) {
    return executable->backend()->string_view() == api.name;
  });
}

/// The devices to try for a package, in order: cpu, others, reference, as far as there is code for them.
std::vector<const fp_device_api *> default_devices(const Package &package) {
  auto rank = [](const fp_device_api *api) {
    const std::string_view name = api->name;
    return name == "cpu" ? 0 : name == "reference" ? 2 : 1;
  };
  std::vector<const fp_device_api *> devices;
  for (int wanted : {0, 1, 2})
    for (const fp_device_api *api : device_apis())
      if (rank(api) == wanted && has_code(package, *api))
        devices.push_back(api);
  return devices;
}

std::string device_names() {
  std::string names;
  for (const fp_device_api *api : device_apis())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", api->name);
  return names;
}

Status no_such_device(const std::string &name) {
  return Status(Code::kNotFound, fmt::format("expects a device among {}, got '{}'", device_names(), name));
}

/// "NAME:SELECTOR" or "NAME" in its two parts.
std::pair<std::string, std::string> split_device(const std::string &device) {
  const size_t colon = device.find(':');
  return {device.substr(0, colon), colon == std::string::npos ? "" : device.substr(colon + 1)};
}

Status no_code(const Package &package, const fp_device_api &api, const std::vector<Rejection> &rejected) {
  std::string reasons;
  for (const Rejection &each : rejected)
    reasons += fmt::format("; {}: {}", each.executable->target()->string_view(), each.reason);
  return Status(Code::kUnsupported,
                fmt::format("{}: expects code for device '{}', got none that it takes{}; compile with --target {}",
                            package.path(), api.name, reasons, api.name));
}

/// kInternal where the device does not run them, or gives other bits than the package says.
Status run_self_tests(const Package &package, const fp_device_api &api, fp_device *device, fp_executable *executable) {
  if (!package.manifest().self_tests())
    return Status();
  for (const package::SelfTest *test : *package.manifest().self_tests()) {
    std::vector<std::vector<std::byte>> buffers;
    for (const package::Bytes *argument : *test->arguments()) {
      const auto *first = reinterpret_cast<const std::byte *>(argument->data()->data());
      buffers.emplace_back(first, first + argument->data()->size());
    }
    buffers.emplace_back(test->result_bytes());
    FP_RETURN_IF_ERROR(run_single_dispatch(api, device, executable, test->kernel(), buffers, {}, {1, 1, 1}));
    if (XXH3_64bits(buffers.back().data(), buffers.back().size()) != test->result())
      return Status(Code::kInternal,
                    fmt::format("expects the bits of self-test '{}', got others: this processor or driver does not "
                                "compute as its kind should",
                                package.manifest().kernels()->Get(test->kernel())->name()->string_view()));
  }
  return Status();
}

/// Bytes from a parameter's first to behind its last entry.
uint64_t extent(const package::Parameter &parameter) {
  return (parameter_shape(parameter).entries - 1) * parameter.entry_stride() + parameter.entry_size();
}

} // namespace

Status device_status(const fp_error &error) { return Status(Code(error.code), error.message); }

Choice choose_executable(const Package &package, const fp_device_api &api, fp_device *device) {
  Choice choice;
  for (const package::Executable *executable : *package.manifest().executables()) {
    if (executable->backend()->string_view() != api.name)
      continue;
    std::vector<const char *> conditions;
    if (executable->conditions())
      for (const flatbuffers::String *condition : *executable->conditions())
        conditions.push_back(condition->c_str());
    if (const char *reason = api.rejects(device, executable->target()->c_str(), conditions.data(), conditions.size())) {
      choice.rejected.push_back({executable, reason, false});
      continue;
    }
    choice.accepted.push_back(executable);
  }
  return choice;
}

Result<Choice> examine_device(const Package &package, const std::string &device) {
  const auto [name, selector] = split_device(device);
  const fp_device_api *api = find_device_api(name);
  if (!api)
    return no_such_device(name);
  const fp_device_options options = {selector.c_str(), 0, 0};
  fp_device *opened = nullptr;
  fp_error error = {};
  if (api->open(&options, &opened, &error))
    return device_status(error);
  Choice choice = choose_executable(package, *api, opened);
  api->close(opened);
  return choice;
}

Result<std::shared_ptr<Model>> Model::open(std::shared_ptr<const Package> package, const ModelOptions &options) {
  std::shared_ptr<Model> model(new Model);
  model->package_ = std::move(package);
  FP_RETURN_IF_ERROR(model->choose_device(options));
  FP_RETURN_IF_ERROR(model->load_weights(options));
  return model;
}

Status Model::choose_device(const ModelOptions &options) {
  const auto [name, selector] = split_device(options.device);
  if (!name.empty()) {
    const fp_device_api *api = find_device_api(name);
    return api ? open_device(*api, selector, options) : no_such_device(name);
  }
  Status status(Code::kUnsupported, fmt::format("{}: expects code for a device of this build ({}), got none",
                                                package_->path(), device_names()));
  for (const fp_device_api *api : default_devices(*package_)) {
    status = open_device(*api, selector, options);
    // A wrong option stays wrong on the next device.
    if (status.ok() || status.code() == Code::kInvalidArgument)
      return status;
  }
  return status;
}

Status Model::open_device(const fp_device_api &api, const std::string &selector, const ModelOptions &options) {
  if (!has_code(*package_, api))
    return no_code(*package_, api, {});
  const fp_device_options device_options = {selector.c_str(), int32_t(options.threads), options.timings};
  fp_error error = {};
  if (api.open(&device_options, &device_, &error))
    return device_status(error);
  api_ = &api;
  Choice choice = choose_executable(*package_, api, device_);
  rejected_ = std::move(choice.rejected);
  Status status = load_best_executable(choice);
  if (!status.ok())
    close_device();
  return status;
}

Status Model::load_best_executable(const Choice &choice) {
  for (auto executable = choice.accepted.rbegin(); executable != choice.accepted.rend(); ++executable) {
    FP_RETURN_IF_ERROR(load_executable(**executable));
    Status passed = run_self_tests(*package_, *api_, device_, executable_);
    if (passed.ok()) {
      target_ = (*executable)->target()->string_view();
      return Status();
    }
    api_->unload(device_, std::exchange(executable_, nullptr));
    rejected_.push_back({*executable, passed.message(), /*failed_self_test=*/true});
  }
  return no_code(*package_, *api_, rejected_);
}

Status Model::load_executable(const package::Executable &executable) {
  std::vector<const char *> names;
  for (const package::Kernel *kernel : *package_->manifest().kernels())
    names.push_back(kernel->name()->c_str());
  const auto content = package_->content(*executable.content());
  fp_error error = {};
  return api_->load(device_, content.data(), content.size(), executable.version(), names.data(), names.size(),
                    &executable_, &error)
             ? Status(Code(error.code), package_->path() + ": " + error.message)
             : Status();
}

std::vector<ByteRange> cut_runs(std::vector<ByteRange> ranges, uint64_t limit) {
  std::sort(ranges.begin(), ranges.end(),
            [](const ByteRange &left, const ByteRange &right) { return left.begin < right.begin; });
  std::vector<ByteRange> groups; // of ranges that overlap
  for (const ByteRange &range : ranges) {
    if (!groups.empty() && range.begin < groups.back().end)
      groups.back().end = std::max(groups.back().end, range.end);
    else
      groups.push_back(range);
  }
  std::vector<ByteRange> runs;
  for (const ByteRange &group : groups) {
    if (!runs.empty() && group.end - runs.back().begin <= limit)
      runs.back().end = group.end;
    else
      runs.push_back(group);
  }
  return runs;
}

Status Model::load_weights(const ModelOptions &options) {
  std::vector<ByteRange> ranges;
  for (const package::Parameter *parameter : *package_->manifest().parameters())
    ranges.push_back({parameter->offset(), parameter->offset() + extent(*parameter)});
  const uint64_t limit = description().maximum_bytes ? description().maximum_bytes : UINT64_MAX;
  const std::vector<ByteRange> runs = cut_runs(ranges, limit);
  for (const ByteRange &run : runs)
    FP_RETURN_IF_ERROR(load_range(run.begin, run.end, options, &weights_.emplace_back()));
  for (const ByteRange &range : ranges) {
    const auto run = std::upper_bound(runs.begin(), runs.end(), range.begin,
                                      [](uint64_t at, const ByteRange &each) { return at < each.begin; }) -
                     1;
    places_.push_back({weights_[size_t(run - runs.begin())], range.begin - run->begin, range.end - range.begin});
  }
  return Status();
}

/// Makes the package's bytes begin .. end-1 device memory, in place where the device can.
Status Model::load_range(uint64_t begin, uint64_t end, const ModelOptions &options, fp_memory **memory) {
  const std::byte *data = package_->bytes().data();
  fp_error error = {};
  if (api_->import_host) {
    if (!api_->import_host(device_, data + begin, end - begin, memory, &error))
      return Status();
    if (error.code != FP_UNSUPPORTED)
      return device_status(error);
  }
  if (api_->allocate(device_, end - begin, memory, &error))
    return device_status(error);
  const auto [first, last] = package_->weights();
  for (uint64_t at = begin; at < end; at += kWriteBytes) {
    if (options.progress && !options.progress(at - first, last - first))
      return Status(Code::kCancelled, "interrupted");
    if (api_->write(device_, *memory, at - begin, data + at, std::min(kWriteBytes, end - at), &error))
      return device_status(error);
  }
  if (options.progress && end == last)
    options.progress(last - first, last - first);
  return Status();
}

void Model::close_device() {
  api_->close(device_);
  device_ = nullptr;
  api_ = nullptr;
}

Model::~Model() {
  for (fp_memory *memory : weights_)
    if (memory)
      api_->release(device_, memory);
  if (executable_)
    api_->unload(device_, executable_);
  if (device_)
    close_device();
}

fp_device_description Model::description() const {
  fp_device_description description;
  api_->describe(device_, &description);
  return description;
}

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const Package &package) {
  const package::Text &text = *package.manifest().text();
  if (!text.tokenizer())
    return Status(Code::kUnsupported,
                  package.path() +
                      ": expects a tokenizer in the package, got none: its checkpoint had no tokenizer.json; "
                      "give token ids instead (freeport logits --ids)");
  auto tokenizer = Tokenizer::create(package.text(text.tokenizer()), package.text(text.tokenizer_config()));
  if (!tokenizer.ok())
    return Status(tokenizer.status().code(), package.path() + ": tokenizer.json: " + tokenizer.status().message());
  return tokenizer;
}

} // namespace freeport
