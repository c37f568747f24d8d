#include "files/error.h"
#include "files/zip.h"

namespace kinefit {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kSaturated = 0xFFFFFFFF;
constexpr uint16_t kDate = 0x21;  // 1980-01-01: the same contents always make the same bytes
constexpr uint16_t kUtf8Names = 0x800;

// A record of little-endian fields.
class Record {
 public:
  Record& U16(uint64_t value) { return Put(value, 2); }
  Record& U32(uint64_t value) { return Put(value, 4); }
  Record& U64(uint64_t value) { return Put(value, 8); }
  Record& Text(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  // Saturated if it needs 64 bits.
  Record& U32OrSaturated(uint64_t value) { return U32(value < kSaturated ? value : kSaturated); }
  const std::string& bytes() const { return bytes_; }

 private:
  Record& Put(uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes_.push_back(static_cast<char>(value >> (8 * i)));
    return *this;
  }

  std::string bytes_;
};

}  // namespace

ZipWriter::ZipWriter(const std::string& path) : file_(path) {}

void ZipWriter::Add(const std::string& name, const void* data, uint64_t size) {
  if (name.empty() || name.size() > 0xF000) throw Error("bad member name", file_.path());
  const Member member{name, file_.size(), size, Crc32(data, size)};
  const bool large = size >= kSaturated;

  Record extra;
  if (large) extra.U16(1).U16(16).U64(size).U64(size);
  const uint64_t unpadded = member.header_offset + 30 + name.size() + extra.bytes().size() + 4;
  const uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  extra.Text("FB").U16(padding).Text(std::string(padding, 'Z'));

  Record header;
  header.U32(0x04034b50).U16(large ? 45 : 20).U16(kUtf8Names).U16(0).U16(0).U16(kDate);
  header.U32(member.crc).U32OrSaturated(size).U32OrSaturated(size);
  header.U16(name.size()).U16(extra.bytes().size()).Text(name).Text(extra.bytes());
  file_.Write(header.bytes());
  file_.Write(data, size);
  members_.push_back(member);
}

void ZipWriter::Commit() {
  const uint64_t start = file_.size();
  for (const Member& member : members_) {
    Record extra;
    if (member.size >= kSaturated) extra.U64(member.size).U64(member.size);
    if (member.header_offset >= kSaturated) extra.U64(member.header_offset);
    const uint64_t extra_size = extra.bytes().size();

    Record entry;
    entry.U32(0x02014b50).U16(45).U16(extra_size > 0 ? 45 : 20).U16(kUtf8Names).U16(0);
    entry.U16(0).U16(kDate).U32(member.crc);
    entry.U32OrSaturated(member.size).U32OrSaturated(member.size).U16(member.name.size());
    entry.U16(extra_size > 0 ? extra_size + 4 : 0).U16(0).U16(0).U16(0).U32(0);
    entry.U32OrSaturated(member.header_offset).Text(member.name);
    if (extra_size > 0) entry.U16(1).U16(extra_size).Text(extra.bytes());
    file_.Write(entry.bytes());
  }
  const uint64_t end = file_.size();
  const uint64_t size = end - start;
  const uint64_t count = members_.size();

  Record tail;
  if (count >= 0xFFFF || start >= kSaturated || size >= kSaturated) {
    tail.U32(0x06064b50).U64(44).U16(45).U16(45).U32(0).U32(0);
    tail.U64(count).U64(count).U64(size).U64(start);
    tail.U32(0x07064b50).U32(0).U64(end).U32(1);
  }
  const uint64_t short_count = count < 0xFFFF ? count : 0xFFFF;
  tail.U32(0x06054b50).U16(0).U16(0).U16(short_count).U16(short_count);
  tail.U32OrSaturated(size).U32OrSaturated(start).U16(0);
  file_.Write(tail.bytes());
  file_.Commit();
}

}  // namespace kinefit
