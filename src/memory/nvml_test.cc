#include "memory/nvml.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

// The driver's library is a real one with NVML's entry points (testing/scripted_nvml.cc), its
// answers are scripted: there is no GPU where these tests run.

namespace kinefit {
namespace {

class Nvml : public ::testing::Test {
 protected:
  Nvml() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kinefit-nvml-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    setenv("KINEFIT_NVML_SCRIPT", (folder_ + "/script").c_str(), 1);
  }
  ~Nvml() override {
    unsetenv("KINEFIT_NVML_SCRIPT");
    std::filesystem::remove_all(folder_);
  }
  GpuStates Read(const std::string& script, const char* library = KINEFIT_SCRIPTED_NVML) const {
    std::ofstream(folder_ + "/script") << script;
    return ReadGpus(library);
  }

  std::string folder_;
};

TEST_F(Nvml, IsNotNeeded) {
  const GpuStates states = ReadGpus(folder_ + "/libnvidia-ml.so.1");
  EXPECT_EQ(states.status, GpuStates::kNoLibrary);
  EXPECT_TRUE(states.gpus.empty());
}

TEST_F(Nvml, ListsGpusAndProcesses) {
  const std::string own = std::to_string(getpid());
  const GpuStates states = Read(
      "driver 550.54.14\n"
      "gpu 42295295787 42286781235 500000000 NVIDIA A100-PCIE-40GB\n"
      "compute 999999999 18000000000\n"
      "compute " +
      own +
      " 23000000000\n"
      "graphics " +
      own +
      " 23000000000\n"
      "graphics 888888888 -1\n"
      "gpu 8589934592 0 -1 Other\n");
  ASSERT_EQ(states.status, GpuStates::kRead) << states.problem;
  EXPECT_EQ(states.driver, "550.54.14");
  ASSERT_EQ(states.gpus.size(), 2u);
  const GpuState& gpu = states.gpus[0];
  EXPECT_EQ(gpu.name, "NVIDIA A100-PCIE-40GB");
  EXPECT_EQ(gpu.uuid, "GPU-0000-0");
  EXPECT_EQ(gpu.total, 42295295787);
  EXPECT_EQ(gpu.used + gpu.free, gpu.total);
  EXPECT_EQ(gpu.reserved, 500000000);
  ASSERT_EQ(gpu.processes.size(), 3u);  // in two lists, but one process
  EXPECT_EQ(gpu.processes[0].pid, getpid());
  EXPECT_EQ(gpu.processes[0].bytes, 23000000000);
  ASSERT_TRUE(gpu.processes[0].process);
  EXPECT_EQ(gpu.processes[0].process->name, "memory_test");
  EXPECT_EQ(gpu.processes[1].bytes, 18000000000);
  EXPECT_FALSE(gpu.processes[1].process);
  EXPECT_EQ(gpu.processes[2].pid, 888888888);
  EXPECT_FALSE(gpu.processes[2].bytes);
  EXPECT_EQ(gpu.unattributed, 42286781235 - 500000000 - 23000000000 - 18000000000);
  EXPECT_EQ(states.gpus[1].index, 1);
  EXPECT_FALSE(states.gpus[1].reserved);
  EXPECT_TRUE(states.gpus[1].processes.empty());
  EXPECT_EQ(states.gpus[1].unattributed, 0);
}

TEST_F(Nvml, AsksAgainWhenThereAreManyProcesses) {
  std::string script = "gpu 1000000 1000000 0 Many\n";
  for (int i = 0; i < 300; ++i) script += "compute " + std::to_string(900000000 + i) + " 1000\n";
  const GpuStates states = Read(script);
  ASSERT_EQ(states.gpus.size(), 1u);
  EXPECT_EQ(states.gpus[0].processes.size(), 300u);
  EXPECT_EQ(states.gpus[0].unattributed, 1000000 - 300 * 1000);
}

TEST_F(Nvml, UnderstandsOldDrivers) {
  const GpuStates states =
      Read("gpu 1000 900 -1 Old\ncompute 999999999 700\ngraphics 999999998 -1\n",
           KINEFIT_SCRIPTED_OLD_NVML);
  ASSERT_EQ(states.gpus.size(), 1u);
  ASSERT_EQ(states.gpus[0].processes.size(), 2u);
  EXPECT_EQ(states.gpus[0].processes[0].bytes, 700);
  EXPECT_EQ(states.gpus[0].unattributed, 200);
}

TEST_F(Nvml, ReportsADriverThatDoesNotAnswer) {
  const GpuStates states = Read("init 18\n");
  EXPECT_EQ(states.status, GpuStates::kFailed);
  EXPECT_EQ(states.problem, "Driver/library version mismatch");
}

TEST_F(Nvml, ReportsOneBrokenGpuAmongOthers) {
  const GpuStates states = Read("gpu 1000 900 -1 A\nbroken 15\ngpu 2000 0 -1 B\n");
  ASSERT_EQ(states.gpus.size(), 3u);
  EXPECT_EQ(states.gpus[0].problem, "");
  EXPECT_EQ(states.gpus[1].problem, "GPU is lost");
  EXPECT_EQ(states.gpus[2].total, 2000);
}

TEST_F(Nvml, RefusesALibraryOfAnotherKind) {
  const GpuStates states = ReadGpus("libm.so.6");
  EXPECT_EQ(states.status, GpuStates::kFailed);
  EXPECT_NE(states.problem.find("nvmlInit_v2"), std::string::npos);
}

TEST(Processes, ShowsThisOne) {
  const std::optional<ProcessEntry> self = ReadProcess(getpid());
  ASSERT_TRUE(self);
  EXPECT_EQ(self->name, "memory_test");
  EXPECT_NE(self->command.find("memory_test"), std::string::npos);
  EXPECT_GT(self->resident, 1 << 20);
  EXPECT_FALSE(self->user.empty());
  EXPECT_FALSE(ReadProcess(999999999));
  EXPECT_FALSE(ReadProcess(-1));
}

TEST(Processes, SortsByResidentMemory) {
  const std::string proc =
      (std::filesystem::temp_directory_path() / ("kinefit-proc-" + std::to_string(getpid())))
          .string();
  const auto make = [&](const std::string& pid, const std::string& name, int pages) {
    std::filesystem::create_directories(proc + "/" + pid);
    std::ofstream(proc + "/" + pid + "/comm") << name << "\n";
    std::ofstream(proc + "/" + pid + "/cmdline") << name << '\0' << "--a\x1b[2J" << '\0';
    std::ofstream(proc + "/" + pid + "/statm") << pages * 2 << " " << pages << " 0 0 0 0 0\n";
  };
  make("10", "small", 1);
  make("20", "large", 300);
  make("30", "middle", 20);
  make("40", "kernel", 0);
  make("self", "not a number", 1000);
  std::ofstream(proc + "/meminfo")
      << "MemTotal:       16 kB\nMemFree:  5 kB\nMemAvailable:    9 kB\n";
  const std::vector<ProcessEntry> largest = LargestProcesses(2, proc);
  const HostMemory host = ReadHostMemory(proc);
  std::filesystem::remove_all(proc);
  ASSERT_EQ(largest.size(), 2u);
  EXPECT_EQ(largest[0].name, "large");
  EXPECT_EQ(largest[0].resident, 300 * sysconf(_SC_PAGESIZE));
  EXPECT_EQ(largest[0].command, "large --a [2J");
  EXPECT_EQ(largest[1].name, "middle");
  EXPECT_EQ(host.total, 16 * 1024);
  EXPECT_EQ(host.available, 9 * 1024);
  EXPECT_EQ(host.limit, 0);
}

TEST(Processes, KnowsTheHost) {
  const HostMemory host = ReadHostMemory();
  EXPECT_GT(host.available, 0);
  EXPECT_LT(host.available, host.total);
  EXPECT_LT(host.limit, host.total);
}

}  // namespace
}  // namespace kinefit
