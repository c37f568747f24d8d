#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "config/load.h"
#include "convert/error_of_test.h"
#include "convert/ntu_files_test.h"
#include "convert/ntu_performers.h"
#include "convert/ntu_sample.h"
#include "convert/ntu_set.h"
#include "dataset/annotations.h"
#include "files/error.h"
#include "files/publish.h"
#include "files/python_test.h"
#include "video/numbered_video.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

// Which performers each setup has: from the names of the 56,880 samples of NTU RGB+D 60, each
// performer in front of three cameras, twice, with all sixty actions.
const std::vector<std::vector<int>>& PerformersOfSetups() {
  static const std::vector<std::vector<int>> performers = {
      {1, 2, 3, 4, 5, 6, 7, 8},
      {3, 7, 8, 9, 10, 11, 12, 13, 14},
      {1, 2, 7, 8, 15, 16, 17, 18, 19},
      {3, 7, 8, 20},
      {4, 10, 13, 15, 16, 17, 18, 21},
      {1, 7, 8, 15, 16, 17, 19, 22, 23, 24},
      {1, 7, 8, 15, 16, 17, 18, 19, 25, 26, 27, 28},
      {1, 7, 8, 15, 19, 25, 29, 30, 31, 32, 33, 34, 35, 36},
      {7, 8, 15, 16, 17, 19, 25},
      {7, 8, 13, 15, 16, 17, 18, 19, 21, 25},
      {1, 2, 7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 38},
      {7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37},
      {7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37},
      {7, 8, 15, 17, 19, 25, 27, 37, 39},
      {7, 8, 15, 16, 17, 19, 25, 37},
      {7, 8, 19, 21, 25, 39, 40},
      {3, 7, 8, 9, 15, 16, 17, 20},
  };
  return performers;
}

std::string Name(int setup, int camera, int performer, int replication, int action) {
  char text[32];
  std::snprintf(text, sizeof(text), "S%03dC%03dP%03dR%03dA%03d", setup, camera, performer,
                replication, action);
  return text;
}

TEST(NtuSample, TheSplitsOfTheWholeSetAreThoseOfThePapers) {
  int64_t all = 0;
  std::map<std::string, int64_t> counts;
  std::set<std::string> missing(NtuMissingSkeletons().begin(), NtuMissingSkeletons().end());
  for (int setup = 1; setup <= 17; ++setup) {
    for (const int performer : PerformersOfSetups()[static_cast<size_t>(setup - 1)]) {
      for (int camera = 1; camera <= 3; ++camera) {
        for (int replication = 1; replication <= 2; ++replication) {
          for (int action = 1; action <= 60; ++action) {
            const auto sample = ParseNtuName(Name(setup, camera, performer, replication, action));
            ASSERT_TRUE(sample && IsIn(*sample, NtuSet::k60));
            ++all;
            if (missing.erase(sample->name) > 0) continue;
            ++counts[TrainsCrossSubject(*sample, NtuSet::k60) ? "xsub_train" : "xsub_val"];
            ++counts[TrainsCrossView(*sample) ? "xview_train" : "xview_val"];
          }
        }
      }
    }
  }
  EXPECT_EQ(all, NtuSampleCount(NtuSet::k60));
  EXPECT_EQ(counts["xsub_train"], 40091);
  EXPECT_EQ(counts["xsub_val"], 16487);
  EXPECT_EQ(counts["xview_train"], 37646);
  EXPECT_EQ(counts["xview_val"], 18932);
  // What is left of the list of missing skeletons is of the later setups.
  EXPECT_EQ(missing.size(), 535U - 302U);
  for (const std::string& name : missing) EXPECT_GT(ParseNtuName(name)->setup, 17) << name;
  EXPECT_EQ(NtuUsableCount(NtuSet::k60), 56578);
  EXPECT_EQ(NtuUsableCount(NtuSet::k120), 113945);
}

