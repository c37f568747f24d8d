#include "predict/predictor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "checkpoint/checkpoint.h"
#include "config/options.h"
#include "files/error.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "video/writer.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFrames = 12;
constexpr int64_t kJoints = 3;

Config TinyConfig(const std::string& type) {
  Config config;
  config.model.type = type;
  config.model.num_classes = 4;
  config.model.pose.in_channels = kJoints;
  config.model.pose.base_channels = 4;
  config.model.rgb.base_channels = 8;
  config.data.rgb_frames = 2;
  config.data.pose_frames = 8;
  config.data.test_size = 64;
  config.data.heatmap.scaling = type == "pose" ? 1 : 0.25;
  config.data.left_joints = {0};
  config.data.right_joints = {1};
  return config;
}

// One person walking to the right, in an image of 96x64.
std::vector<float> WalkingJoints(int64_t persons = 1) {
  std::vector<float> xy;
  for (int64_t m = 0; m < persons; ++m) {
    for (int64_t t = 0; t < kFrames; ++t) {
      for (int64_t v = 0; v < kJoints; ++v) {
        xy.push_back(static_cast<float>(20 + 4 * t + 9 * v + m));
        xy.push_back(static_cast<float>(12 + 15 * v + t % 3));
      }
    }
  }
  return xy;
}

class PredictorTest : public testing::Test {
 protected:
  PredictorTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-eval-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~PredictorTest() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // A checkpoint with random weights; `ema_seed` adds averaged weights of another seed.
  std::string WriteTiny(const Config& config, const std::string& name, uint64_t seed,
                        int64_t ema_seed = -1) const {
    CheckpointDict root;
    root.emplace_back("state_dict", StateDict(config, seed));
    if (ema_seed >= 0) {
      CheckpointDict ema;
      ema.emplace_back("state_dict", StateDict(config, static_cast<uint64_t>(ema_seed)));
      root.emplace_back("ema", ema);
    }
    root.emplace_back("config", DumpConfig(config));
    root.emplace_back("class_names", CheckpointList{"walk", "挥手", "sit", "stand"});
    WriteCheckpoint(Path(name), root);
    return Path(name);
  }

  static CheckpointDict StateDict(const Config& config, uint64_t seed) {
    const auto network = MakeNetwork(config.model, at::TensorOptions(at::kFloat));
    InitialiseNetwork(*network, config.model, seed);
    CheckpointDict weights;
    for (const NamedTensor& named : network->StateDict()) {
      // Larger heads than a fresh network has, so that classes come out clearly apart.
      const bool head = named.name.rfind("cls_head", 0) == 0;
      weights.emplace_back(named.name, (named.tensor.detach() * (head ? 20 : 1)).clone());
    }
    return weights;
  }

  std::string WriteNpzPose(const std::string& name, const std::vector<int64_t>& shape,
                           const std::vector<float>& xy, bool with_shape = true) const {
    NpzArrays arrays;
    arrays["keypoint"] = NdArray::FromFloats(shape, xy);
    if (with_shape) arrays["img_shape"] = NdArray::FromInts({2}, {64, 96});
    WriteNpz(Path(name), arrays);
    return Path(name);
  }
  std::string WriteWalk(const std::string& name) const {
    return WriteNpzPose(name, {1, kFrames, kJoints, 2}, WalkingJoints());
  }

  // An annotation pickle with one entry per id; the first is the walk, later ones shifted.
  std::string WriteAnnotations(const std::string& name, const std::vector<std::string>& ids) const {
    PickleWriter writer(3);
    writer.BeginDict();
    writer.String("annotations");
    writer.BeginList();
    float shift = 0;
    for (const std::string& id : ids) {
      std::vector<float> xy = WalkingJoints();
      for (size_t i = 1; i < xy.size(); i += 6) xy[i] += shift;
      shift += 9;
      writer.BeginDict();
      writer.String("frame_dir");
      writer.String(id);
      writer.String("img_shape");
      writer.BeginTuple();
      writer.Int(64);
      writer.Int(96);
      writer.EndTuple();
      writer.String("keypoint");
      const NdArray array = NdArray::FromFloatsAsHalf({1, kFrames, kJoints, 2}, xy);
      writer.Array(array.view());
      writer.EndDict();
    }
    writer.EndList();
    writer.EndDict();
    PublishFile(Path(name), writer.Finish());
    return Path(name);
  }

  std::string WriteVideo(const std::string& name, int64_t frames) const {
    VideoWriter writer(Path(name), 96, 64, 25);
    for (int64_t t = 0; t < frames; ++t) {
      cv::Mat frame(64, 96, CV_8UC3, cv::Scalar(30, 60, 90));
      frame(cv::Rect(static_cast<int>(4 * t), 20, 12, 24)).setTo(cv::Scalar(200, 180, 40));
      writer.Write(frame);
    }
    writer.Finish();
    return Path(name);
  }

  fs::path folder_;
};

