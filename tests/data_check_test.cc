// `kinefit data check` and `kinefit data show` with the real program: what they find, write and
// refuse, and that training takes what --fix wrote.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "config/load.h"
#include "convert/annotation_file.h"
#include "dataset/annotations.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

class DataCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = scratch_ / "config.toml";
    WriteText(config_, SmallConfig("rgbpose"));
  }

  Outcome Check(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {"data", "check", config_, "--report", Report()};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return Kinefit(all);
  }
  Outcome Show(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {"data", "show", config_};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return Kinefit(all);
  }
  std::string Report() const { return scratch_ / "report.jsonl"; }

  std::vector<Json> Records(const std::string& kind) const {
    std::vector<Json> records;
    std::istringstream lines(ReadText(Report()));
    for (std::string line; std::getline(lines, line);) {
      const Json record = Json::parse(line);
      if (record.at("record") == kind) records.push_back(record);
    }
    return records;
  }

  // The small set with damaged videos.
  std::string DamagedVideos() const {
    const std::string videos = scratch_ / "videos";
    fs::copy(SmallSet() + "/videos", videos);
    fs::remove(videos + "/actor00_call_take00.mp4");
    const std::string cut = videos + "/actor01_wave_fast_take00.mp4";
    fs::resize_file(cut, fs::file_size(cut) / 2);
    fs::remove(videos + "/actor01_jog_take00.mp4");  // and a copy of a clip of the test split
    fs::copy(videos + "/actor02_jog_take00.mp4", videos + "/actor01_jog_take00.mp4");
    return videos;
  }

  ScratchFolder scratch_;
  std::string config_;
};

