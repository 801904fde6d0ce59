// `freeport devices`: what this machine can run models on, and for what it cannot use, why.
#include "runtime/cli/verbs.h"
#include "runtime/registry.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace freeport::cli {
namespace {

using nlohmann::json;

struct Device {
  std::string backend, selector; ///< selector: what --device takes; "" for what cannot be opened
  fp_device_description description;
};

std::vector<Device> all_devices() {
  std::vector<Device> devices;
  for (const fp_device_api *api : device_apis()) {
    const size_t first = devices.size();
    fp_device_description description = {};
    for (uint32_t index = 0; api->enumerate(index, &description, nullptr) == 0; ++index)
      devices.push_back({api->name, fmt::format("{}:{}", api->name, index), description});
    // The host's devices take no selector.
    if (devices.size() == first + 1 && description.host_memory && *description.uuid == 0)
      devices[first].selector = api->name;
    for (size_t i = first; i < devices.size(); ++i)
      if (*devices[i].description.reason)
        devices[i].selector.clear();
  }
  return devices;
}

json describe(const Device &device) {
  const fp_device_description &from = device.description;
  auto text = [](const char *value) { return *value ? json(value) : json(nullptr); };
  return {{"backend", device.backend},
          {"device", device.selector.empty() ? json(nullptr) : json(device.selector)},
          {"name", text(from.name)},
          {"driver", text(from.driver)},
          {"api_version", text(from.api_version)},
          {"uuid", text(from.uuid)},
          {"memory_bytes", from.memory_bytes},
          {"usable", *from.reason == 0},
          {"reason", text(from.reason)}};
}

void print_table(const std::vector<Device> &devices) {
  std::vector<std::vector<std::string>> rows = {{"backend", "--device", "name", "memory", "driver"}};
  for (const Device &device : devices) {
    const fp_device_description &from = device.description;
    auto text = [](const std::string &value) { return value.empty() ? std::string("-") : value; };
    rows.push_back({device.backend, text(device.selector), text(from.name),
                    from.memory_bytes ? fmt::format("{:.1f} GB", double(from.memory_bytes) / 1e9) : "-",
                    *from.reason ? fmt::format("cannot be used: {}", from.reason)
                                 : text(fmt::format("{}{}{}", from.driver, *from.api_version ? ", version " : "",
                                                    from.api_version))});
  }
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const std::vector<std::string> &row : rows)
    for (size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  for (const std::vector<std::string> &row : rows) {
    for (size_t column = 0; column + 1 < row.size(); ++column)
      fmt::print("{:<{}}  ", row[column], widths[column]);
    fmt::print("{}\n", row.back());
  }
}

} // namespace

void add_devices(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("devices", "List what this machine can run models on");
  auto as_json = std::make_shared<bool>(false);
  verb->add_flag("--json", *as_json, "As one JSON array");
  verb->footer("Example:  freeport run model.port --device vulkan:0");
  verb->callback([as_json, &action] {
    action = [as_json] {
      const std::vector<Device> devices = all_devices();
      if (!*as_json) {
        print_table(devices);
        return 0;
      }
      json list = json::array();
      for (const Device &device : devices)
        list.push_back(describe(device));
      fmt::print("{}\n", list.dump(2, ' ', false, json::error_handler_t::replace));
      return 0;
    };
  });
}

} // namespace freeport::cli