TEST(NtuSample, RulesOf120) {
  int train = 0;
  for (int performer = 1; performer <= 106; ++performer) {
    train += TrainsCrossSubject(*ParseNtuName(Name(18, 1, performer, 1, 61)), NtuSet::k120) ? 1 : 0;
  }
  EXPECT_EQ(train, 53);
  EXPECT_TRUE(TrainsCrossSubject(*ParseNtuName("S001C001P103R001A001"), NtuSet::k120));
  EXPECT_FALSE(TrainsCrossSubject(*ParseNtuName("S001C001P103R001A001"), NtuSet::k60));
  EXPECT_TRUE(TrainsCrossSetup(*ParseNtuName("S032C001P103R001A120")));
  EXPECT_FALSE(TrainsCrossSetup(*ParseNtuName("S031C001P103R001A120")));
  EXPECT_FALSE(IsIn(*ParseNtuName("S018C001P008R001A061"), NtuSet::k60));
  const auto lines = [](std::string_view text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines(NtuClassNames(NtuSet::k60)), 60);
  EXPECT_EQ(lines(NtuClassNames(NtuSet::k120)), 120);
  EXPECT_EQ(NtuClassNames(NtuSet::k120).substr(0, NtuClassNames(NtuSet::k60).size()),
            NtuClassNames(NtuSet::k60));
}

TEST(NtuSample, OtherNamesAreNone) {
  for (const char* name :
       {"", "S001C001P001R001A00", "S001C001P001R001A0011", "S000C001P001R001A001",
        "S033C001P001R001A001", "S001C004P001R001A001", "S001C001P107R001A001",
        "S001C001P001R003A001", "S001C001P001R001A121", "S001C001P001R001Axyz",
        "s001c001p001r001a001", "S001P001C001R001A001", "S-01C001P001R001A001"}) {
    EXPECT_FALSE(ParseNtuName(name)) << name;
  }
}

TEST(NtuSkeleton, AllFieldsComeBack) {
  NtuBody body = StandingBody(72057594037931101, 0.5F, 0);
  body.clipped_edges = 4;
  body.hand_left_confidence = 1;
  body.hand_right_confidence = 0;
  body.hand_right_state = 3;
  body.is_restricted = 1;
  body.lean_y = -0.25F;
  body.joints[24].tracking_state = 1;
  const NtuRecording written =
      MakeRecording(3, [&](int i) { return std::vector<NtuBody>(static_cast<size_t>(i), body); });
  const NtuRecording read = ParseNtuSkeleton(WriteSkeleton(written), "a.skeleton");
  ASSERT_EQ(read.frames.size(), 3U);
  EXPECT_EQ(read.frames[0].size(), 0U);
  EXPECT_EQ(read.frames[2].size(), 2U);
  const NtuBody& back = read.frames[2][1];
  EXPECT_EQ(back.id, body.id);
  EXPECT_EQ(back.clipped_edges, 4);
  EXPECT_EQ(back.hand_left_confidence, 1);
  EXPECT_EQ(back.hand_left_state, 1);
  EXPECT_EQ(back.hand_right_state, 3);
  EXPECT_EQ(back.is_restricted, 1);
  EXPECT_FLOAT_EQ(back.lean_x, body.lean_x);
  EXPECT_FLOAT_EQ(back.lean_y, -0.25F);
  EXPECT_EQ(back.tracking_state, 2);
  for (size_t j = 0; j < 25; ++j) {
    EXPECT_NEAR(back.joints[j].x, body.joints[j].x, 1e-5);
    EXPECT_NEAR(back.joints[j].depth_y, body.joints[j].depth_y, 1e-3);
    EXPECT_NEAR(back.joints[j].color_x, body.joints[j].color_x, 1e-3);
    EXPECT_EQ(back.joints[j].orientation, body.joints[j].orientation);
    EXPECT_EQ(back.joints[j].tracking_state, body.joints[j].tracking_state);
  }
  // Windows ends lines otherwise.
  std::string windows;
  for (const char c : WriteSkeleton(written)) windows += c == '\n' ? "\r\n" : std::string(1, c);
  EXPECT_EQ(ParseNtuSkeleton(windows, "").frames.size(), 3U);
  EXPECT_EQ(ParseNtuSkeleton("\xEF\xBB\xBF" + windows, "").frames.size(), 3U);
}

