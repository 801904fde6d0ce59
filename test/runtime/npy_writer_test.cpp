// Arrays written as .npy: their bytes, what they replace, and what a failure leaves behind.
#include "runtime/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace freeport {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

template <typename T> std::string bytes_of(const std::vector<T> &values) {
  return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

class NpyWriterTest : public testing::Test {
protected:
  NpyWriterTest() {
    std::string name = (fs::temp_directory_path() / "freeport-npy-XXXXXX").string();
    folder = ::mkdtemp(name.data());
    path = (folder / "out.npy").string();
  }
  ~NpyWriterTest() override { fs::remove_all(folder); }

  size_t files() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {})); }
  Status write(const std::string &to, const std::vector<int64_t> &shape, const std::vector<float> &values) {
    FP_ASSIGN_OR_RETURN(NpyWriter writer, NpyWriter::create(to, shape));
    FP_RETURN_IF_ERROR(writer.append(values));
    return writer.finish();
  }

  fs::path folder;
  std::string path;
};

TEST_F(NpyWriterTest, WritesWhatNumPyWrites) {
  ASSERT_TRUE(write(path, {2, 3}, {0, 1, 2, 3, 4, INFINITY}).ok());
  std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  std::string expected = std::string("\x93NUMPY\x01\x00\x76\x00", 10) + text +
                         std::string(128 - 11 - text.size(), ' ') + "\n" + bytes_of<float>({0, 1, 2, 3, 4, INFINITY});
  EXPECT_EQ(read_file(path), expected);
  EXPECT_EQ(files(), 1u);
}

TEST_F(NpyWriterTest, WritesEveryRank) {
  const std::pair<std::vector<int64_t>, const char *> cases[] = {
      {{}, "'shape': (), }"}, {{1}, "'shape': (1,), }"}, {{1, 1, 1}, "'shape': (1, 1, 1), }"}};
  for (const auto &[shape, text] : cases) {
    ASSERT_TRUE(write(path, shape, {7}).ok());
    std::string file = read_file(path);
    EXPECT_NE(file.find(text), std::string::npos) << file;
    EXPECT_EQ(file.size(), 128u + 4);
  }
  ASSERT_TRUE(write(path, {0, 5}, {}).ok());
  EXPECT_EQ(fs::file_size(path), 128u);
  std::vector<int64_t> long_shape(32, 1);
  long_shape[0] = INT64_MAX / 4;
  auto writer = NpyWriter::create(path, long_shape);
  EXPECT_TRUE(writer.ok());
}

TEST_F(NpyWriterTest, StreamsAndReplaces) {
  std::ofstream(path) << "old";
  auto writer = NpyWriter::create(path, std::vector<int64_t>{1000, 100});
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  std::vector<float> all;
  for (int chunk = 0; chunk < 10; ++chunk) {
    std::vector<float> values(10000, static_cast<float>(chunk));
    ASSERT_TRUE(writer->append(values).ok());
    all.insert(all.end(), values.begin(), values.end());
  }
  EXPECT_EQ(read_file(path), "old");
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(read_file(path).substr(128), bytes_of(all));
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(writer->finish().code(), Code::kInvalidArgument);
  EXPECT_EQ(writer->append({}).code(), Code::kInvalidArgument);
}

TEST_F(NpyWriterTest, UnfinishedFilesVanish) {
  const std::vector<int64_t> shape = {2};
  const std::vector<float> values = {1, 2, 3};
  {
    auto writer = NpyWriter::create(path, shape);
    ASSERT_TRUE(writer.ok());
    NpyWriter moved = std::move(writer).value();
    ASSERT_TRUE(moved.append(std::span(values).first(2)).ok());
    EXPECT_EQ(files(), 1u);
  }
  EXPECT_EQ(files(), 0u);
  auto missing = NpyWriter::create(path, shape);
  ASSERT_TRUE(missing->append(std::span(values).first(1)).ok());
  Status status = missing->finish();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), path + ": expects 2 values, got 1");
  EXPECT_EQ(files(), 0u);
  status = write(path, shape, values);
  EXPECT_EQ(status.code(), Code::kOutOfRange);
  EXPECT_EQ(status.message(), path + ": expects 2 more values, got 3");
  EXPECT_EQ(files(), 0u);
}

TEST_F(NpyWriterTest, WritersDoNotMeet) {
  const std::vector<int64_t> shape = {1};
  auto first = NpyWriter::create(path, shape), second = NpyWriter::create(path, shape);
  ASSERT_TRUE(first.ok() && second.ok());
  const float one = 1, two = 2;
  ASSERT_TRUE(first->append({&one, 1}).ok() && second->append({&two, 1}).ok());
  ASSERT_TRUE(first->finish().ok() && second->finish().ok());
  EXPECT_EQ(read_file(path).substr(128), bytes_of<float>({2}));
  EXPECT_EQ(files(), 1u);
}

TEST_F(NpyWriterTest, RefusesShapesAndFolders) {
  auto refused = [&](const std::string &to, const std::vector<int64_t> &shape) {
    auto writer = NpyWriter::create(to, shape);
    EXPECT_FALSE(writer.ok());
    return writer.status().message();
  };
  EXPECT_EQ(refused(path, {2, -1}), path + ": expects dimensions of at least 0, got -1");
  EXPECT_EQ(refused(path, {INT64_MAX, 0, 2}), path + ": expects an array below 2^63 bytes, got a larger one");
  EXPECT_EQ(refused(path, std::vector<int64_t>(33, 1)), path + ": expects an array of rank at most 32, got 33");
  EXPECT_EQ(refused(folder.string(), {1}), folder.string() + ": expects the name of a file to write, got a folder");
  std::string lost = (folder / "absent" / "out.npy").string();
  EXPECT_EQ(refused(lost, {1}), lost + ": cannot create the output: No such file or directory");
  EXPECT_EQ(files(), 0u);
}

TEST_F(NpyWriterTest, FullDevicesAreReported) {
  Status status = write("/dev/full", {1}, {1});
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_EQ(status.message(), "/dev/full: cannot write the output: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  EXPECT_TRUE(write("/dev/null", {1}, {1}).ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(NpyWriterTest, PipesAreWrittenStraight) {
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::string found;
  std::thread reader([&] { found = read_file(path); });
  Status status = write(path, {2}, {1, 2});
  reader.join();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(found.substr(128), bytes_of<float>({1, 2}));
  EXPECT_TRUE(fs::is_fifo(path));
  EXPECT_EQ(files(), 1u);
}

TEST_F(NpyWriterTest, LinksStay) {
  fs::create_directory(folder / "real");
  std::ofstream(folder / "real" / "array.npy") << "old";
  fs::create_symlink("real/array.npy", path);
  ASSERT_TRUE(write(path, {1}, {1}).ok());
  EXPECT_TRUE(fs::is_symlink(path));
  EXPECT_EQ(fs::file_size(folder / "real" / "array.npy"), 132u);
  EXPECT_EQ(files(), 2u);

  // What /dev/stdout is when a shell has sent it to a file.
  std::ofstream redirected(folder / "redirected");
  int handle = ::open((folder / "redirected").c_str(), O_WRONLY);
  ASSERT_TRUE(write("/dev/fd/" + std::to_string(handle), {1}, {1}).ok());
  ::close(handle);
  EXPECT_EQ(fs::file_size(folder / "redirected"), 132u);
}

} // namespace
} // namespace freeport
