// Bytes as a package. The first byte chooses: bytes as a manifest by themselves, with a walk over all that its users
// touch; or changes to a whole package, whose checksums are then made right again, so that they reach the checks of the
// numbers, the reference device and a session. FREEPORT_FUZZ_PACKAGES names packages for the latter (paths separated by
// ':', compiled from test/data/models with --target reference); without it, only manifests are tried.
#include "runtime/manifest_checks.h"
#include "runtime/package_header.h"
#include "runtime/session.h"
#include "runtime/size.h"

#include <xxhash.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sys/mman.h>
#include <unistd.h>

namespace {

using namespace freeport;

volatile uint64_t sink;

void expect(bool condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "expects %s\n", what);
    abort();
  }
}

int64_t value_of(const package::Size *size, const int64_t (&symbols)[kSymbols], int64_t otherwise) {
  if (!size)
    return 0;
  std::vector<fp_size_instruction> code;
  for (const package::SizeInstruction *each : *size->code())
    code.push_back({int32_t(each->opcode()), each->value()});
  const auto value = evaluate_size({code.data(), code.size()}, symbols);
  return value.ok() ? value.value() : otherwise;
}

/// Everything that inspect, a model and a session read of a manifest of a file of `file_size` bytes.
void walk(const package::Manifest &manifest, uint64_t file_size) {
  uint64_t bytes = 0;
  for (const package::Parameter *parameter : *manifest.parameters()) {
    const ParameterShape shape = parameter_shape(*parameter);
    const uint64_t last = parameter->offset() + (shape.entries - 1) * parameter->entry_stride();
    expect(last <= file_size && parameter->entry_size() <= file_size - last, "parameters inside the file");
    bytes += shape.entries * parameter->entry_size();
    expect(manifest.parameters()->LookupByKey(parameter->name()->c_str()), "to find a parameter by its name");
  }
  for (const package::Segment *segment : manifest_segments(manifest)) {
    expect(segment->offset() <= file_size && segment->size() <= file_size - segment->offset(), "segments in the file");
    bytes += segment->size();
  }
  expect(bytes <= 2 * file_size, "no more bytes than the file has");
  const package::Program &program = *manifest.program();
  const int64_t symbols[kSymbols] = {1, 1, 1, 4};
  sink = sink + uint64_t(value_of(program.arena(), symbols, 0));
  for (const package::Variant *variant : *program.variants())
    for (flatbuffers::uoffset_t i = 0; i < variant->commands()->size(); ++i)
      if (variant->commands_type()->Get(i) == package::Command::Dispatch)
        for (const package::Size *size : *variant->commands()->GetAs<package::Dispatch>(i)->grid())
          sink = sink + uint64_t(value_of(size, symbols, 0));
}

void run_manifest(std::span<const uint8_t> bytes) {
  // Manifests lie on multiples of 64 KiB.
  std::vector<uint64_t> aligned(bytes.size() / 8 + 1);
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const uint64_t file_size = 1 << 20;
  auto manifest = check_manifest(std::as_bytes(std::span(aligned)).first(bytes.size()), file_size);
  if (manifest.ok())
    walk(**manifest, file_size);
  else
    expect(manifest.status().message().starts_with("manifest: "), "a message that names the manifest");
}

const std::vector<std::string> &packages() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> found;
    const char *paths = std::getenv("FREEPORT_FUZZ_PACKAGES");
    for (const char *at = paths; at && *at; at += *at == ':') {
      const size_t length = std::strcspn(at, ":");
      std::ifstream stream(std::string(at, length), std::ios::binary);
      found.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
      at += length;
    }
    return found;
  }();
  return all;
}

