// The walk over pages of keys and values. The order of every sum is design.md §4's: scores by dimension, pages of 32
// keys with keys ascending, pages in order within a span of 32 pages, spans alike.
#include "dialects/graph/ops/PageWalk.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

int64_t headsPerProgram(int64_t heads) {
  int64_t count = kQueriesTogether;
  while (heads % count)
    count /= 2;
  return count;
}

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

PageWalk::PageWalk(Emit &e, const QueryTile &tile, float scale, const PageReader &reader)
    : e(e), tile(tile), scale(scale), reader(reader) {
  for (int64_t i = 0; i < tile.size(); ++i) {
    totals.push_back(e.local(32 * reader.blocks));
    spans.push_back(e.local(32 * reader.blocks));
  }
}

static Softmax stateOf(ValueRange values, int64_t query) { return {values[2 * query], values[2 * query + 1]}; }

SmallVector<Value> floatScores(Emit &e, ArrayRef<Value> queries, ArrayRef<KeyPart> parts) {
  SmallVector<Value> sums(queries.size(), e.zeroLanes());
  int64_t first = 0;
  for (const KeyPart &part : parts) {
    sums = e.loop(e.index(0), e.index(part.width), sums, [&](Value d, ValueRange state) {
      Value keys = part.keys(d), element = first ? e.add(d, e.index(first)) : d;
      SmallVector<Value> next;
      for (auto [query, sum] : llvm::zip_equal(queries, state))
        next.push_back(e.add(sum, e.mul(keys, e.load(query, element))));
      return next;
    });
    first += part.width;
  }
  return sums;
}

SmallVector<Value> PageWalk::visit(int64_t first, int64_t count, Value base, Value keys, Value visible,
                                   Value firstOfSpan, ValueRange state) {
  SmallVector<Value> maxima, weights, sums;
  for (Value score : reader.scores(ArrayRef(tile.queries).slice(first, count), base)) {
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

void copyFlushed(Emit &e, Value buffer, Value base, int64_t width, Value local, int64_t at) {
  e.loop(e.index(0), e.index(blocksOf(width)), [&](Value group) {
    Value column = e.mul(group, e.index(32)), mask = e.mask(group, width);
    e.storeLanes(e.flush(e.loadLanes(buffer, e.add(base, column), mask)), local, e.add(column, e.index(at)), mask);
  });
}

Value physicalPage(Emit &e, Value sequences, Value pageTable, Value tablePages, Value token, Value page) {
  Value row = e.mul(e.toIndex(e.load(sequences, token)), tablePages);
  return e.toIndex(e.load(pageTable, e.add(row, page)));
}

Value sharedPages(Emit &e, ArrayRef<Value> positions, Value sequences, ArrayRef<Value> rows) {
  Value least = positions[0], sequence = e.load(sequences, rows[0]), same;
  for (size_t i = 1; i < rows.size(); ++i) {
    Value equal = e.equal(e.load(sequences, rows[i]), sequence);
    least = e.min(least, positions[i]);
    same = same ? e.both(same, equal) : equal;
  }
  return e.select(same, e.div(e.add(least, e.index(1)), e.index(32)), e.index(0));
}

QueryTile QueryRows::place(Emit &e, Value positions, Value sequences, Value count) {
  QueryTile tile{together, {}, {}, {}};
  for (int64_t t = 0; t < tokens; ++t) {
    Value row = e.add(e.mul(e.programId(kernel::Dimension::x), e.index(tokens)), e.index(t));
    rows.push_back(tokens == 1 ? row : e.min(row, e.sub(count, e.index(1))));
    tile.positions.push_back(e.toIndex(e.load(positions, rows[t])));
  }
  if (tokens > 1)
    tile.sharedPages = sharedPages(e, tile.positions, sequences, rows);
  return tile;
}

QueryTile QueryRows::read(Emit &e, const Heads &queries, ValueRange arguments, Value positions, Value sequences,
                          Value count) {
  QueryTile tile = place(e, positions, sequences, count);
  SmallVector<Value> numbers;
  for (int64_t i = 0; i < together; ++i)
    numbers.push_back(e.add(head, e.index(i)));
  for (int64_t t = 0; t < tokens; ++t) {
    SmallVector<Value> locals;
    for (int64_t i = 0; i < together; ++i)
      locals.push_back(e.local(queries.localElements()));
    queries.read(e, arguments, rows[t], tile.positions[t], numbers, locals);
    tile.queries.append(locals);
  }
  return tile;
}

QueryTile QueryRows::records(Emit &e, int64_t heads, Value positions, Value sequences, Value count) {
  QueryTile tile = place(e, positions, sequences, count);
  for (Value row : rows)
    for (int64_t i = 0; i < together; ++i)
      tile.queries.push_back(e.add(e.mul(row, e.index(heads)), e.add(head, e.index(i))));
  return tile;
}

void QueryRows::write(Emit &e, ArrayRef<std::pair<Softmax, Value>> results, const Outputs &out, ValueRange arguments) {
  for (auto [i, result] : llvm::enumerate(results)) {
    Value row = rows[i / together], part = e.add(head, e.index(i % together));
    Value sum = result.first.sum, total = result.second;
    e.loop(e.index(0), e.index(blocksOf(valueWidth)), [&](Value group) {
      Value lanes = e.div(e.loadLanes(total, e.mul(group, e.index(32))), sum);
      out.store(e, arguments, lanes, row, group, part, valueWidth);
    });
  }
}

} // namespace freeport::graph
