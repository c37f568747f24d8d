#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "files/error.h"
#include "files/npy.h"
#include "files/zip.h"
#include "memory_file.h"
#include "predict/pose_file.h"

namespace {

void Read(const std::string& path) {
  kinefit::Config config;
  config.model.type = "pose";
  config.model.pose.in_channels = 2;
  try {
    const kinefit::PoseFile file = kinefit::ReadPoseFile(path, "clip.mp4", config);
    const kinefit::Pose& pose = file.pose;
    const size_t joints = static_cast<size_t>(pose.persons * pose.frames * pose.joints);
    if (pose.joints != 2 || joints == 0 || pose.score.size() != joints ||
        pose.xy.size() != 2 * joints) {
      std::abort();
    }
    for (const float value : pose.xy) {
      if (!std::isfinite(value)) std::abort();
    }
  } catch (const kinefit::Error&) {
  }
}

}  // namespace

// The first byte says what the rest is: an annotation pickle, a whole .npz, or the keypoint.npy of
// a .npz whose checksums are right and which has scores and an image size.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = "/dev/shm/kinefit-fuzz-" + std::to_string(getpid()) + ".npz";
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      Read(MemoryFile(data + 1, size - 1).path());
      return 0;
    case 1:
      kinefit::PublishFile(path, rest);
      break;
    case 2: {
      kinefit::ZipWriter zip(path);
      zip.Add("keypoint.npy", rest);
      zip.Add("keypoint_score.npy",
              kinefit::EncodeNpy(kinefit::NdArray::FromFloats({1, 1, 2}, {1, 0.5F}).view()));
      zip.Add("img_shape.npy",
              kinefit::EncodeNpy(kinefit::NdArray::FromInts({2}, {48, 64}).view()));
      zip.Commit();
      break;
    }
  }
  Read(path);
  unlink(path.c_str());
  return 0;
}
