#include "dataset/packed_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "files/error.h"
#include "files/npy.h"
#include "files/publish.h"

namespace kinefit {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "stores are little-endian, as memory is");

constexpr char kMagic[kPackedMagicBytes + 1] = "\x89KFPK\r\n\x1a";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kClipMark = 0x50494C43;  // "CLIP"
constexpr size_t kClipFixedBytes = 48;
constexpr size_t kImageLineBytes = 12;
constexpr int64_t kLargestSide = 65536;
constexpr int64_t kLargestPictureSide = 16384;
constexpr int64_t kMostFrames = int64_t{1} << 24;
constexpr int64_t kMostJoints = 4096;
constexpr int64_t kMostPersons = 65536;
constexpr float kFarthestJoint = 1e6F;  // pixels, as in annotations
constexpr uint64_t kMostBytes = uint64_t{1} << 56;

constexpr char kMakeAgain[] = "copy the file again, or make it anew with `kinefit data pack`";

class ByteWriter {
 public:
  template <typename T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }
  void PutSize(int64_t value) { Put(static_cast<uint32_t>(value)); }
  void PutFlag(bool value) { Put<uint32_t>(value ? 1 : 0); }
  void PutText(const std::string& text) {
    PutSize(static_cast<int64_t>(text.size()));
    bytes_ += text;
  }
  void Pad(size_t size) { bytes_.resize(size, '\0'); }
  std::string Take() { return std::move(bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what ByteWriter writes, never beyond the end.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  template <typename T>
  T Get() {
    if (left() < sizeof(T)) Fail("it ends too early");
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  int64_t GetSize(int64_t low, int64_t high, const char* what) {
    const int64_t value = Get<uint32_t>();
    if (value < low || value > high) Fail(std::string(what) + " is " + std::to_string(value));
    return value;
  }
  bool GetFlag(const char* what) { return GetSize(0, 1, what) == 1; }
  double GetNumber(double low, double high, const char* what) {
    const double value = Get<double>();
    if (!(value >= low && value <= high)) {
      Fail(std::string(what) + " is " + std::to_string(value));
    }
    return value;
  }
  // A number of things of which each takes at least `bytes`.
  size_t GetCount(size_t bytes) {
    const size_t count = Get<uint32_t>();
    if (count > left() / bytes) Fail("it ends too early");
    return count;
  }
  std::string GetText() {
    const size_t size = GetCount(1);
    std::string text(bytes_.substr(at_, size));
    at_ += size;
    return text;
  }
  void ExpectEnd() const {
    if (left() != 0) Fail("something follows it");
  }
  [[noreturn]] void Fail(const std::string& problem) const {
    throw Error("the packed store is damaged: " + problem, where_, kMakeAgain);
  }
  size_t left() const { return bytes_.size() - at_; }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
  const std::string& where_;
};

void PutSettings(const PackSettings& settings, ByteWriter* out) {
  out->PutFlag(settings.images);
  out->PutSize(settings.short_side);
  out->PutSize(settings.quality);
  out->PutFlag(settings.halve_chroma);
  out->Put(settings.margin);
  out->PutFlag(settings.compact);
  out->PutFlag(settings.compact_allow_imgpad);
  out->Put(settings.compact_padding);
  out->Put(settings.compact_threshold);
  out->Put(settings.compact_hw_ratio);
}

PackSettings GetSettings(ByteReader* in) {
  PackSettings settings;
  settings.images = in->GetFlag("'images'");
  settings.short_side = in->GetSize(1, kLargestPictureSide, "'short_side'");
  settings.quality = in->GetSize(1, 100, "'quality'");
  settings.halve_chroma = in->GetFlag("'halve_chroma'");
  settings.margin = in->GetNumber(0, 10, "'margin'");
  settings.compact = in->GetFlag("'compact'");
  settings.compact_allow_imgpad = in->GetFlag("'compact_allow_imgpad'");
  settings.compact_padding = in->GetNumber(0, 1e6, "'compact_padding'");
  settings.compact_threshold = in->GetNumber(0, 1e9, "'compact_threshold'");
  settings.compact_hw_ratio = in->GetNumber(0, 1e6, "'compact_hw_ratio'");
  return settings;
}

PackedEntry GetEntry(ByteReader* in) {
  PackedEntry entry;
  entry.id = in->GetText();
  entry.label = in->Get<int64_t>();
  entry.rejected = in->GetText();
  const int64_t least = entry.rejected.empty() ? 1 : 0;
  entry.width = in->GetSize(least, kLargestSide, "the width of an image");
  entry.height = in->GetSize(least, kLargestSide, "the height of an image");
  entry.frames = in->GetSize(least, kMostFrames, "the number of frames");
  entry.persons = in->GetSize(least, kMostPersons, "the number of persons");
  entry.joints = in->GetSize(least, kMostJoints, "the number of joints");
  const int64_t coding = in->GetSize(0, 4, "the coding of a pose");
  if (coding != 0 && coding != 2 && coding != 4) {
    in->Fail("the coding of a pose is " + std::to_string(coding));
  }
  entry.coding = static_cast<PoseCoding>(coding);
  if ((coding == 0) != !entry.rejected.empty()) {
    in->Fail("clip '" + entry.id + "' has " + (coding == 0 ? "no" : "a") + " pose");
  }
  entry.pose_hash = in->Get<uint64_t>();
  return entry;
}

PackedSplit GetSplit(size_t entries, ByteReader* in) {
  PackedSplit split;
  split.name = in->GetText();
  split.entries.resize(in->GetCount(sizeof(uint32_t)));
  int64_t previous = -1;
  for (uint32_t& entry : split.entries) {
    entry = in->Get<uint32_t>();
    if (entry >= entries || static_cast<int64_t>(entry) <= previous) {
      in->Fail("split '" + split.name + "' lists clip " + std::to_string(entry));
    }
    previous = entry;
  }
  return split;
}

bool FitsHalf(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) {
    const float back = HalfToFloat(FloatToHalf(value));
    return back == value && std::signbit(back) == std::signbit(value);
  });
}

