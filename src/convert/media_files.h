#pragma once

#include <string>
#include <vector>

namespace kinefit {

// Whether the name ends like a video file (.mp4, .avi, .mkv, .mov, .mts, .3gp, ...), in either
// case.
bool IsVideoName(const std::string& name);

// Whether the file `name` below `folder` is a video: by its name, or, if that says nothing, because
// FFmpeg opens it as one.
bool IsVideoFile(const std::string& folder, const std::string& name);

// Every regular file below `folder`, as paths relative to it, sorted. Links to files count, links
// to folders are not followed. Throws Error for a folder that does not exist or cannot be read.
std::vector<std::string> ListFiles(const std::string& folder);

}  // namespace kinefit
