#pragma once

#include <string>
#include <vector>

namespace kinefit {

// Whether the name ends like a video file: .mp4, .avi, .mkv, .mov, .webm, .mpg, .mpeg, .m4v, .wmv,
// in either case.
bool IsVideoName(const std::string& name);

// Every regular file below `folder`, as paths relative to it, sorted. Links to files count, links
// to folders are not followed. Throws Error for a folder that does not exist or cannot be read.
std::vector<std::string> ListFiles(const std::string& folder);

}  // namespace kinefit
