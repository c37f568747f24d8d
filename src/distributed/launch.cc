#include "distributed/launch.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <thread>

#include "distributed/meeting.h"
#include "distributed/rank_group.h"
#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLook(30);
constexpr double kLongestPause = 60;
constexpr int kPortRetries = 5;
constexpr double kSettle = 2.5;   // seconds for another machine's failure to prove the cause
constexpr double kVerdict = 5.0;  // seconds to wait for what node 0 says about it

std::atomic<int> g_signals{0};  // how many have come
std::atomic<int> g_signal{0};   // the last one
static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may not wait");

void OnSignal(int number) {
  g_signal = number;
  ++g_signals;
}

// While it lives, signals that were not ignored are counted.
class SignalsCaught {
 public:
  SignalsCaught() {
    g_signals = 0;
    for (const int number : kNumbers) {
      struct sigaction before = {};
      sigaction(number, nullptr, &before);
      if (before.sa_handler == SIG_IGN) continue;
      struct sigaction action = {};
      action.sa_handler = OnSignal;
      action.sa_flags = SA_RESTART;
      sigaction(number, &action, nullptr);
    }
  }
  ~SignalsCaught() {
    for (const int number : kNumbers) {
      struct sigaction now = {};
      sigaction(number, nullptr, &now);
      if (now.sa_handler == OnSignal) std::signal(number, SIG_DFL);
    }
  }
  SignalsCaught(const SignalsCaught&) = delete;
  SignalsCaught& operator=(const SignalsCaught&) = delete;

 private:
  static constexpr int kNumbers[] = {SIGINT, SIGTERM, SIGHUP};
};

// A folder for the heartbeats, in memory where there is such a place.
class StatusFolder {
 public:
  StatusFolder() {
    const char* named = std::getenv("TMPDIR");
    for (const std::string& base : {std::string(named == nullptr ? "" : named),
                                    std::string("/dev/shm"), std::string("/tmp")}) {
      if (base.empty()) continue;
      std::string pattern = base + "/kinefit-launch-XXXXXX";
      if (mkdtemp(pattern.data()) == nullptr) continue;
      path_ = pattern;
      lock_ = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (lock_ >= 0) flock(lock_, LOCK_EX | LOCK_NB);
      RemoveAbandoned(base);
      return;
    }
    throw Error("cannot make a folder for the ranks' status: " + std::string(std::strerror(errno)),
                "/dev/shm, /tmp", "name a writable folder with TMPDIR");
  }
  ~StatusFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
    if (lock_ >= 0) close(lock_);
  }
  StatusFolder(const StatusFolder&) = delete;
  StatusFolder& operator=(const StatusFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  // Folders of launchers that were killed: nobody holds their lock. New ones may not have it yet.
  static void RemoveAbandoned(const std::string& base) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(base, error)) {
      if (entry.path().filename().string().rfind("kinefit-launch-", 0) != 0) continue;
      const int folder =
          open(entry.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
      if (folder < 0) continue;
      struct stat facts = {};
      const bool old = fstat(folder, &facts) == 0 && std::time(nullptr) - facts.st_mtime > 60;
      if (old && flock(folder, LOCK_EX | LOCK_NB) == 0) {
        std::error_code ignored;
        std::filesystem::remove_all(entry.path(), ignored);
      }
      close(folder);
    }
  }

  std::string path_;
  int lock_ = -1;
};

void Say(const std::string& text) { SayFromLauncher(text); }

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "this machine";
}

std::string Seconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g s", seconds);
  return text;
}

std::string Prefixed(const std::string& lines, int64_t rank) {
  std::string text;
  const std::string prefix = "  [rank " + std::to_string(rank) + "] ";
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    text += "\n" + prefix + lines.substr(at, end - at);
    at = end + 1;
  }
  return text;
}

bool PortTaken(const RankFailure& failure) {
  return failure.last.find("ddress already in use") != std::string::npos ||
         failure.last.find("EADDRINUSE") != std::string::npos;
}

// How one start of the group ended.
struct RoundEnd {
  std::optional<RankFailure> failure;
  int exit_code = 0;
  bool over = false;  // node 0 said so
  int64_t step = -1;
};

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options), host_(HostName()), ranks_(options.ranks) {
    MakeFolder(options_.log_folder);
    if (options_.nodes > 1) meeting_ = MakeMeeting(options_, host_);
  }

  int Run();

 private:
  std::optional<RoundPlan> Begin();
  RoundEnd RunRound();
  RankGroupOptions GroupOptionsOf() const;
  bool PassOn(int number, RankGroup* group);
  bool Decided(const News& news, RankGroup* group, RoundEnd* end);
  bool MayStartAgain(const RankFailure& failure, int64_t step);
  int EndWith(int exit_code, const std::string& text);
  void Shrink(const RankFailure& failure);
  bool PauseUnlessSignalled(double seconds);
  bool leads() const { return options_.node == 0; }

  const LaunchOptions& options_;
  const StatusFolder status_;
  std::string host_;
  std::unique_ptr<Meeting> meeting_;  // null: one machine
  RoundPlan plan_;
  int64_t ranks_;  // that this machine can start
  std::vector<std::string> devices_ = options_.devices;
  int64_t starts_ = 0;
  int64_t restarts_ = 0;
  int port_retries_ = 0;
  double pause_ = options_.pause;
  int64_t furthest_step_ = -1;
  int passed_on_ = 0;
  std::string report_;  // the end of the failed rank's log
  std::optional<RankFailure> suspect_;
  bool told_ = false;  // node 0 of it
  Clock::time_point suspected_;
};

