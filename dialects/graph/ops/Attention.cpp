// Rotary embedding and attention over paged states. The order of every sum is design.md §4's: scores by dimension,
// pages of 32 keys with keys ascending, pages in order within a span of 32 pages, spans alike.
#include "dialects/graph/Lowering.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

static int64_t blocksOf(int64_t width) { return (width + 31) / 32; }

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
// What both attentions share: the walk over pages and the merging of their sums
//===----------------------------------------------------------------------===//

/// Queries whose sums stay in registers together: each key and value is then loaded and widened once for all of them.
constexpr int64_t kQueriesTogether = 4;

/// How many of `heads` heads that read the same keys one program works on.
static int64_t headsPerProgram(int64_t heads) {
  int64_t count = kQueriesTogether;
  while (heads % count)
    count /= 2;
  return count;
}

/// (maximum, sum of exponentials) of what has been merged so far; the weighted sums of values lie in local memory.
struct Softmax {
  Value maximum, sum;
};

/// Merges a part into `total`: the first part is copied.
static Softmax merge(Emit &e, Value first, Softmax state, Value total, Softmax part, int64_t blocks,
                     function_ref<Value(int64_t)> partValues) {
  Type f32 = e.builder.getF32Type();
  auto at = [&](int64_t block) { return e.index(32 * block); };
  SmallVector<Value> values = e.branch(
      first, {f32, f32},
      [&]() -> SmallVector<Value> {
        for (int64_t block = 0; block < blocks; ++block)
          e.storeLanes(partValues(block), total, at(block));
        return {part.maximum, part.sum};
      },
      [&]() -> SmallVector<Value> {
        Value maximum = e.max(state.maximum, part.maximum);
        Value alpha = e.flush(e.exp(e.sub(state.maximum, maximum))),
              beta = e.flush(e.exp(e.sub(part.maximum, maximum)));
        for (int64_t block = 0; block < blocks; ++block) {
          Value old = e.mul(e.flush(e.loadLanes(total, at(block))), alpha);
          e.storeLanes(e.add(old, e.mul(e.flush(partValues(block)), beta)), total, at(block));
        }
        return {maximum, e.add(e.mul(e.flush(state.sum), alpha), e.mul(e.flush(part.sum), beta))};
      });
  return {values[0], values[1]};
}

/// What one program works on, at most kQueriesTogether queries, token by token: heads that read the same keys, of one
/// token or of some that follow each other.
struct QueryTile {
  int64_t heads;
  SmallVector<Value> positions; ///< of each token
  Value sharedPages;            ///< so many pages are the same for all tokens and seen whole; null for one token

  int64_t tokens() const { return positions.size(); }
  int64_t size() const { return heads * tokens(); }
};

/// How one attention reads a page of its state; `base` is what says where the page lies.
struct PageReader {
  int64_t blocks; ///< of 32 elements in a value
  function_ref<Value(int64_t token, Value page)> base;
  /// Of queries `first` to `first + count`, unscaled, with the page's 32 keys.
  function_ref<SmallVector<Value>(int64_t first, int64_t count, Value base)> scores;
  /// 32 elements of a key's value.
  function_ref<Value(Value base, Value key, int64_t block)> value;
};

/// One walk over pages: maxima and sums travel in values, two for each query, weighted sums of values in local memory.
class PageWalk {
public:
  PageWalk(Emit &e, const QueryTile &tile, float scale, const PageReader &reader)
      : e(e), tile(tile), scale(scale), reader(reader) {
    for (int64_t i = 0; i < tile.size(); ++i) {
      totals.push_back(e.local(32 * reader.blocks));
      spans.push_back(e.local(32 * reader.blocks));
    }
  }

