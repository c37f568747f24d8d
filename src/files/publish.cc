#include "files/publish.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>

#include "files/error.h"
#include "files/write_error.h"

namespace kinefit {
namespace {

constexpr char kTemporaryMark[] = ".kinefit-tmp-";
constexpr size_t kBufferSize = 1 << 20;

std::atomic<bool> fault_armed{false};
std::atomic<int64_t> fault_calls{0};
std::atomic<int64_t> fault_nth{0};
std::atomic<int> fault_error{0};

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string RemedyFor(int error_number, const std::string& path) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "free some space, or write to another disk";
    case ENOENT:
    case ENOTDIR:
      return "create the folder " + FolderOf(path);
    case EACCES:
    case EPERM:
    case EROFS:
      return "make the folder " + FolderOf(path) + " writable, or choose another";
    case EISDIR:
      return "choose a name that is no folder";
    default:
      return "";
  }
}

std::string Reason(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "the disk is full";
    case EDQUOT:
      return "the disk quota is used up";
    case EFBIG:
      return "the file would be larger than allowed here";
    default:
      return std::strerror(error_number);
  }
}

}  // namespace

bool FaultInjected() {
  if (!fault_armed.load(std::memory_order_relaxed)) return false;
  if (fault_calls++ < fault_nth) return false;
  errno = fault_error;
  return true;
}

void ThrowWriteError(const std::string& action, const std::string& path, int error_number) {
  throw Error("cannot " + action + " the file: " + Reason(error_number), path,
              RemedyFor(error_number, path));
}

int FlushFolderOf(const std::string& path) {
  const int folder = open(FolderOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return 0;  // a folder that may be written but not read
  const bool failed = FaultInjected() || (fsync(folder) != 0 && errno != EINVAL);
  const int error_number = failed ? errno : 0;
  close(folder);
  return error_number;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  static std::atomic<uint64_t> counter{0};
  if (path.empty()) throw Error("a file needs a name to be written under");
  do {
    temporary_ = path + kTemporaryMark + std::to_string(getpid()) + "-" + std::to_string(counter++);
    if (FaultInjected()) Fail("create", errno);
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (file_ < 0 && errno == EEXIST);
  if (file_ < 0) Fail("create", errno);
  // Marks the file as being written; see RemoveAbandonedTemporaries. Not every file system can.
  flock(file_, LOCK_EX | LOCK_NB);
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) close(file_);
  if (!committed_ && !temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::Fail(const std::string& action, int error_number) const {
  ThrowWriteError(action, path_, error_number);
}

void AtomicFile::WriteThrough(const char* data, size_t size) {
  while (size > 0) {
    if (FaultInjected()) Fail("write", errno);
    const ssize_t written = write(file_, data, std::min<size_t>(size, size_t{1} << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      Fail("write", errno);
    }
    data += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::Flush() {
  WriteThrough(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::Write(const void* data, size_t size) {
  if (size == 0) return;
  size_ += size;
  if (buffer_.size() + size > kBufferSize) Flush();
  if (size >= kBufferSize) {
    WriteThrough(static_cast<const char*>(data), size);
  } else {
    buffer_.append(static_cast<const char*>(data), size);
  }
}

void AtomicFile::Commit() {
  Flush();
  if (FaultInjected() || fsync(file_) != 0) Fail("flush", errno);
  if (FaultInjected() || rename(temporary_.c_str(), path_.c_str()) != 0) Fail("publish", errno);
  committed_ = true;
  if (close(file_) != 0) {
    // The data is already on the disk, and close() is never repeated on Linux.
  }
  file_ = -1;
  // Without this the new name could be lost with the power, though never the old contents.
  const int error_number = FlushFolderOf(path_);
  if (error_number != 0) Fail("flush the folder of", error_number);
}

void PublishFile(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.Write(bytes);
  file.Commit();
}

int RemoveAbandonedTemporaries(const std::string& folder) {
  std::error_code error;
  int removed = 0;
  for (auto it = std::filesystem::directory_iterator(folder, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    const std::string path = it->path().string();
    if (it->path().filename().string().find(kTemporaryMark) == std::string::npos) continue;
    const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) continue;
    if (flock(file, LOCK_EX | LOCK_NB) == 0 && unlink(path.c_str()) == 0) ++removed;
    close(file);
  }
  return removed;
}

void MakeFolder(const std::string& folder) {
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && std::filesystem::is_directory(folder)) return;
  const std::string reason = error ? error.message() : "a file of that name is in the way";
  throw Error("cannot create the folder: " + reason, folder,
              "make its parent writable, or choose another folder");
}

std::string ReadFile(const std::string& path, uint64_t max_bytes) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    throw Error("cannot read the file: " + Reason(errno), path, "check the path");
  }
  struct Closer {
    int file;
    ~Closer() { close(file); }
  } closer{file};
  struct stat info;
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error("cannot read the file: it is not a regular file", path, "check the path");
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > max_bytes) {
    throw Error("the file has " + std::to_string(size) + " bytes, more than the " +
                    std::to_string(max_bytes) + " that make sense here",
                path, "check that it is the right file");
  }
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(file, &bytes[done], std::min<size_t>(size - done, size_t{1} << 30));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error("cannot read the file: " + Reason(errno), path,
                  "check the path and its permissions");
    if (got == 0)
      throw Error("the file became shorter while it was read", path,
                  "wait until whoever writes it is done");
    done += static_cast<size_t>(got);
  }
  return bytes;
}

uint32_t Crc32(const void* data, size_t size, uint32_t crc) {
  return static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(data), size));
}

uint64_t XxHash64(std::string_view bytes, uint64_t seed) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

ScopedFileFault::ScopedFileFault(int64_t nth, int error_number) {
  fault_nth = nth;
  fault_error = error_number;
  fault_calls = 0;
  fault_armed = true;
}

ScopedFileFault::~ScopedFileFault() { fault_armed = false; }

int64_t ScopedFileFault::calls() const { return fault_calls; }

}  // namespace kinefit
