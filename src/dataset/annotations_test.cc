#include "dataset/annotations.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>

#include "files/error.h"
#include "files/npy.h"
#include "files/pickle.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

using Write = std::function<void(PickleWriter&)>;
// Members of an annotation by name; tests replace or erase some.
using Annotation = std::map<std::string, Write>;

Write Text(const std::string& text) {
  return [text](PickleWriter& w) { w.String(text); };
}
Write Number(int64_t number) {
  return [number](PickleWriter& w) { w.Int(number); };
}
Write Array(const NdArray& array) {
  return [array](PickleWriter& w) { w.Array(array.view()); };
}
Write Floats(std::vector<int64_t> shape, std::vector<float> values) {
  return Array(NdArray::FromFloats(std::move(shape), values));
}
Write Pair(int64_t first, int64_t second) {
  return [=](PickleWriter& w) {
    w.BeginTuple();
    w.Int(first);
    w.Int(second);
    w.EndTuple();
  };
}

// 1, 2, 3, ... times a half: exact in float16.
std::vector<float> Counting(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = 0.5F * static_cast<float>(i + 1);
  return values;
}

// One person, four frames, three joints.
Annotation Clip(const std::string& id, int64_t label = 1) {
  return {{"frame_dir", Text(id)},
          {"label", Number(label)},
          {"img_shape", Pair(48, 64)},
          {"original_shape", Pair(48, 64)},
          {"total_frames", Number(4)},
          {"keypoint", Floats({1, 4, 3, 2}, Counting(24))},
          {"keypoint_score", Floats({1, 4, 3}, std::vector<float>(12, 0.25F))}};
}

void WriteAnnotations(PickleWriter& w, const std::vector<Annotation>& clips) {
  w.BeginList();
  for (const Annotation& clip : clips) {
    w.BeginDict();
    for (const auto& [key, write] : clip) {
      w.String(key);
      write(w);
    }
    w.EndDict();
  }
  w.EndList();
}

