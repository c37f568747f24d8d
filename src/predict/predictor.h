#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"
#include "model/network.h"

namespace kinefit {

struct Prediction {
  int64_t label = 0;
  std::string name;
  double score = 0;  // fused, normalised to sum 1 over the classes
  std::vector<std::pair<std::string, double>> per_stream;
};

// A trained network ready to be used on files: config and class names come from the checkpoint.
// Not thread-safe.
class Predictor {
 public:
  // Throws Error if the checkpoint is not one kinefit wrote (no effective config in it), or if the
  // device that `overrides` ask for is not here. The device of its training is used where there is
  // one, else the CPU: a network trained on a GPU is of use on a machine that has none.
  explicit Predictor(const std::string& checkpoint, const std::vector<std::string>& overrides = {});
  // Its `device` is the one that is used.
  const Config& config() const { return config_; }
  // Which device is used, and which the training used if that was another; one line without its
  // end.
  std::string DeviceText() const;
  // The classes, best first, at most `top`. `pose_file`: an annotation pickle with the clip's entry
  // (or exactly one entry), or a .npz with `keypoint` [M,T,V,2] (and `keypoint_score` [M,T,V]).
  // Either path may be empty if the network has no such stream.
  std::vector<Prediction> Predict(const std::string& video, const std::string& pose_file,
                                  int64_t clips, int64_t top);

 private:
  Config config_;
  std::string trained_on_;  // if that was another device
  bool renamed_ = false;  // an older version wrote the checkpoint under another type
  std::vector<std::string> class_names_;
  std::unique_ptr<Network> network_;
};

}  // namespace kinefit
