// The header is parsed by events, so that duplicate keys and deep nesting are seen, and never becomes a tree.
#include "compiler/checkpoint/Safetensors.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>

namespace freeport::checkpoint {

using llvm::createStringError;
using llvm::Twine;

static constexpr uint64_t kMaximumHeader = 100'000'000; // the format's own limit

/// The format's names of plain types.
static constexpr std::pair<llvm::StringLiteral, DataType> kNames[] = {
    {"F64", DataType::F64},         {"F32", DataType::F32},         {"F16", DataType::F16}, {"BF16", DataType::BF16},
    {"F8_E4M3", DataType::F8_E4M3}, {"F8_E5M2", DataType::F8_E5M2}, {"I64", DataType::I64}, {"I32", DataType::I32},
    {"I16", DataType::I16},         {"I8", DataType::I8},           {"U8", DataType::U8},   {"BOOL", DataType::BOOL}};

namespace {

/// Collects tensors from JSON events; `problem` holds the first thing that is wrong.
struct HeaderReader : nlohmann::json_sax<nlohmann::json> {
  std::vector<TensorInfo> tensors;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  std::string problem;

  bool fail(const Twine &message) {
    if (problem.empty())
      problem = message.str();
    return false;
  }
  bool inMetadata() const { return depth >= 2 && tensorName == "__metadata__"; }

