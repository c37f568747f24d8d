#include <cstdint>
#include <string>

#include "files/error.h"
#include "files/pickle.h"

namespace {

// Uses every value once per path, up to a budget: shared lists have exponentially many paths.
void Walk(const kinefit::PickleValue& value, int* budget) {
  if (--*budget < 0) return;
  value.TypeName();
  if (value.is(kinefit::PickleKind::kArray)) value.AsArray("x").ToDoubles();
  if (value.is(kinefit::PickleKind::kString)) std::string(value.AsString("x"));
  for (size_t i = 0; value.is_sequence() && i < value.size(); ++i) Walk(value[i], budget);
  if (value.is(kinefit::PickleKind::kDict)) {
    value.Find("keypoint");
    for (size_t i = 0; i < value.size(); ++i) {
      Walk(value.key(i), budget);
      Walk(value.value(i), budget);
    }
  }
  if (value.is(kinefit::PickleKind::kObject) || value.is(kinefit::PickleKind::kPersistent)) {
    Walk(value.Args(), budget);
    Walk(value.State(), budget);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kinefit::Pickle pickle =
        kinefit::Pickle::Parse(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    int budget = 10000;
    Walk(pickle.root(), &budget);
  } catch (const kinefit::Error&) {
  }
  return 0;
}
