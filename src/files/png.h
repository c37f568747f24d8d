#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kinefit {

// An 8-bit image, rows from top to bottom, pixels [height, width, channels]; 1 channel is grey, 3
// are RGB.
struct Image8 {
  int width = 0;
  int height = 0;
  int channels = 3;
  std::vector<uint8_t> pixels;
};

// The image as the bytes of a PNG file. Throws Error if sizes and pixels do not fit together.
std::string EncodePng(const Image8& image);
// The same, published atomically. Throws Error.
void WritePng(const std::string& path, const Image8& image);

}  // namespace kinefit
