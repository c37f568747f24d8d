#include "distributed/shared_messages.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <stdexcept>

namespace kinefit {

// Of one rank, in a cache line of its own. The memory begins as zeros.
struct alignas(64) SharedMessages::Line {
  std::atomic<uint32_t> published;  // number of its last message; wraps around
  std::atomic<uint32_t> sleepers;   // waiting for the next
};

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

static_assert(std::atomic<uint32_t>::is_always_lock_free, "atomics must work across processes");

// Ranks that compute the same are rarely further apart; to be woken takes a good part of it.
constexpr microseconds kSpin(200);
constexpr milliseconds kLook(100);  // between looks at whether a rank is still there

std::runtime_error SystemError(const std::string& what) {
  return std::runtime_error(what + ": " + std::strerror(errno));
}

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// `word` is at or past `turn`, counted modulo 2^32.
bool Reached(const std::atomic<uint32_t>& word, uint32_t turn) {
  return static_cast<int32_t>(word.load() - turn) >= 0;
}

long Futex(std::atomic<uint32_t>* word, int operation, uint32_t value, const timespec* time) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, time, nullptr, 0);
}

struct flock LockOf(int64_t rank, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

}  // namespace

SharedMessages::SharedMessages(const std::string& name, int64_t rank, int64_t world, int64_t most,
                               milliseconds timeout)
    : rank_(rank),
      world_(world),
      // Whole cache lines, so that no two ranks write to one.
      most_((most + 7) / 8 * 8),
      timeout_(timeout),
      bytes_(static_cast<size_t>(world) *
             (sizeof(Line) + 2 * static_cast<size_t>(most_) * sizeof(double))) {
  const int make = rank == 0 ? O_CREAT | O_EXCL : 0;
  file_ = shm_open(name.c_str(), O_RDWR | O_CLOEXEC | make, 0600);
  if (file_ < 0) throw SystemError("cannot open shared memory");
  try {
    // Reserved now: where memory for it ran out later, touching it would end the process.
    const int error = rank == 0 ? posix_fallocate(file_, 0, static_cast<off_t>(bytes_)) : 0;
    if (error != 0) {
      throw std::runtime_error(std::string("no room in shared memory: ") + std::strerror(error));
    }
    struct stat facts = {};
    if (fstat(file_, &facts) != 0 || facts.st_size != static_cast<off_t>(bytes_)) {
      throw std::runtime_error("shared memory of another size");
    }
    // A lock of its own for each rank ends with it, however it ends.
    struct flock lock = LockOf(rank, F_WRLCK);
    if (fcntl(file_, F_OFD_SETLK, &lock) != 0) throw SystemError("cannot lock shared memory");
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (memory_ == MAP_FAILED) throw SystemError("cannot map shared memory");
  } catch (...) {
    close(file_);
    if (rank == 0) Forget(name);
    throw;
  }
  lines_ = static_cast<Line*>(memory_);
  places_ = reinterpret_cast<double*>(lines_ + world);
}

SharedMessages::~SharedMessages() {
  munmap(memory_, bytes_);
  close(file_);
}

std::string SharedMessages::NewName() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return "/kinefit-" + std::to_string(getpid()) + "-" + std::to_string(now.tv_sec) + "-" +
         std::to_string(now.tv_nsec);
}

void SharedMessages::Forget(const std::string& name) { shm_unlink(name.c_str()); }

void SharedMessages::Sum(double* values, int64_t count) {
  if (count > most_) throw std::logic_error("a message is longer than its place");
  const uint32_t turn = ++turn_;
  std::copy_n(values, count, Place(turn, rank_));
  Publish(turn);
  for (int64_t r = 0; r < world_; ++r) {
    if (r != rank_) Await(r, turn);
    const double* from = Place(turn, r);
    if (r == 0) {
      std::copy_n(from, count, values);
    } else {
      for (int64_t i = 0; i < count; ++i) values[i] += from[i];
    }
  }
}

double* SharedMessages::Place(uint32_t turn, int64_t rank) const {
  return places_ + (static_cast<int64_t>(turn % 2) * world_ + rank) * most_;
}

void SharedMessages::Publish(uint32_t turn) {
  Line& line = lines_[rank_];
  line.published.store(turn);
  if (line.sleepers.load() > 0) Futex(&line.published, FUTEX_WAKE, INT_MAX, nullptr);
}

void SharedMessages::Await(int64_t rank, uint32_t turn) const {
  Line& line = lines_[rank];
  const Clock::time_point begin = Clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (Reached(line.published, turn)) return;
      Relax();
    }
  } while (Clock::now() - begin < kSpin);
  const timespec look = {0, std::chrono::nanoseconds(kLook).count()};
  for (;;) {
    line.sleepers.fetch_add(1);
    const uint32_t seen = line.published.load();
    const bool late = static_cast<int32_t>(seen - turn) < 0;
    const bool looked = late && Futex(&line.published, FUTEX_WAIT, seen, &look) != 0;
    line.sleepers.fetch_sub(1);
    if (Reached(line.published, turn)) return;
    if (!looked) continue;
    const std::string who = "rank " + std::to_string(rank);
    // It may have published and ended since.
    if (Gone(rank) && !Reached(line.published, turn)) throw std::runtime_error(who + " has gone");
    if (Clock::now() - begin > timeout_) {
      throw std::runtime_error("timed out waiting for " + who);
    }
  }
}

bool SharedMessages::Gone(int64_t rank) const {
  struct flock lock = LockOf(rank, F_WRLCK);
  return fcntl(file_, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

}  // namespace kinefit
