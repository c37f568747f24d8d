#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/publish.h"

namespace kinefit {

struct ZipLimits {
  uint64_t max_entries = 1u << 20;
  // Deflated members may not claim to grow beyond this ratio (deflate itself ends at 1032).
  uint64_t max_inflation = 1100;
};

// Reads zip archives, also ZIP64 ones of any size, without loading them. Nothing in the file is
// trusted: names that leave the archive ("../x", "/x"), members that overlap or leave the file,
// encryption, and duplicated names are refused with an Error that names the file.
class ZipReader {
 public:
  struct Entry {
    std::string name;
    uint64_t offset = 0;           // of the member's data in the file
    uint64_t compressed_size = 0;  // bytes in the file
    uint64_t size = 0;             // bytes once unpacked
    uint32_t crc = 0;
    bool deflated = false;
  };

  explicit ZipReader(const std::string& path, const ZipLimits& limits = {});
  ~ZipReader();
  ZipReader(const ZipReader&) = delete;
  ZipReader& operator=(const ZipReader&) = delete;

  // Whether `path` starts like a zip archive. False if it cannot be read.
  static bool LooksLikeZip(const std::string& path);

  const std::string& path() const { return path_; }
  // In the order of the central directory.
  const std::vector<Entry>& entries() const { return entries_; }
  // nullptr if there is none of that name.
  const Entry* Find(std::string_view name) const;

  // The member's bytes; throws Error if they are larger than `max_size` or fail their CRC.
  std::string Read(const Entry& entry, uint64_t max_size = UINT64_MAX) const;
  // The same into memory of entry.size bytes.
  void ReadInto(const Entry& entry, void* destination) const;
  // Reads the member and throws Error if it fails its CRC.
  void Verify(const Entry& entry) const;

 private:
  struct Directory;
  [[noreturn]] void Malformed(const std::string& what) const;
  void ReadAt(uint64_t offset, void* destination, uint64_t size) const;
  Directory FindDirectory() const;
  void ReadEntries(const Directory& directory, const ZipLimits& limits);
  void LocateData(Entry* entry, uint64_t header_offset) const;
  void RejectOverlaps(const std::vector<uint64_t>& header_offsets) const;
  void Inflate(const Entry& entry, void* destination) const;

  std::string path_;
  int file_ = -1;
  uint64_t file_size_ = 0;
  std::vector<Entry> entries_;
  std::vector<uint32_t> by_name_;  // indices of entries_, sorted by name
};

// Writes an archive of stored members whose data starts at multiples of 64 bytes, as torch.save
// does (padding in an extra field "FB"); ZIP64 where needed. It appears whole or not at all.
class ZipWriter {
 public:
  explicit ZipWriter(const std::string& path);

  void Add(const std::string& name, const void* data, uint64_t size);
  void Add(const std::string& name, std::string_view bytes) {
    Add(name, bytes.data(), bytes.size());
  }
  // Writes the central directory and publishes the file.
  void Commit();

 private:
  struct Member {
    std::string name;
    uint64_t header_offset;
    uint64_t size;
    uint32_t crc;
  };

  AtomicFile file_;
  std::vector<Member> members_;
};

}  // namespace kinefit
