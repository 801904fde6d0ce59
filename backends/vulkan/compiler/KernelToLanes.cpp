// The pass freeport-vulkan-lower-kernel. A program's 32 lanes become 32 invocations: a lane vector is one value of
// each, a uniform value is the same in all. Each kernel becomes a module of its own, with its variables and a function
// `main` in arith and scf, which LanesToSpirv.cpp converts.
#include "backends/vulkan/compiler/Hazards.h"
#include "backends/vulkan/compiler/KernelLowering.h"
#include "backends/vulkan/compiler/Pipeline.h"

#include "mlir/Dialect/SPIRV/IR/SPIRVDialect.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;

namespace freeport::vulkan {

using namespace kernel;

//===----------------------------------------------------------------------===//
// Memory operands
//===----------------------------------------------------------------------===//

/// Bytes that a binding may show: the profile's range less what its alignment may cost, in whole 256 bytes.
int64_t usableRange(const Profile &profile) { return std::min<int64_t>(profile.range, INT32_MAX) / 256 * 256 - 256; }

LogicalResult KernelLowering::layOut() {
  auto pieces = builder.getContext();
  SmallVector<Attribute> arguments;
  unsigned count = function.getNumMemoryArguments();
  for (unsigned number = 0; number < count; ++number) {
    Value argument = function.getArgument(number);
    Memory &memory = memories[argument];
    memory.name = "argument" + std::to_string(number);
    memory.binding = 1 + number;
    SmallVector<int64_t> runs = {0, 0}; // offset and bytes of each piece; 0: to the end
    if (auto type = dyn_cast<WeightsType>(argument.getType())) {
      // A unit, an entry of a bank or a row block, lies in one piece; four of them are a multiple of 256 bytes. A bank
      // of unknown size is one piece, as a buffer is.
      bool bank = type.isBank();
      int64_t units = bank ? type.getEntries() : type.getRowBlocks();
      int64_t unitBytes = bank ? type.getEntryStride() : type.getGroups() * type.getRecordBytes();
      int64_t lastBytes = bank ? type.getEntryBytes() : unitBytes, range = usableRange(m.profile);
      int64_t perPiece = range / unitBytes / 4 * 4;
      if (type.hasDynamicEntries() || (units - 1) * unitBytes + lastBytes <= range)
        perPiece = units;
      else if (perPiece == 0)
        return function.emitOpError("expects units of weights of at most ") << range / 4 << " bytes, got " << unitBytes;
      if (!type.hasDynamicEntries())
        runs.clear();
      for (int64_t first = 0; first < units; first += perPiece) {
        int64_t last = std::min(first + perPiece, units);
        runs.append({first * unitBytes, (last - first - 1) * unitBytes + (last == units ? lastBytes : unitBytes)});
      }
      memory.pieces = runs.size() / 2;
      weights.try_emplace(argument, PackedWeights{type, memory, perPiece});
    }
    arguments.push_back(DictionaryAttr::get(
        pieces, {builder.getNamedAttr("pieces", builder.getDenseI64ArrayAttr(runs)),
                 builder.getNamedAttr("written", builder.getBoolAttr(function.writesArgument(number)))}));
  }
  target->setAttr("freeport.arguments", builder.getArrayAttr(arguments));
  target->setAttr("freeport.scalars", builder.getI64IntegerAttr(function.getNumArguments() - count));

  // Local memory, a word an element. What is only staged can be read where it came from.
  int64_t bytes = 0;
  SmallVector<std::pair<int64_t, LocalOp>> stageable;
  for (auto local : function.getBody().front().getOps<LocalOp>()) {
    Memory &memory = memories[local.getBuffer()];
    memory.local = true;
    memory.name = "local" + std::to_string(memories.size());
    memory.localElements = local.getElements();
    bytes += 4 * memory.localElements;
    SmallVector<StageOp> stages;
    bool other = false;
    for (Operation *user : local.getBuffer().getUsers()) {
      if (auto stage = dyn_cast<StageOp>(user))
        stages.push_back(stage);
      else if (!isa<LoadOp, LoadLanesOp, GatherOp>(user))
        other = true;
    }
    bool inside = stages.size() == 1 && llvm::all_of(local.getBuffer().getUsers(), [&](Operation *user) {
                    return user == stages.front() || stages.front()->getBlock()->findAncestorOpInBlock(*user);
                  });
    if (inside && !other)
      stageable.push_back({4 * memory.localElements, local});
  }
  bool exchanges =
      function.getBody()
          .walk([&](Operation *op) { return sharesLanes(op) ? WalkResult::interrupt() : WalkResult::advance(); })
          .wasInterrupted();
  if (exchanges)
    bytes += 4 * kScratchWords;
  scratch.local = true;
  scratch.name = "scratch";
  scratch.localElements = kScratchWords;
  if (function
          .walk([&](SpanDotOp dot) {
            return usesMatrices(m.profile, dot) ? WalkResult::interrupt() : WalkResult::advance();
          })
          .wasInterrupted())
    matrices = {.name = "matrices", .local = true, .localElements = kMatrixWords};
  waves = parallelWaves();
  if (waves > 1)
    spanSums = {.name = "span_sums", .local = true, .localElements = parallelSpanWords()};
  bytes += 4 * (matrices.localElements + spanSums.localElements);
  llvm::sort(stageable, [](auto &a, auto &b) { return a.first > b.first; });
  for (auto &[size, local] : stageable) {
    if (bytes <= m.profile.sharedBytes)
      break;
    bytes -= size;
    for (Operation *user : local.getBuffer().getUsers())
      if (auto stage = dyn_cast<StageOp>(user))
        virtualStages[local.getBuffer()] = stage;
  }
  if (bytes > m.profile.sharedBytes)
    return function.emitOpError("expects at most ")
           << m.profile.sharedBytes << " bytes of shared memory, got " << bytes;
  target->setAttr("freeport.shared_bytes", builder.getI64IntegerAttr(bytes));
  target->setAttr("freeport.invocations", builder.getI64IntegerAttr(kQuantum * waves));
  return success();
}

LogicalResult KernelLowering::run() {
  builder.setInsertionPointToEnd(target.getBody());
  auto main = builder.create<func::FuncOp>(function.getLoc(), "main", builder.getFunctionType({}, {}));
  builder.setInsertionPointToStart(main.addEntryBlock());
  if (failed(layOut()))
    return failure();
  m.enter(waves);
  unsigned count = function.getNumMemoryArguments();
  for (unsigned number = 0; number < function.getNumArguments(); ++number) {
    Value word = m.parameter(3 + number);
    if (number < count)
      memories[function.getArgument(number)].byteOffset = word;
    else
      set(function.getArgument(number), word);
  }
  barriers = findBarriers(
      function, [&](Operation *op) { return sharesLanes(op); },
      [&](Value root) { return virtualStages.contains(root); });
  lowerBlock(function.getBody().front());
  m.create<func::ReturnOp>();
  if (!supported)
    return failure();
  SmallVector<Attribute> interface;
  for (spirv::GlobalVariableOp variable : m.variables)
    interface.push_back(FlatSymbolRefAttr::get(variable));
  target->setAttr("freeport.interface", builder.getArrayAttr(interface));
  return success();
}

void KernelLowering::lowerBlock(Block &block) {
  for (Operation &op : block) {
    if (op.hasTrait<OpTrait::IsTerminator>())
      return;
    m.location = op.getLoc();
    if (barriers.contains(&op))
      m.barrier();
    lower(op);
  }
}

void KernelLowering::lower(Operation &op) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return lowerFor(loop);
  if (auto condition = dyn_cast<scf::IfOp>(op))
    return lowerIf(condition);
  if (auto constant = dyn_cast<arith::ConstantOp>(op))
    return lowerConstant(constant);
  if (waves > 1 && isa<StoreOp, StoreLanesOp, ScatterOp, StoreGroupOp>(op)) {
    m.when(m.equal(m.wave(), m.i32(0)), [&] { lowerMemory(op); });
    return;
  }
  if (lowerShape(op) || lowerMemory(op) || lowerLanes(op) || lowerArithmetic(op))
    return;
  op.emitOpError("has no lowering to SPIR-V");
  supported = false;
  for (Value result : op.getResults())
    known[result].assign(countOf(result.getType()), m.i32(0));
}

