// Mixture of experts: route chooses experts a token, experts runs them. Work goes from routing to the grouped kernels
// through a tile table (expert, first, count) that the device writes itself; the host knows only the bound on its
// length.
#include "dialects/graph/Lowering.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

static constexpr uint32_t kMinusInfinity = 0xFF800000;

LogicalResult RouteOp::verify() {
  int64_t experts = width(getLogits()), groups = getGroups(), kept = getGroupsKept(), top = getTopK();
  if (getBias()) {
    ParameterOp bias = lookupParameter(*this, getBiasAttr());
    if (!bias || bias.getShape() != ArrayRef<int64_t>{experts}) // route_c1
      return emitOpError("expects a bias of ") << experts << " elements";
  }
  if (groups < 1 || experts % groups || kept < 1 || kept > groups) // route_c2
    return emitOpError("expects groups that divide ")
           << experts << " experts and 1 to " << groups << " kept, got " << groups << " groups and " << kept << " kept";
  if (width(getIds()) != top || width(getWeights()) != top || top < 1 || top > experts / groups * kept) // route_c3
    return emitOpError("expects top_k of 1 to ") << experts / groups * kept << " as the results' width, got " << top;
  if (getGroupScore() == GroupScore::top2_sum && experts / groups < 2) // route_c4
    return emitOpError("expects groups of at least 2 experts for top2_sum, got ") << experts / groups;
  return success();
}

/// The greatest of elements `first .. first + count - 1` of a local buffer, its index from `first` on; `skip` (an
/// index, or none) is left out.
static std::pair<Value, Value> argmaxOf(Emit &e, Value buffer, Value first, int64_t count, Value skip = {}) {
  Value negative = e.lanes(e.f32Bits(kMinusInfinity));
  auto best = e.loop(e.index(0), e.index((count + 31) / 32), {negative, e.lanes(e.i32(0x7FFFFFFF))},
                     [&](Value chunk, ValueRange state) -> SmallVector<Value> {
                       Value element = e.add(e.laneId(), e.toI32(e.mul(chunk, e.index(32))));
                       Value valid = e.less(element, e.i32(count));
                       Value lanes = e.loadLanes(buffer, e.add(first, e.mul(chunk, e.index(32))), valid);
                       if (skip)
                         valid = e.both(valid, e.differs(element, skip));
                       lanes = e.select(valid, lanes, negative);
                       // Chunks ascend: an equal later element never wins. The first valid one beats the initial index.
                       Value fresh = e.both(valid, e.equal(state[1], e.i32(0x7FFFFFFF)));
                       Value wins = e.either(e.less(state[0], lanes), fresh);
                       return {e.select(wins, lanes, state[0]), e.select(wins, element, state[1])};
                     });
  auto argmax =
      e.builder.create<kernel::ArgmaxOp>(e.location, e.builder.getF32Type(), e.builder.getI32Type(), best[0], best[1]);
  return {argmax.getMaximum(), argmax.getIndex()};
}

