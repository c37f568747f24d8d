#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <set>

#include "config/load.h"
#include "convert/detected_poses.h"
#include "convert/error_of_test.h"
#include "convert/import_set.h"
#include "convert/keypoint_json.h"
#include "convert/manifest.h"
#include "convert/pose_source.h"
#include "dataset/annotations.h"
#include "files/error.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/python_test.h"
#include "video/numbered_video.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

// Two joints at (x, y) and (x + 10, y + 20).
Detection TwoJoints(int64_t frame, float x, float y, float score, int64_t track = -1) {
  Detection detection;
  detection.frame = frame;
  detection.track = track;
  detection.score = score;
  detection.xy = {x, y, x + 10, y + 20};
  detection.joint_score = {0.5F, 1.0F};
  return detection;
}

TEST(KeypointJson, AlphaPose) {
  const DetectedPoses poses = ParseKeypointJson(
      R"([{"image_id": "2.jpg", "category_id": 1, "keypoints": [1, 2, 0.5, 3, 4, 1.5],
           "score": 2.5, "idx": [7.0]},
          {"image_id": "0.jpg", "category_id": 1, "keypoints": [5, 6, -0.5, 7, 8, 1], "idx": 3},
          {"image_id": "0.jpg", "category_id": 18, "keypoints": [5, 6, 1, 7, 8, 1]}])",
      0, "a.json");
  EXPECT_EQ(poses.joints, 2);
  EXPECT_EQ(poses.frames, 3);
  ASSERT_EQ(poses.detections.size(), 2U);  // the dog is none
  EXPECT_EQ(poses.detections[0].frame, 2);
  EXPECT_EQ(poses.detections[0].track, 7);
  EXPECT_EQ(poses.detections[0].score, 2.5F);
  EXPECT_EQ(poses.detections[0].xy, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(poses.detections[0].joint_score, (std::vector<float>{0.5F, 1}));
  EXPECT_EQ(poses.detections[1].track, 3);
  EXPECT_EQ(poses.detections[1].joint_score[0], 0);
}

TEST(KeypointJson, CocoAnnotations) {
  const DetectedPoses poses = ParseKeypointJson(
      R"({"images": [{"id": 70, "file_name": "day/000004.jpg"}, {"id": 71, "file_name": "5.png"}],
          "annotations": [{"id": 1, "image_id": 71, "category_id": 1, "track_id": 2,
                           "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]},
                          {"id": 2, "image_id": 70, "bbox": [1, 2, 3, 4]}]})",
      1, "a.json");
  ASSERT_EQ(poses.detections.size(), 1U);
  EXPECT_EQ(poses.detections[0].frame, 4);  // its numbers begin at 1
  EXPECT_EQ(poses.detections[0].track, 2);
  EXPECT_EQ(poses.detections[0].joint_score, (std::vector<float>{1, 0.5F, 0}));
}

TEST(KeypointJson, MmposeInstances) {
  const std::string frames =
      R"([{"frame_id": 1, "instances": [{"keypoints": [[1, 2], [3, 4]], "keypoint_scores": [0.25,
           0.75], "bbox_score": 0.9}]}, {"frame_id": 3, "instances": []}])";
  for (const std::string& text :
       {frames, "{\"meta_info\": {}, \"instance_info\": " + frames + "}"}) {
    const DetectedPoses poses = ParseKeypointJson(text, 1, "a.json");
    EXPECT_EQ(poses.frames, 3);  // the last without anybody counts
    ASSERT_EQ(poses.detections.size(), 1U);
    EXPECT_EQ(poses.detections[0].frame, 0);
    EXPECT_FLOAT_EQ(poses.detections[0].score, 0.9F);
    EXPECT_EQ(poses.detections[0].xy, (std::vector<float>{1, 2, 3, 4}));
  }
}

