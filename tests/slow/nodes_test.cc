// Two machines, as two network namespaces of this one with a cable between them: a real training
// over both, whose cable is cut and mended on the way.

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

bool Shell(const std::string& command) {
  return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
}

class TwoNodes : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Shell("ip netns add " + a_ + " && ip netns add " + b_ + " && ip link add " + a_ +
               " netns " + a_ + " type veth peer name " + b_ + " netns " + b_ + " && ip -n " + a_ +
               " addr add 10.78.0.1/24 dev " + a_ + " && ip -n " + b_ +
               " addr add 10.78.0.2/24 dev " + b_ + " && ip -n " + a_ +
               " link set lo up && ip -n " + b_ + " link set lo up && ip -n " + b_ + " link set " +
               b_ + " up")) {
      GTEST_SKIP() << "network namespaces need root and iproute2";
    }
    ASSERT_TRUE(Link("up"));
    WriteText(config_, SmallConfig("pose"));
  }
  void TearDown() override {
    Shell("ip netns del " + a_);
    Shell("ip netns del " + b_);
  }
  bool Link(const std::string& state) const {
    return Shell("ip -n " + a_ + " link set " + a_ + " " + state);
  }

  std::vector<std::string> Train(const std::string& run) const {
    return {"--",
            "train",
            config_,
            "--work-dir",
            scratch_ / run,
            "--set",
            "threads=1",
            "--set",
            "train.epochs=12",
            "--set",
            "train.batch_size=2",
            "--set",
            "train.val_every=6",
            "--set",
            "train.checkpoint_every=1"};
  }
  std::vector<std::string> Node(int number) const {
    std::vector<std::string> command = {"/usr/bin/env",
                                        "ip",
                                        "netns",
                                        "exec",
                                        number == 0 ? a_ : b_,
                                        KinefitBinary(),
                                        "launch",
                                        "--nnodes",
                                        "2",
                                        "--node-rank",
                                        std::to_string(number),
                                        "--rendezvous",
                                        "10.78.0.1:29511",
                                        "--nproc",
                                        "1",
                                        "--max-restarts",
                                        "3",
                                        "--timeout",
                                        "4",
                                        "--log-dir",
                                        scratch_ / ("logs" + std::to_string(number))};
    const auto train = Train("two");
    command.insert(command.end(), train.begin(), train.end());
    return command;
  }
  int Steps(const std::string& run) const {
    const std::string log = scratch_ / run + "/log.jsonl";
    return fs::exists(log) ? CountOf("\"event\":\"step\"", ReadText(log)) : 0;
  }

  const std::string a_ = "kfa" + std::to_string(getpid());
  const std::string b_ = "kfb" + std::to_string(getpid());
  ScratchFolder scratch_;
  const std::string config_ = scratch_ / "config.toml";
};

TEST_F(TwoNodes, ACutLinkIsReportedOnBothSidesAndTheRunGoesOnWhenItIsBack) {
  std::vector<std::string> alone = {KinefitBinary(), "launch", "--nproc", "2"};
  const auto train = Train("whole");
  alone.insert(alone.end(), train.begin(), train.end());
  Process whole(alone, scratch_ / "whole.txt");
  const Outcome reference = whole.Wait();
  ASSERT_EQ(reference.exit_code, 0) << reference.output;

  const std::string outputs[2] = {scratch_ / "node0.txt", scratch_ / "node1.txt"};
  Process node0(Node(0), outputs[0]);
  Process node1(Node(1), outputs[1]);
  const auto patience = Clock::now() + seconds(90);
  while (Steps("two") < 5) {
    ASSERT_FALSE(node0.WaitFor(milliseconds(2))) << node0.Wait().output;
    ASSERT_LT(Clock::now(), patience) << ReadText(outputs[0]) << ReadText(outputs[1]);
  }
  ASSERT_TRUE(Link("down"));
  const auto cut = Clock::now();
  for (const std::string& output : outputs) {
    while (CountOf("kinefit launch: ", ReadText(output)) == 0) {
      ASSERT_LT(Clock::now() - cut, seconds(14)) << "within the time-out + 10 s";
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  std::this_thread::sleep_for(seconds(3));
  ASSERT_TRUE(Link("up"));
  ASSERT_TRUE(node0.WaitFor(seconds(180))) << ReadText(outputs[0]) << ReadText(outputs[1]);
  ASSERT_TRUE(node1.WaitFor(seconds(30))) << ReadText(outputs[0]) << ReadText(outputs[1]);
  const Outcome ends[2] = {node0.Wait(), node1.Wait()};
  for (const Outcome& end : ends) EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_GE(CountOf("start again", ends[0].output), 1) << ends[0].output;
  EXPECT_TRUE(SameTensors(scratch_ / "whole/last.pth", scratch_ / "two/last.pth"));
}

}  // namespace
}  // namespace kinefit::testing
