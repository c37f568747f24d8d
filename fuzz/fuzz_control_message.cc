#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "distributed/control_message.h"

// What is taken for a message can be said again, and then says the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string problem;
  const auto message = kinefit::ParseControlMessage(
      std::string_view(reinterpret_cast<const char*>(data), size), &problem);
  if (!message) {
    if (problem.empty()) std::abort();
    return 0;
  }
  std::string line = kinefit::FormatControlMessage(*message);
  if (line.size() > kinefit::kMostControlBytes || line.back() != '\n') std::abort();
  line.pop_back();
  const auto again = kinefit::ParseControlMessage(line, &problem);
  if (!again || kinefit::FormatControlMessage(*again) != line + "\n") std::abort();
  return 0;
}
