// One function for each table of package.fbs, in the order of the schema. The first rule that is broken is reported.
#include "runtime/manifest_checks.h"

#include "runtime/package.h"
#include "runtime/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace freeport {
namespace {

using namespace package;

constexpr uint32_t kFormatVersion = 1;
constexpr uint64_t kLargestVocabulary = uint64_t(1) << 24;
constexpr uint64_t kContextEnd = uint64_t(1) << 31;
constexpr uint64_t kLargestPageBytes = uint64_t(1) << 32; // of all states together
constexpr uint64_t kLargestStep = uint64_t(1) << 20;      // rows

template <typename... Arguments> Status corrupt(fmt::format_string<Arguments...> format, Arguments &&...arguments) {
  return Status(Code::kCorrupt, "manifest: " + fmt::format(format, std::forward<Arguments>(arguments)...));
}

class Checker {
public:
  Checker(const Manifest &manifest, uint64_t manifest_size, uint64_t file_size)
      : manifest_(manifest), file_size_(file_size), manifest_left_(manifest_size), file_left_(file_size) {}

  Status check() {
    if (manifest_.format_version() != kFormatVersion)
      return Status(Code::kUnsupported, fmt::format("manifest: expects version {}, got {}; compile the checkpoint with "
                                                    "this build",
                                                    kFormatVersion, manifest_.format_version()));
    if (const auto numerics = manifest_.numerics()->string_view(); numerics != "portable" && numerics != "fast")
      return Status(Code::kUnsupported,
                    fmt::format("manifest: expects 'portable' or 'fast' numerics, got '{}'", numerics));
    if (manifest_.vocabulary_size() < 1 || manifest_.vocabulary_size() > kLargestVocabulary)
      return corrupt("expects a vocabulary of 1 to 2^24 tokens, got {}", manifest_.vocabulary_size());
    if (manifest_.maximum_context() < 1 || manifest_.maximum_context() >= kContextEnd)
      return corrupt("expects a context of 1 to 2^31 - 1 tokens, got {}", manifest_.maximum_context());
    if (manifest_.page_tokens() != kPageTokens)
      return corrupt("expects pages of 32 tokens, got {}", manifest_.page_tokens());
    FP_RETURN_IF_ERROR(check_parameters());
    uint64_t page_bytes = 0;
    for (const State *state : *manifest_.states()) {
      FP_RETURN_IF_ERROR(check_string(state->name()));
      if (state->page_bytes() < 1 || state->page_bytes() > kLargestPageBytes - page_bytes)
        return corrupt("expects states with pages of 1 to 2^32 bytes together, got '{}' of {} behind {}",
                       state->name()->string_view(), state->page_bytes(), page_bytes);
      page_bytes += state->page_bytes();
    }
    FP_RETURN_IF_ERROR(check_program(*manifest_.program()));
    for (const Segment *segment : manifest_segments(manifest_))
      FP_RETURN_IF_ERROR(check_segment(*segment));
    if (manifest_.executables()->size() == 0)
      return corrupt("expects an executable");
    for (const Kernel *kernel : *manifest_.kernels())
      FP_RETURN_IF_ERROR(check_string(kernel->name()));
    for (const Executable *executable : *manifest_.executables()) {
      FP_RETURN_IF_ERROR(check_string(executable->backend()));
      FP_RETURN_IF_ERROR(check_string(executable->target()));
      FP_RETURN_IF_ERROR(check_strings(executable->conditions()));
    }
    if (manifest_.self_tests() && manifest_.self_tests()->size() > kMaximumSelfTests)
      return corrupt("expects at most {} self-tests, got {}", kMaximumSelfTests, manifest_.self_tests()->size());
    if (manifest_.self_tests())
      for (const package::SelfTest *test : *manifest_.self_tests())
        FP_RETURN_IF_ERROR(check_self_test(*test));
    FP_RETURN_IF_ERROR(check_strings(manifest_.provenance()->left_out()));
    FP_RETURN_IF_ERROR(check_strings(manifest_.provenance()->notes()));
    FP_RETURN_IF_ERROR(check_text(*manifest_.text()));
    return check_generation(*manifest_.generation());
  }

private:
  bool inside(uint64_t offset, uint64_t size) const { return offset <= file_size_ && size <= file_size_ - offset; }

