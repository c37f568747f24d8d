#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataset/frames.h"
#include "dataset/packed_format.h"
#include "files/mapped_file.h"

namespace kinefit {

// Whether `path` is to be read as a packed store: it begins as one or is called *.kfpack.
bool IsPackedStore(const std::string& path);

// A packed store (docs/formats/packed.md), mapped into memory: its pages are shared by all
// processes that read it. Header, set and index are verified when it is opened, poses and pictures
// whenever they are read. Thread-safe. Errors name the file.
class PackedStore {
 public:
  // Throws Error for what is no store, incomplete, cut off, damaged, or of a newer format.
  static std::shared_ptr<const PackedStore> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const PackedSet& set() const { return set_; }
  // Why the clip has no pictures though it should; "" if it has, or the store has none at all.
  const std::string& failure(size_t entry) const { return places_[entry].failure; }
  uint64_t bytes() const { return file_.bytes().size(); }
  uint64_t poses_bytes() const { return header_.poses_bytes; }
  uint64_t records_bytes() const { return header_.records_bytes; }

  // REQUIRES: entry < set().entries.size(), and it was not rejected.
  Pose ReadPose(size_t entry) const;
  // As ReadFrames of frames.h. Throws Error too if the clip has no pictures.
  ClipFrames ReadFrames(size_t entry, const std::vector<int64_t>& numbers) const;

  // Verifies every byte. `progress(done, total)` counts clips. Throws Error for the first fault.
  void Verify(const std::function<void(int64_t, int64_t)>& progress = {}) const;

 private:
  void WhileWhole(const std::function<void()>& read) const;
  explicit PackedStore(const std::string& path);
  void ReadHeader();
  void PlaceSections();
  std::string_view Record(size_t entry) const;
  std::string Where(size_t entry) const;
  cv::Mat DecodeImage(std::string_view jpeg, uint64_t hash, const ClipTable& table,
                      const std::string& where) const;

  MappedFile file_;
  PackedHeader header_;
  PackedSet set_;
  std::vector<PackedClipPlace> places_;   // [entries]
  std::vector<uint64_t> pose_offsets_;    // [entries] from the beginning of the file
  std::vector<uint64_t> record_offsets_;  // [entries]
};

}  // namespace kinefit
