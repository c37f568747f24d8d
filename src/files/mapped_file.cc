#include "files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "files/error.h"

namespace kinefit {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) {
    const std::string reason = std::strerror(errno);
    if (errno == EMFILE || errno == ENFILE) {
      throw ResourceError("cannot read the file: " + reason, path,
                          "raise the limit of open files (ulimit -n)");
    }
    throw Error("cannot read the file: " + reason, path, "check the path");
  }
  struct stat info;
  if (fstat(file_, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(file_);
    throw Error("cannot read the file: it is not a regular file", path, "check the path");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* mapped = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED) {
    const std::string reason = std::strerror(errno);
    close(file_);
    throw ResourceError("cannot map the file into memory: " + reason, path,
                        "allow the process more address space (ulimit -v)");
  }
  data_ = static_cast<const char*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
  close(file_);
}

void MappedFile::CheckSize() const {
  struct stat info;
  if (fstat(file_, &info) == 0 && static_cast<size_t>(info.st_size) >= size_) return;
  throw Error("the file became shorter while it was in use", path_,
              "do not write to it while it is read; copy or make it again");
}

void MappedFile::Prefetch(size_t offset, size_t size) const { Advise(offset, size, MADV_WILLNEED); }

void MappedFile::Release(size_t offset, size_t size) const { Advise(offset, size, MADV_DONTNEED); }

void MappedFile::Advise(size_t offset, size_t size, int advice) const {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (offset >= size_) return;
  const size_t begin = offset / page * page;
  const size_t end = std::min(size_, offset + size);
  // Advice that is not taken changes nothing but the time.
  (void)madvise(const_cast<char*>(data_) + begin, end - begin, advice);
}

}  // namespace kinefit
