// Every byte of a small package against the written layout, from a checkpoint whose values the test knows. What the
// writer leaves on disk beside it: nothing of its own, and nothing of others less.
#include "compiler/package/BlockPacker.h"
#include "compiler/package/PackageWriter.h"
#include "runtime/package_header.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sys/file.h>
#include <unistd.h>

namespace freeport {
namespace {

namespace fs = std::filesystem;
using kernel::BlockFormat;

std::string readFile(const std::string &path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

uint64_t roundUp(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

bool allZero(llvm::StringRef bytes) { return bytes.find_first_not_of('\0') == llvm::StringRef::npos; }

class PackageLayoutTest : public testing::Test {
protected:
  void SetUp() override {
    folder = (fs::temp_directory_path() / ("freeport-layout-" + std::to_string(::getpid()))).string();
    output = folder + "/out/model.port";
    ASSERT_TRUE(fs::create_directories(folder + "/out"));
    addTensor("matrix", 70, 40);
    for (std::string expert : {"0", "1", "2"}) {
      addTensor("gate" + expert, 33, 32);
      addTensor("down" + expert, 32, 64);
    }
    addTensor("wide", 96, 70);
    addTensor("norm", 0, 5);
    addTensor("eight", 4, 4, "F8_E4M3");
    std::string header = "{" + entries + "}";
    uint64_t size = header.size();
    std::ofstream stream(folder + "/model.safetensors", std::ios::binary);
    stream.write(reinterpret_cast<const char *>(&size), 8) << header << data;
    std::ofstream(folder + "/config.json") << "{}";
  }
  void TearDown() override { fs::remove_all(folder); }

  /// Element i of the n-th tensor is n + i / 1024, so that no two rows are alike; rows = 0: of rank 1.
  void addTensor(const std::string &name, int64_t rows, int64_t inputs, const std::string &dtype = "F32") {
    bool single = rows == 0;
    std::vector<float> &all = values[name];
    all.resize((single ? 1 : rows) * inputs);
    for (size_t i = 0; i < all.size(); ++i)
      all[i] = values.size() + i / 1024.0f;
    size_t start = data.size(), bytes = all.size() * (dtype == "F32" ? 4 : 1);
    data.append(reinterpret_cast<const char *>(all.data()), bytes);
    std::string shape = single ? std::to_string(inputs) : std::to_string(rows) + "," + std::to_string(inputs);
    entries += (entries.empty() ? "\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
               "],\"data_offsets\":[" + std::to_string(start) + "," + std::to_string(data.size()) + "]}";
  }

  static ParameterPlan plan(std::string name, BlockFormat format, std::vector<int64_t> shape,
                            std::vector<std::vector<Piece>> pieces, std::string record = "") {
    return {std::move(name), format, std::move(shape), std::move(pieces), {}, std::move(record)};
  }

  /// Two banks of one record, a matrix, a matrix made of a transposed piece, and both kinds of rank 1.
  std::vector<ParameterPlan> plans() const {
    ParameterPlan computed = plan("table", BlockFormat::f32, {3}, {});
    computed.values = {1, 2, 3};
    return {plan("norm", BlockFormat::f32, {7}, {{{"norm", 0, 5, false}, {"norm", 1, 2, false}}}),
            plan("down", BlockFormat::q4, {3, 32, 64},
                 {{{"down0", 0, 32, false}}, {{"down1", 0, 32, false}}, {{"down2", 0, 32, false}}}, "experts"),
            plan("gate", BlockFormat::q8, {3, 33, 32},
                 {{{"gate0", 0, 33, false}}, {{"gate1", 0, 33, false}}, {{"gate2", 0, 33, false}}}, "experts"),
            plan("matrix", BlockFormat::q4, {70, 40}, {{{"matrix", 0, 70, false}}}),
            plan("turned", BlockFormat::f32, {140, 33}, {{{"wide", 40, 33, true}, {"wide", 3, 33, true}}}),
            computed};
  }

  struct Written {
    std::vector<Place> places;
    FileSegment graph;
  };
  /// Writes a package of `list`; the error's text where that fails.
  llvm::Expected<Written> write(std::vector<ParameterPlan> list, bool keepGoing = true) {
    auto checkpoint = checkpoint::Checkpoint::open(folder);
    if (!checkpoint)
      return checkpoint.takeError();
    auto writer = PackageWriter::create(output);
    if (!writer)
      return writer.takeError();
    auto places = writer->writeWeights(list, *checkpoint, [&](uint64_t, uint64_t) { return keepGoing; });
    if (!places)
      return places.takeError();
    auto graph = writer->writeSegment("the graph");
    if (!graph)
      return graph.takeError();
    if (llvm::Error error = writer->finish("the manifest"))
      return std::move(error);
    return Written{*places, *graph};
  }
  std::string failure(std::vector<ParameterPlan> list, bool keepGoing = true) {
    auto written = write(std::move(list), keepGoing);
    return written ? "" : llvm::toString(written.takeError());
  }
  size_t filesInOutput() const {
    return std::distance(fs::directory_iterator(folder + "/out"), fs::directory_iterator());
  }
  /// The bytes of a whole tensor.
  std::string packed(BlockFormat format, const std::string &tensor, int64_t rows, int64_t inputs) const {
    int64_t stride = roundUp(inputs, 32), blocks = (rows + 31) / 32,
            blockBytes = stride / 32 * kernel::recordBytes(format);
    std::vector<float> padded(blocks * 32 * stride);
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(values.at(tensor).data() + row * inputs, inputs, padded.data() + row * stride);
    std::string bytes(blocks * blockBytes, 0);
    for (int64_t block = 0; block < blocks; ++block)
      packRowBlock(format, padded.data() + block * 32 * stride, stride, inputs,
                   reinterpret_cast<uint8_t *>(bytes.data()) + block * blockBytes);
    return bytes;
  }

  std::string folder, output, entries, data;
  std::map<std::string, std::vector<float>> values;
};

TEST_F(PackageLayoutTest, HeaderAndSegmentsLieAsDocumented) {
  auto written = write({plan("matrix", BlockFormat::q4, {70, 40}, {{{"matrix", 0, 70, false}}})});
  ASSERT_TRUE(bool(written)) << llvm::toString(written.takeError());
  std::string file = readFile(output);
  PackageHeader header;
  ASSERT_GE(file.size(), sizeof(header));
  std::memcpy(&header, file.data(), sizeof(header));
  EXPECT_EQ(std::string(header.magic, 8), "FREEPORT");
  EXPECT_EQ(header.version, 1u);
  EXPECT_EQ(header.reserved, 0u);
  EXPECT_EQ(header.padding, 0u);
  EXPECT_EQ(header.file_size, file.size());
  EXPECT_EQ(header.header_checksum, XXH3_64bits(file.data(), 48));
  EXPECT_EQ(file.substr(header.manifest_offset, header.manifest_size), "the manifest");
  EXPECT_EQ(header.manifest_checksum, XXH3_64bits("the manifest", 12));
  EXPECT_EQ(header.manifest_offset + header.manifest_size, file.size()) << "the manifest is last";
  EXPECT_EQ(file.substr(written->graph.offset, written->graph.size), "the graph");
  EXPECT_EQ(written->graph.checksum, XXH3_64bits("the graph", 9));
  const Place &place = written->places[0];
  for (uint64_t offset : {place.offset, written->graph.offset, header.manifest_offset})
    EXPECT_EQ(offset % 65536, 0u);
  EXPECT_LT(place.offset, written->graph.offset);
  llvm::StringRef bytes = file;
  EXPECT_TRUE(allZero(bytes.slice(64, place.offset)));
  EXPECT_TRUE(allZero(bytes.slice(place.offset + place.entrySize, written->graph.offset)));
  EXPECT_TRUE(allZero(bytes.slice(written->graph.offset + 9, header.manifest_offset)));
  EXPECT_EQ(file.substr(place.offset, place.entrySize), packed(BlockFormat::q4, "matrix", 70, 40));
  EXPECT_EQ(place.checksum, XXH3_64bits(file.data() + place.offset, place.entrySize));
}

TEST_F(PackageLayoutTest, BanksOfARecordLieSideBySide) {
  auto list = plans();
  auto written = write(list);
  ASSERT_TRUE(bool(written)) << llvm::toString(written.takeError());
  std::string file = readFile(output);
  const Place &down = written->places[1], &gate = written->places[2];
  EXPECT_EQ(down.offset % 4096, 0u);
  EXPECT_EQ(down.entrySize, 2u * 576);
  EXPECT_EQ(gate.entrySize, 2u * 1088);
  EXPECT_EQ(gate.offset, down.offset + down.entrySize) << "in the order of the list";
  EXPECT_EQ(down.entryStride, 4096u);
  EXPECT_EQ(gate.entryStride, down.entryStride);
  std::string downBytes, gateBytes;
  for (int entry = 0; entry < 3; ++entry) {
    uint64_t record = down.offset + entry * down.entryStride;
    EXPECT_EQ(file.substr(record, down.entrySize), packed(BlockFormat::q4, "down" + std::to_string(entry), 32, 64));
    EXPECT_EQ(file.substr(record + down.entrySize, gate.entrySize),
              packed(BlockFormat::q8, "gate" + std::to_string(entry), 33, 32));
    EXPECT_TRUE(allZero(llvm::StringRef(file).slice(record + down.entrySize + gate.entrySize, record + 4096)));
    downBytes += file.substr(record, down.entrySize);
    gateBytes += file.substr(record + down.entrySize, gate.entrySize);
  }
  EXPECT_EQ(down.checksum, XXH3_64bits(downBytes.data(), downBytes.size()))
      << "over the entries, without what lies between";
  EXPECT_EQ(gate.checksum, XXH3_64bits(gateBytes.data(), gateBytes.size()));
  for (auto [index, place] : llvm::enumerate(written->places))
    if (index != 2) // the record's second bank
      EXPECT_EQ(place.offset % 64, 0u) << list[index].name;
}

TEST_F(PackageLayoutTest, PlainArraysAndTransposedPieces) {
  std::vector<ParameterPlan> list = plans();
  auto written = write({list[0], list[5], list[4]});
  ASSERT_TRUE(bool(written)) << llvm::toString(written.takeError());
  std::string file = readFile(output);
  auto floatAt = [&](uint64_t offset) {
    float value;
    std::memcpy(&value, file.data() + offset, 4);
    return value;
  };
  const Place &norm = written->places[0], &table = written->places[1], &turned = written->places[2];
  EXPECT_EQ(norm.entrySize, 64u);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(floatAt(norm.offset + 4 * i), i < 5 ? values["norm"][i] : i < 7 ? values["norm"][i - 4] : 0);
    EXPECT_EQ(floatAt(table.offset + 4 * i), i < 3 ? i + 1 : 0);
  }
  // Row r of the parameter is column r % 70 of the tensor's rows 40 .. 72, then 3 .. 35.
  for (int64_t row = 0; row < 160; ++row)
    for (int64_t k = 0; k < 64; ++k) {
      uint64_t record = turned.offset + (row / 32 * 2 + k / 32) * 4096;
      float expected = row < 140 && k < 33 ? values["wide"][((row < 70 ? 40 : 3) + k) * 70 + row % 70] : 0;
      ASSERT_EQ(floatAt(record + 4 * (32 * (k % 32) + row % 32)), expected) << "row " << row << ", input " << k;
    }
}

TEST_F(PackageLayoutTest, NothingAppearsUntilFinished) {
  std::ofstream(output) << "an older package";
  {
    auto writer = PackageWriter::create(output);
    ASSERT_TRUE(bool(writer)) << llvm::toString(writer.takeError());
    auto segment = writer->writeSegment("text");
    ASSERT_TRUE(bool(segment)) << llvm::toString(segment.takeError());
    EXPECT_EQ(readFile(output), "an older package");
  }
  EXPECT_EQ(readFile(output), "an older package");
  EXPECT_EQ(filesInOutput(), 1u);
  EXPECT_EQ(failure(plans(), /*keepGoing=*/false), "cancelled");
  EXPECT_EQ(readFile(output), "an older package");
  EXPECT_EQ(filesInOutput(), 1u);
}

TEST_F(PackageLayoutTest, RefusesWhatItCannotWrite) {
  std::string good = output;
  output = folder + "/absent/model.port";
  EXPECT_NE(failure(plans()).find("cannot create the output: No such file or directory"), std::string::npos);
  output = folder + "/out";
  EXPECT_NE(failure(plans()).find("expects the name of a file to write, got a folder"), std::string::npos);
  output = good;
  std::string message = failure({plan("eight", BlockFormat::q8, {4, 4}, {{{"eight", 0, 4, false}}})});
  EXPECT_NE(message.find("FP8 checkpoints import, but packing them is not supported yet"), std::string::npos)
      << message;
  EXPECT_EQ(filesInOutput(), 0u);
}

TEST_F(PackageLayoutTest, StaleTemporariesGoAndLiveOnesStay) {
  std::string stale = folder + "/out/.model.port.1.partial", live = folder + "/out/.model.port.2.partial";
  std::string other = folder + "/out/.other.port.3.partial";
  for (const std::string &name : {stale, live, other})
    std::ofstream(name) << "half";
  int handle = ::open(live.c_str(), O_RDWR);
  ASSERT_GE(handle, 0);
  ASSERT_EQ(::flock(handle, LOCK_EX), 0); // as a running compile holds it
  {
    auto writer = PackageWriter::create(output);
    ASSERT_TRUE(bool(writer)) << llvm::toString(writer.takeError());
    EXPECT_FALSE(fs::exists(stale));
    EXPECT_TRUE(fs::exists(live));
    EXPECT_TRUE(fs::exists(other)) << "another output's";
  }
  ::close(handle);
}

} // namespace
} // namespace freeport