  /// Returns each query's sum and the local memory with its weighted sums.
  SmallVector<std::pair<Softmax, Value>> run();

private:
  static Softmax stateOf(ValueRange values, int64_t query) { return {values[2 * query], values[2 * query + 1]}; }
  /// Merges the page at `base` into the spans of queries `first` to `first + count`. The first `keys` keys are visible;
  /// `visible` says so for lanes, null for all of them.
  SmallVector<Value> visit(int64_t first, int64_t count, Value base, Value keys, Value visible, Value firstOfSpan,
                           ValueRange state);

  Emit &e;
  const QueryTile &tile;
  float scale;
  const PageReader &reader;
  SmallVector<Value> totals, spans;
};

SmallVector<Value> PageWalk::visit(int64_t first, int64_t count, Value base, Value keys, Value visible,
                                   Value firstOfSpan, ValueRange state) {
  SmallVector<Value> maxima, weights, sums;
  for (Value score : reader.scores(first, count, base)) {
    score = e.mul(score, e.f32(scale));
    if (visible)
      score = e.select(visible, score, e.f32Bits(0xFF800000));
    maxima.push_back(e.reduce(kernel::ReduceKind::max, score));
    weights.push_back(e.flush(e.exp(e.sub(score, maxima.back()))));
  }
  // As many blocks of the value at a time as stay in registers over the keys; values[block * count + query].
  SmallVector<Value> values;
  for (int64_t block = 0, blocks; block < reader.blocks; block += blocks) {
    blocks = std::min(kQueriesTogether / count, reader.blocks - block);
    SmallVector<Value> initial(blocks * count, e.zeroLanes());
    initial.append(count, e.f32(0));
    SmallVector<Value> current = e.loop(e.index(0), keys, initial, [&](Value key, ValueRange current) {
      SmallVector<Value> weight, next;
      for (Value lanes : weights)
        weight.push_back(e.broadcast(lanes, key));
      for (int64_t i = 0; i < blocks; ++i) {
        Value value = reader.value(base, key, block + i);
        for (int64_t j = 0; j < count; ++j)
          next.push_back(e.add(current[i * count + j], e.mul(weight[j], value)));
      }
      for (int64_t j = 0; j < count; ++j)
        next.push_back(e.add(current[blocks * count + j], weight[j]));
      return next;
    });
    sums.assign(current.end() - count, current.end());
    values.append(current.begin(), current.end() - count);
  }
  SmallVector<Value> next;
  for (int64_t i = 0; i < count; ++i) {
    Softmax merged = merge(e, firstOfSpan, stateOf(state, i), spans[first + i], {maxima[i], sums[i]}, reader.blocks,
                           [&](int64_t block) { return values[block * count + i]; });
    next.append({merged.maximum, merged.sum});
  }
  return next;
}

