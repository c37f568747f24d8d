#include "predict/predictor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "evaluate/evaluate.h"
#include "evaluate/results.h"
#include "files/error.h"
#include "model/weights_kind.h"
#include "memory/gpu.h"
#include "predict/pose_file.h"
#include "transform/pipeline.h"
#include "video/reader.h"

namespace kinefit {
namespace {

std::string RequireConfigText(const CheckpointDict& root, const std::string& path) {
  for (const auto& [key, value] : root) {
    if (key == "config") return value.AsString(path + ": config");
  }
  throw Error("the checkpoint holds no configuration, so it was not written by kinefit", path,
              "predict with a checkpoint of 'kinefit train'; to use weights of another origin, "
              "start a training from them (train.init) or run 'kinefit test' with a config");
}

std::vector<std::string> ReadClassNames(const CheckpointDict& root, const std::string& path) {
  std::vector<std::string> names;
  for (const auto& [key, value] : root) {
    if (key != "class_names" || value.is_none()) continue;
    for (const CheckpointValue& name : value.AsList(path + ": class_names")) {
      names.push_back(name.AsString(path + ": class_names"));
    }
  }
  return names;
}

std::vector<std::pair<std::string, at::Tensor>> NamedPairs(const Network& network) {
  std::vector<std::pair<std::string, at::Tensor>> pairs;
  for (const NamedTensor& named : network.StateDict()) pairs.emplace_back(named.name, named.tensor);
  return pairs;
}

// The first GPU will do for what was trained on another one.
std::string DeviceInsteadOf(const std::string& device) {
  if (device.compare(0, 4, "cuda") != 0) return device;
  return at::hasCUDA() ? "cuda" : "cpu";
}

at::Tensor ToTensor(std::vector<float>& values, const std::vector<int64_t>& shape) {
  if (values.empty()) return {};
  return at::from_blob(values.data(), shape, at::kFloat);
}

void CheckFrames(const PoseFile& file, const std::string& pose_path, const VideoInfo& info,
                 const std::string& video) {
  if (file.pose.frames == info.frames) return;
  throw Error("the poses have " + std::to_string(file.pose.frames) + " frames, the video " +
                  std::to_string(info.frames),
              pose_path + ", " + video,
              "extract the poses from this very video, one pose per frame; a frame without a "
              "person gets joints of score 0");
}

// The clip as the pipeline wants it, from whichever of the two files there are.
Sample MakeSample(const std::string& video, const std::string& pose_file, const Config& config) {
  if (config.model.has_rgb() && video.empty()) {
    throw Error("the network has an RGB stream, but no video is given", "",
                "give the video as the second argument");
  }
  if (config.model.has_pose() && pose_file.empty()) {
    throw Error("the network has a pose stream, but no poses are given", "",
                "give an annotation pickle or a .npz with --pose");
  }
  Sample sample;
  sample.video = video;
  sample.id = video.empty() ? pose_file : video;
  VideoInfo info;
  if (!video.empty()) {
    info = ProbeVideo(video);
    sample.width = info.width;
    sample.height = info.height;
    sample.total_frames = info.frames;
    sample.pose.frames = info.frames;
  }
  if (pose_file.empty()) return sample;
  PoseFile file = ReadPoseFile(pose_file, sample.id, config);
  // Without an RGB stream the video only says how large the image is, and frames without a
  // detection may have been left out of the poses.
  if (!video.empty() && (config.model.has_rgb() || file.pose.frames > info.frames))
    CheckFrames(file, pose_file, info, video);
  sample.total_frames = file.pose.frames;
  sample.pose = std::move(file.pose);
  if (file.width > 0) {
    sample.width = file.width;
    sample.height = file.height;
  }
  if (sample.width == 0) {
    throw Error("the size of the image that the joints refer to is not known", pose_file,
                "add img_shape (height, width) to the file, or give the video too");
  }
  return sample;
}

}  // namespace

Predictor::Predictor(const std::string& checkpoint, const std::vector<std::string>& overrides) {
  const CheckpointDict root = ReadCheckpoint(checkpoint);
  const std::string text = RequireConfigText(root, checkpoint);
  const LoadedConfig loaded = LoadConfigText(text, checkpoint + ": config", overrides);
  config_ = loaded.config;
  class_names_ = ReadClassNames(root, checkpoint);
  const auto origin = loaded.provenance.find("device");
  if (origin == loaded.provenance.end() || origin->second != "--set") {
    const std::string there = DeviceInsteadOf(config_.device);
    if (there != config_.device) trained_on_ = std::exchange(config_.device, there);
  }
  const NamedTensors weights = StateDictOf(root, checkpoint, true);
  if (config_.model.type == "pcan" && KindOfWeights(weights) == "rgbpose_attention") {
    config_.model.type = "rgbpose_attention";
    renamed_ = true;
  }
  network_ =
      MakeNetwork(config_.model, at::TensorOptions(at::kFloat).device(UseDevice(config_.device)));
  const LoadReport report = LoadInto(NamedPairs(*network_), weights, false, checkpoint);
  if (!WithoutOptional(report.missing).empty() || !report.unexpected.empty() ||
      !report.mismatched.empty()) {
    LoadInto(NamedPairs(*network_), weights, true, checkpoint);
  }
  network_->Train(false);
}

std::string Predictor::DeviceText() const {
  std::string text = "predicting on " + config_.device;
  if (renamed_) {
    text += "; the checkpoint is of the network that is called rgbpose_attention now, pcan before";
  }
  return trained_on_.empty() ? text : text + "; the network was trained on " + trained_on_;
}

std::vector<Prediction> Predictor::Predict(const std::string& video, const std::string& pose_file,
                                           int64_t clips, int64_t top) {
  if (clips < 1)
    throw Error("the number of clips is " + std::to_string(clips), "--clips", "give 1 or more");
  const Sample sample = MakeSample(video, pose_file, config_);
  RandomStream random(static_cast<uint64_t>(config_.seed), "predict");
  ClipTensors tensors =
      RunPipeline(sample, config_, Phase::kTest, clips, config_.eval.flip, random);
  const NetworkOutput output = InferLogits(*network_,
                                           {ToTensor(tensors.imgs, tensors.imgs_shape),
                                            ToTensor(tensors.heatmaps, tensors.heatmaps_shape)},
                                           std::max<int64_t>(config_.eval.batch_size, 1),
                                           static_cast<uint64_t>(config_.seed));
  const auto scores = FuseScores(output, tensors.clips, config_.eval);
  const at::Tensor fused = scores.back().second[0];
  const double sum = fused.sum().item<double>();

  std::vector<int64_t> order(static_cast<size_t>(fused.size(0)));
  std::iota(order.begin(), order.end(), 0);
  const double* values = fused.data_ptr<double>();
  std::stable_sort(order.begin(), order.end(),
                   [values](int64_t a, int64_t b) { return values[a] > values[b]; });
  order.resize(std::min<size_t>(order.size(), static_cast<size_t>(std::max<int64_t>(top, 0))));
  std::vector<Prediction> predictions;
  for (const int64_t label : order) {
    Prediction prediction{label, ClassName(class_names_, label), values[label] / sum, {}};
    for (size_t s = 0; s + 1 < scores.size(); ++s) {
      prediction.per_stream.emplace_back(scores[s].first,
                                         scores[s].second[0][label].item<double>());
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

}  // namespace kinefit
