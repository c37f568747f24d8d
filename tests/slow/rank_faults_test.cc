// Two ranks, one of them hit by a signal, an exception or lack of memory at random steps, twenty
// times each: none may hang, the rank is named, and none may change a bit of the result.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
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
    TrainWhole();
  }

  // The run that nothing happens to.
  void TrainWhole() const {
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
      const pid_t pids[2] = {LaunchedRank(scratch_ / run, 0), LaunchedRank(scratch_ / run, 1)};
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
      EXPECT_GE(CountOf("after step", outcome.output), 1) << outcome.output;
      EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
    }
  }

  ScratchFolder scratch_;
  const std::string config_ = scratch_ / "config.toml";
};

TEST_F(RankFaults, Killed) { HitBy(SIGKILL); }
TEST_F(RankFaults, Stopped) { HitBy(SIGSTOP); }

// A video that cannot be read is an exception of the rank whose turn it is, at a step that depends
// on the order of the epoch. Once it is repaired the same command finishes.
TEST_F(RankFaults, Thrown) {
  const std::string set = scratch_ / "set";
  fs::copy(SmallSet(), set, fs::copy_options::recursive);
  std::string config = SmallConfig("rgb");
  for (size_t at; (at = config.find(SmallSet())) != std::string::npos;) {
    config.replace(at, SmallSet().size(), set);
  }
  WriteText(config_, config);
  fs::remove_all(scratch_ / "whole");
  TrainWhole();
  std::vector<std::string> videos;
  for (const auto& entry : fs::directory_iterator(set + "/videos")) videos.push_back(entry.path());
  std::sort(videos.begin(), videos.end());

  RandomStream random(41, "rank faults");
  int thrown = 0;
  std::map<std::string, int> ranks;
  for (int i = 0; thrown < kTimes; ++i) {
    SCOPED_TRACE(std::to_string(i));
    ASSERT_LT(i, 10 * kTimes);
    const std::string run = "thrown_" + std::to_string(i);
    const auto number = static_cast<size_t>(random.Uniform(0, static_cast<double>(videos.size())));
    const std::string video = ReadText(videos[number]);
    Process launcher(Launch(run), scratch_ / run + ".txt");
    const int steps = static_cast<int>(random.Uniform(0, 12));
    while (Steps(run) < steps) ASSERT_FALSE(launcher.WaitFor(milliseconds(2)));
    WriteText(videos[number], video.substr(0, video.size() / 3));
    const auto begin = Clock::now();
    ASSERT_TRUE(launcher.WaitFor(seconds(60)));
    WriteText(videos[number], video);
    const Outcome outcome = launcher.Wait();
    if (outcome.exit_code == 0) continue;  // a clip of the test split, or its last turn was over
    ++thrown;
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_LT(Clock::now() - begin, seconds(30)) << outcome.output;
    const int named = CountOf("kinefit launch: rank 0 on ", outcome.output) +
                      CountOf("kinefit launch: rank 1 on ", outcome.output);
    EXPECT_EQ(named, 1) << outcome.output;
    ++ranks[outcome.output.find("kinefit launch: rank 0") != std::string::npos ? "0" : "1"];
    EXPECT_NE(outcome.output.find(fs::path(videos[number]).stem()), std::string::npos)
        << outcome.output;
    Process again(Launch(run), scratch_ / run + ".txt");
    ASSERT_TRUE(again.WaitFor(seconds(120)));
    EXPECT_EQ(again.Wait().exit_code, 0) << again.Wait().output;
    EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
  }
  EXPECT_EQ(ranks.size(), 2U) << "both ranks have had their turn";
}

// At allocations all over forward, backward and update, until each had its twenty.
TEST_F(RankFaults, OutOfMemory) {
  RandomStream random(37, "rank faults");
  std::map<std::string, int> called_off = {{"forward", 0}, {"backward", 0}, {"update", 0}};
  const auto enough = [&] {
    return std::all_of(called_off.begin(), called_off.end(),
                       [](const auto& phase) { return phase.second >= kTimes; });
  };
  int same_plan = 0;
  int i = 0;
  for (; !enough(); ++i) {
    SCOPED_TRACE(std::to_string(i));
    ASSERT_LT(i, 10 * kTimes);
    const std::string run = "run_" + std::to_string(i);
    const int victim = static_cast<int>(random.Uniform(0, 2));
    std::string list;
    for (double at = 3000 + random.Uniform(0, 2000); at < 18000; at += random.Uniform(1300, 2000)) {
      list += (list.empty() ? "" : ",") + std::to_string(static_cast<int64_t>(at));
    }
    std::vector<std::vector<std::string>> extra(2);
    extra[static_cast<size_t>(victim)] = {"KINEFIT_FAIL_ALLOCATIONS=" + list};
    RankProcesses ranks(2, Train(run), scratch_ / run, extra);
    const auto outcomes = ranks.Wait(seconds(120));
    for (const Outcome& outcome : outcomes) ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    for (auto& [phase, count] : called_off) {
      count += CountOf("rank " + std::to_string(victim) + " (" + phase + "): out of memory",
                       outcomes[0].output);
    }
    if (CountOf("from this step on", outcomes[0].output) > 0) continue;  // the plan changed
    ++same_plan;
    EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
  }
  for (const auto& [phase, count] : called_off) std::printf("%4d %s\n", count, phase.c_str());
  EXPECT_GE(same_plan, i / 2);
}

}  // namespace
}  // namespace kinefit::testing