  /// FlatBuffers lets tables share what they refer to, so that a small manifest could stand for endless work. What is
  /// walked or copied more than once therefore has to be there as often: the manifest's bytes and the file's are
  /// counted down.
  static Status spend(uint64_t bytes, uint64_t &left, std::string_view what) {
    if (bytes > left)
      return corrupt("expects {} that do not overlap", what);
    left -= bytes;
    return Status();
  }

  Status check_string(const flatbuffers::String *text) {
    return spend(text ? text->size() : 0, manifest_left_, "strings");
  }

  template <typename Vector> Status check_strings(const Vector *strings) {
    if (strings)
      for (const flatbuffers::String *each : *strings)
        FP_RETURN_IF_ERROR(check_string(each));
    return Status();
  }

  /// The FlatBuffers verifier aligns a vector's length, not its 64-bit elements; a writer, those that there are.
  template <typename Vector> static bool is_aligned(const Vector &vector) {
    return vector.size() == 0 || reinterpret_cast<uintptr_t>(vector.Data()) % alignof(uint64_t) == 0;
  }

  Status check_text(const Text &text) const {
    const auto end = int64_t(manifest_.vocabulary_size());
    if (text.beginning_token() < -1 || text.beginning_token() >= end)
      return corrupt("expects a beginning token of -1 (none) to {}, got {}", end - 1, text.beginning_token());
    if (!text.end_tokens())
      return Status();
    if (!is_aligned(*text.end_tokens()))
      return corrupt("expects aligned end tokens");
    for (int64_t token : *text.end_tokens())
      if (token < 0 || token >= end)
        return corrupt("expects end tokens of 0 to {}, got {}", end - 1, token);
    return Status();
  }

  Status check_generation(const Generation &defaults) const {
    if (!(defaults.temperature() >= 0 && std::isfinite(defaults.temperature())) || defaults.top_k() < 0 ||
        !(defaults.top_p() > 0 && defaults.top_p() <= 1))
      return corrupt(
          "expects a temperature and a top-k of at least 0 and a top-p above 0 and up to 1, got {}, {} and {}",
          defaults.temperature(), defaults.top_k(), defaults.top_p());
    return Status();
  }

  Status check_segment(const Segment &segment) {
    if (!inside(segment.offset(), segment.size()))
      return corrupt("expects segments inside the {} bytes of the file, got {} bytes at {}", file_size_, segment.size(),
                     segment.offset());
    return spend(segment.size(), file_left_, "segments");
  }

  Status check_parameters() {
    std::string_view before;
    for (const Parameter *parameter : *manifest_.parameters()) {
      const std::string_view name = parameter->name()->string_view();
      if (name <= before)
        return corrupt("expects parameters with ascending names, got '{}' behind '{}'", name, before);
      before = name;
      FP_RETURN_IF_ERROR(check_string(parameter->name()));
      FP_RETURN_IF_ERROR(check_string(parameter->source()));
      FP_RETURN_IF_ERROR(check_parameter(*parameter, name));
    }
    return Status();
  }

