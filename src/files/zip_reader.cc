#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "files/error.h"
#include "files/zip.h"

// The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
namespace kinefit {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kEntrySignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocatorSignature = 0x07064b50;
constexpr uint64_t kLocalSize = 30;
constexpr uint64_t kEntrySize = 46;
constexpr uint64_t kEndSize = 22;
constexpr uint64_t kEnd64Size = 56;
constexpr uint64_t kLocatorSize = 20;
constexpr uint64_t kMaxDirectory = uint64_t{1} << 30;
constexpr uint16_t kZip64Extra = 1;
constexpr uint32_t kSaturated = 0xFFFFFFFF;

// Little-endian numbers out of a header whose length was checked.
template <typename T>
T Load(const char* bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes + offset, sizeof(value));
  return value;
}

// Why a member of this name is refused; nullptr if it is fine.
const char* BadName(const std::string& name) {
  if (name.empty()) return "a member without a name";
  if (name.find('\0') != std::string::npos || name.find('\\') != std::string::npos) {
    return "a member with a malformed name";
  }
  if (name.front() == '/' || (name.size() > 1 && name[1] == ':')) {
    return "a member whose name leaves the archive";
  }
  for (size_t start = 0; start <= name.size();) {
    const size_t stop = std::min(name.find('/', start), name.size());
    if (name.compare(start, stop - start, "..") == 0) {
      return "a member whose name leaves the archive";
    }
    start = stop + 1;
  }
  return nullptr;
}

// Replaces saturated 32-bit fields by their 64-bit values; false if the extra field lacks them.
bool ApplyZip64(const char* extra, uint64_t size, ZipReader::Entry* entry, uint64_t* header) {
  uint64_t* const fields[] = {&entry->size, &entry->compressed_size, header};
  const bool wanted = std::any_of(std::begin(fields), std::end(fields),
                                  [](const uint64_t* field) { return *field == kSaturated; });
  if (!wanted) return true;
  for (uint64_t at = 0; at + 4 <= size;) {
    const auto id = Load<uint16_t>(extra, at);
    const uint64_t length = Load<uint16_t>(extra, at + 2);
    at += 4;
    if (length > size - at) return false;
    if (id == kZip64Extra) {
      uint64_t used = 0;
      for (uint64_t* field : fields) {
        if (*field != kSaturated) continue;
        if (used + 8 > length) return false;
        *field = Load<uint64_t>(extra, at + used);
        used += 8;
      }
      return true;
    }
    at += length;
  }
  return false;
}

}  // namespace

struct ZipReader::Directory {
  uint64_t entries = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

ZipReader::ZipReader(const std::string& path, const ZipLimits& limits) : path_(path) {
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) {
    throw Error(std::string("cannot read the file: ") + std::strerror(errno), path,
                "check the path");
  }
  try {
    struct stat info;
    if (fstat(file_, &info) != 0 || !S_ISREG(info.st_mode)) Malformed("it is not a regular file");
    file_size_ = static_cast<uint64_t>(info.st_size);
    ReadEntries(FindDirectory(), limits);
  } catch (...) {
    close(file_);
    throw;
  }
}

ZipReader::~ZipReader() { close(file_); }

bool ZipReader::LooksLikeZip(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  char start[4] = {};
  const bool read = pread(file, start, sizeof(start), 0) == sizeof(start);
  close(file);
  return read &&
         (Load<uint32_t>(start, 0) == kLocalSignature || Load<uint32_t>(start, 0) == kEndSignature);
}

void ZipReader::Malformed(const std::string& what) const {
  throw Error("damaged or hostile zip archive: " + what, path_, "make or download the file again");
}

