#include "apps/kinefit/recordings.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "config/config.h"
#include "dataset/annotations.h"
#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

std::string PosesAsJson(const Sample& sample) {
  const Pose& pose = sample.pose;
  nlohmann::json list = nlohmann::json::array();
  for (int64_t frame = 0; frame < pose.frames; ++frame) {
    for (int64_t person = 0; person < pose.persons; ++person) {
      nlohmann::json keypoints = nlohmann::json::array();
      double total = 0;
      for (int64_t joint = 0; joint < pose.joints; ++joint) {
        const auto at = static_cast<size_t>((person * pose.frames + frame) * pose.joints + joint);
        keypoints.insert(keypoints.end(), {pose.xy[2 * at], pose.xy[2 * at + 1], pose.score[at]});
        total += pose.score[at];
      }
      if (total == 0) continue;  // nobody
      list.push_back({{"image_id", std::to_string(frame) + ".jpg"},
                      {"category_id", 1},
                      {"keypoints", std::move(keypoints)},
                      {"score", total},
                      {"idx", person}});
    }
  }
  return list.dump() + "\n";
}

}  // namespace

int64_t LayOutRecordings(const std::string& annotations, const std::string& videos,
                         const std::string& classes, const std::string& folder, int64_t held_back) {
  namespace fs = std::filesystem;
  Config config;
  config.model.type = "rgb";
  config.model.num_classes = 10;
  config.data.annotations = annotations;
  config.data.videos = videos;
  config.data.classes = classes;
  const Dataset set = LoadDataset(config, "");
  const auto count = static_cast<int64_t>(set.samples.size());
  for (int64_t i = 0; i < count; ++i) {
    const Sample& sample = set.samples[static_cast<size_t>(i)];
    const std::string& label = set.class_names[static_cast<size_t>(sample.label)];
    const std::string home = folder + "/" + (i + held_back < count ? label : "new");
    MakeFolder(home);
    const fs::path video(sample.video);
    std::error_code error;
    fs::rename(video, fs::path(home) / video.filename(), error);
    if (error) throw Error("the video cannot be moved: " + error.message(), video.string());
    PublishFile(home + "/" + video.stem().string() + ".json", PosesAsJson(sample));
  }
  return count;
}

}  // namespace kinefit
