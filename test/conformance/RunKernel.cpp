// From the kernel dialect to memory and back, over the two contracts of a backend and nothing else.
#include "test/conformance/RunKernel.h"

#include "test/conformance/dispatch.h"

#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/raw_ostream.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace freeport {
namespace {

/// The program that FREEPORT_DISPATCH_RUNNER names with its arguments, running for the life of the process.
class Runner {
public:
  explicit Runner(const char *command) {
    int requests[2], answers[2];
    if (pipe2(requests, O_CLOEXEC) || pipe2(answers, O_CLOEXEC))
      llvm::report_fatal_error("pipe failed");
    std::signal(SIGPIPE, SIG_IGN);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, requests[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, answers[1], STDOUT_FILENO);
    std::string line = std::string("exec ") + command, shell = "sh", option = "-c";
    char *arguments[] = {shell.data(), option.data(), line.data(), nullptr};
    if (posix_spawn(&process, "/bin/sh", &actions, nullptr, arguments, environ))
      process = -1;
    posix_spawn_file_actions_destroy(&actions);
    close(requests[0]);
    close(answers[1]);
    to = requests[1];
    from = answers[0];
  }
  ~Runner() {
    close(to);
    close(from);
    if (process > 0)
      waitpid(process, nullptr, 0);
  }

  Result<bool> run(Dispatch &dispatch, std::string &why) {
    nlohmann::json request, answer;
    request["backend"] = dispatch.backend;
    request["target"] = dispatch.target;
    request["conditions"] = dispatch.conditions;
    request["version"] = dispatch.version;
    request["content"] = nlohmann::json::binary(dispatch.content);
    request["kernel"] = dispatch.kernel;
    request["buffers"] = nlohmann::json::array();
    for (const std::vector<std::byte> &buffer : dispatch.buffers)
      request["buffers"].push_back(json_of(buffer));
    request["scalars"] = dispatch.scalars;
    request["grid"] = dispatch.grid;
    if (!write_frame(to, request) || !read_frame(from, answer))
      return Status(Code::kIo, "expects an answer of the program in FREEPORT_DISPATCH_RUNNER, got none");
    if (std::string error = answer["error"]; !error.empty())
      return Status(Code::kInternal, error);
    for (size_t i = 0; i < dispatch.buffers.size(); ++i)
      dispatch.buffers[i] = buffer_of(answer["buffers"][i]);
    why = answer["why"];
    return answer["ran"].get<bool>();
  }

private:
  pid_t process = -1;
  int to, from;
};

/// Null where no runner is named.
Runner *runner() {
  static const char *command = std::getenv("FREEPORT_DISPATCH_RUNNER");
  static std::unique_ptr<Runner> known = command ? std::make_unique<Runner>(command) : nullptr;
  return known.get();
}

RanAt skip(const std::string &why) {
  static llvm::StringSet<> said;
  if (said.insert(why).second)
    llvm::errs() << "not run: " << why << "\n";
  return kNowhere;
}

} // namespace

llvm::Expected<RanAt> runKernel(const Backend &backend, llvm::StringRef profile, mlir::ModuleOp module,
                                llvm::StringRef kernelName, std::vector<std::vector<char>> &buffers,
                                llvm::ArrayRef<int64_t> scalars, std::array<int64_t, 3> grid) {
  if (llvm::Error error = backend.supports(mlir::SymbolTable::lookupSymbolIn(module, kernelName)))
    return std::move(error);
  mlir::OwningOpRef<mlir::ModuleOp> copy = module.clone();
  mlir::PassManager passes(copy->getContext());
  backend.buildPipeline(passes, profile);
  if (failed(passes.run(*copy)))
    return llvm::createStringError("expects the pipeline of " + backend.name().str() + " to succeed");
  llvm::Expected<Executable> executable = backend.serialize(*copy, profile);
  if (!executable)
    return executable.takeError();

  Dispatch dispatch;
  dispatch.backend = backend.name().str();
  dispatch.target = executable->target;
  dispatch.conditions = executable->conditions;
  dispatch.version = executable->version;
  dispatch.content.assign(executable->content.begin(), executable->content.end());
  dispatch.kernel = kernelName.str();
  for (const std::vector<char> &buffer : buffers) {
    const auto *first = reinterpret_cast<const std::byte *>(buffer.data());
    dispatch.buffers.emplace_back(first, first + buffer.size());
  }
  dispatch.scalars.assign(scalars.begin(), scalars.end());
  dispatch.grid = grid;
  std::string why, whyElsewhere;
  Result<bool> ran = run_dispatch(dispatch, why);
  RanAt place = kHere;
  if (ran.ok() && !*ran && runner()) {
    ran = runner()->run(dispatch, whyElsewhere);
    place = kInRunner;
  }
  if (!ran.ok())
    return llvm::createStringError(std::string(ran.status().message()));
  if (!*ran)
    return skip((backend.name() + " " + profile + ": " + why +
                 (whyElsewhere.empty() ? "" : "; in FREEPORT_DISPATCH_RUNNER: " + whyElsewhere))
                    .str());
  for (size_t i = 0; i < buffers.size(); ++i)
    std::memcpy(buffers[i].data(), dispatch.buffers[i].data(), buffers[i].size());
  return place;
}

} // namespace freeport
