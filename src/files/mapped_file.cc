#include "files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "files/error.h"

namespace kinefit {
namespace {

// Reading a page of a mapped file that was cut off meanwhile raises SIGBUS, which would end the
// process without a word. The handler lays an empty page under the reader instead and notes it;
// whoever read then asks CheckSize. Everything in it may be done in a signal handler.
struct Mapping {
  std::atomic<uintptr_t> begin{0};
  std::atomic<size_t> size{0};
  std::atomic<bool> cut{false};
};
constexpr size_t kMostMappings = 256;  // of one process; more are mapped, too, but not guarded
std::array<Mapping, kMostMappings> g_mappings;
size_t g_page = 4096;

void OnBusError(int number, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Mapping& mapping : g_mappings) {
    const uintptr_t begin = mapping.begin;
    if (begin == 0 || address < begin || address >= begin + mapping.size) continue;
    mapping.cut = true;
    void* page = reinterpret_cast<void*>(address / g_page * g_page);
    const void* there =
        mmap(page, g_page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (there != MAP_FAILED) return;
  }
  std::signal(number, SIG_DFL);  // not ours: the same instruction ends the process
}

void InstallBusHandler() {
  static const bool installed = [] {
    g_page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  (void)installed;
}

Mapping* Guard(const void* data, size_t size) {
  InstallBusHandler();
  for (Mapping& mapping : g_mappings) {
    size_t free = 0;
    if (!mapping.size.compare_exchange_strong(free, size)) continue;
    mapping.cut = false;
    mapping.begin = reinterpret_cast<uintptr_t>(data);
    return &mapping;
  }
  return nullptr;
}

}  // namespace

// What a MappedFile knows of its place among them.
struct MappedFile::Guarded {
  Mapping* mapping;
};

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
  guard_ = std::make_unique<Guarded>(Guarded{Guard(data_, size_)});
}

MappedFile::~MappedFile() {
  if (guard_ && guard_->mapping != nullptr) {
    guard_->mapping->begin = 0;
    guard_->mapping->size = 0;
  }
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
  close(file_);
}

void MappedFile::CheckSize() const {
  struct stat info;
  const bool cut = guard_ && guard_->mapping != nullptr && guard_->mapping->cut;
  if (!cut && fstat(file_, &info) == 0 && static_cast<size_t>(info.st_size) >= size_) return;
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
