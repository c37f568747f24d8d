#include "files/png.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cstring>

#include "files/error.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

std::vector<uint8_t> Decode(const std::string& bytes, int* width, int* height) {
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()), 0);
  image.format = PNG_FORMAT_RGB;
  *width = static_cast<int>(image.width);
  *height = static_cast<int>(image.height);
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  EXPECT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0);
  return pixels;
}

TEST(Png, ColourAndGreySurvive) {
  TestFolder folder;
  Image8 colour{2, 3, 3, {}};
  for (uint8_t i = 0; i < 18; ++i) colour.pixels.push_back(static_cast<uint8_t>(i * 14));
  WritePng(folder.File("x.png"), colour);
  int width = 0;
  int height = 0;
  EXPECT_EQ(Decode(ReadFile(folder.File("x.png")), &width, &height), colour.pixels);
  EXPECT_EQ(width, 2);
  EXPECT_EQ(height, 3);
  const Image8 grey{2, 1, 1, {7, 200}};
  EXPECT_EQ(Decode(EncodePng(grey), &width, &height),
            (std::vector<uint8_t>{7, 7, 7, 200, 200, 200}));
}

TEST(Png, WrongSizesAreErrors) {
  EXPECT_THROW(EncodePng({2, 2, 3, std::vector<uint8_t>(11)}), Error);
  EXPECT_THROW(EncodePng({0, 2, 3, {}}), Error);
  EXPECT_THROW(EncodePng({-1, -1, 1, {0}}), Error);
  EXPECT_THROW(EncodePng({1, 1, 2, {0, 0}}), Error);
}

}  // namespace
}  // namespace kinefit
