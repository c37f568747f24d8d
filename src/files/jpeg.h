#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace kinefit {

struct JpegOptions {
  int quality = 90;          // 1 to 100, libjpeg's scale
  bool halve_chroma = true;  // 4:2:0; else 4:4:4
};

// RGB pixels to baseline JPEG and back, on libjpeg-turbo. Both objects keep their memory between
// pictures: make one per thread and use it again. The same pixels and options make the same bytes.
class JpegEncoder {
 public:
  JpegEncoder();
  ~JpegEncoder();
  JpegEncoder(const JpegEncoder&) = delete;
  JpegEncoder& operator=(const JpegEncoder&) = delete;

  // `rgb`: `height` rows of `width` pixels, `stride` bytes from one row to the next. Throws Error
  // for a side outside 1 to 16384 or a quality outside 1 to 100.
  std::string Encode(const uint8_t* rgb, int width, int height, size_t stride,
                     const JpegOptions& options);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Decodes a baseline colour JPEG of exactly `width` x `height` pixels. Throws Error, without a
  // place, for anything else and for data that libjpeg would only warn of (cut off, damaged).
  void Decode(std::string_view jpeg, int width, int height, uint8_t* rgb, size_t stride);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kinefit
