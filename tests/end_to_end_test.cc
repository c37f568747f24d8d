// The commands of the README on the built-in set, as real processes.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/checkpoint.h"
#include "files/npy.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

class EndToEnd : public ::testing::Test {
 protected:
  std::string WriteConfig(const std::string& type) {
    const std::string path = scratch_ / (type + ".toml");
    WriteText(path, SmallConfig(type));
    return path;
  }
  void Succeed(const std::vector<std::string>& arguments, const std::string& expected = "") {
    const Outcome outcome = Kinefit(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find(expected), std::string::npos) << outcome.output;
    output_ = outcome.output;
  }
  ScratchFolder scratch_;
  std::string output_;
};

TEST_F(EndToEnd, TrainsTestsAndPredictsEveryNetwork) {
  for (const std::string type : {"pose", "rgb", "rgbpose", "rgbpose_attention", "pcan"}) {
    SCOPED_TRACE(type);
    const std::string config = WriteConfig(type);
    const std::string run = scratch_ / type;
    std::vector<std::string> train = {"train", config, "--work-dir", run};
    if (type == "rgbpose_attention" || type == "pcan") {
      train.insert(train.end(), {"--set", "train.init_rgb=" + (scratch_ / "rgb/last.pth"), "--set",
                                 "train.init_pose=" + (scratch_ / "pose/last.pth")});
    }
    Succeed(train, "best fused top-1");
    EXPECT_TRUE(fs::exists(run + "/log.jsonl"));
    EXPECT_TRUE(fs::exists(run + "/best.pth"));

    const std::string results = scratch_ / ("results_" + type);
    Succeed({"test", config, run + "/last.pth", "--clips", "2", "--flip", "--out", results},
            "top-1");
    for (const std::string name : {"summary.json", "per_class.csv", "per_sample.csv",
                                   "confusion.csv", "confusion.png", "scores.npz"}) {
      EXPECT_TRUE(fs::exists(results + "/" + name)) << name;
    }
    const NpzArrays scores = ReadNpz(results + "/scores.npz");
    EXPECT_EQ(scores.at("scores_fused").shape, (std::vector<int64_t>{10, 10}));

    const std::string sample = ReadText(results + "/per_sample.csv");
    const size_t line = sample.find('\n') + 1;
    const std::string id = sample.substr(line, sample.find(',', line) - line);
    std::vector<std::string> predict = {"predict", run + "/last.pth",
                                        SmallSet() + "/videos/" + id + ".mp4", "--top", "3"};
    if (type != "rgb") {
      predict.insert(predict.end(), {"--pose", SmallSet() + "/annotations.pkl"});
    }
    Succeed(predict, "score");
    predict.insert(predict.end(), {"--set", "device=cuda:99"});
    EXPECT_EQ(Kinefit(predict).exit_code, 2);
  }
  Succeed({"compare", "a=" + (scratch_ / "results_pose"), scratch_ / "results_pcan"}, "fused");
}

TEST_F(EndToEnd, AFinishedRunIsLeftAlone) {
  const std::string config = WriteConfig("pose");
  const std::string run = scratch_ / "run";
  Succeed({"train", config, "--work-dir", run});
  const std::string before = ReadText(run + "/last.pth");
  Succeed({"train", config, "--work-dir", run}, "already finished");
  EXPECT_EQ(before, ReadText(run + "/last.pth"));
}

// Same seed, same plan, same threads, same bits; another number of decoding threads changes
// nothing.
TEST_F(EndToEnd, SameSeedSameBits) {
  const std::string config = WriteConfig("rgbpose");
  std::vector<std::vector<std::pair<std::string, at::Tensor>>> weights;
  for (const std::string workers : {"1", "1", "4"}) {
    const std::string run = scratch_ / ("run" + std::to_string(weights.size()));
    Succeed({"train", config, "--work-dir", run, "--set", "data.workers=" + workers});
    weights.push_back(StateDictOf(ReadCheckpoint(run + "/last.pth"), run));
  }
  for (size_t other : {1, 2}) {
    ASSERT_EQ(weights[0].size(), weights[other].size());
    for (size_t i = 0; i < weights[0].size(); ++i) {
      EXPECT_TRUE(at::equal(weights[0][i].second, weights[other][i].second)) << weights[0][i].first;
    }
  }
}

