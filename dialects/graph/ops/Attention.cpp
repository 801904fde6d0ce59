// Rotary embedding, and attention over pages of keys and values.
#include "dialects/graph/ops/PageWalk.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

//===----------------------------------------------------------------------===//
// rope
//===----------------------------------------------------------------------===//

LogicalResult RopeOp::verify() {
  int64_t heads = getHeads();
  if (heads < 1 || width(getInput()) % heads) // rope_c1
    return emitOpError("expects a width that is a multiple of ") << heads << " heads, got " << width(getInput());
  ParameterOp frequencies = lookupParameter(*this, getFrequenciesAttr());
  if (!frequencies || frequencies.getShape().size() != 1)
    return emitOpError("expects the name of a graph.parameter of rank 1 for its frequencies");
  int64_t head = width(getInput()) / heads, last = getOffset() + 2 * frequencies.getShape()[0];
  if (int64_t(getOffset()) < 0 || last > head) // rope_c2
    return emitOpError("expects rotated elements inside a head of ")
           << head << ", got " << getOffset() << " to " << last;
  if (width(getResult()) != width(getInput())) // rope_c3
    return emitOpError("expects a result of width ") << width(getInput()) << ", got " << width(getResult());
  return success();
}

LogicalResult RopeOp::lower(LoweringContext &context) {
  View in = context.view(getInput());
  int64_t pairs = lookupParameter(*this, getFrequenciesAttr()).getShape()[0];
  int64_t heads = getHeads(), head = in.width / heads, offset = getOffset();
  bool interleaved = getPairs() == RopePairs::interleaved;
  uint32_t factorBits = getFactor().bitcastToAPInt().getZExtValue();
  View out = context.allocateRows(getResult(), in.rows);
  auto function =
      context.kernel(Twine("rope_") + stringifyRopePairs(getPairs()) + "_" + Twine(2 * pairs) + "_at_" + Twine(offset) +
                         "_of_" + Twine(heads) + "x" + Twine(head) + "_pitch_" + Twine(in.pitch) + "_from_" +
                         Twine(in.offset) + "_factor_" + Twine::utohexstr(factorBits),
                     {context.f32Buffer(), context.i32Buffer(), context.f32Buffer(), context.f32Buffer()}, 0,
                     [&](Emit &e, ValueRange arguments) {
                       Value token = e.programId(kernel::Dimension::x);
                       Value source = e.add(e.mul(token, e.index(in.pitch)), e.index(in.offset));
                       Value target = e.mul(token, e.index(out.pitch));
                       if (2 * pairs != head)
                         e.loop(e.index(0), e.index(blocksOf(in.width)), [&](Value group) {
                           Value column = e.mul(group, e.index(32));
                           e.storeLanes(e.loadLanes(arguments[0], e.add(source, column), e.mask(group, in.width)),
                                        arguments[3], e.add(target, column), e.mask(group, out.pitch));
                         });
                       Value position = e.toF32(e.load(arguments[1], token));
                       e.loop(e.index(0), e.index(blocksOf(pairs)), [&](Value group) {
                         Value first = e.mul(group, e.index(32)), mask = e.mask(group, pairs);
                         auto [sine, cosine] = e.sineCosine(e.mul(position, e.loadLanes(arguments[2], first, mask)));
                         if (factorBits != 0x3F800000) {
                           cosine = e.mul(cosine, e.f32Bits(factorBits));
                           sine = e.mul(sine, e.f32Bits(factorBits));
                         }
                         e.loop(e.index(0), e.index(heads), [&](Value number) {
                           Value column = e.add(e.mul(number, e.index(head)), e.index(offset));
                           column = e.add(column, e.mul(first, e.index(interleaved ? 2 : 1)));
                           Value a = e.add(source, column), b = e.add(a, e.index(interleaved ? 1 : pairs));
                           Value to = e.add(target, column), alsoTo = e.add(to, e.index(interleaved ? 1 : pairs));
                           Value offsets = interleaved ? e.mul(e.laneId(), e.i32(2)) : Value();
                           auto load = [&](Value base) {
                             return e.flush(interleaved ? e.gather(arguments[0], base, offsets, mask)
                                                        : e.loadLanes(arguments[0], base, mask));
                           };
                           auto store = [&](Value value, Value base) {
                             if (interleaved)
                               e.scatter(value, arguments[3], base, offsets, mask);
                             else
                               e.storeLanes(value, arguments[3], base, mask);
                           };
                           Value x0 = load(a), x1 = load(b);
                           store(e.sub(e.mul(x0, cosine), e.mul(x1, sine)), to);
                           store(e.add(e.mul(x1, cosine), e.mul(x0, sine)), alsoTo);
                         });
                       });
                     });
  context.dispatch(function, {in.rows},
                   {in.buffer, context.input("positions"), context.weights(getFrequenciesAttr()), out.buffer}, {},
                   Twine("rope ") + Twine(heads) + "x" + Twine(head));
  return success();
}

