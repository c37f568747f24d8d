#pragma once

#include <string_view>
#include <vector>

namespace kinefit {

// A text file of configs/ that is part of the program (cmake/embed.cmake).
struct EmbeddedFile {
  std::string_view name;  // without folder and extension
  std::string_view text;
};

}  // namespace kinefit
