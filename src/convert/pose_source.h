#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convert/detected_poses.h"
#include "dataset/annotations.h"
#include "files/npy.h"

namespace kinefit {

// Finds and reads the pose files of videos. Thread-safe once made.
class PoseSource {
 public:
  // `root`: the folder that pose files lie in, arranged as the videos are, or an annotation pickle
  // with the poses of all clips (mmaction2's, pyskl's; found by the video's name). `first_image`:
  // see ParseKeypointJson. Throws Error.
  PoseSource(const std::string& root, int64_t first_image);

  // The pose file or folder of the video `stem` (its path below the root, without extension): for
  // "walk/a" the first of walk/a.json, walk/a.npz, walk/results_a.json, the folders walk/a,
  // walk/a_json and walk/a_keypoints, and walk itself if it has a_000000000000_keypoints.json.
  // "" if there is none.
  std::string Find(const std::string& stem) const;

  // The files that Read would read, sorted; none where there is nothing to read.
  std::vector<std::string> FilesOf(const std::string& path, const std::string& stem) const;

  // Reads `path`, which Find gave or a manifest names: .json (ParseKeypointJson), .npz (keypoint
  // [M, T, V, 2 or 3] or [T, V, 2 or 3], keypoint_score, img_shape), .pkl (the clip called like the
  // stem), a folder of OpenPose's *_keypoints.json or with AlphaPose's alphapose-results.json.
  // Throws Error.
  DetectedPoses Read(const std::string& path, const std::string& stem) const;

 private:
  DetectedPoses ReadFolder(const std::string& folder, const std::string& stem) const;

  std::string root_;
  int64_t first_image_;
  std::map<std::string, const Sample*> clips_;  // of the pickle, by name without folder and ending
  Dataset pickle_;
};

// Joints as arrays have them, as detections: person m is track m; persons with zeros only are not
// there. Throws Error naming `where`.
DetectedPoses PosesFromArrays(const NpzArrays& arrays, const std::string& where);

}  // namespace kinefit
