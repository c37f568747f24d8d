#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "dataset/annotations.h"
#include "dataset/packed_format.h"

namespace kinefit {

// The pictures of one clip, ready to be stored: `table` without entry and checksums.
struct PackedClip {
  ClipTable table;
  std::vector<std::string> images;  // [frames] JPEG
};

// Makes the pictures of a sample. Called from several threads at once; an Error it throws (but for
// a ResourceError) means that the clip cannot be read and is left out.
using MakePackedClip = std::function<PackedClip(const Sample&)>;

struct PackRequest {
  std::string path;  // of the store
  PackSettings settings;
  // Every usable annotation, and those rejected.
  const Dataset* set = nullptr;
  std::vector<std::pair<std::string, std::vector<std::string>>> splits;  // name -> ids
  int threads = 1;
  double max_bad_share = 0.01;  // more unreadable clips than this stop it
  bool force = false;           // begin anew whatever is there
};

struct PackProgress {
  int64_t done = 0;  // clips
  int64_t total = 0;
  uint64_t bytes = 0;  // written so far
};

struct PackReport {
  bool was_complete = false;              // the store was there already and is as requested
  int64_t resumed = 0;                    // clips that an earlier, interrupted run had packed
  std::vector<Dataset::Rejected> failed;  // clips whose video could not be read
};

// Writes a packed store. What is written survives a killed process as `path`.partial; the next call
// with the same request goes on from there. The bytes are a function of the request (but for
// `threads`) and the pictures alone. Clips that could not be read are tried again when it goes on.
// Throws Error if `path` or its partial file is of another request (unless `force`), if too many
// clips cannot be read, and for what cannot be written.
PackReport WritePackedStore(const PackRequest& request, const MakePackedClip& make,
                            const std::function<void(const PackProgress&)>& progress = {});

}  // namespace kinefit
