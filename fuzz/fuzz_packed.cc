// A packed store whose checksums are made right first, so that what lies behind them is reached.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "dataset/packed_store.h"
#include "files/error.h"
#include "files/jpeg.h"
#include "files/publish.h"
#include "memory_file.h"

namespace {

using kinefit::Padded;

void Put(std::string* bytes, size_t at, uint64_t value) {
  std::memcpy(bytes->data() + at, &value, sizeof(value));
}

std::string_view Part(const std::string& bytes, uint64_t begin, uint64_t size) {
  return std::string_view(bytes).substr(std::min<uint64_t>(begin, bytes.size()), size);
}

// The checksums within one clip's record.
void RepairRecord(std::string* bytes, uint64_t begin, uint64_t size, uint64_t frames) {
  const uint64_t table = kinefit::ClipTableBytes(frames);
  if (size < table || begin + size > bytes->size()) return;
  uint64_t image = begin + table;
  for (uint64_t i = 0; i < frames; ++i) {
    const size_t line = begin + 48 + 12 * i;
    uint32_t length = 0;
    std::memcpy(&length, bytes->data() + line + 8, sizeof(length));
    Put(bytes, line, kinefit::XxHash64(Part(*bytes, image, length)));
    image += length;
  }
  Put(bytes, begin + table - 8, kinefit::XxHash64(Part(*bytes, begin, table - 8)));
}

// Throws Error where the file cannot even be made right.
void Repair(std::string* bytes) {
  const size_t header_end = kinefit::kPackedHeaderBytes;
  if (bytes->size() < header_end) return;
  const auto seal = [&] {
    Put(bytes, header_end - 8, kinefit::XxHash64(Part(*bytes, 0, header_end - 8)));
  };
  seal();
  const kinefit::PackedHeader header = kinefit::ParsePackedHeader(*bytes, "fuzz");
  if (header.file_bytes() != bytes->size()) return;
  kinefit::PackedSet set =
      kinefit::ParseSet(Part(*bytes, header.set_begin(), header.set_bytes), "fuzz");
  const auto places =
      kinefit::ParseIndex(Part(*bytes, header.index_begin(), header.index_bytes), "fuzz");
  uint64_t pose = header.poses_begin();
  uint64_t record = header.records_begin();
  for (size_t i = 0; i < std::min(set.entries.size(), places.size()); ++i) {
    kinefit::PackedEntry& entry = set.entries[i];
    entry.pose_hash = kinefit::XxHash64(Part(*bytes, pose, entry.pose_bytes()));
    pose += Padded(entry.pose_bytes());
    RepairRecord(bytes, record, places[i].bytes, static_cast<uint64_t>(entry.frames));
    record += Padded(places[i].bytes);
  }
  bytes->replace(header.set_begin(), header.set_bytes, kinefit::EncodeSet(set));
  Put(bytes, 24, kinefit::XxHash64(Part(*bytes, header.set_begin(), header.set_bytes)));
  Put(bytes, 56, kinefit::XxHash64(Part(*bytes, header.index_begin(), header.index_bytes)));
  seal();
}

void ReadAll(const std::string& path) {
  const auto store = kinefit::PackedStore::Open(path);
  for (size_t i = 0; i < store->set().entries.size(); ++i) {
    const kinefit::PackedEntry& entry = store->set().entries[i];
    if (!entry.rejected.empty()) continue;
    try {
      store->ReadPose(i);
      store->ReadFrames(i, {0, entry.frames - 1, entry.frames / 2});
    } catch (const kinefit::Error&) {
    }
  }
  store->Verify();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const bool repaired : {false, true}) {
    try {
      if (repaired) Repair(&bytes);
      const MemoryFile file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      ReadAll(file.path());
    } catch (const kinefit::Error&) {
    }
  }
  return 0;
}