void PutNumbers(const std::vector<float>& values, PoseCoding coding, ByteWriter* out) {
  for (const float value : values) {
    if (coding == PoseCoding::kFloat16) {
      out->Put(FloatToHalf(value));
    } else {
      out->Put(value);
    }
  }
}

std::vector<float> GetNumbers(size_t count, PoseCoding coding, ByteReader* in) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = coding == PoseCoding::kFloat16 ? HalfToFloat(in->Get<uint16_t>()) : in->Get<float>();
    if (!(std::abs(value) <= kFarthestJoint)) {
      in->Fail("a joint or score is " + std::to_string(value));
    }
  }
  return values;
}

}  // namespace

std::string EncodeSet(const PackedSet& set) {
  ByteWriter out;
  PutSettings(set.settings, &out);
  out.PutSize(static_cast<int64_t>(set.class_names.size()));
  for (const std::string& name : set.class_names) out.PutText(name);
  out.PutSize(static_cast<int64_t>(set.entries.size()));
  for (const PackedEntry& entry : set.entries) {
    out.PutText(entry.id);
    out.Put(entry.label);
    out.PutText(entry.rejected);
    for (const int64_t size :
         {entry.width, entry.height, entry.frames, entry.persons, entry.joints}) {
      out.PutSize(size);
    }
    out.Put(static_cast<uint32_t>(entry.coding));
    out.Put(entry.pose_hash);
  }
  out.PutSize(static_cast<int64_t>(set.splits.size()));
  for (const PackedSplit& split : set.splits) {
    out.PutText(split.name);
    out.PutSize(static_cast<int64_t>(split.entries.size()));
    for (const uint32_t entry : split.entries) out.Put(entry);
  }
  return out.Take();
}

PackedSet ParseSet(std::string_view bytes, const std::string& where) {
  constexpr size_t kLeastEntry = 48;
  ByteReader in(bytes, where);
  PackedSet set;
  set.settings = GetSettings(&in);
  const size_t classes = in.GetCount(sizeof(uint32_t));
  for (size_t i = 0; i < classes; ++i) set.class_names.push_back(in.GetText());
  const size_t entries = in.GetCount(kLeastEntry);
  set.entries.reserve(entries);
  for (size_t i = 0; i < entries; ++i) set.entries.push_back(GetEntry(&in));
  const size_t splits = in.GetCount(2 * sizeof(uint32_t));
  for (size_t i = 0; i < splits; ++i) set.splits.push_back(GetSplit(entries, &in));
  in.ExpectEnd();
  return set;
}

std::string EncodePose(const Pose& pose, PackedEntry* entry) {
  entry->persons = pose.persons;
  entry->joints = pose.joints;
  entry->coding =
      FitsHalf(pose.xy) && FitsHalf(pose.score) ? PoseCoding::kFloat16 : PoseCoding::kFloat32;
  ByteWriter out;
  PutNumbers(pose.xy, entry->coding, &out);
  PutNumbers(pose.score, entry->coding, &out);
  entry->pose_hash = XxHash64(out.bytes());
  return out.Take();
}

