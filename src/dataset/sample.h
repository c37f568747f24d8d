#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kinefit {

// 2D joints of one clip, in pixels of the original video.
struct Pose {
  int64_t persons = 0;       // M
  int64_t frames = 0;        // T
  int64_t joints = 0;        // V
  std::vector<float> xy;     // [M, T, V, 2]
  std::vector<float> score;  // [M, T, V]; 1 where the annotation has no scores
};

// One annotated clip. Owns its pose; the video is only named.
struct Sample {
  std::string id;     // `frame_dir` (or `filename`) of the annotation; unique in a set
  std::string video;  // path of the video file; "" for pose-only use
  int64_t label = 0;
  int64_t width = 0;  // of the image the joints refer to
  int64_t height = 0;
  int64_t first_frame = 0;   // of the clip in its video; above 0 for a segment of a longer one
  int64_t total_frames = 0;  // of the clip, from first_frame on
  Pose pose;
};

}  // namespace kinefit