// Joints in the batches, heatmaps drawn beside the network: the same training but for rounding.
TEST_F(EndToEnd, HeatmapsDrawnOnTheDevice) {
  const std::string config = WriteConfig("pose");
  std::vector<std::vector<double>> losses;
  std::vector<at::Tensor> scores;
  for (const std::string draw_on : {"host", "device"}) {
    const std::string run = scratch_ / draw_on;
    const std::string set = "data.heatmap.draw_on=" + draw_on;
    Succeed({"train", config, "--work-dir", run, "--set", set});
    losses.emplace_back();
    std::istringstream log(ReadText(run + "/log.jsonl"));
    for (std::string line; std::getline(log, line);) {
      const nlohmann::json event = nlohmann::json::parse(line);
      if (event.contains("loss")) losses.back().push_back(event["loss"]);
    }
    const std::string results = scratch_ / ("results_" + draw_on);
    // The same weights for both.
    Succeed({"test", config, scratch_ / "host/last.pth", "--clips", "2", "--flip", "--set", set,
             "--out", results});
    std::vector<double> fused = ReadNpz(results + "/scores.npz").at("scores_fused").ToDoubles();
    scores.push_back(at::tensor(fused, at::kDouble));
  }
  ASSERT_EQ(losses[0].size(), losses[1].size());
  ASSERT_FALSE(losses[0].empty());
  EXPECT_NEAR(losses[0].front(), losses[1].front(), 1e-5);
  EXPECT_NEAR(losses[0].back(), losses[1].back(), 0.05);
  EXPECT_LE((scores[0] - scores[1]).abs().max().item<double>(), 1e-5);
}

TEST_F(EndToEnd, ForwardAgreesWithTheReferenceFixture) {
  const std::string parity = std::string(KINEFIT_SHARED) + "/parity/";
  if (!fs::exists(parity)) GTEST_SKIP() << "no fixtures at " << parity;
  const std::string config = scratch_ / "tiny.toml";
  WriteText(config,
            "[model]\ntype = \"rgbpose\"\nnum_classes = 7\n[model.rgb]\nbase_channels = 8\n"
            "[model.pose]\nbase_channels = 4\n[model.head]\ndropout = 0\n");
  const std::string output = scratch_ / "out.npz";
  Succeed({"forward", "--config", config, "--checkpoint", parity + "rgbpose_tiny_mmengine.pth",
           "--input", parity + "rgbpose_tiny_io.npz", "--output", output, "--strict"});
  const NpzArrays got = ReadNpz(output);
  const NpzArrays want = ReadNpz(parity + "rgbpose_tiny_io.npz");
  for (const auto& [mine, theirs] :
       std::vector<std::pair<std::string, std::string>>{{"logits_rgb", "eval_logits_rgb"},
                                                        {"logits_pose", "eval_logits_pose"},
                                                        {"feature_rgb", "eval_feat_rgb"},
                                                        {"feature_pose", "eval_feat_pose"}}) {
    const std::vector<float> a = got.at(mine).ToFloats();
    const std::vector<float> b = want.at(theirs).ToFloats();
    ASSERT_EQ(a.size(), b.size());
    float largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(b[i]));
      difference = std::max(difference, std::abs(a[i] - b[i]));
    }
    EXPECT_LE(difference, 1e-5F * largest) << mine;
  }
}

// What a checkpoint lacks is as in a new network: with its gates closed a PCAN is the network that
// the checkpoint is of.
TEST_F(EndToEnd, ForwardStartsWhatTheCheckpointLacks) {
  const std::string rgbpose = WriteConfig("rgbpose");
  const std::string pcan = WriteConfig("rgbpose_attention");
  Succeed({"train", rgbpose, "--work-dir", scratch_ / "run", "--set", "train.epochs=1"});
  NpzArrays input;
  std::vector<double> imgs(3 * 4 * 32 * 32);
  std::vector<double> heatmaps(17 * 16 * 16 * 16);
  for (size_t i = 0; i < imgs.size(); ++i) imgs[i] = static_cast<double>(i % 13) / 13;
  for (size_t i = 0; i < heatmaps.size(); ++i) heatmaps[i] = static_cast<double>(i % 7) / 7;
  input.emplace("imgs", NdArray::FromDoubles({1, 3, 4, 32, 32}, imgs));
  input.emplace("heatmap_imgs", NdArray::FromDoubles({1, 17, 16, 16, 16}, heatmaps));
  WriteNpz(scratch_ / "in.npz", input);
  for (const std::string& config : {rgbpose, pcan}) {
    Succeed({"forward", "--config", config, "--checkpoint", scratch_ / "run/last.pth", "--input",
             scratch_ / "in.npz", "--output", config + ".npz", "--set", "threads=1"});
  }
  const NpzArrays a = ReadNpz(rgbpose + ".npz");
  const NpzArrays b = ReadNpz(pcan + ".npz");
  for (const std::string name : {"logits_rgb", "logits_pose"}) {
    EXPECT_EQ(a.at(name).bytes, b.at(name).bytes) << name;
  }
}