TEST(NtuSkeleton, DamagedFilesNameTheLine) {
  const std::string whole = WriteSkeleton(
      MakeRecording(2, [](int) { return std::vector<NtuBody>{StandingBody(1, 0, 0)}; }));
  const auto refused = [](const std::string& text, const std::string& part) {
    EXPECT_HAS(ErrorOf([&] { ParseNtuSkeleton(text, "a.skeleton"); }), part);
    EXPECT_HAS(ErrorOf([&] { ParseNtuSkeleton(text, "a.skeleton"); }), "a.skeleton:");
  };
  EXPECT_NO_THROW(ParseNtuSkeleton(whole, ""));
  EXPECT_NO_THROW(ParseNtuSkeleton(whole + "\r\n \n", ""));
  // Wherever it is cut, this is noticed (the last line end alone may be missing).
  for (size_t size = 0; size + 2 < whole.size(); size += 7) {
    EXPECT_NE(ErrorOf([&] { ParseNtuSkeleton(whole.substr(0, size), "a"); }), "no error") << size;
  }
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    return text.replace(text.find(from), from.size(), to);
  };
  refused(whole.substr(0, whole.rfind('\n', whole.size() - 2) + 1),
          "ends where the joint of frame 2 should follow");
  refused("", "the file ends");
  refused("0\n", "no frames");
  refused("-3\n", "not 0 to");
  refused("99999999999999999999\n", "not a whole number");
  refused("2\n7\n", "number of bodies is 7");
  refused(with("25\n", "24\n"), "another number of joints");
  refused(with("25\n", "26\n"), "number of joints is 26");
  refused(with("0.9 0.1", "0.9"), "11 fields, not 12");
  refused(with("0.9 0.1", "0.9 x"), "not a number");
  EXPECT_NO_THROW(ParseNtuSkeleton(with(" 2\n", " 5\n"), ""));  // of a body, not of a joint
  refused(with("0.3 2\n", "0.3 5\n"), "tracking state is 5");
  refused(whole + "1\n", "more text");
  refused(std::string(3000, 'x'), "not a whole number");
  refused(std::string("2\n1\n\0\0\0\0", 8), "1 fields, not 10");
}

TEST(NtuPerformers, CoordinatesAndStates) {
  const NtuRecording recording = MakeRecording(5, [](int i) {
    if (i == 2) return std::vector<NtuBody>();  // nobody is seen: stays at its time
    NtuBody body = StandingBody(9, 0.1F * static_cast<float>(i), 0);
    body.joints[3].tracking_state = 1;
    body.joints[4].tracking_state = 0;
    body.joints[5].color_x = NAN;
    return std::vector<NtuBody>{body};
  });
  const NtuPerformers performers = ChoosePerformers(recording);
  const Pose& pose = performers.pose;
  EXPECT_EQ(pose.persons, 1);
  EXPECT_EQ(pose.frames, 5);
  EXPECT_EQ(pose.joints, 25);
  const NtuJoint& joint = recording.frames[4][0].joints[7];
  EXPECT_EQ(pose.xy[2 * (4 * 25 + 7)], joint.color_x);
  EXPECT_EQ(pose.xy[2 * (4 * 25 + 7) + 1], joint.color_y);
  EXPECT_EQ(pose.score[4 * 25 + 7], 1);
  EXPECT_EQ(pose.score[4 * 25 + 3], 0.5F);
  EXPECT_EQ(pose.score[4 * 25 + 4], 0);
  EXPECT_EQ(pose.score[4 * 25 + 5], 0);
  EXPECT_EQ(pose.xy[2 * (4 * 25 + 5) + 1], 0);
  EXPECT_EQ(performers.lost_joints, 4);
  for (size_t i = 2 * 25; i < 3 * 25; ++i) {
    EXPECT_EQ(pose.xy[2 * i], 0);
    EXPECT_EQ(pose.score[i], 0);
  }
}

// A table: wider than high, and it "moves" most.
NtuBody Table(int64_t id, float shift) {
  NtuBody body = StandingBody(id, 0, 0);
  for (NtuJoint& joint : body.joints) {
    std::swap(joint.x, joint.y);
    joint.x += shift;
  }
  return body;
}

