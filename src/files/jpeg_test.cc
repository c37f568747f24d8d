#include "files/jpeg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "files/error.h"

namespace kinefit {
namespace {

// Smooth in all three channels, as photographs mostly are.
std::vector<uint8_t> Picture(int width, int height) {
  std::vector<uint8_t> rgb;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      rgb.push_back(static_cast<uint8_t>(128 + 100 * std::sin(x * 0.05)));
      rgb.push_back(static_cast<uint8_t>(128 + 100 * std::cos(y * 0.04)));
      rgb.push_back(static_cast<uint8_t>(64 + (x + y) / 8));
    }
  }
  return rgb;
}

std::string Encode(const std::vector<uint8_t>& rgb, int width, int height, JpegOptions options) {
  JpegEncoder encoder;
  return encoder.Encode(rgb.data(), width, height, static_cast<size_t>(width) * 3, options);
}

std::vector<uint8_t> Decode(JpegDecoder& decoder, std::string_view jpeg, int width, int height) {
  std::vector<uint8_t> rgb(static_cast<size_t>(width) * height * 3);
  decoder.Decode(jpeg, width, height, rgb.data(), static_cast<size_t>(width) * 3);
  return rgb;
}

TEST(Jpeg, ComesBackCloseToWhatItWas) {
  JpegDecoder decoder;
  for (const auto& [width, height] : {std::pair{123, 77}, {256, 256}, {1, 1}, {17, 300}}) {
    for (const bool halve : {true, false}) {
      const std::vector<uint8_t> rgb = Picture(width, height);
      const std::string jpeg = Encode(rgb, width, height, {95, halve});
      const std::vector<uint8_t> back = Decode(decoder, jpeg, width, height);
      ASSERT_EQ(back.size(), rgb.size());
      double sum = 0;
      for (size_t i = 0; i < rgb.size(); ++i) sum += std::abs(rgb[i] - back[i]);
      EXPECT_LT(sum / static_cast<double>(rgb.size()), 2) << width << "x" << height;
    }
  }
}

TEST(Jpeg, SamePixelsSameBytesWhateverWasEncodedBefore) {
  const std::vector<uint8_t> rgb = Picture(90, 60);
  const std::vector<uint8_t> larger = Picture(400, 300);
  JpegEncoder encoder;
  const std::string once = encoder.Encode(rgb.data(), 90, 60, 270, {80, true});
  encoder.Encode(larger.data(), 400, 300, 1200, {30, false});
  EXPECT_EQ(encoder.Encode(rgb.data(), 90, 60, 270, {80, true}), once);
  EXPECT_LT(once.size(), Encode(rgb, 90, 60, {98, true}).size());
}

TEST(Jpeg, RefusesWhatItDoesNotExpect) {
  JpegDecoder decoder;
  const std::string jpeg = Encode(Picture(64, 48), 64, 48, {});
  EXPECT_THROW(Decode(decoder, jpeg, 48, 64), Error);
  EXPECT_THROW(Decode(decoder, "", 64, 48), Error);
  EXPECT_THROW(Decode(decoder, "no picture at all", 64, 48), Error);
  EXPECT_THROW(Encode(Picture(8, 8), 8, 8, {0, true}), Error);
  EXPECT_THROW(Encode(Picture(8, 8), 0, 8, {}), Error);
  EXPECT_EQ(Decode(decoder, jpeg, 64, 48).size(), 64U * 48 * 3);  // still of use
}

// Cut off anywhere it is an error: libjpeg alone would fill the rest with grey.
TEST(Jpeg, RefusesWhatIsCutOff) {
  JpegDecoder decoder;
  const std::string jpeg = Encode(Picture(64, 48), 64, 48, {});
  for (size_t size = 0; size + 2 < jpeg.size(); size += 7) {
    EXPECT_THROW(Decode(decoder, std::string_view(jpeg).substr(0, size), 64, 48), Error) << size;
  }
}

}  // namespace
}  // namespace kinefit