//===----------------------------------------------------------------------===//
// attention
//===----------------------------------------------------------------------===//

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
  View query = context.view(getQuery()), key = context.view(getKey()), value = context.view(getValue());
  int64_t heads = getHeads(), keyHeads = getKeyValueHeads(), head = query.width / heads, blocks = blocksOf(head);
  bool half = getStateFormat() == "f16";
  Type element = half ? Type(Float16Type::get(context.context())) : Type(Float32Type::get(context.context()));
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
  auto place = [](const View &view) { return ("_" + Twine(view.offset) + "_" + Twine(view.pitch)).str(); };

  // The queries of a token are records side by side.
  kernel::ActivationsType queryType = context.activationsType(head, /*quantized=*/true);
  Value queries = quantized ? context.emitActivations(query, heads, head, head, /*quantized=*/true) : query.buffer;

  SmallVector<Type> appendTypes = {context.f32Buffer(), context.f32Buffer(), context.i32Buffer(),
                                   context.i32Buffer(), context.i32Buffer(), stateType};
  SmallVector<Value> appended = {key.buffer, value.buffer, positions, sequences, pageTable, state};
  if (quantized) { // codes and scales
    appendTypes.push_back(context.buffer(IntegerType::get(context.context(), 8)));
    appendTypes.push_back(context.buffer(Float16Type::get(context.context())));
    appended.append(2, state);
  }
  auto append = context.kernel(
      "attention_append_" + shape + place(key) + place(value), appendTypes, 1, [&](Emit &e, ValueRange arguments) {
        Value number = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
        Value position = e.toIndex(e.load(arguments[2], token));
        Value page = e.div(position, e.index(32)), slot = e.sub(position, e.mul(page, e.index(32)));
        Value physical = physicalPage(e, arguments[3], arguments[4], arguments.back(), token, page);
        Value entry = e.add(e.mul(physical, e.index(keyHeads)), number), base = e.mul(entry, e.index(headElements));
        Value column = e.mul(number, e.index(head));
        auto load = [&](Value buffer, const View &view, Value group) {
          Value row = e.add(e.add(e.mul(token, e.index(view.pitch)), e.index(view.offset)), column);
          return e.flush(e.loadLanes(buffer, e.add(row, e.mul(group, e.index(32))), e.mask(group, head)));
        };
        auto storeRecord = [&](Value keys, Value group) {
          auto [codes, scale] = e.quantizeQ8(keys);
          Value record = e.add(e.mul(entry, e.index(headElements * elementBytes)), e.mul(group, e.index(recordBytes)));
          // Byte l % 4 of the slot's dword l / 4.
          Value bytes = e.add(e.mul(e.both(e.laneId(), e.i32(~3)), e.i32(32)), e.both(e.laneId(), e.i32(3)));
          e.scatter(codes, arguments[6], e.add(record, e.mul(slot, e.index(4))), bytes);
          e.store(scale, arguments[7], e.add(e.div(e.add(record, e.index(32 * 32)), e.index(2)), slot));
        };
        e.loop(e.index(0), e.index(blocks), [&](Value group) {
          Value keys = load(arguments[0], key, group);
          if (quantized)
            storeRecord(keys, group);
          else
            e.scatter(e.toElement(keys, element), arguments[5],
                      e.add(e.add(base, slot), e.mul(group, e.index(32 * 32))), e.mul(e.laneId(), e.i32(32)),
                      e.mask(group, head));
          Value values = e.add(e.add(base, e.index(keyElements)), e.mul(slot, e.index(32 * blocks)));
          e.storeLanes(e.toElement(load(arguments[1], value, group), element), arguments[5],
                       e.add(values, e.mul(group, e.index(32))));
        });
      });
  context.dispatch(append, {context.constant(keyHeads), key.rows}, appended, {context.tablePages()},
                   Twine("attention append ") + shape);

  View out = context.allocateRows(getResult(), query.rows);
  float scale = getScale().convertToFloat();
  int64_t together = headsPerProgram(heads / keyHeads);
  int64_t tokens = context.schedule.prompts ? kQueriesTogether / together : 1;
  SmallVector<Type> types = {quantized ? Type(queryType) : context.f32Buffer(),
                             stateType,
                             context.i32Buffer(),
                             context.i32Buffer(),
                             context.i32Buffer(),
                             context.f32Buffer()};
  SmallVector<Value> buffers = {queries, state, positions, sequences, pageTable, out.buffer};
  if (quantized) {
    types.push_back(kernel::WeightsType::get(context.context(), kernel::BlockFormat::q8, ShapedType::kDynamic, 32, head,
                                             headElements * elementBytes));
    buffers.push_back(state);
  }
  auto function = context.kernel(
      "attention_" + shape + place(query) + "_tile_" + Twine(tokens) + "x" + Twine(together) + "_scale_" +
          Twine::utohexstr(getScale().bitcastToAPInt().getZExtValue()),
      types, 2, [&](Emit &e, ValueRange arguments) {
        Value tablePages = arguments[types.size()], rowCount = arguments[types.size() + 1];
        QueryRows io{tokens, together, {}, query, out, head, head, {}};
        io.head = e.mul(e.programId(kernel::Dimension::y), e.index(together));
        QueryTile tile = io.read(e, arguments[0], arguments[2], arguments[3], rowCount);
        Value keyHead = e.div(io.head, e.index(heads / keyHeads));
        auto entry = [&](int64_t t, Value page) {
          Value physical = physicalPage(e, arguments[3], arguments[4], tablePages, io.rows[t], page);
          return e.add(e.mul(physical, e.index(keyHeads)), keyHead);
        };
        auto scores = [&](ArrayRef<Value> queries, Value entry) {
          if (!quantized) {
            Value base = e.mul(entry, e.index(headElements));
            auto keys = [&](Value d) { return e.toF32(e.loadLanes(arguments[1], e.add(base, e.mul(d, e.index(32))))); };
            return floatScores(e, queries, {{head, keys}});
          }
          Value dots = e.spanDots(arguments[6], entry, e.index(0), arguments[0], queries);
          SmallVector<Value> lanes;
          for (size_t i = 0; i < queries.size(); ++i)
            lanes.push_back(e.lanesOf(dots, 0, int64_t(i)));
          return lanes;
        };
        auto values = [&](Value entry, Value key, int64_t block) {
          Value values = e.add(e.mul(entry, e.index(headElements)), e.index(keyElements + 32 * block));
          return e.toF32(e.loadLanes(arguments[1], e.add(values, e.mul(key, e.index(32 * blocks)))));
        };
        PageReader reader{blocks, entry, scores, values};
        io.write(e, PageWalk(e, tile, scale, reader).run(), arguments[5]);
      });
  context.dispatch(function, {query.rows.ceilDiv(tokens), context.constant(heads / together)}, buffers,
                   {context.tablePages(), query.rows}, Twine("attention ") + shape);
  return success();
}

} // namespace freeport::graph
