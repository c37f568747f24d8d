#include <cstdint>
#include <cstdlib>
#include <string>

#include "files/error.h"
#include "memory_file.h"
#include "video/reader.h"

// FFmpeg itself is the system's and not instrumented: this looks at what the reader makes of what
// FFmpeg says about a damaged file. Frames that it gives must be those that it counts.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  kinefit::VideoInfo info;
  try {
    info = kinefit::ProbeVideo(file.path());
    if (info.frames < 1 || info.width < 1 || info.height < 1) std::abort();
  } catch (const kinefit::Error&) {
    info.frames = 0;
  }
  try {
    const std::vector<cv::Mat> frames = kinefit::DecodeFrames(file.path(), {3, 0, 3});
    if (frames.size() != 3 || frames[0].data != frames[2].data) std::abort();
    if (info.frames != 0 && info.frames < 4) std::abort();
    if (info.frames != 0 && (frames[0].cols != info.width || frames[0].rows != info.height)) {
      std::abort();
    }
  } catch (const kinefit::Error&) {
    if (info.frames >= 4) std::abort();
  }
  return 0;
}
