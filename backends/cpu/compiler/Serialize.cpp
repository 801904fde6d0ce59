// From the LLVM dialect to an ELF shared object. Each kernel is optimised lightly and compiled on its own, in parallel:
// generic -O3 reassociates the integer sums of span_dot and its scheduler spills accumulators, which costs up to a
// fifth.
#include "backends/cpu/compiler/Pipeline.h"
#include "compiler/lowering/RunPasses.h"

#include "lld/Common/Driver.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Bitcode/BitcodeWriter.h"
#include "llvm/CodeGen/MachineModuleInfo.h"
#include "llvm/CodeGen/Passes.h"
#include "llvm/CodeGen/TargetPassConfig.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <shared_mutex>
#include <xxhash.h>

LLD_HAS_DRIVER(elf)

using namespace llvm;

namespace freeport::cpu {
namespace {

constexpr const char *kPasses =
    "function(sroa,early-cse,instsimplify,loop-mssa(licm),simplifycfg,loop(loop-reduce),early-cse)";

const char *triple(Architecture architecture) {
  return architecture == Architecture::x86_64 ? "x86_64-unknown-linux-gnu" : "aarch64-unknown-linux-gnu";
}

/// One kernel on its way; the context is its own, so that kernels compile in parallel.
struct Unit {
  LLVMContext context;
  std::unique_ptr<Module> module;
  SmallString<0> object;
  std::string failure;
};

/// The profile's features where the module calls for them, else none: kernels without dot products of bytes are the
/// same for every profile of one processor.
StringRef neededFeatures(const Module &module, const Profile &profile) {
  for (const Function &function : module)
    for (StringRef name : {"llvm.x86.avx512.vpdpbusd", "llvm.aarch64.neon.sdot", "llvm.aarch64.neon.smmla"})
      if (function.getName().starts_with(name))
        return profile.features;
  return "";
}

/// Held alone by lld, which registers targets and resets options of LLVM, and together by code generation, which reads
/// them.
std::shared_mutex llvmGlobals;

/// Objects by what they were compiled from: a profile takes the kernels that another one finished before. Holds those
/// of about one model.
class ObjectCache {
public:
  std::string key(const Module &module, const Profile &profile, StringRef features, bool fast) {
    SmallString<0> bitcode;
    raw_svector_ostream stream(bitcode);
    WriteBitcodeToFile(module, stream);
    XXH128_hash_t hash = XXH3_128bits(bitcode.data(), bitcode.size());
    return (Twine(triple(profile.architecture)) + " " + profile.processor + " " + features + (fast ? " fast " : " ") +
            Twine(hash.high64) + " " + Twine(hash.low64))
        .str();
  }
  bool find(const std::string &key, SmallVectorImpl<char> &object) {
    std::lock_guard lock(mutex);
    auto known = objects.find(key);
    if (known == objects.end())
      return false;
    object.assign(known->second.begin(), known->second.end());
    return true;
  }
  void add(const std::string &key, ArrayRef<char> object) {
    std::lock_guard lock(mutex);
    if (bytes > kBytes) {
      objects.clear();
      bytes = 0;
    }
    bytes += object.size();
    objects[key] = object.vec();
  }

private:
  static constexpr size_t kBytes = 16 << 20;
  std::mutex mutex;
  StringMap<std::vector<char>> objects;
  size_t bytes = 0;
};

std::unique_ptr<LLVMTargetMachine> createMachine(const Profile &profile, StringRef features, bool fast,
                                                 std::string &failure) {
  static const bool initialized = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
    return true;
  }();
  (void)initialized;
  const Target *target = TargetRegistry::lookupTarget(triple(profile.architecture), failure);
  if (!target)
    return nullptr;
  TargetOptions options;
  // In portable numerics, multiply and add round separately.
  options.AllowFPOpFusion = fast ? FPOpFusion::Fast : FPOpFusion::Strict;
  return std::unique_ptr<LLVMTargetMachine>(static_cast<LLVMTargetMachine *>(
      target->createTargetMachine(triple(profile.architecture), profile.processor, features, options, Reloc::PIC_,
                                  std::nullopt, CodeGenOptLevel::Aggressive)));
}

void optimize(Module &module, LLVMTargetMachine &machine) {
  PassBuilder builder(&machine);
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager callGraph;
  ModuleAnalysisManager modules;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(callGraph);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, callGraph, modules);
  ModulePassManager passes;
  cantFail(builder.parsePassPipeline(passes, kPasses));
  passes.run(module, modules);
}

/// As LLVMTargetMachine::addPassesToEmitFile, but without the machine scheduler.
bool emitObject(Module &module, LLVMTargetMachine &machine, SmallVectorImpl<char> &object) {
  legacy::PassManager passes;
  raw_svector_ostream stream(object);
  auto *information = new MachineModuleInfoWrapperPass(&machine);
  TargetPassConfig *config = machine.createPassConfig(passes);
  config->disablePass(&MachineSchedulerID);
  passes.add(config);
  passes.add(information);
  if (config->addISelPasses())
    return false;
  config->addMachinePasses();
  config->setInitialized();
  if (machine.addAsmPrinter(passes, stream, nullptr, CodeGenFileType::ObjectFile, information->getMMI().getContext()))
    return false;
  passes.add(createFreeMachineFunctionPass());
  passes.run(module);
  return true;
}