  Status check_parameter(const Parameter &parameter, std::string_view name) {
    const auto format = find_block_format(parameter.format()->string_view());
    if (!format)
      return Status(Code::kUnsupported, fmt::format("manifest: parameter '{}': expects a format among f32, f16, bf16, "
                                                    "q8, q4, got '{}'",
                                                    name, parameter.format()->string_view()));
    const auto &shape = *parameter.shape();
    if (!is_aligned(shape))
      return corrupt("parameter '{}': expects an aligned shape", name);
    const bool positive = std::all_of(shape.begin(), shape.end(), [](uint64_t size) { return size > 0; });
    if (shape.size() < 1 || shape.size() > 3 || !positive || (shape.size() == 1 && *format != BlockFormat::f32))
      return corrupt("parameter '{}': expects one to three positive sizes, and f32 for one", name);
    const auto [entries, rows, inputs] = parameter_shape(parameter);
    uint64_t vector_bytes, behind, end;
    const bool vector_fits = !__builtin_mul_overflow(inputs, sizeof(float), &vector_bytes) &&
                             !__builtin_add_overflow(vector_bytes, 63, &vector_bytes);
    const auto bytes = shape.size() == 1 ? (vector_fits ? std::optional(vector_bytes / 64 * 64) : std::nullopt)
                                         : matrix_bytes(*format, rows, inputs);
    if (!bytes)
      return corrupt("parameter '{}': expects a shape whose bytes 64 bits hold", name);
    if (parameter.entry_size() != *bytes)
      return corrupt("parameter '{}': expects {} bytes an entry for its shape and format, got {}", name, *bytes,
                     parameter.entry_size());
    if (parameter.offset() % 64 != 0 || parameter.entry_stride() % 64 != 0 ||
        parameter.entry_stride() < parameter.entry_size())
      return corrupt("parameter '{}': expects entries on multiples of 64 bytes that do not overlap", name);
    if (__builtin_mul_overflow(entries - 1, parameter.entry_stride(), &behind) ||
        __builtin_add_overflow(behind, parameter.offset(), &end) || !inside(end, parameter.entry_size()))
      return corrupt("parameter '{}': expects its bytes inside the {} bytes of the file", name, file_size_);
    return spend(entries * parameter.entry_size(), file_left_, "parameters");
  }

  Status check_size(const Size *size, std::string_view what) {
    if (!size)
      return Status();
    const auto &code = *size->code();
    if (!is_aligned(code))
      return corrupt("{}: expects an aligned size expression", what);
    FP_RETURN_IF_ERROR(spend(code.size() * sizeof(SizeInstruction), manifest_left_, "size expressions"));
    std::vector<fp_size_instruction> instructions;
    for (const SizeInstruction *each : code)
      instructions.push_back({int32_t(each->opcode()), each->value()});
    if (instructions.empty())
      return corrupt("{}: expects a size expression with instructions", what);
    const Status status = verify_size({instructions.data(), instructions.size()}, kSymbols);
    return status.ok() ? status : corrupt("{}: {}", what, status.message());
  }

  template <size_t count, typename Name, typename Text>
  static bool names_are(const Name &name, const flatbuffers::Vector<flatbuffers::Offset<Text>> &found) {
    bool same = found.size() == count;
    for (size_t i = 0; same && i < count; ++i)
      same = found.Get(flatbuffers::uoffset_t(i))->string_view() == name(i);
    return same;
  }

