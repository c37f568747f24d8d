// Groups of classes from the configuration to the result files, and annotation files of their own
// for training, validation and test: the real program on the built-in set.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "config/load.h"
#include "convert/annotation_file.h"
#include "dataset/annotations.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Lines(const std::string& path) {
  std::istringstream text(ReadText(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

class Groups : public ::testing::Test {
 protected:
  // The small configuration of that network with the built-in set's hierarchy.
  std::string WriteConfig(const std::string& type, const std::string& more = "") {
    const std::string path = scratch_ / (type + ".toml");
    std::string text = SmallConfig(type);
    const std::string own = "groups = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]\n";
    const size_t at = text.find(own);
    if (at != std::string::npos) text.erase(at, own.size());
    const std::string data = "[data]\n";
    text.insert(text.find(data) + data.size(), "hierarchy = \"demo\"\n" + more);
    WriteText(path, text);
    return path;
  }
  void Train(const std::string& config, const std::string& run) {
    const Outcome outcome =
        Kinefit({"train", config, "--work-dir", scratch_ / run, "--set", "train.epochs=1"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
  Outcome Test(const std::string& config, const std::string& run,
               const std::vector<std::string>& more) {
    std::vector<std::string> words = {"test", config, scratch_ / (run + "/last.pth")};
    words.insert(words.end(), more.begin(), more.end());
    return Kinefit(words);
  }
  static nlohmann::json Json(const std::string& path) {
    return nlohmann::json::parse(ReadText(path));
  }

  ScratchFolder scratch_;
};

TEST_F(Groups, PcanIsTrainedAndMeasuredByTheHierarchy) {
  const std::string config = WriteConfig("pcan");
  Train(config, "run");
  EXPECT_NE(ReadText(scratch_ / "run/config.toml").find("groups = [[0, 1], [2, 3], [4, 5], [6, 7], "
                                                        "[8, 9]]"),
            std::string::npos);
  EXPECT_NE(ReadText(scratch_ / "run/log.jsonl").find("coarse_top1/fused"), std::string::npos);

  const std::string results = scratch_ / "results";
  const std::string csv = scratch_ / "prediction.csv";
  const Outcome tested =
      Test(config, "run", {"--out", results, "--submission", csv, "--clips", "2", "--flip"});
  ASSERT_EQ(tested.exit_code, 0) << tested.output;
  for (const char* word : {"macro F1", "micro F1", "groups", "mean of all F1"}) {
    EXPECT_NE(tested.output.find(word), std::string::npos) << tested.output;
  }
  EXPECT_EQ(tested.output.find("of the fine classes"), std::string::npos) << tested.output;

  const auto summary = Json(results + "/summary.json");
  EXPECT_EQ(summary["checkpoint"], scratch_ / "run/last.pth");
  EXPECT_EQ(summary["config"], config);
  EXPECT_EQ(summary["split"], "test");
  EXPECT_EQ(summary["clips"], 2);
  EXPECT_EQ(summary["flip"], true);
  EXPECT_EQ(summary["weights"]["pose"], 1);
  EXPECT_EQ(summary["version"].get<std::string>().substr(0, 8), "kinefit ");
  EXPECT_EQ(summary["groups"]["from"], "classifier");
  for (const char* stream : {"rgb", "pose", "fused"}) {
    EXPECT_TRUE(summary["streams"][stream].contains("macro_f1")) << stream;
    const auto& groups = summary["groups"]["streams"][stream];
    EXPECT_TRUE(groups.contains("mean_f1")) << stream;
    EXPECT_NEAR(groups["micro_f1"].get<double>(), groups["top1"].get<double>(), 1e-12) << stream;
  }
  const NpzArrays scores = ReadNpz(results + "/scores.npz");
  EXPECT_EQ(scores.at("scores_coarse_fused").shape, (std::vector<int64_t>{10, 5}));
  // Means of the streams' probabilities sum to one.
  double sum = 0;
  const std::vector<double> fused = scores.at("scores_fused").ToDoubles();
  for (int c = 0; c < 10; ++c) sum += fused[static_cast<size_t>(c)];
  EXPECT_NEAR(sum, 1, 1e-12);

  const std::vector<std::string> confusion = Lines(results + "/confusion_groups.csv");
  ASSERT_EQ(confusion.size(), 6U);
  EXPECT_EQ(confusion[0], "label \\ prediction,hand to face,lift,hand to brow,wave,step");
  EXPECT_TRUE(fs::exists(results + "/confusion_groups.png"));

  const std::vector<std::string> submission = Lines(csv);
  ASSERT_EQ(submission.size(), 11U);
  EXPECT_EQ(submission[0],
            "vid,action_pred_1,action_pred_2,action_pred_3,action_pred_4,action_pred_5,"
            "body_pred_1,body_pred_2,body_pred_3,body_pred_4,body_pred_5");
  const std::vector<std::string> samples = Lines(results + "/per_sample.csv");
  EXPECT_EQ(submission[1].substr(0, submission[1].find(',')),
            samples[1].substr(0, samples[1].find(',')) + ".mp4");

  const Outcome compared = Kinefit({"compare", "one=" + results, results});
  ASSERT_EQ(compared.exit_code, 0) << compared.output;
  for (const std::string& word : {std::string("groups top-1"), std::string("mean of all F1"),
                                  scratch_ / "run/last.pth", std::string("rgb 1, pose 1")}) {
    EXPECT_NE(compared.output.find(word), std::string::npos) << compared.output;
  }
}

TEST_F(Groups, OfANetworkWithoutCoarseClassifiersAreDerived) {
  const std::string config = WriteConfig("pose");
  Train(config, "run");
  const Outcome tested = Test(config, "run", {"--out", scratch_ / "results"});
  ASSERT_EQ(tested.exit_code, 0) << tested.output;
  EXPECT_NE(tested.output.find("groups (of the fine classes)"), std::string::npos);
  const auto summary = Json(scratch_ / "results/summary.json");
  EXPECT_EQ(summary["groups"]["from"], "fine");
  EXPECT_GE(summary["groups"]["streams"]["fused"]["top1"].get<double>(),
            summary["streams"]["fused"]["top1"].get<double>());

  // Several ranks give what one gives.
  const Outcome ranks =
      Kinefit({"launch", "--nproc", "2", "--", "test", config, scratch_ / "run/last.pth", "--out",
               scratch_ / "ranks"});
  ASSERT_EQ(ranks.exit_code, 0) << ranks.output;
  EXPECT_EQ(Json(scratch_ / "ranks/summary.json")["groups"], summary["groups"]);
}

TEST_F(Groups, LabelsCanBeShifted) {
  const std::string config = WriteConfig("pose");
  Train(config, "run");
  ASSERT_EQ(Test(config, "run", {"--out", scratch_ / "plain"}).exit_code, 0);
  const Outcome shifted =
      Test(config, "run", {"--out", scratch_ / "shifted", "--label-offset", "-1"});
  ASSERT_EQ(shifted.exit_code, 0) << shifted.output;
  EXPECT_NE(shifted.output.find("label 0 with data.label_offset = -1 is outside the 10 classes"),
            std::string::npos)
      << shifted.output;
  const NpzArrays plain = ReadNpz(scratch_ / "plain/scores.npz");
  const NpzArrays moved = ReadNpz(scratch_ / "shifted/scores.npz");
  std::vector<int64_t> expected;
  for (const int64_t label : plain.at("labels").ToInts("labels")) {
    if (label > 0) expected.push_back(label - 1);
  }
  EXPECT_EQ(moved.at("labels").ToInts("labels"), expected);
  EXPECT_EQ(Json(scratch_ / "shifted/summary.json")["label_offset"], -1);
  // Every clip shifted away: nothing is left to test.
  EXPECT_EQ(Test(config, "run", {"--label-offset", "10"}).exit_code, 2);
}

// A plain list of the small set's clips of one split.
void WriteList(const std::string& path, const std::string& split) {
  Config config;
  config.model.type = "pose";
  config.model.num_classes = 10;
  config.data.annotations = SmallSet() + "/annotations.pkl";
  PickleWriter list(4);
  list.BeginList();
  for (const Sample& sample : LoadDataset(config, split).samples) {
    list.Splice(EncodeClip({sample.id, "", sample.label, sample.width, sample.height, 0,
                            sample.total_frames, sample.pose},
                           DType::kFloat16));
  }
  list.EndList();
  WriteText(path, list.Finish());
}

TEST_F(Groups, TrainValAndTestMayHaveFilesOfTheirOwn) {
  WriteList(scratch_ / "train.pkl", "train");
  WriteList(scratch_ / "val.pkl", "test");
  const std::string config = scratch_ / "separate.toml";
  WriteText(scratch_ / "base.toml", SmallConfig("pose"));
  WriteText(config, "include = \"base.toml\"\n[data]\ntrain_annotations = \"" +
                        (scratch_ / "train.pkl") + "\"\nval_annotations = \"" +
                        (scratch_ / "val.pkl") + "\"\n");
  Train(config, "separate");
  Train(scratch_ / "base.toml", "one");
  // The same clips in the same order: the same weights.
  EXPECT_TRUE(SameTensors(scratch_ / "separate/last.pth", scratch_ / "one/last.pth"));
  const Outcome tested = Test(config, "separate", {"--out", scratch_ / "results"});
  ASSERT_EQ(tested.exit_code, 0) << tested.output;
  EXPECT_EQ(Json(scratch_ / "results/summary.json")["annotations"], scratch_ / "val.pkl");
  EXPECT_NE(tested.output.find("10 samples of " + (scratch_ / "val.pkl")), std::string::npos)
      << tested.output;

  const Outcome open = Kinefit({"data", "check", config});
  EXPECT_EQ(open.exit_code, 2);
  EXPECT_NE(open.output.find("--use train"), std::string::npos) << open.output;
  const Outcome checked = Kinefit({"data", "check", config, "--use", "val", "--report",
                                   scratch_ / "check.jsonl"});
  EXPECT_NE(checked.output.find("val.pkl: 10 annotations"), std::string::npos) << checked.output;
  const std::string clip = Lines(scratch_ / "results/per_sample.csv")[1];
  const Outcome shown = Kinefit({"data", "show", config, clip.substr(0, clip.find(',')), "--phase",
                                 "test", "--out", scratch_ / "sheet.png"});
  EXPECT_EQ(shown.exit_code, 0) << shown.output;
}

}  // namespace
}  // namespace kinefit::testing
