// Packages made by hand: a small one that opens, and what becomes of it when one thing is wrong but every checksum is
// right.
#include "runtime/package.h"
#include "runtime/package_header.h"

#include <gtest/gtest.h>

#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

namespace freeport {
namespace {

namespace fs = std::filesystem;
using Opcode = package::SizeOpcode;
using Expression = std::vector<package::SizeInstruction>;

struct ParameterFields {
  std::string name, format;
  std::vector<uint64_t> shape;
  uint64_t offset, entry_size, entry_stride;
};
struct SelfTestFields {
  uint32_t kernel = 0;
  std::vector<size_t> argument_sizes = {4};
  uint64_t result_bytes = 4;
};
struct VariantFields {
  uint64_t minimum, maximum;
};
struct BufferFields {
  std::string name;
  Expression bytes;
};
struct BindingFields {
  package::BindingKind kind;
  uint32_t index;
};

Expression product(int64_t constant, std::initializer_list<int64_t> symbols) {
  Expression code = {{Opcode::constant, constant}};
  for (int64_t symbol : symbols) {
    code.emplace_back(Opcode::symbol, symbol);
    code.emplace_back(Opcode::multiply, 0);
  }
  return code;
}

constexpr uint64_t kWeights = kSegmentAlignment, kGraph = 2 * kSegmentAlignment, kManifest = 3 * kSegmentAlignment;

/// All that a manifest says; tests change it.
struct Fields {
  uint32_t version = 1, page_tokens = 32;
  uint64_t vocabulary = 40, context = 128;
  std::string numerics = "portable";
  std::vector<ParameterFields> parameters = {{"bank", "q4", {2, 32, 32}, kWeights, 576, 4096},
                                             {"embed", "f32", {40, 32}, kWeights + 8192, 8192, 8192},
                                             {"norm", "f32", {32}, kWeights + 16384, 128, 128}};
  std::vector<uint64_t> page_bytes = {4096, 4096};
  std::vector<std::string> symbols = {"tokens", "logit_rows", "sequences", "table_pages"};
  Expression arena = product(128, {0}), grid = product(1, {0});
  std::vector<BufferFields> inputs = {{"token_ids", product(4, {0})},
                                      {"positions", product(4, {0})},
                                      {"sequences", product(4, {0})},
                                      {"page_table", product(4, {2, 3})},
                                      {"logit_rows", product(4, {1})}};
  std::vector<BufferFields> outputs = {{"logits", product(160, {1})}};
  std::vector<VariantFields> variants = {{1, 1}, {2, 64}};
  uint32_t kernel = 0, kernel_bindings = 2, kernel_scalars = 0;
  int dimensions = 1;
  std::vector<BindingFields> bindings = {{package::BindingKind::parameter, 1}, {package::BindingKind::output, 0}};
  std::vector<SelfTestFields> self_tests = {{}};
  std::vector<package::Segment> executables = {{kGraph, 64, 0}};
  int64_t beginning = 0;
  std::vector<int64_t> ends = {1, 39};
  float temperature = 1, top_p = 1;
  int32_t top_k = 0;
  std::vector<std::string> left_out;
  bool shared_strings = false, shared_dispatch = false;
};

class ManifestBuilder {
public:
  explicit ManifestBuilder(const Fields &fields, std::string_view file) : f_(fields), file_(file) {}

