// Spans in parallel: where a matrix has few rows, too few programs would keep a GPU busy. Several waves of 32
// invocations then do a program together. All of them compute everything, but each takes its own spans of a sum; the
// sums of spans meet in shared memory and are added in order, so that the bits are those of one wave.
#include "backends/vulkan/compiler/KernelLowering.h"

using namespace mlir;

namespace freeport::vulkan {

using namespace kernel;

/// Programs from which on a GPU is busy without more waves: four for each of 128 multiprocessors.
constexpr int64_t kEnoughPrograms = 512;
/// What every Vulkan device runs in one workgroup: 128 invocations.
constexpr int64_t kWaves = 4;
/// Row blocks times tokens of a program; tiles of many tokens have programs enough.
constexpr int64_t kLargestTile = 8;

/// The op that `loop` adds up over the spans of its weights, in order; null where it does anything else.
static SpanDotOp summedSpans(scf::ForOp loop) {
  Block &body = *loop.getBody();
  if (body.getOperations().size() != 3 || loop.getNumRegionIterArgs() != 1)
    return {};
  auto dot = dyn_cast<SpanDotOp>(body.front());
  auto sum = dyn_cast<arith::AddFOp>(*std::next(body.begin()));
  if (!dot || !sum || dot.getSpan() != loop.getInductionVar() || sum.getLhs() != loop.getRegionIterArg(0) ||
      sum.getRhs() != dot.getResult() || body.getTerminator()->getOperand(0) != sum.getResult())
    return {};
  if (getConstantIntValue(loop.getLowerBound()) != 0 || getConstantIntValue(loop.getStep()) != 1)
    return {};
  return dot;
}

int64_t KernelLowering::parallelWaves() {
  // Waves repeat what is no sum of spans. That is only right where they meet nothing that another one changes.
  bool alone = true;
  int64_t spans = 1, programs = 0;
  for (unsigned number = 0; number < function.getNumMemoryArguments(); ++number) {
    Value argument = function.getArgument(number);
    auto onlyStored = [&](Operation *user) {
      return isa<StoreOp, StoreLanesOp, ScatterOp>(user) ||
             (isa<StoreGroupOp>(user) && cast<StoreGroupOp>(user).getActivations() == argument);
    };
    alone &= !function.writesArgument(number) || llvm::all_of(argument.getUsers(), onlyStored);
  }
  function.walk([&](Operation *op) {
    alone &= !isa<LocalOp>(op) && !sharesLanes(op);
    auto dot = dyn_cast<SpanDotOp>(op);
    if (!dot)
      return;
    auto loop = dyn_cast<scf::ForOp>(dot->getParentOp());
    WeightsType type = dot.getWeights().getType();
    int64_t rows = dot.getRowBlocks().size();
    alone &= loop && summedSpans(loop) && rows * int64_t(dot.getTokens().size()) <= kLargestTile;
    spans = std::max(spans, type.getSpans());
    programs = std::max(programs, type.getRowBlocks() / rows);
  });
  return alone && programs < kEnoughPrograms ? std::min(spans, kWaves) : 1;
}

int64_t KernelLowering::parallelSpanWords() {
  int64_t words = 0;
  function.walk([&](SpanDotOp dot) {
    words = std::max<int64_t>(words, waves * kQuantum * dot.getRowBlocks().size() * dot.getTokens().size());
  });
  return words;
}

bool KernelLowering::lowerParallelSpans(scf::ForOp loop) {
  SpanDotOp dot = waves > 1 ? summedSpans(loop) : SpanDotOp();
  if (!dot)
    return false;
  unsigned count = countOf(dot.getType());
  SmallVector<Value> initial = startOf(loop.getInitArgs()[0]);
  Value spans = scalar(loop.getUpperBound());
  auto slot = [&](Value wave, unsigned number) {
    Value word = m.add(m.multiply(wave, m.i32(kQuantum * count)), m.add(m.i32(kQuantum * number), m.lane()));
    return Address{Value(), m.shiftLeft(word, m.i32(2))};
  };
  known[loop.getResult(0)] =
      m.loop(m.i32(0), spans, m.i32(waves), initial, [&](Value first, ValueRange carried) -> SmallVector<Value> {
        Value span = m.add(first, m.wave());
        m.when(m.less(span, spans), [&] {
          set(loop.getInductionVar(), span);
          lower(*dot);
          for (auto [number, value] : llvm::enumerate(values(dot.getResult())))
            m.storeWord(m.toBits(value), spanSums, slot(m.wave(), number));
        });
        m.barrier();
        SmallVector<Value> sums(carried);
        for (int64_t wave = 0; wave < waves; ++wave) {
          Value exists = m.less(m.add(first, m.i32(wave)), spans);
          for (auto [number, sum] : llvm::enumerate(sums)) {
            Value value = m.fromBits(m.loadWord(spanSums, slot(m.i32(wave), number)));
            sum = m.select(exists, m.add(sum, value), sum);
          }
        }
        m.barrier();
        return sums;
      });
  return true;
}

} // namespace freeport::vulkan