LogicalResult RouteOp::lower(LoweringContext &context) {
  View in = context.view(getLogits());
  int64_t experts = in.width, top = getTopK(), groups = getGroups(), size = experts / groups;
  int64_t chunks = (experts + 31) / 32;
  Value ids = context.allocate(in.rows * (4 * top)), weights = context.allocate(in.rows * (4 * top));
  context.bind(getIds(), {ids, 0, top, top, in.rows});
  context.bind(getWeights(), {weights, 0, top, top, in.rows});
  SmallVector<Type> types = {context.f32Buffer(), context.i32Buffer(), context.f32Buffer()};
  SmallVector<Value> buffers = {in.buffer, ids, weights};
  if (getBias()) {
    types.push_back(context.f32Buffer());
    buffers.push_back(context.weights(getBiasAttr()));
  }
  uint32_t scaleBits = getScale().bitcastToAPInt().getZExtValue();
  bool sigmoid = getScore() == RouteScore::sigmoid;
  auto function = context.kernel(
      Twine("route_") + stringifyRouteScore(getScore()) + "_" + Twine(top) + "_of_" + Twine(experts) + "_pitch_" +
          Twine(in.pitch) + "_from_" + Twine(in.offset) + "_groups_" + Twine(getGroupsKept()) + "_of_" + Twine(groups) +
          "_" + stringifyGroupScore(getGroupScore()) + (getNormalize() ? "_normalized" : "") +
          (getBias() ? "_bias" : "") + "_scale_" + Twine::utohexstr(scaleBits),
      types, 0, [&](Emit &e, ValueRange arguments) {
        Value scores = e.local(chunks * 32), choice = e.local(chunks * 32), chosen = e.local((top + 31) / 32 * 32);
        Value groupScores = groups > 1 ? e.local((groups + 31) / 32 * 32) : Value();
        Value groupKept = groups > 1 ? e.local((groups + 31) / 32 * 32) : Value();
        Value token = e.programId(kernel::Dimension::x);
        Value row = e.add(e.mul(token, e.index(in.pitch)), e.index(in.offset));
        Value zero = e.index(0);
        auto forChunks = [&](function_ref<void(Value, Value)> body) {
          e.loop(zero, e.index(chunks), [&](Value chunk) { body(chunk, e.mul(chunk, e.index(32))); });
        };
        Value maximum, sum;
        if (!sigmoid) {
          Value lanes =
              e.loop(zero, e.index(chunks), {e.lanes(e.f32Bits(kMinusInfinity))}, [&](Value chunk, ValueRange state) {
                Value element = e.mul(chunk, e.index(32)), mask = e.mask(chunk, experts);
                Value x = e.loadLanes(arguments[0], e.add(row, element), mask);
                if (mask)
                  x = e.select(mask, x, e.f32Bits(kMinusInfinity));
                return SmallVector<Value>{e.max(state[0], x)};
              })[0];
          maximum = e.reduce(kernel::ReduceKind::max, lanes);
        }
        forChunks([&](Value chunk, Value element) {
          Value x = e.loadLanes(arguments[0], e.add(row, element), e.mask(chunk, experts));
          e.storeLanes(sigmoid ? e.sigmoid(x) : e.exp(e.sub(x, maximum)), scores, element);
        });
        if (!sigmoid) {
          Value lanes = e.loop(zero, e.index(chunks), {e.zeroLanes()}, [&](Value chunk, ValueRange state) {
            Value element = e.mul(chunk, e.index(32));
            return SmallVector<Value>{e.add(state[0], e.loadLanes(scores, element, e.mask(chunk, experts)))};
          })[0];
          sum = e.reduce(kernel::ReduceKind::add, lanes);
        }
        forChunks([&](Value chunk, Value element) {
          Value score = e.loadLanes(scores, element), mask = e.mask(chunk, experts);
          if (!sigmoid) {
            score = e.div(score, sum);
            e.storeLanes(score, scores, element);
          }
          if (getBias())
            score = e.add(score, e.loadLanes(arguments[3], element, mask));
          e.storeLanes(score, choice, element);
        });
        if (groups > 1) {
          e.loop(zero, e.index(groups), [&](Value group) {
            Value first = e.mul(group, e.index(size));
            auto [best, at] = argmaxOf(e, choice, first, size);
            if (getGroupScore() == GroupScore::top2_sum)
              best = e.add(best, argmaxOf(e, choice, first, size, at).first);
            e.store(best, groupScores, group);
            e.store(e.f32(0), groupKept, group);
          });
          e.loop(zero, e.index(getGroupsKept()), [&](Value) {
            Value at = e.toIndex(argmaxOf(e, groupScores, zero, groups).second);
            e.store(e.f32Bits(kMinusInfinity), groupScores, at);
            e.store(e.f32(1), groupKept, at);
          });
          e.loop(zero, e.index(groups), [&](Value group) {
            e.when(e.equal(e.load(groupKept, group), e.f32(0)), [&] {
              e.loop(zero, e.index(size), [&](Value expert) {
                e.store(e.f32Bits(kMinusInfinity), choice, e.add(e.mul(group, e.index(size)), expert));
              });
            });
          });
        }
        Value out = e.mul(token, e.index(top));
        Value total = e.loop(zero, e.index(top), {e.f32(0)}, [&](Value rank, ValueRange state) {
          Value id = argmaxOf(e, choice, zero, experts).second;
          Value at = e.toIndex(id), score = e.load(scores, at);
          e.store(e.f32Bits(kMinusInfinity), choice, at);
          e.store(id, arguments[1], e.add(out, rank));
          e.store(score, chosen, rank);
          return SmallVector<Value>{e.add(state[0], score)};
        })[0];
        if (getNormalize())
          total = e.add(total, e.f32(1e-20f));
        e.loop(zero, e.index(top), [&](Value rank) {
          Value weight = e.load(chosen, rank);
          if (getNormalize())
            weight = e.div(weight, total);
          e.store(e.mul(weight, e.f32Bits(scaleBits)), arguments[2], e.add(out, rank));
        });
      });
  context.dispatch(function, {in.rows}, buffers, {}, Twine("route ") + Twine(top) + " of " + Twine(experts));
  return success();
}