  std::string build() {
    std::vector<flatbuffers::Offset<package::Parameter>> parameters;
    for (const ParameterFields &each : f_.parameters) {
      auto name = b_.CreateString(each.name), format = b_.CreateString(each.format);
      parameters.push_back(package::CreateParameter(b_, name, format, b_.CreateVector(each.shape), each.offset,
                                                    each.entry_size, each.entry_stride));
    }
    std::vector<flatbuffers::Offset<package::State>> states;
    for (uint64_t bytes : f_.page_bytes)
      states.push_back(package::CreateState(b_, b_.CreateString("kv"), bytes));
    std::vector<flatbuffers::Offset<package::Variant>> variants;
    for (const VariantFields &each : f_.variants)
      variants.push_back(variant(each));
    auto program_name = b_.CreateString("step");
    auto symbols = b_.CreateVectorOfStrings(f_.symbols);
    auto arena = size(f_.arena);
    auto inputs = buffers(f_.inputs), outputs = buffers(f_.outputs);
    auto program = package::CreateProgram(b_, program_name, symbols, arena, inputs, outputs, b_.CreateVector(variants));
    std::vector<flatbuffers::Offset<package::Kernel>> kernels = {
        package::CreateKernel(b_, b_.CreateString("add"), f_.kernel_bindings, f_.kernel_scalars)};
    std::vector<flatbuffers::Offset<package::Executable>> executables;
    for (const package::Segment &each : f_.executables) {
      const package::Segment content = sealed(each.offset(), each.size());
      auto backend = b_.CreateString("reference"), target = b_.CreateString("bytecode");
      executables.push_back(package::CreateExecutable(b_, backend, target, 0, 1, &content));
    }
    std::vector<flatbuffers::Offset<package::SelfTest>> self_tests;
    for (const SelfTestFields &each : f_.self_tests) {
      std::vector<flatbuffers::Offset<package::Bytes>> arguments;
      for (size_t size : each.argument_sizes)
        arguments.push_back(package::CreateBytes(b_, b_.CreateVector(std::vector<uint8_t>(size))));
      self_tests.push_back(package::CreateSelfTest(b_, each.kernel, b_.CreateVector(arguments), each.result_bytes));
    }
    auto self_test_vector = b_.CreateVector(self_tests);
    auto text = package::CreateText(b_, nullptr, nullptr, nullptr, f_.beginning, b_.CreateVector(f_.ends));
    auto generation = package::CreateGeneration(b_, f_.temperature, f_.top_k, f_.top_p);
    std::vector<flatbuffers::Offset<flatbuffers::String>> left_out;
    for (const std::string &each : f_.left_out)
      left_out.push_back(f_.shared_strings ? b_.CreateSharedString(each) : b_.CreateString(each));
    auto provenance = package::CreateProvenance(b_, 0, 0, 0, 0, b_.CreateVector(left_out));
    auto numerics = b_.CreateString(f_.numerics), weights = b_.CreateString("q4");
    auto parameter_vector = b_.CreateVector(parameters);
    auto state_vector = b_.CreateVector(states);
    auto kernel_vector = b_.CreateVector(kernels);
    auto executable_vector = b_.CreateVector(executables);
    const package::Segment graph = sealed(kGraph + 64, 64);
    FinishManifestBuffer(b_, package::CreateManifest(b_, f_.version, 1, numerics, weights, 1000, f_.vocabulary,
                                                     f_.context, f_.page_tokens, parameter_vector, state_vector,
                                                     program, kernel_vector, executable_vector, &graph, text,
                                                     generation, provenance, self_test_vector));
    return {reinterpret_cast<const char *>(b_.GetBufferPointer()), b_.GetSize()};
  }

private:
  package::Segment sealed(uint64_t offset, uint64_t size) const {
    const bool inside = offset <= file_.size() && size <= file_.size() - offset;
    return {offset, size, inside ? XXH3_64bits(file_.data() + offset, size) : 0};
  }
  flatbuffers::Offset<package::Size> size(const Expression &code) {
    return package::CreateSize(b_, b_.CreateVectorOfStructs(code));
  }
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<package::Buffer>>>
  buffers(const std::vector<BufferFields> &list) {
    std::vector<flatbuffers::Offset<package::Buffer>> tables;
    for (const BufferFields &each : list) {
      auto name = b_.CreateString(each.name);
      tables.push_back(package::CreateBuffer(b_, name, size(each.bytes)));
    }
    return b_.CreateVector(tables);
  }
  flatbuffers::Offset<package::Variant> variant(const VariantFields &fields) {
    std::vector<flatbuffers::Offset<package::Binding>> bindings;
    for (const BindingFields &each : f_.bindings)
      bindings.push_back(package::CreateBinding(b_, each.kind, each.index, size(product(0, {}))));
    const auto grid = size(f_.grid);
    // Shared: one expression and one dispatch stand for many.
    const std::vector<flatbuffers::Offset<package::Size>> grids(size_t(f_.dimensions), grid);
    auto grid_vector = b_.CreateVector(grids);
    auto binding_vector = b_.CreateVector(bindings);
    auto dispatch = package::CreateDispatch(b_, f_.kernel, grid_vector, binding_vector);
    const size_t count = f_.shared_dispatch ? 100000 : 1;
    auto kinds = b_.CreateVector(std::vector<package::Command>(count, package::Command::Dispatch));
    auto commands = b_.CreateVector(std::vector<flatbuffers::Offset<void>>(count, dispatch.Union()));
    return package::CreateVariant(b_, fields.minimum, fields.maximum, kinds, commands);
  }

