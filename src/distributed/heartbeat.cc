#include "distributed/heartbeat.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "files/error.h"

namespace kinefit {

// Shared between processes of one machine and one build; never kept.
struct Record {
  static constexpr int64_t kMagic = 0x31544145424b;  // "KBEAT1"
  std::atomic<int64_t> magic;
  std::atomic<int64_t> version;  // odd while a beat is being written
  std::atomic<int64_t> beats;
  std::atomic<int64_t> step;
  std::atomic<int64_t> phase;
  std::atomic<int64_t> nanoseconds;  // CLOCK_MONOTONIC, which all processes share
};

namespace {

static_assert(std::atomic<int64_t>::is_always_lock_free, "atomics must work across processes");

int64_t Now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

Record* Map(int file) {
  void* memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<Record*>(memory);
}

std::string OwnPath() {
  const char* folder = std::getenv("KINEFIT_STATUS_DIR");
  const char* rank = std::getenv("RANK");
  if (folder == nullptr || rank == nullptr || *folder == 0) return "";
  return std::string(folder) + "/rank_" + rank;
}

}  // namespace

const char* NameOf(RankPhase phase) {
  switch (phase) {
    case RankPhase::kStarting:
      return "starting";
    case RankPhase::kLoading:
      return "waiting for its loader";
    case RankPhase::kComputing:
      return "computing";
    case RankPhase::kWaiting:
      return "waiting for the other ranks";
    case RankPhase::kValidating:
      return "validating";
    case RankPhase::kSaving:
      return "saving a checkpoint";
    case RankPhase::kEnding:
      return "ending";
  }
  return "unknown";
}

Heartbeat& Heartbeat::Own() {
  static Heartbeat own(OwnPath());
  return own;
}

Heartbeat::Heartbeat(const std::string& path) {
  if (path.empty()) return;
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  struct stat facts = {};
  if (fstat(file, &facts) == 0 && facts.st_size == sizeof(Record)) record_ = Map(file);
  close(file);
  if (record_ != nullptr && record_->magic.load() != Record::kMagic) {
    munmap(record_, sizeof(Record));
    record_ = nullptr;
  }
}

Heartbeat::~Heartbeat() {
  if (record_ != nullptr) munmap(record_, sizeof(Record));
}

void Heartbeat::Beat(int64_t step, RankPhase phase) {
  if (record_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  record_->version.fetch_add(1);
  record_->step.store(step);
  record_->phase.store(static_cast<int64_t>(phase));
  record_->nanoseconds.store(Now());
  record_->beats.fetch_add(1);
  record_->version.fetch_add(1);
}

RankPhase Heartbeat::Enter(RankPhase phase) {
  if (record_ == nullptr) return RankPhase::kStarting;
  const auto before = static_cast<RankPhase>(record_->phase.load());
  Beat(record_->step.load(), phase);
  return before;
}

HeartbeatFile::HeartbeatFile(const std::string& path) : path_(path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file >= 0 && ftruncate(file, sizeof(Record)) == 0) record_ = Map(file);
  const int error = errno;
  if (file >= 0) close(file);
  if (record_ == nullptr) {
    throw Error(std::string("cannot make a status file: ") + std::strerror(error), path,
                "free some space there, or name another folder with TMPDIR");
  }
  new (record_) Record{};
  record_->step.store(-1);
  record_->nanoseconds.store(Now());
  record_->magic.store(Record::kMagic);
}

HeartbeatFile::~HeartbeatFile() {
  munmap(record_, sizeof(Record));
  unlink(path_.c_str());
}

RankStatus HeartbeatFile::Read() const {
  RankStatus status;
  int64_t time = 0;
  // A writer that is stopped in the middle of a beat must not stop the watcher.
  for (int attempt = 0; attempt < 100000; ++attempt) {
    const int64_t version = record_->version.load();
    status.beats = record_->beats.load() > 0;
    status.step = record_->step.load();
    status.phase = static_cast<RankPhase>(record_->phase.load());
    time = record_->nanoseconds.load();
    if (version % 2 == 0 && record_->version.load() == version) break;
  }
  status.age = static_cast<double>(Now() - time) * 1e-9;
  return status;
}

}  // namespace kinefit
