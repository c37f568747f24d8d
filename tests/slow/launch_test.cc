// `kinefit launch` with the real program as its ranks: faults of a rank that trains, signals,
// mistakes.

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "random/stream.h"
#include "tests/rank_processes.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Launch : public ::testing::Test {
 protected:
  void SetUp() override { WriteText(scratch_ / "config.toml", SmallConfig("pose")); }

  std::vector<std::string> Command(const std::string& work_dir,
                                   const std::vector<std::string>& launch, int ranks = 1) const {
    std::vector<std::string> command = {KinefitBinary(), "launch", "--nproc",
                                        std::to_string(ranks)};
    command.insert(command.end(), launch.begin(), launch.end());
    command.insert(command.end(),
                   {"--", "train", scratch_ / "config.toml", "--work-dir", work_dir, "--set",
                    "threads=1", "--set", "train.epochs=16", "--set", "train.val_every=8"});
    return command;
  }
  static int Steps(const std::string& work_dir) {
    const std::string log = work_dir + "/log.jsonl";
    return fs::exists(log) ? CountOf("\"event\":\"step\"", ReadText(log)) : 0;
  }
  static bool WaitForSteps(Process* launcher, const std::string& work_dir, int steps) {
    const auto end = Clock::now() + seconds(90);
    while (Steps(work_dir) < steps) {
      if (launcher->WaitFor(milliseconds(2)) || Clock::now() > end) return false;
    }
    return true;
  }
  // The rank that trains in this work dir: whoever holds its lock.
  static pid_t Rank(const std::string& work_dir) {
    return std::atoi(ReadText(work_dir + "/.lock").c_str());
  }
  ScratchFolder scratch_;
};

// Two ranks: one is killed, later one is stopped. All are ended within the time-out, the message
// says which rank, at which step and why, and the run ends with the bits of an undisturbed one.
TEST_F(Launch, OneOfTwoRanksKilledOrStoppedChangesNothing) {
  const std::string whole = scratch_ / "whole";
  Process undisturbed(Command(whole, {}, 2), scratch_ / "whole.txt");
  const Outcome reference = undisturbed.Wait();
  ASSERT_EQ(reference.exit_code, 0) << reference.output;

  const std::string hit = scratch_ / "hit";
  Process launcher(Command(hit, {"--max-restarts", "2", "--timeout", "4"}, 2),
                   scratch_ / "hit.txt");
  const struct {
    int signal;
    int victim;
  } faults[] = {{SIGKILL, 1}, {SIGSTOP, 0}};
  for (const auto& fault : faults) {
    ASSERT_TRUE(WaitForSteps(&launcher, hit, Steps(hit) + 5)) << ReadText(scratch_ / "hit.txt");
    const pid_t victim = LaunchedRank(hit, fault.victim);
    const pid_t other = LaunchedRank(hit, 1 - fault.victim);
    ASSERT_GT(victim, 1);
    ASSERT_GT(other, 1);
    ASSERT_EQ(kill(victim, fault.signal), 0);
    const auto hit_at = Clock::now();
    while (kill(victim, 0) == 0 || kill(other, 0) == 0) {
      ASSERT_LT(Clock::now() - hit_at, seconds(14)) << "within the time-out + 10 s";
      std::this_thread::sleep_for(milliseconds(5));
    }
  }
  ASSERT_TRUE(launcher.WaitFor(seconds(120)));
  const Outcome outcome = launcher.Wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(CountOf("all ranks start again", outcome.output), 2) << outcome.output;
  const size_t killed = outcome.output.find("was killed by signal 9 (Killed) after step");
  ASSERT_NE(killed, std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.rfind("kinefit launch: rank 1 on ", killed), std::string::npos);
  const size_t stopped = outcome.output.find("(it was stopped by a signal)");
  ASSERT_NE(stopped, std::string::npos) << outcome.output;
  EXPECT_GT(outcome.output.rfind("kinefit launch: rank 0 on ", stopped), killed) << outcome.output;
  EXPECT_NE(outcome.output.find("after step", stopped), std::string::npos) << outcome.output;
  // --timeout holds for the ranks as well.
  EXPECT_NE(ReadText(hit + "/config.toml").find("timeout = 4"), std::string::npos);
  EXPECT_TRUE(SameTensors(whole + "/last.pth", hit + "/last.pth"));
}

