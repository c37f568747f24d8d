// A real training process, killed with SIGKILL in the middle of training and resumed, ends with the
// same bits as one that was left alone; one that is asked to stop loses nothing at all.

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <thread>

#include "random/stream.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

using std::chrono::milliseconds;

constexpr auto kPatience = std::chrono::seconds(120);

class KillResume : public ::testing::Test {
 protected:
  std::vector<std::string> Command(const std::string& work_dir,
                                   const std::vector<std::string>& settings) const {
    std::vector<std::string> command = {KinefitBinary(), "train", scratch_ / "config.toml",
                                        "--work-dir", work_dir};
    for (const std::string& setting : settings) command.insert(command.end(), {"--set", setting});
    return command;
  }
  void TrainWhole(const std::string& work_dir, const std::vector<std::string>& settings) {
    Process process(Command(work_dir, settings), scratch_ / "whole.txt");
    const Outcome outcome = process.Wait();
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }

  // Optimizer steps that the run has logged, repeated ones counted again.
  static int StepsLogged(const std::string& work_dir) {
    const std::string log = work_dir + "/log.jsonl";
    return std::filesystem::exists(log) ? CountOf("\"event\":\"step\"", ReadText(log)) : 0;
  }

  // Waits until `process` has logged `more` steps than `before`. False if it ended.
  static bool WaitForSteps(Process* process, const std::string& work_dir, int before, int more) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (StepsLogged(work_dir) < before + more) {
      if (process->WaitFor(milliseconds(1))) return false;
      if (std::chrono::steady_clock::now() > end) ADD_FAILURE() << "no progress";
      if (HasFailure()) return false;
    }
    return true;
  }

  // Sends `signal` after a random number of steps, again and again, `times` in all; then lets the
  // run finish.
  void Disturb(const std::string& work_dir, const std::vector<std::string>& settings,
               const std::vector<int>& signals, int times) {
    RandomStream random(17, "kill");
    for (int i = 0; i < times; ++i) {
      const int signal = signals[static_cast<size_t>(i) % signals.size()];
      const int before = StepsLogged(work_dir);
      Process process(Command(work_dir, settings), scratch_ / "disturbed.txt");
      const int steps = 3 + static_cast<int>(random.Uniform(0, 4));
      ASSERT_TRUE(WaitForSteps(&process, work_dir, before, steps))
          << "it ended before signal " << i;
      std::this_thread::sleep_for(std::chrono::microseconds(
          static_cast<int64_t>(random.Uniform(0, 30000))));  // anywhere within a step
      process.Signal(signal);
      const Outcome outcome = process.Wait();
      ASSERT_EQ(outcome.exit_code, 128 + signal) << outcome.output;
      ASSERT_EQ(CountOf("finished after", outcome.output), 0) << outcome.output;
    }
    Process process(Command(work_dir, settings), scratch_ / "disturbed.txt");
    const Outcome outcome = process.Wait();
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
  ScratchFolder scratch_;
};

TEST_F(KillResume, TwoStreamsKilledTwentyTimesEndWithTheSameBits) {
  WriteText(scratch_ / "config.toml", SmallConfig("pcan"));
  const std::vector<std::string> settings = {
      "threads=2",        "train.optimizer.type=\"adamw\"", "train.optimizer.lr=0.001",
      "train.ema=true",   "train.ema_momentum=0.05",        "train.epochs=60",
      "train.val_every=7"};
  TrainWhole(scratch_ / "whole", settings);
  Disturb(scratch_ / "killed", settings, {SIGKILL}, 20);
  EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / "killed/last.pth"));
}

TEST_F(KillResume, PoseOnlyKilledEndsWithTheSameBits) {
  WriteText(scratch_ / "config.toml", SmallConfig("pose"));
  const std::vector<std::string> settings = {"threads=1", "train.epochs=40", "train.val_every=9"};
  TrainWhole(scratch_ / "whole", settings);
  Disturb(scratch_ / "killed", settings, {SIGKILL}, 5);
  EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / "killed/last.pth"));
}