TEST(KeypointJson, OpenPose) {
  DetectedPoses poses;
  AddOpenPoseFrame(R"({"version": 1.3, "people": [
      {"person_id": [-1], "pose_keypoints_2d": [1, 2, 0.5, 0, 0, 0], "face_keypoints_2d": []},
      {"person_id": [4], "pose_keypoints_2d": [3, 4, 1, 5, 6, 1]}, {"pose_keypoints_2d": []}]})",
                   6, "f", &poses);
  AddOpenPoseFrame(R"({"people": []})", 7, "f", &poses);
  EXPECT_EQ(poses.frames, 8);
  ASSERT_EQ(poses.detections.size(), 2U);
  EXPECT_EQ(poses.detections[0].track, -1);
  EXPECT_EQ(poses.detections[1].track, 4);
  EXPECT_EQ(poses.detections[1].frame, 6);
  EXPECT_FLOAT_EQ(poses.detections[0].score, 0.25F);
  EXPECT_HAS(ErrorOf([&] { AddOpenPoseFrame("[]", 0, "f", &poses); }), "no people");
  EXPECT_HAS(ErrorOf([&] {
               AddOpenPoseFrame(R"({"people": [{"pose_keypoints_2d": [1, 2, 3]}]})", 0, "f",
                                &poses);
             }),
             "others have 2");
}

TEST(KeypointJson, OtherThingsAreRefused) {
  const auto refused = [](const std::string& text, const std::string& part) {
    const std::string error = ErrorOf([&] { ParseKeypointJson(text, 0, "a.json"); });
    EXPECT_HAS(error, part);
    EXPECT_HAS(error, "a.json");
  };
  EXPECT_TRUE(ParseKeypointJson("[]", 0, "").detections.empty());
  refused("", "not JSON");
  refused("[{\"image_id\": NaN}]", "not JSON (byte 15)");
  refused("[1e999]", "beyond all bounds");
  refused("{}", "no list of poses");
  refused("3", "no list of poses");
  refused("[3]", "neither image_id nor instances");
  refused(R"([{"image_id": "walk.jpg", "keypoints": [1, 2, 3]}])", "which frame");
  refused(R"([{"image_id": -1, "keypoints": [1, 2, 3]}])", "which frame");
  refused(R"([{"image_id": 1e300, "keypoints": [1, 2, 3]}])", "which frame");
  refused(R"([{"image_id": 99999999999, "keypoints": [1, 2, 3]}])", "which frame");
  refused(R"([{"image_id": 0, "keypoints": [1, 2]}])", "x, y, score");
  refused(R"([{"image_id": 0, "keypoints": [1, 2, "3"]}])", "no number");
  refused(R"([{"image_id": 0}])", "x, y, score");
  refused(R"([{"frame_id": 0, "instances": [{"keypoints": [[1, 2]], "keypoint_scores": []}]}])",
          "as many keypoint_scores");
  refused(R"([{"frame_id": 0, "instances": [{"keypoints": [[1]]}]}])", "not [x, y]");
  refused(R"({"images": [{"id": 1, "file_name": "1.jpg"}],
              "annotations": [{"image_id": 2, "keypoints": [1, 2, 2]}]})",
          "image 2, which is not listed");
  EXPECT_HAS(ErrorOf([&] {
               ParseKeypointJson(R"([{"image_id": 0, "keypoints": [1, 2, 1]}])", 1, "a.json");
             }),
             "--first-image");
  // Deep nesting and absurd coordinates do no harm.
  refused(std::string(100000, '['), "not JSON");
  const DetectedPoses far =
      ParseKeypointJson(R"([{"image_id": 0, "keypoints": [1e30, 2, 1, 3, 4, 1]}])", 0, "");
  EXPECT_EQ(far.detections[0].xy, (std::vector<float>{0, 0, 3, 4}));
  EXPECT_EQ(far.detections[0].joint_score, (std::vector<float>{0, 1}));
}

TEST(KeypointJson, NumbersInNames) {
  EXPECT_EQ(NumberInName("12.jpg"), 12);
  EXPECT_EQ(NumberInName("frames/clip2_000012.jpg"), 12);
  EXPECT_EQ(NumberInName("clip_000000000007_keypoints.json"), 7);
  EXPECT_EQ(NumberInName("00031"), 31);
  EXPECT_EQ(NumberInName("walk.mp4"), -1);  // the 4 is the ending's
  EXPECT_EQ(NumberInName(""), -1);
  EXPECT_EQ(NumberInName("1234567890123456"), -1);
}

