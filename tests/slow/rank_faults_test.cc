// Two ranks under `kinefit launch`, one of them hit by a signal or by lack of memory at random
// steps, twenty times each: none may hang, and none may change a bit of the result.

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "random/stream.h"
#include "tests/rank_processes.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kTimes = 20;

class RankFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteText(config_, SmallConfig("pose"));
    Process whole(Launch("whole"), scratch_ / "whole.txt");
    const Outcome outcome = whole.Wait();
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }

  std::vector<std::string> Train(const std::string& run) const {
    return {"train",      config_,
            "--work-dir", scratch_ / run,
            "--set",      "threads=1",
            "--set",      "train.epochs=6",
            "--set",      "train.batch_size=2",
            "--set",      "train.val_every=3",
            "--set",      "train.checkpoint_every=1",
            "--set",      "distributed.timeout=4"};
  }
  std::vector<std::string> Launch(const std::string& run) const {
    std::vector<std::string> command = {KinefitBinary(),  "launch", "--nproc", "2",
                                        "--max-restarts", "1",      "--"};
    const auto train = Train(run);
    command.insert(command.end(), train.begin(), train.end());
    return command;
  }
  int Steps(const std::string& run) const {
    const std::string log = scratch_ / run + "/log.jsonl";
    return fs::exists(log) ? CountOf("\"event\":\"step\"", ReadText(log)) : 0;
  }
  static pid_t Rank(const std::string& work_dir, int rank) {
    const std::string variable = std::string(1, 0) + "RANK=" + std::to_string(rank) + '\0';
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const pid_t pid = std::atoi(entry.path().filename().c_str());
      if (pid <= 1 || access((entry.path() / "environ").c_str(), R_OK) != 0) continue;
      const std::string environment = '\0' + ReadText(entry.path() / "environ");
      if (ReadText(entry.path() / "cmdline").find(work_dir) == std::string::npos) continue;
      if (environment.find("KINEFIT_STATUS_DIR=") == std::string::npos) continue;
      if (environment.find(variable) != std::string::npos) return pid;
    }
    return -1;
  }

  void HitBy(int signal) {
    RandomStream random(31, "rank faults", static_cast<uint64_t>(signal));
    for (int i = 0; i < kTimes; ++i) {
      SCOPED_TRACE(std::to_string(i));
      const std::string run = "run_" + std::to_string(signal) + "_" + std::to_string(i);
      const int steps = 1 + static_cast<int>(random.Uniform(0, 12));
      const int victim = static_cast<int>(random.Uniform(0, 2));
      Process launcher(Launch(run), scratch_ / run + ".txt");
      const auto patience = Clock::now() + seconds(90);
      while (Steps(run) < steps) {
        ASSERT_FALSE(launcher.WaitFor(milliseconds(2))) << launcher.Wait().output;
        ASSERT_LT(Clock::now(), patience);
      }
      std::this_thread::sleep_for(milliseconds(static_cast<int64_t>(random.Uniform(0, 20))));
      const pid_t pids[2] = {Rank(scratch_ / run, 0), Rank(scratch_ / run, 1)};
      ASSERT_GT(pids[0], 1);
      ASSERT_GT(pids[1], 1);
      ASSERT_EQ(kill(pids[victim], signal), 0);
      const auto hit_at = Clock::now();
      while (kill(pids[0], 0) == 0 || kill(pids[1], 0) == 0) {
        ASSERT_LT(Clock::now() - hit_at, seconds(14)) << "within the time-out + 10 s";
        std::this_thread::sleep_for(milliseconds(5));
      }
      ASSERT_TRUE(launcher.WaitFor(seconds(120)));
      const Outcome outcome = launcher.Wait();
      EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
      EXPECT_EQ(CountOf("kinefit launch: rank " + std::to_string(victim) + " on ", outcome.output),
                1)
          << outcome.output;
      EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
    }
  }

  ScratchFolder scratch_;
  const std::string config_ = scratch_ / "config.toml";
};

TEST_F(RankFaults, Killed) { HitBy(SIGKILL); }
TEST_F(RankFaults, Stopped) { HitBy(SIGSTOP); }

// At allocations all over forward, backward and update.
TEST_F(RankFaults, OutOfMemory) {
  RandomStream random(37, "rank faults");
  int called_off = 0;
  for (int i = 0; i < kTimes; ++i) {
    SCOPED_TRACE(std::to_string(i));
    const std::string run = "run_" + std::to_string(i);
    const int victim = static_cast<int>(random.Uniform(0, 2));
    std::string list;
    for (double at = 3000 + random.Uniform(0, 2000); at < 18000; at += random.Uniform(2600, 3400)) {
      list += (list.empty() ? "" : ",") + std::to_string(static_cast<int64_t>(at));
    }
    std::vector<std::vector<std::string>> extra(2);
    extra[static_cast<size_t>(victim)] = {"KINEFIT_FAIL_ALLOCATIONS=" + list};
    RankProcesses ranks(2, Train(run), scratch_ / run, extra);
    const auto outcomes = ranks.Wait(seconds(120));
    for (const Outcome& outcome : outcomes) ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    called_off += CountOf("run again", outcomes[0].output);
    if (CountOf("from this step on", outcomes[0].output) > 0) continue;  // the plan changed
    EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
  }
  EXPECT_GE(called_off, 2 * kTimes);
}

}  // namespace
}  // namespace kinefit::testing
