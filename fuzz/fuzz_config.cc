#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/validate.h"
#include "files/error.h"

namespace {

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// Whatever was accepted can be written down and read back.
void CheckRoundTrip(const kinefit::Config& config) {
  const std::string dump = kinefit::DumpConfig(config);
  try {
    if (kinefit::DumpConfig(kinefit::LoadConfigText(dump, "dump").config) == dump) return;
    std::fprintf(stderr, "not the same when read back:\n%s\n", dump.c_str());
  } catch (const kinefit::Error& error) {
    std::fprintf(stderr, "%s\n%s\n", error.what(), dump.c_str());
  }
  std::abort();
}

}  // namespace

// The input is a configuration, then, after a zero byte, overrides, one a line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  std::vector<std::string> overrides;
  if (end != std::string::npos) overrides = Lines(input.substr(end + 1));
  try {
    const kinefit::LoadedConfig loaded =
        kinefit::LoadConfigText(input.substr(0, end), "fuzz", overrides);
    CheckRoundTrip(loaded.config);
    kinefit::DumpConfig(loaded);
    kinefit::Validate(loaded.config, &loaded.provenance);
    kinefit::ValidateTraining(loaded.config, &loaded.provenance);
  } catch (const kinefit::Error&) {
  }
  return 0;
}
