// Checkpoint folders written to a temporary place: whole ones are read back, and each way to break one is refused in
// words.
#include "compiler/checkpoint/Checkpoint.h"

#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>

namespace freeport::checkpoint {
namespace {

class Folder : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("freeport-checkpoint", path));
    write("config.json", "{}");
  }
  void TearDown() override { llvm::sys::fs::remove_directories(path); }

  std::string at(llvm::StringRef name) { return (path + "/" + name).str(); }
  void write(llvm::StringRef name, llvm::StringRef bytes) {
    std::error_code code;
    llvm::raw_fd_ostream stream(at(name), code);
    ASSERT_FALSE(code);
    stream << bytes;
  }
  static std::string safetensors(llvm::StringRef header, size_t dataBytes) {
    std::string bytes(8, 0);
    llvm::support::endian::write64le(bytes.data(), header.size());
    bytes += header;
    for (size_t i = 0; i < dataBytes; ++i)
      bytes.push_back(static_cast<char>(i));
    return bytes;
  }
  void writeWeights(llvm::StringRef header, size_t dataBytes) {
    write("model.safetensors", safetensors(header, dataBytes));
  }
  std::string openError() {
    auto checkpoint = Checkpoint::open(path);
    return checkpoint ? "" : llvm::toString(checkpoint.takeError());
  }
  void expectRefused(llvm::StringRef header, size_t dataBytes, const std::string &words) {
    writeWeights(header, dataBytes);
    std::string message = openError();
    EXPECT_NE(message.find(words), std::string::npos) << "expects '" << words << "' in '" << message << "'";
    EXPECT_NE(message.find("model.safetensors"), std::string::npos) << message;
  }

  llvm::SmallString<128> path;
};

TEST_F(Folder, TensorsInNameOrderWithTheirBytes) {
  writeWeights(R"({"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]},
                   "a": {"data_offsets": [4, 8], "shape": [], "dtype": "F32"},
                   "c": {"dtype": "I64", "shape": [3, 0], "data_offsets": [8, 8]}}   )",
               8);
  auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(bool(checkpoint)) << llvm::toString(checkpoint.takeError());
  ASSERT_EQ(checkpoint->tensors().size(), 3u);
  EXPECT_EQ(checkpoint->tensors()[0].name, "a");
  EXPECT_EQ(checkpoint->find("absent"), nullptr);
  const TensorInfo *a = checkpoint->find("a"), *b = checkpoint->find("b");
  ASSERT_TRUE(a && b);
  EXPECT_EQ(b->dtype, DataType::BF16);
  EXPECT_EQ(llvm::ArrayRef<int64_t>(b->shape), llvm::ArrayRef<int64_t>({2, 1}));
  uint8_t bytes[2];
  ASSERT_FALSE(bool(checkpoint->read(*a, 1, bytes)));
  EXPECT_EQ(bytes[0], 5);
  EXPECT_EQ(bytes[1], 6);
  for (uint64_t offset : {uint64_t(3), uint64_t(5), UINT64_MAX})
    EXPECT_NE(llvm::toString(checkpoint->read(*a, offset, bytes)).find("past the end"), std::string::npos);
}

TEST_F(Folder, FileThatShrinksAfterOpening) {
  writeWeights(R"({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}})", 8);
  auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(bool(checkpoint)) << llvm::toString(checkpoint.takeError());
  ASSERT_EQ(truncate(at("model.safetensors").c_str(), 20), 0);
  uint8_t bytes[8];
  EXPECT_NE(llvm::toString(checkpoint->read(checkpoint->tensors()[0], 0, bytes)).find("ends early"), std::string::npos);
}

