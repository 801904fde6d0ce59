// Attention over cached latents. Absorbed: queries go to the latent space, and the walk is over latents. Expanded: keys
// and values of the whole context are made from its latents first, a group of heads at a time, and the walk is over
// them; it costs less for each query and key, and pays where a step has many tokens.
#include "dialects/graph/ops/PageWalk.h"

#include <numeric>

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

LogicalResult LatentAttentionOp::verify() {
  int64_t heads = getHeads(), rope = width(getRopeKey()), latent = width(getLatent());
  ParameterOp key = lookupParameter(*this, getKeyWeightAttr()), value = lookupParameter(*this, getValueWeightAttr());
  if (!key || !value)
    return emitOpError("expects the names of graph.parameters for its key and value weights");
  int64_t nope = heads > 0 ? width(getQuery()) / heads - rope : 0;
  if (heads < 1 || width(getQuery()) % heads || nope < 1) // latent_attention_c1
    return emitOpError("expects a query of ")
           << heads << " heads of more than " << rope << " elements, got width " << width(getQuery());
  auto isFloat = [](ParameterOp parameter) {
    return !kernel::isQuantized(*kernel::symbolizeBlockFormat(parameter.getFormat()));
  };
  if (key.getShape() != ArrayRef<int64_t>{heads, latent, nope} || !isFloat(key)) // latent_attention_c2
    return emitOpError("expects a float key weight of shape ")
           << heads << "x" << latent << "x" << nope << ", got " << key.getFormat() << " " << key.getShape();
  int64_t valueSize = width(getResult()) / heads;
  if (value.getShape() != ArrayRef<int64_t>{heads, valueSize, latent} || width(getResult()) % heads ||
      !isFloat(value)) // latent_attention_c3
    return emitOpError("expects a float value weight of shape ")
           << heads << "x" << valueSize << "x" << latent << ", got " << value.getFormat() << " " << value.getShape();
  if (getStateFormat() != "f16" && getStateFormat() != "f32") // latent_attention_c4
    return emitOpError("expects state format f16 or f32, got ") << getStateFormat();
  if (getExpansionWeightAttr()) {
    ParameterOp expansion = lookupParameter(*this, getExpansionWeightAttr());
    if (!expansion)
      return emitOpError("expects the name of a graph.parameter for its expansion weight");
    if (expansion.getShape() != ArrayRef<int64_t>{heads, nope, latent} || !isFloat(expansion)) // latent_attention_c5
      return emitOpError("expects a float expansion weight of shape ")
             << heads << "x" << nope << "x" << latent << ", got " << expansion.getFormat() << " "
             << expansion.getShape();
  }
  return success();
}

/// Heads whose keys and values are expanded at a time, so that scratch memory for the context stays small.
constexpr int64_t kHeadsExpandedTogether = 16;

namespace {

class LatentLowering {
public:
  LatentLowering(LatentAttentionOp op, LoweringContext &context);
  void absorbed();
  void expanded();

private:
  /// Writes the step's latents and rotated keys to the state.
  void append();
  /// Latents of all pages that the step's tokens see, as activations, and their rotated keys, [rope][32 tokens] a page.
  void readContext(Value records, Value ropeKeys, Value seen);
  /// Keys, or values, of `group` heads from `first` on.
  void expand(ParameterOp weights, bool keys, int64_t group, int64_t first, Value records, Value seen, Value pages);
  void attend(int64_t group, int64_t first, Value pages, Value ropeKeys, const Outputs &out);

  /// Elements of a page with one head's expanded keys [nope][32 tokens] and values [32 tokens][values padded to 32].
  int64_t headElements() const { return 32 * nope + 32 * 32 * blocksOf(values); }
  AffineExpr entries() { return context.symbol(launch::Symbol::sequences) * context.tablePages(); }
  static std::string place(const View &view) { return ("_" + Twine(view.offset) + "_" + Twine(view.pitch)).str(); }

