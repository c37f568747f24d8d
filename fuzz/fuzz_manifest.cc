#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "convert/manifest.h"
#include "convert/ntu_sample.h"
#include "files/error.h"

namespace {

void Check(const std::vector<kinefit::ManifestEntry>& entries) {
  for (const kinefit::ManifestEntry& entry : entries) {
    if (entry.path.empty() || entry.label.empty()) std::abort();
    if (entry.start && entry.end && !(*entry.start < *entry.end)) std::abort();
    if (entry.start_frame && *entry.start_frame < 0) std::abort();
  }
}

}  // namespace

// The same bytes as CSV, as JSON and as a sample's name.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    Check(kinefit::ParseManifestCsv(text, "fuzz"));
  } catch (const kinefit::Error&) {
  }
  try {
    Check(kinefit::ParseManifestJson(text, "fuzz"));
  } catch (const kinefit::Error&) {
  }
  const auto sample = kinefit::ParseNtuName(text);
  if (sample && (sample->name != text || sample->action < 1)) std::abort();
  return 0;
}