void compile(Unit &unit, const Profile &profile, bool fast) {
  static ObjectCache cache;
  StringRef features = neededFeatures(*unit.module, profile);
  const std::string key = cache.key(*unit.module, profile, features, fast);
  if (cache.find(key, unit.object))
    return;
  std::shared_lock lock(llvmGlobals);
  std::unique_ptr<LLVMTargetMachine> machine = createMachine(profile, features, fast, unit.failure);
  if (!machine)
    return;
  unit.module->setTargetTriple(triple(profile.architecture));
  unit.module->setDataLayout(machine->createDataLayout());
  for (Function &function : *unit.module)
    if (!function.isDeclaration()) {
      function.addFnAttr("target-cpu", profile.processor);
      if (!features.empty())
        function.addFnAttr("target-features", features);
      function.setDoesNotThrow();
    }
  optimize(*unit.module, *machine);
  if (!emitObject(*unit.module, *machine, unit.object))
    unit.failure = "LLVM cannot emit object files for this target";
  else
    cache.add(key, unit.object);
}

Expected<SmallString<128>> writeTemporary(StringRef content, StringRef suffix) {
  // lld reads and writes files only; /dev/shm keeps them off the disk.
  SmallString<128> folder("/dev/shm");
  if (!sys::fs::can_write(folder))
    sys::path::system_temp_directory(/*ErasedOnReboot=*/true, folder);
  SmallString<128> path;
  int file;
  if (std::error_code code = sys::fs::createUniqueFile(folder + "/freeport-%%%%%%%%%%%%." + suffix, file, path))
    return createStringError(folder + ": " + code.message());
  raw_fd_ostream stream(file, /*shouldClose=*/true);
  stream << content;
  stream.close();
  if (stream.has_error()) {
    std::error_code code = stream.error();
    stream.clear_error();
    sys::fs::remove(path);
    return createStringError(path + ": " + code.message());
  }
  return path;
}

/// Links the kernels' objects, in order, to one shared object.
Expected<std::vector<char>> link(ArrayRef<std::unique_ptr<Unit>> units) {
  std::vector<SmallString<128>> files;
  auto cleanUp = make_scope_exit([&] {
    for (StringRef file : files)
      sys::fs::remove(file);
  });
  auto output = writeTemporary("", "so");
  if (!output)
    return output.takeError();
  files.push_back(*output);
  for (const std::unique_ptr<Unit> &unit : units) {
    auto object = writeTemporary(unit->object, "o");
    if (!object)
      return object.takeError();
    files.push_back(*object);
  }
  std::vector<const char *> arguments = {"ld.lld",      "-shared", "--no-undefined", "--strip-all", "--build-id=none",
                                         "--threads=1", "-o"};
  for (SmallString<128> &file : files)
    arguments.push_back(file.c_str());
  std::string messages;
  raw_string_ostream stream(messages);
  {
    std::lock_guard lock(llvmGlobals); // of lld's own globals too
    CrashRecovery recovery;            // without it lld ends the process on an error that it cannot go on from
    lld::Result result = lld::lldMain(arguments, stream, stream, {{lld::Gnu, &lld::elf::link}});
    if (result.retCode)
      return createStringError("cpu: linking failed: " + messages);
  }
  auto content =
      MemoryBuffer::getFile(files[0], /*IsText=*/false, /*RequiresNullTerminator=*/false, /*IsVolatile=*/true);
  if (!content)
    return createStringError(files[0] + ": " + content.getError().message());
  return std::vector<char>((*content)->getBufferStart(), (*content)->getBufferEnd());
}

} // namespace

Expected<Executable> serialize(mlir::ModuleOp module, const Profile &profile) {
  mlir::registerBuiltinDialectTranslation(*module.getContext());
  mlir::registerLLVMDialectTranslation(*module.getContext());
  const bool fast = module->hasAttr(kFastNumerics);
  std::vector<std::unique_ptr<Unit>> units;
  for (auto function : module.getOps<mlir::LLVM::LLVMFuncOp>()) {
    auto unit = std::make_unique<Unit>();
    mlir::OwningOpRef<mlir::ModuleOp> single = mlir::ModuleOp::create(function.getLoc());
    for (auto variable : module.getOps<mlir::LLVM::GlobalOp>())
      single->push_back(variable->clone());
    single->push_back(function->clone());
    unit->module = mlir::translateModuleToLLVMIR(*single, unit->context, function.getName());
    if (!unit->module)
      return createStringError("cpu: internal error: no LLVM IR for kernel " + function.getName());
    units.push_back(std::move(unit));
  }
  // Who waits here takes kernels of this module only, not another target's whole work.
  tbb::this_task_arena::isolate([&] {
    tbb::parallel_for(size_t(0), units.size(), [&](size_t number) { compile(*units[number], profile, fast); });
  });
  for (const std::unique_ptr<Unit> &unit : units)
    if (!unit->failure.empty())
      return createStringError("cpu: " + unit->module->getName() + ": " + unit->failure);
  auto content = link(units);
  if (!content)
    return content.takeError();
  std::vector<std::string> conditions;
  for (StringRef condition : profile.conditions)
    conditions.push_back(condition.str());
  return Executable{profile.name.str(), std::move(conditions), /*version=*/1, std::move(*content)};
}

} // namespace freeport::cpu