TEST_F(Folder, BrokenContainers) {
  write("model.safetensors", "");
  EXPECT_NE(openError().find("expects at least the 8 bytes"), std::string::npos);
  write("model.safetensors", "short");
  EXPECT_NE(openError().find("expects at least the 8 bytes"), std::string::npos);
  write("model.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  EXPECT_NE(openError().find("expects a header of at most 2 bytes, got 18446744073709551615"), std::string::npos);
  write("model.safetensors", std::string("\x03\0\0\0\0\0\0\0{}", 10));
  EXPECT_NE(openError().find("expects a header of at most 2 bytes, got 3"), std::string::npos);
  write("model.safetensors", std::string("GGUF\3\0\0\0abcdefgh", 16));
  EXPECT_NE(openError().find("not safetensors?"), std::string::npos);
}

TEST_F(Folder, BrokenHeaders) {
  expectRefused("", 0, "begins with '{'");
  expectRefused("[]", 0, "begins with '{'");
  expectRefused("{", 0, "expects a header of JSON");
  expectRefused("{} x", 0, "expects a header of JSON");
  expectRefused(llvm::StringRef("{}\0x", 4), 0, "zero byte");
  expectRefused("{\"\xff\": 1}", 0, "expects a header of JSON");
  expectRefused(R"({"a": 1})", 0, "tensor 'a'");
  expectRefused(R"({"a": {"b": {}}})", 0, "tensor 'a': expects no nested object");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [[1]], "data_offsets": [0, 4]}})", 4, "tensor 'a'");
  expectRefused("{\"a\": " + std::string(100000, '['), 0, "tensor 'a'");
  const char *twice = R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                          "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})";
  expectRefused(twice, 1, "expects each tensor once, got 'a' twice");
  expectRefused(R"({"a": {"dtype": "U8", "dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})", 1,
                "expects key 'dtype' once");
}

TEST_F(Folder, BrokenTensors) {
  expectRefused(R"({"a": {"shape": [1], "data_offsets": [0, 4]}})", 4, "expects dtype, shape and two data_offsets");
  expectRefused(R"({"a": {"dtype": "F32", "data_offsets": [0, 4]}})", 4, "expects dtype, shape and two data_offsets");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1]}})", 4, "expects dtype, shape and two data_offsets");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}})", 4, "two data_offsets");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}})", 4, "two data_offsets, got more");
  expectRefused(R"({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}})", 4, "got 'F33'");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})", 4, "got -1");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}})", 4, "got 1.5");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 18446744073709551616]}})", 4,
                "nonnegative");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}})", 4,
                "fits 64 bits");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [4611686018427387905], "data_offsets": [0, 4]}})", 4,
                "fits 64 bits");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}})", 4,
                "expects 8 bytes for its shape and dtype, got 4");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})", 4, "got 4 to 0");
  expectRefused(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", 3,
                "inside the 3 bytes of data, got 0 to 4");
  expectRefused(R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                    "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}})",
                3, "overlap");
  expectRefused(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                    "b": {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]}})",
                3, "a hole");
  expectRefused(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})", 3,
                "cover the data's 3 bytes, got 1");
}

TEST_F(Folder, MissingParts) {
  EXPECT_NE(openError().find("expects this file of weights"), std::string::npos);
  ASSERT_EQ(mkfifo(at("model.safetensors").c_str(), 0600), 0);
  EXPECT_NE(openError().find("expects a regular file"), std::string::npos);
  ::unlink(at("model.safetensors").c_str()); // remove_directories leaves pipes
  llvm::sys::fs::remove(at("config.json"));
  EXPECT_NE(openError().find("expects config.json, found none"), std::string::npos);
  auto message = [](llvm::StringRef place) { return llvm::toString(Checkpoint::open(place).takeError()); };
  EXPECT_NE(message(at("absent")).find("got nothing of that name"), std::string::npos);
  write("model.gguf", "GGML");
  EXPECT_NE(message(at("model.gguf")).find("got a file that begins otherwise"), std::string::npos);
  write("model.gguf", "GGUF");
  EXPECT_NE(message(at("model.gguf")).find("expects 4 more bytes"), std::string::npos);
}