//===----------------------------------------------------------------------===//
// Control and shape
//===----------------------------------------------------------------------===//

SmallVector<Value> KernelLowering::startOf(Value initial) {
  SmallVector<Value> start = values(initial);
  if (matchPattern(initial, m_PosZeroFloat()) && getElementTypeOrSelf(initial.getType()).isF32())
    start.assign(start.size(), m.zero());
  return start;
}

void KernelLowering::lowerFor(scf::ForOp op) {
  if (lowerParallelSpans(op))
    return;
  SmallVector<Value> initial;
  for (Value value : op.getInitArgs())
    initial.append(startOf(value));
  auto assign = [&](ValueRange targets, ValueRange flat) {
    for (Value target : targets) {
      unsigned count = countOf(target.getType());
      known[target].assign(flat.begin(), flat.begin() + count);
      flat = flat.drop_front(count);
    }
  };
  SmallVector<Value> results = m.loop(scalar(op.getLowerBound()), scalar(op.getUpperBound()), scalar(op.getStep()),
                                      initial, [&](Value induction, ValueRange carried) {
                                        set(op.getInductionVar(), induction);
                                        assign(op.getRegionIterArgs(), carried);
                                        lowerBlock(*op.getBody());
                                        SmallVector<Value> next;
                                        for (Value value : op.getBody()->getTerminator()->getOperands())
                                          next.append(values(value));
                                        return next;
                                      });
  assign(op.getResults(), results);
}

