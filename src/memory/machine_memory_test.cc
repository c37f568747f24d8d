#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "memory/plan.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20;

// A tree of control groups as /sys/fs/cgroup shows one.
class MemoryLimitsTest : public ::testing::Test {
 protected:
  MemoryLimitsTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-cgroup-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~MemoryLimitsTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  MemoryLimits Read(const std::string& cgroups, int64_t own = 0) {
    return ReadMemoryLimits(cgroups, root_, 24576 * kMiB, 20000 * kMiB, own);
  }

  std::string root_;
};

TEST_F(MemoryLimitsTest, WithoutGroupsTheMachineCounts) {
  const MemoryLimits limits = Read("");
  EXPECT_EQ(limits.total, 24576 * kMiB);
  EXPECT_EQ(limits.free, 20000 * kMiB);
  EXPECT_EQ(Read("", 100 * kMiB).free, 20100 * kMiB);
}

// As Slurm nests them: the job's group has the limit, the task's has none.
TEST_F(MemoryLimitsTest, TheTightestGroupOfVersionOneCounts) {
  Write("/memory/memory.limit_in_bytes", "9223372036854771712");
  Write("/memory/slurm/job_7/memory.limit_in_bytes", std::to_string(1200 * kMiB));
  Write("/memory/slurm/job_7/memory.usage_in_bytes", std::to_string(300 * kMiB));
  Write("/memory/slurm/job_7/memory.stat",
        "cache 9\ntotal_inactive_file " + std::to_string(100 * kMiB));
  Write("/memory/slurm/job_7/step_0/memory.limit_in_bytes", "9223372036854771712");
  const MemoryLimits limits = Read("4:cpu,cpuacct:/x\n7:memory:/slurm/job_7/step_0\n");
  EXPECT_EQ(limits.total, 1200 * kMiB);
  EXPECT_EQ(limits.free, 1000 * kMiB);
}

TEST_F(MemoryLimitsTest, TheTightestGroupOfVersionTwoCounts) {
  Write("/a/memory.max", std::to_string(3072 * kMiB));
  Write("/a/memory.current", std::to_string(1500 * kMiB));
  Write("/a/memory.stat", "anon 1\ninactive_file " + std::to_string(200 * kMiB));
  Write("/a/b/memory.max", "max");
  Write("/a/b/c/memory.max", std::to_string(4096 * kMiB));
  const MemoryLimits limits = Read("0::/a/b/c\n", 100 * kMiB);
  EXPECT_EQ(limits.total, 3072 * kMiB);
  EXPECT_EQ(limits.free, (3072 - 1500 + 200 + 100) * kMiB);
}

// In a container the process's own group is the root of what is mounted.
TEST_F(MemoryLimitsTest, AContainersOwnGroupIsTheRoot) {
  Write("/memory.max", std::to_string(400 * kMiB));
  EXPECT_EQ(Read("0::/../../docker/1234\n").total, 400 * kMiB);
}

}  // namespace
}  // namespace kinefit
