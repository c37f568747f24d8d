#pragma once

#include <cstdint>
#include <string>

namespace kinefit {

// A log, or the end of a long one, as text.
struct LogInput {
  std::string name;  // the path, or "standard input"
  std::string text;
  uint64_t left_out = 0;  // bytes before `text` that were not kept
};

// At most so many bytes are kept: the end of the log, where programs write what ended them.
constexpr uint64_t kLogBytes = uint64_t{64} << 20;

// Reads `path`, "-" being standard input: a file, a pipe or a terminal. UTF-16 with a byte order
// mark (PowerShell's redirection) is converted, zero bytes before the text (rotated logs) are cut.
// Throws Error if it is missing, a folder, unreadable, empty, or not text.
LogInput ReadLog(const std::string& path, uint64_t most = kLogBytes);

}  // namespace kinefit
