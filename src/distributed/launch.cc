#include "distributed/launch.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

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

volatile std::sig_atomic_t g_signals = 0;  // how many have come
volatile std::sig_atomic_t g_signal = 0;   // the last one

void OnSignal(int number) {
  g_signal = number;
  g_signals = g_signals + 1;
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
      return;
    }
    throw Error("cannot make a folder for the ranks' status: " + std::string(std::strerror(errno)),
                "/dev/shm, /tmp", "name a writable folder with TMPDIR");
  }
  ~StatusFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  StatusFolder(const StatusFolder&) = delete;
  StatusFolder& operator=(const StatusFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// In one call, so that lines of several processes do not mix.
void Say(const std::string& text) {
  const std::string line = "kinefit launch: " + text + "\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

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
  bool killed = false;  // by a second signal
  int64_t step = -1;
};

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options), host_(HostName()), ranks_(options.ranks) {}

  int Run();

 private:
  RoundEnd RunRound(int64_t port);
  RankGroupOptions OptionsOf(int64_t port) const;
  bool MayStartAgain(const RankFailure& failure, int64_t step);
  void GiveUp(const RankFailure& failure);
  bool Shrink(const RankFailure& failure);
  bool PauseUnlessSignalled(double seconds) const;

  const LaunchOptions& options_;
  const StatusFolder status_;
  std::string host_;
  int64_t ranks_;
  std::vector<std::string> devices_ = options_.devices;
  int64_t starts_ = 0;
  int64_t restarts_ = 0;
  int port_retries_ = 0;
  double pause_ = options_.pause;
  int64_t furthest_step_ = -1;
  std::string report_;  // what is said once about the failure at hand
};

RankGroupOptions Launcher::OptionsOf(int64_t port) const {
  RankGroupOptions group;
  group.command = options_.command;
  group.ranks = ranks_;
  group.world = ranks_;
  group.host = host_;
  group.address = "127.0.0.1";
  group.port = port;
  group.start = starts_;
  group.max_restarts = options_.max_restarts;
  group.wanted_world = options_.ranks;
  group.timeout = options_.timeout;
  group.devices = devices_;
  group.log_folder = options_.log_folder;
  group.status_folder = status_.path();
  group.show = true;
  return group;
}

RoundEnd Launcher::RunRound(int64_t port) {
  RankGroup group(OptionsOf(port));
  RoundEnd end;
  int passed_on = 0;
  for (;;) {
    const RankGroup::State state = group.Look();
    end.step = group.step();
    if (state == RankGroup::kEnded) {
      end.exit_code = group.exit_code();
      return end;
    }
    if (state == RankGroup::kFailed) {
      end.failure = group.failure();
      const int64_t rank = end.failure->rank;
      if (rank != 0) report_ = Prefixed(group.TailOf(rank, 10), rank);
      group.BringDown(milliseconds(static_cast<int64_t>(options_.grace * 1000)));
      return end;
    }
    if (g_signals > passed_on) {
      const int number = g_signal;
      if (++passed_on > 1) {
        group.BringDown(milliseconds(0));
        Say("killed the ranks after a second signal");
        end.killed = true;
        end.exit_code = 128 + number;
        return end;
      }
      Say("signal " + std::to_string(number) + " (" + strsignal(number) + ") passed on to " +
          std::to_string(ranks_) + " ranks, which save and end; a second one kills them at once");
      group.ExpectEndBy(number);
      group.Signal(number);
    }
    std::this_thread::sleep_for(kLook);
  }
}

// Leaves out what has failed. False if nothing would be left.
bool Launcher::Shrink(const RankFailure& failure) {
  if (ranks_ == 1 || failure.rank < 0) return ranks_ > 1;
  if (!devices_.empty()) {
    const auto lost = static_cast<size_t>(failure.rank);
    if (lost < devices_.size()) {
      devices_.erase(devices_.begin() + static_cast<std::ptrdiff_t>(lost));
    }
  }
  --ranks_;
  return true;
}

bool Launcher::PauseUnlessSignalled(double seconds) const {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (g_signals == 0 && Clock::now() < end) std::this_thread::sleep_for(kLook);
  return g_signals == 0;
}

// Says what failed and what comes of it, once.
bool Launcher::MayStartAgain(const RankFailure& failure, int64_t step) {
  std::string text = Describe(failure) + report_;
  report_.clear();
  if (PortTaken(failure) && options_.port == 0 && port_retries_ < kPortRetries) {
    ++port_retries_;
    Say(text + "\n  another port is tried");
    return true;
  }
  const bool others = ranks_ > 1;
  if (!failure.again || restarts_ >= options_.max_restarts || g_signals > 0) {
    if (others) text += "\n  the other ranks were ended";
    if (!failure.again && options_.max_restarts > 0) {
      text += "\n  not started again: it would fail the same way";
    } else if (options_.max_restarts > 0) {
      text += "\n  not started again: " + std::to_string(restarts_) + " of " +
              std::to_string(options_.max_restarts) + " restarts (--max-restarts) are used up";
    }
    Say(text);
    return false;
  }
  ++restarts_;
  if (step > furthest_step_) pause_ = options_.pause;  // it had got on
  furthest_step_ = std::max(furthest_step_, step);
  const int64_t before = ranks_;
  if (options_.shrink) Shrink(failure);
  text += "\n  " + std::string(others ? "all ranks start" : "it starts") + " again in " +
          Seconds(pause_) + " from the last checkpoint";
  if (ranks_ < before) {
    text += ", with " + std::to_string(ranks_) + " of " + std::to_string(options_.ranks) + " ranks";
  }
  Say(text + " (restart " + std::to_string(restarts_) + " of " +
      std::to_string(options_.max_restarts) + ")");
  const bool go_on = PauseUnlessSignalled(pause_);
  pause_ = std::min(pause_ * 2, kLongestPause);
  return go_on;
}

int Launcher::Run() {
  const SignalsCaught signals;
  MakeFolder(options_.log_folder);
  for (;;) {
    const RoundEnd end = RunRound(FreePort(options_.port));
    ++starts_;
    if (!end.failure) return end.exit_code;
    const bool again = MayStartAgain(*end.failure, end.step);
    if (g_signals > 0) return 128 + g_signal;
    if (!again) return end.failure->exit_code;
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
