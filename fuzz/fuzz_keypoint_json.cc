#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "convert/detected_poses.h"
#include "convert/keypoint_json.h"
#include "files/error.h"

namespace {

void Use(kinefit::DetectedPoses poses) {
  kinefit::FollowTracks(&poses);
  const kinefit::Pose pose = kinefit::PersonsOf(poses, 1, 20, 3);
  if (pose.persons < 1 || pose.persons > 3 || pose.frames != 20) std::abort();
  for (const float value : pose.xy) {
    if (!std::isfinite(value)) std::abort();
  }
  for (const float value : pose.score) {
    if (!(value >= 0 && value <= 1)) std::abort();
  }
}

}  // namespace

// The same bytes as poses of a video and as a frame of OpenPose.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    Use(kinefit::ParseKeypointJson(text, 0, "fuzz"));
  } catch (const kinefit::Error&) {
  }
  try {
    kinefit::DetectedPoses poses;
    kinefit::AddOpenPoseFrame(text, 2, "fuzz", &poses);
    kinefit::AddOpenPoseFrame(text, 5, "fuzz", &poses);
    Use(std::move(poses));
  } catch (const kinefit::Error&) {
  }
  kinefit::NumberInName(text);
  return 0;
}
