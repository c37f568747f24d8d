#include <cstdint>
#include <cstdlib>
#include <string>

#include "config/joint_layout.h"
#include "files/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kinefit::JointLayout layout =
        kinefit::ParseJointLayout(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    if (layout.left.size() != layout.right.size()) std::abort();
    for (const auto& limb : layout.limbs) {
      if (limb.size() != 2 || limb[0] >= layout.count()) std::abort();
    }
  } catch (const kinefit::Error&) {
  }
  return 0;
}