  const Fields &f_;
  const std::string_view file_;
  flatbuffers::FlatBufferBuilder b_;
};

std::string package_of(const Fields &fields) {
  std::string file(kManifest, '\0');
  const std::string manifest = ManifestBuilder(fields, file).build();
  file += manifest;
  PackageHeader header = {};
  std::memcpy(header.magic, kPackageMagic, sizeof header.magic);
  header.version = kPackageVersion;
  header.manifest_offset = kManifest;
  header.manifest_size = manifest.size();
  header.manifest_checksum = XXH3_64bits(manifest.data(), manifest.size());
  header.file_size = file.size();
  header.header_checksum = XXH3_64bits(&header, offsetof(PackageHeader, header_checksum));
  std::memcpy(file.data(), &header, sizeof header);
  return file;
}

class PackageTest : public testing::Test {
protected:
  PackageTest() {
    std::string name = (fs::temp_directory_path() / "freeport-package-XXXXXX").string();
    folder = ::mkdtemp(name.data());
    path = (folder / "model.port").string();
  }
  ~PackageTest() override { fs::remove_all(folder); }

  Result<std::shared_ptr<const Package>> open(const Fields &fields) const {
    std::ofstream(path, std::ios::binary) << package_of(fields);
    return Package::open(path);
  }

  /// Opening fails, names the file and says `expected`.
  void refuse(const Fields &fields, Code code, const std::string &expected) const {
    const auto package = open(fields);
    ASSERT_FALSE(package.ok()) << "expects an error with: " << expected;
    const std::string &message = package.status().message();
    EXPECT_EQ(int(package.status().code()), int(code)) << message;
    EXPECT_TRUE(message.starts_with(path + ": ")) << message;
    EXPECT_NE(message.find("expects"), std::string::npos) << message;
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }

  /// `change(fields)` makes a good package a bad one.
  template <typename Change> void refuse(Change change, const std::string &expected, Code code = Code::kCorrupt) const {
    Fields fields;
    change(fields);
    refuse(fields, code, expected);
  }

