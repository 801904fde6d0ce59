// One function for each table of package.fbs, in the order of the schema. The first rule that is broken is reported.
#include "runtime/manifest_checks.h"

#include "runtime/package.h"
#include "runtime/size.h"

#include <fmt/format.h>

#include <algorithm>

namespace freeport {
namespace {

using namespace package;

constexpr uint32_t kFormatVersion = 1;
constexpr uint64_t kLargestVocabulary = uint64_t(1) << 31;
constexpr uint64_t kLargestPageBytes = uint64_t(1) << 32;
constexpr uint64_t kLargestStep = uint64_t(1) << 20; // rows

template <typename... Arguments> Status corrupt(fmt::format_string<Arguments...> format, Arguments &&...arguments) {
  return Status(Code::kCorrupt, "manifest: " + fmt::format(format, std::forward<Arguments>(arguments)...));
}

class Checker {
public:
  Checker(const Manifest &manifest, uint64_t file_size) : manifest_(manifest), file_size_(file_size) {}

  Status check() const {
    if (manifest_.format_version() != kFormatVersion)
      return Status(Code::kUnsupported, fmt::format("manifest: expects version {}, got {}; compile the checkpoint with "
                                                    "this build",
                                                    kFormatVersion, manifest_.format_version()));
    if (manifest_.vocabulary_size() < 1 || manifest_.vocabulary_size() > kLargestVocabulary)
      return corrupt("expects a vocabulary of 1 to 2^31 tokens, got {}", manifest_.vocabulary_size());
    if (manifest_.maximum_context() < 1 || manifest_.maximum_context() >= kLargestVocabulary)
      return corrupt("expects a context of 1 to 2^31 - 1 tokens, got {}", manifest_.maximum_context());
    if (manifest_.page_tokens() != kPageTokens)
      return corrupt("expects pages of 32 tokens, got {}", manifest_.page_tokens());
    FP_RETURN_IF_ERROR(check_parameters());
    for (const State *state : *manifest_.states())
      if (state->page_bytes() < 1 || state->page_bytes() > kLargestPageBytes)
        return corrupt("expects state '{}' with pages of 1 to 2^32 bytes, got {}", state->name()->string_view(),
                       state->page_bytes());
    FP_RETURN_IF_ERROR(check_program(*manifest_.program()));
    for (const Segment *segment : manifest_segments(manifest_))
      FP_RETURN_IF_ERROR(check_segment(*segment));
    if (manifest_.executables()->size() == 0)
      return corrupt("expects an executable");
    return Status();
  }

private:
  bool inside(uint64_t offset, uint64_t size) const { return offset <= file_size_ && size <= file_size_ - offset; }

  Status check_segment(const Segment &segment) const {
    if (!inside(segment.offset(), segment.size()))
      return corrupt("expects segments inside the {} bytes of the file, got {} bytes at {}", file_size_, segment.size(),
                     segment.offset());
    return Status();
  }

  Status check_parameters() const {
    std::string_view before;
    for (const Parameter *parameter : *manifest_.parameters()) {
      const std::string_view name = parameter->name()->string_view();
      if (name <= before)
        return corrupt("expects parameters with ascending names, got '{}' behind '{}'", name, before);
      before = name;
      FP_RETURN_IF_ERROR(check_parameter(*parameter, name));
    }
    return Status();
  }

