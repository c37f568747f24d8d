#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kinefit {

class PackedStore;

// 2D joints of one clip, in pixels of the original video.
struct Pose {
  int64_t persons = 0;       // M
  int64_t frames = 0;        // T
  int64_t joints = 0;        // V
  std::vector<float> xy;     // [M, T, V, 2]
  std::vector<float> score;  // [M, T, V]; 1 where the annotation has no scores
};

// One annotated clip. Owns its pose. Its pictures are in a video, which is only named, or in a
// packed store; ReadFrames (frames.h) reads either.
struct Sample {
  std::string id;     // `frame_dir` (or `filename`) of the annotation; unique in a set
  std::string video;  // path of the video file; "" for pose-only use and in a store
  int64_t label = 0;
  int64_t width = 0;  // of the image the joints refer to
  int64_t height = 0;
  int64_t first_frame = 0;   // of the clip in its video; above 0 for a segment of a longer one
  int64_t total_frames = 0;  // of the clip, from first_frame on
  // Frame of the clip that each of the pose's frames is of, where some have been left out for want
  // of a pose: [T]; empty: frame t is of frame t. For showing the two together.
  std::vector<int64_t> frame_numbers;
  Pose pose;
  std::shared_ptr<const PackedStore> store;  // null: the pictures are in `video`
  size_t store_entry = 0;                    // of the clip in `store`
};

}  // namespace kinefit
