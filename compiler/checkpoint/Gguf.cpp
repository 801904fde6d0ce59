// A cursor that never reads past its end; the first problem is kept, and everything after it reads as zero.
#include "compiler/checkpoint/Gguf.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/ConvertUTF.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cmath>
#include <cstring>

namespace freeport::checkpoint {

using llvm::createStringError;
using llvm::Twine;
using nlohmann::json;

/// A value of metadata takes 16 bytes of memory, however few it has in the file.
static constexpr uint64_t kMaximumElements = 1 << 24;
static constexpr uint64_t kMaximumTensors = 1 << 20;
static constexpr unsigned kMaximumDepth = 4;

/// ggml's numbers of types, those that are imported and those that are worth a name in an error.
static constexpr std::pair<uint32_t, DataType> kImported[] = {
    {0, DataType::F32},  {1, DataType::F16},   {2, DataType::Q4_0},  {6, DataType::Q5_0},
    {8, DataType::Q8_0}, {12, DataType::Q4_K}, {14, DataType::Q6_K}, {30, DataType::BF16}};
static constexpr std::pair<uint32_t, llvm::StringLiteral> kRefused[] = {
    {3, "Q4_1"},   {7, "Q5_1"},     {9, "Q8_1"},    {10, "Q2_K"},    {11, "Q3_K"},  {13, "Q5_K"},
    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"},
    {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},   {26, "I32"},
    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"}};

namespace {

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

class Reader {
public:
  Reader(llvm::StringRef path, llvm::StringRef bytes) : path(path), bytes(bytes) {}

  template <typename T> T number() {
    T value{};
    if (need(sizeof(T)))
      std::memcpy(&value, bytes.data() + position, sizeof(T)), position += sizeof(T);
    return value;
  }
  /// Text of valid UTF-8.
  std::string text() {
    uint64_t length = number<uint64_t>();
    if (!need(length))
      return "";
    llvm::StringRef content = bytes.substr(position, length);
    position += length;
    auto *begin = reinterpret_cast<const llvm::UTF8 *>(content.begin());
    if (!llvm::isLegalUTF8String(&begin, reinterpret_cast<const llvm::UTF8 *>(content.end()))) {
      fail("expects text in UTF-8, got other bytes");
      return "";
    }
    return content.str();
  }
  json value(uint32_t type, unsigned depth = 0) {
    switch (ValueType(type)) {
    case ValueType::u8:
      return number<uint8_t>();
    case ValueType::i8:
      return number<int8_t>();
    case ValueType::u16:
      return number<uint16_t>();
    case ValueType::i16:
      return number<int16_t>();
    case ValueType::u32:
      return number<uint32_t>();
    case ValueType::i32:
      return number<int32_t>();
    case ValueType::u64:
      return number<uint64_t>();
    case ValueType::i64:
      return number<int64_t>();
    case ValueType::f32:
      return static_cast<double>(number<float>());
    case ValueType::f64:
      return number<double>();
    case ValueType::text:
      return text();
    case ValueType::boolean: {
      auto byte = number<uint8_t>();
      if (byte > 1)
        fail("expects a boolean of 0 or 1, got " + Twine(byte));
      return byte != 0;
    }
    case ValueType::array:
      return array(depth);
    }
    fail("expects a type of value from 0 to 12, got " + Twine(type));
    return nullptr;
  }

  bool fail(const Twine &message) {
    if (problem.empty())
      problem = (place.empty() ? message : Twine(place) + ": " + message).str();
    return false;
  }
  llvm::Error error() const { return createStringError(path + ": " + problem); }

  std::string problem;
  std::string place; ///< what is being read, for messages
  uint64_t position = 0;

private:
  bool need(uint64_t count) {
    if (!problem.empty())
      return false;
    if (count > bytes.size() - position)
      return fail("expects " + Twine(count) + " more bytes at " + Twine(position) + ", but the file ends after " +
                  Twine(bytes.size() - position));
    return true;
  }
  json array(unsigned depth) {
    json list = json::array();
    auto type = number<uint32_t>();
    auto count = number<uint64_t>();
    if (depth == kMaximumDepth)
      fail("expects at most " + Twine(kMaximumDepth) + " levels of arrays");
    else if (count > kMaximumElements - elements)
      fail("expects at most " + Twine(kMaximumElements) + " values in all arrays, got " + Twine(count) + " in one");
    else
      elements += count;
    if (problem.empty())
      list.get_ref<json::array_t &>().reserve(std::min<uint64_t>(count, bytes.size() - position));
    for (uint64_t i = 0; i < count && problem.empty(); ++i)
      list.push_back(value(type, depth + 1));
    return list;
  }

  llvm::StringRef path, bytes;
  uint64_t elements = 0;
};

} // namespace

bool isGguf(llvm::StringRef bytes) { return bytes.starts_with("GGUF"); }

/// Fills in a tensor's dtype and size from its ggml type, or says what is wrong.
static bool describe(Reader &reader, uint32_t type, TensorInfo &tensor) {
  auto *imported = llvm::find_if(kImported, [&](auto &entry) { return entry.first == type; });
  if (imported == std::end(kImported)) {
    auto *refused = llvm::find_if(kRefused, [&](auto &entry) { return entry.first == type; });
    std::string known;
    for (auto &entry : kImported)
      known += (known.empty() ? "" : ", ") + name(entry.second).str();
    return reader.fail("expects one of the types " + known + ", got " +
                       (refused == std::end(kRefused) ? "type " + std::to_string(type) : refused->second.str()));
  }
  tensor.dtype = imported->second;
  Block block = blockOf(tensor.dtype);
  uint64_t elements = 1;
  bool overflow = false;
  for (int64_t size : tensor.shape)
    if (!overflow)
      elements = llvm::SaturatingMultiply(elements, uint64_t(size), &overflow);
  if (overflow || elements > uint64_t(INT64_MAX) / block.bytes)
    return reader.fail("expects a shape whose size fits 64 bits");
  if (tensor.shape.back() % block.elements)
    return reader.fail("expects rows of a multiple of " + Twine(block.elements) + " values for " + name(tensor.dtype) +
                       ", got " + Twine(tensor.shape.back()));
  tensor.size = byteSize(tensor.dtype, elements);
  return true;
}

llvm::Expected<GgufHeader> parseGgufHeader(llvm::StringRef path, llvm::StringRef bytes, uint64_t fileBytes) {
  Reader reader(path, bytes);
  auto magic = reader.number<uint32_t>(), version = reader.number<uint32_t>();
  auto tensorCount = reader.number<uint64_t>(), keyCount = reader.number<uint64_t>();
  if (reader.problem.empty() && magic != 0x46554747)
    reader.fail("expects a GGUF file, got one that begins otherwise");
  if (reader.problem.empty() && version != 2 && version != 3)
    reader.fail("expects GGUF version 2 or 3, got " + Twine(version) +
                (llvm::byteswap(version) == 3 ? " (a big-endian file)" : ""));
  if (reader.problem.empty() && tensorCount > kMaximumTensors)
    reader.fail("expects at most " + Twine(kMaximumTensors) + " tensors, got " + Twine(tensorCount));
  GgufHeader header;
  for (uint64_t i = 0; i < keyCount && reader.problem.empty(); ++i) {
    reader.place = "key " + std::to_string(i);
    std::string key = reader.text();
    reader.place = "key '" + key + "'";
    json value = reader.value(reader.number<uint32_t>());
    if (!header.metadata.emplace(key, std::move(value)).second)
      reader.fail("expects each key once, got it twice");
  }
  llvm::StringSet<> names;
  for (uint64_t i = 0; i < tensorCount && reader.problem.empty(); ++i) {
    reader.place = "tensor " + std::to_string(i);
    TensorInfo tensor;
    tensor.name = reader.text();
    reader.place = "tensor '" + tensor.name + "'";
    auto rank = reader.number<uint32_t>();
    if (reader.problem.empty() && (rank < 1 || rank > 4))
      reader.fail("expects 1 to 4 sizes, got " + Twine(rank));
    for (uint32_t dimension = 0; dimension < rank && reader.problem.empty(); ++dimension) {
      auto size = reader.number<uint64_t>();
      if (reader.problem.empty() && (size < 1 || size > uint64_t(INT64_MAX)))
        reader.fail("expects sizes from 1 to 2^63 - 1, got " + Twine(size));
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    auto type = reader.number<uint32_t>();
    tensor.offset = reader.number<uint64_t>();
    if (!reader.problem.empty() || !describe(reader, type, tensor))
      break;
    if (!names.insert(tensor.name).second)
      reader.fail("expects each tensor once, got it twice");
    header.tensors.push_back(std::move(tensor));
  }
  reader.place.clear();
  uint64_t alignment = 32;
  if (auto found = header.metadata.find("general.alignment"); found != header.metadata.end()) {
    alignment = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
    if (!llvm::isPowerOf2_64(alignment) || alignment > (1 << 20))
      reader.fail("expects a power of two up to 2^20 at 'general.alignment'");
  }
  if (!reader.problem.empty())
    return reader.error();
  uint64_t start = llvm::alignTo(reader.position, alignment); // of the data
  std::vector<TensorInfo *> order;
  for (TensorInfo &tensor : header.tensors) {
    uint64_t room = start > fileBytes ? 0 : fileBytes - start;
    if (tensor.offset % alignment || tensor.offset > room || tensor.size > room - tensor.offset) {
      reader.fail("tensor '" + tensor.name + "': expects " + Twine(tensor.size) + " bytes inside the " + Twine(room) +
                  " bytes of data, at a multiple of " + Twine(alignment) + ", got offset " + Twine(tensor.offset) +
                  "; is the file truncated?");
      return reader.error();
    }
    tensor.offset += start;
    order.push_back(&tensor);
  }
  llvm::sort(order, [](auto *a, auto *b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset) {
      reader.fail("tensor '" + order[i]->name + "': expects data of its own, got bytes of '" + order[i - 1]->name +
                  "'");
      return reader.error();
    }
  return header;
}

llvm::Expected<GgufHeader> readGgufHeader(llvm::StringRef path) {
  if (!llvm::sys::fs::is_regular_file(path)) // opening a pipe would wait
    return createStringError(path + ": expects a regular file, got something else");
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer)
    return createStringError(path + ": " + buffer.getError().message());
  return parseGgufHeader(path, (*buffer)->getBuffer(), (*buffer)->getBufferSize());
}

} // namespace freeport::checkpoint