SmallVector<std::pair<Softmax, Value>> PageWalk::run() {
  Value spanPages = e.index(32), most;
  SmallVector<Value> ends, pages;
  for (Value position : tile.positions) {
    ends.push_back(e.add(position, e.index(1)));
    pages.push_back(e.add(e.div(position, e.index(32)), e.index(1)));
    most = most ? e.max(most, pages.back()) : pages.back();
  }
  SmallVector<Value> none(2 * tile.size(), e.f32(0));
  auto whole = e.loop(e.index(0), e.ceilDiv(most, spanPages), none, [&](Value number, ValueRange outer) {
    Value firstPage = e.mul(number, spanPages), endPage = e.add(firstPage, spanPages), from = firstPage;
    SmallVector<Value> state = none;
    if (tile.sharedPages) {
      from = e.max(firstPage, e.min(endPage, tile.sharedPages));
      state = e.loop(firstPage, from, none, [&](Value page, ValueRange state) {
        return visit(0, tile.size(), reader.base(0, page), e.index(32), {}, e.equal(page, firstPage), state);
      });
    }
    for (int64_t token = 0; token < tile.tokens(); ++token) {
      Value *mine = state.begin() + 2 * token * tile.heads;
      SmallVector<Value> rest = e.loop(from, e.min(endPage, pages[token]), ValueRange(ArrayRef(mine, 2 * tile.heads)),
                                       [&](Value page, ValueRange state) {
                                         Value firstKey = e.mul(page, e.index(32));
                                         Value visible =
                                             e.less(e.add(e.laneId(), e.toI32(firstKey)), e.toI32(ends[token]));
                                         Value keys = e.min(e.index(32), e.sub(ends[token], firstKey));
                                         return visit(token * tile.heads, tile.heads, reader.base(token, page), keys,
                                                      visible, e.equal(page, firstPage), state);
                                       });
      llvm::copy(rest, mine);
    }
    SmallVector<Value> next;
    for (int64_t i = 0; i < tile.size(); ++i) {
      auto mergeSpan = [&]() -> SmallVector<Value> {
        Softmax merged =
            merge(e, e.equal(number, e.index(0)), stateOf(outer, i), totals[i], stateOf(state, i), reader.blocks,
                  [&](int64_t block) { return e.loadLanes(spans[i], e.index(32 * block)); });
        return {merged.maximum, merged.sum};
      };
      Softmax old = stateOf(outer, i);
      Type f32 = e.builder.getF32Type();
      // A token may end in an earlier span than another.
      next.append(tile.tokens() == 1 ? mergeSpan()
                                     : e.branch(e.less(firstPage, pages[i / tile.heads]), {f32, f32}, mergeSpan,
                                                [&]() -> SmallVector<Value> { return {old.maximum, old.sum}; }));
    }
    return next;
  });
  SmallVector<std::pair<Softmax, Value>> results;
  for (int64_t i = 0; i < tile.size(); ++i)
    results.emplace_back(stateOf(whole, i), totals[i]);
  return results;
}

/// Scores of float queries, each in local memory, with 32 keys of `width` elements; `keys` gives element d of them.
static SmallVector<Value> floatScores(Emit &e, ArrayRef<Value> queries, int64_t width,
                                      function_ref<Value(Value d)> keys) {
  SmallVector<Value> initial(queries.size(), e.zeroLanes());
  return e.loop(e.index(0), e.index(width), initial, [&](Value d, ValueRange state) {
    Value lanes = keys(d);
    SmallVector<Value> next;
    for (auto [query, sum] : llvm::zip_equal(queries, state))
      next.push_back(e.add(sum, e.mul(lanes, e.load(query, d))));
    return next;
  });
}

/// Copies `width` elements from `base` on into local memory from `at` on, flushed.
static void copyFlushed(Emit &e, Value buffer, Value base, int64_t width, Value local, int64_t at) {
  e.loop(e.index(0), e.index(blocksOf(width)), [&](Value group) {
    Value column = e.mul(group, e.index(32)), mask = e.mask(group, width);
    e.storeLanes(e.flush(e.loadLanes(buffer, e.add(base, column), mask)), local, e.add(column, e.index(at)), mask);
  });
}

/// The number of the page that holds `page` of the token's sequence.
static Value physicalPage(Emit &e, Value sequences, Value pageTable, Value tablePages, Value token, Value page) {
  Value row = e.mul(e.toIndex(e.load(sequences, token)), tablePages);
  return e.toIndex(e.load(pageTable, e.add(row, page)));
}

