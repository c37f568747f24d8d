// A real training process, killed with SIGKILL at random moments and resumed, ends with the same
// bits as one that was left alone.

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "random/stream.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

using std::chrono::milliseconds;

std::vector<std::pair<std::string, at::Tensor>> FinalWeights(const std::string& work_dir) {
  const std::string path = work_dir + "/last.pth";
  return StateDictOf(ReadCheckpoint(path), path);
}

void ExpectSameBits(const std::string& one, const std::string& two) {
  const auto first = FinalWeights(one);
  const auto second = FinalWeights(two);
  ASSERT_EQ(first.size(), second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    ASSERT_EQ(first[i].first, second[i].first);
    EXPECT_TRUE(at::equal(first[i].second, second[i].second)) << first[i].first;
  }
}

class KillResume : public ::testing::Test {
 protected:
  std::vector<std::string> Command(const std::string& work_dir) const {
    return {KinefitBinary(), "train", scratch_ / "config.toml", "--work-dir", work_dir};
  }
  // Trains to the end without disturbance; returns the seconds it took.
  double TrainWhole(const std::string& work_dir) {
    const auto start = std::chrono::steady_clock::now();
    Process process(Command(work_dir), scratch_ / "whole.txt");
    const Outcome outcome = process.Wait();
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  ScratchFolder scratch_;
};

void KillTwentyTimes(const ScratchFolder& scratch, const std::vector<std::string>& command,
                     double whole_seconds) {
  RandomStream random(static_cast<uint64_t>(whole_seconds * 1e6), "kill");
  int kills = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    Process process(command, scratch / "killed.txt");
    const bool kill_it = kills < 20;
    if (!kill_it) {
      const Outcome outcome = process.Wait();
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
      return;
    }
    // Anywhere from start-up to a good way into the run.
    const auto delay =
        milliseconds(static_cast<int64_t>(random.Uniform(0, 0.6) * 1e3 * whole_seconds));
    if (process.WaitFor(delay)) {
      const Outcome outcome = process.Wait();
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
      // It finished before the kill: the remaining kills hit a finished run's start-up.
    }
    process.Signal(SIGKILL);
    process.Wait();
    ++kills;
  }
}

TEST_F(KillResume, PoseOnlyKilledTwentyTimesEndsWithTheSameBits) {
  WriteText(scratch_ / "config.toml", SmallConfig("pose"));
  const double seconds = TrainWhole(scratch_ / "whole");
  KillTwentyTimes(scratch_, Command(scratch_ / "killed"), seconds);
  ExpectSameBits(scratch_ / "whole", scratch_ / "killed");
}

TEST_F(KillResume, TerminatedInMidEpochSavesAndContinuesToTheSameBits) {
  for (const std::string type : {"pcan", "rgb"}) {
    // No periodic checkpoints: only the signal's own can save the middle of the epoch.
    WriteText(scratch_ / "config.toml", SmallConfig(type) + "[memory]\n");
    const double seconds = TrainWhole(scratch_ / ("whole_" + type));
    const std::string work_dir = scratch_ / ("stopped_" + type);
    int stops = 0;
    for (int attempt = 0; attempt < 20; ++attempt) {
      Process process(Command(work_dir), scratch_ / "stopped.txt");
      if (stops < 3 && !process.WaitFor(milliseconds(static_cast<int64_t>(450 * seconds)))) {
        process.Signal(stops % 2 == 0 ? SIGTERM : SIGINT);
        const Outcome outcome = process.Wait();
        EXPECT_TRUE(outcome.exit_code == 128 + SIGTERM || outcome.exit_code == 128 + SIGINT ||
                    outcome.exit_code == 0)
            << outcome.exit_code << outcome.output;
        ++stops;
        continue;
      }
      const Outcome outcome = process.Wait();
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
      break;
    }
    EXPECT_GE(stops, 1);
    ExpectSameBits(scratch_ / ("whole_" + type), work_dir);
  }
}

}  // namespace
}  // namespace kinefit::testing
