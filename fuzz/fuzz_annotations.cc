#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "dataset/annotations.h"
#include "dataset/check.h"
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

// What was cleaned has nothing in it that stops training.
void CheckAndClean(const std::string& path) {
  static const std::string cleaned = "/dev/shm/kinefit-fuzz-" + std::to_string(getpid()) + ".pkl";
  try {
    const kinefit::Pickle pickle = kinefit::Pickle::Load(path);
    kinefit::CheckPlan plan = kinefit::PlanCheck(pickle, path, "", ".mp4");
    plan.threads = 1;
    kinefit::CleanAnnotations(pickle, plan, kinefit::CheckDataset(pickle, plan), cleaned);
  } catch (const kinefit::Error&) {
    return;
  }
  try {
    const kinefit::Pickle pickle = kinefit::Pickle::Load(cleaned);
    kinefit::CheckPlan plan = kinefit::PlanCheck(pickle, cleaned, "", ".mp4");
    plan.threads = 1;
    const kinefit::CheckResult result = kinefit::CheckDataset(pickle, plan);
    for (const kinefit::Finding& finding : result.findings) {
      if (finding.severity != kinefit::Severity::kStops) continue;
      std::fprintf(stderr, "%s %s: %s\n", finding.code.c_str(), finding.id.c_str(),
                   finding.message.c_str());
      std::abort();
    }
  } catch (const kinefit::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::abort();
  }
  unlink(cleaned.c_str());
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
  CheckAndClean(file.path());
  return 0;
}