  LatentAttentionOp op;
  LoweringContext &context;
  const View query, latent, ropeKey;
  ParameterOp keyWeight, valueWeight;
  const int64_t heads, rope, rank, head, nope, values, columns, pitch, pageElements;
  const bool half;
  const Type element, stateType;
  Value state, positions, sequences, pageTable;
  std::string shape;
  const float scale;
  const std::string scaleBits;
};

LatentLowering::LatentLowering(LatentAttentionOp op, LoweringContext &context)
    : op(op), context(context), query(context.view(op.getQuery())), latent(context.view(op.getLatent())),
      ropeKey(context.view(op.getRopeKey())), keyWeight(lookupParameter(op, op.getKeyWeightAttr())),
      valueWeight(lookupParameter(op, op.getValueWeightAttr())), heads(op.getHeads()), rope(ropeKey.width),
      rank(latent.width), head(query.width / heads), nope(head - rope), values(valueWeight.getShape()[1]),
      columns(rank + rope), pitch(32 * blocksOf(columns)), pageElements(32 * pitch), half(op.getStateFormat() == "f16"),
      element(half ? Type(Float16Type::get(context.context())) : Type(Float32Type::get(context.context()))),
      stateType(context.buffer(element)), scale(op.getScale().convertToFloat()),
      scaleBits(llvm::utohexstr(op.getScale().bitcastToAPInt().getZExtValue(), /*LowerCase=*/true)) {
  state = context.state(op.getState(), pageElements * (half ? 2 : 4));
  positions = context.input("positions");
  sequences = context.input("sequences");
  pageTable = context.input("page_table");
  shape = (op.getStateFormat() + "_" + Twine(heads) + "x" + Twine(nope) + "_" + Twine(rope) + "_" + Twine(rank)).str();
}

void LatentLowering::append() {
  auto append = context.kernel(
      "latent_append_" + shape + place(latent) + place(ropeKey),
      {context.f32Buffer(), context.f32Buffer(), context.i32Buffer(), context.i32Buffer(), context.i32Buffer(),
       stateType},
      1, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x), position = e.toIndex(e.load(arguments[2], token));
        Value page = e.div(position, e.index(32)), slot = e.sub(position, e.mul(page, e.index(32)));
        Value base =
            e.mul(physicalPage(e, arguments[3], arguments[4], arguments[6], token, page), e.index(pageElements));
        base = e.add(base, e.mul(slot, e.index(pitch)));
        auto copy = [&](Value buffer, const View &view, int64_t at) {
          e.loop(e.index(0), e.index(blocksOf(view.width)), [&](Value group) {
            Value column = e.mul(group, e.index(32)), mask = e.mask(group, view.width);
            Value row = e.add(e.mul(token, e.index(view.pitch)), e.index(view.offset));
            Value lanes = e.flush(e.loadLanes(buffer, e.add(row, column), mask));
            e.storeLanes(e.toElement(lanes, element), arguments[5], e.add(e.add(base, column), e.index(at)), mask);
          });
        };
        copy(arguments[0], latent, 0);
        copy(arguments[1], ropeKey, rank);
      });
  context.dispatch(append, {latent.rows}, {latent.buffer, ropeKey.buffer, positions, sequences, pageTable, state},
                   {context.tablePages()}, Twine("latent_attention append ") + shape);
}