// A signal to the launcher, and one that only rank 1 gets: both save once and end all ranks.
TEST_F(Launch, ASignalEndsAllRanksInOneCheckpoint) {
  const std::string work_dir = scratch_ / "run";
  for (const int signal : {SIGINT, SIGHUP}) {
    Process launcher(Command(work_dir, {"--max-restarts", "3"}, 2), scratch_ / "out.txt");
    ASSERT_TRUE(WaitForSteps(&launcher, work_dir, Steps(work_dir) + 3));
    if (signal == SIGINT) {
      launcher.Signal(signal);
    } else {
      const pid_t rank = LaunchedRank(work_dir, 1);
      ASSERT_GT(rank, 1);
      ASSERT_EQ(kill(rank, signal), 0);
    }
    ASSERT_TRUE(launcher.WaitFor(seconds(60)));
    const Outcome outcome = launcher.Wait();
    EXPECT_EQ(outcome.exit_code, 128 + signal) << outcome.output;
    EXPECT_EQ(CountOf("stopped by a signal; saved", outcome.output), 1) << outcome.output;
    EXPECT_EQ(CountOf("again in", outcome.output), 0) << outcome.output;
  }
}

// Three ranks of two clips, one is killed: the two others go on with the same samples in every
// step.
TEST_F(Launch, ShrinksToTheRanksThatAreLeft) {
  const std::vector<std::string> more = {"--set", "train.epochs=6",   "--set", "train.batch_size=2",
                                         "--set", "train.val_every=0"};
  const auto command = [&](const std::string& run, const std::vector<std::string>& options) {
    auto all = Command(scratch_ / run, options, 3);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  Process undisturbed(command("whole", {}), scratch_ / "whole.txt");
  const Outcome reference = undisturbed.Wait();
  ASSERT_EQ(reference.exit_code, 0) << reference.output;

  const std::string hit = scratch_ / "hit";
  Process launcher(command("hit", {"--max-restarts", "1", "--shrink", "--timeout", "20"}),
                   scratch_ / "hit.txt");
  ASSERT_TRUE(WaitForSteps(&launcher, hit, 6)) << ReadText(scratch_ / "hit.txt");
  const pid_t victim = LaunchedRank(hit, 1);
  ASSERT_GT(victim, 1);
  ASSERT_EQ(kill(victim, SIGKILL), 0);
  ASSERT_TRUE(launcher.WaitFor(seconds(120)));
  const Outcome outcome = launcher.Wait();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("with 2 of 3 ranks"), std::string::npos) << outcome.output;

  // Batch norms see other groups of samples from then on, so losses differ; the samples do not.
  const auto samples = [&](const std::string& run) {  // by iteration: steps may be logged twice
    std::map<int64_t, int64_t> all;
    std::istringstream lines(ReadText(scratch_ / run + "/log.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto entry = nlohmann::json::parse(line);
      if (entry["event"] == "step") all[entry["iteration"]] = entry["samples"].get<int64_t>();
    }
    return all;
  };
  EXPECT_EQ(samples("hit"), samples("whole"));
}

TEST_F(Launch, ARankKilledAndStoppedAtRandomStepsEndsWithTheSameBits) {
  const std::string whole = scratch_ / "whole";
  Process undisturbed(Command(whole, {}), scratch_ / "whole.txt");
  const Outcome reference = undisturbed.Wait();
  ASSERT_EQ(reference.exit_code, 0) << reference.output;
  EXPECT_NE(reference.output.find("finished after"), std::string::npos) << reference.output;

  const std::string hit = scratch_ / "hit";
  Process launcher(Command(hit, {"--max-restarts", "4", "--timeout", "3"}), scratch_ / "hit.txt");
  RandomStream random(23, "launch faults");
  for (const int signal : {SIGKILL, SIGSTOP, SIGSEGV}) {
    const int steps = Steps(hit) + 4 + static_cast<int>(random.Uniform(0, 5));
    ASSERT_TRUE(WaitForSteps(&launcher, hit, steps)) << ReadText(scratch_ / "hit.txt");
    std::this_thread::sleep_for(milliseconds(static_cast<int64_t>(random.Uniform(0, 20))));
    const pid_t rank = Rank(hit);
    ASSERT_GT(rank, 1);
    ASSERT_EQ(kill(rank, signal), 0);
    const auto hit_at = Clock::now();
    while (kill(rank, 0) == 0) {
      ASSERT_LT(Clock::now() - hit_at, seconds(13)) << "within the time-out + 10 s";
      std::this_thread::sleep_for(milliseconds(5));
    }
  }
  ASSERT_TRUE(launcher.WaitFor(seconds(120)));
  const Outcome outcome = launcher.Wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(CountOf("kinefit launch: rank 0 on ", outcome.output), 3) << outcome.output;
  EXPECT_EQ(CountOf("was killed by signal 9 (Killed)", outcome.output), 1) << outcome.output;
  EXPECT_EQ(CountOf("was killed by signal 11", outcome.output), 1) << outcome.output;
  EXPECT_EQ(CountOf("it was stopped by a signal", outcome.output), 1) << outcome.output;
  EXPECT_TRUE(SameTensors(whole + "/last.pth", hit + "/last.pth"));
}

TEST_F(Launch, ASignalSavesOnceAndTheSameCommandGoesOn) {
  const std::string work_dir = scratch_ / "run";
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    Process launcher(Command(work_dir, {"--max-restarts", "3"}), scratch_ / "out.txt");
    ASSERT_TRUE(WaitForSteps(&launcher, work_dir, Steps(work_dir) + 3));
    // Whoever signals groups of processes reaches the rank directly as well.
    kill(Rank(work_dir), signal);
    launcher.Signal(signal);
    ASSERT_TRUE(launcher.WaitFor(seconds(60)));
    const Outcome outcome = launcher.Wait();
    EXPECT_EQ(outcome.exit_code, 128 + signal) << outcome.output;
    EXPECT_EQ(CountOf("stopped by a signal; saved", outcome.output), 1) << outcome.output;
    EXPECT_EQ(CountOf("again in", outcome.output), 0) << outcome.output;
  }
}

