#include "distributed/rank_group.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include "files/error.h"

namespace kinefit {
namespace {

using std::chrono::milliseconds;

// How long a rank that says "the other one has gone" waits for the other one's own words.
constexpr milliseconds kSettle(2000);
// Ranks that all wait for each other are left to the time-out of their collective first.
constexpr double kWaitingSlack = 5;
// What a kinefit that saved its checkpoint after a signal ends with.
constexpr int kObeyed[] = {128 + SIGHUP, 128 + SIGINT, 128 + SIGTERM};

double Seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

std::string Short(double seconds) {
  char text[32];
  std::snprintf(text, sizeof(text), seconds < 10 ? "%.1f s" : "%.0f s", seconds);
  return text;
}

// Ranks tell each other why they end: "rank 1 (process 4242 on node7) at step 9: the reason".
bool NamesAnother(const std::string& words, int64_t rank) {
  long long named = -1;
  return std::sscanf(words.c_str(), "rank %lld (process", &named) == 1 && named != rank &&
         words.find("(process ") != std::string::npos;
}

bool Obeyed(int exit_code) {
  return std::find(std::begin(kObeyed), std::end(kObeyed), exit_code) != std::end(kObeyed);
}

// One line between the output of two starts.
void MarkStart(const std::string& log, const RankGroupOptions& options) {
  std::FILE* file = std::fopen(log.c_str(), "a");
  if (file == nullptr) return;  // starting the rank says why
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char time[32];
  std::strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", &utc);
  std::fprintf(file, "== %s start %lld on %s, %lld ranks\n", time,
               static_cast<long long>(options.start + 1), options.host.c_str(),
               static_cast<long long>(options.world));
  std::fclose(file);
}

std::string ThreadsEach(int64_t ranks) {
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  return std::to_string(std::max<int64_t>(1, cores / std::max<int64_t>(1, ranks)));
}

std::vector<std::pair<std::string, std::string>> Variables(const RankGroupOptions& options,
                                                           int64_t local) {
  const auto text = [](int64_t number) { return std::to_string(number); };
  std::vector<std::pair<std::string, std::string>> variables = {
      {"RANK", text(options.first_rank + local)},
      {"WORLD_SIZE", text(options.world)},
      {"LOCAL_RANK", text(local)},
      {"LOCAL_WORLD_SIZE", text(options.ranks)},
      {"GROUP_RANK", text(options.node)},
      {"MASTER_ADDR", options.address},
      {"MASTER_PORT", text(options.port)},
      {"TORCHELASTIC_RESTART_COUNT", text(options.start)},
      {"TORCHELASTIC_MAX_RESTARTS", text(options.max_restarts)},
      {"KINEFIT_STATUS_DIR", options.status_folder}};
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    variables.emplace_back("OMP_NUM_THREADS", ThreadsEach(options.ranks));
  }
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    variables.emplace_back("OMP_WAIT_POLICY", "passive");
  }
  if (!options.devices.empty()) {
    std::string devices;
    for (const std::string& device : options.devices) {
      devices.append(devices.empty() ? "" : ",").append(device);
    }
    variables.emplace_back("CUDA_VISIBLE_DEVICES", devices);
  }
  return variables;
}

}  // namespace

struct RankGroup::Member {
  int64_t rank = 0;
  std::string log;
  std::string error_file;
  std::unique_ptr<HeartbeatFile> beat;
  std::unique_ptr<RankProcess> process;
  std::optional<Clock::time_point> ended;
  std::optional<Clock::time_point> stopped;

  double SecondsStopped() const { return stopped ? Seconds(Clock::now() - *stopped) : 0; }
};

RankGroup::RankGroup(const RankGroupOptions& options) : options_(options) {
  for (int64_t local = 0; local < options.ranks; ++local) {
    auto member = std::make_unique<Member>();
    member->rank = options.first_rank + local;
    const std::string number = std::to_string(member->rank);
    member->log = options.log_folder + "/rank_" + number + ".log";
    member->error_file = options.status_folder + "/error_" + number;
    unlink(member->error_file.c_str());
    member->beat = std::make_unique<HeartbeatFile>(options.status_folder + "/rank_" + number);
    MarkStart(member->log, options);
    RankProcess::Start start;
    start.command = options.command;
    start.environment = Variables(options, local);
    start.environment.emplace_back("TORCHELASTIC_ERROR_FILE", member->error_file);
    start.without = {"TORCHELASTIC_USE_AGENT_STORE"};
    start.log = member->log;
    member->process = std::make_unique<RankProcess>(start);
    if (member->rank == 0) shown_ = member->process->log_start();
    members_.push_back(std::move(member));
  }
}

