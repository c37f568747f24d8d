#include "files/png.h"

#include <png.h>

#include <cstring>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {

std::string EncodePng(const Image8& image) {
  const bool known = image.channels == 1 || image.channels == 3;
  if (image.width < 1 || image.height < 1 || !known ||
      image.pixels.size() != static_cast<size_t>(image.width) * static_cast<size_t>(image.height) *
                                 static_cast<size_t>(image.channels)) {
    throw Error("an image of " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                "x" + std::to_string(image.channels) + " cannot have " +
                std::to_string(image.pixels.size()) + " bytes");
  }
  png_image png;
  std::memset(&png, 0, sizeof(png));
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  std::string bytes(PNG_IMAGE_PNG_SIZE_MAX(png), '\0');
  png_alloc_size_t size = bytes.size();
  if (png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr) ==
      0) {
    throw Error(std::string("the image cannot be encoded: ") + png.message);
  }
  bytes.resize(size);
  return bytes;
}

void WritePng(const std::string& path, const Image8& image) { PublishFile(path, EncodePng(image)); }

}  // namespace kinefit
