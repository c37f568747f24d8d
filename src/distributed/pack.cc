#include "distributed/pack.h"

#include <cstdint>
#include <cstring>

#include "files/error.h"

namespace kinefit {

std::string Pack(const std::vector<std::string>& parts) {
  std::string bytes;
  for (const std::string& part : parts) {
    const uint64_t size = part.size();
    bytes.append(reinterpret_cast<const char*>(&size), sizeof(size));
    bytes += part;
  }
  return bytes;
}

std::vector<std::string> Unpack(const std::string& bytes) {
  std::vector<std::string> parts;
  size_t at = 0;
  while (at < bytes.size()) {
    uint64_t size = 0;
    const size_t left = bytes.size() - at;
    if (left >= sizeof(size)) std::memcpy(&size, bytes.data() + at, sizeof(size));
    if (left < sizeof(size) || size > left - sizeof(size)) {
      throw Error("another rank sent something that cannot be read", "",
                  "start the same version of kinefit on all machines");
    }
    at += sizeof(size);
    parts.push_back(bytes.substr(at, size));
    at += size;
  }
  return parts;
}

}  // namespace kinefit
