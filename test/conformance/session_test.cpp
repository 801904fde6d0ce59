// Sessions on a compiled model, device by device: the bits of a sequence do not depend on its company or its steps,
// pages are shared and counted, a step that fails changes nothing, and a warm step allocates nothing.
#include "runtime/compiler_api.h"
#include "runtime/package_header.h"
#include "runtime/registry.h"
#include "runtime/session.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FREEPORT_OWN_ALLOCATOR 0
#endif
#endif
#ifndef FREEPORT_OWN_ALLOCATOR
#define FREEPORT_OWN_ALLOCATOR 1
#endif

static std::atomic<uint64_t> allocations{0};
#if FREEPORT_OWN_ALLOCATOR
void *operator new(size_t bytes) {
  ++allocations;
  if (void *memory = std::malloc(bytes ? bytes : 1))
    return memory;
  std::abort();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
#endif

namespace freeport {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<Model> open(const std::string &path, const std::string &device, int threads = 2) {
  auto package = Package::open(path);
  EXPECT_TRUE(package.ok()) << package.status().message();
  auto model = Model::open(*package, {device, threads});
  EXPECT_TRUE(model.ok()) << model.status().message();
  return *model;
}

/// The devices that open here; the others are named with the reason.
const std::vector<std::string> &devices() {
  static const std::vector<std::string> found = [] {
    std::vector<std::string> names;
    for (const fp_device_api *api : device_apis()) {
      const fp_device_options options = {"", 1, 0};
      fp_device *device = nullptr;
      fp_error error = {};
      if (api->open(&options, &device, &error)) {
        std::cerr << "not run: sessions on " << api->name << ": " << error.message << "\n";
        continue;
      }
      api->close(device);
      names.emplace_back(api->name);
    }
    return names;
  }();
  return found;
}

/// Packages that the tests share, compiled on first use and removed at the end.
class Packages {
public:
  ~Packages() { fs::remove_all(folder_); }

  /// With code for every device that opens here; of the CPU's, what this processor chooses.
  const std::string &operator()(const std::string &model, const std::string &weights, const std::string &keys = "",
                                const std::string &numerics = "portable") {
    std::string targets;
    for (const std::string &device : devices())
      targets += (targets.empty() ? "" : ",") + (device == "cpu" ? cpu() : device);
    return compiled(model, weights, keys, numerics, targets);
  }

  /// Code for all that the CPU's backend knows.
  const std::string &of_all_processors() { return compiled("llama", "q4", "", "portable", "cpu"); }

  /// The CPU's code that this processor chooses, as a target.
  std::string cpu() {
    static const std::string best = "cpu:" + std::string(open(of_all_processors(), "cpu")->target());
    return best;
  }

  const std::string &compiled(const std::string &model, const std::string &weights, const std::string &keys,
                              const std::string &numerics, const std::string &targets) {
    std::string &path = paths_[model + weights + keys + numerics + targets];
    if (!path.empty())
      return path;
    fs::create_directories(folder_);
    const char *folder =
        model == "tiny_moe" ? FREEPORT_SOURCE_DIR "/examples/tiny-moe" : FREEPORT_SOURCE_DIR "/test/data/models/";
    const std::string checkpoint = folder + (model == "tiny_moe" ? "" : model);
    const std::string output = (folder_ / (std::to_string(paths_.size()) + ".port")).string();
    const fp_compile_options options = {.checkpoint = checkpoint.c_str(),
                                        .output = output.c_str(),
                                        .weights = weights.c_str(),
                                        .numerics = numerics.c_str(),
                                        .cache_type_k = keys.c_str(),
                                        .targets = targets.c_str(),
                                        .dump_stages = nullptr,
                                        .stop_after = nullptr,
                                        .progress = nullptr,
                                        .progress_context = nullptr};
    fp_error error = {};
    EXPECT_EQ(fp_compile(&options, &error), 0) << error.message;
    return path = output;
  }

private:
  fs::path folder_ = fs::temp_directory_path() / ("freeport-session-test-" + std::to_string(::getpid()));
  std::map<std::string, std::string> paths_;
};

Packages packages;

std::unique_ptr<Session> session_of(std::shared_ptr<Model> model, const SessionOptions &options) {
  auto session = Session::create(std::move(model), options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  return std::move(session).value();
}

using Logits = std::vector<float>; // of all tokens, one after the other

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// `length` tokens that differ from those of other seeds.
std::vector<int32_t> tokens_of(uint32_t seed, size_t length, uint32_t vocabulary) {
  std::vector<int32_t> tokens;
  for (uint32_t state = seed * 2654435761u + 1; tokens.size() < length; state = state * 1664525u + 1013904223u)
    tokens.push_back(int32_t((state >> 8) % vocabulary));
  return tokens;
}

uint32_t vocabulary_of(const Model &model) { return uint32_t(model.package().manifest().vocabulary_size()); }

void expect_step(Session &session, std::span<const Row> rows) {
  const Status status = session.step(rows);
  ASSERT_TRUE(status.ok()) << status.message();
}

/// Logits of one sequence alone, `chunk` tokens a step.
Logits alone(const std::shared_ptr<Model> &model, std::span<const int32_t> tokens, size_t chunk) {
  SessionOptions options;
  options.logit_rows = int64_t(chunk);
  auto session = session_of(model, options);
  const int32_t sequence = *session->add();
  Logits all;
  std::vector<Row> rows;
  for (size_t done = 0; done < tokens.size(); done += rows.size()) {
    rows.clear();
    for (size_t i = done; i < std::min(tokens.size(), done + chunk); ++i)
      rows.push_back({tokens[i], sequence, true});
    expect_step(*session, rows);
    for (size_t i = 0; i < rows.size(); ++i)
      all.insert(all.end(), session->logits(i).begin(), session->logits(i).end());
  }
  return all;
}

struct Case {
  std::string model, weights, keys = {};
  bool trained() const { return model == "tiny_moe"; }
};

class SessionBits : public testing::TestWithParam<Case> {
protected:
  /// A package of the case, and the devices that it is tested on: the trained model takes minutes on others.
  std::string package() const {
    const auto &[model, weights, keys] = GetParam();
    return GetParam().trained() ? packages.compiled(model, weights, keys, "portable", packages.cpu())
                                : packages(model, weights, keys);
  }
  std::vector<std::string> tested() const {
    return GetParam().trained() ? std::vector<std::string>{"reference", "cpu"} : devices();
  }
};

/// Runs sequences of `tokens` together on `model`, a row of logits for each token; `expected` are theirs alone.
void expect_bits_among_others(const std::shared_ptr<Model> &model, const std::vector<std::vector<int32_t>> &tokens,
                              const std::vector<Logits> &expected) {
  SessionOptions options;
  options.sequences = int64_t(tokens.size());
  options.logit_rows = 64;
  options.context = 128;
  auto session = session_of(model, options);
  for (size_t i = 0; i < tokens.size(); ++i)
    ASSERT_EQ(*session->add(), int32_t(i));
  // Each step takes from every unfinished sequence, in turns and unequal amounts, so that rows are interleaved.
  std::vector<Logits> together(tokens.size());
  std::vector<size_t> done(tokens.size(), 0);
  while (true) {
    std::vector<Row> rows;
    for (size_t turn = 0; turn < 9; ++turn)
      for (size_t i = 0; i < tokens.size(); ++i)
        if (turn <= i && done[i] < tokens[i].size())
          rows.push_back({tokens[i][done[i]++], int32_t(i), true});
    if (rows.empty())
      break;
    expect_step(*session, rows);
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto logits = session->logits(r);
      Logits &to = together[size_t(rows[r].sequence)];
      to.insert(to.end(), logits.begin(), logits.end());
    }
  }
  for (size_t i = 0; i < tokens.size(); ++i)
    EXPECT_TRUE(same_bits(expected[i], together[i])) << "sequence " << i << " among others";
}

/// Sequences that share their first pages, grow apart, and go back.
void expect_forks_to_share(const std::shared_ptr<Model> &model) {
  SessionOptions options;
  options.sequences = 3;
  options.context = 128;
  auto session = session_of(model, options);
  const auto prefix = tokens_of(1, 70, vocabulary_of(*model)), left = tokens_of(2, 40, vocabulary_of(*model)),
             right = tokens_of(3, 40, vocabulary_of(*model));
  const int32_t first = *session->add();
  ASSERT_TRUE(session->feed(first, prefix, 0, true, nullptr, nullptr).ok());
  ASSERT_EQ(session->pages_used(), 3u);
  const int32_t second = *session->fork(first), third = *session->fork(first);
  EXPECT_EQ(session->pages_used(), 3u) << "a fork copies nothing";
  EXPECT_EQ(*session->length(second), 70);
  auto extend = [&](int32_t sequence, std::span<const int32_t> with) {
    EXPECT_TRUE(session->feed(sequence, with, 0, true, nullptr, nullptr).ok());
    return Logits(session->logits(0).begin(), session->logits(0).end());
  };
  // 110 tokens are four pages; two of them are whole in the prefix and stay shared.
  const Logits with_left = extend(second, left);
  EXPECT_EQ(session->pages_used(), 5u);
  const Logits with_right = extend(third, right);
  EXPECT_EQ(session->pages_used(), 7u);
  const Logits again = extend(first, left);
  EXPECT_EQ(session->pages_used(), 8u) << "the last holder of a page extends it in place";
  auto expected = [&](std::span<const int32_t> with) {
    std::vector<int32_t> all = prefix;
    all.insert(all.end(), with.begin(), with.end());
    const Logits logits = alone(model, all, 64);
    return Logits(logits.end() - vocabulary_of(*model), logits.end());
  };
  EXPECT_TRUE(same_bits(with_left, expected(left)));
  EXPECT_TRUE(same_bits(again, expected(left)));
  EXPECT_TRUE(same_bits(with_right, expected(right)));

  // Rewound into a page and written again, a sequence is what it would have been without the detour.
  ASSERT_TRUE(session->rewind(third, 45).ok());
  EXPECT_EQ(session->pages_used(), 6u);
  std::vector<int32_t> rest(prefix.begin() + 45, prefix.end());
  rest.insert(rest.end(), left.begin(), left.end());
  EXPECT_TRUE(same_bits(extend(third, rest), expected(left)));
  ASSERT_TRUE(session->drop(first).ok());
  ASSERT_TRUE(session->drop(second).ok());
  ASSERT_TRUE(session->drop(third).ok());
  EXPECT_EQ(session->pages_used(), 0u);
}

TEST_P(SessionBits, DoNotDependOnCompanyStepsOrForks) {
  auto reference = open(package(), "reference");
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Logits> expected;
  for (const size_t length : {1, 75, 31, 32, 33, 7, 64, 50}) {
    tokens.push_back(tokens_of(uint32_t(tokens.size()), length, vocabulary_of(*reference)));
    expected.push_back(alone(reference, tokens.back(), 64));
  }
  for (const std::string &device : tested()) {
    SCOPED_TRACE("on " + device);
    auto model = open(package(), device);
    expect_bits_among_others(model, tokens, expected);
    for (size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_TRUE(same_bits(expected[i], alone(model, tokens[i], 1))) << "sequence " << i << " token by token";
      EXPECT_TRUE(same_bits(expected[i], alone(model, tokens[i], 7))) << "sequence " << i << " in pieces of 7";
    }
    expect_forks_to_share(model);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char *model : {"llama", "qwen3_moe", "deepseek_v2", "deepseek_v3", "tiny_moe"})
    for (const char *weights : {"f32", "q8", "q4"})
      all.push_back({model, weights});
  for (const char *model : {"llama", "qwen3_moe"})
    for (const char *weights : {"f32", "q4"})
      all.push_back({model, weights, "q8"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Models, SessionBits, testing::ValuesIn(cases()), [](const auto &info) {
  const Case &each = info.param;
  return each.model + "_" + each.weights + (each.keys.empty() ? "" : "_keys_" + each.keys);
});

/// Fast numerics expand latents in steps of 128 tokens or more: here of three sequences with contexts of their own, two
/// of which share pages, while the table's row of the third is longer than what it has reached.
TEST(Session, SeveralSequencesOfAStepAreExpanded) {
  for (const char *device : {"reference", "cpu"}) {
    auto model = open(packages("deepseek_v3", "f32", "", "fast"), device);
    auto portable = open(packages("deepseek_v3", "f32"), "cpu");
    SessionOptions options;
    options.sequences = 3;
    options.logit_rows = 3;
    options.context = 256;
    auto session = session_of(model, options);
    const auto prefix = tokens_of(1, 150, vocabulary_of(*model));
    const int32_t first = *session->add();
    ASSERT_TRUE(session->feed(first, prefix, 0, true, nullptr, nullptr).ok());
    const int32_t sequences[] = {first, *session->fork(first), *session->add()};
    const std::vector<int32_t> added[] = {tokens_of(2, 70, vocabulary_of(*model)),
                                          tokens_of(3, 50, vocabulary_of(*model)),
                                          tokens_of(4, 40, vocabulary_of(*model))};
    std::vector<Row> rows; // in turns
    for (size_t i = 0; i < 70; ++i)
      for (size_t number = 0; number < 3; ++number)
        if (i < added[number].size())
          rows.push_back({added[number][i], sequences[number], i + 1 == added[number].size()});
    ASSERT_EQ(rows.size(), 160u);
    expect_step(*session, rows);
    size_t found = 0;
    for (const Row &row : rows) {
      if (!row.logits)
        continue;
      const auto number = size_t(std::find(std::begin(sequences), std::end(sequences), row.sequence) - sequences);
      std::vector<int32_t> all = number == 2 ? std::vector<int32_t>() : prefix;
      all.insert(all.end(), added[number].begin(), added[number].end());
      const Logits expected = alone(portable, all, 100);
      const auto logits = session->logits(found++);
      float error = 0;
      for (size_t i = 0; i < logits.size(); ++i)
        error = std::max(error, std::abs(logits[i] - (expected.end() - ptrdiff_t(logits.size()))[ptrdiff_t(i)]));
      EXPECT_GT(error, 0) << device << ", sequence " << number;
      EXPECT_LT(error, 3e-4) << device << ", sequence " << number;
    }
    EXPECT_EQ(found, 3u);
  }
}

TEST(Session, AFailedStepChangesNothing) {
  auto model = open(packages("llama", "q4"), "cpu");
  SessionOptions options;
  options.context = 64;
  options.sequences = 2;
  options.pages = 3;
  auto session = session_of(model, options);
  const auto tokens = tokens_of(1, 65, vocabulary_of(*model));
  const int32_t first = *session->add(), second = *session->add();
  ASSERT_TRUE(session->feed(first, std::span(tokens).first(40), 0, true, nullptr, nullptr).ok());
  ASSERT_TRUE(session->feed(second, std::span(tokens).first(30), 0, true, nullptr, nullptr).ok());

  auto refused = [&](std::vector<Row> rows, Code code, const char *expected) {
    const Status status = session->step(rows);
    EXPECT_EQ(int(status.code()), int(code)) << status.message();
    EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
    EXPECT_EQ(*session->length(first), 40);
    EXPECT_EQ(*session->length(second), 30);
    EXPECT_EQ(session->pages_used(), 3u);
  };
  const auto none = int32_t(vocabulary_of(*model));
  refused({}, Code::kInvalidArgument, "rows");
  refused({{none, first, true}}, Code::kInvalidArgument, "token ids");
  refused({{-1, first, true}}, Code::kInvalidArgument, "token ids");
  refused({{1, 2, true}}, Code::kInvalidArgument, "sequence");
  refused({{1, -1, true}}, Code::kInvalidArgument, "sequence");
  refused({{1, first, true}, {2, first, true}}, Code::kInvalidArgument, "logits");
  refused(std::vector<Row>(25, Row{1, first, false}), Code::kOutOfRange, "context");
  refused(std::vector<Row>(3, Row{1, second, false}), Code::kOutOfRange, "pages");

  EXPECT_FALSE(session->add().ok());
  EXPECT_FALSE(session->rewind(first, 41).ok());
  EXPECT_FALSE(session->drop(7).ok());
  // What fails in the middle is what the rest continues from.
  ASSERT_TRUE(session->feed(first, std::span(tokens).subspan(40, 24), 0, true, nullptr, nullptr).ok());
  const Logits expected = alone(model, std::span(tokens).first(64), 64);
  EXPECT_TRUE(same_bits(session->logits(0), std::span(expected).last(vocabulary_of(*model))));
}

TEST(Session, AFailedFeedChangesNothing) {
  auto model = open(packages("llama", "q4"), "cpu");
  SessionOptions options;
  options.context = 64;
  options.sequences = 2;
  options.pages = 3;
  auto session = session_of(model, options);
  const auto tokens = tokens_of(1, 65, vocabulary_of(*model));
  const int32_t first = *session->add(), second = *session->add();
  ASSERT_TRUE(session->feed(first, std::span(tokens).first(40), 0, true, nullptr, nullptr).ok());
  int steps = 0;
  auto count = [](void *context, size_t, size_t) { return ++*static_cast<int *>(context) < 3; };
  auto refused = [&](int32_t sequence, std::span<const int32_t> fed, Code code, int expected_steps) {
    steps = 0;
    const Status status = session->feed(sequence, fed, 5, true, count, &steps);
    EXPECT_EQ(int(status.code()), int(code)) << status.message();
    EXPECT_EQ(steps, expected_steps) << status.message();
    EXPECT_EQ(*session->length(first), 40);
    EXPECT_EQ(*session->length(second), 0);
    EXPECT_EQ(session->pages_used(), 2u);
  };
  refused(first, std::span(tokens).first(25), Code::kOutOfRange, 0);
  refused(first, {}, Code::kInvalidArgument, 0);
  refused(7, tokens, Code::kInvalidArgument, 0);
  refused(second, std::span(tokens).first(64), Code::kCancelled, 3);
  std::vector<int32_t> wrong(tokens.begin(), tokens.begin() + 8);
  wrong.back() = -1;
  refused(second, wrong, Code::kInvalidArgument, 2);
  // What was undone leaves no trace in what follows.
  ASSERT_TRUE(session->feed(first, std::span(tokens).subspan(40, 24), 7, true, nullptr, nullptr).ok());
  const Logits expected = alone(model, std::span(tokens).first(64), 64);
  EXPECT_TRUE(same_bits(session->logits(0), std::span(expected).last(vocabulary_of(*model))));
}

TEST(Session, RefusesOptionsOutOfRange) {
  auto model = open(packages("llama", "q4"), "cpu");
  for (const SessionOptions &options :
       {SessionOptions{.context = -1}, SessionOptions{.context = 1 << 30}, SessionOptions{.sequences = 100000},
        SessionOptions{.pages = -5}, SessionOptions{.step_tokens = 100000}, SessionOptions{.logit_rows = 100000}}) {
    auto session = Session::create(model, options);
    ASSERT_FALSE(session.ok());
    EXPECT_EQ(int(session.status().code()), int(Code::kInvalidArgument));
    EXPECT_NE(session.status().message().find("expects"), std::string::npos);
  }
}

TEST(Session, AWarmStepAllocatesNothing) {
  if (!FREEPORT_OWN_ALLOCATOR)
    GTEST_SKIP() << "the address sanitizer has the allocator";
  for (const std::string &device : devices()) {
    auto model = open(packages("deepseek_v3", "q4"), device);
    auto session = session_of(model, {});
    const int32_t sequence = *session->add();
    const auto tokens = tokens_of(1, 200, vocabulary_of(*model));
    ASSERT_TRUE(session->feed(sequence, std::span(tokens).first(20), 0, true, nullptr, nullptr).ok());
    auto step = [&](size_t i) {
      const Row row = {tokens[i], sequence, true};
      return session->step({&row, 1}).ok();
    };
    bool ok = step(20) && step(21);
    const uint64_t before = allocations;
    for (size_t i = 22; i < tokens.size(); ++i)
      ok = ok && step(i);
    EXPECT_EQ(allocations - before, 0u) << device;
    EXPECT_TRUE(ok);
  }
}

TEST(Session, SeveralSessionsShareAModel) {
  auto model = open(packages("deepseek_v3", "q8"), "cpu");
  constexpr uint32_t kThreads = 4;
  std::vector<Logits> expected, found(kThreads);
  for (uint32_t i = 0; i < kThreads; ++i)
    expected.push_back(alone(model, tokens_of(i, 40, vocabulary_of(*model)), 5));
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] { found[i] = alone(model, tokens_of(i, 40, vocabulary_of(*model)), 5); });
  for (std::thread &thread : threads)
    thread.join();
  for (uint32_t i = 0; i < kThreads; ++i)
    EXPECT_TRUE(same_bits(expected[i], found[i])) << "session " << i;
}

#if defined(__x86_64__)
/// The place of a function in the shared object `content`, in bytes from its begin.
size_t place_of_function(std::span<const uint8_t> content, const char *name) {
  const int file = memfd_create("executable", 0);
  EXPECT_EQ(write(file, content.data(), content.size()), ssize_t(content.size()));
  void *library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
  void *function = library ? dlsym(library, name) : nullptr;
  Dl_info info = {};
  if (!function || !dladdr(function, &info))
    return 0;
  const uint64_t address = uint64_t(static_cast<char *>(function) - static_cast<char *>(info.dli_fbase));
  Elf64_Ehdr header;
  std::memcpy(&header, content.data(), sizeof header);
  for (size_t number = 0; number < header.e_phnum; ++number) {
    Elf64_Phdr segment;
    std::memcpy(&segment, content.data() + header.e_phoff + number * sizeof segment, sizeof segment);
    if (segment.p_type == PT_LOAD && address - segment.p_vaddr < segment.p_filesz)
      return segment.p_offset + address - segment.p_vaddr;
  }
  return 0;
}

/// The package with its self-test of q4 broken for the targets of the cpu that `broken` picks: the kernel returns at
/// once.
std::string break_self_test(const std::string &path, const std::function<bool(std::string_view)> &broken) {
  std::ifstream in(path, std::ios::binary);
  std::vector<uint8_t> file{std::istreambuf_iterator<char>(in), {}};
  PackageHeader header;
  std::memcpy(&header, file.data(), sizeof header);
  uint8_t *manifest = file.data() + header.manifest_offset;
  for (const package::Executable *executable : *package::GetManifest(manifest)->executables())
    if (executable->backend()->string_view() == "cpu" && broken(executable->target()->string_view())) {
      auto *content = const_cast<package::Segment *>(executable->content());
      const std::span<uint8_t> bytes(file.data() + content->offset(), content->size());
      const size_t place = place_of_function(bytes, "self_test_q4");
      EXPECT_GT(place, 0u);
      bytes[place] = 0xC3;
      *content = {content->offset(), content->size(), XXH3_64bits(bytes.data(), bytes.size())};
    }
  header.manifest_checksum = XXH3_64bits(manifest, header.manifest_size);
  header.header_checksum = XXH3_64bits(&header, offsetof(PackageHeader, header_checksum));
  std::memcpy(file.data(), &header, sizeof header);
  const std::string output = path + ".broken";
  std::ofstream(output, std::ios::binary).write(reinterpret_cast<const char *>(file.data()), ssize_t(file.size()));
  return output;
}

TEST(Model, TakesTheNextExecutableWhereTheBestFailsItsSelfTest) {
  const std::string intact = packages.of_all_processors(), best(open(intact, "cpu")->target());
  if (best == "x86-64-v3")
    GTEST_SKIP() << "expects a processor that takes more than one executable";
  auto model = open(break_self_test(intact, [&](std::string_view target) { return target == best; }), "cpu");
  EXPECT_NE(model->target(), best);
  EXPECT_TRUE(model->target().starts_with("x86-64-v3"));
  const auto failed = std::find_if(model->rejected().begin(), model->rejected().end(),
                                   [](const Rejection &each) { return each.failed_self_test; });
  ASSERT_NE(failed, model->rejected().end());
  EXPECT_EQ(failed->executable->target()->string_view(), best);
  EXPECT_NE(failed->reason.find("expects the bits of self-test 'self_test_q4'"), std::string::npos) << failed->reason;
  const auto tokens = tokens_of(1, 20, vocabulary_of(*model));
  EXPECT_TRUE(same_bits(alone(model, tokens, 20), alone(open(intact, "reference"), tokens, 20)));
}

TEST(Model, RefusesADeviceWhereNoExecutablePassesItsSelfTest) {
  const std::string path = break_self_test(packages.of_all_processors(), [](std::string_view target) {
    return target.starts_with("x86-64-"); // this processor's
  });
  auto package = Package::open(path);
  ASSERT_TRUE(package.ok()) << package.status().message();
  auto model = Model::open(*package, {"cpu", 0});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(int(model.status().code()), int(Code::kUnsupported));
  EXPECT_NE(model.status().message().find("x86-64-v3: expects the bits of self-test"), std::string::npos)
      << model.status().message();
  auto other = Model::open(*package, {}); // without a choice, the next device that computes as it should
  ASSERT_TRUE(other.ok()) << other.status().message();
  EXPECT_STRNE((*other)->api().name, "cpu");
}
#endif

TEST(Model, RefusesWhatItCannotRun) {
  auto package = Package::open(packages("llama", "q4"));
  ASSERT_TRUE(package.ok());
  auto unknown = Model::open(*package, {"abacus", 0});
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(int(unknown.status().code()), int(Code::kNotFound));
  EXPECT_NE(unknown.status().message().find("cpu"), std::string::npos);
  EXPECT_FALSE(Model::open(*package, {"cpu:3", 0}).ok());
  EXPECT_FALSE(Model::open(*package, {"cpu", -1}).ok());
}

} // namespace
} // namespace freeport
