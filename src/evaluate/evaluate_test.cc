#include "evaluate/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "files/error.h"
#include "model/loss.h"

namespace kinefit {
namespace {

// Logits are the mean of each heatmap channel, scaled: cheap, deterministic, different per sample.
class ChannelMeans : public Network {
 public:
  ChannelMeans() {
    tensors_.parameters.push_back({"scale", at::full({1}, 20.0f).set_requires_grad(true)});
  }
  NetworkOutput Forward(const NetworkInput& input, RandomStream&) override {
    trained_in_forward = trained_in_forward || training();
    largest_rows = std::max(largest_rows, input.heatmap_imgs.size(0));
    NetworkOutput output;
    const at::Tensor means = input.heatmap_imgs.mean({2, 3, 4}) * parameters()[0].tensor;
    saw_gradients = saw_gradients || means.requires_grad();
    output.logits.emplace_back("pose", means);
    return output;
  }
  Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) override {
    return ComputeLoss(output, labels, HeadConfig());
  }
  std::vector<std::string> LossNames() const override { return {"pose"}; }
  bool trained_in_forward = false;
  bool saw_gradients = false;
  int64_t largest_rows = 0;
};

Config PoseConfig() {
  Config config;
  config.model.type = "pose";
  config.model.num_classes = 3;
  config.model.pose.in_channels = 3;
  config.data.pose_frames = 4;
  config.data.test_size = 16;
  config.data.workers = 2;
  config.data.left_joints = {0};
  config.data.right_joints = {1};
  config.data.max_bad_share = 0.5;
  config.eval.batch_size = 4;
  return config;
}

// Three joints wandering over the image, seen with scores that differ, so that samples differ.
Sample WanderingSample(int64_t number) {
  Sample sample;
  sample.id = "clip" + std::to_string(number);
  sample.label = number % 3;
  sample.width = 64;
  sample.height = 48;
  sample.total_frames = 10;
  sample.pose = {1, 10, 3, {}, {}};
  for (int64_t t = 0; t < 10; ++t) {
    for (int64_t v = 0; v < 3; ++v) {
      sample.pose.xy.push_back(static_cast<float>(8 + (7 * number + 5 * v + 3 * t) % 48));
      sample.pose.xy.push_back(static_cast<float>(8 + (3 * number + 11 * v + t) % 32));
      sample.pose.score.push_back(0.3f + 0.2f * static_cast<float>((number + v) % 4));
    }
  }
  return sample;
}

Dataset WanderingSet(int64_t size) {
  Dataset dataset;
  dataset.class_names = {"a", "b", "c"};
  for (int64_t i = 0; i < size; ++i) dataset.samples.push_back(WanderingSample(i));
  return dataset;
}

double Softmax(const std::vector<double>& logits, size_t which) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit);
  return std::exp(logits[which]) / sum;
}

TEST(FuseScores, AveragesSoftmaxOverClipsThenWeighsStreams) {
  // One sample of two clips, two streams, worked out by hand.
  NetworkOutput output;
  output.logits.emplace_back("rgb", at::tensor({0.0, 1.0, 2.0, 0.0}).reshape({2, 2}));
  output.logits.emplace_back("pose", at::tensor({3.0, 0.0, 0.0, 0.0}).reshape({2, 2}));
  EvalConfig eval;
  eval.rgb_weight = 2;
  eval.pose_weight = 0.5;
  const auto scores = FuseScores(output, 2, eval);
  ASSERT_EQ(scores.size(), 3U);
  EXPECT_EQ(scores[0].first, "rgb");
  EXPECT_EQ(scores[1].first, "pose");
  EXPECT_EQ(scores[2].first, "fused");
  const double rgb = (Softmax({0, 1}, 0) + Softmax({2, 0}, 0)) / 2;
  const double pose = (Softmax({3, 0}, 0) + 0.5) / 2;
  EXPECT_EQ(scores[2].second.scalar_type(), at::kDouble);
  EXPECT_EQ(scores[2].second.sizes(), (std::vector<int64_t>{1, 2}));
  EXPECT_NEAR(scores[0].second[0][0].item<double>(), rgb, 1e-12);
  EXPECT_NEAR(scores[1].second[0][0].item<double>(), pose, 1e-12);
  EXPECT_NEAR(scores[2].second[0][0].item<double>(), 2 * rgb + 0.5 * pose, 1e-12);
  EXPECT_NEAR(scores[2].second[0][1].item<double>(), 2 * (1 - rgb) + 0.5 * (1 - pose), 1e-12);
}

