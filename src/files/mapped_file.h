#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace kinefit {

// A whole file mapped read-only: its pages are the system's page cache, shared by all processes
// that map it. Thread-safe. Every member throws Error naming the file.
class MappedFile {
 public:
  // Throws Error if it is missing, unreadable or no regular file. An empty file is fine.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // What lies beyond the end of a file that was cut after it was mapped reads as zeros. Call this
  // after reading, before what was read is used; throws Error if the file is, or was, shorter.
  void CheckSize() const;
  // Asks the system to read these bytes ahead; returns at once.
  void Prefetch(size_t offset, size_t size) const;
  // These bytes no longer count as memory of this process. They stay in the page cache and can be
  // read again. Without it a process that has read all of a large file seems to hold all of it.
  void Release(size_t offset, size_t size) const;

 private:
  struct Guarded;
  void Advise(size_t offset, size_t size, int advice) const;

  std::string path_;
  const char* data_ = nullptr;
  size_t size_ = 0;
  int file_ = -1;
  std::unique_ptr<Guarded> guard_;
};

}  // namespace kinefit
