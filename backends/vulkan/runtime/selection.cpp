// Selection of capabilities.h: an explicit choice is kept or refused, never replaced.
#include "backends/vulkan/runtime/capabilities.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace freeport::vulkan {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return result;
}

std::string without_dashes(std::string text) {
  std::erase(text, '-');
  return text;
}

std::string list(std::span<const Capabilities> devices) {
  std::string text;
  for (size_t i = 0; i < devices.size(); ++i)
    text += fmt::format("{}{} ({})", i ? ", " : "", i, devices[i].name);
  return text;
}

/// Discrete GPUs first, drivers that run on the processor last.
int rank(const Capabilities &device) {
  switch (device.type) {
  case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
    return 0;
  case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
    return 1;
  case VK_PHYSICAL_DEVICE_TYPE_CPU:
    return 3;
  default:
    return 2;
  }
}

Result<Capabilities> best(std::span<const Capabilities> devices) {
  const Capabilities *found = nullptr;
  std::string reasons;
  for (const Capabilities &device : devices) {
    const std::string reason = unusable(device);
    if (!reason.empty())
      reasons += fmt::format("; {}: {}", device.name, reason);
    else if (!found || rank(device) < rank(*found))
      found = &device;
  }
  if (!found)
    return Status(Code::kUnsupported, "vulkan: expects a usable device, got none" + reasons);
  return *found;
}

} // namespace

Result<Capabilities> select_device(std::span<const Capabilities> devices, std::string_view selector) {
  if (selector.empty())
    return best(devices);
  const std::string wanted = lower(selector), digits = without_dashes(wanted);
  std::vector<const Capabilities *> found;
  if (wanted.size() < 10 && std::all_of(wanted.begin(), wanted.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    size_t index = 0;
    for (char digit : wanted)
      index = index * 10 + size_t(digit - '0');
    if (index < devices.size())
      found.push_back(&devices[index]);
  } else {
    for (const Capabilities &device : devices)
      if (without_dashes(device.uuid) == digits || lower(device.name).find(wanted) != std::string::npos)
        found.push_back(&device);
  }
  if (found.empty())
    return Status(Code::kNotFound, fmt::format("vulkan: expects the index, UUID or part of the name of a device among "
                                               "{}; got '{}'",
                                               list(devices), selector));
  if (found.size() > 1)
    return Status(Code::kInvalidArgument, fmt::format("vulkan: expects a selector that names one device, '{}' fits {} "
                                                      "of {}; use an index",
                                                      selector, found.size(), list(devices)));
  if (std::string reason = unusable(*found[0]); !reason.empty())
    return Status(Code::kUnsupported, fmt::format("vulkan: {}: {}", found[0]->name, reason));
  return *found[0];
}

} // namespace freeport::vulkan