/// How many pages the tokens of `rows` see whole, where they are of one sequence; else none.
static Value sharedPages(Emit &e, ArrayRef<Value> positions, Value sequences, ArrayRef<Value> rows) {
  Value least = positions[0], sequence = e.load(sequences, rows[0]), same;
  for (size_t i = 1; i < rows.size(); ++i) {
    Value equal = e.equal(e.load(sequences, rows[i]), sequence);
    least = e.min(least, positions[i]);
    same = same ? e.both(same, equal) : equal;
  }
  return e.select(same, e.div(e.add(least, e.index(1)), e.index(32)), e.index(0));
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
        Value first = e.mul(e.programId(kernel::Dimension::y), e.index(together)); // head
        auto headOf = [&](int64_t i) { return e.add(first, e.index(i)); };
        auto columnOf = [&](int64_t i) { return e.mul(headOf(i), e.index(head)); };
        SmallVector<Value> rows, queries; // the latter in local memory, or numbers of records
        QueryTile tile{together, {}, {}};
        for (int64_t t = 0; t < tokens; ++t) {
          Value row = e.add(e.mul(e.programId(kernel::Dimension::x), e.index(tokens)), e.index(t));
          rows.push_back(tokens == 1 ? row : e.min(row, e.sub(rowCount, e.index(1))));
          tile.positions.push_back(e.toIndex(e.load(arguments[2], rows[t])));
          Value base = e.add(e.mul(rows[t], e.index(query.pitch)), e.index(query.offset));
          for (int64_t i = 0; i < together; ++i) {
            if (quantized) {
              queries.push_back(e.add(e.mul(rows[t], e.index(heads)), headOf(i)));
              continue;
            }
            queries.push_back(e.local(32 * blocks));
            copyFlushed(e, arguments[0], e.add(base, columnOf(i)), head, queries.back(), 0);
          }
        }
        if (tokens > 1)
          tile.sharedPages = sharedPages(e, tile.positions, arguments[3], rows);
        Value keyHead = e.div(first, e.index(heads / keyHeads));
        auto entry = [&](int64_t t, Value page) {
          Value physical = physicalPage(e, arguments[3], arguments[4], tablePages, rows[t], page);
          return e.add(e.mul(physical, e.index(keyHeads)), keyHead);
        };
        auto scores = [&](int64_t first, int64_t count, Value entry) {
          ArrayRef<Value> some = ArrayRef(queries).slice(first, count);
          if (!quantized) {
            Value base = e.mul(entry, e.index(headElements));
            return floatScores(e, some, head, [&](Value d) {
              return e.toF32(e.loadLanes(arguments[1], e.add(base, e.mul(d, e.index(32)))));
            });
          }
          Value dots = e.spanDots(arguments[6], entry, e.index(0), arguments[0], some);
          SmallVector<Value> lanes;
          for (int64_t i = 0; i < count; ++i)
            lanes.push_back(e.lanesOf(dots, 0, i));
          return lanes;
        };
        auto values = [&](Value entry, Value key, int64_t block) {
          Value values = e.add(e.mul(entry, e.index(headElements)), e.index(keyElements + 32 * block));
          return e.toF32(e.loadLanes(arguments[1], e.add(values, e.mul(key, e.index(32 * blocks)))));
        };
        PageReader reader{blocks, entry, scores, values};
        for (auto [i, result] : llvm::enumerate(PageWalk(e, tile, scale, reader).run())) {
          Value to = e.add(e.mul(rows[i / together], e.index(out.pitch)), columnOf(i % together));
          Value sum = result.first.sum, total = result.second;
          e.loop(e.index(0), e.index(blocks), [&](Value group) {
            Value column = e.mul(group, e.index(32));
            e.storeLanes(e.div(e.loadLanes(total, column), sum), arguments[5], e.add(to, column), e.mask(group, head));
          });
        }
      });
  context.dispatch(function, {query.rows.ceilDiv(tokens), context.constant(heads / together)}, buffers,
                   {context.tablePages(), query.rows}, Twine("attention ") + shape);
  return success();
}

//===----------------------------------------------------------------------===//
// latent_attention
//===----------------------------------------------------------------------===//

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
  return success();
}

