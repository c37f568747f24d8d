#include "dataset/packed_store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <unordered_set>

#include "files/error.h"
#include "files/jpeg.h"
#include "files/publish.h"

namespace kinefit {
namespace {

constexpr char kMakeAgain[] = "copy the file again, or make it anew with `kinefit data pack`";
constexpr char kExtension[] = ".kfpack";

[[noreturn]] void Damaged(const std::string& problem, const std::string& where) {
  throw Error("the packed store is damaged: " + problem, where, kMakeAgain);
}

}  // namespace

bool IsPackedStore(const std::string& path) {
  const size_t length = sizeof(kExtension) - 1;
  if (path.size() > length && path.compare(path.size() - length, length, kExtension) == 0) {
    return true;
  }
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;  // a pipe would never end
  std::ifstream file(path, std::ios::binary);
  char magic[kPackedMagicBytes] = {};
  return file.read(magic, sizeof(magic)) && HasPackedMagic({magic, sizeof(magic)});
}

std::shared_ptr<const PackedStore> PackedStore::Open(const std::string& path) {
  return std::shared_ptr<const PackedStore>(new PackedStore(path));
}

PackedStore::PackedStore(const std::string& path) : file_(path) {
  ReadHeader();
  const std::string_view bytes = file_.bytes();
  const std::string_view set = bytes.substr(header_.set_begin(), header_.set_bytes);
  const std::string_view index = bytes.substr(header_.index_begin(), header_.index_bytes);
  if (XxHash64(set) != header_.set_hash) Damaged("the checksum of its annotations is wrong", path);
  if (XxHash64(index) != header_.index_hash) Damaged("the checksum of its index is wrong", path);
  set_ = ParseSet(set, path);
  places_ = ParseIndex(index, path);
  PlaceSections();
}

void PackedStore::ReadHeader() {
  header_ = ParsePackedHeader(file_.bytes(), path());
  if (!header_.complete) {
    throw Error("the packed store is not finished", path(),
                "run the `kinefit data pack` that was interrupted again: it goes on");
  }
  const uint64_t expected = header_.file_bytes();
  if (bytes() == expected) return;
  Damaged("it has " + std::to_string(bytes()) + " bytes, not " + std::to_string(expected) +
              (bytes() < expected ? ": it is cut off" : ""),
          path());
}

// Where poses and records are follows from their sizes. Also checks that ids are unique.
void PackedStore::PlaceSections() {
  if (places_.size() != set_.entries.size()) Damaged("its index is of another set", path());
  std::unordered_set<std::string_view> ids;
  uint64_t pose = 0;
  uint64_t record = 0;
  for (size_t i = 0; i < places_.size(); ++i) {
    const PackedEntry& entry = set_.entries[i];
    const PackedClipPlace& place = places_[i];
    pose_offsets_.push_back(header_.poses_begin() + pose);
    record_offsets_.push_back(header_.records_begin() + record);
    pose += Padded(entry.pose_bytes());
    record += Padded(place.bytes);
    if (pose > header_.poses_bytes || record > header_.records_bytes) {
      Damaged("clip '" + entry.id + "' lies outside its section", path());
    }
    const bool usable = entry.rejected.empty();
    if (usable && !ids.insert(entry.id).second) Damaged("two clips are '" + entry.id + "'", path());
    const bool accounted = place.bytes > 0 || !place.failure.empty();
    if (accounted != (usable && set_.settings.images)) {
      Damaged("its index contradicts its annotations", path());
    }
    if (place.bytes > 0 && place.bytes < ClipTableBytes(static_cast<uint64_t>(entry.frames))) {
      Damaged("clip '" + entry.id + "' is too small for its frames", path());
    }
  }
  if (pose != header_.poses_bytes || record != header_.records_bytes) {
    Damaged("its sections do not fit its annotations", path());
  }
}

std::string PackedStore::Where(size_t entry) const {
  return path() + ": clip '" + set_.entries[entry].id + "'";
}

std::string_view PackedStore::Record(size_t entry) const {
  return file_.bytes().substr(record_offsets_[entry], places_[entry].bytes);
}

// A file that was cut off is said to be so, not to be damaged where its zeros are.
void PackedStore::WhileWhole(const std::function<void()>& read) const {
  try {
    read();
  } catch (const Error&) {
    file_.CheckSize();
    throw;
  }
  file_.CheckSize();
}

Pose PackedStore::ReadPose(size_t entry) const {
  file_.CheckSize();
  const PackedEntry& annotation = set_.entries[entry];
  const std::string_view bytes =
      file_.bytes().substr(pose_offsets_[entry], annotation.pose_bytes());
  Pose pose;
  WhileWhole([&] { pose = ParsePose(bytes, annotation, Where(entry)); });
  file_.Release(pose_offsets_[entry], bytes.size());
  return pose;
}

cv::Mat PackedStore::DecodeImage(std::string_view jpeg, uint64_t hash, const ClipTable& table,
                                 const std::string& where) const {
  thread_local JpegDecoder decoder;
  if (XxHash64(jpeg) != hash) Damaged("the checksum of a picture is wrong", where);
  cv::Mat picture(static_cast<int>(table.height), static_cast<int>(table.width), CV_8UC3);
  try {
    decoder.Decode(jpeg, picture.cols, picture.rows, picture.data, picture.step);
  } catch (const Error& error) {
    throw Error(error.problem(), where, kMakeAgain);
  }
  return picture;
}

ClipFrames PackedStore::ReadFrames(size_t entry, const std::vector<int64_t>& numbers) const {
  const std::string where = Where(entry);
  if (!failure(entry).empty()) throw Error(failure(entry), where, "make the store anew");
  if (places_[entry].bytes == 0) {
    throw Error("the packed store has no pictures", path(), "pack it without --poses-only");
  }
  file_.CheckSize();
  const std::string_view record = Record(entry);
  const int64_t frames = set_.entries[entry].frames;
  const ClipTable table = ParseClipTable(record, frames, where);
  if (table.entry != entry) Damaged("another clip lies here", where);

  std::vector<int64_t> distinct = numbers;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  if (!distinct.empty() && (distinct.front() < 0 || distinct.back() >= frames)) {
    const int64_t wrong = distinct.front() < 0 ? distinct.front() : distinct.back();
    throw Error("the clip has " + std::to_string(frames) + " frames, counted from 0",
                where + ", frame " + std::to_string(wrong));
  }
  const std::vector<size_t> offsets = table.ImageOffsets();
  for (const int64_t number : distinct) {
    const size_t i = static_cast<size_t>(number);
    file_.Prefetch(record_offsets_[entry] + offsets[i], table.image_bytes[i]);
  }
  std::vector<cv::Mat> decoded;
  WhileWhole([&] {
    for (const int64_t number : distinct) {
      const size_t i = static_cast<size_t>(number);
      decoded.push_back(DecodeImage(record.substr(offsets[i], table.image_bytes[i]),
                                    table.image_hash[i], table,
                                    where + ", frame " + std::to_string(number)));
    }
  });
  file_.Release(record_offsets_[entry], record.size());

  ClipFrames clip;
  clip.image = {static_cast<int>(table.shown_width), static_cast<int>(table.shown_height)};
  clip.window = {static_cast<int>(table.window_x), static_cast<int>(table.window_y),
                 static_cast<int>(table.window_width), static_cast<int>(table.window_height)};
  for (const int64_t number : numbers) {
    const auto place = std::lower_bound(distinct.begin(), distinct.end(), number);
    clip.frames.push_back(decoded[static_cast<size_t>(place - distinct.begin())]);
  }
  return clip;
}

void PackedStore::Verify(const std::function<void(int64_t, int64_t)>& progress) const {
  const auto check_padding = [this](uint64_t begin, uint64_t bytes, const std::string& where) {
    for (const char byte : file_.bytes().substr(begin + bytes, Padded(bytes) - bytes)) {
      if (byte != 0) Damaged("there is something between its sections", where);
    }
  };
  check_padding(header_.set_begin(), header_.set_bytes, path());
  for (size_t entry = 0; entry < places_.size(); ++entry) {
    const PackedEntry& annotation = set_.entries[entry];
    if (annotation.rejected.empty()) ReadPose(entry);
    check_padding(pose_offsets_[entry], annotation.pose_bytes(), Where(entry));
    const uint64_t bytes = places_[entry].bytes;
    if (bytes > 0) {
      file_.CheckSize();
      const ClipTable table = ParseWholeClip(Record(entry), annotation.frames, Where(entry));
      if (table.entry != entry) Damaged("another clip lies here", Where(entry));
      check_padding(record_offsets_[entry], bytes, Where(entry));
      file_.Release(record_offsets_[entry], bytes);
    }
    if (progress) progress(static_cast<int64_t>(entry) + 1, static_cast<int64_t>(places_.size()));
  }
}

}  // namespace kinefit
