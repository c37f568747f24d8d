#include "dataset/check.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "dataset/annotations.h"
#include "files/error.h"
#include "files/npy.h"
#include "files/publish.h"
#include "video/numbered_video.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kFrames = 6;

// One annotation: a person of three joints in kFrames frames of 128x64, as WriteNumberedVideo makes
// them. Tests change what they want wrong.
struct Clip {
  std::string id;
  int64_t label = 0;
  int64_t width = 128;
  int64_t height = 64;
  int64_t frames = kFrames;
  std::vector<float> xy;
  std::vector<float> score = std::vector<float>(3 * kFrames, 1.0F);
  bool half = false;
  bool scored = true;
  double first_score = 1;  // not 1: scores are stored as float64

  // Joints differ between ids, so that no two clips are the same.
  explicit Clip(const std::string& the_id, int64_t the_label = 0) : id(the_id), label(the_label) {
    int number = 20;
    for (const char c : id) number = (number * 31 + c) % 997;
    const float place = static_cast<float>(number) / 20;
    for (int i = 0; i < 3 * kFrames; ++i) {
      xy.push_back(40 + place);
      xy.push_back(10 + static_cast<float>(i % 3) + place);
    }
  }
};

void WriteClip(PickleWriter* w, const Clip& clip) {
  const auto joints = static_cast<int64_t>(clip.score.size()) / kFrames;
  const std::vector<int64_t> shape = {1, kFrames, joints, 2};
  w->BeginDict();
  w->String("frame_dir");
  w->String(clip.id);
  w->String("label");
  w->Int(clip.label);
  w->String("img_shape");
  w->BeginTuple();
  w->Int(clip.height);
  w->Int(clip.width);
  w->EndTuple();
  w->String("total_frames");
  w->Int(clip.frames);
  w->String("keypoint");
  w->Array(clip.half ? NdArray::FromFloatsAsHalf(shape, clip.xy).view()
                     : NdArray::FromFloats(shape, clip.xy).view());
  if (clip.scored) {
    w->String("keypoint_score");
    std::vector<double> scores(clip.score.begin(), clip.score.end());
    scores[0] = clip.first_score;
    w->Array(clip.first_score == 1 ? NdArray::FromFloats({1, kFrames, joints}, clip.score).view()
                                   : NdArray::FromDoubles({1, kFrames, joints}, scores).view());
  }
  w->String("taken_by");
  w->String("somebody");
  w->EndDict();
}

using Splits = std::map<std::string, std::vector<std::string>>;

class CheckTest : public ::testing::Test {
 protected:
  CheckTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-check-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    fs::create_directory(folder_ / "videos");
    config_.model.type = "rgbpose";
    config_.model.num_classes = 2;
    config_.model.pose.in_channels = 3;
    config_.data.annotations = folder_ / "set.pkl";
    config_.data.videos = folder_ / "videos";
    config_.data.train_split = "train";
    config_.data.val_split = "test";
  }
  ~CheckTest() override { fs::remove_all(folder_); }

  void Annotate(const std::vector<Clip>& clips, const Splits& splits) {
    PickleWriter w(3);
    w.BeginDict();
    w.String("made_with");
    w.Float(1.5);
    w.String("split");
    w.BeginDict();
    for (const auto& [name, ids] : splits) {
      w.String(name);
      w.BeginList();
      for (const std::string& id : ids) w.String(id);
      w.EndList();
    }
    w.EndDict();
    w.String("annotations");
    w.BeginList();
    for (const Clip& clip : clips) WriteClip(&w, clip);
    w.EndList();
    w.EndDict();
    PublishFile(config_.data.annotations, w.Finish());
  }

  std::string Video(const std::string& id) const { return folder_ / "videos" / (id + ".mp4"); }

  // Videos of the clips differ in length beyond what is annotated, so that no two are equal.
  void Film(const std::vector<std::string>& ids) {
    for (const std::string& id : ids) {
      WriteNumberedVideo(Video(id), kFrames, 10 + static_cast<double>(++filmed_));
    }
  }

  CheckResult Check(int threads = 2) {
    CheckPlan plan = PlanCheck(config_);
    plan.threads = threads;
    return CheckDataset(Pickle::Load(config_.data.annotations), plan);
  }

  // "code id" of everything found, sorted.
  static std::vector<std::string> Codes(const CheckResult& result, Severity least) {
    std::vector<std::string> codes;
    for (const Finding& finding : result.findings) {
      if (finding.severity >= least) codes.push_back(finding.code + " " + finding.id);
    }
    std::sort(codes.begin(), codes.end());
    return codes;
  }

  std::vector<Repair> Clean(const std::string& path) {
    const CheckPlan plan = PlanCheck(config_);
    const Pickle pickle = Pickle::Load(config_.data.annotations);
    return CleanAnnotations(pickle, plan, CheckDataset(pickle, plan), path);
  }

  fs::path folder_;
  Config config_;
  int filmed_ = 0;
};

