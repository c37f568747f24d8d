#include "convert/pose_source.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "convert/keypoint_json.h"
#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLargestJson = uint64_t{2} << 30;
constexpr char kOpenPoseEnding[] = "_keypoints.json";

bool EndsWith(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() &&
         text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

std::string NameOf(const std::string& stem) { return fs::path(stem).filename().string(); }

// The frames of OpenPose in a folder whose names begin with `prefix`, sorted. Only the folder
// itself is looked at.
std::vector<std::string> OpenPoseFrames(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> frames;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.rfind(prefix, 0) != 0 || !EndsWith(name, kOpenPoseEnding)) continue;
    // "a_" must not take the frames of the video "a_b".
    const std::string number =
        name.substr(prefix.size(), name.size() - prefix.size() - (sizeof(kOpenPoseEnding) - 1));
    const bool plain = number.find_first_not_of("0123456789") == std::string::npos;
    if (plain || prefix.empty()) frames.push_back(at->path().string());
  }
  std::sort(frames.begin(), frames.end());
  return frames;
}

bool IsFile(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// A clip of an annotation file as detections.
DetectedPoses PosesFromSample(const Sample& sample, const std::string& where) {
  const Pose& pose = sample.pose;
  DetectedPoses poses;
  poses.width = sample.width;
  poses.height = sample.height;
  poses.frames = pose.frames;
  poses.joints = pose.joints;
  const int64_t joints = pose.joints;
  for (int64_t person = 0; person < pose.persons; ++person) {
    for (int64_t frame = 0; frame < pose.frames; ++frame) {
      const int64_t from = (person * pose.frames + frame) * joints;
      Detection detection;
      detection.frame = frame;
      detection.track = person;
      detection.xy.assign(pose.xy.begin() + 2 * from, pose.xy.begin() + 2 * (from + joints));
      detection.joint_score.assign(pose.score.begin() + from, pose.score.begin() + from + joints);
      const bool nobody = std::all_of(detection.xy.begin(), detection.xy.end(),
                                      [](float value) { return value == 0; });
      if (nobody) continue;
      for (const float score : detection.joint_score) {
        detection.score += score / static_cast<float>(joints);
      }
      AddDetection(std::move(detection), where, &poses);
    }
  }
  return poses;
}

}  // namespace

DetectedPoses PosesFromArrays(const NpzArrays& arrays, const std::string& where) {
  const auto keypoint = arrays.find("keypoint");
  const auto score = arrays.find("keypoint_score");
  if (keypoint == arrays.end()) {
    throw Error("there is no array 'keypoint'", where,
                "save joints in pixels as keypoint [persons, frames, joints, 2]");
  }
  std::vector<int64_t> shape = keypoint->second.shape;
  if (shape.size() == 3) shape.insert(shape.begin(), 1);  // one person
  if (shape.size() != 4 || (shape[3] != 2 && shape[3] != 3) || keypoint->second.numel() == 0 ||
      shape[1] > kMostDetectedFrames || shape[2] > kMostDetectedJoints) {
    throw Error("keypoint has shape " + keypoint->second.ShapeText() +
                    ", not [persons, frames, joints, 2 or 3]",
                where, "save it with that shape");
  }
  const auto width = static_cast<size_t>(shape[3]);
  const std::vector<float> values = keypoint->second.ToFloats();
  Sample sample;
  sample.pose = {shape[0], shape[1], shape[2], {}, {}};
  for (size_t i = 0; i < values.size(); i += width) {
    sample.pose.xy.push_back(values[i]);
    sample.pose.xy.push_back(values[i + 1]);
    sample.pose.score.push_back(width == 3 ? values[i + 2] : 1.0F);
  }
  if (score != arrays.end()) {
    std::vector<int64_t> score_shape = score->second.shape;
    if (score_shape.size() == 2) score_shape.insert(score_shape.begin(), 1);
    shape.pop_back();
    if (score_shape != shape) {
      throw Error("keypoint_score has shape " + score->second.ShapeText() + ", keypoint " +
                      keypoint->second.ShapeText(),
                  where, "save scores as [persons, frames, joints]");
    }
    sample.pose.score = score->second.ToFloats();
  }
  const auto image = arrays.find("img_shape");
  if (image != arrays.end()) {
    const std::vector<int64_t> sides = image->second.ToInts(where + ": img_shape");
    if (sides.size() != 2 || sides[0] < 1 || sides[1] < 1 || sides[0] > 65536 || sides[1] > 65536) {
      throw Error("img_shape is not (height, width) of an image", where,
                  "write two positive integers");
    }
    sample.height = sides[0];
    sample.width = sides[1];
  }
  DetectedPoses poses = PosesFromSample(sample, where);
  poses.every_frame = true;
  const std::vector<int64_t>& wide = keypoint->second.shape;
  if (wide.size() == 4 && wide[0] > wide[1]) poses.order = "[frames, persons, joints, coordinates]";
  return poses;
}

