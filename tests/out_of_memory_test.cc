// The real program where memory runs out: by a budget, and at single allocations of a run.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "random/stream.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

class OutOfMemory : public ::testing::Test {
 protected:
  void SetUp() override { WriteText(config_, SmallConfig("rgbpose_attention")); }

  std::vector<std::string> Train(const std::string& run,
                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"train", config_,          "--work-dir", scratch_ / run,
                                    "--set", "train.epochs=1", "--set",      "threads=1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  // Runs what `arguments` gives for a name not used before, with each of these allocations failing:
  // a message and exit code 1, or, where the run survives it or does not come so far, success.
  // Returns how many failed.
  static int FailAt(const std::vector<int64_t>& allocations,
                    const std::function<std::vector<std::string>(const std::string&)>& arguments) {
    int failed = 0;
    for (const int64_t number : allocations) {
      SCOPED_TRACE("allocation " + std::to_string(number));
      const Outcome outcome = Kinefit(arguments("run_" + std::to_string(number)),
                                      {"KINEFIT_FAIL_ALLOCATIONS=" + std::to_string(number)});
      if (outcome.exit_code == 0) break;
      ++failed;
      EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
      EXPECT_NE(outcome.output.find("kinefit: out of memory: tried to allocate"), std::string::npos)
          << outcome.output;
      EXPECT_NE(outcome.output.find("kinefit plan"), std::string::npos) << outcome.output;
    }
    return failed;
  }

  static void ExpectRefused(const Outcome& outcome, const std::string& words) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_NE(outcome.output.find(words), std::string::npos) << outcome.output;
  }

  ScratchFolder scratch_;
  const std::string config_ = scratch_ / "config.toml";
};

TEST_F(OutOfMemory, EndsWhatCannotBeRepeatedWithAMessage) {
  const Outcome trained = Kinefit(Train("run"));
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  const std::vector<std::string> test = {"test", config_, scratch_ / "run/last.pth", "--set",
                                         "threads=1"};
  // The network's weights, before there is a step to repeat.
  const auto train = [&](const std::string& run) { return Train(run); };
  EXPECT_EQ(FailAt({200, 400, 600}, train), 3);
  EXPECT_GE(FailAt({1, 30, 777, 3001, 1000000000}, [&](const std::string&) { return test; }), 3);
}

// Loading, forward, backward, update and validation of a run with AdamW and EMA, at random places.
TEST_F(OutOfMemory, InTheMiddleOfTrainingChangesNothing) {
  const std::vector<std::string> more = {"--set", "train.optimizer.type=\"adamw\"",
                                         "--set", "train.optimizer.lr=0.001",
                                         "--set", "train.ema=true",
                                         "--set", "train.accumulate=2",
                                         "--set", "train.epochs=8",
                                         "--set", "train.val_every=4"};
  const Outcome whole = Kinefit(Train("whole", more));
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  RandomStream random(5, "faults");
  std::string list;
  int64_t at = 4000;  // in the first step
  for (int i = 0; i < 12; ++i) {
    at += 6000 + static_cast<int64_t>(random.Uniform(0, 5000));
    list += (list.empty() ? "" : ",") + std::to_string(at);
  }
  const Outcome disturbed = Kinefit(Train("disturbed", more), {"KINEFIT_FAIL_ALLOCATIONS=" + list});
  ASSERT_EQ(disturbed.exit_code, 0) << disturbed.output;
  EXPECT_EQ(CountOf("from this step on", disturbed.output), 0) << disturbed.output;
  EXPECT_GE(CountOf("run again", disturbed.output), 5) << disturbed.output;
  EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / "disturbed/last.pth"));
}

TEST_F(OutOfMemory, ABudgetIsKeptOrRefusedBeforeTheFirstStep) {
  ExpectRefused(Kinefit(Train("none", {"--memory-budget", "1MiB"})), "clip");
  ExpectRefused(Kinefit(Train("none", {"--memory-budget", "six apples"})), "memory.budget");
  const Outcome enough = Kinefit(Train("some", {"--memory-budget", "200MiB"}));
  EXPECT_EQ(enough.exit_code, 0) << enough.output;
  EXPECT_NE(enough.output.find("of 194.0 MiB"), std::string::npos) << enough.output;
}

TEST_F(OutOfMemory, AMalformedListOfFailuresIsRefused) {
  ExpectRefused(Kinefit({"config", "keys"}, {"KINEFIT_FAIL_ALLOCATIONS=17;4000"}),
                "KINEFIT_FAIL_ALLOCATIONS");
}

}  // namespace
}  // namespace kinefit::testing