// No periodic checkpoints: only the signal's own can save the middle of the epoch.
TEST_F(KillResume, AskedToStopItLosesNoStepAndEndsWithTheSameBits) {
  for (const std::string type : {"rgbpose", "rgb"}) {
    WriteText(scratch_ / "config.toml", SmallConfig(type));
    const std::vector<std::string> settings = {"threads=1", "train.epochs=20", "train.val_every=10",
                                               "train.checkpoint_every=0"};
    TrainWhole(scratch_ / ("whole_" + type), settings);
    const std::string work_dir = scratch_ / ("stopped_" + type);
    Disturb(work_dir, settings, {SIGTERM, SIGINT, SIGHUP}, 6);
    EXPECT_EQ(StepsLogged(work_dir), StepsLogged(scratch_ / ("whole_" + type)));
    EXPECT_TRUE(SameTensors(scratch_ / ("whole_" + type + "/last.pth"), work_dir + "/last.pth"));
  }
}

// A signal during validation does not wait for its end; it is done again on resume.
TEST_F(KillResume, ASignalCutsValidationOff) {
  WriteText(scratch_ / "config.toml", SmallConfig("pose"));
  const std::vector<std::string> settings = {"threads=1", "train.epochs=1", "eval.val_clips=1000",
                                             "eval.batch_size=1"};
  const std::string work_dir = scratch_ / "run";
  Process process(Command(work_dir, settings), scratch_ / "validating.txt");
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!std::filesystem::exists(work_dir + "/epoch_1.pth")) {
    ASSERT_FALSE(process.WaitFor(milliseconds(1)));
    ASSERT_LT(std::chrono::steady_clock::now(), end);
  }
  process.Signal(SIGTERM);
  const Outcome stopped = process.Wait();
  EXPECT_EQ(stopped.exit_code, 128 + SIGTERM) << stopped.output;
  EXPECT_FALSE(std::filesystem::exists(work_dir + "/best.pth"));
  const Outcome rest = Kinefit({"train", scratch_ / "config.toml", "--work-dir", work_dir, "--set",
                                "threads=1", "--set", "train.epochs=1"});
  EXPECT_EQ(rest.exit_code, 0) << rest.output;
  EXPECT_TRUE(std::filesystem::exists(work_dir + "/best.pth"));
}

TEST_F(KillResume, StartedWithNohupItSurvivesTheEndOfTheTerminal) {
  WriteText(scratch_ / "config.toml", SmallConfig("pose"));
  const std::string work_dir = scratch_ / "run";
  Process process(
      {"/bin/sh", "-c", "trap '' HUP; exec \"$0\" train \"$1\" -w \"$2\" --set train.epochs=2000",
       KinefitBinary(), scratch_ / "config.toml", work_dir},
      scratch_ / "nohup.txt");
  ASSERT_TRUE(WaitForSteps(&process, work_dir, 0, 1));
  process.Signal(SIGHUP);
  EXPECT_TRUE(WaitForSteps(&process, work_dir, StepsLogged(work_dir), 5));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_code, 128 + SIGTERM);
}

TEST_F(KillResume, OneWorkDirIsForOneRunAtATime) {
  WriteText(scratch_ / "config.toml", SmallConfig("pose"));
  const std::string work_dir = scratch_ / "run";
  const std::vector<std::string> settings = {"threads=1", "train.epochs=2000"};
  Process first(Command(work_dir, settings), scratch_ / "first.txt");
  ASSERT_TRUE(WaitForSteps(&first, work_dir, 0, 1));
  const Outcome second = Kinefit({"train", scratch_ / "config.toml", "--work-dir", work_dir});
  EXPECT_EQ(second.exit_code, 2) << second.output;
  EXPECT_NE(second.output.find("is training in this work dir"), std::string::npos) << second.output;
  first.Signal(SIGKILL);
  first.Wait();
  Process again(Command(work_dir, settings), scratch_ / "first.txt");
  EXPECT_TRUE(WaitForSteps(&again, work_dir, StepsLogged(work_dir), 1));
}

}  // namespace
}  // namespace kinefit::testing