// The problem, place and remedy of the error that predicting must throw.
std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_MENTIONS(message, text) \
  EXPECT_NE((message).find(text), std::string::npos) << (message)

TEST_F(PredictorTest, PoseOnlyNetworkNeedsNoVideo) {
  Predictor predictor(WriteTiny(TinyConfig("pose"), "tiny.pth", 1));
  EXPECT_EQ(predictor.config().model.num_classes, 4);
  const auto predictions = predictor.Predict("", WriteWalk("walk.npz"), 3, 10);
  ASSERT_EQ(predictions.size(), 4U);
  double sum = 0;
  for (size_t i = 0; i < 4; ++i) {
    sum += predictions[i].score;
    EXPECT_GE(predictions[i == 0 ? 0 : i - 1].score, predictions[i].score);
    ASSERT_EQ(predictions[i].per_stream.size(), 1U);
    EXPECT_EQ(predictions[i].per_stream[0].first, "pose");
    const std::vector<std::string> names = {"walk", "挥手", "sit", "stand"};
    EXPECT_EQ(predictions[i].name, names[predictions[i].label]);
  }
  EXPECT_NEAR(sum, 1, 1e-9);
  EXPECT_GT(predictions[0].score, predictions[3].score);
}

TEST_F(PredictorTest, SameInputSameScores) {
  const std::string checkpoint = WriteTiny(TinyConfig("pose"), "tiny.pth", 1);
  const std::string pose = WriteWalk("walk.npz");
  Predictor first(checkpoint);
  Predictor second(checkpoint);
  const auto a = first.Predict("", pose, 2, 4);
  const auto again = first.Predict("", pose, 2, 4);
  const auto b = second.Predict("", pose, 2, 4);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(a[i].label, b[i].label);
    EXPECT_EQ(a[i].score, again[i].score);
    EXPECT_EQ(a[i].score, b[i].score);
  }
  EXPECT_EQ(first.Predict("", pose, 2, 1).size(), 1U);
}

TEST_F(PredictorTest, WhatWasTrainedOnAMissingGpuPredictsOnTheCpu) {
  if (at::hasCUDA()) GTEST_SKIP() << "there is a GPU";
  Config config = TinyConfig("pose");
  const std::string pose = WriteWalk("walk.npz");
  Predictor cpu(WriteTiny(config, "cpu.pth", 1));
  EXPECT_EQ(cpu.DeviceText(), "predicting on cpu");
  config.device = "cuda:1";
  const std::string checkpoint = WriteTiny(config, "gpu.pth", 1);
  Predictor gpu(checkpoint);
  EXPECT_EQ(gpu.config().device, "cpu");
  EXPECT_EQ(gpu.DeviceText(), "predicting on cpu; the network was trained on cuda:1");
  EXPECT_EQ(gpu.Predict("", pose, 1, 1)[0].score, cpu.Predict("", pose, 1, 1)[0].score);
  EXPECT_EQ(Predictor(checkpoint, {"device=cpu"}).DeviceText(), "predicting on cpu");
}

TEST_F(PredictorTest, ADeviceThatIsAskedForMustBeHere) {
  if (at::hasCUDA()) GTEST_SKIP() << "there is a GPU";
  const std::string checkpoint = WriteTiny(TinyConfig("pose"), "cpu.pth", 1);
  const std::string missing = MessageOf([&] { Predictor(checkpoint, {"device=cuda"}); });
  EXPECT_MENTIONS(missing, "device = \"cuda\"");
  EXPECT_MENTIONS(missing, "no CUDA");
  const std::string unknown = MessageOf([&] { Predictor(checkpoint, {"device=gpu"}); });
  EXPECT_MENTIONS(unknown, "\"gpu\" is not a device");
}

TEST_F(PredictorTest, AveragedWeightsComeFirst) {
  const Config config = TinyConfig("pose");
  const std::string pose = WriteWalk("walk.npz");
  Predictor plain(WriteTiny(config, "two.pth", 2));
  Predictor averaged(WriteTiny(config, "both.pth", 1, 2));
  Predictor other(WriteTiny(config, "one.pth", 1));
  const double score = averaged.Predict("", pose, 1, 1)[0].score;
  EXPECT_EQ(plain.Predict("", pose, 1, 1)[0].score, score);
  EXPECT_NE(other.Predict("", pose, 1, 1)[0].score, score);
}

TEST_F(PredictorTest, PickleEntriesAreFoundByTheVideosName) {
  Predictor predictor(WriteTiny(TinyConfig("pose"), "tiny.pth", 1));
  const std::string video = WriteVideo("S002.mp4", kFrames);
  const std::string many = WriteAnnotations("many.pkl", {"S001", "sub/S002", "S003"});
  const std::string second_alone = WriteAnnotations("alone.pkl", {"whatever"});
  const auto by_name = predictor.Predict(video, many, 1, 4);
  const auto alone = predictor.Predict(video, second_alone, 1, 4);
  EXPECT_NE(by_name[0].score, alone[0].score);  // the second entry's joints are shifted
  const std::string first = WriteVideo("S001.mp4", kFrames);
  EXPECT_EQ(predictor.Predict(first, many, 1, 4)[0].score, alone[0].score);
  const std::string other = WriteVideo("S009.mp4", kFrames);
  const std::string message = MessageOf([&] { predictor.Predict(other, many, 1, 1); });
  EXPECT_MENTIONS(message, "S009");
  EXPECT_MENTIONS(message, "many.pkl");
}