RankGroupOptions Launcher::GroupOptionsOf() const {
  RankGroupOptions group;
  group.command = options_.command;
  if (plan_.world != plan_.wanted_world && options_.arguments_for_world) {
    const auto more = options_.arguments_for_world(plan_.wanted_world, plan_.world);
    if (more) group.command.insert(group.command.end(), more->begin(), more->end());
  }
  group.first_rank = plan_.first_rank;
  group.ranks = plan_.ranks;
  group.world = plan_.world;
  group.node = options_.node;
  group.host = host_;
  group.address = options_.nodes > 1 ? options_.rendezvous_host : "127.0.0.1";
  group.port = plan_.port;
  group.start = plan_.start;
  group.max_restarts = options_.max_restarts;
  group.timeout = options_.timeout;
  group.devices = devices_;
  group.log_folder = options_.log_folder;
  group.status_folder = status_.path();
  group.show = plan_.first_rank == 0 && plan_.ranks > 0;
  return group;
}

// The next start, once all machines are ready for it.
std::optional<RoundPlan> Launcher::Begin() {
  if (meeting_) return meeting_->Begin(ranks_, [] { return g_signals > 0; });
  RoundPlan plan;
  plan.start = starts_;
  plan.wanted_world = options_.ranks;
  plan.world = plan.ranks = UsableWorld(options_, options_.ranks, ranks_);
  plan.port = FreePort(options_.port);
  return plan;
}

// False after a second signal: the ranks are dead.
bool Launcher::PassOn(int number, RankGroup* group) {
  if (++passed_on_ > 1) {
    group->BringDown(milliseconds(0));
    Say("killed the ranks after a second signal");
    return false;
  }
  Say("signal " + std::to_string(number) + " (" + strsignal(number) + ") passed on to " +
      std::to_string(plan_.ranks) + " ranks, which save and end; a second one kills them at once");
  group->ExpectEndBy(number);
  group->Signal(number);
  return true;
}

// Whether it is settled who is to blame. A failure that blames others waits for theirs.
bool Launcher::Decided(const News& news, RankGroup* group, RoundEnd* end) {
  const auto suspect = [&](const RankFailure& failure) {
    if (!suspect_) suspected_ = Clock::now();
    if (!suspect_ || (suspect_->peer_lost && !failure.peer_lost)) suspect_ = failure;
  };
  if (news.failure) suspect(*news.failure);
  if (group->Look() == RankGroup::kFailed) {
    suspect(group->failure());
    if (meeting_ && !leads() && !told_) meeting_->Tell(group->failure());
    told_ = true;
  }
  if (!suspect_) return false;
  const double waited = std::chrono::duration<double>(Clock::now() - suspected_).count();
  bool decided = !suspect_->peer_lost || waited > kSettle;
  if (meeting_ && !leads()) decided = news.verdict || waited > kVerdict;
  if (!meeting_) decided = true;
  if (!decided) return false;
  end->failure = news.verdict ? *news.failure : *suspect_;
  if (meeting_ && leads()) meeting_->Tell(*end->failure);
  return true;
}

RoundEnd Launcher::RunRound() {
  RankGroup group(GroupOptionsOf());
  RoundEnd end;
  suspect_.reset();
  told_ = false;
  for (;;) {
    const News news = meeting_ ? meeting_->Look() : News();
    if (Decided(news, &group, &end)) {
      const int64_t rank = end.failure->rank;
      if (rank != 0) report_ = Prefixed(group.TailOf(rank, 10), rank);
      group.BringDown(milliseconds(static_cast<int64_t>(options_.grace * 1000)));
      end.step = group.step();
      return end;
    }
    if (!suspect_ && group.Look() == RankGroup::kEnded) {
      end.exit_code = group.exit_code();
      if (!meeting_ || meeting_->AllEnded(end.exit_code)) return end;
    }
    if (news.over) {
      end.over = true;
      return end;
    }
    if (news.signal != 0 && passed_on_ == 0) {
      if (meeting_ && leads()) meeting_->TellSignal(news.signal);
      PassOn(news.signal, &group);
    }
    if (g_signals > passed_on_) {
      const int number = g_signal;
      if (meeting_ && passed_on_ == 0) meeting_->TellSignal(number);
      if (!PassOn(number, &group)) {
        end.exit_code = 128 + number;
        return end;
      }
    }
    std::this_thread::sleep_for(kLook);
  }
}

// Leaves out the rank of this machine that has failed.
void Launcher::Shrink(const RankFailure& failure) {
  const int64_t local = failure.rank - plan_.first_rank;
  if (ranks_ == 1 || failure.rank < 0 || local < 0 || local >= plan_.ranks) return;
  if (local < static_cast<int64_t>(devices_.size())) {
    devices_.erase(devices_.begin() + static_cast<std::ptrdiff_t>(local));
  }
  --ranks_;
}

