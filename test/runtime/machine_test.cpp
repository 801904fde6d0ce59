// What the runtime finds out about the machine.
#include "runtime/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sched.h>
#include <thread>
#include <unistd.h>

namespace freeport {
namespace {

class Cores : public testing::Test {
protected:
  ~Cores() override { std::filesystem::remove_all(folder_); }

  /// A folder in which `siblings(processor)` share a core.
  template <typename Siblings> std::string folder(Siblings siblings) {
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
      const auto topology = folder_ / ("cpu" + std::to_string(processor)) / "topology";
      std::filesystem::create_directories(topology);
      std::ofstream(topology / "thread_siblings_list") << siblings(processor) << "\n";
    }
    return folder_.string();
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("freeport-machine-test-" + std::to_string(::getpid()));
};

TEST_F(Cores, ProcessorsOfOneCoreCountOnce) {
  EXPECT_EQ(physical_cores(folder([](int) { return "0-1023"; })), 1);
}

TEST_F(Cores, EachProcessorIsACoreWhereNoneShare) {
  EXPECT_EQ(physical_cores(folder([](int processor) { return processor; })), int(std::thread::hardware_concurrency()));
}

TEST_F(Cores, AreProcessorsWhereTheKernelDoesNotTell) {
  EXPECT_EQ(physical_cores((folder_ / "absent").string()), int(std::thread::hardware_concurrency()));
  EXPECT_GE(physical_cores(), 1);
}

} // namespace
} // namespace freeport