  Status check_parameter(const Parameter &parameter, std::string_view name) const {
    const auto format = find_block_format(parameter.format()->string_view());
    if (!format)
      return Status(Code::kUnsupported, fmt::format("manifest: parameter '{}': expects a format among f32, f16, bf16, "
                                                    "q8, q4, got '{}'",
                                                    name, parameter.format()->string_view()));
    const auto &shape = *parameter.shape();
    const bool positive = std::all_of(shape.begin(), shape.end(), [](uint64_t size) { return size > 0; });
    if (shape.size() < 1 || shape.size() > 3 || !positive || (shape.size() == 1 && *format != BlockFormat::f32))
      return corrupt("parameter '{}': expects one to three positive sizes, and f32 for one", name);
    const auto [entries, rows, inputs] = parameter_shape(parameter);
    uint64_t vector_bytes, behind, end;
    const bool vector_fits = !__builtin_mul_overflow(inputs, sizeof(float), &vector_bytes) &&
                             !__builtin_add_overflow(vector_bytes, 63, &vector_bytes);
    const auto bytes = shape.size() == 1 ? (vector_fits ? std::optional(vector_bytes / 64 * 64) : std::nullopt)
                                         : matrix_bytes(*format, rows, inputs);
    if (!bytes || parameter.entry_size() != *bytes)
      return corrupt("parameter '{}': its shape and format do not have {} bytes an entry", name,
                     parameter.entry_size());
    if (parameter.offset() % 64 != 0 || parameter.entry_stride() % 64 != 0 ||
        parameter.entry_stride() < parameter.entry_size())
      return corrupt("parameter '{}': expects entries on multiples of 64 bytes that do not overlap", name);
    if (__builtin_mul_overflow(entries - 1, parameter.entry_stride(), &behind) ||
        __builtin_add_overflow(behind, parameter.offset(), &end) || !inside(end, parameter.entry_size()))
      return corrupt("parameter '{}': expects its bytes inside the {} bytes of the file", name, file_size_);
    return Status();
  }

  Status check_size(const Size *size, std::string_view what) const {
    if (!size)
      return Status();
    const auto &code = *size->code();
    // The FlatBuffers verifier aligns a vector's length, not the 64-bit members of the structs behind it.
    if (reinterpret_cast<uintptr_t>(code.Data()) % alignof(SizeInstruction) != 0)
      return corrupt("{}: expects an aligned size expression", what);
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

  Status check_program(const Program &program) const {
    if (!names_are<kSymbols>([](size_t i) { return symbol_name(Symbol(i)); }, *program.symbols()))
      return Status(Code::kUnsupported, "manifest: expects the symbols tokens, logit_rows, sequences and table_pages");
    FP_RETURN_IF_ERROR(check_size(program.arena(), "arena"));
    for (const Buffer *input : *program.inputs()) {
      FP_RETURN_IF_ERROR(check_size(input->bytes(), "input"));
      bool known = false;
      for (size_t i = 0; i < kInputs; ++i)
        known |= input->name()->string_view() == input_name(Input(i));
      if (!known)
        return Status(Code::kUnsupported, fmt::format("manifest: expects an input that this build knows, got '{}'",
                                                      input->name()->string_view()));
    }
    for (const Buffer *output : *program.outputs())
      FP_RETURN_IF_ERROR(check_size(output->bytes(), "output"));
    if (program.outputs()->size() != 1 || program.outputs()->Get(0)->name()->string_view() != "logits")
      return Status(Code::kUnsupported, "manifest: expects one output called 'logits'");
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

  Status check_commands(const Variant &variant, const Program &program) const {
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

  Status check_dispatch(const Dispatch &dispatch, const Program &program) const {
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
    }
    return Status();
  }

  const Manifest &manifest_;
  const uint64_t file_size_;
};

} // namespace

Result<const Manifest *> check_manifest(std::span<const std::byte> bytes, uint64_t file_size) {
  const auto *data = reinterpret_cast<const uint8_t *>(bytes.data());
  constexpr flatbuffers::uoffset_t kDepth = 16, kTables = 1u << 26;
  flatbuffers::Verifier verifier(data, bytes.size(), kDepth, kTables);
  if (bytes.size() < 8 || bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE ||
      reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0 || !VerifyManifestBuffer(verifier))
    return corrupt("expects a FlatBuffer of package.fbs");
  const Manifest *manifest = GetManifest(data);
  FP_RETURN_IF_ERROR(Checker(*manifest, file_size).check());
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