TEST(NtuPerformers, NoiseGoesAndMotionDecides) {
  const NtuRecording recording = MakeRecording(40, [](int i) {
    const auto t = static_cast<float>(i);
    std::vector<NtuBody> bodies = {Table(1, 0.2F * t), StandingBody(2, 0.01F * t, 0),
                                   StandingBody(3, 0.1F * t, 0), StandingBody(4, -1, 0)};
    if (i < 11) bodies.push_back(StandingBody(5, -0.5F * t, 0));  // too short to count
    return bodies;
  });
  const NtuPerformers performers = ChoosePerformers(recording);
  EXPECT_EQ(performers.bodies, 5);
  const Pose& pose = performers.pose;
  ASSERT_EQ(pose.persons, 2);
  // The one who moves most comes first: body 3; then 2; the still 4 is left over.
  for (const int i : {0, 10, 39}) {
    const auto frame = static_cast<size_t>(i);
    EXPECT_EQ(pose.xy[2 * 25 * frame], recording.frames[frame][2].joints[0].color_x);
    EXPECT_EQ(pose.xy[2 * 25 * (40 + frame)], recording.frames[frame][1].joints[0].color_x);
  }
}

TEST(NtuPerformers, BodiesThatFollowEachOtherShareAPlace) {
  // Tracking is lost in the middle and goes on with another id, beside a second performer.
  const NtuRecording recording = MakeRecording(40, [](int i) {
    const auto t = static_cast<float>(i);
    std::vector<NtuBody> bodies = {StandingBody(7, 1 + 0.02F * t, 0)};
    if (i < 18) bodies.push_back(StandingBody(1, -0.2F * t, 0));
    if (i >= 22) bodies.push_back(StandingBody(2, -0.19F * t, 0));
    return bodies;
  });
  const Pose pose = ChoosePerformers(recording).pose;
  ASSERT_EQ(pose.persons, 2);
  EXPECT_EQ(pose.xy[2 * 25 * 5], recording.frames[5][1].joints[0].color_x);
  EXPECT_EQ(pose.xy[2 * 25 * 30], recording.frames[30][1].joints[0].color_x);
  EXPECT_EQ(pose.score[25 * 20], 0);  // nobody in between: not moved together
  EXPECT_EQ(pose.xy[2 * 25 * (40 + 20)], recording.frames[20][0].joints[0].color_x);
}

TEST(NtuPerformers, SmallCases) {
  const NtuRecording none = MakeRecording(3, [](int) { return std::vector<NtuBody>(); });
  EXPECT_HAS(ErrorOf([&] { ChoosePerformers(none); }), "no body in any frame");
  // Nothing but short appearances: they are kept.
  const NtuRecording brief = MakeRecording(6, [](int i) {
    return std::vector<NtuBody>{StandingBody(i < 3 ? 1 : 2, 0.1F * static_cast<float>(i), 0)};
  });
  const Pose pose = ChoosePerformers(brief).pose;
  EXPECT_EQ(pose.persons, 1);
  EXPECT_EQ(pose.score[0], 1);
  EXPECT_EQ(pose.score[5 * 25], 1);
  // The same id twice in a frame counts once.
  const NtuRecording twice = MakeRecording(20, [](int) {
    return std::vector<NtuBody>{StandingBody(1, 0, 0), StandingBody(1, 1, 0)};
  });
  EXPECT_EQ(ChoosePerformers(twice).pose.persons, 1);
}

// A small set on disk in the official arrangement.
class NtuFolder : public ::testing::Test {
 protected:
  NtuFolder() {
    fs::create_directories(folder_.File("skeletons/s001"));
    fs::create_directories(folder_.File("rgb"));
    options_.skeletons = folder_.File("skeletons");
    options_.rgb = folder_.File("rgb");
    options_.out = folder_.File("out");
    options_.threads = 2;
    options_.max_bad_share = 0.5;
  }

  void AddSample(const std::string& name, int frames, int video_frames) {
    const auto label = static_cast<float>(ParseNtuName(name)->action);
    const NtuRecording recording = MakeRecording(frames, [&](int i) {
      return std::vector<NtuBody>{StandingBody(1, 0.01F * label * static_cast<float>(i), 0)};
    });
    folder_.Write("skeletons/s001/" + name + ".skeleton", WriteSkeleton(recording));
    if (video_frames > 0) AddVideo(name, video_frames);
  }

