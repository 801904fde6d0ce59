// What a model decides before it touches a device.
#include "runtime/model.h"

#include <gtest/gtest.h>

namespace freeport {
namespace {

using Pairs = std::vector<std::pair<uint64_t, uint64_t>>;

Pairs runs(const Pairs &ranges, uint64_t limit) {
  std::vector<ByteRange> given;
  for (const auto &[begin, end] : ranges)
    given.push_back({begin, end});
  Pairs result;
  for (const ByteRange &run : cut_runs(given, limit))
    result.push_back({run.begin, run.end});
  return result;
}

TEST(CutRuns, OneRunWhereTheLimitAllows) {
  EXPECT_EQ(runs({}, 10), Pairs());
  EXPECT_EQ(runs({{64, 128}, {0, 10}, {10, 60}}, UINT64_MAX), (Pairs{{0, 128}}));
  EXPECT_EQ(runs({{0, 10}, {10, 20}}, 20), (Pairs{{0, 20}}));
}

TEST(CutRuns, EndsRunsBetweenRanges) {
  EXPECT_EQ(runs({{0, 10}, {16, 26}, {32, 42}, {48, 58}}, 30), (Pairs{{0, 26}, {32, 58}}));
  EXPECT_EQ(runs({{0, 10}, {10, 20}, {20, 30}}, 10), (Pairs{{0, 10}, {10, 20}, {20, 30}}));
}

TEST(CutRuns, NeverCutsWhatInterleaves) {
  EXPECT_EQ(runs({{0, 10}, {10, 50}, {20, 60}, {30, 70}, {70, 80}}, 65), (Pairs{{0, 10}, {10, 70}, {70, 80}}));
  EXPECT_EQ(runs({{0, 100}, {100, 110}}, 50), (Pairs{{0, 100}, {100, 110}}));
  EXPECT_EQ(runs({{0, 5}, {10, 100}, {20, 30}, {100, 110}}, 50), (Pairs{{0, 5}, {10, 100}, {100, 110}}));
}

} // namespace
} // namespace freeport