  bool start_object(std::size_t) override {
    ++depth;
    if (depth == 1)
      return true;
    if (depth == 2 && array == 0) {
      tensor = TensorInfo();
      tensor.name = tensorName;
      dtypeSeen = shapeSeen = false;
      offsets.clear();
      fields.clear();
      return true;
    }
    return fail(Twine("tensor '") + tensorName + "': expects no nested object");
  }
  bool end_object() override {
    if (depth-- != 2 || tensorName == "__metadata__")
      return true;
    if (!dtypeSeen || !shapeSeen || offsets.size() != 2)
      return fail(Twine("tensor '") + tensorName + "': expects dtype, shape and two data_offsets");
    ranges.push_back({offsets[0], offsets[1]});
    tensors.push_back(tensor);
    return true;
  }
  bool key(std::string &text) override {
    if (depth == 1) {
      tensorName = text;
      return names.insert(text).second || fail(Twine("expects each tensor once, got '") + text + "' twice");
    }
    field = text;
    return fields.insert(text).second || fail(Twine("tensor '") + tensorName + "': expects key '" + text + "' once");
  }
  bool start_array(std::size_t) override {
    if (depth != 2 || array || inMetadata() || (field != "shape" && field != "data_offsets"))
      return fail(Twine("tensor '") + tensorName + "': expects no array at '" + field + "'");
    ++array;
    shapeSeen |= field == "shape";
    return true;
  }
  bool end_array() override {
    --array;
    return true;
  }
  bool string(std::string &text) override {
    if (inMetadata())
      return true;
    if (depth != 2 || array || field != "dtype")
      return fail(Twine("tensor '") + tensorName + "': expects no text at '" + field + "'");
    for (auto &[known, type] : kNames)
      if (known == text) {
        tensor.dtype = type;
        return dtypeSeen = true;
      }
    return fail(Twine("tensor '") + tensorName + "': expects a known dtype (F32, F16, BF16, …), got '" + text + "'");
  }
  bool number_unsigned(uint64_t value) override {
    if (depth != 2 || !array)
      return fail(Twine("tensor '") + tensorName + "': expects no number at '" + field + "'");
    if (field == "data_offsets") {
      offsets.push_back(value);
      return offsets.size() <= 2 || fail(Twine("tensor '") + tensorName + "': expects two data_offsets, got more");
    }
    if (value > uint64_t(INT64_MAX) || tensor.shape.size() == 8)
      return fail(Twine("tensor '") + tensorName + "': expects up to 8 sizes below 2^63");
    tensor.shape.push_back(value);
    return true;
  }
  bool unexpected(llvm::StringRef what) {
    return fail(Twine("tensor '") + tensorName + "': expects a nonnegative integer at '" + field + "', got " + what);
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(int64_t value) override { return unexpected(std::to_string(value)); }
  bool number_float(double, const std::string &text) override { return unexpected(text); }
  bool binary(nlohmann::json::binary_t &) override { return unexpected("bytes"); }
  bool parse_error(std::size_t position, const std::string &, const nlohmann::detail::exception &) override {
    return fail(Twine("expects a header of JSON, got something else at byte ") + Twine(position));
  }

private:
  TensorInfo tensor;
  std::string tensorName, field;
  llvm::StringSet<> names, fields;
  llvm::SmallVector<uint64_t, 2> offsets;
  unsigned depth = 0, array = 0;
  bool dtypeSeen = false, shapeSeen = false;
};

} // namespace

llvm::Expected<std::vector<TensorInfo>> parseSafetensorsHeader(llvm::StringRef path, llvm::StringRef header,
                                                               uint64_t dataBytes, unsigned file) {
  auto error = [&](const Twine &message) { return createStringError(path + ": " + message); };
  HeaderReader reader;
  if (header.empty() || header.front() != '{')
    return error("expects a header that begins with '{'");
  if (header.contains('\0')) // the parser takes it for the end of the text
    return error("expects a header of JSON, got a zero byte");
  bool parsed = nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  if (!reader.problem.empty())
    return error(reader.problem);
  if (!parsed)
    return error("expects a header of JSON");
  for (auto [tensor, range] : llvm::zip(reader.tensors, reader.ranges)) {
    auto [begin, end] = range;
    auto tensorError = [&](const Twine &message) { return error("tensor '" + tensor.name + "': " + message); };
    if (begin > end || end > dataBytes)
      return tensorError("expects offsets inside the " + Twine(dataBytes) + " bytes of data, got " + Twine(begin) +
                         " to " + Twine(end));
    uint64_t bytes = blockOf(tensor.dtype).bytes;
    for (int64_t size : tensor.shape) {
      bool overflow = false;
      bytes = llvm::SaturatingMultiply(bytes, uint64_t(size), &overflow);
      if (overflow)
        return tensorError("expects a shape whose size fits 64 bits");
    }
    if (bytes != end - begin)
      return tensorError("expects " + Twine(bytes) + " bytes for its shape and dtype, got " + Twine(end - begin));
    tensor.file = file;
    tensor.offset = begin; // relative to the data; the caller adds the header
    tensor.size = bytes;
  }
  std::vector<const TensorInfo *> order;
  for (const TensorInfo &tensor : reader.tensors)
    order.push_back(&tensor);
  llvm::sort(order, [](auto *a, auto *b) { return std::pair(a->offset, a->size) < std::pair(b->offset, b->size); });
  uint64_t covered = 0;
  for (const TensorInfo *tensor : order) {
    if (tensor->offset != covered)
      return error("tensor '" + tensor->name + "': expects data from byte " + Twine(covered) + " on, got " +
                   Twine(tensor->offset) + (tensor->offset < covered ? " (tensors overlap)" : " (a hole)"));
    covered += tensor->size;
  }
  if (covered != dataBytes)
    return error("expects tensors that cover the data's " + Twine(dataBytes) + " bytes, got " + Twine(covered));
  llvm::sort(reader.tensors, [](auto &a, auto &b) { return a.name < b.name; });
  return std::move(reader.tensors);
}

llvm::Expected<std::vector<TensorInfo>> readSafetensorsHeader(llvm::StringRef path, unsigned file) {
  auto error = [&](const Twine &message) { return createStringError(path + ": " + message); };
  if (!llvm::sys::fs::is_regular_file(path)) // opening a pipe would wait
    return error("expects a regular file, got something else");
  llvm::Expected<llvm::sys::fs::file_t> opened = llvm::sys::fs::openNativeFileForRead(path);
  if (!opened)
    return error(llvm::toString(opened.takeError()));
  llvm::sys::fs::file_t handle = *opened;
  auto close = llvm::make_scope_exit([&] { llvm::sys::fs::closeFile(handle); });
  llvm::sys::fs::file_status status;
  if (std::error_code code = llvm::sys::fs::status(handle, status))
    return error(code.message());
  uint64_t fileBytes = status.getSize();
  if (fileBytes < 8)
    return error("expects at least the 8 bytes of the header's length, got " + Twine(fileBytes));
  std::error_code code;
  auto mapLength = [&](uint64_t bytes) {
    return llvm::sys::fs::mapped_file_region(handle, llvm::sys::fs::mapped_file_region::readonly, bytes, 0, code);
  };
  auto prefix = mapLength(8);
  if (code)
    return error(code.message());
  uint64_t headerBytes = llvm::support::endian::read64le(prefix.const_data());
  if (headerBytes > fileBytes - 8 || headerBytes > kMaximumHeader)
    return error("expects a header of at most " + Twine(std::min(fileBytes - 8, kMaximumHeader)) + " bytes, got " +
                 Twine(headerBytes) + "; is the file truncated, or not safetensors?");
  auto whole = mapLength(8 + headerBytes);
  if (code)
    return error(code.message());
  auto tensors = parseSafetensorsHeader(path, llvm::StringRef(whole.const_data() + 8, headerBytes),
                                        fileBytes - 8 - headerBytes, file);
  if (tensors)
    for (TensorInfo &tensor : *tensors)
      tensor.offset += 8 + headerBytes;
  return tensors;
}

} // namespace freeport::checkpoint
