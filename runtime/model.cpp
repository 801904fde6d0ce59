// Which device and which of the package's executables: an explicit choice is kept or refused, never replaced.
#include "runtime/model.h"

#include "runtime/registry.h"

#include <fmt/format.h>

#include <vector>

namespace freeport {
namespace {

/// The executable that the device takes, or every reason why it took none.
Result<const package::Executable *> choose_executable(const Package &package, const fp_device_api &api) {
  std::string reasons;
  for (const package::Executable *executable : *package.manifest().executables()) {
    if (executable->backend()->string_view() != api.name)
      continue;
    std::vector<const char *> conditions;
    if (executable->conditions())
      for (const flatbuffers::String *condition : *executable->conditions())
        conditions.push_back(condition->c_str());
    const char *reason = api.rejects(executable->target()->c_str(), conditions.data(), conditions.size());
    if (!reason)
      return executable;
    reasons += fmt::format("; {}: {}", executable->target()->string_view(), reason);
  }
  return Status(Code::kUnsupported,
                fmt::format("{}: expects code for device '{}', got none that it takes{}; compile with --target {}",
                            package.path(), api.name, reasons, api.name));
}

/// The first device with code of its own in the package; the reference runs everything, slowly.
const fp_device_api *default_device(const Package &package) {
  const fp_device_api *reference = nullptr;
  for (const fp_device_api *api : device_apis()) {
    if (std::string_view(api->name) == "reference")
      reference = api;
    else if (choose_executable(package, *api).ok())
      return api;
  }
  return reference;
}

std::string device_names() {
  std::string names;
  for (const fp_device_api *api : device_apis())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", api->name);
  return names;
}

} // namespace

Status device_status(const fp_error &error) { return Status(Code(error.code), error.message); }

Result<std::shared_ptr<Model>> Model::open(std::shared_ptr<const Package> package, const ModelOptions &options) {
  std::shared_ptr<Model> model(new Model);
  model->package_ = std::move(package);
  FP_RETURN_IF_ERROR(model->open_device(options));
  FP_RETURN_IF_ERROR(model->load_executable());
  FP_RETURN_IF_ERROR(model->load_weights());
  return model;
}

Status Model::open_device(const ModelOptions &options) {
  const size_t colon = options.device.find(':');
  const std::string name = options.device.substr(0, colon);
  const std::string selector = colon == std::string::npos ? "" : options.device.substr(colon + 1);
  api_ = name.empty() ? default_device(*package_) : find_device_api(name);
  if (!api_)
    return Status(Code::kNotFound, fmt::format("expects a device among {}, got '{}'", device_names(), name));
  FP_ASSIGN_OR_RETURN(chosen_, choose_executable(*package_, *api_));
  target_ = chosen_->target()->string_view();
  const fp_device_options device_options = {selector.c_str(), int32_t(options.threads)};
  fp_error error = {};
  return api_->open(&device_options, &device_, &error) ? device_status(error) : Status();
}

Status Model::load_executable() {
  std::vector<const char *> names;
  for (const package::Kernel *kernel : *package_->manifest().kernels())
    names.push_back(kernel->name()->c_str());
  const auto content = package_->content(*chosen_->content());
  fp_error error = {};
  return api_->load(device_, content.data(), content.size(), chosen_->version(), names.data(), names.size(),
                    &executable_, &error)
             ? Status(Code(error.code), package_->path() + ": " + error.message)
             : Status();
}

Status Model::load_weights() {
  const auto [begin, end] = package_->weights();
  const std::byte *data = package_->bytes().data() + begin;
  fp_error error = {};
  if (api_->import_host)
    return api_->import_host(device_, data, end - begin, &weights_, &error) ? device_status(error) : Status();
  if (api_->allocate(device_, end - begin, &weights_, &error) ||
      api_->write(device_, weights_, 0, data, end - begin, &error))
    return device_status(error);
  return Status();
}

Model::~Model() {
  if (weights_)
    api_->release(device_, weights_);
  if (executable_)
    api_->unload(device_, executable_);
  if (device_)
    api_->close(device_);
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