RankGroup::~RankGroup() {
  BringDown(milliseconds(0));
  for (const auto& member : members_) unlink(member->error_file.c_str());
}

bool RankGroup::EndedWell(const Member& member) const {
  const int code = member.process->exit_code();
  return code == 0 || Obeyed(code) || (expected_signal_ != 0 && code == 128 + expected_signal_);
}

RankFailure RankGroup::FailureOf(const Member& member) const {
  const RankProcess& process = *member.process;
  const RankStatus status = member.beat->Read();
  RankFailure failure;
  failure.rank = member.rank;
  failure.host = options_.host;
  failure.step = status.step;
  if (status.beats) failure.phase = NameOf(status.phase);
  failure.exit_code = process.exit_code();
  failure.log = member.log;
  if (process.killed_by_signal()) {
    const int number = failure.exit_code - 128;
    failure.why = "was killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
    // Its last line has nothing to do with it.
    if (number != SIGKILL && number != SIGTERM) {
      failure.last = LastWords(member.error_file, member.log, process.log_start());
    }
    return failure;
  }
  failure.last = LastWords(member.error_file, member.log, process.log_start());
  failure.peer_lost = (status.beats && status.phase == RankPhase::kWaiting) ||
                      SaysPeerLost(failure.last) || NamesAnother(failure.last, member.rank);
  failure.why = "ended with exit code " + std::to_string(failure.exit_code);
  // 2 is bad input: it would be as bad the next time. Who lost a peer may say it as an error, too.
  failure.again = failure.exit_code != 2 || failure.peer_lost;
  if (failure.exit_code == 0 || Obeyed(failure.exit_code)) {
    failure.why += " before the others were done";
    failure.exit_code = 1;
  }
  return failure;
}

RankFailure RankGroup::StallOf(const Member& member, double seconds) const {
  const RankStatus status = member.beat->Read();
  RankFailure failure;
  failure.rank = member.rank;
  failure.host = options_.host;
  failure.step = status.step;
  if (status.beats) failure.phase = NameOf(status.phase);
  failure.log = member.log;
  failure.why = "gave no sign of life for " + Short(seconds);
  if (member.stopped) failure.why += " (it was stopped by a signal)";
  failure.why += ", --timeout is " + Short(options_.timeout) + ";";
  failure.peer_lost = !member.stopped && status.phase == RankPhase::kWaiting;
  return failure;
}

// The rank to blame among those that have ended badly: the first.
const RankGroup::Member* RankGroup::FirstEnded(bool may_blame_others) const {
  const Member* first = nullptr;
  for (const auto& member : members_) {
    if (!member->ended || EndedWell(*member)) continue;
    if (FailureOf(*member).peer_lost != may_blame_others) continue;
    if (first == nullptr || *member->ended < *first->ended) first = member.get();
  }
  return first;
}

// The rank to blame among those that still run, if it has been silent for `seconds`.
const RankGroup::Member* RankGroup::Stalled(double seconds) const {
  const Member* worst = nullptr;
  double worst_age = 0;
  bool all_wait = true;
  const Member* behind = nullptr;  // of those that wait
  for (const auto& member : members_) {
    if (member->ended) continue;
    const RankStatus status = member->beat->Read();
    const bool waiting = status.beats && status.phase == RankPhase::kWaiting;
    double age = status.beats && !waiting ? status.age : 0;
    // One that is stopped is to blame whatever it was doing, before others.
    if (member->stopped) age = 1e6 + (status.beats ? status.age : member->SecondsStopped());
    all_wait &= waiting && status.age > seconds + kWaitingSlack;
    if (behind == nullptr || status.step < behind->beat->Read().step) behind = member.get();
    if (age > (member->stopped ? 1e6 : 0) + seconds && age > worst_age) {
      worst = member.get();
      worst_age = age;
    }
  }
  if (worst == nullptr && all_wait) return behind;
  return worst;
}

