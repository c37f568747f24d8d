// Several ranks as real processes: the same numbers as one process, the same data, and an end for
// all when one is lost.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "tests/rank_processes.h"

namespace kinefit::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kPatience(120);

class Distributed : public ::testing::Test {
 protected:
  void SetUp() override { WriteText(config_, SmallConfig("pose")); }

  std::vector<std::string> Train(const std::string& run,
                                 const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> all = {"train", config_, "--work-dir", scratch_ / run};
    for (const std::string& setting : settings) all.insert(all.end(), {"--set", setting});
    all.insert(all.end(), {"--set", "threads=1", "--set", "distributed.timeout=20"});
    return all;
  }

  // Trains to the end, all ranks ending well.
  void TrainRanks(int world, const std::string& run, const std::vector<std::string>& settings) {
    RankProcesses ranks(world, Train(run, settings), scratch_ / run);
    for (const Outcome& outcome : ranks.Wait(kPatience)) {
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    }
  }
  void TrainAlone(const std::string& run, const std::vector<std::string>& settings) {
    const Outcome outcome = Kinefit(Train(run, settings));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }

  // Of the steps in the run's log, in order.
  std::vector<nlohmann::json> Steps(const std::string& run) const {
    std::vector<nlohmann::json> steps;
    std::istringstream lines(ReadText(scratch_ / run + "/log.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto entry = nlohmann::json::parse(line);
      if (entry["event"] == "step") steps.push_back(entry);
    }
    return steps;
  }

  static void ExpectSameLosses(const std::vector<nlohmann::json>& one,
                               const std::vector<nlohmann::json>& two, double tolerance) {
    ASSERT_EQ(one.size(), two.size());
    ASSERT_FALSE(one.empty());
    for (size_t i = 0; i < one.size(); ++i) {
      const double a = one[i]["loss"];
      const double b = two[i]["loss"];
      EXPECT_LE(std::abs(a - b), tolerance * std::abs(b)) << "step " << i;
    }
  }

  // Largest difference of a tensor of the state dicts, relative to that tensor's largest value.
  static double LargestDifference(const std::string& one, const std::string& two) {
    const CheckpointDict root_a = ReadCheckpoint(one);
    const CheckpointDict root_b = ReadCheckpoint(two);
    const auto a = StateDictOf(root_a, one);
    const auto b = StateDictOf(root_b, two);
    EXPECT_EQ(a.size(), b.size());
    double largest = 0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      const at::Tensor x = a[i].second.to(at::kDouble);
      const at::Tensor y = b[i].second.to(at::kDouble);
      const double scale = std::max(y.abs().max().item<double>(), 1e-3);
      largest = std::max(largest, (x - y).abs().max().item<double>() / scale);
    }
    return largest;
  }

