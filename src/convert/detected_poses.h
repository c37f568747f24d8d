#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataset/sample.h"

namespace kinefit {

// A person found in one frame of a video.
struct Detection {
  int64_t frame = 0;               // of the video, from 0
  int64_t track = -1;              // the same for one person from frame to frame; -1 = not known
  float score = 0;                 // how sure; only compared within one file
  std::vector<float> xy;           // [V, 2] pixels of the video
  std::vector<float> joint_score;  // [V], 0 to 1
};

// What a pose file says about one video.
struct DetectedPoses {
  int64_t joints = 0;                 // V; 0 if there is no detection at all
  std::vector<Detection> detections;  // in the order of their frames
  int64_t frames = 0;                 // that the file covers at least
  int64_t width = 0;                  // of the image the joints refer to; 0 = not said
  int64_t height = 0;
  bool every_frame = false;  // the file has a pose for each frame of its video, as arrays do
  std::string order;         // how its arrays seem to be ordered if not as they should; else ""
};

constexpr int64_t kMostDetectedJoints = 1024;
constexpr int64_t kMostDetectedFrames = int64_t{1} << 24;

// Appends a detection and checks it: as many joints as the others; coordinates that are not finite
// or more than a million pixels away, and scores that are not finite, make a joint unseen (zeros);
// scores are cut to 0..1. Throws Error naming `where` for another number of joints or an impossible
// frame.
void AddDetection(Detection detection, const std::string& where, DetectedPoses* poses);

// Whether all joints that were seen lie within 0..1 and not on whole numbers only: shares of an
// image's size instead of pixels, as MediaPipe and others write them.
bool AreNormalised(const DetectedPoses& poses);

// Turns shares of an image's size into pixels.
void Multiply(int64_t width, int64_t height, DetectedPoses* poses);

// Keeps the 17 joints of COCO's body, which those of Halpe (26, 136) and COCO-WholeBody (133) begin
// with. False, and nothing is changed, for other numbers of joints.
bool KeepBody(DetectedPoses* poses);

// Whether the frames seem to be counted from 1 in a video of `frames` frames: nobody is in frame 0,
// and the last pose is one frame behind the video's end.
bool CountFromOne(const DetectedPoses& poses, int64_t frames);

// Orders the detections by frame, keeping the hundred best of a frame that has more, and gives
// those a track that have none: if any has none, all are followed by the overlap (intersection over
// union) of the boxes around their joints, over gaps of up to thirty frames.
void FollowTracks(DetectedPoses* poses);

// The persons of the frames [first, first + frames): [M, frames, V] with M at most `persons`, at
// least 1. Tracks with the highest sums of scores count; one track takes the place of another once
// that has ended, so that a person whose track was lost may go on in the same place. Where nobody
// was found there are zeros. REQUIRES: FollowTracks was called.
Pose PersonsOf(const DetectedPoses& poses, int64_t first, int64_t frames, int64_t persons);

}  // namespace kinefit