  fs::path folder;
  std::string path;
};

TEST_F(PackageTest, OpensAndVerifies) {
  auto package = open({});
  ASSERT_TRUE(package.ok()) << package.status().message();
  EXPECT_EQ((*package)->weights(), (std::pair<uint64_t, uint64_t>(kWeights, kWeights + 16512)));
  EXPECT_TRUE((*package)->is_end_token(39));
  EXPECT_FALSE((*package)->is_end_token(2));
  const Status verified = (*package)->verify([](uint64_t, uint64_t) { return true; });
  EXPECT_NE(verified.message().find("parameter 'bank'"), std::string::npos) << "its checksum was never computed";
}

TEST_F(PackageTest, MayLackWhatIsOptional) {
  Fields fields;
  fields.ends.clear();
  fields.beginning = -1;
  fields.page_bytes.clear();
  for (size_t length = 0; length < 8; ++length) { // so that the end tokens begin everywhere
    fields.left_out.assign(1, std::string(length, 'x'));
    const auto package = open(fields);
    EXPECT_TRUE(package.ok()) << package.status().message();
  }
}

TEST_F(PackageTest, RefusesNumbersOfTheModel) {
  refuse([](Fields &f) { f.version = 2; }, "version 1", Code::kUnsupported);
  refuse([](Fields &f) { f.numerics = "quick"; }, "portable", Code::kUnsupported);
  refuse([](Fields &f) { f.vocabulary = 0; }, "vocabulary");
  refuse([](Fields &f) { f.vocabulary = UINT64_MAX; }, "vocabulary");
  refuse([](Fields &f) { f.vocabulary = 41; }, "logits of 164 bytes a row, got 480 for 3 rows");
  refuse([](Fields &f) { f.context = 0; }, "context");
  refuse([](Fields &f) { f.context = uint64_t(1) << 31; }, "context");
  refuse([](Fields &f) { f.page_tokens = 16; }, "pages of 32 tokens");
  refuse([](Fields &f) { f.page_bytes = {0}; }, "pages of 1 to");
  refuse([](Fields &f) { f.page_bytes = {UINT64_MAX}; }, "pages of 1 to");
  refuse([](Fields &f) { f.page_bytes = {uint64_t(1) << 32, 1}; }, "pages of 1 to");
  refuse([](Fields &f) { f.beginning = 40; }, "beginning token");
  refuse([](Fields &f) { f.beginning = -2; }, "beginning token");
  refuse([](Fields &f) { f.ends = {40}; }, "end tokens");
  refuse([](Fields &f) { f.ends = {0, -1}; }, "end tokens");
  refuse([](Fields &f) { f.temperature = NAN; }, "temperature");
  refuse([](Fields &f) { f.top_k = -1; }, "top-k");
  refuse([](Fields &f) { f.top_p = 0; }, "top-p");
}

TEST_F(PackageTest, RefusesParameters) {
  refuse([](Fields &f) { f.parameters[1].name = "bank"; }, "ascending");
  refuse([](Fields &f) { std::swap(f.parameters[0], f.parameters[1]); }, "ascending");
  refuse([](Fields &f) { f.parameters[0].name = ""; }, "ascending");
  refuse([](Fields &f) { f.parameters[0].format = "q3"; }, "q3", Code::kUnsupported);
  for (const std::vector<uint64_t> &shape : {std::vector<uint64_t>(),
                                             {0},
                                             {0, 32},
                                             {1, 1, 1, 1},
                                             {UINT64_MAX, 32},
                                             {32, UINT64_MAX},
                                             {1ull << 62, 1ull << 62},
                                             {UINT64_MAX},
                                             {1ull << 62},
                                             {UINT64_MAX, 32, 32}})
    refuse([&](Fields &f) { f.parameters[2].shape = shape; }, "parameter 'norm'");
  refuse([](Fields &f) { f.parameters[2].format = "q8"; }, "f32 for one");
  refuse([](Fields &f) { f.parameters[1].entry_size = 4096; }, "8192 bytes an entry");
  refuse([](Fields &f) { f.parameters[1].offset += 4; }, "64 bytes");
  refuse([](Fields &f) { f.parameters[0].entry_stride = 0; }, "64 bytes");
  refuse([](Fields &f) { f.parameters[0].entry_stride += 1; }, "64 bytes");
  refuse([](Fields &f) { f.parameters[0].entry_stride = uint64_t(1) << 63; }, "inside");
  refuse([](Fields &f) { f.parameters[0].shape[0] = uint64_t(1) << 60; }, "inside");
  refuse([](Fields &f) { f.parameters[1].offset = kManifest; }, "inside");
  refuse([](Fields &f) { f.parameters[1].offset = 0 - uint64_t(64); }, "inside");
  // Many parameters on the same bytes.
  refuse(
      [](Fields &f) {
        f.parameters.clear();
        for (int i = 10; i < 99; ++i)
          f.parameters.push_back({std::to_string(i), "f32", {32, 32}, kWeights, 4096, 4096});
      },
      "do not overlap");
}

TEST_F(PackageTest, RefusesPrograms) {
  refuse([](Fields &f) { f.symbols.pop_back(); }, "symbols", Code::kUnsupported);
  refuse([](Fields &f) { f.symbols[0] = "rows"; }, "symbols", Code::kUnsupported);
  refuse([](Fields &f) { f.symbols.push_back("experts"); }, "symbols", Code::kUnsupported);
  refuse([](Fields &f) { f.inputs[0].name = "pixels"; }, "pixels", Code::kUnsupported);
  refuse([](Fields &f) { f.inputs[0].name = "positions"; }, "once");
  refuse([](Fields &f) { f.inputs[3].bytes = product(4, {2}); }, "page_table");
  refuse([](Fields &f) { f.outputs.clear(); }, "logits", Code::kUnsupported);
  refuse([](Fields &f) { f.outputs.push_back(f.outputs[0]); }, "logits", Code::kUnsupported);
  refuse([](Fields &f) { f.outputs[0].bytes = product(-160, {1}); }, "logits");
  refuse([](Fields &f) { f.variants.clear(); }, "a variant");
  refuse([](Fields &f) { f.variants = {{2, 64}}; }, "variant from 1");
  refuse([](Fields &f) { f.variants[1].minimum = 3; }, "variant from 2");
  refuse([](Fields &f) { f.variants[1].minimum = 1; }, "variant from 2");
  refuse([](Fields &f) { f.variants[1].maximum = 1; }, "variant from 2");
  refuse([](Fields &f) { f.variants[1].maximum = UINT64_MAX; }, "variant from 2");
  refuse([](Fields &f) { f.arena = product(-1, {0}); }, "arena");
  refuse([](Fields &f) { f.arena = product(INT64_MAX, {0}); }, "arena");
  refuse([](Fields &f) { f.arena = {}; }, "instructions");
  refuse([](Fields &f) { f.arena = product(1, {4}); }, "symbol below 4");
  refuse([](Fields &f) { f.arena = product(1, {-1}); }, "symbol below 4");
  refuse([](Fields &f) { f.arena = {{Opcode::add, 0}}; }, "operands");
  refuse([](Fields &f) { f.arena = {{Opcode::constant, 1}, {Opcode::constant, 1}}; }, "one value");
  refuse([](Fields &f) { f.arena = {{Opcode(200), 1}}; }, "opcode");
  refuse([](Fields &f) { f.arena = Expression(1000, {Opcode::constant, 1}); }, "operands");
  refuse([](Fields &f) { f.kernel = 1; }, "kernel below 1");
  refuse([](Fields &f) { f.kernel_bindings = 3; }, "expects 3 bindings");
  refuse([](Fields &f) { f.kernel_scalars = 1; }, "1 scalars");
  refuse([](Fields &f) { f.dimensions = 0; }, "grid");
  refuse([](Fields &f) { f.dimensions = 4; }, "grid");
  refuse([](Fields &f) { f.bindings[0].index = 3; }, "memory that exists");
  refuse([](Fields &f) { f.bindings[1] = {package::BindingKind::state, 2}; }, "memory that exists");
  refuse([](Fields &f) { f.bindings[1] = {package::BindingKind::arena, 1}; }, "memory that exists");
  refuse([](Fields &f) { f.bindings[1] = {package::BindingKind(77), 0}; }, "memory that exists");
}

TEST_F(PackageTest, RefusesSelfTests) {
  EXPECT_TRUE(open([] {
                Fields fields;
                fields.self_tests.clear();
                return fields;
              }())
                  .ok());
  refuse([](Fields &f) { f.self_tests[0].kernel = 1; }, "self-test: expects a kernel below 1");
  refuse([](Fields &f) { f.self_tests[0].argument_sizes = {}; }, "self-test 'add': expects 1 arguments");
  refuse([](Fields &f) { f.self_tests[0].argument_sizes = {4, 4}; }, "got 2 and 0");
  refuse([](Fields &f) { f.self_tests[0].argument_sizes = {0}; }, "not empty");
  refuse([](Fields &f) { f.self_tests[0].result_bytes = 0; }, "1 to 1048576 bytes of result");
  refuse([](Fields &f) { f.self_tests[0].result_bytes = UINT64_MAX; }, "1 to 1048576 bytes of result");
  refuse([](Fields &f) { f.self_tests.resize(65); }, "at most 64 self-tests");
}

TEST_F(PackageTest, RefusesSegmentsAndEndlessWork) {
  refuse([](Fields &f) { f.executables.clear(); }, "executable");
  refuse([](Fields &f) { f.executables[0] = {kManifest, uint64_t(1) << 40, 0}; }, "segments inside");
  refuse([](Fields &f) { f.executables[0] = {UINT64_MAX, 2, 0}; }, "segments inside");
  refuse([](Fields &f) { f.executables.assign(9, {0x10000, 0x10000, 0}); }, "do not overlap");
  // One string, one dispatch that stand for very many.
  refuse([](Fields &f) { f.left_out.assign(1000, std::string(10000, 'x')), f.shared_strings = true; },
         "do not overlap");
  refuse([](Fields &f) { f.shared_dispatch = true; }, "FlatBuffer");
  refuse(
      [](Fields &f) {
        f.shared_dispatch = true, f.grid = product(1, {0, 0, 0, 0}), f.bindings = {}, f.kernel_bindings = 0;
      },
      "FlatBuffer");
}

TEST_F(PackageTest, RefusesWhatIsNotAFile) {
  EXPECT_EQ(int(Package::open(path).status().code()), int(Code::kNotFound));
  const auto opened = Package::open(folder.string());
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find("folder"), std::string::npos) << opened.status().message();
  // Nobody writes to the pipe: opening must not wait.
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(Package::open(path).ok());
}

} // namespace
} // namespace freeport