void LatentLowering::absorbed() {
  // q_latent = key_weight[h] @ q_nope, head by head.
  int64_t blocks = blocksOf(rank), latentPitch = 32 * blocks;
  LoweringContext::Linear absorb;
  absorb.weights = keyWeight;
  absorb.activations = context.emitActivations(query, heads, head, nope, /*quantized=*/false);
  absorb.parts = heads;
  absorb.partStride = latentPitch;
  View absorbed{context.allocate(query.rows * (4 * heads * latentPitch)), 0, heads * latentPitch, heads * latentPitch,
                query.rows};
  absorb.out = context.plainOutputs(absorbed);
  absorb.rows = query.rows;
  context.emitLinear(absorb, "latent_attention query");

  append();

  kernel::ActivationsType outType = context.activationsType(rank, /*quantized=*/false);
  Value attended = context.allocate(query.rows * (heads * outType.getTokenBytes()));
  int64_t together = headsPerProgram(heads);
  auto function = context.kernel(
      "latent_attention_" + shape + place(query) + "_heads_" + Twine(together) + "_scale_" + scaleBits,
      {context.f32Buffer(), context.f32Buffer(), stateType, context.i32Buffer(), context.i32Buffer(),
       context.i32Buffer(), outType},
      1, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x);
        Value first = e.mul(e.programId(kernel::Dimension::y), e.index(together)); // head
        QueryTile tile{together, {e.toIndex(e.load(arguments[3], token))}, {}, {}};
        auto headOf = [&](int64_t i) { return e.add(first, e.index(i)); };
        auto recordOf = [&](int64_t i) { return e.add(e.mul(token, e.index(heads)), headOf(i)); };
        for (int64_t i = 0; i < together; ++i) {
          tile.queries.push_back(e.local(32 * blocksOf(rank) + 32 * blocksOf(rope)));
          copyFlushed(e, arguments[0], e.mul(recordOf(i), e.index(latentPitch)), rank, tile.queries.back(), 0);
          Value row = e.add(e.add(e.mul(token, e.index(query.pitch)), e.index(query.offset + nope)),
                            e.mul(headOf(i), e.index(head)));
          copyFlushed(e, arguments[1], row, rope, tile.queries.back(), rank);
        }
        Value staged = e.local(32 * columns);
        auto base = [&](int64_t, Value page) {
          return e.mul(physicalPage(e, arguments[4], arguments[5], arguments[7], token, page), e.index(pageElements));
        };
        auto keys = [&](Value d) { return e.loadLanes(staged, e.mul(d, e.index(32))); };
        auto scores = [&](ArrayRef<Value> queries, Value base) {
          e.builder.create<kernel::StageOp>(e.location, arguments[2], base, staged, columns, pitch);
          return floatScores(e, queries, {{columns, keys}});
        };
        auto values = [&](Value base, Value key, int64_t block) {
          Value values = e.add(base, e.index(32 * block));
          return e.toF32(e.loadLanes(arguments[2], e.add(values, e.mul(key, e.index(pitch)))));
        };
        PageReader reader{blocks, base, scores, values};
        for (auto [i, result] : llvm::enumerate(PageWalk(e, tile, scale, reader).run())) {
          Value record = recordOf(i), sum = result.first.sum, total = result.second;
          e.loop(e.index(0), e.index(blocks), [&](Value group) {
            Value lanes = e.div(e.loadLanes(total, e.mul(group, e.index(32))), sum);
            if (Value mask = e.mask(group, rank))
              lanes = e.select(mask, lanes, e.f32(0));
            e.storeGroup(lanes, arguments[6], record, group);
          });
        }
      });
  context.dispatch(function, {query.rows, context.constant(heads / together)},
                   {absorbed.buffer, query.buffer, state, positions, sequences, pageTable, attended},
                   {context.tablePages()}, Twine("latent_attention ") + shape);

  LoweringContext::Linear expand;
  expand.weights = valueWeight;
  expand.activations = attended;
  expand.parts = heads;
  expand.partStride = values;
  expand.rows = query.rows;
  expand.out = context.allocateOutputs(op.getResult(), query.rows, values);
  context.emitLinear(expand, "latent_attention value");
}

