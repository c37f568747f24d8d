// The accuracies the README quotes, trained anew with the shipped configurations. Minutes each.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

double FusedTop1(const std::string& results) {
  const auto json = nlohmann::json::parse(ReadText(results + "/summary.json"));
  return json.at("streams").at("fused").at("top1").get<double>();
}

TEST(Accuracy, DemoNeedsBothStreams) {
  const ScratchFolder scratch;
  Process demo({"/bin/bash", std::string(KINEFIT_SOURCE) + "/scripts/demo.sh", scratch / "demo"},
               scratch / "demo.txt", {"KINEFIT=" + KinefitBinary()});
  const Outcome outcome = demo.Wait();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const double pose = FusedTop1(scratch / "demo/results/pose");
  const double rgb = FusedTop1(scratch / "demo/results/rgb");
  const double both = FusedTop1(scratch / "demo/results/attention");
  EXPECT_GE(both, 0.95);
  EXPECT_GE(both, std::max(pose, rgb) + 0.05);
}

class Jhmdb : public ::testing::Test {
 protected:
  // Trains and tests configs/jhmdb14_`stream`.toml; returns its fused top-1.
  double TopOneOf(const std::string& stream, const std::vector<std::string>& more = {}) {
    const std::string config = std::string(KINEFIT_SOURCE) + "/configs/jhmdb14_" + stream + ".toml";
    const std::string set = std::string(KINEFIT_SHARED) + "/data/jhmdb14";
    std::vector<std::string> data = {"--set", "data.annotations=" + set + "/jhmdb14_2d.pkl",
                                     "--set", "data.videos=" + set + "/videos",
                                     "--set", "data.classes=" + set + "/classes.txt"};
    std::vector<std::string> train = {"train", config, "--work-dir", scratch_ / stream};
    train.insert(train.end(), data.begin(), data.end());
    train.insert(train.end(), more.begin(), more.end());
    const Outcome trained = Kinefit(train);
    EXPECT_EQ(trained.exit_code, 0) << trained.output;
    std::vector<std::string> test = {"test", config, scratch_ / (stream + "/last.pth"), "--out",
                                     scratch_ / ("results_" + stream)};
    test.insert(test.end(), data.begin(), data.end());
    const Outcome tested = Kinefit(test);
    EXPECT_EQ(tested.exit_code, 0) << tested.output;
    return FusedTop1(scratch_ / ("results_" + stream));
  }
  ScratchFolder scratch_;
};

TEST_F(Jhmdb, TwoStreamsAreNotWorseThanPoseAlone) {
  if (!fs::exists(std::string(KINEFIT_SHARED) + "/data/jhmdb14")) {
    GTEST_SKIP() << "no JHMDB-14 at " << KINEFIT_SHARED << "/data/jhmdb14";
  }
  const auto start = std::chrono::steady_clock::now();
  const double pose = TopOneOf("pose");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_GE(pose, 0.76);
  EXPECT_LE(seconds.count(), 900);
  TopOneOf("rgb");
  const double both =
      TopOneOf("attention", {"--set", "train.init_rgb=" + (scratch_ / "rgb/last.pth"), "--set",
                             "train.init_pose=" + (scratch_ / "pose/last.pth")});
  EXPECT_GE(both, pose - 0.01);
}

}  // namespace
}  // namespace kinefit::testing