bool Launcher::PauseUnlessSignalled(double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (g_signals == 0 && Clock::now() < end) {
    if (meeting_) meeting_->Look();  // stays in touch
    std::this_thread::sleep_for(kLook);
  }
  return g_signals == 0;
}

// Says what failed and what comes of it, once.
bool Launcher::MayStartAgain(const RankFailure& failure, int64_t step) {
  std::string text = Describe(failure) + report_;
  report_.clear();
  if (options_.shrink && restarts_ < options_.max_restarts && !PortTaken(failure)) Shrink(failure);
  if (!leads()) {
    // Node 0 decides. Without it there is nothing to wait for once the restarts are used up.
    const bool lost = failure.rank < 0;
    const bool again = !lost || plan_.start < options_.max_restarts;
    Say(text + "\n  the ranks here were ended" + (again ? "; waiting for node 0" : ""));
    return again;
  }
  if (PortTaken(failure) && options_.port == 0 && port_retries_ < kPortRetries) {
    ++port_retries_;
    Say(text + "\n  another port is tried");
    return true;
  }
  const bool others = plan_.world > 1;
  if (!failure.again || restarts_ >= options_.max_restarts || g_signals > 0) {
    if (others) text += "\n  the other ranks were ended";
    if (!failure.again && options_.max_restarts > 0) {
      text += "\n  not started again: it would fail the same way";
    } else if (options_.max_restarts > 0 && g_signals == 0) {
      text += "\n  not started again: " + std::to_string(restarts_) + " of " +
              std::to_string(options_.max_restarts) + " restarts (--max-restarts) are used up";
    }
    Say(text);
    return false;
  }
  ++restarts_;
  if (step > furthest_step_) pause_ = options_.pause;  // it had got on
  furthest_step_ = std::max(furthest_step_, step);
  text += "\n  " + std::string(others ? "all ranks start" : "it starts") + " again in " +
          Seconds(pause_) + " from the last checkpoint";
  if (!meeting_ && ranks_ < options_.ranks) {
    text += ", with " + std::to_string(UsableWorld(options_, options_.ranks, ranks_)) + " of " +
            std::to_string(options_.ranks) + " ranks";
  }
  Say(text + " (restart " + std::to_string(restarts_) + " of " +
      std::to_string(options_.max_restarts) + ")");
  const bool go_on = PauseUnlessSignalled(pause_);
  pause_ = std::min(pause_ * 2, kLongestPause);
  return go_on;
}

int Launcher::EndWith(int exit_code, const std::string& text) {
  if (meeting_) meeting_->TellOver(exit_code, text);
  return exit_code;
}

int Launcher::Run() {
  const SignalsCaught signals;
  for (;;) {
    const auto plan = Begin();
    if (!plan) {
      if (g_signals > 0) return EndWith(128 + g_signal, "node 0 was stopped by a signal");
      const MeetingEnd& end = meeting_->End();
      if (!end.text.empty()) Say(end.text);
      return EndWith(end.exit_code, end.text);
    }
    plan_ = *plan;
    const RoundEnd end = RunRound();
    ++starts_;
    if (end.over) {
      if (!meeting_->End().text.empty()) Say(meeting_->End().text);
      return meeting_->End().exit_code;
    }
    if (!end.failure) return EndWith(end.exit_code, "");
    const bool again = MayStartAgain(*end.failure, end.step);
    if (g_signals > 0) return EndWith(128 + g_signal, "stopped by a signal");
    if (!again) return EndWith(end.failure->exit_code, "");
  }
}

}  // namespace

int64_t FreePort(int64_t wanted) {
  const int socket_file = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int probe = socket_file >= 0 ? socket_file : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 six = {};
  six.sin6_family = AF_INET6;
  six.sin6_addr = in6addr_any;
  six.sin6_port = htons(static_cast<uint16_t>(wanted));
  sockaddr_in four = {};
  four.sin_family = AF_INET;
  four.sin_port = htons(static_cast<uint16_t>(wanted));
  const bool is_six = socket_file >= 0;
  auto* address = is_six ? reinterpret_cast<sockaddr*>(&six) : reinterpret_cast<sockaddr*>(&four);
  socklen_t size = is_six ? sizeof(six) : sizeof(four);
  const int yes = 1;  // as servers do: a port whose last connection has just ended is free
  setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const bool free = probe >= 0 && bind(probe, address, size) == 0 && listen(probe, 1) == 0;
  const int error = errno;
  if (free) getsockname(probe, address, &size);
  if (probe >= 0) close(probe);
  if (!free) {
    throw Error("port " + std::to_string(wanted) +
                    " cannot be used for the ranks to meet: " + std::strerror(error),
                "--port", "name another one, or leave --port out and any free one is taken");
  }
  return ntohs(is_six ? six.sin6_port : four.sin_port);
}

int Launch(const LaunchOptions& options) { return Launcher(options).Run(); }

}  // namespace kinefit
