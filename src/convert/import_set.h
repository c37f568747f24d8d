#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "convert/annotation_file.h"

namespace kinefit {

struct ImportOptions {
  // A folder with one subfolder per class, holding videos (or, if there is no video at all, pose
  // files); or a manifest, .csv or .json, whose paths count from its own folder.
  std::string source;
  std::string out;              // folder, made if missing
  std::string pose;             // where pose files lie; "" = beside the videos. See PoseSource
  std::string joints;           // a joint layout or its .toml; "" = the one that has so many joints
  std::string classes;          // file with one class name per line; "" = the labels in order
  int64_t persons = 2;          // kept per clip
  int64_t first_image = 0;      // number of a video's first frame in the pose files
  int64_t width = 0;            // of the image the joints refer to, where neither a video nor the
  int64_t height = 0;           // pose file says it
  double test_share = 0.2;      // of the videos of each class, where no splits are given
  uint64_t seed = 0;            // another seed, another choice of them
  int threads = 0;              // 0 = one per core
  double max_bad_share = 0.01;  // more clips than this that cannot be used are an Error
};

// Makes an annotation file of people's own recordings: `out`/annotations.pkl, classes.txt,
// report.json, and set.toml to include. Videos stay where they are. Frames in which nobody was
// found have zeros and stay at their time. Without splits in the manifest, videos are dealt out to
// "train" and "test" by their names and the seed, so that all segments of a video are on one
// side. The bytes written are the same for any number of threads. What is done of a video is kept
// in `out`/.parts (PartFolder), so that a run that was cut off goes on where it was. `progress` is
// told videos done and in all, from one thread at a time. Throws Error.
ConversionReport ImportSet(const ImportOptions& options,
                           const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace kinefit