TEST(DetectedPoses, PersonsAreFollowedByOverlap) {
  DetectedPoses poses;
  // Two people pass through the picture; the detector names them in changing order, and the second
  // is lost for two frames.
  for (int i = 0; i < 12; ++i) {
    const auto t = static_cast<float>(i);
    const Detection left = TwoJoints(i, 10 + t, 50, 0.9F);
    const Detection right = TwoJoints(i, 200 - t, 80, 0.6F);
    const bool lost = i == 5 || i == 6;
    if (i % 2 == 0) AddDetection(left, "", &poses);
    if (!lost) AddDetection(right, "", &poses);
    if (i % 2 == 1) AddDetection(left, "", &poses);
  }
  FollowTracks(&poses);
  const Pose pose = PersonsOf(poses, 0, 12, 2);
  ASSERT_EQ(pose.persons, 2);
  for (size_t i = 0; i < 12; ++i) {
    const auto t = static_cast<float>(i);
    EXPECT_EQ(pose.xy[4 * i], 10 + t);
    const bool lost = i == 5 || i == 6;
    EXPECT_EQ(pose.xy[4 * (12 + i)], lost ? 0 : 200 - t);
    EXPECT_EQ(pose.score[2 * (12 + i) + 1], lost ? 0 : 1);
  }
  EXPECT_EQ(PersonsOf(poses, 0, 12, 1).persons, 1);
  // A segment counts from its own first frame.
  const Pose segment = PersonsOf(poses, 4, 3, 2);
  EXPECT_EQ(segment.frames, 3);
  EXPECT_EQ(segment.xy[0], 14);
}

TEST(DetectedPoses, TracksFillPlacesByTheirScores) {
  DetectedPoses poses;
  for (int i = 0; i < 10; ++i) {
    AddDetection(TwoJoints(i, 1, 1, 0.3F, 5), "", &poses);  // in the background, always
    AddDetection(TwoJoints(i, 100, 1, 0.9F, i < 4 ? 1 : 2), "", &poses);  // lost, found again
    if (i == 8) AddDetection(TwoJoints(i, 50, 1, 0.2F, 9), "", &poses);
  }
  FollowTracks(&poses);
  const Pose one = PersonsOf(poses, 0, 10, 1);
  ASSERT_EQ(one.persons, 1);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(one.xy[4 * i], 100) << i;
  EXPECT_EQ(PersonsOf(poses, 0, 10, 5).persons, 3);
  // Nobody at all: zeros for one person.
  DetectedPoses late;
  AddDetection(TwoJoints(90, 1, 1, 1), "", &late);
  FollowTracks(&late);
  const Pose nobody = PersonsOf(late, 0, 3, 2);
  EXPECT_EQ(nobody.persons, 1);
  EXPECT_EQ(nobody.score, std::vector<float>(6, 0.0F));
}

TEST(Manifest, Csv) {
  const std::vector<ManifestEntry> entries = ParseManifestCsv(
      "\xef\xbb\xbfpath,label,start,end,split,pose\r\n"
      "a.mp4,walk,,,train,\r\n"
      "\r\n"
      "\"b, long.mp4\",\"say \"\"hi\"\"\",1.5,3,test,b.json",
      "m.csv");
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].path, "a.mp4");
  EXPECT_FALSE(entries[0].start);
  EXPECT_EQ(entries[0].where, "m.csv:2");
  EXPECT_EQ(entries[1].path, "b, long.mp4");
  EXPECT_EQ(entries[1].label, "say \"hi\"");
  EXPECT_EQ(*entries[1].start, 1.5);
  EXPECT_EQ(*entries[1].end, 3);
  EXPECT_EQ(entries[1].split, "test");
  EXPECT_EQ(entries[1].pose, "b.json");
  EXPECT_EQ(entries[1].where, "m.csv:4");
}

TEST(Manifest, Json) {
  const std::string list =
      R"([{"path": "a.mp4", "label": 3, "start_frame": 10, "end_frame": 20, "split": null}])";
  for (const std::string& text : {list, "{\"clips\": " + list + "}"}) {
    const std::vector<ManifestEntry> entries = ParseManifestJson(text, "m.json");
    ASSERT_EQ(entries.size(), 1U);
    EXPECT_EQ(entries[0].label, "3");
    EXPECT_EQ(*entries[0].start_frame, 10);
    EXPECT_EQ(*entries[0].end_frame, 20);
  }
}