LogicalResult LatentAttentionOp::lower(LoweringContext &context) {
  View query = context.view(getQuery()), latent = context.view(getLatent()), ropeKey = context.view(getRopeKey());
  ParameterOp keyWeight = lookupParameter(*this, getKeyWeightAttr());
  ParameterOp valueWeight = lookupParameter(*this, getValueWeightAttr());
  int64_t heads = getHeads(), rope = ropeKey.width, rank = latent.width, head = query.width / heads, nope = head - rope;
  int64_t columns = rank + rope, pitch = 32 * blocksOf(columns), blocks = blocksOf(rank), pageElements = 32 * pitch;
  bool half = getStateFormat() == "f16";
  Type element = half ? Type(Float16Type::get(context.context())) : Type(Float32Type::get(context.context()));
  Type stateType = context.buffer(element);
  Value state = context.state(getState(), pageElements * (half ? 2 : 4));
  Value positions = context.input("positions"), sequences = context.input("sequences");
  Value pageTable = context.input("page_table");
  std::string shape =
      (getStateFormat() + "_" + Twine(heads) + "x" + Twine(nope) + "_" + Twine(rope) + "_" + Twine(rank)).str();
  auto place = [](const View &view) { return ("_" + Twine(view.offset) + "_" + Twine(view.pitch)).str(); };

  // q_latent = key_weight[h] @ q_nope, head by head.
  int64_t latentPitch = 32 * blocks;
  LoweringContext::Linear absorb;
  absorb.weights = keyWeight;
  absorb.activations = context.emitActivations(query, heads, head, nope, /*quantized=*/false);
  absorb.parts = heads;
  absorb.partStride = latentPitch;
  absorb.out = {context.allocate(query.rows * (4 * heads * latentPitch)), 0, heads * latentPitch, heads * latentPitch,
                query.rows};
  context.emitLinear(absorb, "latent_attention query");

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

  kernel::ActivationsType outType = context.activationsType(rank, /*quantized=*/false);
  Value attended = context.allocate(query.rows * (heads * outType.getTokenBytes()));
  float scale = getScale().convertToFloat();
  int64_t together = headsPerProgram(heads);
  auto function = context.kernel(
      "latent_attention_" + shape + place(query) + "_heads_" + Twine(together) + "_scale_" +
          Twine::utohexstr(getScale().bitcastToAPInt().getZExtValue()),
      {context.f32Buffer(), context.f32Buffer(), stateType, context.i32Buffer(), context.i32Buffer(),
       context.i32Buffer(), outType},
      1, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x);
        Value first = e.mul(e.programId(kernel::Dimension::y), e.index(together)); // head
        QueryTile tile{together, {e.toIndex(e.load(arguments[3], token))}, {}};
        SmallVector<Value> queries;
        auto headOf = [&](int64_t i) { return e.add(first, e.index(i)); };
        auto recordOf = [&](int64_t i) { return e.add(e.mul(token, e.index(heads)), headOf(i)); };
        for (int64_t i = 0; i < together; ++i) {
          queries.push_back(e.local(32 * blocksOf(rank) + 32 * blocksOf(rope)));
          copyFlushed(e, arguments[0], e.mul(recordOf(i), e.index(latentPitch)), rank, queries.back(), 0);
          Value row = e.add(e.add(e.mul(token, e.index(query.pitch)), e.index(query.offset + nope)),
                            e.mul(headOf(i), e.index(head)));
          copyFlushed(e, arguments[1], row, rope, queries.back(), rank);
        }
        Value staged = e.local(32 * columns);
        auto base = [&](int64_t, Value page) {
          return e.mul(physicalPage(e, arguments[4], arguments[5], arguments[7], token, page), e.index(pageElements));
        };
        auto scores = [&](int64_t first, int64_t count, Value base) {
          e.builder.create<kernel::StageOp>(e.location, arguments[2], base, staged, columns, pitch);
          return floatScores(e, ArrayRef(queries).slice(first, count), columns,
                             [&](Value d) { return e.loadLanes(staged, e.mul(d, e.index(32))); });
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
                   {absorb.out.buffer, query.buffer, state, positions, sequences, pageTable, attended},
                   {context.tablePages()}, Twine("latent_attention ") + shape);

  LoweringContext::Linear expand;
  expand.weights = valueWeight;
  expand.activations = attended;
  expand.parts = heads;
  expand.partStride = valueWeight.getShape()[1];
  expand.out = context.allocateRows(getResult(), query.rows);
  context.emitLinear(expand, "latent_attention value");
  return success();
}

} // namespace freeport::graph