class AnnotationsTest : public ::testing::Test {
 protected:
  AnnotationsTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-data-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    config_.model.type = "pose";
    config_.model.num_classes = 3;
    config_.model.pose.in_channels = 3;
    config_.data.annotations = folder_ / "set.pkl";
  }
  ~AnnotationsTest() override { fs::remove_all(folder_); }

  void Publish(PickleWriter& w) {
    std::ofstream(config_.data.annotations, std::ios::binary) << w.Finish();
  }
  void WriteList(const std::vector<Annotation>& clips) {
    PickleWriter w(3);
    WriteAnnotations(w, clips);
    Publish(w);
  }
  void WriteWithSplits(const std::vector<Annotation>& clips,
                       const std::map<std::string, std::vector<std::string>>& splits) {
    PickleWriter w(3);
    w.BeginDict();
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
    WriteAnnotations(w, clips);
    w.EndDict();
    Publish(w);
  }

  // Writes `clip` beside a good one and returns why it was rejected ("" = it was not).
  std::string Rejection(const Annotation& clip) {
    WriteList({Clip("good"), clip});
    const Dataset dataset = LoadDataset(config_, "");
    EXPECT_EQ(dataset.samples.size() + dataset.rejected.size(), 2U);
    return dataset.rejected.empty() ? ""
                                    : dataset.rejected[0].id + ": " + dataset.rejected[0].reason;
  }
  Annotation With(const std::string& key, const Write& write) {
    Annotation clip = Clip("bad");
    clip[key] = write;
    return clip;
  }
  std::string ErrorOf(const std::string& split = "") {
    try {
      LoadDataset(config_, split);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string ErrorOf(const Annotation& clip) {
    WriteList({Clip("good"), clip});
    return ErrorOf();
  }

  fs::path folder_;
  Config config_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(AnnotationsTest, PlainList) {
  WriteList({Clip("a", 0), Clip("b", 2)});
  const Dataset dataset = LoadDataset(config_, "");
  ASSERT_EQ(dataset.samples.size(), 2U);
  EXPECT_EQ(dataset.class_names, (std::vector<std::string>{"0", "1", "2"}));
  const Sample& sample = dataset.samples[1];
  EXPECT_EQ(sample.id, "b");
  EXPECT_EQ(sample.label, 2);
  EXPECT_EQ(sample.width, 64);
  EXPECT_EQ(sample.height, 48);
  EXPECT_EQ(sample.total_frames, 4);
  EXPECT_EQ(sample.video, "");
  EXPECT_EQ(sample.pose.persons, 1);
  EXPECT_EQ(sample.pose.frames, 4);
  EXPECT_EQ(sample.pose.joints, 3);
  EXPECT_EQ(sample.pose.xy, Counting(24));
  EXPECT_EQ(sample.pose.score, std::vector<float>(12, 0.25F));
}

TEST_F(AnnotationsTest, EveryFloatTypeAndPersons) {
  const std::vector<float> values = Counting(48);
  const std::vector<double> doubles(values.begin(), values.end());
  for (const NdArray& array :
       {NdArray::FromFloatsAsHalf({2, 4, 3, 2}, values), NdArray::FromFloats({2, 4, 3, 2}, values),
        NdArray::FromDoubles({2, 4, 3, 2}, doubles)}) {
    Annotation clip = Clip("a");
    clip["keypoint"] = Array(array);
    clip.erase("keypoint_score");
    WriteList({clip});
    const Dataset dataset = LoadDataset(config_, "");
    EXPECT_EQ(dataset.samples[0].pose.persons, 2);
    EXPECT_EQ(dataset.samples[0].pose.xy, values);
    EXPECT_EQ(dataset.samples[0].pose.score, std::vector<float>(24, 1.0F));
  }
}

TEST_F(AnnotationsTest, ThirdValueIsTheScore) {
  Annotation clip = Clip("a");
  clip["keypoint"] = Floats({1, 4, 3, 3}, Counting(36));
  clip.erase("keypoint_score");
  WriteList({clip});
  const Pose pose = LoadDataset(config_, "").samples[0].pose;
  EXPECT_EQ(pose.xy[2], 2.0F);
  EXPECT_EQ(pose.xy[3], 2.5F);
  EXPECT_EQ(pose.score[0], 1.5F);
  EXPECT_EQ(pose.score[1], 3.0F);
  std::vector<float> in_3d = Counting(36);
  in_3d[5] = -1;
  clip["keypoint"] = Floats({1, 4, 3, 3}, in_3d);
  EXPECT_HAS(Rejection(clip), "joints in 3D are not supported");
}

TEST_F(AnnotationsTest, ScoresThatCannotBeAreFound) {
  for (const float score : {85.0F, -2.0F, 3000.0F}) {
    Annotation clip = Clip("a");
    std::vector<float> scores(12, 0.5F);
    scores[7] = score;
    clip["keypoint_score"] = Floats({1, 4, 3}, scores);
    EXPECT_HAS(Rejection(clip), "scores run from 0 to 1");
  }
  Annotation clip = Clip("a");
  clip["keypoint_score"] = Floats({1, 4, 3}, std::vector<float>(12, 1.3F));
  WriteList({clip});
  EXPECT_EQ(LoadDataset(config_, "").samples.size(), 1U);
}

TEST_F(AnnotationsTest, SplitsKeepTheOrderOfTheAnnotations) {
  WriteWithSplits({Clip("a"), Clip("b"), Clip("c")}, {{"train", {"c", "a"}}, {"val", {"b"}}});
  const Dataset train = LoadDataset(config_, "train");
  ASSERT_EQ(train.samples.size(), 2U);
  EXPECT_EQ(train.samples[0].id, "a");
  EXPECT_EQ(train.samples[1].id, "c");
  EXPECT_EQ(LoadDataset(config_, "").samples.size(), 3U);
}

TEST_F(AnnotationsTest, SplitMistakesAreNamed) {
  WriteWithSplits({Clip("a"), Clip("b")},
                  {{"xsub_train", {"a"}}, {"xsub_val", {}}, {"ghosts", {"x", "y"}}});
  const std::string unknown = ErrorOf("xsub_trian");
  EXPECT_HAS(unknown, "no split 'xsub_trian'");
  EXPECT_HAS(unknown, "did you mean 'xsub_train'?");
  EXPECT_HAS(unknown, "known splits: ghosts, xsub_train, xsub_val");
  EXPECT_HAS(ErrorOf("xsub_val"), "the split is empty");
  EXPECT_HAS(ErrorOf("ghosts"), "none of the 2 annotations can be used; x: in split 'ghosts'");
  WriteList({Clip("a")});
  EXPECT_HAS(ErrorOf("train"), "the annotations have no splits");
}

TEST_F(AnnotationsTest, UnknownAndRepeatedIdsAreRejected) {
  WriteWithSplits({Clip("a", 0), Clip("a", 1), Clip("b")}, {{"train", {"a", "ghost", "a"}}});
  const Dataset dataset = LoadDataset(config_, "train");
  ASSERT_EQ(dataset.samples.size(), 1U);
  EXPECT_EQ(dataset.samples[0].label, 0);
  ASSERT_EQ(dataset.rejected.size(), 2U);
  EXPECT_HAS(dataset.rejected[0].reason, "annotated more than once");
  EXPECT_EQ(dataset.rejected[1].id, "ghost");
  EXPECT_HAS(dataset.rejected[1].reason, "not annotated");
}

TEST_F(AnnotationsTest, UnusableClipsAreRejectedWithAReason) {
  std::vector<float> values = Counting(24);
  values[7] = std::nanf("");
  EXPECT_EQ(Rejection(With("keypoint", Floats({1, 4, 3, 2}, values))),
            "bad: a joint has a coordinate that is NaN or infinite");
  values[7] = std::numeric_limits<float>::infinity();
  EXPECT_HAS(Rejection(With("keypoint", Array(NdArray::FromFloatsAsHalf({1, 4, 3, 2}, values)))),
             "NaN or infinite");
  values[7] = 1e8F;
  EXPECT_HAS(Rejection(With("keypoint", Floats({1, 4, 3, 2}, values))), "million pixels");
  std::vector<float> scores(12, std::nanf(""));
  EXPECT_HAS(Rejection(With("keypoint_score", Floats({1, 4, 3}, scores))), "score that is NaN");
  EXPECT_HAS(Rejection(With("keypoint_score", Floats({1, 3, 3}, Counting(9)))),
             "keypoint_score has shape [1, 3, 3], keypoint [1, 4, 3, 2]");
  EXPECT_HAS(Rejection(With("keypoint", Floats({4, 3, 2}, Counting(24)))),
             "keypoint has shape [4, 3, 2], not [persons, frames, joints, 2 or 3]");
  EXPECT_HAS(Rejection(With("keypoint", Floats({1, 4, 3, 4}, Counting(48)))), "[1, 4, 3, 4]");
  EXPECT_HAS(Rejection(With("keypoint", Floats({0, 4, 3, 2}, {}))), "empty");
  EXPECT_HAS(Rejection(With("total_frames", Number(5))),
             "keypoint has 4 frames, but total_frames is 5");
  EXPECT_HAS(Rejection(With("total_frames", Number(0))), "total_frames is 0");
  EXPECT_HAS(Rejection(With("img_shape", Pair(0, 64))), "not the size of an image");
}

TEST_F(AnnotationsTest, WrongFilesAreErrors) {
  EXPECT_HAS(ErrorOf(With("label", Number(3))), "label 3 is outside the 3 classes (0 to 2)");
  EXPECT_HAS(ErrorOf(With("label", Number(-1))), "annotations[1] 'bad'");
  EXPECT_HAS(ErrorOf(With("label", Text("walk"))), "label");
  EXPECT_HAS(ErrorOf(With("keypoint", Text("x"))), "keypoint");
  EXPECT_HAS(ErrorOf(With("img_shape", Number(5))), "img_shape must be (height, width)");
  for (const std::string key : {"frame_dir", "label", "img_shape", "total_frames", "keypoint"}) {
    Annotation clip = Clip("bad");
    clip.erase(key);
    EXPECT_HAS(ErrorOf(clip), "the annotation has no '" + key + "'");
  }
  WriteList({});
  EXPECT_HAS(ErrorOf(), "the list of annotations is empty");
  PickleWriter number(3);
  number.Int(5);
  Publish(number);
  EXPECT_HAS(ErrorOf(), "holds no annotations");
  std::ofstream(config_.data.annotations, std::ios::binary) << "not a pickle";
  EXPECT_HAS(ErrorOf(), config_.data.annotations);
  config_.data.annotations = folder_ / "missing.pkl";
  EXPECT_HAS(ErrorOf(), "missing.pkl");
  config_.data.annotations = "";
  EXPECT_HAS(ErrorOf(), "data.annotations");
}

TEST_F(AnnotationsTest, JointsMustMatchTheNetwork) {
  WriteList({Clip("a")});
  config_.model.pose.in_channels = 17;
  EXPECT_HAS(ErrorOf(),
             "3 joints, which makes 3 heatmap channels, but model.pose.in_channels is 17");
  config_.data.heatmap.with_limbs = true;
  config_.data.limbs = {{0, 1}, {1, 2}};
  config_.model.pose.in_channels = 5;
  EXPECT_EQ(ErrorOf(), "no error");
  config_.data.heatmap.with_joints = false;
  EXPECT_HAS(ErrorOf(), "makes 2 heatmap channels");
  config_.model.pose.in_channels = 2;
  EXPECT_EQ(ErrorOf(), "no error");
  config_.data.limbs[1] = {1, 3};
  EXPECT_HAS(ErrorOf(), "joint 3 does not exist");
  config_.data.limbs[1] = {1, 2};
  config_.data.left_joints = {4};
  EXPECT_HAS(ErrorOf(), "data.left_joints");
  config_.model.type = "rgb";
  config_.data.videos = "videos";
  EXPECT_EQ(ErrorOf(), "no error");
}

TEST_F(AnnotationsTest, VideosStayInTheirFolder) {
  config_.model.type = "rgbpose";
  WriteList({Clip("S001/a")});
  EXPECT_HAS(ErrorOf(), "data.videos");
  config_.data.videos = "/data/videos";
  EXPECT_EQ(LoadDataset(config_, "").samples[0].video, "/data/videos/S001/a.mp4");
  Annotation named = Clip("unused");
  named["filename"] = Text("b.avi");
  WriteList({named});
  EXPECT_EQ(LoadDataset(config_, "").samples[0].video, "/data/videos/b.avi");
  EXPECT_EQ(LoadDataset(config_, "").samples[0].id, "b.avi");
  for (const std::string name : {"../../etc/passwd", "/etc/passwd", "a/../../b", "..", ""}) {
    WriteList({Clip(name)});
    EXPECT_HAS(ErrorOf(), "leads out of the folder of videos");
  }
  WriteList({Clip(std::string("a\0b", 3))});
  EXPECT_HAS(ErrorOf(), "leads out of the folder of videos");
}

TEST_F(AnnotationsTest, SegmentsNameTheirVideoAndFirstFrame) {
  config_.model.type = "rgbpose";
  config_.data.videos = "/data/videos";
  Annotation early = Clip("long/early");
  early["video"] = Text("long/day 1.avi");
  Annotation late = Clip("long/late");
  late["video"] = Text("long/day 1.avi");
  late["first_frame"] = Number(250);
  WriteList({early, late});
  const Dataset both = LoadDataset(config_, "");
  ASSERT_EQ(both.samples.size(), 2U);
  EXPECT_EQ(both.samples[0].video, "/data/videos/long/day 1.avi");
  EXPECT_EQ(both.samples[0].first_frame, 0);
  EXPECT_EQ(both.samples[1].video, both.samples[0].video);
  EXPECT_EQ(both.samples[1].first_frame, 250);
  EXPECT_EQ(both.samples[1].total_frames, 4);

  late["first_frame"] = Number(-1);
  WriteList({early, late});
  const Dataset one = LoadDataset(config_, "");
  ASSERT_EQ(one.rejected.size(), 1U);
  EXPECT_EQ(one.rejected[0].reason, "first_frame is -1");
  late["first_frame"] = Text("5");
  WriteList({early, late});
  EXPECT_HAS(ErrorOf(), "first_frame");
  for (const std::string name : {"../day.avi", "/day.avi", ""}) {
    early["video"] = Text(name);
    WriteList({early});
    EXPECT_HAS(ErrorOf(), "leads out of the folder of videos");
  }
}

TEST_F(AnnotationsTest, ClassNames) {
  WriteList({Clip("a")});
  config_.data.classes = folder_ / "classes.txt";
  EXPECT_HAS(ErrorOf(), "class names cannot be read");
  std::ofstream(config_.data.classes) << "walk\r\nrun fast\n\nsit\n";
  EXPECT_EQ(LoadDataset(config_, "").class_names,
            (std::vector<std::string>{"walk", "run fast", "sit"}));
  std::ofstream(config_.data.classes) << "walk\n";
  EXPECT_HAS(ErrorOf(), "there are 1 class names, but model.num_classes is 3");
}

// Poses in frames 1, 1, 3 of five.
Annotation FlatClip() {
  Annotation clip = Clip("flat");
  clip["total_frames"] = Number(5);
  clip["frame_inds"] = Array(NdArray::FromInts({3}, {1, 1, 3}));
  clip["keypoint"] = Floats({3, 3, 3}, Counting(27));
  clip.erase("keypoint_score");
  return clip;
}

TEST_F(AnnotationsTest, FlatPosesBecomeTracks) {
  WriteList({FlatClip()});
  config_.model.type = "rgbpose";
  config_.data.videos = "videos";
  const Sample kept = LoadDataset(config_, "").samples[0];
  EXPECT_EQ(kept.total_frames, 5);  // in step with the video
  EXPECT_EQ(kept.pose.frames, 5);
  EXPECT_EQ(kept.pose.persons, 2);
  const auto x = [](const Pose& pose, int64_t person, int64_t frame) {
    return pose.xy[static_cast<size_t>((person * pose.frames + frame) * 3 * 2)];
  };
  EXPECT_EQ(x(kept.pose, 0, 0), 0);
  EXPECT_EQ(x(kept.pose, 0, 1), 0.5F);
  EXPECT_EQ(x(kept.pose, 1, 1), 5.0F);
  EXPECT_EQ(x(kept.pose, 0, 3), 9.5F);
  EXPECT_EQ(x(kept.pose, 1, 3), 0);
  EXPECT_EQ(kept.pose.score[3], 1.5F);  // person 0, frame 1, joint 0

  config_.model.type = "pose";  // frames without poses are left out, as the reference does
  const Sample squeezed = LoadDataset(config_, "").samples[0];
  EXPECT_EQ(squeezed.total_frames, 2);
  EXPECT_EQ(squeezed.frame_numbers, (std::vector<int64_t>{1, 3}));
  EXPECT_TRUE(kept.frame_numbers.empty());
  EXPECT_EQ(x(squeezed.pose, 0, 0), 0.5F);
  EXPECT_EQ(x(squeezed.pose, 0, 1), 9.5F);
}

TEST_F(AnnotationsTest, FlatPosesWithApartScores) {
  Annotation clip = FlatClip();
  clip["keypoint"] = Floats({3, 3, 2}, Counting(18));
  clip["keypoint_score"] = Floats({3, 3}, Counting(9));
  WriteList({clip});
  const Pose pose = LoadDataset(config_, "").samples[0].pose;
  EXPECT_EQ(pose.score, (std::vector<float>{0.5F, 1, 1.5F, 3.5F, 4, 4.5F,  // first persons
                                            2, 2.5F, 3, 0, 0, 0}));
}

TEST_F(AnnotationsTest, FlatPosesKeepTheTenBestPersons) {
  Annotation clip = FlatClip();
  std::vector<float> values = Counting(12 * 9);
  for (size_t i = 0; i < values.size(); i += 3) values[i + 2] = static_cast<float>(i / 9);
  clip["frame_inds"] = Array(NdArray::FromInts({12}, std::vector<int64_t>(12, 0)));
  clip["keypoint"] = Floats({12, 3, 3}, values);
  WriteList({clip});
  const Pose pose = LoadDataset(config_, "").samples[0].pose;
  EXPECT_EQ(pose.persons, 10);
  EXPECT_EQ(pose.score[0], 11);
  EXPECT_EQ(pose.score[9 * 3], 2);
}

TEST_F(AnnotationsTest, FlatMistakesAreRejected) {
  const auto reason = [&](const std::string& key, const Write& write) {
    Annotation clip = FlatClip();
    clip[key] = write;
    return Rejection(clip);
  };
  EXPECT_HAS(reason("frame_inds", Array(NdArray::FromInts({3}, {1, 3, 2}))),
             "go back from frame 3");
  EXPECT_HAS(reason("frame_inds", Array(NdArray::FromInts({3}, {1, 3, 5}))), "name frame 5");
  EXPECT_HAS(reason("frame_inds", Array(NdArray::FromInts({3}, {-2, 3, 4}))), "name frame -2");
  EXPECT_HAS(reason("frame_inds", Array(NdArray::FromInts({2}, {1, 3}))), "3 poses, but 2");
  EXPECT_HAS(reason("keypoint", Floats({3, 6}, Counting(18))), "not [poses, joints, 2 or 3]");
}

TEST(JhmdbTest, RealAnnotationsLoad) {
  const std::string root = std::string(KINEFIT_SHARED) + "/data/jhmdb14/";
  if (!fs::exists(root)) GTEST_SKIP() << "the JHMDB-14 set is not at " << root;
  Config config;
  config.model.num_classes = 14;
  config.model.pose.in_channels = 15;
  config.data.annotations = root + "jhmdb14_2d.pkl";
  config.data.videos = root + "videos";
  config.data.classes = root + "classes.txt";
  const Dataset train = LoadDataset(config, "split1_train");
  const Dataset test = LoadDataset(config, "split1_test");
  EXPECT_EQ(train.samples.size(), 426U);
  EXPECT_EQ(test.samples.size(), 175U);
  EXPECT_TRUE(train.rejected.empty());
  EXPECT_EQ(train.class_names[2], "golf");
  for (const Sample& sample : train.samples) {
    ASSERT_TRUE(fs::exists(sample.video)) << sample.video;
    ASSERT_EQ(sample.pose.joints, 15);
    ASSERT_EQ(sample.width, 320);
  }
}

#ifdef KINEFIT_SHARED
TEST(Cases, FilesOfOthersAreReadOrNamed) {
  const std::string cases = std::string(KINEFIT_SHARED) + "/cases/";
  if (!fs::exists(cases)) GTEST_SKIP() << "NOT CHECKED: " << cases << " is absent";
  Config config;
  config.model.type = "pose";
  config.model.num_classes = 2;
  config.model.pose.in_channels = 17;
  config.data.annotations = cases + "keypoints_torch.pkl";
  const Dataset tensors = LoadDataset(config, "train");
  ASSERT_EQ(tensors.samples.size(), 2U);
  EXPECT_EQ(tensors.samples[0].pose.frames, 20);
  EXPECT_EQ(tensors.samples[0].pose.joints, 17);
  EXPECT_GT(tensors.samples[0].pose.xy[0], 0);

  config.data.annotations = cases + "split_by_index.pkl";
  const Dataset positions = LoadDataset(config, "val");
  ASSERT_EQ(positions.samples.size(), 2U);
  EXPECT_EQ(positions.samples[0].id, "a2");
  EXPECT_EQ(positions.samples[1].id, "a3");
  // The two files differ in how they were written alone.
  config.data.annotations = cases + "keypoints_torch.pkl";
  const Dataset same = LoadDataset(config, "val");
  EXPECT_EQ(same.samples[0].pose.xy.size(), positions.samples[0].pose.xy.size());

  config.data.annotations = cases + "labels_from_one.pkl";
  try {
    LoadDataset(config, "train");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(error.problem().find("labels run from 1 to 2"), std::string::npos) << error.what();
    EXPECT_NE(error.remedy().find("--fix"), std::string::npos);
  }
}
#endif

}  // namespace
}  // namespace kinefit