TEST_F(Launch, ARankDiesWithItsLauncher) {
  const std::string work_dir = scratch_ / "run";
  Process launcher(Command(work_dir, {}), scratch_ / "out.txt");
  ASSERT_TRUE(WaitForSteps(&launcher, work_dir, 2));
  const pid_t rank = Rank(work_dir);
  launcher.Signal(SIGKILL);
  launcher.Wait();
  const auto end = Clock::now() + seconds(10);
  while (kill(rank, 0) == 0 &&
         ReadText("/proc/" + std::to_string(rank) + "/stat").find(") Z") == std::string::npos) {
    ASSERT_LT(Clock::now(), end) << "an orphan";
    std::this_thread::sleep_for(milliseconds(5));
  }
}

TEST_F(Launch, MistakesAreSaidOnceBeforeAnythingStarts) {
  const std::string config = scratch_ / "config.toml";
  const std::string logs = scratch_ / "logs";
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes = {
      {{"--"}, "nothing to launch"},
      {{"--nproc", "none", "--", "train", config}, "neither auto nor a number"},
      {{"--nproc", "0", "--", "train", config}, "neither auto nor a number"},
      {{"--nnodes", "2", "--", "train", config}, "--rendezvous"},
      {{"--nnodes", "2", "--rendezvous", "here", "--", "train", config}, "no HOST:PORT"},
      {{"--nnodes", "2", "--rendezvous", "a:b:1", "--", "train", config}, "no HOST:PORT"},
      {{"--node-rank", "1", "--", "train", config}, "no node 1 of 1"},
      {{"--max-restarts", "-1", "--", "train", config}, "--max-restarts"},
      {{"--timeout", "0", "--", "train", config}, "--timeout"},
      {{"--port", "70000", "--", "train", config}, "--port"},
      {{"--", "launch", "--", "train", config}, "cannot launch itself"},
      {{"--nproc", "2", "--", "train", scratch_ / "missing.toml"}, "missing.toml"},
      {{"--nproc", "2", "--", "train", config, "--set", "train.epohcs=3"}, "train.epochs"},
      {{"--nproc", "2", "--", "train", config, "--work-dri", "x"}, "--work-dri"},
  };
  for (const auto& [arguments, words] : mistakes) {
    std::vector<std::string> command = {"launch", "--log-dir", logs};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Outcome outcome = Kinefit(command);
    EXPECT_EQ(outcome.exit_code, 2) << words << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find(words), std::string::npos) << outcome.output;
    EXPECT_FALSE(fs::exists(logs)) << words;
  }
}

TEST_F(Launch, AnyCommandCanBeLaunched) {
  const Outcome outcome =
      Kinefit({"launch", "--nproc", "2", "--log-dir", scratch_ / "logs", "--", "config", "keys"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(CountOf("train.checkpoint_every", outcome.output), 1) << "rank 0 alone is shown";
  EXPECT_NE(ReadText(scratch_ / "logs/rank_1.log").find("train.checkpoint_every"),
            std::string::npos);
}

}  // namespace
}  // namespace kinefit::testing