void ZipReader::ReadAt(uint64_t offset, void* destination, uint64_t size) const {
  if (offset > file_size_ || size > file_size_ - offset) Malformed("it ends too early");
  char* to = static_cast<char*>(destination);
  while (size > 0) {
    const size_t piece = std::min<uint64_t>(size, uint64_t{1} << 30);
    const ssize_t got = pread(file_, to, piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Error(std::string("cannot read the file: ") + std::strerror(errno), path_,
                  "check the path and its permissions");
    }
    if (got == 0) Malformed("it became shorter while it was read");
    to += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
}

ZipReader::Directory ZipReader::FindDirectory() const {
  if (file_size_ < kEndSize) Malformed("it is too short");
  std::string tail(std::min<uint64_t>(file_size_, kEndSize + 0xFFFF), '\0');
  const uint64_t tail_start = file_size_ - tail.size();
  ReadAt(tail_start, tail.data(), tail.size());
  // The end record is followed by a comment whose length it tells.
  uint64_t at = tail.size() - kEndSize + 1;
  do {
    if (at-- == 0) Malformed("it has no directory; it may be cut off");
  } while (Load<uint32_t>(tail.data(), at) != kEndSignature ||
           Load<uint16_t>(tail.data(), at + 20) != tail.size() - at - kEndSize);

  const char* end = tail.data() + at;
  Directory directory{Load<uint16_t>(end, 10), Load<uint32_t>(end, 16), Load<uint32_t>(end, 12)};
  uint64_t limit = tail_start + at;
  const bool saturated =
      directory.entries == 0xFFFF || directory.offset == kSaturated || directory.size == kSaturated;
  if (saturated && limit >= kLocatorSize + kEnd64Size) {
    char locator[kLocatorSize];
    ReadAt(limit - kLocatorSize, locator, kLocatorSize);
    if (Load<uint32_t>(locator, 0) == kLocatorSignature) {
      limit = Load<uint64_t>(locator, 8);
      char end64[kEnd64Size];
      ReadAt(limit, end64, kEnd64Size);
      if (Load<uint32_t>(end64, 0) != kEnd64Signature) Malformed("its ZIP64 record is missing");
      directory = {Load<uint64_t>(end64, 32), Load<uint64_t>(end64, 48), Load<uint64_t>(end64, 40)};
    }
  }
  if (directory.offset > limit || directory.size > limit - directory.offset) {
    Malformed("its directory does not fit into the file");
  }
  return directory;
}

void ZipReader::ReadEntries(const Directory& directory, const ZipLimits& limits) {
  if (directory.entries > limits.max_entries || directory.size > kMaxDirectory) {
    Malformed("it claims " + std::to_string(directory.entries) + " members");
  }
  if (directory.entries > directory.size / kEntrySize) Malformed("its directory is too short");
  std::string bytes(directory.size, '\0');
  ReadAt(directory.offset, bytes.data(), bytes.size());

  std::vector<uint64_t> header_offsets;
  uint64_t at = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (bytes.size() - at < kEntrySize) Malformed("its directory is too short");
    const char* record = bytes.data() + at;
    if (Load<uint32_t>(record, 0) != kEntrySignature) Malformed("its directory is garbled");
    const auto flags = Load<uint16_t>(record, 8);
    const auto method = Load<uint16_t>(record, 10);
    const uint64_t name_size = Load<uint16_t>(record, 28);
    const uint64_t extra_size = Load<uint16_t>(record, 30);
    const uint64_t record_size = kEntrySize + name_size + extra_size + Load<uint16_t>(record, 32);
    if (bytes.size() - at < record_size) Malformed("its directory is too short");
    at += record_size;

    Entry entry;
    entry.name.assign(record + kEntrySize, name_size);
    entry.crc = Load<uint32_t>(record, 16);
    entry.compressed_size = Load<uint32_t>(record, 20);
    entry.size = Load<uint32_t>(record, 24);
    entry.deflated = method == 8;
    uint64_t header = Load<uint32_t>(record, 42);
    if (!ApplyZip64(record + kEntrySize + name_size, extra_size, &entry, &header)) {
      Malformed("a ZIP64 field is missing");
    }
    if (const char* bad = BadName(entry.name)) Malformed(bad);
    if ((flags & 0x2041) != 0) Malformed("member " + entry.name + " is encrypted");
    if (method != 0 && method != 8) Malformed("member " + entry.name + " is packed in a rare way");
    if (!entry.deflated && entry.size != entry.compressed_size) {
      Malformed("member " + entry.name + " has two sizes");
    }
    if (entry.size / limits.max_inflation > entry.compressed_size) {
      Malformed("member " + entry.name + " claims to unpack to an absurd size");
    }
    if (entry.name.back() == '/' && entry.size == 0) continue;  // a folder
    LocateData(&entry, header);
    if (entry.offset > directory.offset ||
        entry.compressed_size > directory.offset - entry.offset) {
      Malformed("member " + entry.name + " leaves the file");
    }
    header_offsets.push_back(header);
    entries_.push_back(std::move(entry));
  }
  RejectOverlaps(header_offsets);

  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(),
            [this](uint32_t a, uint32_t b) { return entries_[a].name < entries_[b].name; });
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const std::string& name = entries_[by_name_[i]].name;
    if (name == entries_[by_name_[i - 1]].name) Malformed("two members are called " + name);
  }
}