  Status check_program(const Program &program) {
    if (!names_are<kSymbols>([](size_t i) { return symbol_name(Symbol(i)); }, *program.symbols()))
      return Status(Code::kUnsupported, "manifest: expects the symbols tokens, logit_rows, sequences and table_pages");
    FP_RETURN_IF_ERROR(check_size(program.arena(), "arena"));
    if (value_of(*program.arena()) < 0)
      return corrupt("expects an arena of at least 0 bytes, got {}", value_of(*program.arena()));
    bool found[kInputs] = {};
    for (const Buffer *input : *program.inputs())
      FP_RETURN_IF_ERROR(check_input(*input, found));
    for (const Buffer *output : *program.outputs())
      FP_RETURN_IF_ERROR(check_size(output->bytes(), "output"));
    if (program.outputs()->size() != 1 || program.outputs()->Get(0)->name()->string_view() != "logits")
      return Status(Code::kUnsupported, "manifest: expects one output called 'logits'");
    const int64_t row = int64_t(manifest_.vocabulary_size() * sizeof(float)), logits = row * kSample[1];
    if (const int64_t bytes = value_of(*program.outputs()->Get(0)->bytes()); bytes != logits)
      return corrupt("expects logits of {} bytes a row, got {} for {} rows", row, bytes, kSample[1]);
    uint64_t next = 1;
    for (const Variant *variant : *program.variants()) {
      if (variant->minimum_tokens() != next || variant->maximum_tokens() < next ||
          variant->maximum_tokens() > kLargestStep)
        return corrupt("expects a variant from {} tokens on and up to {}, got {} to {}", next, kLargestStep,
                       variant->minimum_tokens(), variant->maximum_tokens());
      next = variant->maximum_tokens() + 1;
      FP_RETURN_IF_ERROR(check_commands(*variant, program));
    }
    return next > 1 ? Status() : corrupt("expects a variant");
  }

  /// What the size is for some step; sizes are checked for one, since each is linear in the symbols that it is made of.
  static int64_t value_of(const Size &size) {
    std::vector<fp_size_instruction> code;
    for (const SizeInstruction *each : *size.code())
      code.push_back({int32_t(each->opcode()), each->value()});
    const auto value = evaluate_size({code.data(), code.size()}, kSample);
    return value.ok() ? value.value() : -1;
  }

  Status check_input(const Buffer &input, bool (&found)[kInputs]) {
    const std::string_view name = input.name()->string_view();
    FP_RETURN_IF_ERROR(check_size(input.bytes(), name));
    size_t kind = 0;
    while (kind < kInputs && name != input_name(Input(kind)))
      ++kind;
    if (kind == kInputs)
      return Status(Code::kUnsupported,
                    fmt::format("manifest: expects an input that this build knows, got '{}'", name));
    if (found[kind])
      return corrupt("expects each input once, got another '{}'", name);
    found[kind] = true;
    const int64_t counts[kInputs] = {kSample[0], kSample[0], kSample[0], kSample[2] * kSample[3], kSample[1]};
    const int64_t expected = counts[kind] * int64_t(sizeof(int32_t));
    if (const int64_t bytes = value_of(*input.bytes()); bytes != expected)
      return corrupt("input '{}': expects {} bytes for {} elements, got {}", name, expected, counts[kind], bytes);
    return Status();
  }

  Status check_commands(const Variant &variant, const Program &program) {
    for (flatbuffers::uoffset_t i = 0; i < variant.commands()->size(); ++i) {
      const auto kind = variant.commands_type()->Get(i);
      if (kind == package::Command::Barrier)
        continue;
      if (kind != package::Command::Dispatch)
        return corrupt("expects dispatches and barriers, got command {}", int(kind));
      FP_RETURN_IF_ERROR(check_dispatch(*variant.commands()->GetAs<Dispatch>(i), program));
    }
    return Status();
  }

