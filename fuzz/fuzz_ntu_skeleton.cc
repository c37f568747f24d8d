#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "convert/ntu_performers.h"
#include "convert/ntu_skeleton.h"
#include "files/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kinefit::NtuRecording recording =
        kinefit::ParseNtuSkeleton({reinterpret_cast<const char*>(data), size}, "fuzz");
    const kinefit::NtuPerformers performers = kinefit::ChoosePerformers(recording);
    const kinefit::Pose& pose = performers.pose;
    if (pose.frames != static_cast<int64_t>(recording.frames.size()) || pose.persons < 1 ||
        pose.persons > 2 || pose.xy.size() != 2 * pose.score.size()) {
      std::abort();
    }
    for (const float value : pose.xy) {
      if (!std::isfinite(value)) std::abort();
    }
  } catch (const kinefit::Error&) {
  }
  return 0;
}
