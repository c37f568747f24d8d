#include <cstdint>

#include "files/error.h"
#include "files/npy.h"
#include "files/zip.h"
#include "memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    const kinefit::ZipReader zip(file.path());
    for (const auto& entry : zip.entries()) {
      try {
        zip.Read(entry, 1 << 24);
      } catch (const kinefit::Error&) {
      }
    }
    kinefit::ReadNpz(file.path());
  } catch (const kinefit::Error&) {
  }
  return 0;
}