TEST(FuseScores, TheFusedClassifierIsAStreamOfItsOwn) {
  NetworkOutput output;
  for (const char* stream : {"rgb", "pose", "fused"}) {
    output.logits.emplace_back(stream, at::zeros({2, 4}));
  }
  EvalConfig eval;
  eval.fused_weight = 3;
  const auto scores = FuseScores(output, 1, eval);
  ASSERT_EQ(scores.size(), 4U);
  EXPECT_EQ(scores[2].first, "fused_head");
  EXPECT_EQ(scores[3].first, "fused");
  EXPECT_NEAR(scores[3].second[1][2].item<double>(), 0.25 * (1 + 1 + 3), 1e-12);
}

// Of a network with coarse classifiers, as PCAN's evaluation has it: (rgb + pose) / 2.
TEST(FuseScores, WithCoarseClassifiersTheMeanIsTaken) {
  const double ln3 = std::log(3.0);  // softmax of (ln 3, 0) is (3/4, 1/4)
  NetworkOutput output;
  output.logits.emplace_back("rgb", at::tensor({ln3, 0.0}).reshape({1, 2}));
  output.logits.emplace_back("pose", at::tensor({0.0, 0.0}).reshape({1, 2}));
  EXPECT_TRUE(FuseCoarseScores(output, 1, EvalConfig()).empty());
  EXPECT_NEAR(FuseScores(output, 1, EvalConfig()).back().second[0][0].item<double>(), 1.25, 1e-12);

  output.coarse.emplace_back("rgb_coarse", at::tensor({0.0, 0.0}).reshape({1, 2}));
  output.coarse.emplace_back("pose_coarse", at::tensor({0.0, ln3}).reshape({1, 2}));
  const StreamScores fine = FuseScores(output, 1, EvalConfig());
  ASSERT_EQ(fine.size(), 3U);
  EXPECT_EQ(fine[2].first, "fused");
  EXPECT_NEAR(fine[2].second[0][0].item<double>(), (0.75 + 0.5) / 2, 1e-12);
  const StreamScores coarse = FuseCoarseScores(output, 1, EvalConfig());
  ASSERT_EQ(coarse.size(), 3U);
  EXPECT_EQ(coarse[0].first, "rgb");
  EXPECT_EQ(coarse[1].first, "pose");
  EXPECT_NEAR(coarse[1].second[0][1].item<double>(), 0.75, 1e-12);
  EXPECT_NEAR(coarse[2].second[0][1].item<double>(), (0.5 + 0.75) / 2, 1e-12);
  EvalConfig weighted;
  weighted.rgb_weight = 3;
  EXPECT_NEAR(FuseCoarseScores(output, 1, weighted).back().second[0][1].item<double>(),
              (3 * 0.5 + 0.75) / 4, 1e-12);
}

TEST(FuseScores, WeightsOfNothingAndOddClipsAreErrors) {
  NetworkOutput output;
  output.logits.emplace_back("pose", at::zeros({3, 4}));
  EvalConfig eval;
  EXPECT_THROW(FuseScores(output, 2, eval), Error);
  eval.pose_weight = 0;
  try {
    FuseScores(output, 1, eval);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(error.where().find("eval.pose_weight"), std::string::npos);
  }
}