/// Whether a step with these symbols is small enough to run here: grids and scalars are a package's own affair.
bool is_small(const package::Manifest &manifest, const int64_t (&symbols)[kSymbols]) {
  int64_t programs = 0;
  for (const package::Variant *variant : *manifest.program()->variants()) {
    if (variant->maximum_tokens() < uint64_t(symbols[0]))
      continue;
    for (flatbuffers::uoffset_t i = 0; i < variant->commands()->size(); ++i) {
      if (variant->commands_type()->Get(i) != package::Command::Dispatch)
        continue;
      const auto &dispatch = *variant->commands()->GetAs<package::Dispatch>(i);
      int64_t product = 1;
      for (const package::Size *size : *dispatch.grid())
        if (__builtin_mul_overflow(product, value_of(size, symbols, 0), &product))
          return false;
      programs += product;
      if (product > 4096 || programs > 65536)
        return false;
      for (flatbuffers::uoffset_t s = 0; dispatch.scalars() && s < dispatch.scalars()->size(); ++s)
        if (std::abs(value_of(dispatch.scalars()->Get(s), symbols, 0) / 2) > 2048)
          return false;
    }
    return true;
  }
  return false;
}

/// Runs a few steps; every failure is fine, as long as it is one that can be read.
void run_package(const std::string &path) {
  auto package = Package::open(path);
  if (!package.ok())
    return expect(package.status().message().starts_with(path), "an error that names the package");
  const package::Manifest &manifest = (*package)->manifest();
  walk(manifest, (*package)->bytes().size());
  sink = sink + (*package)->verify([](uint64_t, uint64_t) { return true; }).ok();
  auto model = Model::open(*package, {"reference", 1});
  if (!model.ok())
    return;
  auto session = Session::create(*model, {.context = 40, .sequences = 2, .step_tokens = 3, .logit_rows = 2});
  if (!session.ok())
    return;
  auto first = (*session)->add();
  if (!is_small(manifest, {1, 1, 1, 1}) || !is_small(manifest, {3, 2, 2, 1}))
    return;
  const Row one[] = {{0, *first, true}};
  const bool stepped = (*session)->step(one).ok();
  auto second = (*session)->fork(*first);
  const Row three[] = {{1, *first, true}, {0, *second, true}, {1, *first, false}};
  expect((*session)->step(three).ok() || !stepped || (*session)->length(*first).value() == 1,
         "a failed step to change nothing");
  for (float logit : (*session)->logits(0))
    sink = sink + uint64_t(logit == 0);
}

struct File {
  File() : number(::memfd_create("package", 0)) {}
  ~File() { ::close(number); }
  const int number;
};

/// Four bytes of input are one change: a place in the manifest and what to write there.
void run_changes(std::string bytes, std::span<const uint8_t> changes) {
  PackageHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (size_t i = 0; i + 4 <= changes.size() && i < 64; i += 4) {
    const uint64_t place = changes[i] | changes[i + 1] << 8 | (changes[i + 2] & 3) << 16;
    char *at = bytes.data() + header.manifest_offset + place % header.manifest_size;
    const uint8_t value = changes[i + 3];
    if (changes[i + 2] & 4) { // a 64-bit number with one bit set, or its complement
      const uint64_t wide = (uint64_t(1) << value % 64) ^ (value & 64 ? ~uint64_t(0) : 0);
      std::memcpy(at, &wide, std::min<size_t>(8, size_t(bytes.data() + bytes.size() - at)));
    } else if (changes[i + 2] & 8) {
      *at = char(*at + int8_t(value));
    } else {
      *at = char(value);
    }
  }
  header.manifest_checksum = XXH3_64bits(bytes.data() + header.manifest_offset, header.manifest_size);
  header.header_checksum = XXH3_64bits(&header, offsetof(PackageHeader, header_checksum));
  std::memcpy(bytes.data(), &header, sizeof header);
  const File file;
  if (::write(file.number, bytes.data(), bytes.size()) == ssize_t(bytes.size()))
    run_package("/proc/self/fd/" + std::to_string(file.number));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const std::span<const uint8_t> rest(data + 1, size - 1);
  if (data[0] % 4 == 0 || packages().empty())
    run_manifest(rest);
  else
    run_changes(packages()[data[0] / 4 % packages().size()], rest);
  return 0;
}
