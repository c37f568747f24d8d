#include "files/resumable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "files/error.h"
#include "files/write_error.h"

namespace kinefit {

ResumableFile::ResumableFile(const std::string& path) : path_(path), partial_(path + ".partial") {
  if (path.empty()) throw Error("a file needs a name to be written under");
  if (!FaultInjected()) file_ = open(partial_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) Fail("create", errno);
  try {
    // Where the file system knows no locks, two writers are not kept apart.
    if (flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw Error("another process is writing this file", path_,
                  "wait for it, or choose another name");
    }
    // Whoever held the lock may just have renamed the file away.
    struct stat info;
    struct stat named;
    if (fstat(file_, &info) != 0 || !S_ISREG(info.st_mode)) Fail("write", EINVAL);
    if (stat(partial_.c_str(), &named) != 0 || named.st_ino != info.st_ino) {
      throw Error("another process has just written this file", path_, "run the command again");
    }
    size_ = static_cast<uint64_t>(info.st_size);
  } catch (...) {
    close(file_);
    throw;
  }
}

ResumableFile::~ResumableFile() {
  if (file_ >= 0) close(file_);
}

void ResumableFile::Fail(const std::string& action, int error_number) const {
  ThrowWriteError(action, path_, error_number);
}

void ResumableFile::Truncate(uint64_t size) {
  if (FaultInjected() || ftruncate(file_, static_cast<off_t>(size)) != 0) Fail("write", errno);
  size_ = size;
}

void ResumableFile::WriteAt(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    if (FaultInjected()) Fail("write", errno);
    const ssize_t written =
        pwrite(file_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30),
               static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      Fail("write", errno);
    }
    offset += static_cast<uint64_t>(written);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void ResumableFile::Append(std::string_view bytes) {
  WriteAt(size_, bytes);
  size_ += bytes.size();
}

void ResumableFile::Overwrite(uint64_t offset, std::string_view bytes) { WriteAt(offset, bytes); }

void ResumableFile::Flush() {
  if (FaultInjected() || fsync(file_) != 0) Fail("flush", errno);
}

void ResumableFile::Commit() {
  Flush();
  if (FaultInjected() || rename(partial_.c_str(), path_.c_str()) != 0) Fail("publish", errno);
  const int error_number = FlushFolderOf(path_);
  if (error_number != 0) Fail("flush the folder of", error_number);
}

}  // namespace kinefit