TEST(DetectedPoses, ScoresThatCannotBeAreRefused) {
  DetectedPoses poses;
  Detection detection;
  detection.xy = {1, 2};
  detection.joint_score = {1.3F};
  AddDetection(detection, "x.json", &poses);
  for (const float score : {87.0F, -2.0F}) {
    detection.joint_score = {score};
    EXPECT_HAS(ErrorOf([&] { AddDetection(detection, "x.json", &poses); }),
               "scores run from 0 to 1");
  }
}

TEST(Manifest, AByteOrderMarkIsPassedOver) {
  EXPECT_EQ(ParseManifestCsv("\xEF\xBB\xBFpath,label\na.mp4,walk\n", "m.csv")[0].path, "a.mp4");
  const std::string json = "\xEF\xBB\xBF[{\"path\": \"a.mp4\", \"label\": \"walk\"}]";
  EXPECT_EQ(ParseManifestJson(json, "m.json")[0].label, "walk");
  EXPECT_HAS(ErrorOf([&] { ParseManifestCsv("\xFF\xFEp", "m.csv"); }), "UTF-16");
  EXPECT_HAS(ErrorOf([&] { ParseManifestJson("\xFF\xFE[", "m.json"); }), "UTF-16");
}

TEST(Manifest, MistakesNameTheLine) {
  const auto csv = [](const std::string& text, const std::string& part) {
    EXPECT_HAS(ErrorOf([&] { ParseManifestCsv(text, "m.csv"); }), part);
    EXPECT_HAS(ErrorOf([&] { ParseManifestCsv(text, "m.csv"); }), "m.csv");
  };
  csv("", "empty");
  csv("path,label\n", "no clips");
  csv("path,lable\n", "did you mean \"label\"?");
  csv("path,path\n", "twice");
  csv("path,label\na.mp4\n", "m.csv:2");
  csv("path,label\na.mp4,walk,now\n", "3 fields");
  csv("path,label\n,walk\n", "no path");
  csv("path,label\na.mp4,\n", "no label");
  csv("path,label\n\"a.mp4,walk\n", "does not end");
  csv("path,label,start\na.mp4,walk,soon\n", "start is \"soon\"");
  csv("path,label,start\na.mp4,walk,-1\n", "start is \"-1\"");
  csv("path,label,start\na.mp4,walk,nan\n", "start is \"nan\"");
  csv("path,label,start_frame\na.mp4,walk,1.5\n", "whole numbers");
  csv("path,label,start,end\na.mp4,walk,3,2\n", "ends before it begins");
  csv("path,label,start,end_frame\na.mp4,walk,3,200\n", "in seconds and in frames");
  const auto json = [](const std::string& text, const std::string& part) {
    EXPECT_HAS(ErrorOf([&] { ParseManifestJson(text, "m.json"); }), part);
  };
  json("{", "not JSON");
  json("[{\"path\": 1e999}]", "beyond all bounds");
  json("{}", "list of clips");
  json("[]", "no clips");
  json("[3]", "not an object");
  json(R"([{"path": "a", "label": "b", "begin": 3}])", "no \"begin\"");
  json(R"([{"path": ["a"], "label": "b"}])", "neither text nor a number");
  json(R"([{"path": "a\u0000", "label": "b"}])", "zero byte");
}

// Real videos with real pose files of every kind.
class ImportFolder : public ::testing::Test {
 protected:
  ImportFolder() {
    options_.source = folder_.File("src");
    options_.out = folder_.File("out");
    options_.threads = 2;
    fs::create_directories(options_.source);
  }