  bool WaitForSteps(RankProcesses& ranks, const std::string& run, int steps) const {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    const std::string log = scratch_ / run + "/log.jsonl";
    while (!std::filesystem::exists(log) || CountOf("\"event\":\"step\"", ReadText(log)) < steps) {
      if (ranks[0].WaitFor(milliseconds(2))) return false;
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }

  ScratchFolder scratch_;
  const std::string config_ = scratch_ / "config.toml";
};

const std::vector<std::string> kTwenty = {"train.iterations=20", "train.val_every=0",
                                          "train.checkpoint_every=0"};

std::vector<std::string> With(std::vector<std::string> settings,
                              const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

TEST_F(Distributed, TwoRanksTrainWhatOneProcessTrains) {
  TrainAlone("one", With(kTwenty, {"train.batch_size=4"}));
  TrainRanks(2, "two", With(kTwenty, {"train.batch_size=2"}));
  ExpectSameLosses(Steps("two"), Steps("one"), 1e-5);
  EXPECT_LE(LargestDifference(scratch_ / "two/last.pth", scratch_ / "one/last.pth"), 1e-4);
}

// Weights are compared with four clips to a batch norm: with two, layers of so few pixels as here
// divide by next to nothing, and single steps multiply rounding errors.
TEST_F(Distributed, TwoStreamsWithAccumulationToo) {
  WriteText(config_, SmallConfig("rgbpose_attention"));
  const std::vector<std::string> few = {"train.iterations=6", "train.val_every=0",
                                        "train.accumulate=2", "train.checkpoint_every=0",
                                        "model.fusion.rgb_drop_path=0.5"};
  TrainAlone("one", With(few, {"train.batch_size=4"}));
  TrainRanks(2, "two", With(few, {"train.batch_size=2"}));
  ExpectSameLosses(Steps("two"), Steps("one"), 1e-5);
  EXPECT_LE(LargestDifference(scratch_ / "two/last.pth", scratch_ / "one/last.pth"), 1e-4);

  TrainAlone("one_small", With(few, {"train.batch_size=2"}));
  TrainRanks(2, "two_small", With(few, {"train.batch_size=1"}));
  ExpectSameLosses(Steps("two_small"), Steps("one_small"), 1e-5);
}

// The most tensor bytes of a rank, buckets of gradients included, are those that plan says.
TEST_F(Distributed, NeedsTheMemoryThatWasPlanned) {
  for (const std::string type : {"pose", "rgb", "rgbpose_attention"}) {
    WriteText(config_, SmallConfig(type));
    // Few of the epoch's steps: the loader is always as far ahead as it may be.
    const std::vector<std::string> few = {"train.iterations=4", "train.val_every=0",
                                          "train.batch_size=1"};
    for (const int world : {1, 2}) {
      const std::string run = type + std::to_string(world);
      if (world == 1) {
        TrainAlone(run, few);
      } else {
        TrainRanks(world, run, few);
      }
      const auto measured = Steps(run).back()["tensor_bytes"].get<double>();
      const Outcome plan = Kinefit({"plan", config_, "--json", "--devices", std::to_string(world),
                                    "--batch", "1", "--set", "threads=1"});
      ASSERT_EQ(plan.exit_code, 0) << plan.output;
      const double predicted = nlohmann::json::parse(plan.output)["as_written"]["peak_bytes"];
      std::printf("%-5s %d rank%s predicted %.0f KiB, measured %.0f KiB, %+.3f %%\n", type.c_str(),
                  world, world == 1 ? ": " : "s:", predicted / 1024, measured / 1024,
                  100 * (predicted / measured - 1));
      EXPECT_NEAR(predicted, measured, 0.01 * measured);
    }
  }
}

// An end of training by a signal to one rank, and more of it with other ranks: every step sees the
// samples that one process with the same batch sees.
TEST_F(Distributed, GoesOnWithAnotherNumberOfRanks) {
  const std::vector<std::string> base = {"train.epochs=4", "train.val_every=0",
                                         "train.checkpoint_every=0"};
  TrainAlone("one", With(base, {"train.batch_size=6"}));
  const struct {
    int world;
    const char* batch;
    int steps;  // in all, before a signal; 0: to the end
  } parts[] = {
      {2, "train.batch_size=3", 2}, {1, "train.batch_size=6", 6}, {3, "train.batch_size=2", 0}};
  for (const auto& part : parts) {
    SCOPED_TRACE(std::to_string(part.world) + " ranks");
    RankProcesses ranks(part.world, Train("many", With(base, {part.batch})), scratch_ / "many");
    if (part.steps > 0) {
      ASSERT_TRUE(WaitForSteps(ranks, "many", part.steps)) << ranks.Wait(kPatience)[0].output;
      ranks[part.world - 1].Signal(SIGTERM);
    }
    for (const Outcome& outcome : ranks.Wait(kPatience)) {
      EXPECT_EQ(outcome.exit_code, part.steps > 0 ? 128 + SIGTERM : 0) << outcome.output;
    }
  }
  ExpectSameLosses(Steps("many"), Steps("one"), 1e-5);
  EXPECT_LE(LargestDifference(scratch_ / "many/last.pth", scratch_ / "one/last.pth"), 1e-4);
}

// The same with steps of other sizes: still every sample once an epoch.
TEST_F(Distributed, SeesEverySampleOnceWhateverTheSteps) {
  const std::vector<std::string> base = {"train.epochs=2", "train.val_every=0",
                                         "train.checkpoint_every=0"};
  const struct {
    int world;
    const char* batch;
    int steps;
  } parts[] = {
      {2, "train.batch_size=2", 2}, {1, "train.batch_size=3", 3}, {3, "train.batch_size=1", 0}};
  for (const auto& part : parts) {
    RankProcesses ranks(part.world, Train("many", With(base, {part.batch})), scratch_ / "many");
    if (part.steps > 0) {
      ASSERT_TRUE(WaitForSteps(ranks, "many", part.steps)) << ranks.Wait(kPatience)[0].output;
      ranks[0].Signal(SIGTERM);
    }
    for (const Outcome& outcome : ranks.Wait(kPatience)) {
      EXPECT_EQ(outcome.exit_code, part.steps > 0 ? 128 + SIGTERM : 0) << outcome.output;
    }
  }
  std::map<int64_t, int64_t> samples;  // by epoch
  for (const auto& step : Steps("many")) samples[step["epoch"]] += step["samples"].get<int64_t>();
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples.begin()->second, samples.rbegin()->second);
  EXPECT_EQ(samples.begin()->second, 20);
}

// Ten samples on three ranks.
TEST_F(Distributed, EvaluatesAsOneProcessDoes) {
  TrainAlone("run", {"train.epochs=1"});
  const auto test = [&](const std::string& out) {
    return std::vector<std::string>{"test",      config_,        scratch_ / "run/last.pth",
                                    "--out",     scratch_ / out, "--set",
                                    "threads=1", "--set",        "eval.batch_size=2"};
  };
  const Outcome one = Kinefit(test("one"));
  ASSERT_EQ(one.exit_code, 0) << one.output;
  RankProcesses ranks(3, test("three"), scratch_ / "three");
  const auto outcomes = ranks.Wait(kPatience);
  for (const Outcome& outcome : outcomes) ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(ReadText(scratch_ / "three/summary.json"), ReadText(scratch_ / "one/summary.json"));
  EXPECT_EQ(ReadText(scratch_ / "three/confusion.csv"), ReadText(scratch_ / "one/confusion.csv"));
  EXPECT_EQ(ReadText(scratch_ / "three/per_sample.csv"), ReadText(scratch_ / "one/per_sample.csv"));
}

// Validation, averaged weights and the best checkpoint, and without SyncBN.
TEST_F(Distributed, ValidatesAndKeepsBatchNormsApartIfAsked) {
  TrainRanks(
      2, "run",
      {"train.epochs=2", "train.batch_size=2", "train.ema=true", "distributed.sync_bn=false"});
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "run/last.pth"));
  EXPECT_EQ(CountOf("\"event\":\"val\"", ReadText(scratch_ / "run/log.jsonl")), 2);
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "run/rank_1.log"));
}

