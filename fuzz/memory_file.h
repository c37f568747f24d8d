#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

// A file that lies in memory, for readers that want a path.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : file_(memfd_create("fuzz", 0)) {
    size_t done = 0;
    while (done < size) {
      const ssize_t written = write(file_, data + done, size - done);
      if (written <= 0) break;
      done += static_cast<size_t>(written);
    }
  }
  ~MemoryFile() { close(file_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};