using Names = std::vector<std::string>;

TEST_F(CheckTest, ASoundSetHasNoFindings) {
  Annotate({Clip("a", 0), Clip("b", 1), Clip("c", 0), Clip("d", 1)},
           {{"train", {"a", "b"}}, {"test", {"c", "d"}}});
  Film({"a", "b", "c", "d"});
  const CheckResult result = Check();
  EXPECT_EQ(Codes(result, Severity::kNote), Names());
  EXPECT_EQ(result.videos, 4);
  EXPECT_EQ(result.video_frames, 4 * kFrames);
  ASSERT_EQ(result.splits.size(), 2U);
  EXPECT_EQ(result.splits[0].labels, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(result.splits[0].frames, 2 * kFrames);
}

TEST_F(CheckTest, VideosThatAreMissingDamagedShortOrOfAnotherShape) {
  Clip narrow("narrow", 1);
  narrow.width = 64;
  Clip turned("turned");
  std::swap(turned.width, turned.height);
  Clip small("small");
  small.width = 256;
  small.height = 128;
  const std::vector<std::string> ids = {"gone",   "cut",   "short", "narrow",
                                        "turned", "small", "long"};
  Annotate({Clip("gone"), Clip("cut"), Clip("short"), narrow, turned, small, Clip("long"),
            Clip("test", 1)},
           {{"train", ids}, {"test", {"test"}}});
  Film({"cut", "narrow", "turned", "small", "test"});
  WriteNumberedVideo(Video("short"), kFrames - 1);
  WriteNumberedVideo(Video("long"), kFrames + 3);
  fs::resize_file(Video("cut"), fs::file_size(Video("cut")) / 2);
  const CheckResult result = Check();
  EXPECT_EQ(Codes(result, Severity::kStops),
            (Names{"video_aspect narrow", "video_aspect turned", "video_missing gone",
                   "video_too_short short", "video_unreadable cut"}));
  const Names all = Codes(result, Severity::kNote);
  EXPECT_EQ(std::count(all.begin(), all.end(), "video_resized small"), 1);
  EXPECT_EQ(std::count(all.begin(), all.end(), "video_longer long"), 1);
  for (const Finding& finding : result.findings) {
    if (finding.code != "video_too_short") continue;
    EXPECT_EQ(finding.numbers[0], (std::pair<std::string, double>("video", kFrames - 1)));
    EXPECT_EQ(finding.message, "the video has 5 frames, the annotation 6");
  }
}

TEST_F(CheckTest, JointsThatCannotBe) {
  Clip nan("nan");
  nan.xy[4] = std::numeric_limits<float>::quiet_NaN();
  Clip overflown("overflown");
  overflown.half = true;
  overflown.xy[0] = 70000;  // becomes infinite
  Clip far("far");
  far.xy[1] = 2e6F;
  Clip score("score");
  score.score[3] = std::numeric_limits<float>::infinity();
  Clip empty("empty", 1);
  std::fill(empty.score.begin(), empty.score.end(), 0.0F);
  Clip gap("gap");
  std::fill_n(gap.score.begin(), 6, 0.0F);
  Clip shares("shares");
  for (float& value : shares.xy) value /= 128;
  Clip outside("outside");
  outside.xy[0] = -5;
  Clip astray("astray");
  astray.xy[0] = 4000;
  Annotate({nan, overflown, far, score, empty, gap, shares, outside, astray},
           {{"train", {"nan", "overflown", "far", "score", "empty", "gap", "shares"}},
            {"test", {"outside", "astray"}}});
  config_.data.videos = "";
  const CheckResult result = Check();
  EXPECT_EQ(Codes(result, Severity::kStops),
            (Names{"joints_far far", "joints_nan nan", "joints_overflow overflown",
                   "scores_not_finite score"}));
  EXPECT_EQ(Codes(result, Severity::kDistorts).size(), 7U);
  const Names all = Codes(result, Severity::kNote);
  for (const char* code : {"pose_empty empty", "joints_normalised shares", "joints_astray astray",
                           "frames_without_pose gap", "joints_outside outside"}) {
    EXPECT_EQ(std::count(all.begin(), all.end(), code), 1) << code;
  }
  EXPECT_EQ(result.clips[5].empty_frames, 2);
}

TEST_F(CheckTest, AnnotationsThatCannotBeUsed) {
  Clip labelled("labelled", 2);
  Clip cut("cut");
  cut.frames = kFrames + 1;
  Clip more("more");
  more.xy.resize(4 * kFrames * 2, 20);
  more.score.resize(4 * kFrames, 1);
  Annotate({Clip("a"), Clip("b", 1), labelled, cut, more, Clip("a"), Clip("t", 1)},
           {{"train", {"a", "b", "labelled", "cut", "more", "nobody"}}, {"test", {"t", "t"}}});
  config_.data.videos = "";
  const CheckResult result = Check();
  EXPECT_EQ(Codes(result, Severity::kStops),
            (Names{"annotation_invalid labelled", "annotation_invalid more",
                   "annotation_unusable cut", "id_repeats a", "split_unknown nobody"}));
  const Names notes = Codes(result, Severity::kNote);
  EXPECT_EQ(std::count(notes.begin(), notes.end(), "split_repeats t"), 1);

  // Without a network the commonest number of joints counts, and labels may be any.
  CheckPlan plan =
      PlanCheck(Pickle::Load(config_.data.annotations), config_.data.annotations, "", ".mp4");
  EXPECT_EQ(plan.held_out, (std::vector<std::pair<std::string, std::string>>{{"train", "test"}}));
  EXPECT_EQ(Codes(CheckDataset(Pickle::Load(config_.data.annotations), plan), Severity::kStops),
            (Names{"annotation_unusable cut", "id_repeats a", "joints_differ more",
                   "split_unknown nobody"}));
}

TEST_F(CheckTest, LeaksBetweenSplits) {
  Clip posed("posed");
  posed.xy = Clip("t3").xy;
  Annotate({Clip("both"), Clip("twin"), posed, Clip("linked"), Clip("own"), Clip("take_1"),
            Clip("t1"), Clip("t2"), Clip("t3"), Clip("take_2", 1)},
           {{"train", {"both", "twin", "posed", "linked", "own", "take_1"}},
            {"test", {"both", "t1", "t2", "t3", "take_2"}}});
  Film({"both", "posed", "own", "take_1", "t1", "t2", "t3", "take_2"});
  fs::copy_file(Video("t1"), Video("twin"));
  fs::create_symlink(Video("t2"), Video("linked"));
  const CheckResult result = Check();
  EXPECT_EQ(Codes(result, Severity::kDistorts),
            (Names{"class_untrained ", "leak_id both", "leak_pose posed", "leak_video linked",
                   "leak_video twin"}));
  const Names notes = Codes(result, Severity::kNote);
  EXPECT_EQ(std::count(notes.begin(), notes.end(), "sources_shared "), 1);
  for (const Finding& finding : result.findings) {
    if (finding.id == "twin") {
      EXPECT_EQ(finding.split, "train, test");
      EXPECT_EQ(finding.message, "has a video of the same bytes as 't1' of 'test'");
    }
  }
}

TEST_F(CheckTest, OneClipUnderTwoLabels) {
  Clip again("again", 1);
  again.xy = Clip("own").xy;
  Clip copy("copy", 0);
  copy.xy = Clip("own").xy;
  Annotate({Clip("own", 0), again, copy, Clip("t")},
           {{"train", {"own", "again", "copy"}}, {"test", {"t"}}});
  config_.data.videos = "";
  const Names found = Codes(Check(), Severity::kNote);
  EXPECT_EQ(found, (Names{"label_conflict again", "pose_repeats copy"}));
}

TEST_F(CheckTest, ThreadsChangeNothing) {
  std::vector<Clip> clips;
  Splits splits;
  std::vector<std::string> filmed;
  for (int i = 0; i < 24; ++i) {
    clips.emplace_back("clip" + std::to_string(i), i % 3);
    splits[i % 2 == 0 ? "train" : "test"].push_back(clips.back().id);
    if (i % 4 != 0) filmed.push_back(clips.back().id);
  }
  Annotate(clips, splits);
  Film(filmed);
  std::vector<std::string> reports;
  for (const int threads : {1, 2, 7}) {
    const std::string path = folder_ / ("report" + std::to_string(threads));
    WriteCheckReport(path, PlanCheck(config_), Check(threads), {});
    reports.push_back(ReadFile(path));
  }
  EXPECT_EQ(reports[0], reports[1]);
  EXPECT_EQ(reports[0], reports[2]);

  std::ifstream lines(folder_ / "report1");
  std::map<std::string, int> records;
  for (std::string line; std::getline(lines, line);) {
    const Json record = Json::parse(line);
    ++records[record.at("record")];
    if (record.at("record") == "set") {
      EXPECT_EQ(record.at("clips"), 24);
      EXPECT_EQ(record.at("stops"), 8 + 4);  // labels of 2; missing videos of the others
    }
  }
  EXPECT_EQ(records["set"], 1);
  EXPECT_EQ(records["split"], 2);
  EXPECT_GE(records["finding"], 12);
}

TEST_F(CheckTest, ACleanedSetIsSoundAndTheOriginalUntouched) {
  Clip nan("nan");
  nan.xy[4] = std::numeric_limits<float>::quiet_NaN();
  nan.scored = false;
  Clip overflown("overflown", 1);
  overflown.half = true;
  overflown.xy[0] = 70000;
  Clip turned("turned");
  std::swap(turned.width, turned.height);
  Clip labelled("labelled", 5);
  const std::vector<std::string> train = {"nan",  "overflown", "turned", "labelled",
                                          "gone", "both",      "good",   "nobody"};
  Annotate({nan, overflown, turned, labelled, Clip("gone"), Clip("both"), Clip("good"),
            Clip("good"), Clip("t", 1)},
           {{"train", train}, {"test", {"both", "t"}}, {"unused", {"gone", "good"}}});
  Film({"nan", "overflown", "turned", "labelled", "both", "good", "t"});
  const std::string before = ReadFile(config_.data.annotations);
  const std::string cleaned = folder_ / "cleaned.pkl";
  const std::vector<Repair> repairs = Clean(cleaned);
  EXPECT_EQ(ReadFile(config_.data.annotations), before);
  std::vector<std::string> done;
  for (const Repair& repair : repairs) {
    done.push_back(repair.id + ": " + repair.done.substr(0, repair.done.find(':')));
  }
  std::sort(done.begin(), done.end());
  EXPECT_EQ(done, (Names{"both: left out of the split", "gone: left out", "good: left out",
                         "labelled: left out", "nan: 1 joints blanked (0, 0 with score 0)",
                         "nobody: left out of the split",
                         "overflown: 1 joints blanked (0, 0 with score 0)",
                         "turned: height and width of img_shape exchanged"}));

  config_.data.annotations = cleaned;
  EXPECT_EQ(Codes(Check(), Severity::kDistorts), Names());
  const Dataset train_set = LoadDataset(config_, "train");
  ASSERT_EQ(train_set.samples.size(), 4U);
  EXPECT_EQ(train_set.rejected.size(), 0U);
  EXPECT_EQ(train_set.samples[0].pose.xy[4], 0);
  EXPECT_EQ(train_set.samples[0].pose.score[2], 0);
  EXPECT_EQ(train_set.samples[0].pose.score[1], 1);
  EXPECT_EQ(train_set.samples[0].pose.xy[6], nan.xy[6]);
  EXPECT_EQ(train_set.samples[2].width, 128);
  // What is not understood is copied.
  const Pickle pickle = Pickle::Load(cleaned);
  EXPECT_EQ(pickle.root().Find("made_with").AsFloat("made_with"), 1.5);
  EXPECT_EQ(pickle.root().Find("annotations")[0].Find("taken_by").AsString("x"), "somebody");
  EXPECT_EQ(pickle.root().Find("split").Find("unused").size(), 1U);
}

TEST_F(CheckTest, ScoresThatCannotBeStop) {
  Clip percent("percent");
  percent.first_score = 87;
  Annotate({percent, Clip("t")}, {{"train", {"percent"}}, {"test", {"t"}}});
  Film({"percent", "t"});
  EXPECT_EQ(Codes(Check(), Severity::kStops), Names{"annotation_unusable percent"});
}

// It is read as float32, in which it is infinite.
TEST_F(CheckTest, AScoreTooLargeForFloat32IsBlanked) {
  Clip wild("wild");
  wild.first_score = 1e300;
  Annotate({wild, Clip("t")}, {{"train", {"wild"}}, {"test", {"t"}}});
  Film({"wild", "t"});
  EXPECT_EQ(Codes(Check(), Severity::kDistorts), Names{"scores_not_finite wild"});
  const std::string cleaned = folder_ / "cleaned.pkl";
  Clean(cleaned);
  config_.data.annotations = cleaned;
  EXPECT_EQ(Codes(Check(), Severity::kDistorts), Names());
}

TEST_F(CheckTest, ClipsALittleLongerThanTheirVideoAreCut) {
  std::vector<float> xy;
  for (int i = 0; i < 20 * 2 * 3; ++i) xy.push_back(static_cast<float>(i % 50 + 1));
  PickleWriter w(3);
  w.BeginList();
  for (const bool flat : {false, true}) {
    w.BeginDict();
    w.String("frame_dir");
    w.String(flat ? "flat" : "tracks");
    w.String("label");
    w.Int(0);
    w.String("img_shape");
    w.BeginList();
    w.Int(64);
    w.Int(128);
    w.EndList();
    w.String("total_frames");
    w.Int(20);
    w.String("keypoint");
    const std::vector<int64_t> shape =
        flat ? std::vector<int64_t>{20, 2, 3} : std::vector<int64_t>{1, 20, 2, 3};
    std::vector<float> values = xy;
    for (size_t i = 2; i < values.size(); i += 3) values[i] = flat ? 0.5F : 1;
    w.Array(NdArray::FromFloats(shape, values).view());
    if (flat) {
      std::vector<int64_t> numbers;
      for (int64_t i = 0; i < 20; ++i) numbers.push_back(i / 2 * 2);
      w.String("frame_inds");
      w.Array(NdArray::FromInts({20}, numbers).view());
    }
    w.EndDict();
    WriteNumberedVideo(Video(flat ? "flat" : "tracks"), flat ? 18 : 19);
  }
  w.EndList();
  PublishFile(config_.data.annotations, w.Finish());
  config_.data.train_split = config_.data.val_split = "";
  config_.model.pose.in_channels = 2;
  const std::string cleaned = folder_ / "cleaned.pkl";
  EXPECT_EQ(Clean(cleaned).size(), 2U);
  config_.data.annotations = cleaned;
  EXPECT_EQ(Codes(Check(), Severity::kDistorts), Names());
  const Dataset set = LoadDataset(config_, "");
  ASSERT_EQ(set.samples.size(), 2U);
  EXPECT_EQ(set.samples[0].total_frames, 19);
  EXPECT_EQ(set.samples[0].pose.xy[18 * 4], xy[18 * 6]);
  EXPECT_EQ(set.samples[1].total_frames, 18);
  EXPECT_EQ(set.samples[1].pose.frames, 18);
}

TEST_F(CheckTest, WhatCannotBeCheckedIsAnError) {
  Annotate({Clip("a"), Clip("t")}, {{"train", {"a"}}, {"test", {"t"}}});
  const auto error_of = [this] {
    try {
      Check();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  config_.data.videos = folder_ / "nowhere";
  EXPECT_NE(error_of().find("folder of videos cannot be found"), std::string::npos);
  config_.data.videos = "";
  config_.data.val_split = "tset";
  EXPECT_NE(error_of().find("did you mean 'test'"), std::string::npos);
  config_.data.val_split = "test";
  EXPECT_EQ(error_of(), "");

  // A split of which nothing would be left makes the file useless.
  const std::string half = folder_ / "half.pkl";
  Annotate({Clip("a"), Clip("t", 3)}, {{"train", {"a"}}, {"test", {"t"}}});
  EXPECT_THROW(Clean(half), Error);
  EXPECT_FALSE(fs::exists(half));
  // One that is not asked for is left out.
  Annotate({Clip("a"), Clip("b", 3), Clip("t")},
           {{"train", {"a"}}, {"test", {"t", "b"}}, {"other", {"b"}}});
  EXPECT_EQ(Clean(half).size(), 2U);
  EXPECT_FALSE(Pickle::Load(half).root().Find("split").Has("other"));

  // Nothing would be left.
  config_.model.num_classes = 1;
  Annotate({Clip("a", 3), Clip("t", 4)}, {{"train", {"a"}}, {"test", {"t"}}});
  const std::string cleaned = folder_ / "cleaned.pkl";
  EXPECT_THROW(Clean(cleaned), Error);
  EXPECT_FALSE(fs::exists(cleaned));
}

#ifdef KINEFIT_SHARED
TEST(Cases, LabelsFromOneAreOneFindingAndShifted) {
  const std::string path = std::string(KINEFIT_SHARED) + "/cases/labels_from_one.pkl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "NOT CHECKED: " << path << " is absent";
  const Pickle pickle = Pickle::Load(path);
  CheckPlan with = PlanCheck(pickle, path, "", "");
  for (const bool network : {false, true}) {
    if (network) {
      with.any_label = false;
      with.config.model.type = "pose";
      with.config.model.num_classes = 2;
      with.config.model.pose.in_channels = 17;
    }
    const CheckResult result = CheckDataset(pickle, with);
    const auto count = [&](const std::string& code) {
      return std::count_if(result.findings.begin(), result.findings.end(),
                           [&](const Finding& finding) { return finding.code == code; });
    };
    EXPECT_EQ(count("labels_from_one"), 1);
    EXPECT_EQ(count("annotation_invalid"), 0);
    const std::string fixed = ::testing::TempDir() + "/labels_from_one_fixed.pkl";
    CleanAnnotations(pickle, with, result, fixed);
    const Pickle again = Pickle::Load(fixed);
    const PickleValue list = again.root().Find("annotations");
    ASSERT_EQ(list.size(), 4U);
    for (size_t i = 0; i < list.size(); ++i) {
      EXPECT_EQ(list[i].Find("label").AsInt("label"),
                pickle.root().Find("annotations")[i].Find("label").AsInt("label") - 1);
    }
    std::filesystem::remove(fixed);
  }
}

TEST(Cases, SplitsByPositionAreFixedToIds) {
  const std::string path = std::string(KINEFIT_SHARED) + "/cases/split_by_index.pkl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "NOT CHECKED: " << path << " is absent";
  const Pickle pickle = Pickle::Load(path);
  const CheckPlan plan = PlanCheck(pickle, path, "", "");
  const CheckResult result = CheckDataset(pickle, plan);
  ASSERT_EQ(result.splits.size(), 2U);
  EXPECT_EQ(result.splits[1].clips, (std::vector<int64_t>{2, 3}));
  const std::string fixed = ::testing::TempDir() + "/split_by_index_fixed.pkl";
  CleanAnnotations(pickle, plan, result, fixed);
  const Pickle again = Pickle::Load(fixed);
  EXPECT_EQ(again.root().Find("split").Find("val")[0].AsString("id"), "a2");
  std::filesystem::remove(fixed);
}
#endif

}  // namespace
}  // namespace kinefit