Pose ParsePose(std::string_view bytes, const PackedEntry& entry, const std::string& where) {
  ByteReader in(bytes, where);
  if (bytes.size() != entry.pose_bytes() || XxHash64(bytes) != entry.pose_hash) {
    in.Fail("the checksum of a pose is wrong");
  }
  Pose pose;
  pose.persons = entry.persons;
  pose.frames = entry.frames;
  pose.joints = entry.joints;
  const size_t count = static_cast<size_t>(entry.persons * entry.frames * entry.joints);
  pose.xy = GetNumbers(2 * count, entry.coding, &in);
  pose.score = GetNumbers(count, entry.coding, &in);
  return pose;
}

uint64_t ClipTable::images_bytes() const {
  uint64_t sum = 0;
  for (const uint32_t bytes : image_bytes) sum += bytes;
  return sum;
}

std::vector<size_t> ClipTable::ImageOffsets() const {
  std::vector<size_t> offsets;
  offsets.reserve(image_bytes.size());
  size_t offset = ClipTableBytes(image_bytes.size());
  for (const uint32_t bytes : image_bytes) {
    offsets.push_back(offset);
    offset += bytes;
  }
  return offsets;
}

uint64_t ClipTableBytes(uint64_t frames) {
  return kClipFixedBytes + kImageLineBytes * frames + sizeof(uint64_t);
}

std::string EncodeClipTable(const ClipTable& table) {
  ByteWriter out;
  out.Put(kClipMark);
  out.Put(table.entry);
  out.PutSize(static_cast<int64_t>(table.image_bytes.size()));
  for (const int64_t size :
       {table.shown_width, table.shown_height, table.window_x, table.window_y, table.window_width,
        table.window_height, table.width, table.height, int64_t{0}}) {
    out.PutSize(size);
  }
  for (size_t i = 0; i < table.image_bytes.size(); ++i) {
    out.Put(table.image_hash[i]);
    out.Put(table.image_bytes[i]);
  }
  out.Put(XxHash64(out.bytes()));
  return out.Take();
}

int64_t PeekClipFrames(std::string_view bytes) {
  if (bytes.size() < kClipFixedBytes) return 0;
  uint32_t mark = 0;
  uint32_t frames = 0;
  std::memcpy(&mark, bytes.data(), sizeof(mark));
  std::memcpy(&frames, bytes.data() + 8, sizeof(frames));
  return mark == kClipMark && frames <= kMostFrames ? frames : 0;
}

ClipTable ParseClipTable(std::string_view bytes, int64_t frames, const std::string& where) {
  const uint64_t size = ClipTableBytes(static_cast<uint64_t>(frames));
  ByteReader in(bytes.substr(0, size), where);
  if (bytes.size() < size) in.Fail("it ends too early");
  uint64_t hash = 0;
  std::memcpy(&hash, bytes.data() + size - sizeof(hash), sizeof(hash));
  if (hash != XxHash64(bytes.substr(0, size - sizeof(hash)))) {
    in.Fail("the checksum of a clip's table is wrong");
  }
  if (in.Get<uint32_t>() != kClipMark) in.Fail("no clip begins here");
  ClipTable table;
  table.entry = in.Get<uint32_t>();
  in.GetSize(frames, frames, "the number of pictures");
  table.shown_width = in.GetSize(1, kLargestSide, "the width of a video");
  table.shown_height = in.GetSize(1, kLargestSide, "the height of a video");
  table.window_x = in.GetSize(0, table.shown_width - 1, "the window's left");
  table.window_y = in.GetSize(0, table.shown_height - 1, "the window's top");
  table.window_width = in.GetSize(1, table.shown_width - table.window_x, "the window's width");
  table.window_height = in.GetSize(1, table.shown_height - table.window_y, "the window's height");
  table.width =
      in.GetSize(1, std::min(kLargestPictureSide, table.window_width), "the width of the pictures");
  table.height = in.GetSize(1, std::min(kLargestPictureSide, table.window_height),
                            "the height of the pictures");
  if (table.width * table.height > kMostPackedPixels) in.Fail("its pictures are too large");
  in.GetSize(0, 0, "a reserved field");
  table.image_hash.resize(static_cast<size_t>(frames));
  table.image_bytes.resize(static_cast<size_t>(frames));
  for (size_t i = 0; i < table.image_bytes.size(); ++i) {
    table.image_hash[i] = in.Get<uint64_t>();
    table.image_bytes[i] = in.Get<uint32_t>();
  }
  if (table.images_bytes() > bytes.size() - size) in.Fail("pictures leave their clip");
  return table;
}

