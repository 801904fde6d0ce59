// Attention over pages of keys and values.
#include "dialects/graph/ops/PageWalk.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

LogicalResult AttentionOp::verify() {
  int64_t heads = getHeads(), keyHeads = getKeyValueHeads();
  if (heads < 1 || keyHeads < 1 || heads % keyHeads) // attention_c1
    return emitOpError("expects heads that are a multiple of key_value_heads, got ") << heads << " and " << keyHeads;
  int64_t query = width(getQuery()), head = query / heads;
  if (query % heads || width(getResult()) != query || width(getKey()) != keyHeads * head ||
      width(getValue()) != keyHeads * head) // attention_c2
    return emitOpError("expects widths of ")
           << heads << " and " << keyHeads << " heads of one size, got " << query << ", " << width(getKey()) << ", "
           << width(getValue()) << " and " << width(getResult());
  if (getStateFormat() != "f16" && getStateFormat() != "f32") // attention_c3
    return emitOpError("expects state format f16 or f32, got ") << getStateFormat();
  if (getKeyFormat() && *getKeyFormat() != "q8") // attention_c4
    return emitOpError("expects key format q8, or none, got ") << *getKeyFormat();
  return success();
}

LogicalResult AttentionOp::lower(LoweringContext &context) {
  int64_t heads = getHeads(), keyHeads = getKeyValueHeads(), head = width(getQuery()) / heads, blocks = blocksOf(head);
  Heads query(context, getQuery(), heads), key(context, getKey(), keyHeads), value(context, getValue(), keyHeads);
  bool half = getStateFormat() == "f16";
  Type element = half ? Type(Float16Type::get(context.context())) : Type(Float32Type::get(context.context()));
  float scale = getScale().convertToFloat();
  // A page holds, for each key-value head, keys, then values [32 tokens][head padded to 32]. Keys are [head][32
  // tokens], or records of 32 tokens x 32 elements.
  bool quantized = getKeyFormat().has_value();
  int64_t elementBytes = half ? 2 : 4, recordBytes = kernel::recordBytes(kernel::BlockFormat::q8);
  int64_t keyElements = quantized ? blocks * recordBytes / elementBytes : 32 * head;
  int64_t headElements = keyElements + 32 * 32 * blocks, pageBytes = keyHeads * headElements * elementBytes;
  Value state = context.state(getState(), pageBytes);
  Type stateType = context.buffer(element);
  Value positions = context.input("positions"), sequences = context.input("sequences");
  Value pageTable = context.input("page_table");
  std::string shape =
      (getStateFormat() + (quantized ? "_keys_q8_" : "_") + Twine(heads) + "_" + Twine(keyHeads) + "x" + Twine(head))
          .str();
  AffineExpr rows = query.view().rows;
  // The queries of a token are records side by side.
  Value records = quantized ? context.emitActivations(query.view(), heads, head, head, /*quantized=*/true) : Value();

  SmallVector<Type> appendTypes = {stateType, context.i32Buffer(), context.i32Buffer(), context.i32Buffer()};
  SmallVector<Value> appended = {state, positions, sequences, pageTable};
  if (quantized) { // codes and scales
    appendTypes.push_back(context.buffer(IntegerType::get(context.context(), 8)));
    appendTypes.push_back(context.buffer(Float16Type::get(context.context())));
    appended.append(2, state);
  }
  key.addArguments(context, appendTypes, appended);
  value.addArguments(context, appendTypes, appended);
  auto append = context.kernel(
      "attention_append_" + shape + "_key_" + key.name() + "_value_" + value.name(), appendTypes, 1,
      [&](Emit &e, ValueRange arguments) {
        Value number = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
        Value position = e.toIndex(e.load(arguments[1], token));
        Value page = e.div(position, e.index(32)), slot = e.sub(position, e.mul(page, e.index(32)));
        Value physical = physicalPage(e, arguments[2], arguments[3], arguments.back(), token, page);
        Value entry = e.add(e.mul(physical, e.index(keyHeads)), number), base = e.mul(entry, e.index(headElements));
        Value keys = e.local(key.localElements()), values = e.local(value.localElements());
        key.read(e, arguments, token, position, number, keys);
        value.read(e, arguments, token, position, number, values);
        auto storeRecord = [&](Value lanes, Value group) {
          auto [codes, scale] = e.quantizeQ8(lanes);
          Value record = e.add(e.mul(entry, e.index(headElements * elementBytes)), e.mul(group, e.index(recordBytes)));
          // Byte l % 4 of the slot's dword l / 4.
          Value bytes = e.add(e.mul(e.both(e.laneId(), e.i32(~3)), e.i32(32)), e.both(e.laneId(), e.i32(3)));
          e.scatter(codes, arguments[4], e.add(record, e.mul(slot, e.index(4))), bytes);
          e.store(scale, arguments[5], e.add(e.div(e.add(record, e.index(32 * 32)), e.index(2)), slot));
        };
        e.loop(e.index(0), e.index(blocks), [&](Value group) {
          Value column = e.mul(group, e.index(32)), mask = e.mask(group, head);
          Value lanes = e.loadLanes(keys, column, mask);
          if (quantized)
            storeRecord(lanes, group);
          else
            e.scatter(e.toElement(lanes, element), arguments[0],
                      e.add(e.add(base, slot), e.mul(group, e.index(32 * 32))), e.mul(e.laneId(), e.i32(32)), mask);
          Value to = e.add(e.add(base, e.index(keyElements)), e.mul(slot, e.index(32 * blocks)));
          e.storeLanes(e.toElement(e.loadLanes(values, column, mask), element), arguments[0], e.add(to, column));
        });
      });
  context.dispatch(append, {context.constant(keyHeads), rows}, appended, {context.tablePages()},
                   Twine("attention append ") + shape);

  int64_t together = headsPerProgram(heads / keyHeads);
  int64_t tokens = context.schedule.prompts ? kQueriesTogether / together : 1;
  SmallVector<Type> types = {stateType, context.i32Buffer(), context.i32Buffer(), context.i32Buffer()};
  SmallVector<Value> buffers = {state, positions, sequences, pageTable};
  if (quantized) {
    types.push_back(context.activationsType(head, /*quantized=*/true));
    buffers.push_back(records);
    types.push_back(kernel::WeightsType::get(context.context(), kernel::BlockFormat::q8, ShapedType::kDynamic, 32, head,
                                             headElements * elementBytes));
    buffers.push_back(state);
  } else {
    query.addArguments(context, types, buffers);
  }
  Outputs out = context.allocateOutputs(getResult(), rows, head);
  unsigned outAt = types.size();
  types.append(out.types);
  buffers.append(out.buffers);
  auto function = context.kernel(
      "attention_" + shape + "_query_" + query.name() + out.name + "_tile_" + Twine(tokens) + "x" + Twine(together) +
          "_scale_" + Twine::utohexstr(getScale().bitcastToAPInt().getZExtValue()),
      types, 2, [&](Emit &e, ValueRange arguments) {
        Value tablePages = arguments[types.size()], rowCount = arguments[types.size() + 1];
        QueryRows io{tokens, together, e.mul(e.programId(kernel::Dimension::y), e.index(together)), head, {}};
        QueryTile tile = quantized ? io.records(e, heads, arguments[1], arguments[2], rowCount)
                                   : io.read(e, query, arguments, arguments[1], arguments[2], rowCount);
        Value keyHead = e.div(io.head, e.index(heads / keyHeads));
        auto entry = [&](int64_t t, Value page) {
          Value physical = physicalPage(e, arguments[2], arguments[3], tablePages, io.rows[t], page);
          return e.add(e.mul(physical, e.index(keyHeads)), keyHead);
        };
        auto scores = [&](ArrayRef<Value> queries, Value entry) {
          if (!quantized) {
            Value base = e.mul(entry, e.index(headElements));
            auto keys = [&](Value d) { return e.toF32(e.loadLanes(arguments[0], e.add(base, e.mul(d, e.index(32))))); };
            return floatScores(e, queries, {{head, keys}});
          }
          Value dots = e.spanDots(arguments[5], entry, e.index(0), arguments[4], queries);
          SmallVector<Value> lanes;
          for (size_t i = 0; i < queries.size(); ++i)
            lanes.push_back(e.lanesOf(dots, 0, int64_t(i)));
          return lanes;
        };
        auto values = [&](Value entry, Value key, int64_t block) {
          Value values = e.add(e.mul(entry, e.index(headElements)), e.index(keyElements + 32 * block));
          return e.toF32(e.loadLanes(arguments[0], e.add(values, e.mul(key, e.index(32 * blocks)))));
        };
        PageReader reader{blocks, entry, scores, values};
        io.write(e, PageWalk(e, tile, scale, reader).run(), out, arguments.slice(outAt, out.types.size()));
      });
  context.dispatch(function, {rows.ceilDiv(tokens), context.constant(heads / together)}, buffers,
                   {context.tablePages(), rows}, Twine("attention ") + shape);
  return success();
}

} // namespace freeport::graph