  void AddVideo(const std::string& name, int frames, double fps = 25) {
    const std::string path = folder_.File("src/" + name);
    fs::create_directories(fs::path(path).parent_path());
    WriteNumberedVideo(path, frames, fps);
  }
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(folder_.File("src/" + name)).parent_path());
    folder_.Write("src/" + name, text);
  }
  // AlphaPose's results: 17 joints at (10 + frame, 20 + joint), in the frames [first, end).
  static std::string AlphaPose(int first, int end, const std::string& more = "") {
    std::string text = "[";
    for (int i = first; i < end; ++i) {
      text += std::string(i > first ? "," : "") + "{\"image_id\": \"" + std::to_string(i) +
              ".jpg\", \"category_id\": 1, \"score\": 3.0, \"keypoints\": [";
      for (int j = 0; j < 17; ++j) {
        text += (j > 0 ? "," : "") + std::to_string(10 + i) + "," + std::to_string(20 + j) + ",0.5";
      }
      text += "]" + more + "}";
    }
    return text + "]";
  }
  static std::string OpenPose(int frame, int joints) {
    std::string text = "{\"people\": [{\"person_id\": [-1], \"pose_keypoints_2d\": [";
    for (int j = 0; j < joints; ++j) {
      text +=
          (j > 0 ? "," : "") + std::to_string(10 + frame) + "," + std::to_string(20 + j) + ",0.5";
    }
    return text + "]}]}";
  }

  Dataset Load(const std::string& split, const std::string& type = "rgbpose") const {
    const Config config = LoadConfig(options_.out + "/set.toml", {"model.type=" + type}).config;
    return LoadDataset(config, split);
  }
  static std::set<std::string> Ids(const Dataset& set) {
    std::set<std::string> ids;
    for (const Sample& sample : set.samples) ids.insert(sample.id);
    return ids;
  }

  TestFolder folder_;
  ImportOptions options_;
};

TEST_F(ImportFolder, ClassesAreFoldersAndPosesLieBesideVideos) {
  AddVideo("walk/a.mp4", 12);
  Write("walk/a.json", AlphaPose(2, 11));  // frames 0, 1 and 11 have nobody
  AddVideo("walk/b.avi", 10);
  Write("walk/b/alphapose-results.json", AlphaPose(0, 10));
  AddVideo("sit/c.mp4", 10);
  WriteNpz(folder_.File("src/sit/c.npz"),
           {{"keypoint", NdArray::FromFloats({10, 17, 2}, std::vector<float>(340, 30))}});
  AddVideo("sit/deep/d.mp4", 10);
  for (int i = 0; i < 10; ++i)
    Write("sit/deep/d_json/d_" + std::to_string(i) + "_keypoints.json", OpenPose(i, 17));
  AddVideo("sit/e.mp4", 10);
  AddVideo("sit/e_2.mp4", 9);
  for (const std::string name : {"e_00000000000", "e_2_00000000000"}) {
    for (int i = 0; i < 9; ++i) {
      Write("sit/" + name + std::to_string(i) + "_keypoints.json", OpenPose(i, 17));
    }
  }
  const ConversionReport report = ImportSet(options_);
  EXPECT_EQ(report.clips, 6);
  const Dataset all = Load("");
  EXPECT_EQ(all.class_names, (std::vector<std::string>{"sit", "walk"}));
  EXPECT_EQ(Ids(all),
            (std::set<std::string>{"sit/c", "sit/deep/d", "sit/e", "sit/e_2", "walk/a", "walk/b"}));
  const Sample& a = all.samples[4];
  EXPECT_EQ(a.id, "walk/a");
  EXPECT_EQ(a.label, 1);
  EXPECT_EQ(a.video, options_.source + "/walk/a.mp4");
  EXPECT_EQ(a.width, 128);
  EXPECT_EQ(a.height, 64);
  ASSERT_EQ(a.total_frames, 12);
  for (size_t i = 0; i < 12; ++i) {
    const bool seen = i >= 2 && i < 11;  // at their time
    EXPECT_EQ(a.pose.xy[2 * 17 * i], seen ? 10 + static_cast<float>(i) : 0) << i;
    EXPECT_EQ(a.pose.score[17 * i], seen ? 0.5F : 0) << i;
  }
  EXPECT_EQ(all.samples[3].total_frames, 9);
  EXPECT_EQ(all.samples[1].pose.xy[2 * 17 * 9], 19);
  const Config config = LoadConfig(report.include).config;
  EXPECT_EQ(config.data.joints, "coco17");
  EXPECT_EQ(config.model.num_classes, 2);
  EXPECT_EQ(config.data.train_split, "train");
  EXPECT_EQ(config.data.val_split, "test");
  // 0.2 of four is one of sit; of two of walk none, and the report says so.
  ASSERT_EQ(report.remarks.size(), 1U);
  EXPECT_HAS(report.remarks[0], "1 of 2 classes have too few videos");
  EXPECT_EQ(Load("test").samples.size(), 1U);
}