RankGroup::State RankGroup::Look() {
  if (failure_) return kFailed;
  size_t ended = 0;
  for (const auto& member : members_) {
    if (!member->ended && member->process->Look()) member->ended = Clock::now();
    if (!member->process->stopped()) {
      member->stopped.reset();
    } else if (!member->stopped) {
      member->stopped = Clock::now();
    }
    ended += member->ended ? 1 : 0;
  }
  if (const Member* first = FirstEnded(false)) {
    failure_ = FailureOf(*first);
  } else if (const Member* lost = FirstEnded(true)) {
    if (!suspicion_) suspicion_ = Clock::now();
    if (Clock::now() - *suspicion_ > kSettle || ended == members_.size()) {
      failure_ = FailureOf(*lost);
      const auto early = std::find_if(members_.begin(), members_.end(), [&](const auto& member) {
        return member->ended && EndedWell(*member);
      });
      if (const Member* silent = Stalled(options_.timeout / 2)) {
        failure_ = StallOf(*silent, silent->beat->Read().age);
      } else if (early != members_.end()) {
        failure_ = FailureOf(**early);
      }
    }
  } else if (const Member* silent = Stalled(options_.timeout)) {
    failure_ = StallOf(*silent, std::max(silent->SecondsStopped(), silent->beat->Read().age));
  }
  if (options_.show && options_.first_rank == 0) ShowOutput();
  if (failure_) return kFailed;
  return ended == members_.size() ? kEnded : kRunning;
}

void RankGroup::Signal(int number) {
  for (const auto& member : members_) member->process->Signal(number);
}

void RankGroup::BringDown(milliseconds grace) {
  const auto all_ended = [&] {
    bool all = true;
    for (const auto& member : members_) all &= member->process->Look();
    return all;
  };
  if (grace.count() > 0 && !all_ended()) {
    Signal(SIGTERM);
    const Clock::time_point end = Clock::now() + grace;
    while (!all_ended() && Clock::now() < end) std::this_thread::sleep_for(milliseconds(10));
  }
  Signal(SIGKILL);
  while (!all_ended()) std::this_thread::sleep_for(milliseconds(5));
}

int RankGroup::exit_code() const {
  int code = 0;
  for (const auto& member : members_) code = std::max(code, member->process->exit_code());
  return code;
}

int64_t RankGroup::step() const {
  int64_t step = -1;
  for (const auto& member : members_) step = std::max(step, member->beat->Read().step);
  return step;
}

std::string RankGroup::TailOf(int64_t rank, int lines) const {
  for (const auto& member : members_) {
    if (member->rank == rank) {
      return LogTail(member->log, member->process->log_start(), lines);
    }
  }
  return "";
}

// Whole lines of rank 0's log. A last "kinefit: …" and what belongs to it is held back: if the rank
// goes on it was a remark, if it ends the launcher says who is to blame. What the terminal does not
// take now waits in the log.
void RankGroup::ShowOutput() {
  const Member& first = *members_.front();
  const int file = open(first.log.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  pollfd terminal = {STDOUT_FILENO, POLLOUT, 0};
  for (;;) {
    char bytes[4096];  // PIPE_BUF: a pipe that is ready takes this much at once
    const ssize_t got = pread(file, bytes, sizeof(bytes), static_cast<off_t>(shown_));
    if (got <= 0) break;
    std::string text(bytes, static_cast<size_t>(got));
    const bool well = first.ended && EndedWell(first);
    if (!well) {
      const size_t end = text.rfind('\n');
      if (end == std::string::npos && text.size() < sizeof(bytes)) break;
      if (end != std::string::npos) text.resize(end + 1);
      size_t held = text.rfind("\nkinefit: ");
      held = held != std::string::npos ? held + 1 : text.rfind("kinefit: ", 0);
      if (held != std::string::npos) {
        size_t next = text.find('\n', held);
        while (next < text.size() - 1 && text.compare(next + 1, 2, "  ") == 0) {
          next = text.find('\n', next + 1);
        }
        if (next >= text.size() - 1) text.resize(held);
      }
    }
    if (text.empty() || poll(&terminal, 1, 0) != 1 || (terminal.revents & POLLOUT) == 0) break;
    const ssize_t put = write(STDOUT_FILENO, text.data(), text.size());
    if (put <= 0) break;
    shown_ += static_cast<uint64_t>(put);
  }
  close(file);
}

}  // namespace kinefit
