#pragma once

#include <cstdint>
#include <string>

namespace kinefit {

// Lays the videos of a set out as recordings of one's own are: `folder`/CLASS/CLIP.mp4, and beside
// each the poses as the JSON that AlphaPose and others write. The videos are moved. `held_back`
// clips, the last ones, go to `folder`/new instead. Returns the clips laid out. Throws Error.
int64_t LayOutRecordings(const std::string& annotations, const std::string& videos,
                         const std::string& classes, const std::string& folder, int64_t held_back);

}  // namespace kinefit
