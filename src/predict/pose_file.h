#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"
#include "dataset/sample.h"

namespace kinefit {

// Joints of one clip as a file has them.
struct PoseFile {
  std::string id;  // of the annotation; the file's stem for a .npz
  Pose pose;
  int64_t width = 0;  // of the image the joints refer to; 0 = the file does not say
  int64_t height = 0;
};

// Reads joints for prediction, from
// - a .npz with `keypoint` [M, T, V, 2] or [T, V, 2] (or with the score as a third coordinate),
//   optionally `keypoint_score` [M, T, V] or [T, V] and `img_shape` (height, width);
// - an annotation pickle (docs/formats/annotation.md): the entry whose frame_dir or filename is
//   `clip` or ends in "/clip" (extensions left out), or the only entry. A label is not needed.
// - any other file or folder that `kinefit data import` reads (convert/pose_source.h), with frames
//   counted from 0; the two persons with the highest scores.
// `video_frames`: of the clip, 0 if not known. `config` says how many joints the network wants.
// Throws Error naming the file for anything malformed, NaN coordinates, another number of joints,
// or a clip that cannot be found.
PoseFile ReadPoseFile(const std::string& path, const std::string& clip, const Config& config,
                      int64_t video_frames = 0);

// The pose file beside a video that `kinefit data import` would find; "" if there is none.
std::string FindPoseFile(const std::string& video);

}  // namespace kinefit
