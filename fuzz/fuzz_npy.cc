#include <cstdint>
#include <cstdlib>
#include <string>

#include "files/error.h"
#include "files/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kinefit::NdArray array =
        kinefit::ParseNpy({reinterpret_cast<const char*>(data), size}, "fuzz");
    const kinefit::NdArray again = kinefit::ParseNpy(kinefit::EncodeNpy(array.view()), "again");
    if (again.bytes != array.bytes || again.shape != array.shape) std::abort();
    array.ToFloats();
    array.ToInts("fuzz");
  } catch (const kinefit::Error&) {
  }
  return 0;
}