void LatentLowering::readContext(Value records, Value ropeKeys, Value seen) {
  kernel::ActivationsType recordType = context.activationsType(rank, /*quantized=*/false);
  auto function = context.kernel(
      "latent_context_" + shape,
      {stateType, context.i32Buffer(), context.i32Buffer(), context.i32Buffer(), recordType, stateType,
       context.i32Buffer()},
      2, [&](Emit &e, ValueRange arguments) {
        Value page = e.programId(kernel::Dimension::x), sequence = e.programId(kernel::Dimension::y);
        Value entry = e.add(e.mul(sequence, arguments[7]), page), firstKey = e.toI32(e.mul(page, e.index(32)));
        Value staged = e.local(32 * rope);
        // A row of the page table may have entries that its sequence has not reached.
        Value last = e.loop(e.index(0), e.ceilDiv(arguments[8], e.index(32)), {e.lanes(e.i32(-1))},
                            [&](Value group, ValueRange state) {
                              Value token = e.mul(group, e.index(32));
                              Value exists = e.less(e.add(e.laneId(), e.toI32(token)), e.toI32(arguments[8]));
                              Value mine = e.equal(e.loadLanes(arguments[2], token, exists), e.toI32(sequence));
                              Value position = e.loadLanes(arguments[1], token, exists);
                              position = e.select(e.both(exists, mine), position, e.i32(-1));
                              return SmallVector<Value>{e.max(state[0], position)};
                            })[0];
        Value isSeen = e.less(firstKey, e.add(e.reduce(kernel::ReduceKind::max, last), e.i32(1)));
        e.store(e.select(isSeen, e.i32(1), e.i32(0)), arguments[6], entry);
        e.when(isSeen, [&] {
          Value base = e.mul(e.toIndex(e.load(arguments[3], entry)), e.index(pageElements));
          e.loop(e.index(0), e.index(32), [&](Value slot) {
            Value row = e.add(base, e.mul(slot, e.index(pitch))), record = e.add(e.mul(entry, e.index(32)), slot);
            e.loop(e.index(0), e.index(blocksOf(rank)), [&](Value group) {
              Value column = e.add(row, e.mul(group, e.index(32)));
              e.storeGroup(e.toF32(e.loadLanes(arguments[0], column, e.mask(group, rank))), arguments[4], record,
                           group);
            });
          });
          e.builder.create<kernel::StageOp>(e.location, arguments[0], e.add(base, e.index(rank)), staged, rope, pitch);
          e.loop(e.index(0), e.index(rope), [&](Value d) {
            Value at = e.mul(d, e.index(32)), to = e.add(e.mul(entry, e.index(32 * rope)), at);
            e.storeLanes(e.toElement(e.loadLanes(staged, at), element), arguments[5], to);
          });
        });
      });
  context.dispatch(function, {context.tablePages(), context.symbol(launch::Symbol::sequences)},
                   {state, positions, sequences, pageTable, records, ropeKeys, seen},
                   {context.tablePages(), query.rows}, Twine("latent_attention context ") + shape);
}

void LatentLowering::expand(ParameterOp weights, bool keys, int64_t group, int64_t first, Value records, Value seen,
                            Value pages) {
  kernel::WeightsType type = context.weightsType(weights);
  int64_t tile = std::gcd(context.schedule.tokensPerTile, int64_t(32)), valueRow = 32 * blocksOf(values);
  StringRef what = keys ? "keys" : "values";
  auto function = context.kernel(
      "latent_expand_" + what + "_" + shape + "_" + Twine(values) + "_" + weights.getFormat() + "_stride_" +
          Twine(type.getEntryStride()) + "_tile_" + Twine(tile) + "_heads_" + Twine(group),
      {type, context.activationsType(rank, /*quantized=*/false), context.i32Buffer(), stateType}, 1,
      [&](Emit &e, ValueRange arguments) {
        Value number = e.programId(kernel::Dimension::x), block = e.programId(kernel::Dimension::y);
        Value part = e.programId(kernel::Dimension::z), entry = e.div(number, e.index(32 / tile));
        e.when(e.differs(e.load(arguments[2], entry), e.i32(0)), [&] {
          Value firstRecord = e.mul(number, e.index(tile)), slot = e.sub(firstRecord, e.mul(entry, e.index(32)));
          SmallVector<Value> tokens;
          for (int64_t t = 0; t < tile; ++t)
            tokens.push_back(e.add(firstRecord, e.index(t)));
          Value sums = e.spanDots(arguments[0], e.add(arguments[4], part), block, arguments[1], tokens);
          Value base = e.mul(e.add(e.mul(entry, e.index(group)), part), e.index(headElements()));
          Value row = e.mul(block, e.index(32));
          for (int64_t t = 0; t < tile; ++t) {
            Value lanes = e.toElement(e.flush(e.lanesOf(sums, 0, t)), element), at = e.add(slot, e.index(t));
            if (keys)
              e.scatter(lanes, arguments[3], e.add(base, e.add(e.mul(row, e.index(32)), at)),
                        e.mul(e.laneId(), e.i32(32)), e.mask(block, nope));
            else
              e.storeLanes(lanes, arguments[3],
                           e.add(e.add(base, e.index(32 * nope)), e.add(e.mul(at, e.index(valueRow)), row)));
          }
        });
      });
  context.dispatch(function, {entries() * (32 / tile), context.constant(type.getRowBlocks()), context.constant(group)},
                   {context.weights(FlatSymbolRefAttr::get(weights)), records, seen, pages}, {context.constant(first)},
                   Twine("latent_attention ") + what);
}