TEST(Evaluate, KeepsTheDatasetsOrderAndRestoresTheTrainingFlag) {
  const Dataset dataset = WanderingSet(7);
  ChannelMeans network;
  network.Train(true);
  std::vector<int64_t> done;
  const EvaluationResult result =
      Evaluate(network, dataset, PoseConfig(), 1, false, [&](int64_t count, int64_t total) {
        EXPECT_EQ(total, 7);
        done.push_back(count);
      });
  EXPECT_TRUE(network.training());
  EXPECT_FALSE(network.trained_in_forward);
  EXPECT_FALSE(network.saw_gradients);
  EXPECT_EQ(done, (std::vector<int64_t>{4, 7}));
  ASSERT_EQ(result.ids.size(), 7U);
  ASSERT_EQ(result.streams.size(), 2U);
  EXPECT_EQ(result.fused().classes, 3);
  for (int64_t i = 0; i < 7; ++i) {
    EXPECT_EQ(result.ids[i], "clip" + std::to_string(i));
    EXPECT_EQ(result.fused().labels[i], i % 3);
  }
  EXPECT_NE(result.fused().scores[0], result.fused().scores[3]);
}

TEST(Evaluate, ClipsAndFlipsAreAveragesOfTheSingleClips) {
  const Dataset dataset = WanderingSet(2);
  const Config config = PoseConfig();
  ChannelMeans network;
  const EvaluationResult result = Evaluate(network, dataset, config, 3, true);
  // The same by hand: every clip of the pipeline through the network, softmax, mean.
  for (int64_t i = 0; i < 2; ++i) {
    RandomStream random(0, "unused");
    const ClipTensors clips =
        RunPipeline(dataset.samples[i], config, Phase::kTest, 3, true, random);
    ASSERT_EQ(clips.clips, 6);
    const at::Tensor input =
        at::from_blob(const_cast<float*>(clips.heatmaps.data()), clips.heatmaps_shape).clone();
    const at::Tensor expected =
        at::softmax((input.mean({2, 3, 4}) * 20.0f).to(at::kDouble), 1).mean(0);
    for (int64_t c = 0; c < 3; ++c) {
      EXPECT_NEAR(result.fused().scores[i * 3 + c], expected[c].item<double>(), 1e-6);
    }
  }
  EXPECT_LE(network.largest_rows, config.eval.batch_size);  // six clips, but four at once
}

TEST(Evaluate, BatchSizeAndWorkersChangeNothing) {
  const Dataset dataset = WanderingSet(6);
  Config config = PoseConfig();
  ChannelMeans network;
  const EvaluationResult first = Evaluate(network, dataset, config, 2, false);
  config.eval.batch_size = 1;
  config.data.workers = 1;
  const EvaluationResult second = Evaluate(network, dataset, config, 2, false);
  EXPECT_EQ(first.ids, second.ids);
  ASSERT_EQ(first.fused().scores.size(), second.fused().scores.size());
  for (size_t i = 0; i < first.fused().scores.size(); ++i) {
    EXPECT_NEAR(first.fused().scores[i], second.fused().scores[i], 1e-7);
  }
}

TEST(Evaluate, HeatmapsDrawnOnTheDeviceGiveTheSameScores) {
  const Dataset dataset = WanderingSet(5);
  Config config = PoseConfig();
  ChannelMeans network;
  for (const bool flip : {false, true}) {
    config.data.heatmap.draw_on = "host";
    const EvaluationResult host = Evaluate(network, dataset, config, 3, flip);
    config.data.heatmap.draw_on = "device";
    const EvaluationResult device = Evaluate(network, dataset, config, 3, flip);
    EXPECT_EQ(host.ids, device.ids);
    ASSERT_EQ(host.fused().scores.size(), device.fused().scores.size());
    for (size_t i = 0; i < host.fused().scores.size(); ++i) {
      EXPECT_NEAR(host.fused().scores[i], device.fused().scores[i], 1e-6);
    }
  }
  EXPECT_LE(network.largest_rows, config.eval.batch_size);
}

