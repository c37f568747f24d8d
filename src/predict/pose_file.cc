#include "predict/pose_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "convert/pose_source.h"
#include "dataset/annotations.h"
#include "files/error.h"
#include "files/npy.h"
#include "files/pickle.h"

namespace kinefit {
namespace {

constexpr int64_t kLargestSide = 65536;  // of an image
constexpr float kFarthestJoint = 1e6F;   // pixels

std::string Stem(const std::string& name) {
  const std::filesystem::path path(name);
  // Only what looks like a video's extension goes: "S001.v2" is a name of its own.
  const std::string extension = path.extension().string();
  for (const char* known : {".mp4", ".avi", ".mkv", ".mov", ".webm", ".npz", ".pkl"}) {
    if (extension == known) return path.stem().string();
  }
  return path.filename().string();
}

// Joints of one clip and what the file calls them, from either kind of file.
struct Arrays {
  NdArrayView keypoint;
  NdArrayView score;
  bool scored = false;
};

void CheckFinite(const Pose& pose, const std::string& where) {
  for (size_t i = 0; i < pose.xy.size(); ++i) {
    if (std::isfinite(pose.xy[i]) && std::abs(pose.xy[i]) <= kFarthestJoint) continue;
    const int64_t joint = static_cast<int64_t>(i) / 2 % pose.joints;
    const int64_t frame = static_cast<int64_t>(i) / 2 / pose.joints % pose.frames;
    throw Error("joint " + std::to_string(joint) + " of frame " + std::to_string(frame) +
                    " has a coordinate that is NaN, infinite or far beyond any image",
                where, "give joints that were not seen the coordinates 0, 0 and the score 0");
  }
  for (const float score : pose.score) {
    if (!std::isfinite(score))
      throw Error("a joint has a score that is NaN or infinite", where,
                  "write 0 for joints that were not found");
  }
}

Pose MakePose(const Arrays& arrays, const std::string& where) {
  std::vector<int64_t> shape = arrays.keypoint.shape;
  if (shape.size() == 3) shape.insert(shape.begin(), 1);  // one person
  if (shape.size() != 4 || (shape[3] != 2 && shape[3] != 3) || arrays.keypoint.numel() == 0) {
    throw Error("keypoint has shape " + arrays.keypoint.ShapeText() +
                    ", not [persons, frames, joints, 2 or 3]",
                where, "save it with that shape");
  }
  Pose pose{shape[0], shape[1], shape[2], {}, {}};
  const std::vector<float> values = arrays.keypoint.ToFloats();
  const size_t width = static_cast<size_t>(shape[3]);
  for (size_t i = 0; i < values.size(); i += width) {
    pose.xy.push_back(values[i]);
    pose.xy.push_back(values[i + 1]);
    pose.score.push_back(width == 3 ? values[i + 2] : 1.0F);
  }
  if (arrays.scored) {
    std::vector<int64_t> score_shape = arrays.score.shape;
    if (score_shape.size() == 2) score_shape.insert(score_shape.begin(), 1);
    shape.pop_back();
    if (score_shape != shape) {
      throw Error("keypoint_score has shape " + arrays.score.ShapeText() + ", keypoint " +
                      arrays.keypoint.ShapeText(),
                  where, "save scores as [persons, frames, joints]");
    }
    pose.score = arrays.score.ToFloats();
  }
  CheckFinite(pose, where);
  return pose;
}

void SetImageShape(const std::vector<int64_t>& shape, const std::string& where, PoseFile* file) {
  const bool usable = shape.size() == 2 && std::all_of(shape.begin(), shape.end(), [](int64_t s) {
                        return s >= 1 && s <= kLargestSide;
                      });
  if (!usable)
    throw Error("img_shape is not (height, width) of an image", where,
                "write two positive integers");
  file->height = shape[0];
  file->width = shape[1];
}

PoseFile ReadNpzPose(const std::string& path) {
  const NpzArrays arrays = ReadNpz(path);
  const auto keypoint = arrays.find("keypoint");
  if (keypoint == arrays.end()) {
    throw Error("there is no array 'keypoint'", path,
                "save joints in pixels as keypoint [persons, frames, joints, 2]");
  }
  PoseFile file;
  file.id = Stem(path);
  Arrays joints{keypoint->second.view(), {}, false};
  const auto score = arrays.find("keypoint_score");
  if (score != arrays.end()) {
    joints.score = score->second.view();
    joints.scored = true;
  }
  file.pose = MakePose(joints, path);
  const auto shape = arrays.find("img_shape");
  if (shape != arrays.end()) SetImageShape(shape->second.ToInts("img_shape"), path, &file);
  return file;
}

std::string IdOf(const PickleValue& annotation, const std::string& where) {
  for (const char* key : {"frame_dir", "filename"}) {
    if (annotation.Has(key)) {
      return std::string(annotation.Find(key).AsString(where + "." + key));
    }
  }
  return "";
}

// The annotation of `clip` in a list of them, or the list's only one.
PickleValue FindClip(const PickleValue& list, const std::string& clip, const std::string& path) {
  if (list.size() == 1) return list[0];
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = path + ": annotations[" + std::to_string(i) + "]";
    if (Stem(IdOf(list[i], where)) == Stem(clip)) return list[i];
  }
  throw Error("none of the " + std::to_string(list.size()) + " annotations is of the clip '" +
                  Stem(clip) + "'",
              path, "its frame_dir must be the video's file name without the extension");
}

// Flat poses with frame numbers (K400): left to the data set's own reader.
PoseFile ReadFlatPose(const std::string& path, const std::string& id, Config config) {
  constexpr int64_t kAnyLabel = 10000;
  config.data.annotations = path;
  config.data.classes = "";
  config.data.videos = ".";
  config.model.num_classes = kAnyLabel;
  const Dataset dataset = LoadDataset(config, "");
  for (const Sample& sample : dataset.samples) {
    if (sample.id == id) return {id, sample.pose, sample.width, sample.height};
  }
  for (const Dataset::Rejected& rejected : dataset.rejected) {
    if (rejected.id == id)
      throw Error(rejected.reason, path + ": '" + id + "'", "correct the annotation");
  }
  throw Error("the annotation of '" + id + "' cannot be read", path,
              "docs/formats/annotation.md says what an annotation holds");
}

PoseFile ReadPicklePose(const std::string& path, const std::string& clip, const Config& config) {
  const Pickle pickle = Pickle::Load(path);
  PickleValue list = pickle.root();
  PickleValue annotation = list;
  if (!list.Has("keypoint")) {  // not one annotation alone
    if (list.is(PickleKind::kDict)) list = list.Find("annotations");
    if (!list.is_sequence() || list.size() == 0) {
      throw Error("this pickle holds no annotations", path,
                  "expected a list of annotations, a dict with 'annotations', or one annotation");
    }
    annotation = FindClip(list, clip, path);
  }
  PoseFile file;
  file.id = IdOf(annotation, path);
  const std::string where = path + ": '" + file.id + "'";
  if (annotation.Has("frame_inds")) return ReadFlatPose(path, file.id, config);
  bool found = false;
  const PickleValue keypoint = annotation.Find("keypoint", &found);
  if (!found)
    throw Error("the annotation has no 'keypoint'", where,
                "docs/formats/annotation.md says what an annotation holds");
  Arrays joints{keypoint.AsArray(where + ".keypoint"), {}, false};
  const PickleValue score = annotation.Find("keypoint_score");
  if (!score.is_none()) {
    joints.score = score.AsArray(where + ".keypoint_score");
    joints.scored = true;
  }
  file.pose = MakePose(joints, where);
  const PickleValue shape = annotation.Find("img_shape");
  if (shape.is_sequence()) {
    std::vector<int64_t> sides;
    for (size_t i = 0; i < shape.size(); ++i) sides.push_back(shape[i].AsInt(where + ".img_shape"));
    SetImageShape(sides, where, &file);
  }
  return file;
}

// How many joints make the heatmap channels of this network; -1 if any number does.
int64_t WantedJoints(const Config& config) {
  const HeatmapConfig& heatmap = config.data.heatmap;
  if (!config.model.has_pose() || !heatmap.with_joints) return -1;
  const auto limbs = static_cast<int64_t>(config.data.limbs.size());
  return config.model.pose.in_channels - (heatmap.with_limbs ? limbs : 0);
}

// What pose estimators write, through the code that imports it.
PoseFile ReadDetected(const std::string& path, const std::string& clip, int64_t wanted,
                      int64_t video_frames) {
  constexpr int64_t kPersons = 2;
  constexpr int64_t kBody = 17;
  namespace fs = std::filesystem;
  const std::string folder = fs::path(path).parent_path().string();
  const PoseSource source(folder.empty() ? "." : folder, 0);
  DetectedPoses poses = source.Read(path, Stem(clip));
  if (poses.detections.empty()) throw Error("the pose file holds no pose", path, "name another");
  if (wanted == kBody) KeepBody(&poses);
  if (video_frames > 0 && CountFromOne(poses, video_frames)) {
    for (Detection& detection : poses.detections) --detection.frame;
    --poses.frames;
  }
  FollowTracks(&poses);
  // Frames behind the last one in which somebody was found are in the file of few estimators.
  const int64_t frames = std::max(poses.frames, video_frames);
  return {Stem(path), PersonsOf(poses, 0, frames, kPersons), poses.width, poses.height};
}

// Shares of the image's size would all be drawn in one corner.
void RefuseShares(const PoseFile& file, const std::string& path) {
  bool fractions = false;
  for (size_t i = 0; i < file.pose.score.size(); ++i) {
    if (file.pose.score[i] <= 0) continue;
    for (const float value : {file.pose.xy[2 * i], file.pose.xy[2 * i + 1]}) {
      if (value < -1 || value > 2) return;
      fractions = fractions || value != std::floor(value);
    }
  }
  if (!fractions) return;
  throw Error("all joints lie between 0 and 1: they are shares of the image's size, not pixels",
              path, "multiply x by the image's width and y by its height");
}

}  // namespace

std::string FindPoseFile(const std::string& video) {
  const std::filesystem::path path(video);
  const std::string folder = path.parent_path().string();
  return PoseSource(folder.empty() ? "." : folder, 0).Find(path.stem().string());
}

PoseFile ReadPoseFile(const std::string& path, const std::string& clip, const Config& config,
                      int64_t video_frames) {
  const std::string extension = std::filesystem::path(path).extension().string();
  const int64_t wanted = WantedJoints(config);
  PoseFile file;
  if (extension == ".npz") {
    file = ReadNpzPose(path);
  } else if (extension == ".pkl" || extension == ".pickle") {
    file = ReadPicklePose(path, clip, config);
  } else {
    file = ReadDetected(path, clip, wanted, video_frames);
  }
  RefuseShares(file, path);
  if (wanted >= 0 && file.pose.joints != wanted) {
    throw Error("the poses have " + std::to_string(file.pose.joints) +
                    " joints, the network was trained on " + std::to_string(wanted),
                path, "use the pose estimator and joint order of the training data");
  }
  return file;
}

}  // namespace kinefit