TEST_F(EndToEnd, DescribesThePublishedNetwork) {
  Succeed({"model", "describe", std::string(KINEFIT_SOURCE) + "/configs/rgbpose_ntu60.toml"},
          "36,147,928 parameters, 58.0");
}

TEST_F(EndToEnd, PlansAndShowsShippedConfigurations) {
  const std::string config = std::string(KINEFIT_SOURCE) + "/configs/rgbpose_attention_ntu60.toml";
  Succeed({"plan", config, "--memory", "39.39GiB", "--batch", "20"}, "GiB");
  Succeed({"config", "show", config, "--set", "train.batch_size=20"}, "--set");
  Succeed({"config", "keys"}, "train.optimizer.lr");
  Succeed({"data", "make", scratch_ / "set", "--actors", "2", "--takes", "1"}, "made 10 training");
}

// The same plan for people, for machines and as a picture: one that does not fit as written.
TEST_F(EndToEnd, PlansForMachinesAndAsAPicture) {
  const std::string config = WriteConfig("rgbpose_attention");
  Succeed({"plan", config, "--set", "train.batch_size=16", "--memory", "24MiB", "--json", "--svg",
           scratch_ / "plan.svg", "--html", scratch_ / "plan.html"});
  const auto json = nlohmann::json::parse(output_);
  EXPECT_FALSE(json.at("fits").get<bool>());
  const auto& chosen = json.at("plans").at(json.at("chosen").get<size_t>());
  EXPECT_TRUE(chosen.at("fits").get<bool>());
  EXPECT_LE(chosen.at("need_bytes").get<int64_t>(), json.at("budget_bytes").get<int64_t>());
  EXPECT_EQ(chosen.at("batch_size").get<int64_t>() * chosen.at("accumulate").get<int64_t>(), 16);
  int64_t sum = 0;
  for (const auto& [role, bytes] : json.at("rehearsal").at("at_peak").items()) {
    sum += bytes.get<int64_t>();
  }
  EXPECT_EQ(sum, json.at("rehearsal").at("peak_bytes").get<int64_t>());
  EXPECT_EQ(ReadText(scratch_ / "plan.svg").rfind("<svg", 0), 0U);
  EXPECT_NE(ReadText(scratch_ / "plan.html").find("class=\"chosen\""), std::string::npos);
  const Outcome refused = Kinefit({"plan", config, "--svg", scratch_ / "no/such/plan.svg"});
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
}

// Real steps of the plan as written and of the chosen one beside what was predicted.
TEST_F(EndToEnd, CalibratesAPlan) {
  const std::string config = std::string(KINEFIT_SOURCE) + "/configs/demo_pose.toml";
  Succeed({"plan", config, "--batch", "2", "--memory", "1GiB", "--calibrate", "--set", "threads=1"},
          "  as written  ");
  const double budget = 24 << 20;
  Succeed({"plan", config, "--batch", "8", "--memory", "24MiB", "--calibrate", "--json", "--set",
           "threads=1"});
  const auto json = nlohmann::json::parse(output_);
  ASSERT_FALSE(json.at("fits").get<bool>());
  ASSERT_FALSE(json.at("chosen").is_null()) << output_;
  const auto& calibration = json.at("calibration");
  ASSERT_EQ(calibration.size(), 2U);
  for (const auto& [name, entry] : calibration.items()) {
    SCOPED_TRACE(name);
    EXPECT_LT(std::abs(entry.at("error_percent").get<double>()), 3);
    EXPECT_GT(entry.at("seconds_per_step").get<double>(), 0);
    EXPECT_GT(entry.at("measured_relative_time").get<double>(), 0);
  }
  EXPECT_LE(calibration.at("chosen").at("measured_peak_bytes").get<double>(), budget);
  EXPECT_GT(calibration.at("as_written").at("measured_peak_bytes").get<double>(), budget);
  const Outcome gpu =
      Kinefit({"plan", config, "--set", "device=cuda", "--memory", "1GiB", "--calibrate"});
  EXPECT_EQ(gpu.exit_code, 2) << gpu.output;
  EXPECT_NE(gpu.output.find("CUDA"), std::string::npos) << gpu.output;
}

}  // namespace
}  // namespace kinefit::testing