// A two-stream set without its videos: no clip of these can be read.
Sample WithoutVideo(int64_t number) {
  Sample sample = WanderingSample(number);
  sample.video = "/nonexistent/" + sample.id + ".mp4";
  return sample;
}

TEST(Evaluate, NoReadableClipIsAnErrorThatSaysWhy) {
  Config config = PoseConfig();
  config.model.type = "rgbpose";
  config.data.max_bad_share = 1;
  Dataset dataset;
  dataset.samples = {WithoutVideo(0), WithoutVideo(1)};
  ChannelMeans network;
  network.Train(true);
  EXPECT_THROW(Evaluate(network, dataset, config, 1, false), Error);
  EXPECT_TRUE(network.training());
}

TEST(Evaluate, BadClipsAreLeftOutAndListed) {
  Config config = PoseConfig();
  Dataset dataset = WanderingSet(5);
  dataset.samples[2].pose.joints = 7;  // does not fit its own arrays
  dataset.samples[2].pose.xy.resize(2);
  ChannelMeans network;
  EvaluationResult result;
  try {
    result = Evaluate(network, dataset, config, 1, false);
  } catch (const Error& error) {
    FAIL() << error.what();
  }
  EXPECT_EQ(result.ids, (std::vector<std::string>{"clip0", "clip1", "clip3", "clip4"}));
  ASSERT_EQ(result.bad_clips.size(), 1U);
  EXPECT_EQ(result.bad_clips[0].id, "clip2");
  EXPECT_EQ(result.fused().labels, (std::vector<int64_t>{0, 1, 0, 1}));
}

// The same, with a coarse classifier: the group of two channels is their mean.
class WithGroups : public ChannelMeans {
 public:
  NetworkOutput Forward(const NetworkInput& input, RandomStream& random) override {
    NetworkOutput output = ChannelMeans::Forward(input, random);
    const at::Tensor& fine = output.logits[0].second;
    output.coarse.emplace_back(
        "pose_coarse", at::stack({(fine.select(1, 0) + fine.select(1, 2)) / 2, fine.select(1, 1)}, 1));
    return output;
  }
};

TEST(Evaluate, GroupsAreScoredByTheNetworkOrByItsFineClasses) {
  Config config = PoseConfig();
  config.model.groups = {{0, 2}, {1}};
  const Dataset dataset = WanderingSet(7);
  ChannelMeans plain;
  const EvaluationResult derived = Evaluate(plain, dataset, config, 1, false);
  EXPECT_TRUE(derived.coarse_from_fine);
  ASSERT_EQ(derived.coarse.size(), 2U);
  EXPECT_EQ(derived.coarse[1].first, "fused");
  EXPECT_EQ(derived.coarse[1].second.labels, (std::vector<int64_t>{0, 1, 0, 0, 1, 0, 0}));
  const std::vector<int64_t> fine = Predictions(derived.fused());
  const std::vector<int64_t> groups = Predictions(derived.coarse[1].second);
  for (size_t i = 0; i < fine.size(); ++i) EXPECT_EQ(groups[i], fine[i] == 1 ? 1 : 0) << i;

  WithGroups grouped;
  const EvaluationResult own = Evaluate(grouped, dataset, config, 1, false);
  EXPECT_FALSE(own.coarse_from_fine);
  ASSERT_EQ(own.coarse.size(), 2U);
  EXPECT_EQ(own.coarse[0].first, "pose");
  EXPECT_EQ(own.coarse[1].second.labels, derived.coarse[1].second.labels);
  EXPECT_EQ(own.coarse[1].second.classes, 2);
  config.model.groups.clear();
  EXPECT_TRUE(Evaluate(plain, dataset, config, 1, false).coarse.empty());
}

}  // namespace
}  // namespace kinefit
