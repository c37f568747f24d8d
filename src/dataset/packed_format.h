#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataset/sample.h"

namespace kinefit {

// The bytes of a packed store, section by section: docs/formats/packed.md has the grammar. Nothing
// here touches files. Every Parse function takes bytes that are not trusted and throws Error,
// naming `where`, for any that do not follow the grammar.

// How a store was made.
struct PackSettings {
  bool images = true;        // false: poses alone
  int64_t short_side = 256;  // pictures are scaled down so that the box's short side is this
  int64_t quality = 90;      // JPEG, 1 to 100
  bool halve_chroma = true;  // JPEG 4:2:0, else 4:4:4
  double margin = 0.05;      // kept around the box on each side, as a share of its short side
  bool compact = true;       // data.compact and what belongs to it, with which boxes were made
  double compact_padding = 0.25;
  double compact_threshold = 10;
  double compact_hw_ratio = 1;
  bool compact_allow_imgpad = true;
};

enum class PoseCoding : uint32_t { kNone = 0, kFloat16 = 2, kFloat32 = 4 };  // bytes of a number

// One annotation. All that was known before any video was read.
struct PackedEntry {
  std::string id;
  int64_t label = 0;
  int64_t width = 0;  // of the image that the joints refer to
  int64_t height = 0;
  int64_t frames = 0;
  int64_t persons = 0;
  int64_t joints = 0;
  PoseCoding coding = PoseCoding::kNone;
  uint64_t pose_hash = 0;
  std::string rejected;  // why the annotation cannot be used; "" = it can

  uint64_t pose_bytes() const {
    return static_cast<uint64_t>(persons * frames * joints) * 3 * static_cast<uint64_t>(coding);
  }
};

struct PackedSplit {
  std::string name;
  std::vector<uint32_t> entries;  // ascending
};

// The section that says what is in the store.
struct PackedSet {
  PackSettings settings;
  std::vector<std::string> class_names;
  std::vector<PackedEntry> entries;
  std::vector<PackedSplit> splits;
};

std::string EncodeSet(const PackedSet& set);
PackedSet ParseSet(std::string_view bytes, const std::string& where);

// x, y of every joint, then every score, as float16 where that loses nothing, else as float32.
// Sets coding and pose_hash of `entry` too.
std::string EncodePose(const Pose& pose, PackedEntry* entry);
// Also refuses what no annotation may hold: NaN, infinity, joints a million pixels away.
Pose ParsePose(std::string_view bytes, const PackedEntry& entry, const std::string& where);

// What precedes the pictures of a clip.
struct ClipTable {
  uint32_t entry = 0;
  int64_t shown_width = 0;  // of the video
  int64_t shown_height = 0;
  int64_t window_x = 0;  // the part of it that the pictures show
  int64_t window_y = 0;
  int64_t window_width = 0;
  int64_t window_height = 0;
  int64_t width = 0;  // of the pictures
  int64_t height = 0;
  std::vector<uint32_t> image_bytes;  // [frames]
  std::vector<uint64_t> image_hash;   // [frames]

  uint64_t images_bytes() const;
  // Where each picture begins in its record.
  std::vector<size_t> ImageOffsets() const;
};

uint64_t ClipTableBytes(uint64_t frames);
std::string EncodeClipTable(const ClipTable& table);
// `bytes`: a record, of which the table is the beginning. The pictures must fit into the rest.
// `frames`: how many there must be.
ClipTable ParseClipTable(std::string_view bytes, int64_t frames, const std::string& where);
// The same of a record that is `bytes` from beginning to end; verifies the pictures' checksums too.
ClipTable ParseWholeClip(std::string_view bytes, int64_t frames, const std::string& where);
// The number of frames that a record at the beginning of `bytes` claims, 0 if none begins there.
int64_t PeekClipFrames(std::string_view bytes);

// What became of each entry's pictures.
struct PackedClipPlace {
  uint64_t bytes = 0;   // of its record, without padding; 0 = it has none
  std::string failure;  // why its video could not be read; "" = it could
};

std::string EncodeIndex(const std::vector<PackedClipPlace>& places);
std::vector<PackedClipPlace> ParseIndex(std::string_view bytes, const std::string& where);

struct PackedHeader {
  bool complete = false;
  uint64_t set_bytes = 0;
  uint64_t set_hash = 0;
  uint64_t poses_bytes = 0;
  uint64_t records_bytes = 0;
  uint64_t index_bytes = 0;
  uint64_t index_hash = 0;

  // Where the sections begin. They follow one another, each at a multiple of 8 bytes.
  uint64_t set_begin() const;
  uint64_t poses_begin() const;
  uint64_t records_begin() const;
  uint64_t index_begin() const;
  uint64_t file_bytes() const { return index_begin() + index_bytes; }
};

constexpr size_t kPackedHeaderBytes = 128;
constexpr int64_t kMostPackedPixels = int64_t{1} << 25;  // of a picture
constexpr size_t kPackedMagicBytes = 8;

bool HasPackedMagic(std::string_view bytes);
std::string EncodePackedHeader(const PackedHeader& header);
PackedHeader ParsePackedHeader(std::string_view bytes, const std::string& where);

// `bytes` rounded up to a multiple of 8.
constexpr uint64_t Padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace kinefit
