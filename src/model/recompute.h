#pragma once

#include <map>
#include <string>
#include <vector>

#include "ops/bottleneck_stage.h"

namespace kinefit {

// What a network keeps of its parts between forward and backward. It changes memory and time,
// never what is computed: without `plain`, any two of them give the same bits.
struct Recompute {
  bool plain = false;  // the composition of ATen operations; autograd keeps what it likes
  // By segment ("rgb.stem", "rgb.layer1", ..., "pose.layer3"); absent: kConvolutions. Of a stem
  // anything else means that its convolution runs again.
  std::map<std::string, Keep> segments;

  Keep Of(const std::string& segment) const {
    const auto found = segments.find(segment);
    return found == segments.end() ? Keep::kConvolutions : found->second;
  }
};

// "none" (plain), "lean", "light", "block", "stage", "full": Keep in its order after "none".
// Optionally followed by exceptions: "light rgb.stem=lean rgb.layer1=block". `segments` are the
// network's. Throws Error naming `where` for anything else.
Recompute ParseRecompute(const std::string& text, const std::vector<std::string>& segments,
                         const std::string& where);
// The shortest text that ParseRecompute reads back.
std::string RecomputeText(const Recompute& recompute, const std::vector<std::string>& segments);
// Index of the segment that a layer belongs to, e.g. of "backbone.rgb_path.layer3.0.conv1" that of
// "rgb.layer3"; -1 for laterals, attention and heads.
int SegmentOfLayer(const std::string& layer, const std::vector<std::string>& segments);
// "lean", ...
std::string KeepText(Keep keep);
constexpr Keep kAllKeeps[] = {Keep::kConvolutions, Keep::kSpatial, Keep::kBlocks, Keep::kStage,
                              Keep::kStageBlocks};

}  // namespace kinefit
