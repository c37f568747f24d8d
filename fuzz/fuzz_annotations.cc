#include <cstdint>
#include <cstdlib>
#include <string>

#include "dataset/annotations.h"
#include "files/error.h"
#include "memory_file.h"

namespace {

// What the rest of the program relies on without looking again.
void CheckPromises(const kinefit::Dataset& dataset, const kinefit::Config& config) {
  if (dataset.samples.empty()) std::abort();
  for (const kinefit::Sample& sample : dataset.samples) {
    const kinefit::Pose& pose = sample.pose;
    const size_t joints = static_cast<size_t>(pose.persons * pose.frames * pose.joints);
    const bool whole = pose.frames == sample.total_frames && pose.joints == 3 && joints > 0 &&
                       pose.score.size() == joints && pose.xy.size() == 2 * joints;
    const bool named = sample.label >= 0 && sample.label < config.model.num_classes &&
                       sample.width > 0 && sample.height > 0;
    if (!whole || !named) std::abort();
  }
}

void Load(kinefit::Config config, const char* model, const char* split) {
  config.model.type = model;
  try {
    CheckPromises(kinefit::LoadDataset(config, split), config);
  } catch (const kinefit::Error&) {
  }
}

}  // namespace

// The input is an annotation pickle.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  kinefit::Config config;
  config.model.num_classes = 3;
  config.model.pose.in_channels = 3;
  config.data.annotations = file.path();
  config.data.videos = "videos";
  Load(config, "pose", "");      // flat joints are moved together
  Load(config, "rgbpose", "t");  // and here they are not
  return 0;
}
