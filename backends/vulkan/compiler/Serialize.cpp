// SPIR-V words and the memory of each kernel's arguments into one FlatBuffer, kernels by name; what a device must offer
// for all of them becomes the executable's conditions.
#include "backends/vulkan/compiler/Pipeline.h"
#include "backends/vulkan/executable_generated.h"

#include "mlir/Dialect/SPIRV/IR/SPIRVOps.h"
#include "mlir/Target/SPIRV/Serialization.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;

namespace freeport::vulkan {

llvm::Expected<Executable> serialize(ModuleOp module, const Profile &profile) {
  flatbuffers::FlatBufferBuilder b;
  auto modules = llvm::to_vector(module.getOps<spirv::ModuleOp>());
  llvm::sort(modules, [](spirv::ModuleOp a, spirv::ModuleOp b) { return a.getName() < b.getName(); });
  std::vector<flatbuffers::Offset<Kernel>> kernels;
  int64_t shared = 0;
  size_t buffers = 0;
  bool arrays = false, matrices = false;
  int64_t invocations = 0;
  for (spirv::ModuleOp kernel : modules) {
    SmallVector<uint32_t, 0> words;
    spirv::SerializationOptions options;
    options.emitSymbolName = false;
    if (failed(spirv::serialize(kernel, words, options)))
      return llvm::createStringError("vulkan: kernel '" + kernel.getName()->str() + "' does not serialise to SPIR-V");
    std::vector<flatbuffers::Offset<Argument>> arguments;
    size_t descriptors = 1;
    for (Attribute attribute : cast<ArrayAttr>(kernel->getAttr("freeport.arguments"))) {
      auto argument = cast<DictionaryAttr>(attribute);
      std::vector<Piece> pieces;
      ArrayRef<int64_t> runs = cast<DenseI64ArrayAttr>(argument.get("pieces"));
      for (; !runs.empty(); runs = runs.drop_front(2))
        pieces.emplace_back(runs[0], runs[1]);
      descriptors += pieces.size();
      arguments.push_back(
          CreateArgument(b, b.CreateVectorOfStructs(pieces), cast<BoolAttr>(argument.get("written")).getValue()));
    }
    buffers = std::max(buffers, descriptors);
    shared = std::max(shared, cast<IntegerAttr>(kernel->getAttr("freeport.shared_bytes")).getInt());
    matrices |= cast<BoolAttr>(kernel->getAttr("freeport.matrices")).getValue();
    invocations = std::max(invocations, cast<IntegerAttr>(kernel->getAttr("freeport.invocations")).getInt());
    arrays |= cast<BoolAttr>(kernel->getAttr("freeport.arrays")).getValue();
    auto name = b.CreateString(kernel.getName()->str());
    auto code = b.CreateVector(words.data(), words.size());
    int64_t scalars = cast<IntegerAttr>(kernel->getAttr("freeport.scalars")).getInt();
    kernels.push_back(CreateKernel(b, name, code, b.CreateVector(arguments), scalars, profile.subgroup));
  }
  FinishModuleBuffer(b, CreateModule(b, b.CreateVector(kernels)));

  Executable executable;
  executable.target = profile.matrixInputs ? "spirv-1.6" : "spirv-1.5";
  executable.version = static_cast<uint32_t>(Version::current);
  executable.conditions = {profile.matrixInputs ? "vulkan1.3" : "vulkan1.2", "storage8"};
  if (profile.storage16)
    executable.conditions.push_back("storage16");
  if (profile.integerDot)
    executable.conditions.push_back("integer_dot");
  if (profile.subgroup)
    executable.conditions.push_back("subgroup" + std::to_string(profile.subgroup));
  if (profile.floatControls)
    executable.conditions.insert(executable.conditions.end(), {"rte32", "preserve32"});
  if (arrays)
    executable.conditions.push_back("array_indexing");
  if (matrices) {
    std::string inputs = std::to_string(profile.matrixInputs);
    executable.conditions.insert(executable.conditions.end(),
                                 {"int8", "memory_model", "cooperative_matrix:16x16x" + inputs});
  }
  executable.conditions.push_back("invocations:" + std::to_string(invocations));
  executable.conditions.push_back("shared:" + std::to_string(shared));
  executable.conditions.push_back("storage_buffers:" + std::to_string(buffers));
  executable.content.assign(reinterpret_cast<const char *>(b.GetBufferPointer()),
                            reinterpret_cast<const char *>(b.GetBufferPointer()) + b.GetSize());
  return executable;
}

} // namespace freeport::vulkan