  // 128x72: 1920x1080 scaled.
  void AddVideo(const std::string& name, int frames) {
    VideoWriter writer(folder_.File("rgb/video.mp4"), 128, 72, 30);
    for (int i = 0; i < frames; ++i) writer.Write(cv::Mat(72, 128, CV_8UC3, cv::Scalar(i, 9, 9)));
    writer.Finish();
    fs::rename(folder_.File("rgb/video.mp4"), folder_.File("rgb/" + name + "_rgb.avi"));
  }

  // Train and test subjects, all cameras, two actions.
  void AddSmallSet() {
    for (const char* name : {"S001C001P001R001A001", "S001C002P001R001A001", "S001C001P003R001A001",
                             "S001C003P003R002A060"}) {
      AddSample(name, 12, 12);
    }
  }

  Config SetConfig(const std::string& type) const {
    return LoadConfig(options_.out + "/ntu60.toml", {"model.type=" + type}).config;
  }

  TestFolder folder_;
  NtuOptions options_;
};

TEST_F(NtuFolder, GivesASetThatAConfigurationUsesAtOnce) {
  AddSmallSet();
  AddSample("S001C002P005R002A008", 12, 12);  // listed as incomplete
  AddSample("S002C001P003R001A002", 12, 0);   // no video
  AddSample("S018C001P008R001A061", 12, 12);  // of the 120
  AddVideo("S003C001P001R001A001", 3);        // no skeleton
  folder_.Write("skeletons/readme.txt", "not a skeleton");
  const ConversionReport report = ConvertNtu(options_);
  EXPECT_EQ(report.clips, 4);
  EXPECT_EQ(report.left_out.size(), 0U);
  std::string remarks;
  for (const std::string& remark : report.remarks) remarks += remark + "\n";
  EXPECT_HAS(remarks, "1 skeletons are of NTU RGB+D 120 only");
  EXPECT_HAS(remarks, "1 skeletons are left out because their authors list them");
  EXPECT_HAS(remarks, "1 skeletons are left out because they have no video");
  EXPECT_HAS(remarks, "1 videos have no skeleton");
  EXPECT_HAS(remarks, "4 of the set's 56578");

  const Config config = SetConfig("rgbpose");
  EXPECT_EQ(config.model.pose.in_channels, 25);
  EXPECT_EQ(config.model.num_classes, 60);
  const Dataset train = LoadDataset(config, config.data.train_split);
  ASSERT_EQ(train.samples.size(), 2U);
  EXPECT_EQ(train.class_names[59], "walking apart from each other");
  const Sample& sample = train.samples[1];
  EXPECT_EQ(sample.id, "S001C002P001R001A001");
  EXPECT_EQ(sample.video, options_.rgb + "/S001C002P001R001A001_rgb.avi");
  EXPECT_TRUE(fs::exists(sample.video));
  EXPECT_EQ(sample.width, 1920);
  EXPECT_EQ(sample.height, 1080);
  EXPECT_EQ(sample.pose.frames, 12);
  EXPECT_NEAR(sample.pose.xy[0], 960 + 500 * -0.2, 0.5);  // float16
  EXPECT_EQ(LoadDataset(config, "xsub_val").samples.size(), 2U);
  EXPECT_EQ(LoadDataset(config, "xview_train").samples.size(), 2U);
  const Dataset view = LoadDataset(config, "xview_val");
  ASSERT_EQ(view.samples.size(), 2U);
  EXPECT_EQ(view.samples[1].id, "S001C001P003R001A001");
  EXPECT_EQ(LoadDataset(config, "").samples[3].label, 59);
}

TEST_F(NtuFolder, WithoutVideosForPoseNetworks) {
  AddSample("S018C001P008R001A061", 12, 0);
  AddSample("S018C001P106R002A120", 12, 0);
  options_.rgb = "";
  EXPECT_HAS(ErrorOf([&] { ConvertNtu(options_); }), "none of the 2 skeletons");
  options_.set = NtuSet::k120;
  EXPECT_EQ(ConvertNtu(options_).clips, 2);
  const Config config = LoadConfig(options_.out + "/ntu120.toml", {"model.type=pose"}).config;
  EXPECT_EQ(LoadDataset(config, "xset_train").samples.size(), 2U);
  EXPECT_EQ(LoadDataset(config, "xsub_train").samples.size(), 1U);
  EXPECT_EQ(LoadDataset(config, "xsub_val").samples.size(), 1U);
}