void ZipReader::LocateData(Entry* entry, uint64_t header_offset) const {
  std::string header(kLocalSize + entry->name.size(), '\0');
  ReadAt(header_offset, header.data(), header.size());
  if (Load<uint32_t>(header.data(), 0) != kLocalSignature ||
      Load<uint16_t>(header.data(), 26) != entry->name.size() ||
      header.compare(kLocalSize, std::string::npos, entry->name) != 0) {
    Malformed("member " + entry->name + " is not where the directory says");
  }
  entry->offset = header_offset + header.size() + Load<uint16_t>(header.data(), 28);
}

void ZipReader::RejectOverlaps(const std::vector<uint64_t>& header_offsets) const {
  std::vector<uint32_t> order(entries_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return header_offsets[a] < header_offsets[b]; });
  for (size_t i = 1; i < order.size(); ++i) {
    const Entry& before = entries_[order[i - 1]];
    if (before.offset + before.compressed_size > header_offsets[order[i]]) {
      Malformed("members " + before.name + " and " + entries_[order[i]].name + " overlap");
    }
  }
}

const ZipReader::Entry* ZipReader::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [this](uint32_t i, std::string_view wanted) { return entries_[i].name < wanted; });
  if (found == by_name_.end() || entries_[*found].name != name) return nullptr;
  return &entries_[*found];
}

std::string ZipReader::Read(const Entry& entry, uint64_t max_size) const {
  if (entry.size > max_size) {
    Malformed("member " + entry.name + " has " + std::to_string(entry.size) + " bytes, " +
              std::to_string(max_size) + " make sense");
  }
  std::string bytes(entry.size, '\0');
  ReadInto(entry, bytes.data());
  return bytes;
}

void ZipReader::ReadInto(const Entry& entry, void* destination) const {
  uint32_t crc = 0;
  if (entry.deflated) {
    Inflate(entry, destination);
    crc = Crc32(destination, entry.size);
  } else {
    // In pieces, so that the checksum finds them in the processor's cache.
    constexpr uint64_t kPiece = 1 << 18;
    char* to = static_cast<char*>(destination);
    for (uint64_t done = 0; done < entry.size; done += kPiece) {
      const uint64_t size = std::min(kPiece, entry.size - done);
      ReadAt(entry.offset + done, to + done, size);
      crc = Crc32(to + done, size, crc);
    }
  }
  if (crc != entry.crc) Malformed("member " + entry.name + " fails its checksum");
}

void ZipReader::Inflate(const Entry& entry, void* destination) const {
  constexpr uint64_t kPiece = 1 << 18;
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error("zlib cannot be used", path_);
  struct Ender {
    z_stream* stream;
    ~Ender() { inflateEnd(stream); }
  } ender{&stream};
  std::string input(std::min(kPiece, entry.compressed_size), '\0');
  uint64_t taken = 0;
  uint64_t made = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0 && taken < entry.compressed_size) {
      const uint64_t size = std::min<uint64_t>(input.size(), entry.compressed_size - taken);
      ReadAt(entry.offset + taken, input.data(), size);
      taken += size;
      stream.next_in = reinterpret_cast<Bytef*>(input.data());
      stream.avail_in = static_cast<uInt>(size);
    }
    const uint64_t room = std::min<uint64_t>(entry.size - made, uint64_t{1} << 30);
    stream.next_out = static_cast<Bytef*>(destination) + made;
    stream.avail_out = static_cast<uInt>(room);
    Bytef nothing;  // zlib wants an address even where there is no room
    if (room == 0) stream.next_out = &nothing;
    status = inflate(&stream, Z_NO_FLUSH);
    made += room - stream.avail_out;
  }
  if (status != Z_STREAM_END || made != entry.size) {
    Malformed("member " + entry.name + " cannot be unpacked");
  }
}

void ZipReader::Verify(const Entry& entry) const {
  if (entry.deflated) {
    Read(entry);
    return;
  }
  uint32_t crc = 0;
  std::string piece(std::min<uint64_t>(entry.size, 1 << 20), '\0');
  for (uint64_t done = 0; done < entry.size;) {
    const uint64_t size = std::min<uint64_t>(piece.size(), entry.size - done);
    ReadAt(entry.offset + done, piece.data(), size);
    crc = Crc32(piece.data(), size, crc);
    done += size;
  }
  if (crc != entry.crc) Malformed("member " + entry.name + " fails its checksum");
}

}  // namespace kinefit
