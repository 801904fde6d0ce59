// One dispatch from kernel dialect to memory and back, over the two contracts of a backend and nothing else.
#include "test/conformance/RunKernel.h"

#include "runtime/package_generated.h"
#include "runtime/registry.h"

#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/raw_ostream.h"

namespace freeport {
namespace {

/// One open device of each backend, for the life of the process: opening one can take longer than a test.
class Devices {
public:
  ~Devices() {
    for (auto &[api, device] : open)
      if (device)
        api->close(device);
  }
  /// Null where it cannot be opened; `error` says why.
  fp_device *find(const fp_device_api *api, fp_error &error) {
    auto [known, fresh] = open.try_emplace(api, nullptr);
    fp_device_options options = {"", 1, 0};
    if (fresh && api->open(&options, &known->second, &error))
      known->second = nullptr;
    return known->second;
  }

private:
  llvm::DenseMap<const fp_device_api *, fp_device *> open;
};

bool skip(const std::string &why) {
  static llvm::StringSet<> said;
  if (said.insert(why).second)
    llvm::errs() << "not run: " << why << "\n";
  return false;
}

} // namespace

llvm::Expected<bool> runKernel(const Backend &backend, llvm::StringRef profile, mlir::ModuleOp module,
                               llvm::StringRef kernelName, std::vector<std::vector<char>> &buffers,
                               llvm::ArrayRef<int64_t> scalars, std::array<int64_t, 3> grid) {
  static Devices devices;
  if (llvm::Error error = backend.supports(mlir::SymbolTable::lookupSymbolIn(module, kernelName)))
    return std::move(error);
  mlir::OwningOpRef<mlir::ModuleOp> copy = module.clone();
  mlir::PassManager passes(copy->getContext());
  backend.buildPipeline(passes, profile);
  if (failed(passes.run(*copy)))
    return llvm::createStringError("expects the pipeline of " + backend.name().str() + " to succeed");
  llvm::Expected<Executable> executable = backend.serialize(*copy, profile);
  if (!executable)
    return executable.takeError();

  const fp_device_api *api = find_device_api(backend.name().str());
  if (!api)
    return llvm::createStringError("expects a device called " + backend.name().str());
  fp_error error = {};
  auto failure = [&](const char *stage) {
    return llvm::createStringError(backend.name().str() + ": " + stage + ": " + error.message);
  };
  std::vector<const char *> conditions;
  for (const std::string &condition : executable->conditions)
    conditions.push_back(condition.c_str());
  fp_device *device = devices.find(api, error);
  if (!device)
    return skip(backend.name().str() + ": " + error.message);
  if (const char *reason = api->rejects(device, executable->target.c_str(), conditions.data(), conditions.size()))
    return skip((backend.name() + " " + profile + ": ").str() + reason);
  std::vector<fp_memory *> memories;
  fp_executable *loaded = nullptr;
  fp_recording *recording = nullptr;
  auto cleanUp = llvm::make_scope_exit([&] {
    if (recording)
      api->erase(device, recording);
    if (loaded)
      api->unload(device, loaded);
    for (fp_memory *memory : memories)
      api->release(device, memory);
  });

  std::vector<fp_binding> bindings;
  for (std::vector<char> &buffer : buffers) {
    fp_memory *memory = nullptr;
    if (api->allocate(device, buffer.size(), &memory, &error))
      return failure("allocate");
    memories.push_back(memory);
    if (api->write(device, memory, 0, buffer.data(), buffer.size(), &error))
      return failure("write");
    bindings.push_back({memory, 0, {nullptr, 0}, {nullptr, 0}});
  }
  std::string name = kernelName.str();
  const char *names[] = {name.c_str()};
  if (api->load(device, executable->content.data(), executable->content.size(), executable->version, names, 1, &loaded,
                &error))
    return failure("load");

  auto constant = [](int64_t value) {
    return fp_size_instruction{static_cast<int32_t>(package::SizeOpcode::constant), value};
  };
  std::vector<fp_size_instruction> code;
  for (int64_t value : scalars)
    code.push_back(constant(value));
  for (int64_t value : grid)
    code.push_back(constant(value));
  std::vector<fp_size> sizes;
  for (const fp_size_instruction &each : code)
    sizes.push_back({&each, 1});
  fp_command command = {};
  command.kind = FP_COMMAND_DISPATCH;
  std::copy_n(sizes.end() - 3, 3, command.grid);
  command.bindings = bindings.data();
  command.binding_count = bindings.size();
  command.scalars = sizes.data();
  command.scalar_count = scalars.size();
  if (api->record(device, loaded, &command, 1, &recording, &error))
    return failure("record");
  if (api->replay(device, recording, nullptr, 0, &error))
    return failure("replay");
  for (size_t i = 0; i < buffers.size(); ++i)
    if (api->read(device, buffers[i].data(), memories[i], 0, buffers[i].size(), &error))
      return failure("read");
  return true;
}

} // namespace freeport