void KernelLowering::lowerIf(scf::IfOp op) {
  SmallVector<Type> types;
  for (Type type : op.getResultTypes())
    types.append(countOf(type), heldAs(type));
  auto region = [&](Block *block) {
    SmallVector<Value> results;
    if (!block)
      return results;
    lowerBlock(*block);
    for (Value value : block->getTerminator()->getOperands())
      results.append(values(value));
    return results;
  };
  SmallVector<Value> flat = m.branch(
      scalar(op.getCondition()), types, [&] { return region(op.thenBlock()); }, [&] { return region(op.elseBlock()); });
  ValueRange rest = flat;
  for (Value result : op.getResults()) {
    unsigned count = countOf(result.getType());
    known[result].assign(rest.begin(), rest.begin() + count);
    rest = rest.drop_front(count);
  }
}

void KernelLowering::lowerConstant(arith::ConstantOp op) {
  auto single = [&](Attribute attribute) -> Value {
    if (auto number = dyn_cast<FloatAttr>(attribute)) {
      uint32_t bits = number.getValue().bitcastToAPInt().getZExtValue();
      return number.getType().isF32() ? m.f32Bits(bits) : m.i32(bits);
    }
    auto number = cast<IntegerAttr>(attribute);
    if (number.getType().isInteger(1))
      return m.truth(number.getValue().getBoolValue());
    return m.i32(number.getValue().getSExtValue());
  };
  auto dense = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!dense) {
    set(op.getResult(), single(op.getValue()));
    return;
  }
  if (dense.isSplat()) {
    known[op.getResult()].assign(countOf(op.getType()), single(dense.getSplatValue<Attribute>()));
    return;
  }
  SmallVector<Value> &result = known[op.getResult()];
  auto elements = llvm::to_vector(dense.getValues<Attribute>());
  for (size_t first = 0; first < elements.size(); first += kQuantum) {
    Value value = single(elements[first]);
    for (int64_t lane = 1; lane < kQuantum; ++lane)
      value = m.select(m.equal(m.lane(), m.i32(lane)), single(elements[first + lane]), value);
    result.push_back(value);
  }
}

