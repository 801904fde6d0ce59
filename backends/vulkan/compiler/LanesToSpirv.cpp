// The pass freeport-vulkan-to-spirv: upstream's patterns for arith, scf and func, then a `spirv.module` with the entry
// point, and the marks that portable numerics need: no contraction, and the rounding mode and the sign of zero where
// the profile fixes them.
#include "backends/vulkan/compiler/Pipeline.h"

#include "mlir/Conversion/ArithToSPIRV/ArithToSPIRV.h"
#include "mlir/Conversion/FuncToSPIRV/FuncToSPIRV.h"
#include "mlir/Conversion/SCFToSPIRV/SCFToSPIRV.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SPIRV/IR/SPIRVDialect.h"
#include "mlir/Dialect/SPIRV/IR/SPIRVOps.h"
#include "mlir/Dialect/SPIRV/Transforms/SPIRVConversion.h"

using namespace mlir;

namespace freeport::vulkan {
namespace {

using spirv::Capability;
using spirv::Extension;

spirv::VerCapExtAttr capabilities(MLIRContext *context, const Profile &profile, bool arrays, bool matrices) {
  SmallVector<Capability> list = {Capability::Shader, Capability::StorageBuffer8BitAccess};
  SmallVector<Extension> extensions = {Extension::SPV_KHR_8bit_storage};
  if (profile.storage16) {
    list.push_back(Capability::StorageBuffer16BitAccess);
    extensions.push_back(Extension::SPV_KHR_16bit_storage);
  }
  if (profile.integerDot) {
    list.append({Capability::DotProduct, Capability::DotProductInput4x8BitPacked});
    extensions.push_back(Extension::SPV_KHR_integer_dot_product);
  }
  if (profile.subgroup)
    list.append({Capability::GroupNonUniform, Capability::GroupNonUniformShuffle, Capability::GroupNonUniformBallot});
  if (profile.floatControls) {
    list.append({Capability::RoundingModeRTE, Capability::SignedZeroInfNanPreserve});
    extensions.push_back(Extension::SPV_KHR_float_controls);
  }
  if (arrays)
    list.push_back(Capability::StorageBufferArrayDynamicIndexing);
  if (matrices) {
    list.append({Capability::Int8, Capability::VulkanMemoryModel, Capability::CooperativeMatrixKHR});
    extensions.push_back(Extension::SPV_KHR_cooperative_matrix);
  }
  spirv::Version version = profile.matrixInputs ? spirv::Version::V_1_6 : spirv::Version::V_1_5;
  return spirv::VerCapExtAttr::get(version, list, extensions, context);
}

/// Cooperative matrices come with Vulkan's memory model: there, an access to memory that invocations share says so, and
/// a barrier says that it makes what was written available and visible.
void useVulkanMemoryModel(spirv::ModuleOp module) {
  auto isShared = [](Value pointer) {
    return llvm::is_contained({spirv::StorageClass::Workgroup, spirv::StorageClass::StorageBuffer},
                              cast<spirv::PointerType>(pointer.getType()).getStorageClass());
  };
  auto shared = spirv::MemoryAccessAttr::get(module.getContext(), spirv::MemoryAccess::NonPrivatePointer);
  module.walk([&](Operation *op) {
    if (auto load = dyn_cast<spirv::LoadOp>(op); load && isShared(load.getPtr()))
      load.setMemoryAccessAttr(shared);
    else if (auto store = dyn_cast<spirv::StoreOp>(op); store && isShared(store.getPtr()))
      store.setMemoryAccessAttr(shared);
    else if (auto load = dyn_cast<spirv::KHRCooperativeMatrixLoadOp>(op))
      load.setMemoryOperandAttr(shared);
    else if (auto store = dyn_cast<spirv::KHRCooperativeMatrixStoreOp>(op))
      store.setMemoryOperandAttr(shared);
    else if (auto barrier = dyn_cast<spirv::ControlBarrierOp>(op))
      barrier.setMemorySemantics(barrier.getMemorySemantics() | spirv::MemorySemantics::MakeAvailable |
                                 spirv::MemorySemantics::MakeVisible);
  });
}

struct ConvertToSpirv : PassWrapper<ConvertToSpirv, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(ConvertToSpirv)
  StringRef getArgument() const override { return "freeport-vulkan-to-spirv"; }
  StringRef getDescription() const override { return "Convert the modules of lowered kernels to spirv.module"; }
  void getDependentDialects(DialectRegistry &registry) const override { registry.insert<spirv::SPIRVDialect>(); }