TEST_F(PredictorTest, TwoStreamsOnARealVideo) {
  Predictor predictor(WriteTiny(TinyConfig("rgbpose"), "two.pth", 3));
  const auto predictions =
      predictor.Predict(WriteVideo("walk.mp4", kFrames), WriteWalk("walk.npz"), 1, 4);
  ASSERT_EQ(predictions.size(), 4U);
  ASSERT_EQ(predictions[0].per_stream.size(), 2U);
  const double sum = predictions[0].per_stream[0].second + predictions[0].per_stream[1].second;
  EXPECT_NEAR(predictions[0].score, sum / 2, 1e-9);
}

TEST_F(PredictorTest, RgbOnlyNetworkNeedsNoPoses) {
  Predictor predictor(WriteTiny(TinyConfig("rgb"), "rgb.pth", 3));
  EXPECT_EQ(predictor.Predict(WriteVideo("walk.mp4", kFrames), "", 1, 4).size(), 4U);
  EXPECT_MENTIONS(MessageOf([&] { predictor.Predict("", "", 1, 1); }), "no video");
}

TEST_F(PredictorTest, OverridesChangeTheConfig) {
  const Predictor predictor(WriteTiny(TinyConfig("pose"), "tiny.pth", 1), {"eval.flip=true"});
  EXPECT_TRUE(predictor.config().eval.flip);
}

TEST_F(PredictorTest, BadPosesAreNamed) {
  Predictor predictor(WriteTiny(TinyConfig("pose"), "tiny.pth", 1));
  const auto message = [&](const std::string& pose, const std::string& video = "") {
    return MessageOf([&] { predictor.Predict(video, pose, 1, 1); });
  };
  EXPECT_MENTIONS(message(""), "no poses");
  EXPECT_MENTIONS(message(Path("missing.npz")), "missing.npz");

  const std::string joints =
      message(WriteNpzPose("joints.npz", {1, kFrames, 2, 2}, std::vector<float>(kFrames * 4, 5)));
  EXPECT_MENTIONS(joints, "2 joints");
  EXPECT_MENTIONS(joints, "trained on 3");
  EXPECT_MENTIONS(joints, "joints.npz");

  std::vector<float> xy = WalkingJoints();
  xy[2 * (5 * kJoints + 1)] = std::nanf("");
  const std::string nan = message(WriteNpzPose("nan.npz", {1, kFrames, kJoints, 2}, xy));
  EXPECT_MENTIONS(nan, "joint 1 of frame 5");
  EXPECT_MENTIONS(nan, "nan.npz");

  EXPECT_MENTIONS(message(WriteNpzPose("flat.npz", {kFrames, kJoints * 2}, WalkingJoints())),
                  "keypoint has shape");
  EXPECT_MENTIONS(
      message(WriteNpzPose("size.npz", {1, kFrames, kJoints, 2}, WalkingJoints(), false)),
      "img_shape");

  const std::string frames = message(WriteWalk("walk.npz"), WriteVideo("short.mp4", kFrames - 2));
  EXPECT_MENTIONS(frames, "12 frames, the video 10");
  EXPECT_MENTIONS(frames, "walk.npz");
  EXPECT_MENTIONS(frames, "short.mp4");
}

TEST_F(PredictorTest, OnePersonMayComeWithoutItsDimension) {
  Predictor predictor(WriteTiny(TinyConfig("pose"), "tiny.pth", 1));
  const auto three = predictor.Predict(
      "", WriteNpzPose("three.npz", {kFrames, kJoints, 2}, WalkingJoints()), 1, 1);
  EXPECT_EQ(three[0].score, predictor.Predict("", WriteWalk("walk.npz"), 1, 1)[0].score);
}

TEST_F(PredictorTest, CheckpointsOfOthersAreRefused) {
  CheckpointDict root;
  root.emplace_back("state_dict", StateDict(TinyConfig("pose"), 1));
  WriteCheckpoint(Path("foreign.pth"), root);
  const std::string message = MessageOf([&] { Predictor predictor(Path("foreign.pth")); });
  EXPECT_MENTIONS(message, "foreign.pth");
  EXPECT_MENTIONS(message, "not written by kinefit");

  // Weights of another network than the configuration says.
  root.emplace_back("config", DumpConfig(TinyConfig("rgb")));
  WriteCheckpoint(Path("mixed.pth"), root);
  EXPECT_MENTIONS(MessageOf([&] { Predictor predictor(Path("mixed.pth")); }), "mixed.pth");
}

}  // namespace
}  // namespace kinefit