void LatentLowering::attend(int64_t group, int64_t first, Value pages, Value ropeKeys, const Outputs &out) {
  int64_t tokens = kQueriesTogether, blocks = blocksOf(values);
  SmallVector<Type> types = {stateType, stateType, context.i32Buffer(), context.i32Buffer()};
  SmallVector<Value> buffers = {pages, ropeKeys, positions, sequences};
  Heads queries(query, head);
  queries.addArguments(context, types, buffers);
  unsigned outAt = types.size();
  types.append(out.types);
  buffers.append(out.buffers);
  auto function = context.kernel(
      "latent_expanded_" + shape + "_" + Twine(values) + place(query) + out.name + "_tile_" + Twine(tokens) +
          "_heads_" + Twine(group) + "_scale_" + scaleBits,
      types, 3, [&](Emit &e, ValueRange arguments) {
        Value tablePages = arguments[types.size()], count = arguments[types.size() + 1], firstHead = arguments.back();
        Value part = e.programId(kernel::Dimension::y), partElements = e.mul(part, e.index(headElements()));
        QueryRows io{tokens, /*together=*/1, e.add(firstHead, part), values, {}};
        QueryTile tile = io.read(e, queries, arguments, arguments[2], arguments[3], count);
        auto entryOf = [&](int64_t t, Value page) {
          return e.add(e.mul(e.toIndex(e.load(arguments[3], io.rows[t])), tablePages), page);
        };
        auto pageOf = [&](Value entry) { return e.add(e.mul(entry, e.index(group * headElements())), partElements); };
        auto scores = [&](ArrayRef<Value> queries, Value entry) {
          auto keys = [&](Value d) {
            return e.toF32(e.loadLanes(arguments[0], e.add(pageOf(entry), e.mul(d, e.index(32)))));
          };
          auto rotated = [&](Value d) {
            return e.toF32(e.loadLanes(arguments[1], e.mul(e.add(e.mul(entry, e.index(rope)), d), e.index(32))));
          };
          return floatScores(e, queries, {{nope, keys}, {rope, rotated}});
        };
        auto value = [&](Value entry, Value key, int64_t block) {
          Value at = e.add(pageOf(entry), e.index(32 * nope + 32 * block));
          return e.toF32(e.loadLanes(arguments[0], e.add(at, e.mul(key, e.index(32 * blocks)))));
        };
        PageReader reader{blocks, entryOf, scores, value};
        io.write(e, PageWalk(e, tile, scale, reader).run(), out, arguments.slice(outAt, out.types.size()));
      });
  context.dispatch(function, {query.rows.ceilDiv(tokens), context.constant(group)}, buffers,
                   {context.tablePages(), query.rows, context.constant(first)},
                   Twine("latent_attention expanded ") + shape);
}

void LatentLowering::expanded() {
  append();
  int64_t group = kHeadsExpandedTogether, bytes = half ? 2 : 4;
  while (heads % group)
    --group;
  kernel::ActivationsType recordType = context.activationsType(rank, /*quantized=*/false);
  Value records = context.allocate(entries() * (32 * recordType.getTokenBytes()));
  Value ropeKeys = context.allocate(entries() * (32 * rope * bytes)), seen = context.allocate(entries() * 4);
  readContext(records, ropeKeys, seen);
  ParameterOp expansion = lookupParameter(op, op.getExpansionWeightAttr());
  Value pages = context.allocate(entries() * (group * headElements() * bytes));
  Outputs out = context.allocateOutputs(op.getResult(), query.rows, values);
  for (int64_t first = 0; first < heads; first += group) {
    expand(expansion, /*keys=*/true, group, first, records, seen, pages);
    expand(valueWeight, /*keys=*/false, group, first, records, seen, pages);
    attend(group, first, pages, ropeKeys, out);
  }
}

} // namespace

LogicalResult LatentAttentionOp::lower(LoweringContext &context) {
  LatentLowering lowering(*this, context);
  if (context.schedule.expandLatents && getExpansionWeightAttr())
    lowering.expanded();
  else
    lowering.absorbed();
  return success();
}

} // namespace freeport::graph