  void runOnOperation() override {
    for (auto kernel : llvm::make_early_inc_range(getOperation().getOps<ModuleOp>()))
      if (kernel->hasAttr("freeport.profile") && failed(convert(kernel)))
        return signalPassFailure();
  }

  LogicalResult convert(ModuleOp kernel) {
    MLIRContext *context = &getContext();
    Profile profile = *findProfile(cast<StringAttr>(kernel->getAttr("freeport.profile")));
    profile.subgroup = cast<IntegerAttr>(kernel->getAttr("freeport.subgroup")).getInt();
    bool arrays = llvm::any_of(kernel.getOps<spirv::GlobalVariableOp>(), [](spirv::GlobalVariableOp variable) {
      auto pointer = cast<spirv::PointerType>(variable.getType());
      return pointer.getStorageClass() == spirv::StorageClass::StorageBuffer &&
             isa<spirv::ArrayType>(pointer.getPointeeType());
    });
    bool matrices =
        kernel.walk([](spirv::KHRCooperativeMatrixMulAddOp) { return WalkResult::interrupt(); }).wasInterrupted();
    spirv::VerCapExtAttr needs = capabilities(context, profile, arrays, matrices);
    auto environment = spirv::TargetEnvAttr::get(needs, spirv::getDefaultResourceLimits(context),
                                                 spirv::ClientAPI::Vulkan, spirv::Vendor::Unknown,
                                                 spirv::DeviceType::Unknown, spirv::TargetEnvAttr::kUnknownDeviceID);
    SPIRVTypeConverter types(environment);
    ScfToSPIRVContext loops;
    RewritePatternSet patterns(context);
    arith::populateArithToSPIRVPatterns(types, patterns);
    populateFuncToSPIRVPatterns(types, patterns);
    populateBuiltinFuncToSPIRVPatterns(types, patterns);
    populateSCFToSPIRVPatterns(types, loops, patterns);
    ConversionTarget target(*context);
    target.addLegalDialect<spirv::SPIRVDialect>();
    target.addIllegalDialect<arith::ArithDialect, func::FuncDialect, scf::SCFDialect>();
    if (failed(applyPartialConversion(kernel, target, std::move(patterns))))
      return failure();

    OpBuilder builder(kernel);
    Location location = kernel.getLoc();
    auto module = builder.create<spirv::ModuleOp>(location, spirv::AddressingModel::Logical,
                                                  matrices ? spirv::MemoryModel::Vulkan : spirv::MemoryModel::GLSL450,
                                                  needs, kernel.getName());
    for (NamedAttribute attribute : kernel->getDiscardableAttrs())
      module->setAttr(attribute.getName(), attribute.getValue());
    module->removeAttr("freeport.interface");
    module->setAttr("freeport.arrays", builder.getBoolAttr(arrays));
    module->setAttr("freeport.matrices", builder.getBoolAttr(matrices));
    Block *body = module.getBody();
    for (Operation &op : llvm::make_early_inc_range(*kernel.getBody()))
      op.moveBefore(body, body->end());
    builder.setInsertionPointToEnd(body);
    auto main = module.lookupSymbol<spirv::FuncOp>("main");
    auto interface = llvm::to_vector(cast<ArrayAttr>(kernel->getAttr("freeport.interface")).getValue());
    builder.create<spirv::EntryPointOp>(location, spirv::ExecutionModel::GLCompute, main, interface);
    auto invocations = static_cast<int32_t>(cast<IntegerAttr>(kernel->getAttr("freeport.invocations")).getInt());
    builder.create<spirv::ExecutionModeOp>(location, main, spirv::ExecutionMode::LocalSize,
                                           ArrayRef<int32_t>{32, invocations / 32, 1});
    if (profile.floatControls)
      for (auto mode : {spirv::ExecutionMode::RoundingModeRTE, spirv::ExecutionMode::SignedZeroInfNanPreserve})
        builder.create<spirv::ExecutionModeOp>(location, main, mode, ArrayRef<int32_t>{32});
    module.walk([&](Operation *op) {
      if (isa<spirv::FAddOp, spirv::FSubOp, spirv::FMulOp>(op))
        op->setAttr("no_contraction", builder.getUnitAttr());
    });
    if (matrices)
      useVulkanMemoryModel(module);
    kernel.erase();
    return success();
  }
};

} // namespace

std::unique_ptr<Pass> createConvertToSpirvPass() { return std::make_unique<ConvertToSpirv>(); }

} // namespace freeport::vulkan
