#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kinefit {

// A file that appears under its name whole or not at all: the bytes go to a temporary file in the
// same folder, which Commit() flushes to the disk and renames over the target. Destroyed without
// Commit(), it leaves no trace and an older file of that name stays as it was.
// Every member throws Error (full disk, unwritable or missing folder), naming the target.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends `size` bytes.
  void Write(const void* data, size_t size);
  void Write(std::string_view bytes) { Write(bytes.data(), bytes.size()); }
  // Bytes written so far.
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Write, fsync, rename, fsync of the folder. At most once; nothing may be written afterwards.
  void Commit();

 private:
  [[noreturn]] void Fail(const std::string& action, int error_number) const;
  void WriteThrough(const char* data, size_t size);
  void Flush();

  std::string path_;
  std::string temporary_;
  std::string buffer_;
  uint64_t size_ = 0;
  int file_ = -1;
  bool committed_ = false;
};

// Publishes `bytes` as `path`, replacing an older file atomically. Throws Error.
void PublishFile(const std::string& path, std::string_view bytes);

// Removes the temporary files that killed processes left in `folder`; those that a living process
// is writing stay (they are locked). Returns how many were removed. A missing folder is no error.
int RemoveAbandonedTemporaries(const std::string& folder);

// Creates `folder` and its parents where missing. Throws Error.
void MakeFolder(const std::string& folder);

// The whole regular file. Throws Error if it is missing, unreadable, not a regular file, or larger
// than `max_bytes`.
std::string ReadFile(const std::string& path, uint64_t max_bytes = UINT64_MAX);

// CRC-32 as in zip; `crc` continues an earlier one.
uint32_t Crc32(const void* data, size_t size, uint32_t crc = 0);
// XXH64: fast, not cryptographic; for fingerprints of data.
uint64_t XxHash64(std::string_view bytes, uint64_t seed = 0);

// For tests: while it lives, the `nth` (from 0) system call of any AtomicFile (open, write, fsync,
// rename) and all later ones fail with `error_number`. One at a time.
class ScopedFileFault {
 public:
  ScopedFileFault(int64_t nth, int error_number);
  ~ScopedFileFault();
  ScopedFileFault(const ScopedFileFault&) = delete;
  ScopedFileFault& operator=(const ScopedFileFault&) = delete;
  // System calls seen since construction.
  int64_t calls() const;
};

}  // namespace kinefit
