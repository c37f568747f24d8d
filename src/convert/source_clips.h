#pragma once

#include <string>
#include <vector>

#include "convert/import_set.h"
#include "convert/manifest.h"

namespace kinefit {

// What is to be imported, found but not read: each video (or pose file alone) with its clips.
struct SourceVideo {
  std::string path;  // absolute; the pose file where there are no videos
  std::string name;  // below SourceClips::root
  std::string stem;  // the same without extension
  std::string pose;  // absolute, from the manifest; "" = to be found
  bool is_video = true;
  std::vector<size_t> clips;  // indices of SourceClips::entries
};

struct SourceClips {
  std::string root;  // the folder all paths are below
  std::vector<ManifestEntry> entries;
  std::vector<SourceVideo> videos;  // sorted by name
  std::vector<std::string> classes;
  std::vector<int64_t> labels;           // of the entries
  std::vector<std::string> passed_over;  // files that are neither videos nor poses
};

// Looks through a folder of classes or a manifest. Throws Error for an empty source, files outside
// of class folders, labels that are not among `options.classes`.
SourceClips FindSourceClips(const ImportOptions& options);

}  // namespace kinefit