const std::vector<std::string> kFaulty = {"train.epochs=6", "train.batch_size=2",
                                          "train.val_every=3", "train.checkpoint_every=1",
                                          "train.ema=true"};

// Two ranks of which one is hit by a signal: the other ends within the time-out and names it. Then
// the same command finishes, with the weights of an undisturbed run. Repeated in
// tests/slow/rank_faults_test.cc.
TEST_F(Distributed, ARankThatIsLostEndsTheOthersWhichNameIt) {
  TrainRanks(2, "whole", kFaulty);
  const struct {
    int signal;
    int victim;
    const char* words;
  } faults[] = {{SIGKILL, 0, "without a word"}, {SIGSTOP, 1, "4 s"}};
  for (const auto& fault : faults) {
    SCOPED_TRACE("signal " + std::to_string(fault.signal) + " to rank " +
                 std::to_string(fault.victim));
    const std::string run =
        "run_" + std::to_string(fault.signal) + "_" + std::to_string(fault.victim);
    auto arguments = Train(run, kFaulty);
    arguments.back() = "distributed.timeout=4";
    RankProcesses ranks(2, arguments, scratch_ / run);
    ASSERT_TRUE(WaitForSteps(ranks, run, 4)) << ranks.Wait(kPatience)[0].output;
    ranks[fault.victim].Signal(fault.signal);
    const auto begin = std::chrono::steady_clock::now();
    const int survivor = 1 - fault.victim;
    EXPECT_TRUE(ranks[survivor].WaitFor(seconds(14)));
    ranks[fault.victim].Signal(SIGKILL);
    const auto outcomes = ranks.Wait(seconds(20));
    const std::string& said = outcomes[static_cast<size_t>(survivor)].output;
    EXPECT_EQ(outcomes[static_cast<size_t>(survivor)].exit_code, 1) << said;
    EXPECT_NE(said.find("rank " + std::to_string(fault.victim) + " (process"), std::string::npos)
        << said;
    EXPECT_NE(said.find("at step"), std::string::npos) << said;
    EXPECT_NE(said.find(fault.words), std::string::npos) << said;
    EXPECT_LE(std::chrono::steady_clock::now() - begin, seconds(15));
    TrainRanks(2, run, kFaulty);
    EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
  }
}

TEST_F(Distributed, ARankThatFailsTellsTheOthersWhy) {
  const auto arguments = Train("run", kFaulty);
  RankProcesses ranks(2, arguments, scratch_ / "run",
                      {{}, {"KINEFIT_FAIL_ALLOCATIONS=40"}});  // while it builds its network
  const auto outcomes = ranks.Wait(seconds(40));
  EXPECT_EQ(outcomes[1].exit_code, 1) << outcomes[1].output;
  EXPECT_EQ(outcomes[0].exit_code, 1) << outcomes[0].output;
  EXPECT_NE(outcomes[0].output.find("rank 1 (process"), std::string::npos) << outcomes[0].output;
  EXPECT_NE(outcomes[0].output.find("tried to allocate"), std::string::npos) << outcomes[0].output;
}

// Out of memory on one rank, at allocations all over its steps: the ranks call those steps off
// together and run them again, and nothing else changes.
TEST_F(Distributed, OutOfMemoryOnOneRankIsHandledByAll) {
  TrainRanks(2, "whole", kFaulty);
  for (int victim = 0; victim < 2; ++victim) {
    const std::string run = "run_" + std::to_string(victim);
    const std::vector<std::string> list = {
        "KINEFIT_FAIL_ALLOCATIONS=3000,5800,8600,11400,14200,17000"};
    std::vector<std::vector<std::string>> extra(2);
    extra[static_cast<size_t>(victim)] = list;
    RankProcesses ranks(2, Train(run, kFaulty), scratch_ / run, extra);
    const auto outcomes = ranks.Wait(kPatience);
    for (const Outcome& outcome : outcomes) ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_GE(CountOf("run again", outcomes[0].output), 4) << outcomes[0].output;
    EXPECT_EQ(CountOf("from this step on", outcomes[0].output), 0) << outcomes[0].output;
    EXPECT_NE(outcomes[0].output.find("rank " + std::to_string(victim) + " ("), std::string::npos)
        << outcomes[0].output;
    EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / run + "/last.pth"));
  }
}

}  // namespace
}  // namespace kinefit::testing
