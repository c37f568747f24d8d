#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kinefit {

// A file that takes long to write. Like AtomicFile it appears under its name whole or not at all,
// but what has been written survives the process, as `path`.partial, and the next ResumableFile of
// that name goes on from there. One process at a time: the partial file is locked.
// Every member throws Error (full disk, unwritable or missing folder), naming the target.
class ResumableFile {
 public:
  // Opens or creates the partial file. Throws Error if another process is writing it.
  explicit ResumableFile(const std::string& path);
  // Closes; the partial file stays.
  ~ResumableFile();
  ResumableFile(const ResumableFile&) = delete;
  ResumableFile& operator=(const ResumableFile&) = delete;

  const std::string& partial_path() const { return partial_; }
  // Bytes that are there.
  uint64_t size() const { return size_; }
  // Cuts off what follows the first `size` bytes. REQUIRES: size <= size().
  void Truncate(uint64_t size);
  void Append(std::string_view bytes);
  // Writes over bytes that are there. REQUIRES: offset + bytes.size() <= size().
  void Overwrite(uint64_t offset, std::string_view bytes);
  // Everything written so far is on the disk afterwards, and so before what is written later.
  void Flush();
  // Flush, rename to `path`, fsync of the folder. At most once; nothing may be written afterwards.
  void Commit();

 private:
  [[noreturn]] void Fail(const std::string& action, int error_number) const;
  void WriteAt(uint64_t offset, std::string_view bytes);

  std::string path_;
  std::string partial_;
  uint64_t size_ = 0;
  int file_ = -1;
};

}  // namespace kinefit
