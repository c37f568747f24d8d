#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kinefit {

// One labelled clip: a video, or a segment of one.
struct ManifestEntry {
  std::string path;   // of the video (or pose file), as written
  std::string label;  // name of the class
  std::string pose;   // pose file or folder, as written; "" = to be found
  std::string split;  // "" = none given
  // The segment, in seconds or in frames from 0; the end is the first frame that is not in it.
  std::optional<double> start;
  std::optional<double> end;
  std::optional<int64_t> start_frame;
  std::optional<int64_t> end_frame;
  std::string where;  // "file:line" or "file: clip 3", for messages
};

// A CSV text: the first line names the columns, of which path and label must be there and pose,
// split, start, end, start_frame, end_frame may be; fields in double quotes may hold commas, quotes
// ("") and line ends. Throws Error with file:line for anything else.
std::vector<ManifestEntry> ParseManifestCsv(std::string_view text, const std::string& origin);

// A JSON text: a list of objects with the same keys, or {"clips": [...]}. Throws Error.
std::vector<ManifestEntry> ParseManifestJson(std::string_view text, const std::string& origin);

}  // namespace kinefit
