// A thousand injected out-of-memory errors at random allocations of real training runs: loading,
// forward, backward, update, validation. None may crash, hang or change the numbers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "random/stream.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

constexpr int kErrors = 1000;

// Allocation numbers from the first step on, `gap` apart on average.
std::string RandomList(uint64_t run, double gap) {
  RandomStream random(11, "oom soak", run);
  std::string list;
  for (double at = 5000; at < 400000;) {
    at += random.Uniform(0.6, 1.4) * gap;
    list += (list.empty() ? "" : ",") + std::to_string(static_cast<int64_t>(at));
  }
  return list;
}

TEST(OutOfMemorySoak, AThousandErrorsChangeNothing) {
  const ScratchFolder scratch;
  const std::string config = scratch / "config.toml";
  WriteText(config, SmallConfig("rgbpose_attention") + "[memory]\n");
  const auto train = [&](const std::string& work_dir) {
    return std::vector<std::string>{"train",      config,
                                    "--work-dir", work_dir,
                                    "--set",      "threads=1",
                                    "--set",      "train.epochs=24",
                                    "--set",      "train.val_every=6",
                                    "--set",      "train.ema=true",
                                    "--set",      "train.optimizer.type=\"adamw\"",
                                    "--set",      "train.optimizer.lr=0.001"};
  };
  const Outcome whole = Kinefit(train(scratch / "whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.output;

  std::map<std::string, int> where;
  int errors = 0;
  int runs = 0;
  int same_plan = 0;
  // Every fourth run has them so close together that steps fail twice and plans change.
  for (; errors < kErrors; ++runs) {
    const bool close = runs % 4 == 3;
    const std::string work_dir = scratch / ("run" + std::to_string(runs));
    const Outcome outcome =
        Kinefit(train(work_dir), {"KINEFIT_FAIL_ALLOCATIONS=" +
                                  RandomList(static_cast<uint64_t>(runs), close ? 2500 : 7000)});
    errors += CountOf("made to fail by a test", outcome.output);
    for (const std::string place : {"(loading): out", "(forward): out", "(backward): out",
                                    "(update): out", "validation of epoch"}) {
      where[place] += CountOf(place, outcome.output);
    }
    const bool new_plan = CountOf("from this step on", outcome.output) +
                              CountOf("clips at a time from now on", outcome.output) >
                          0;
    // Where all plans have been used up the run stops with a checkpoint; the same command goes on.
    Outcome end = outcome;
    if (outcome.exit_code != 0) {
      EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
      EXPECT_NE(outcome.output.find("everything up to this step is saved"), std::string::npos)
          << outcome.output;
      end = Kinefit(train(work_dir));
    }
    ASSERT_EQ(end.exit_code, 0) << outcome.output << end.output;
    ASSERT_NE(end.output.find("finished after"), std::string::npos) << end.output;
    if (new_plan) continue;
    ++same_plan;
    ASSERT_TRUE(SameTensors(scratch / "whole/last.pth", work_dir + "/last.pth")) << outcome.output;
  }
  std::printf("%d errors in %d runs, %d of them with the plan unchanged and the same bits\n",
              errors, runs, same_plan);
  for (const auto& [place, count] : where) std::printf("  %5d %s\n", count, place.c_str());
  EXPECT_GE(same_plan, runs / 2);
}

}  // namespace
}  // namespace kinefit::testing