  Status check_dispatch(const Dispatch &dispatch, const Program &program) {
    if (dispatch.kernel() >= manifest_.kernels()->size())
      return corrupt("expects a kernel below {}, got {}", manifest_.kernels()->size(), dispatch.kernel());
    const Kernel &kernel = *manifest_.kernels()->Get(dispatch.kernel());
    const std::string_view name = kernel.name()->string_view();
    const size_t scalars = dispatch.scalars() ? dispatch.scalars()->size() : 0;
    if (dispatch.bindings()->size() != kernel.bindings() || scalars != kernel.scalars())
      return corrupt("kernel '{}': expects {} bindings and {} scalars, got {} and {}", name, kernel.bindings(),
                     kernel.scalars(), dispatch.bindings()->size(), scalars);
    if (dispatch.grid()->size() < 1 || dispatch.grid()->size() > 3)
      return corrupt("kernel '{}': expects one to three grid dimensions, got {}", name, dispatch.grid()->size());
    for (const Size *size : *dispatch.grid())
      FP_RETURN_IF_ERROR(check_size(size, name));
    for (size_t i = 0; i < scalars; ++i)
      FP_RETURN_IF_ERROR(check_size(dispatch.scalars()->Get(flatbuffers::uoffset_t(i)), name));
    const uint32_t counts[] = {manifest_.parameters()->size(), manifest_.states()->size(), 1, program.inputs()->size(),
                               program.outputs()->size()};
    for (const Binding *binding : *dispatch.bindings()) {
      if (binding->kind() > BindingKind::MAX || binding->index() >= counts[size_t(binding->kind())])
        return corrupt("kernel '{}': expects bindings to memory that exists, got number {} of kind {}", name,
                       binding->index(), int(binding->kind()));
      FP_RETURN_IF_ERROR(check_size(binding->offset(), name));
      FP_RETURN_IF_ERROR(check_size(binding->bytes(), name));
    }
    return Status();
  }

  Status check_self_test(const package::SelfTest &test) {
    if (test.kernel() >= manifest_.kernels()->size())
      return corrupt("self-test: expects a kernel below {}, got {}", manifest_.kernels()->size(), test.kernel());
    const Kernel &kernel = *manifest_.kernels()->Get(test.kernel());
    const std::string_view name = kernel.name()->string_view();
    if (test.arguments()->size() + 1 != kernel.bindings() || kernel.scalars() != 0)
      return corrupt("self-test '{}': expects {} arguments beside its result and no scalars, got {} and {}", name,
                     int64_t(kernel.bindings()) - 1, test.arguments()->size(), kernel.scalars());
    for (const package::Bytes *argument : *test.arguments())
      if (argument->data()->size() == 0)
        return corrupt("self-test '{}': expects arguments that are not empty", name);
    if (test.result_bytes() == 0 || test.result_bytes() > kMaximumSelfTestBytes)
      return corrupt("self-test '{}': expects 1 to {} bytes of result, got {}", name, kMaximumSelfTestBytes,
                     test.result_bytes());
    return Status();
  }

  static constexpr uint64_t kMaximumSelfTests = 64, kMaximumSelfTestBytes = 1 << 20;

  /// Values of the symbols, different so that they cannot be mistaken for each other.
  static constexpr int64_t kSample[kSymbols] = {7, 3, 2, 5};

  const Manifest &manifest_;
  const uint64_t file_size_;
  uint64_t manifest_left_, file_left_;
};

} // namespace

Result<const Manifest *> check_manifest(std::span<const std::byte> bytes, uint64_t file_size) {
  const auto *data = reinterpret_cast<const uint8_t *>(bytes.data());
  if (bytes.size() < 8 || bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE)
    return corrupt("expects a FlatBuffer of package.fbs, got {} bytes", bytes.size());
  // A table has at least four bytes: a manifest with more tables shares them, and nobody writes such.
  constexpr flatbuffers::uoffset_t kDepth = 16;
  flatbuffers::Verifier verifier(data, bytes.size(), kDepth, flatbuffers::uoffset_t(bytes.size() / 4));
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0 || !VerifyManifestBuffer(verifier))
    return corrupt("expects a FlatBuffer of package.fbs");
  const Manifest *manifest = GetManifest(data);
  FP_RETURN_IF_ERROR(Checker(*manifest, bytes.size(), file_size).check());
  return manifest;
}

std::vector<const Segment *> manifest_segments(const Manifest &manifest) {
  std::vector<const Segment *> segments;
  for (const Executable *executable : *manifest.executables())
    segments.push_back(executable->content());
  segments.push_back(manifest.graph());
  const Text &text = *manifest.text();
  for (const Segment *segment : {text.tokenizer(), text.tokenizer_config(), text.chat_template()})
    if (segment)
      segments.push_back(segment);
  return segments;
}

} // namespace freeport
