// What attentions share: the walk over a sequence's pages of keys and values, and the merging of the sums.
#pragma once

#include "dialects/graph/ops/Heads.h"

namespace freeport::graph {

/// Queries whose sums stay in registers together: each key and value is then loaded and widened once for all of them.
constexpr int64_t kQueriesTogether = 4;

/// How many of `heads` heads that read the same keys one program works on.
int64_t headsPerProgram(int64_t heads);

/// (maximum, sum of exponentials) of what has been merged so far; the weighted sums of values lie in local memory.
struct Softmax {
  mlir::Value maximum, sum;
};

/// What one program works on, at most kQueriesTogether queries: heads that read the same keys, of one token or of some
/// that follow each other.
struct QueryTile {
  int64_t heads;
  llvm::SmallVector<mlir::Value> positions; ///< of each token
  llvm::SmallVector<mlir::Value> queries;   ///< token by token: local memory, or the number of a record of activations
  mlir::Value sharedPages; ///< so many pages are the same for all tokens and seen whole; null for one token

  int64_t tokens() const { return positions.size(); }
  int64_t size() const { return queries.size(); }
};

/// How one attention reads a page of its state; `base` is what says where the page lies.
struct PageReader {
  int64_t blocks; ///< of 32 elements in a value
  llvm::function_ref<mlir::Value(int64_t token, mlir::Value page)> base;
  /// Of some of the tile's queries, unscaled, with the page's 32 keys.
  llvm::function_ref<llvm::SmallVector<mlir::Value>(llvm::ArrayRef<mlir::Value> queries, mlir::Value base)> scores;
  /// 32 elements of a key's value.
  llvm::function_ref<mlir::Value(mlir::Value base, mlir::Value key, int64_t block)> value;
};

/// Elements of 32 keys that lie together; `keys` gives element d of them.
struct KeyPart {
  int64_t width;
  llvm::function_ref<mlir::Value(mlir::Value d)> keys;
};

/// Scores of float queries, each in local memory, with the 32 keys that the parts make up, in the order of the sum.
llvm::SmallVector<mlir::Value> floatScores(kernel::Emit &e, llvm::ArrayRef<mlir::Value> queries,
                                           llvm::ArrayRef<KeyPart> parts);

/// One walk over pages: maxima and sums travel in values, two for each query, weighted sums of values in local memory.
class PageWalk {
public:
  PageWalk(kernel::Emit &e, const QueryTile &tile, float scale, const PageReader &reader);

  /// Returns each query's sum and the local memory with its weighted sums.
  llvm::SmallVector<std::pair<Softmax, mlir::Value>> run();

private:
  /// Merges the page at `base` into the spans of queries `first` to `first + count`. The first `keys` keys are visible;
  /// `visible` says so for lanes, null for all of them.
  llvm::SmallVector<mlir::Value> visit(int64_t first, int64_t count, mlir::Value base, mlir::Value keys,
                                       mlir::Value visible, mlir::Value firstOfSpan, mlir::ValueRange state);

  kernel::Emit &e;
  const QueryTile &tile;
  float scale;
  const PageReader &reader;
  llvm::SmallVector<mlir::Value> totals, spans;
};

/// Copies `width` elements from `base` on into local memory from `at` on, flushed.
void copyFlushed(kernel::Emit &e, mlir::Value buffer, mlir::Value base, int64_t width, mlir::Value local, int64_t at);

/// The number of the page that holds `page` of the token's sequence.
mlir::Value physicalPage(kernel::Emit &e, mlir::Value sequences, mlir::Value pageTable, mlir::Value tablePages,
                         mlir::Value token, mlir::Value page);

/// How many pages the tokens of `rows` see whole, where they are of one sequence; else none.
mlir::Value sharedPages(kernel::Emit &e, llvm::ArrayRef<mlir::Value> positions, mlir::Value sequences,
                        llvm::ArrayRef<mlir::Value> rows);

/// Queries of several tokens and heads in rows of memory, and the results that take their places.
struct QueryRows {
  int64_t tokens, together; ///< of one program, the grid's x; heads of one program
  mlir::Value head;         ///< the program's first
  int64_t valueWidth;       ///< of a head

  /// Reads the program's queries into local memory from a kernel's `arguments`. There are `count` rows; where the tile
  /// has more tokens, the last row stands in.
  QueryTile read(kernel::Emit &e, const Heads &queries, mlir::ValueRange arguments, mlir::Value positions,
                 mlir::Value sequences, mlir::Value count);
  /// The program's queries where they are records of activations, `heads` of each row.
  QueryTile records(kernel::Emit &e, int64_t heads, mlir::Value positions, mlir::Value sequences, mlir::Value count);
  /// Divides what a walk returned by its sums and writes it.
  void write(kernel::Emit &e, llvm::ArrayRef<std::pair<Softmax, mlir::Value>> results, const Outputs &out,
             mlir::ValueRange arguments);

  llvm::SmallVector<mlir::Value> rows; ///< of each token, once they were read

private:
  QueryTile place(kernel::Emit &e, mlir::Value positions, mlir::Value sequences, mlir::Value count);
};

} // namespace freeport::graph
