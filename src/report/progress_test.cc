#include "report/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "report/table.h"

namespace kinefit {
namespace {

ProgressStep StepAt(int64_t iteration, int64_t per_epoch, int64_t total) {
  ProgressStep step;
  step.epoch = (iteration - 1) / per_epoch;
  step.step_in_epoch = (iteration - 1) % per_epoch;
  step.steps_per_epoch = per_epoch;
  step.iteration = iteration;
  step.total_iterations = total;
  step.loss = 1.25;
  step.top1 = 0.5;
  step.lr = 0.008;
  step.samples = 16;
  step.seconds = 2;
  step.wait_seconds = 0.1;
  step.memory_bytes = 3LL << 30;
  return step;
}

// A clock the test moves by hand.
struct FakeClock {
  double now = 0;
  std::function<double()> function() {
    return [this] { return now; };
  }
};

Terminal LiveTerminal(int64_t columns, bool colour = false) {
  return {true, colour, [columns] { return columns; }};
}

// What stands on the live line after everything written so far.
std::string LastLine(const std::string& output) {
  const size_t start = output.rfind('\r');
  std::string line = output.substr(start + 1);
  const size_t clear = line.find("\x1b[K");
  return clear == std::string::npos ? line : line.substr(0, clear);
}

TEST(Progress, PlainLinesWhenNotATerminal) {
  std::ostringstream out;
  FakeClock clock;
  Progress progress(out, Terminal{}, 2, clock.function());
  for (int64_t i = 1; i <= 3; ++i) {
    clock.now += 2;
    progress.Step(StepAt(i, 3, 9));
  }
  progress.Note("validating");
  progress.Finish();
  EXPECT_EQ(out.str(),
            "epoch 1/3  2/3  loss 1.2500  top-1 50.0%  lr 0.008  8.0 clips/s  wait 5%  3.00 GiB  "
            "ETA 14 s\n"
            "epoch 1/3 done  loss 1.2500  top-1 50.0%  8.0 clips/s  wait 5%  took 6.0 s  "
            "ETA 12 s\n");
}

TEST(Progress, LiveLineIsRedrawnInPlace) {
  std::ostringstream out;
  FakeClock clock;
  Progress progress(out, LiveTerminal(200), 20, clock.function());
  progress.Step(StepAt(1, 100, 300));
  EXPECT_EQ(out.str(),
            "\repoch 1/3  1/100  loss 1.2500  top-1 50.0%  lr 0.008  8.0 clips/s  wait 5%  3.00 GiB"
            "  ETA 9m 58s\x1b[K");
  clock.now += 0.01;  // too soon to be drawn
  const std::string before = out.str();
  progress.Step(StepAt(2, 100, 300));
  EXPECT_EQ(out.str(), before);
  clock.now += 2;
  progress.Step(StepAt(3, 100, 300));
  EXPECT_EQ(LastLine(out.str()).substr(0, 16), "epoch 1/3  3/100");
  EXPECT_EQ(out.str().find('\n'), std::string::npos);
  progress.Finish();
  EXPECT_EQ(LastLine(out.str()), "");
}

TEST(Progress, NarrowTerminalsLoseTheLeastImportantParts) {
  for (int64_t columns = 1; columns <= 120; ++columns) {
    std::ostringstream out;
    Progress progress(out, LiveTerminal(columns), 20, [] { return 0.0; });
    progress.Step(StepAt(1, 100, 300));
    EXPECT_LT(DisplayWidth(LastLine(out.str())), std::max<int64_t>(columns, 2)) << columns;
  }
  std::ostringstream out;
  Progress progress(out, LiveTerminal(50), 20, [] { return 0.0; });
  progress.Step(StepAt(1, 100, 300));
  EXPECT_EQ(LastLine(out.str()), "epoch 1/3  1/100  loss 1.2500  ETA 9m 58s");
}

TEST(Progress, ColoursOnlyWhereWanted) {
  ProgressStep slow = StepAt(1, 100, 300);
  slow.wait_seconds = 1.5;
  std::ostringstream coloured;
  Progress(coloured, LiveTerminal(200, true), 20, [] { return 0.0; }).Step(slow);
  EXPECT_NE(coloured.str().find("\x1b[33mwait 75%\x1b[0m"), std::string::npos);
  std::ostringstream plain;
  Progress(plain, LiveTerminal(200, false), 20, [] { return 0.0; }).Step(slow);
  EXPECT_EQ(plain.str().find("\x1b[3"), std::string::npos);
}

TEST(Progress, MessagesStandAboveTheLiveLine) {
  std::ostringstream out;
  Progress progress(out, LiveTerminal(200), 20, [] { return 0.0; });
  progress.Step(StepAt(1, 100, 300));
  const std::string live = LastLine(out.str());
  progress.Message("saved work/epoch_1.pth");
  const std::string tail = "\r\x1b[Ksaved work/epoch_1.pth\n" + live;
  ASSERT_GE(out.str().size(), tail.size());
  EXPECT_EQ(out.str().substr(out.str().size() - tail.size()), tail);
}

TEST(Progress, SkippedStepsAreSaidAndCounted) {
  std::ostringstream out;
  Progress progress(out, Terminal{}, 100, [] { return 0.0; });
  ProgressStep bad = StepAt(1, 2, 2);
  bad.skipped = true;
  bad.loss = std::nan("");
  progress.Step(bad);
  progress.Step(StepAt(2, 2, 2));
  EXPECT_NE(out.str().find("loss not finite, step skipped"), std::string::npos);
  EXPECT_NE(out.str().find("epoch 1/1 done  loss 1.2500"), std::string::npos);
  EXPECT_NE(out.str().find("skipped steps: 1"), std::string::npos);
}

TEST(Eta, IsRightFromTheFirstStepAfterAResume) {
  EtaEstimator eta;
  EXPECT_TRUE(std::isnan(eta.seconds_left()));
  eta.Add(StepAt(251, 100, 300), 0);  // 49 steps of 2 s left
  EXPECT_DOUBLE_EQ(eta.seconds_left(), 98);
}

TEST(Eta, FollowsARunningMean) {
  EtaEstimator eta;
  ProgressStep step = StepAt(1, 1000, 1000);
  step.seconds = 10;
  eta.Add(step, 10);
  for (int64_t i = 2; i <= 201; ++i) eta.Add(StepAt(i, 1000, 1000), 10.0 + 2.0 * i);
  EXPECT_NEAR(eta.seconds_left(), 799 * 2.0, 1e-6);  // the slow first step is forgotten
}

TEST(Eta, CountsThePausesBetweenEpochs) {
  EtaEstimator eta;
  double now = 0;
  for (int64_t i = 1; i <= 3; ++i) {  // 2 steps per epoch, 6 in all; 30 s of validation after each
    now += i == 3 ? 32 : 2;
    eta.Add(StepAt(i, 2, 6), now);
  }
  EXPECT_DOUBLE_EQ(eta.seconds_left(), 3 * 2.0 + 2 * 30.0);
}

TEST(EpochMeter, WeighsBySamples) {
  EpochMeter meter;
  EpochSummary summary;
  ProgressStep first = StepAt(1, 2, 4);
  first.samples = 3;
  first.loss = 1;
  first.top1 = 1;
  ProgressStep second = StepAt(2, 2, 4);
  second.samples = 1;
  second.loss = 5;
  second.top1 = 0;
  EXPECT_FALSE(meter.Add(first, &summary));
  ASSERT_TRUE(meter.Add(second, &summary));
  EXPECT_DOUBLE_EQ(summary.loss, 2);
  EXPECT_DOUBLE_EQ(summary.top1, 0.75);
  EXPECT_EQ(summary.samples, 4);
  EXPECT_EQ(summary.epochs, 2);
}

TEST(EpochMeter, TrainingMayEndWithinAnEpoch) {
  EpochMeter meter;
  EpochSummary summary;
  EXPECT_FALSE(meter.Add(StepAt(1, 10, 2), &summary));
  EXPECT_TRUE(meter.Add(StepAt(2, 10, 2), &summary));
  EXPECT_EQ(summary.steps, 2);
}

TEST(DetectTerminal, AFileOrPipeIsNeverLive) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const Terminal terminal = DetectTerminal(ends[1]);
  EXPECT_FALSE(terminal.live);
  EXPECT_FALSE(terminal.colour);
  EXPECT_EQ(terminal.columns(), 80);
  close(ends[0]);
  close(ends[1]);
}

TEST(DetectTerminal, HonoursNoColorAndDumbTerminals) {
  const int terminal_file = posix_openpt(0);
  if (terminal_file < 0) GTEST_SKIP() << "no pseudo-terminals here";
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  EXPECT_TRUE(DetectTerminal(terminal_file).colour);
  setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(DetectTerminal(terminal_file).live);
  EXPECT_FALSE(DetectTerminal(terminal_file).colour);
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(DetectTerminal(terminal_file).live);
  close(terminal_file);
}

}  // namespace
}  // namespace kinefit
