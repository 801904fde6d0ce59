// freeport-dispatch-runner: runs the dispatches that come in on standard input and answers on standard output, so that
// a machine without the compiler, or an emulated one, takes part in the conformance tests (RunKernel.h).
#include "test/conformance/dispatch.h"

#include <unistd.h>

int main() {
  nlohmann::json request;
  while (freeport::read_frame(STDIN_FILENO, request)) {
    freeport::Dispatch dispatch;
    dispatch.backend = request["backend"];
    dispatch.target = request["target"];
    dispatch.conditions = request["conditions"];
    dispatch.version = request["version"];
    dispatch.content = request["content"].get_binary();
    dispatch.kernel = request["kernel"];
    for (const nlohmann::json &buffer : request["buffers"])
      dispatch.buffers.push_back(freeport::buffer_of(buffer));
    dispatch.scalars = request["scalars"].get<std::vector<int64_t>>();
    dispatch.grid = request["grid"].get<std::array<int64_t, 3>>();
    std::string why;
    freeport::Result<bool> ran = freeport::run_dispatch(dispatch, why);
    nlohmann::json answer;
    answer["error"] = ran.ok() ? "" : std::string(ran.status().message());
    answer["ran"] = ran.ok() && *ran;
    answer["why"] = why;
    answer["buffers"] = nlohmann::json::array();
    for (const std::vector<std::byte> &buffer : dispatch.buffers)
      answer["buffers"].push_back(freeport::json_of(buffer));
    if (!freeport::write_frame(STDOUT_FILENO, answer))
      return 1;
  }
  return 0;
}