TEST_F(ImportFolder, SegmentsOfOneVideoStayOnOneSide) {
  std::string manifest = "path,label,start,end\n";
  for (int v = 0; v < 5; ++v) {
    const std::string name = "day" + std::to_string(v);
    AddVideo(name + ".mp4", 40, 20);
    Write(name + ".json", AlphaPose(0, 40));
    manifest += name + ".mp4,one,0,0.5\n" + name + ".mp4,two,0.5,1.25\n" + name + ".mp4,one,1.5,\n";
  }
  Write("list.csv", manifest);
  options_.source = folder_.File("src/list.csv");
  options_.test_share = 0.4;
  const ConversionReport report = ImportSet(options_);
  EXPECT_EQ(report.clips, 15);
  const Dataset train = Load("train");
  const Dataset test = Load("test");
  EXPECT_EQ(train.samples.size(), 9U);
  EXPECT_EQ(test.samples.size(), 6U);
  std::set<std::string> train_videos;
  for (const Sample& sample : train.samples) train_videos.insert(sample.video);
  for (const Sample& sample : test.samples) EXPECT_EQ(train_videos.count(sample.video), 0U);
  const Sample middle = Load("").samples[1];
  EXPECT_EQ(middle.id, "day0@0.500s-1.250s");
  EXPECT_EQ(middle.label, 1);
  EXPECT_EQ(middle.first_frame, 10);
  EXPECT_EQ(middle.total_frames, 15);
  EXPECT_EQ(middle.pose.xy[0], 10 + 10);
  EXPECT_EQ(Load("").samples[2].total_frames, 10);

  // The same again gives the same bytes; another seed other splits.
  const std::string bytes = ReadFile(options_.out + "/annotations.pkl");
  options_.threads = 1;
  ImportSet(options_);
  EXPECT_EQ(ReadFile(options_.out + "/annotations.pkl"), bytes);
  std::set<std::set<std::string>> choices;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    options_.seed = seed;
    ImportSet(options_);
    choices.insert(Ids(Load("test")));
  }
  EXPECT_GT(choices.size(), 2U);
}

TEST_F(ImportFolder, ManifestInFramesWithSplitsClassesAndAPickle) {
  AddVideo("v/day.mp4", 30);
  AddVideo("v/night.mp4", 20);
  PickleWriter w(3);
  w.BeginList();
  for (const auto& [name, frames] : {std::pair<std::string, int>{"day", 30}, {"night", 20}}) {
    w.BeginDict();
    w.String("frame_dir");
    w.String(name);
    w.String("label");
    w.Int(0);
    w.String("img_shape");
    w.BeginTuple();
    w.Int(64);
    w.Int(128);
    w.EndTuple();
    w.String("total_frames");
    w.Int(frames);
    w.String("keypoint");
    const auto count = static_cast<size_t>(frames) * 25 * 2;
    w.Array(NdArray::FromFloatsAsHalf({1, frames, 25, 2}, std::vector<float>(count, 7)).view());
    w.EndDict();
  }
  w.EndList();
  PublishFile(folder_.File("poses.pkl"), w.Finish());
  options_.pose = folder_.File("poses.pkl");
  folder_.Write("classes.txt", "run\nwalk\nsit\n");
  options_.classes = folder_.File("classes.txt");
  Write("m.json", R"([{"path": "v/day.mp4", "label": "sit", "start_frame": 5, "end_frame": 15,
                       "split": "train"},
                      {"path": "v/day.mp4", "label": 1, "start_frame": 15, "split": "val"},
                      {"path": "v/night.mp4", "label": "walk", "split": "val"}])");
  options_.source = folder_.File("src/m.json");
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "ntu25 or openpose25");
  options_.joints = "coco17";
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "25 joints, the layout \"coco17\" has 17");
  options_.joints = "openpose25";
  const ConversionReport report = ImportSet(options_);
  EXPECT_EQ(report.clips, 3);
  ASSERT_EQ(report.remarks.size(), 1U);
  EXPECT_HAS(report.remarks[0], "segments of v/day.mp4 are in 2 splits");
  EXPECT_EQ(Load("train").samples[0].label, 2);
  EXPECT_EQ(Load("train").samples[0].id, "v/day@5-15");
  EXPECT_EQ(Ids(Load("val")), (std::set<std::string>{"v/day@15-", "v/night"}));
  EXPECT_EQ(LoadConfig(report.include).config.data.val_split, "val");

  // The same segment twice, labels and splits that are none.
  const auto refused = [&](const std::string& text, const std::string& part) {
    Write("m.json", text);
    EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), part);
  };
  refused(R"([{"path": "v/day.mp4", "label": "sit"}, {"path": "v/day.mp4", "label": "walk"}])",
          "listed twice");
  refused(R"([{"path": "v/day.mp4", "label": "fly"}])", "\"fly\" is not a class");
  refused(R"([{"path": "v/day.mp4", "label": 3}])", "\"3\" is not a class");
  refused(R"([{"path": "v/day.mp4", "label": 0, "split": "a"},
              {"path": "v/night.mp4", "label": 0}])",
          "has no split");
}

