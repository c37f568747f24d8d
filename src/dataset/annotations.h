#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"

namespace kinefit {

// The clips of one split, in the order of the annotation file.
struct Dataset {
  std::vector<Sample> samples;
  std::vector<std::string> class_names;  // config.data.classes, or "0".."num_classes-1"
  // Annotations that cannot be used (NaN joints, bad shapes, ...), with the reason. They are not in
  // `samples`; whether their share is fatal is decided by whoever asked (max_bad_share).
  struct Rejected {
    std::string id;
    std::string reason;
  };
  std::vector<Rejected> rejected;
};

// Reads the annotation pickle named by `config.data` and keeps `split` ("" = everything): a dict
// with `split` and `annotations`, or a plain list; float16, float32 or float64; one or more
// persons; K400-style flat keypoints with `frame_inds`. Formats: docs/formats/annotation.md.
// Throws Error for a file that is not such a pickle, an unknown or empty split, labels outside
// model.num_classes, or a joint count that does not match model.pose.in_channels.
Dataset LoadDataset(const Config& config, const std::string& split);

}  // namespace kinefit