LogicalResult ExpertsOp::verify() {
  ParameterOp gate = lookupParameter(*this, getGateAttr()), up = lookupParameter(*this, getUpAttr());
  ParameterOp down = lookupParameter(*this, getDownAttr());
  if (!gate || !up || !down)
    return emitOpError("expects the names of graph.parameters for gate, up and down");
  ArrayRef<int64_t> shape = gate.getShape();
  if (shape.size() != 3 || shape[2] != width(getInput()) || up.getShape() != shape ||
      down.getShape() != ArrayRef<int64_t>{shape[0], shape[2], shape[1]} ||
      up.getFormat() != gate.getFormat()) // experts_c1
    return emitOpError("expects banks of experts x inner x ")
           << width(getInput()) << ", the same in one format, and its transpose; got " << shape << ", " << up.getShape()
           << " and " << down.getShape();
  for (Value other : {getShared(), getResidual()})
    if (other && width(other) != width(getResult())) // experts_c2
      return emitOpError("expects shared and residual of width ") << width(getResult()) << ", got " << width(other);
  if (width(getIds()) != width(getWeights())) // experts_c3
    return emitOpError("expects as many weights as ids, got ") << width(getWeights()) << " and " << width(getIds());
  return success();
}

LogicalResult ExpertsOp::lower(LoweringContext &context) {
  ParameterOp gate = lookupParameter(*this, getGateAttr()), down = lookupParameter(*this, getDownAttr());
  kernel::WeightsType gateType = context.weightsType(gate), downType = context.weightsType(down);
  int64_t experts = gateType.getEntries(), inner = gateType.getRows(), hidden = downType.getRows();
  int64_t top = width(getIds()), tile = context.schedule.tokensPerTile;
  bool quantized = gateType.isQuantized();
  AffineExpr tokens = context.tokens(), assignments = tokens * top;
  AffineExpr bound = tile == 1 ? assignments : assignments.ceilDiv(tile) + experts;
  // Programs that follow each other share a block of weights among an expert's tiles where it has many, and read on in
  // the expert's weights where it has one.
  bool tilesFirst = context.schedule.prompts;
  auto tileDimension = tilesFirst ? kernel::Dimension::x : kernel::Dimension::y;
  auto blockDimension = tilesFirst ? kernel::Dimension::y : kernel::Dimension::x;
  auto gridOf = [&](int64_t blocks) {
    return tilesFirst ? SmallVector<AffineExpr>{bound, context.constant(blocks)}
                      : SmallVector<AffineExpr>{context.constant(blocks), bound};
  };
  std::string order = tilesFirst ? "_tiles_first" : "";
  View ids = context.view(getIds()), weights = context.view(getWeights());
  std::string suffix = (Twine(top) + "_of_" + Twine(experts)).str();

  // How many tokens each expert has.
  Value counts = context.allocate(context.constant(4 * experts));
  auto count = context.kernel(
      "expert_counts_" + suffix, {context.i32Buffer(), context.i32Buffer()}, 1, [&](Emit &e, ValueRange arguments) {
        Value expert = e.programId(kernel::Dimension::x), total = arguments[2];
        Value sum =
            e.loop(e.index(0), e.ceilDiv(total, e.index(32)), {e.lanes(e.i32(0))}, [&](Value chunk, ValueRange state) {
              Value first = e.mul(chunk, e.index(32));
              Value valid = e.less(e.add(e.laneId(), e.toI32(first)), e.toI32(total));
              Value id = e.loadLanes(arguments[0], first, valid);
              Value match = e.both(valid, e.equal(id, e.toI32(expert)));
              return SmallVector<Value>{e.add(state[0], e.select(match, e.lanes(e.i32(1)), e.lanes(e.i32(0))))};
            })[0];
        e.store(e.reduce(kernel::ReduceKind::add, sum), arguments[1], expert);
      });
  context.dispatch(count, {context.constant(experts)}, {ids.buffer, counts}, {assignments}, "experts count");

  // Each expert's assignments in order, and its tiles; program `experts` clears the rest of the table.
  Value list = context.allocate(assignments * 4), tiles = context.allocate(bound * 12);
  auto fill = context.kernel(
      "expert_tiles_" + suffix + "_by_" + Twine(tile),
      {context.i32Buffer(), context.i32Buffer(), context.i32Buffer(), context.i32Buffer()}, 2,
      [&](Emit &e, ValueRange arguments) {
        Value expert = e.programId(kernel::Dimension::x), total = arguments[4], tileBound = arguments[5];
        Value zeros = e.lanes(e.i32(0));
        auto before =
            e.loop(e.index(0), e.index((experts + 31) / 32), {zeros, zeros}, [&](Value chunk, ValueRange state) {
              Value first = e.mul(chunk, e.index(32)), lane = e.add(e.laneId(), e.toI32(first));
              Value valid = e.less(lane, e.toI32(expert)); // at most `experts`, the clearing program's number
              Value tokensOf = e.loadLanes(arguments[1], first, valid);
              Value tilesOf = e.div(e.add(tokensOf, e.i32(tile - 1)), e.i32(tile));
              return SmallVector<Value>{e.add(state[0], tokensOf), e.add(state[1], tilesOf)};
            });
        Value firstToken = e.reduce(kernel::ReduceKind::add, before[0]);
        Value firstTile = e.toIndex(e.reduce(kernel::ReduceKind::add, before[1]));
        auto writeTile = [&](Value at, Value id, Value first, Value size) {
          Value base = e.mul(at, e.index(3));
          e.store(id, arguments[3], base);
          e.store(first, arguments[3], e.add(base, e.index(1)));
          e.store(size, arguments[3], e.add(base, e.index(2)));
        };
        e.branch(
            e.less(expert, e.index(experts)), {},
            [&]() -> SmallVector<Value> {
              e.loop(e.index(0), e.ceilDiv(total, e.index(32)), {firstToken}, [&](Value chunk, ValueRange state) {
                Value first = e.mul(chunk, e.index(32)), lane = e.add(e.laneId(), e.toI32(first));
                Value valid = e.less(lane, e.toI32(total));
                Value match = e.both(valid, e.equal(e.loadLanes(arguments[0], first, valid), e.toI32(expert)));
                Value ones = e.select(match, e.lanes(e.i32(1)), zeros);
                Value scan = e.builder.create<kernel::ScanOp>(e.location, ones.getType(), ones);
                Value place = e.sub(e.add(scan, state[0]), e.i32(1));
                e.scatter(lane, arguments[2], e.index(0), place, match);
                return SmallVector<Value>{e.add(state[0], e.reduce(kernel::ReduceKind::add, ones))};
              });
              Value mine = e.load(arguments[1], expert);
              Value tileCount = e.ceilDiv(e.toIndex(mine), e.index(tile));
              e.loop(e.index(0), tileCount, [&](Value number) {
                Value done = e.toI32(e.mul(number, e.index(tile)));
                writeTile(e.add(firstTile, number), e.toI32(expert), e.add(firstToken, done),
                          e.min(e.sub(mine, done), e.i32(tile)));
              });
              return {};
            },
            [&]() -> SmallVector<Value> {
              e.loop(firstTile, tileBound, [&](Value number) { writeTile(number, e.i32(0), e.i32(0), e.i32(0)); });
              return {};
            });
      });
  context.dispatch(fill, {context.constant(experts + 1)}, {ids.buffer, counts, list, tiles}, {assignments, bound},
                   "experts tiles");

  // A tile's expert and its assignments, those past its count repeated: they write the same values again.
  auto withTile = [&](Emit &e, Value tileTable, Value assignmentList,
                      function_ref<void(Value expert, ArrayRef<Value> assignment)> body) {
    Value base = e.mul(e.programId(tileDimension), e.index(3));
    Value size = e.load(tileTable, e.add(base, e.index(2)));
    e.when(e.less(e.i32(0), size), [&] {
      Value expert = e.toIndex(e.load(tileTable, base)), first = e.load(tileTable, e.add(base, e.index(1)));
      SmallVector<Value> assignment;
      for (int64_t number = 0; number < tile; ++number) {
        Value at = e.add(first, e.min(e.i32(number), e.sub(size, e.i32(1))));
        assignment.push_back(e.toIndex(e.load(assignmentList, e.toIndex(at))));
      }
      body(expert, assignment);
    });
  };
  std::string formats = (gate.getFormat() + (down.getFormat() == gate.getFormat() ? "" : "_" + down.getFormat())).str();
  std::string shape = (formats + "_" + Twine(experts) + "x" + Twine(inner) + "x" + Twine(hidden) + "_stride_" +
                       Twine(gateType.getEntryStride()))
                          .str();

  Value input = context.activations(getInput(), quantized);
  kernel::ActivationsType inputType = context.activationsType(width(getInput()), quantized);
  kernel::ActivationsType innerType = context.activationsType(inner, downType.isQuantized());
  Value innerRows = context.allocate(assignments * innerType.getTokenBytes());
  // One token reads longer runs of gate before it turns to up.
  int64_t run = tile == 1 ? std::min(context.schedule.weightRun, gateType.getRowBlocks()) : 1;
  int64_t runs = (gateType.getRowBlocks() + run - 1) / run;
  auto gateUp = context.kernel(
      "experts_gate_up_" + shape + "_top_" + Twine(top) + "_tile_" + Twine(run) + "x" + Twine(tile) + order,
      {gateType, gateType, inputType, context.i32Buffer(), context.i32Buffer(), innerType}, 0,
      [&](Emit &e, ValueRange arguments) {
        Value first = e.mul(e.programId(blockDimension), e.index(run)), last = e.index(gateType.getRowBlocks() - 1);
        withTile(e, arguments[3], arguments[4], [&](Value expert, ArrayRef<Value> assignment) {
          SmallVector<Value> records, blocks, gates;
          for (Value number : assignment)
            records.push_back(e.div(number, e.index(top)));
          for (int64_t i = 0; i < run; ++i) {
            blocks.push_back(e.min(e.add(first, e.index(i)), last));
            gates.push_back(e.spanDots(arguments[0], expert, blocks[i], arguments[2], records));
          }
          for (auto [block, gate] : llvm::zip_equal(blocks, gates)) {
            Value ups = e.spanDots(arguments[1], expert, block, arguments[2], records);
            for (auto [number, record] : llvm::enumerate(assignment)) {
              Value lanes = e.glu(e.lanesOf(gate, 0, number), e.lanesOf(ups, 0, number));
              e.storeGroup(lanes, arguments[5], record, block);
            }
          }
        });
      });
  context.dispatch(gateUp, gridOf(runs),
                   {context.weights(getGateAttr()), context.weights(getUpAttr()), input, tiles, list, innerRows}, {},
                   Twine("experts gate_up ") + shape);

  int64_t pitch = (hidden + 31) / 32 * 32;
  Value outputs = context.allocate(assignments * (4 * pitch));
  auto downKernel =
      context.kernel("experts_down_" + shape + "_tile_" + Twine(tile) + order,
                     {downType, innerType, context.i32Buffer(), context.i32Buffer(), context.f32Buffer()}, 0,
                     [&](Emit &e, ValueRange arguments) {
                       Value block = e.programId(blockDimension);
                       withTile(e, arguments[2], arguments[3], [&](Value expert, ArrayRef<Value> assignment) {
                         Value sums = e.spanDots(arguments[0], expert, block, arguments[1], assignment);
                         for (auto [number, record] : llvm::enumerate(assignment))
                           e.storeLanes(e.lanesOf(sums, 0, number), arguments[4],
                                        e.add(e.mul(record, e.index(pitch)), e.mul(block, e.index(32))));
                       });
                     });
  context.dispatch(downKernel, gridOf(downType.getRowBlocks()),
                   {context.weights(getDownAttr()), innerRows, tiles, list, outputs}, {},
                   Twine("experts down ") + shape);

  View out = context.allocateRows(getResult(), tokens);
  SmallVector<Type> types = {context.f32Buffer(), context.f32Buffer(), context.f32Buffer()};
  SmallVector<Value> buffers = {outputs, weights.buffer, out.buffer};
  std::string name = ("experts_combine_" + Twine(top) + "_of_" + Twine(hidden)).str();
  SmallVector<std::pair<View, unsigned>> addends;
  for (Value other : {getShared(), getResidual()}) {
    if (!other)
      continue;
    View view = context.view(other);
    addends.push_back({view, unsigned(types.size())});
    types.push_back(context.f32Buffer());
    buffers.push_back(view.buffer);
    name += ((other == getResidual() ? "_residual_" : "_shared_") + Twine(view.offset) + "_" + Twine(view.pitch)).str();
  }
  auto combine = context.kernel(name, types, 0, [&](Emit &e, ValueRange arguments) {
    Value group = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
    Value column = e.mul(group, e.index(32)), first = e.mul(token, e.index(top));
    Value sum = e.loop(e.index(0), e.index(top), {e.zeroLanes()}, [&](Value rank, ValueRange state) {
      Value record = e.add(first, rank);
      Value expertOut = e.flush(e.loadLanes(arguments[0], e.add(e.mul(record, e.index(pitch)), column)));
      return SmallVector<Value>{e.add(state[0], e.mul(e.flush(e.load(arguments[1], record)), expertOut))};
    })[0];
    for (auto &[view, argument] : addends) {
      Value base = e.add(e.add(e.mul(token, e.index(view.pitch)), column), e.index(view.offset));
      sum = e.add(e.loadLanes(arguments[argument], base, e.mask(group, hidden)), sum);
    }
    e.storeLanes(sum, arguments[2], e.add(e.mul(token, e.index(out.pitch)), column), e.mask(group, out.pitch));
  });
  context.dispatch(combine, {context.constant((hidden + 31) / 32), tokens}, buffers, {}, "experts combine");
  return success();
}

} // namespace freeport::graph