TEST_F(ImportFolder, BadVideosAndPosesAreNamed) {
  AddVideo("walk/good.mp4", 10);
  Write("walk/good.json", AlphaPose(0, 10));
  AddVideo("walk/nopose.mp4", 10);
  AddVideo("walk/long.mp4", 10);
  Write("walk/long.json", AlphaPose(1, 11));  // counts from 1
  Write("walk/broken.mp4", "no video");
  Write("walk/broken.json", AlphaPose(0, 10));
  AddVideo("walk/text.mp4", 10);
  Write("walk/text.json", "{");
  AddVideo("walk/empty.mp4", 10);
  Write("walk/empty.json", "[]");
  options_.max_bad_share = 0.9;
  const ConversionReport report = ImportSet(options_);
  EXPECT_EQ(report.clips, 1);
  ASSERT_EQ(report.left_out.size(), 5U);
  EXPECT_EQ(report.left_out[0].id, "walk/broken");
  EXPECT_HAS(report.left_out[0].text, "broken.mp4");
  EXPECT_HAS(report.left_out[1].text, "holds no pose");
  EXPECT_HAS(report.left_out[2].text, "--first-image");
  EXPECT_HAS(report.left_out[3].text, "no pose file");
  EXPECT_HAS(report.left_out[4].text, "not JSON");

  options_.max_bad_share = 0.01;
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "5 of 6 clips cannot be used");
  fs::create_directory(folder_.File("src/two\nlines"));
  AddVideo("two\nlines/a.mp4", 3);
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "control characters");
  fs::remove_all(folder_.File("src/two\nlines"));
  options_.source = folder_.File("none");
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "neither a folder nor a manifest");
  options_.source = folder_.File("src");
  AddVideo("stray.mp4", 3);
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "outside of the folders of the classes");
}

TEST_F(ImportFolder, SegmentsThatAreNotThere) {
  AddVideo("a.mp4", 20, 20);
  Write("a.json", AlphaPose(10, 20));
  Write(
      "m.csv",
      "path,label,start,end\na.mp4,x,0.5,1.05\na.mp4,x,0.5,3\na.mp4,x,0,0.25\na.mp4,x,0.6,0.61\n");
  options_.source = folder_.File("src/m.csv");
  options_.max_bad_share = 0.9;
  const ConversionReport report = ImportSet(options_);
  EXPECT_EQ(report.clips, 1);  // a rounded end is cut
  EXPECT_EQ(Load("").samples[0].total_frames, 10);
  ASSERT_EQ(report.left_out.size(), 3U);
  EXPECT_HAS(report.left_out[0].text, "ends at frame 60, but there are 20");
  EXPECT_HAS(report.left_out[0].text, "m.csv:3");
  EXPECT_HAS(report.left_out[1].text, "nobody was found");
  EXPECT_HAS(report.left_out[2].text, "holds no frame");
}

