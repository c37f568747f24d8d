#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/annotation_source.h"
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

// Reads the annotations named by `config.data` and keeps `split` ("" = everything): a packed store
// (packed_store.h), or a pickle: a dict with `split` and `annotations`, or a plain list; float16,
// float32 or float64; one or more persons; K400-style flat keypoints with `frame_inds`. Formats:
// docs/formats/annotation.md. Throws Error for a file that is not such a pickle, an unknown or
// empty split, labels outside model.num_classes, or a joint count that does not match
// model.pose.in_channels. From a store, also for boxes made with other data.compact settings than
// the config's.
Dataset LoadDataset(const Config& config, const std::string& split);

// The same of the file and the split that the configuration names for a part of a run.
Dataset LoadDataset(const Config& config, Part part);
Dataset LoadDataset(const Config& config, const AnnotationSource& source);

// Every split of an annotation pickle: its name and its ids, in the file's order. A plain list has
// none. Throws Error as LoadDataset does.
std::vector<std::pair<std::string, std::vector<std::string>>> LoadSplits(const std::string& path);

}  // namespace kinefit