TEST_F(NtuFolder, BadSamplesAreNamedAndTooManyAreFatal) {
  AddSmallSet();
  AddSample("S001C001P001R001A002", 12, 11);  // the video ends a little early
  AddSample("S001C001P001R001A003", 12, 3);   // much too early
  AddSample("S001C001P001R001A004", 12, 12);
  const std::string cut = folder_.File("skeletons/s001/S001C001P001R001A004.skeleton");
  fs::resize_file(cut, fs::file_size(cut) / 2);
  AddSample("S001C001P001R001A005", 12, 12);
  folder_.Write("rgb/S001C001P001R001A005_rgb.avi", "garbage");
  AddSample("S001C001P001R001A006", 12, 12);
  folder_.Write("skeletons/s001/S001C001P001R001A006.skeleton", "2\n0\n0\n");
  const ConversionReport report = ConvertNtu(options_);
  EXPECT_EQ(report.clips, 5);
  ASSERT_EQ(report.changed.size(), 1U);
  EXPECT_EQ(report.changed[0].id, "S001C001P001R001A002");
  EXPECT_HAS(report.changed[0].text, "last 1 frames are cut");
  ASSERT_EQ(report.left_out.size(), 4U);
  EXPECT_HAS(report.left_out[0].text, "only 3 frames, the skeleton 12");
  EXPECT_HAS(report.left_out[1].text, "fields, not 12");
  EXPECT_HAS(report.left_out[2].text, "S001C001P001R001A005_rgb.avi");
  EXPECT_HAS(report.left_out[3].text, "no body in any frame");
  const std::string json = ReadFile(options_.out + "/report.json");
  EXPECT_HAS(json, "S001C001P001R001A006");
  const Dataset all = LoadDataset(SetConfig("rgbpose"), "");
  ASSERT_EQ(all.samples.size(), 5U);
  EXPECT_EQ(all.samples[1].total_frames, 11);

  fs::remove(options_.out + "/annotations.pkl");
  options_.max_bad_share = 0.01;
  const std::string error = ErrorOf([&] { ConvertNtu(options_); });
  EXPECT_HAS(error, "4 of 9 clips cannot be used");
  EXPECT_HAS(error, "report.json");
  EXPECT_FALSE(fs::exists(options_.out + "/annotations.pkl"));
}

TEST_F(NtuFolder, ContinuesAndIsTheSameForAnyNumberOfThreads) {
  AddSmallSet();
  AddSample("S002C001P003R001A001", 20, 20);
  ConvertNtu(options_);
  const std::string whole = ReadFile(options_.out + "/annotations.pkl");
  const std::string part = options_.out + "/.parts/S002C001P003R001.zip";
  const auto made = fs::last_write_time(part);

  // Once more: everything is there, and nothing is made again.
  for (const int threads : {1, 3}) {
    options_.threads = threads;
    ConvertNtu(options_);
    EXPECT_EQ(ReadFile(options_.out + "/annotations.pkl"), whole);
    EXPECT_EQ(fs::last_write_time(part), made);
  }
  // From nothing, with other threads.
  NtuOptions fresh = options_;
  fresh.out = folder_.File("fresh");
  fresh.threads = 1;
  ConvertNtu(fresh);
  EXPECT_EQ(ReadFile(fresh.out + "/annotations.pkl"), whole);
  EXPECT_EQ(ReadFile(fresh.out + "/report.json"), ReadFile(options_.out + "/report.json"));

  // A damaged piece is made again; a changed or added file is noticed.
  const std::string bytes = ReadFile(part);
  for (const size_t keep : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
    folder_.Write("out/.parts/S002C001P003R001.zip", bytes.substr(0, keep));
    ConvertNtu(options_);
    EXPECT_EQ(ReadFile(options_.out + "/annotations.pkl"), whole);
  }
  std::string flipped = bytes;
  flipped[bytes.size() / 2] = static_cast<char>(flipped[bytes.size() / 2] ^ 1);
  folder_.Write("out/.parts/S002C001P003R001.zip", flipped);
  ConvertNtu(options_);
  EXPECT_EQ(ReadFile(options_.out + "/annotations.pkl"), whole);
  AddSample("S002C001P003R001A001", 18, 20);
  AddSample("S002C001P003R001A002", 12, 12);
  EXPECT_EQ(ConvertNtu(options_).clips, 6);
  EXPECT_EQ(LoadDataset(SetConfig("rgb"), "").samples[4].total_frames, 18);
}