// Run again, it does only what is not done, or was done of other files or with other options.
TEST_F(ImportFolder, ContinuesWhereItWas) {
  for (const std::string name : {"a", "b", "c"}) {
    AddVideo("walk/" + name + ".mp4", 10);
    Write("walk/" + name + ".json", AlphaPose(0, 10));
  }
  AddVideo("walk/d.mp4", 10);
  for (int i = 0; i < 10; ++i) {
    Write("walk/d/d_" + std::to_string(i) + "_keypoints.json", OpenPose(i, 17));
  }
  options_.max_bad_share = 0.9;
  ImportSet(options_);
  const std::string annotations = options_.out + "/annotations.pkl";
  const std::string whole = ReadFile(annotations);
  std::vector<fs::path> parts;
  for (const auto& entry : fs::directory_iterator(options_.out + "/.parts")) {
    parts.push_back(entry.path());
  }
  ASSERT_EQ(parts.size(), 4U);
  const auto before = fs::file_time_type::clock::now() - std::chrono::hours(1);
  // How many pieces the next run makes.
  const auto made = [&] {
    for (const fs::path& part : parts) {
      if (fs::exists(part)) fs::last_write_time(part, before);
    }
    fs::remove(annotations);
    ImportSet(options_);
    return std::count_if(parts.begin(), parts.end(),
                         [&](const fs::path& part) { return fs::last_write_time(part) != before; });
  };
  EXPECT_EQ(made(), 0);
  EXPECT_EQ(ReadFile(annotations), whole);
  // Cut off on the way, and damaged.
  fs::remove(parts[0]);
  fs::resize_file(parts[1], fs::file_size(parts[1]) - 1);
  options_.threads = 1;
  EXPECT_EQ(made(), 2);
  EXPECT_EQ(ReadFile(annotations), whole);
  // Another pose file, one frame of OpenPose's, a video, a pose file that is missing and comes
  // back.
  Write("walk/a.json", AlphaPose(2, 10));
  EXPECT_EQ(made(), 1);
  EXPECT_NE(ReadFile(annotations), whole);
  Write("walk/d/d_4_keypoints.json", OpenPose(400, 17));
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(Load("").samples[3].pose.xy[2 * 17 * 4], 410);
  AddVideo("walk/b.mp4", 11);
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(Load("").samples[1].total_frames, 11);
  fs::remove(folder_.File("src/walk/c.json"));
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(Load("").samples.size(), 3U);
  Write("walk/c.json", AlphaPose(0, 10));
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(Load("").samples.size(), 4U);
  options_.persons = 1;
  EXPECT_EQ(made(), 4);
  options_.seed = 9;  // other splits, the same clips
  EXPECT_EQ(made(), 0);
}

TEST_F(ImportFolder, PosesAlone) {
  Write("walk/a.json", AlphaPose(0, 8));
  WriteNpz(folder_.File("src/walk/b.npz"),
           {{"keypoint", NdArray::FromFloats({2, 5, 17, 3}, std::vector<float>(510, 0.5F))},
            {"img_shape", NdArray::FromInts({2}, {100, 200})}});
  options_.max_bad_share = 0.6;
  EXPECT_HAS(ImportSet(options_).left_out[0].text, "--image-size");
  options_.width = 640;
  options_.height = 480;
  EXPECT_EQ(ImportSet(options_).clips, 2);
  const Dataset set = Load("", "pose");
  EXPECT_EQ(set.samples[0].width, 640);
  EXPECT_EQ(set.samples[0].total_frames, 8);
  EXPECT_EQ(set.samples[1].width, 200);
  EXPECT_EQ(set.samples[1].pose.persons, 2);
}

TEST_F(ImportFolder, UserDefinedJoints) {
  AddVideo("walk/a.mp4", 5);
  WriteNpz(folder_.File("src/walk/a.npz"),
           {{"keypoint", NdArray::FromFloats({5, 3, 2}, std::vector<float>(30, 4))}});
  EXPECT_HAS(ErrorOf([&] { ImportSet(options_); }), "3 joints, which may be anything");
  options_.joints =
      folder_.Write("three.toml", "joints = ['head', 'l', 'r']\npairs = [['l', 'r']]\n");
  const Config config = LoadConfig(ImportSet(options_).include).config;
  EXPECT_EQ(config.model.pose.in_channels, 3);
  EXPECT_EQ(config.data.left_joints, std::vector<int64_t>{1});
}

}  // namespace
}  // namespace kinefit
