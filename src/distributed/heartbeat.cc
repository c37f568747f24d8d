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
  std::atomic<int64_t> beats;
  std::atomic<int64_t> place;        // step and phase in one, so that they always belong together
  std::atomic<int64_t> nanoseconds;  // CLOCK_MONOTONIC, which all processes share
};

namespace {

static_assert(std::atomic<int64_t>::is_always_lock_free, "atomics must work across processes");

constexpr int64_t kPhases = 8;

int64_t PlaceOf(int64_t step, RankPhase phase) {
  return (step + 1) * kPhases + static_cast<int64_t>(phase);
}
int64_t StepOf(int64_t place) { return place / kPhases - 1; }
RankPhase PhaseOf(int64_t place) { return static_cast<RankPhase>(place % kPhases); }

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
  record_->place.store(PlaceOf(step, phase));
  record_->nanoseconds.store(Now());
  record_->beats.fetch_add(1);
}

RankPhase Heartbeat::Enter(RankPhase phase) {
  if (record_ == nullptr) return RankPhase::kStarting;
  const int64_t place = record_->place.load();
  Beat(StepOf(place), phase);
  return PhaseOf(place);
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
  record_->place.store(PlaceOf(-1, RankPhase::kStarting));
  record_->nanoseconds.store(Now());
  record_->magic.store(Record::kMagic);
}

HeartbeatFile::~HeartbeatFile() {
  munmap(record_, sizeof(Record));
  unlink(path_.c_str());
}

RankStatus HeartbeatFile::Read() const {
  RankStatus status;
  const int64_t place = record_->place.load();
  status.beats = record_->beats.load() > 0;
  status.step = StepOf(place);
  status.phase = PhaseOf(place);
  status.age = static_cast<double>(Now() - record_->nanoseconds.load()) * 1e-9;
  return status;
}

}  // namespace kinefit