/// vector.broadcast, extract and insert: which values a vector consists of.
bool KernelLowering::lowerShape(Operation &op) {
  if (auto broadcast = dyn_cast<vector::BroadcastOp>(op)) {
    SmallVector<Value> source = values(broadcast.getSource()), result;
    unsigned count = countOf(broadcast.getResult().getType());
    for (unsigned number = 0; number < count; ++number)
      result.push_back(source[number % source.size()]);
    known[broadcast.getResult()] = result;
    return true;
  }
  // Where a static position begins among the lane vectors of a type, or -1 for one inside a lane vector.
  auto placeOf = [&](VectorType type, ArrayRef<int64_t> position) -> int64_t {
    if (position.size() >= static_cast<size_t>(type.getRank()))
      return -1;
    int64_t place = 0;
    for (int64_t dimension = 0; dimension + 1 < type.getRank(); ++dimension)
      place = place * type.getDimSize(dimension) +
              (dimension < static_cast<int64_t>(position.size()) ? position[dimension] : 0);
    return place;
  };
  if (auto extract = dyn_cast<vector::ExtractOp>(op)) {
    int64_t place =
        extract.hasDynamicPosition() ? -1 : placeOf(extract.getSourceVectorType(), extract.getStaticPosition());
    if (place < 0)
      return false;
    SmallVector<Value> source = values(extract.getVector());
    known[extract.getResult()] = llvm::to_vector(ArrayRef(source).slice(place, countOf(extract.getResult().getType())));
    return true;
  }
  if (auto insert = dyn_cast<vector::InsertOp>(op)) {
    int64_t place = insert.hasDynamicPosition() ? -1 : placeOf(insert.getDestVectorType(), insert.getStaticPosition());
    if (place < 0)
      return false;
    SmallVector<Value> result = values(insert.getDest()), part = values(insert.getSource());
    llvm::copy(part, result.begin() + place);
    known[insert.getResult()] = result;
    return true;
  }
  return false;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {

struct LowerKernel : PassWrapper<LowerKernel, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerKernel)
  LowerKernel() = default;
  LowerKernel(const LowerKernel &other) : PassWrapper(other) {}
  explicit LowerKernel(StringRef name, int64_t size) {
    profile = name.str();
    subgroup = size;
  }
  StringRef getArgument() const override { return "freeport-vulkan-lower-kernel"; }
  StringRef getDescription() const override { return "Lower kernels to one invocation for each lane"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<arith::ArithDialect, func::FuncDialect, scf::SCFDialect, spirv::SPIRVDialect>();
  }
  Option<std::string> profile{*this, "profile", llvm::cl::init("baseline"),
                              llvm::cl::desc("What the device must offer: a name of Profile.cpp")};
  Option<int64_t> subgroup{*this, "subgroup", llvm::cl::init(-1),
                           llvm::cl::desc("Another subgroup size than the profile's")};

  void runOnOperation() override {
    const Profile *named = findProfile(profile);
    if (!named) {
      getOperation().emitError("expects a profile of the vulkan backend, got '") << profile << "'";
      return signalPassFailure();
    }
    Profile chosen = *named;
    if (subgroup >= 0) // a program has 32 invocations: larger subgroups are never full, and not used
      chosen.subgroup = subgroup <= kQuantum ? int64_t(subgroup) : 0;
    for (auto function : llvm::make_early_inc_range(getOperation().getOps<FuncOp>())) {
      OpBuilder builder(function);
      auto target = builder.create<ModuleOp>(function.getLoc(), function.getName());
      target->setAttr("freeport.profile", builder.getStringAttr(chosen.name));
      target->setAttr("freeport.subgroup", builder.getI64IntegerAttr(chosen.subgroup));
      function->remove(); // its name is the module's now
      LogicalResult result = KernelLowering(function, target, chosen).run();
      function->destroy();
      if (failed(result))
        return signalPassFailure();
    }
  }
};

} // namespace

std::unique_ptr<Pass> createLowerKernelPass(StringRef profile, int64_t subgroup) {
  return std::make_unique<LowerKernel>(profile, subgroup);
}

} // namespace freeport::vulkan