TEST_F(NtuFolder, PythonReadsWhatIsWritten) {
  SKIP_WITHOUT_PYTHON("numpy");
  AddSmallSet();
  ConvertNtu(options_);
  RunPython(
      "import pickle, numpy\n"
      "s = pickle.load(open('" +
      options_.out +
      "/annotations.pkl', 'rb'))\n"
      "assert sorted(s['split']) == ['xsub_train', 'xsub_val', 'xview_train', 'xview_val']\n"
      "a = s['annotations'][0]\n"
      "assert a['frame_dir'] == 'S001C001P001R001A001' and a['label'] == 0\n"
      "assert a['img_shape'] == (1080, 1920) and a['total_frames'] == 12\n"
      "assert a['keypoint'].shape == (1, 12, 25, 2) and a['keypoint'].dtype == numpy.float16\n"
      "assert a['keypoint_score'].shape == (1, 12, 25) and (a['keypoint_score'] == 1).all()\n");
}

// ntu60_2d.pkl and ntu60_hrnet.pkl as mmaction2 and pyskl publish them, the same keys and types,
// written by Python, with the configuration that is shipped for them.
TEST_F(NtuFolder, PicklesOfMmaction2AndPysklWorkAsTheyAre) {
  SKIP_WITHOUT_PYTHON("numpy");
  const std::string path = folder_.File("ntu60_2d.pkl");
  RunPython(
      "import pickle, numpy as np\n"
      "def clip(name, label, persons, frames):\n"
      "  shape = (persons, frames, 17)\n"
      "  return dict(frame_dir=name, label=label, img_shape=(1080, 1920),\n"
      "    original_shape=(1080, 1920), total_frames=frames,\n"
      "    keypoint=np.full(shape + (2,), 812.5, np.float16),\n"
      "    keypoint_score=np.full(shape, 0.75, np.float16))\n"
      "names = ['S001C001P001R001A001', 'S001C002P003R002A060']\n"
      "pickle.dump(dict(split=dict(xsub_train=names[:1], xsub_val=names[1:], "
      "xview_train=names[1:],\n"
      "  xview_val=names[:1]), annotations=[clip(names[0], 0, 1, 103), clip(names[1], 59, 2, "
      "81)]),\n"
      "  open('" +
      path + "', 'wb'), protocol=4)\n");
  for (const std::string type : {"rgbpose", "pose"}) {
    const Config config =
        LoadConfig(std::string(KINEFIT_SOURCE) + "/configs/include/ntu60.toml",
                   {"model.type=" + type, "data.annotations=" + path,
                    "data.classes=", "data.videos=/videos", "data.video_suffix=_rgb.avi"})
            .config;
    const Dataset train = LoadDataset(config, config.data.train_split);
    const Dataset val = LoadDataset(config, config.data.val_split);
    ASSERT_EQ(train.samples.size(), 1U);
    ASSERT_EQ(val.samples.size(), 1U);
    EXPECT_EQ(train.rejected.size() + val.rejected.size(), 0U);
    EXPECT_EQ(train.samples[0].pose.frames, 103);
    EXPECT_EQ(val.samples[0].pose.persons, 2);
    EXPECT_EQ(val.samples[0].label, 59);
    EXPECT_EQ(val.samples[0].pose.xy[0], 812.5F);
    EXPECT_EQ(val.samples[0].pose.score[0], 0.75F);
    EXPECT_EQ(val.samples[0].video, type == "pose" ? "" : "/videos/S001C002P003R002A060_rgb.avi");
  }
}

}  // namespace
}  // namespace kinefit
