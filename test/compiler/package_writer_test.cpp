// The writer on a real checkpoint: where parameters land, that the same input gives the same bytes, and that nothing is
// left behind when a compile fails or was killed.
#include "compiler/lowering/Register.h"
#include "compiler/package/Manifest.h"
#include "runtime/package_header.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/IR/MLIRContext.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/resource.h>

namespace freeport {
namespace {

namespace fs = std::filesystem;

std::string readAll(const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

class PackageWriterTest : public testing::Test {
protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("freeport-writer-" + std::to_string(::getpid()));
    fs::create_directories(folder);
    mlir::DialectRegistry registry;
    registerDialects(registry);
    context = std::make_unique<mlir::MLIRContext>(registry, mlir::MLIRContext::Threading::DISABLED);
    auto opened = checkpoint::Checkpoint::open(FREEPORT_SOURCE_DIR "/test/data/models/deepseek_v3");
    ASSERT_TRUE(bool(opened));
    checkpoint = std::make_unique<checkpoint::Checkpoint>(std::move(*opened));
    auto model = frontend::importCheckpoint(*context, *checkpoint, {"q4"});
    ASSERT_TRUE(bool(model));
    plans = planParameters(*model->module);
    leftOut = model->leftOut;
  }
  void TearDown() override { fs::remove_all(folder); }

  std::vector<Place> write(const fs::path &path) {
    auto writer = PackageWriter::create(path.string());
    EXPECT_TRUE(bool(writer));
    auto places = writer->writeWeights(plans, *checkpoint, [](uint64_t, uint64_t) { return true; });
    EXPECT_TRUE(bool(places));
    EXPECT_FALSE(bool(writer->finish("manifest")));
    return *places;
  }
  size_t files() const { return std::distance(fs::directory_iterator(folder), fs::directory_iterator()); }

  fs::path folder;
  std::unique_ptr<mlir::MLIRContext> context;
  std::unique_ptr<checkpoint::Checkpoint> checkpoint;
  std::vector<ParameterPlan> plans;
  std::vector<std::string> leftOut;
};

TEST_F(PackageWriterTest, PlacesFollowTheFormat) {
  std::vector<Place> places = write(folder / "a.port");
  std::string bytes = readAll(folder / "a.port");
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  const Place *gate = nullptr, *up = nullptr, *down = nullptr;
  for (size_t number = 0; number < plans.size(); ++number) {
    const ParameterPlan &plan = plans[number];
    const Place &place = places[number];
    EXPECT_EQ(place.offset % 64, 0u) << plan.name;
    uint64_t entries = plan.shape.size() == 3 ? plan.shape[0] : 1;
    for (uint64_t entry = 0; entry < entries; ++entry)
      runs.push_back({place.offset + entry * place.entryStride, place.entrySize});
    if (plan.name == "model.layers.2.mlp.experts.gate")
      gate = &place;
    if (plan.name == "model.layers.2.mlp.experts.up")
      up = &place;
    if (plan.name == "model.layers.2.mlp.experts.down")
      down = &place;
    if (plan.name == "model.norm.weight") { // a plain array, widened from the checkpoint
      const checkpoint::TensorInfo *tensor = checkpoint->find(plan.name);
      std::vector<uint8_t> raw(tensor->size);
      ASSERT_FALSE(bool(checkpoint->read(*tensor, 0, raw)));
      for (int64_t i = 0; i < plan.shape[0]; ++i) {
        uint32_t expected = (raw[2 * i] | raw[2 * i + 1] << 8) << 16, got;
        std::memcpy(&got, bytes.data() + place.offset + 4 * i, 4);
        EXPECT_EQ(got, expected);
      }
    }
  }
  llvm::sort(runs);
  for (size_t number = 1; number < runs.size(); ++number)
    EXPECT_LE(runs[number - 1].first + runs[number - 1].second, runs[number].first) << "runs overlap";
  // An expert is one contiguous record that begins on a page.
  ASSERT_TRUE(gate && up && down);
  uint64_t first = std::min({gate->offset, up->offset, down->offset});
  EXPECT_EQ(first % 4096, 0u);
  EXPECT_EQ(gate->entryStride % 4096, 0u);
  EXPECT_EQ(gate->entryStride, down->entryStride);
  EXPECT_LE(std::max({gate->offset, up->offset, down->offset}) - first, gate->entryStride);
}

TEST_F(PackageWriterTest, TheSameInputGivesTheSameBytes) {
  write(folder / "a.port");
  write(folder / "b.port");
  EXPECT_TRUE(readAll(folder / "a.port") == readAll(folder / "b.port"));
  EXPECT_EQ(files(), 2u);
  EXPECT_EQ(readAll(folder / "a.port").substr(0, 8), "FREEPORT");
}

TEST_F(PackageWriterTest, AnUnfinishedPackageLeavesNothing) {
  {
    auto writer = PackageWriter::create((folder / "a.port").string());
    ASSERT_TRUE(bool(writer));
    auto places = writer->writeWeights(plans, *checkpoint, [](uint64_t, uint64_t) { return false; });
    ASSERT_FALSE(bool(places));
    EXPECT_EQ(llvm::toString(places.takeError()), "cancelled");
    EXPECT_EQ(files(), 1u);
  }
  EXPECT_EQ(files(), 0u);
}

TEST_F(PackageWriterTest, AFullDiskIsAnError) {
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  auto *handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = {100'000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  {
    auto writer = PackageWriter::create((folder / "a.port").string());
    ASSERT_TRUE(bool(writer));
    auto places = writer->writeWeights(plans, *checkpoint, [](uint64_t, uint64_t) { return true; });
    EXPECT_FALSE(bool(places));
    if (!places)
      EXPECT_NE(llvm::toString(places.takeError()).find("a.port: cannot write the output: File too large"),
                std::string::npos);
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(files(), 0u);
}

TEST_F(PackageWriterTest, AKilledCompilesTemporaryIsRemoved) {
  std::ofstream(folder / ".a.port.12345.partial") << "stale";
  std::ofstream(folder / ".other.port.12345.partial") << "of another output";
  write(folder / "a.port");
  EXPECT_FALSE(fs::exists(folder / ".a.port.12345.partial"));
  EXPECT_TRUE(fs::exists(folder / ".other.port.12345.partial"));
}

TEST_F(PackageWriterTest, TheMultiTokenPredictionLayerIsLeftOut) {
  EXPECT_FALSE(leftOut.empty());
  for (const std::string &tensor : leftOut)
    EXPECT_EQ(tensor.rfind("model.layers.4.", 0), 0u) << tensor;
}

} // namespace
} // namespace freeport