TEST_F(DataCheck, TheBuiltInSetIsSound) {
  const Outcome outcome = Check({"--labels"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_HAS(outcome.output, "30 annotations, 30 checked");
  EXPECT_HAS(outcome.output, "wave_slow");
  EXPECT_EQ(Records("split").size(), 2U);
  EXPECT_EQ(Records("set").at(0).at("video_files"), 30);
  EXPECT_EQ(Records("set").at(0).at("stops"), 0);

  const Outcome pickle = Kinefit({"data", "check", SmallSet() + "/annotations.pkl", "--videos",
                                  SmallSet() + "/videos", "--report", Report()});
  EXPECT_EQ(pickle.exit_code, 0) << pickle.output;
  EXPECT_EQ(Records("set").at(0).at("video_files"), 30);
}

TEST_F(DataCheck, FindsRepairsAndTrains) {
  const std::string videos = DamagedVideos();
  const std::string fixed = scratch_ / "fixed.pkl";
  const Outcome outcome = Check({"--videos", videos, "--fix", fixed});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_HAS(outcome.output, "video_missing");
  EXPECT_HAS(outcome.output, "actor00_call_take00: left out: there is no video");
  std::vector<std::string> found;
  for (const Json& record : Records("finding")) {
    if (record.at("severity") != "note") {
      found.push_back(record.at("code").get<std::string>() + " " +
                      record.at("id").get<std::string>());
    }
  }
  // Its joints are no longer those of the video, which says another size of clip.
  EXPECT_NE(std::find(found.begin(), found.end(), "video_missing actor00_call_take00"),
            found.end());
  EXPECT_NE(std::find(found.begin(), found.end(), "video_unreadable actor01_wave_fast_take00"),
            found.end());
  EXPECT_NE(std::find(found.begin(), found.end(), "leak_video actor01_jog_take00"), found.end());
  EXPECT_GE(Records("repair").size(), 3U);

  const Outcome again =
      Check({"--videos", videos, "--set", "data.annotations=" + fixed, "--threads", "1"});
  EXPECT_EQ(again.exit_code, 0) << again.output;
  const Outcome trained = Kinefit({"train", config_, "--set", "data.annotations=" + fixed, "--set",
                                   "data.videos=" + videos, "--set", "train.epochs=1", "--set",
                                   "data.max_bad_share=0", "--work-dir", scratch_ / "run"});
  EXPECT_EQ(trained.exit_code, 0) << trained.output;
}

TEST_F(DataCheck, WhatCannotBeCheckedIsRefused) {
  const std::string set = SmallSet() + "/annotations.pkl";
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& words) {
    const Outcome outcome = Check(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_HAS(outcome.output, words);
    EXPECT_FALSE(fs::exists(Report()));
  };
  refused({"--videos", scratch_ / "none"}, "--no-videos");
  refused({"--set", "data.train_split=trian"}, "did you mean 'train'");
  refused({"--set", "data.annotations=" + (scratch_ / "none.pkl")}, "none.pkl");
  refused({"--fix", set}, "would overwrite what is checked");
  refused({"--fix", scratch_ / "none/fixed.pkl"}, "there is no folder for --fix");
  refused({"--threads", "-1"}, "--threads");
  const std::string before = ReadText(set);
  const Outcome outcome = Kinefit({"data", "check", config_, "--report", set});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(ReadText(set), before);
}

TEST_F(DataCheck, ShowsClips) {
  const std::string sheet = scratch_ / "sheet.png";
  const Outcome train = Show({"actor00_call_take00", "--out", sheet, "--epoch", "4"});
  EXPECT_EQ(train.exit_code, 0) << train.output;
  EXPECT_HAS(train.output, "epoch 4");
  const std::string first = ReadText(sheet);
  EXPECT_EQ(first.substr(1, 3), "PNG");
  EXPECT_EQ(Show({"actor00_call_take00", "--out", sheet, "--epoch", "5"}).exit_code, 0);
  EXPECT_NE(ReadText(sheet), first);
  EXPECT_EQ(Show({"actor00_call_take00", "--out", sheet, "--epoch", "4"}).exit_code, 0);
  EXPECT_EQ(ReadText(sheet), first);
  const Outcome test = Show({"actor02_call_take00", "--out", sheet, "--phase", "test", "--clips",
                             "--set", "eval.test_clips=3"});
  EXPECT_EQ(test.exit_code, 0) << test.output;
  EXPECT_HAS(test.output, "split test");

  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& words) {
    const Outcome outcome = Show(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_HAS(outcome.output, words);
  };
  refused({"actor00_cal_take00", "--out", sheet}, "did you mean 'actor00_call_take00'");
  refused({"actor02_call_take00", "--out", sheet}, "--phase test");
  refused({"actor00_call_take00", "--out", sheet, "--clips"}, "--phase test");
  refused({"actor00_call_take00", "--out", sheet, "--pass", "1"}, "--pass");
  refused({"actor00_call_take00", "--out", scratch_ / "no/sheet.png"}, "no/sheet.png");
}

// A network of joints alone reads no video, but the sheet shows the one that the annotation names.
TEST_F(DataCheck, ShowsTheNamedVideoOfAPoseOnlyClip) {
  const std::string id = "actor00_call_take00";
  WriteText(config_, SmallConfig("pose"));
  const Dataset set = LoadDataset(LoadConfig(config_).config, "train");
  AnnotationFileWriter named(scratch_ / "named.pkl");
  for (const Sample& sample : set.samples) {
    named.Add(EncodeClip({sample.id, "tape/" + sample.id + ".film.mp4", sample.label, sample.width,
                          sample.height, 0, sample.total_frames, sample.pose},
                         DType::kFloat32));
  }
  named.Commit({{"train", {id}}, {"test", {id}}});
  fs::create_directories(scratch_ / "videos/tape");
  fs::create_directories(scratch_ / "empty");
  fs::copy(SmallSet() + "/videos/" + id + ".mp4", scratch_ / ("videos/tape/" + id + ".film.mp4"));

  const auto sheet_with = [&](const std::string& videos) {
    const std::string sheet = scratch_ / "sheet.png";
    const Outcome outcome =
        Show({id, "--out", sheet, "--phase", "test", "--set",
              "data.annotations=" + (scratch_ / "named.pkl"), "--set", "data.videos=" + videos});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return ReadText(sheet);
  };
  const std::string by_name = sheet_with(scratch_ / "videos");
  EXPECT_NE(by_name, sheet_with(scratch_ / "empty"));
  EXPECT_EQ(by_name, sheet_with(scratch_ / "videos"));
  fs::copy(scratch_ / ("videos/tape/" + id + ".film.mp4"), scratch_ / ("empty/" + id + ".mp4"));
  EXPECT_EQ(by_name, sheet_with(scratch_ / "empty"));  // found by its id where none is named so
}

}  // namespace
}  // namespace kinefit::testing