TEST_F(Folder, Shards) {
  write("one", safetensors(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})", 1));
  write("two", safetensors(R"({"b": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})", 2));
  auto index = [&](llvm::StringRef text) {
    write("model.safetensors.index.json", text);
    return openError();
  };
  EXPECT_EQ(index(R"({"weight_map": {"a": "one", "b": "two"}})"), "");
  auto expectRefusedIndex = [&](llvm::StringRef text, const std::string &words) {
    std::string message = index(text);
    EXPECT_NE(message.find(words), std::string::npos) << "expects '" << words << "' in '" << message << "'";
  };
  expectRefusedIndex("[]", "expects a JSON object with an object 'weight_map'");
  expectRefusedIndex("{", "expects JSON");
  expectRefusedIndex(R"({"weight_map": {"a": "one", "a": "two"}})", "got 'a' twice");
  expectRefusedIndex(R"({"weight_map": {"a": 1}})", "expects the name of a file in the folder for 'a'");
  for (const char *file : {"", ".", "..", "../one", "/etc/passwd", "x/../one", "\\\\\\\\host\\\\one"})
    expectRefusedIndex((llvm::Twine(R"({"weight_map": {"a": ")") + file + "\"}}").str(), "for 'a'");
  expectRefusedIndex(R"({"weight_map": {"a": "three"}})", "three: expects this file of weights");
  expectRefusedIndex(R"({"weight_map": {"a": "one", "b": "one"}})", "one: expects tensor 'b' as the index says");
  expectRefusedIndex(R"({"weight_map": {"a": "two", "b": "one"}})", "as the index says");
  write("two", safetensors(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})", 1));
  expectRefusedIndex(R"({"weight_map": {"a": "one", "b": "two"}})", "is also in");
}

std::string configError(llvm::StringRef text, llvm::function_ref<void(Config &)> read) {
  auto config = Config::parse("config.json", text);
  if (!config)
    return llvm::toString(config.takeError());
  read(*config);
  return llvm::toString(config->takeError());
}

TEST(Config, MistypedKeysSayWhatWasExpected) {
  auto integer = [](Config &config) { EXPECT_EQ(config.integer("n", 1, 9), 1); };
  EXPECT_EQ(configError("{}", integer), "config.json: expects an integer from 1 to 9 at 'n', got nothing");
  for (const char *value : {"\"x\"", "0", "10", "1.0", "true", "[1]", "18446744073709551615", "-9223372036854775808"})
    EXPECT_EQ(configError((llvm::Twine("{\"n\":") + value + "}").str(), integer),
              (llvm::Twine("config.json: expects an integer from 1 to 9 at 'n', got ") + value).str());
  EXPECT_NE(configError(R"({"n": "1e-5"})", [](Config &config) { config.positive("n"); }).find("a positive number"),
            std::string::npos);
  EXPECT_NE(configError(R"({"n": 0})", [](Config &config) { config.booleanOr("n", true); }).find("true or false"),
            std::string::npos);
  EXPECT_NE(configError(R"({"n": 0})", [](Config &config) { config.stringOr("n", ""); }).find("text"),
            std::string::npos);
  EXPECT_NE(configError(R"({"n": 0})", [](Config &config) { config.object("n"); }).find("an object"),
            std::string::npos);
  EXPECT_NE(configError(R"({"n": []})", [](Config &config) { config.firstString("n"); }).find("array of text"),
            std::string::npos);
  EXPECT_EQ(configError(R"({"n": "gelu"})", [](Config &config) { config.require("n", "silu", "why"); }),
            "config.json: expects \"silu\" (why) at 'n', got \"gelu\"");
}

TEST(Config, AbsentAndNullAreTheSame) {
  EXPECT_EQ(configError(R"({"n": null})",
                        [](Config &config) {
                          EXPECT_FALSE(config.has("n"));
                          EXPECT_EQ(config.integerOr("n", 7, 1), 7);
                          EXPECT_EQ(config.object("n").integerOr("m", 3, 1), 3);
                          config.require("n", true, "absent passes");
                        }),
            "");
}

TEST(Config, HostileDocuments) {
  auto nothing = [](Config &) {};
  for (const char *text : {"", "{", "{\"a\": 1,}", "{\"a\": nan}", "\xff", "{} {}"})
    EXPECT_NE(configError(text, nothing).find("expects JSON"), std::string::npos) << text;
  EXPECT_NE(configError("[]", nothing).find("expects a JSON object"), std::string::npos);
  EXPECT_NE(configError(llvm::StringRef("{}\0", 3), nothing).find("zero byte"), std::string::npos);
  EXPECT_NE(configError(R"({"a": 1, "a": 1})", nothing).find("got 'a' twice"), std::string::npos);
  // Copying and printing such a value would exhaust the stack.
  std::string deep = "{\"n\": " + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}";
  EXPECT_NE(configError(deep, nothing).find("levels of nesting"), std::string::npos);
}

} // namespace
} // namespace freeport::checkpoint