PoseSource::PoseSource(const std::string& root, int64_t first_image)
    : root_(root), first_image_(first_image) {
  if (!EndsWith(root, ".pkl") && !EndsWith(root, ".pickle")) {
    if (!IsFolder(root)) {
      throw Error("there is no such folder of pose files", root,
                  "name a folder, or an annotation pickle (.pkl)");
    }
    return;
  }
  // As a network would read it that needs the joints where they are in the video.
  Config config;
  config.model.type = "rgb";
  config.model.num_classes = 100000;
  config.data.annotations = root;
  config.data.videos = ".";
  pickle_ = LoadDataset(config, "");
  for (const Sample& sample : pickle_.samples) {
    clips_.emplace(fs::path(sample.id).filename().string(), &sample);
  }
}

std::string PoseSource::Find(const std::string& stem) const {
  if (!clips_.empty()) return root_;
  const fs::path path = fs::path(root_) / stem;
  const std::string base = path.string();
  const fs::path folder = path.parent_path();
  const std::string name = NameOf(stem);
  for (const std::string& file :
       {base + ".json", base + ".npz", (folder / ("results_" + name + ".json")).string()}) {
    if (IsFile(file)) return file;
  }
  for (const char* ending : {"", "_json", "_keypoints"}) {
    if (IsFolder(base + ending)) return base + ending;
  }
  if (!OpenPoseFrames(folder.string(), name + "_").empty()) return folder.string();
  return "";
}

std::vector<std::string> PoseSource::FilesOf(const std::string& path,
                                             const std::string& stem) const {
  if (!IsFolder(path)) {
    return IsFile(path) ? std::vector<std::string>{path} : std::vector<std::string>();
  }
  std::vector<std::string> frames = OpenPoseFrames(path, NameOf(stem) + "_");
  if (!frames.empty()) return frames;
  for (const char* file : {"alphapose-results.json", "alphapose_results.json"}) {
    if (IsFile(path + "/" + file)) return {path + "/" + file};
  }
  return OpenPoseFrames(path, "");
}

DetectedPoses PoseSource::ReadFolder(const std::string& folder, const std::string& stem) const {
  const std::vector<std::string> files = FilesOf(folder, stem);
  if (files.empty()) {
    throw Error("the folder holds no *_keypoints.json of OpenPose", folder,
                "name the folder that OpenPose wrote with --write_json");
  }
  if (!EndsWith(files.front(), kOpenPoseEnding)) {
    return ParseKeypointJson(ReadFile(files.front(), kLargestJson), first_image_, files.front());
  }
  DetectedPoses poses;
  for (const std::string& frame : files) {
    AddOpenPoseFrame(ReadFile(frame, kLargestJson), NumberInName(frame) - first_image_, frame,
                     &poses);
  }
  return poses;
}

DetectedPoses PoseSource::Read(const std::string& path, const std::string& stem) const {
  if (IsFolder(path)) return ReadFolder(path, stem);
  if (EndsWith(path, ".json")) {
    return ParseKeypointJson(ReadFile(path, kLargestJson), first_image_, path);
  }
  if (EndsWith(path, ".npz")) return PosesFromArrays(ReadNpz(path), path);
  if (path == root_ && !clips_.empty()) {
    const std::string name = NameOf(stem);
    auto found = clips_.find(name);
    for (const char* extension : {".mp4", ".avi"}) {
      if (found == clips_.end()) found = clips_.find(name + extension);
    }
    if (found != clips_.end()) return PosesFromSample(*found->second, path);
    throw Error("there is no annotation of '" + name + "'", path,
                "its frame_dir must be the video's name without extension");
  }
  throw Error("this is not a pose file", path,
              "use .json, .npz, a folder of OpenPose, or --pose FILE.pkl");
}

}  // namespace kinefit