ClipTable ParseWholeClip(std::string_view bytes, int64_t frames, const std::string& where) {
  ClipTable table = ParseClipTable(bytes, frames, where);
  const std::vector<size_t> offsets = table.ImageOffsets();
  const ByteReader in(bytes, where);
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (XxHash64(bytes.substr(offsets[i], table.image_bytes[i])) != table.image_hash[i]) {
      in.Fail("the checksum of picture " + std::to_string(i) + " is wrong");
    }
  }
  if (ClipTableBytes(offsets.size()) + table.images_bytes() != bytes.size()) {
    in.Fail("something follows the pictures of a clip");
  }
  return table;
}

std::string EncodeIndex(const std::vector<PackedClipPlace>& places) {
  ByteWriter out;
  out.PutSize(static_cast<int64_t>(places.size()));
  for (const PackedClipPlace& place : places) {
    out.Put(place.bytes);
    out.PutText(place.failure);
  }
  return out.Take();
}

std::vector<PackedClipPlace> ParseIndex(std::string_view bytes, const std::string& where) {
  ByteReader in(bytes, where);
  std::vector<PackedClipPlace> places(in.GetCount(sizeof(uint64_t) + sizeof(uint32_t)));
  for (PackedClipPlace& place : places) {
    place.bytes = in.Get<uint64_t>();
    place.failure = in.GetText();
    if (place.bytes > kMostBytes || (place.bytes > 0 && !place.failure.empty())) {
      in.Fail("the index contradicts itself");
    }
  }
  in.ExpectEnd();
  return places;
}

uint64_t PackedHeader::set_begin() const { return kPackedHeaderBytes; }
uint64_t PackedHeader::poses_begin() const { return set_begin() + Padded(set_bytes); }
uint64_t PackedHeader::records_begin() const { return poses_begin() + Padded(poses_bytes); }
uint64_t PackedHeader::index_begin() const { return records_begin() + Padded(records_bytes); }

bool HasPackedMagic(std::string_view bytes) {
  return bytes.substr(0, kPackedMagicBytes) == std::string_view(kMagic, kPackedMagicBytes);
}

std::string EncodePackedHeader(const PackedHeader& header) {
  ByteWriter out;
  for (size_t i = 0; i < kPackedMagicBytes; ++i) out.Put(kMagic[i]);
  out.Put(kVersion);
  out.PutFlag(header.complete);
  for (const uint64_t value : {header.set_bytes, header.set_hash, header.poses_bytes,
                               header.records_bytes, header.index_bytes, header.index_hash}) {
    out.Put(value);
  }
  out.Pad(kPackedHeaderBytes - sizeof(uint64_t));
  out.Put(XxHash64(out.bytes()));
  return out.Take();
}

PackedHeader ParsePackedHeader(std::string_view bytes, const std::string& where) {
  if (!HasPackedMagic(bytes)) {
    throw Error("this is no packed store, or its beginning is damaged", where,
                "name a file that `kinefit data pack` wrote");
  }
  ByteReader in(bytes.substr(0, kPackedHeaderBytes), where);
  in.Get<uint64_t>();  // the magic
  const uint32_t version = in.Get<uint32_t>();
  if (in.left() + 12 != kPackedHeaderBytes) in.Fail("it ends within its header");
  uint64_t hash = 0;
  std::memcpy(&hash, bytes.data() + kPackedHeaderBytes - sizeof(hash), sizeof(hash));
  if (hash != XxHash64(bytes.substr(0, kPackedHeaderBytes - sizeof(hash)))) {
    in.Fail("the checksum of its header is wrong");
  }
  if (version != kVersion) {
    throw Error("the packed store has version " + std::to_string(version) +
                    " of the format; this kinefit reads version " + std::to_string(kVersion),
                where, "use the kinefit that wrote it, or make it anew with `kinefit data pack`");
  }
  PackedHeader header;
  header.complete = in.GetFlag("'complete'");
  for (uint64_t* value : {&header.set_bytes, &header.set_hash, &header.poses_bytes,
                          &header.records_bytes, &header.index_bytes, &header.index_hash}) {
    *value = in.Get<uint64_t>();
  }
  for (const uint64_t size :
       {header.set_bytes, header.poses_bytes, header.records_bytes, header.index_bytes}) {
    if (size > kMostBytes) in.Fail("a section is impossibly large");
  }
  return header;
}

}  // namespace kinefit
