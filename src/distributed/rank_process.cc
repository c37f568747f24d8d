#include "distributed/rank_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "files/error.h"

extern char** environ;

namespace kinefit {
namespace {

std::vector<std::string> EnvironmentOf(const RankProcess::Start& start) {
  std::vector<std::string> variables;
  for (const auto& [name, value] : start.environment) {
    variables.push_back(std::string(name).append("=").append(value));
  }
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    const bool ours = std::any_of(start.environment.begin(), start.environment.end(),
                                  [&](const auto& pair) { return pair.first == name; });
    const bool gone =
        std::find(start.without.begin(), start.without.end(), name) != start.without.end();
    if (!ours && !gone) variables.push_back(text);
  }
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>* texts) {
  std::vector<char*> pointers;
  for (std::string& text : *texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Between fork and exec only calls that are safe in a copy of a process with threads.
[[noreturn]] void BecomeRank(const char* program, char* const* arguments, char* const* variables,
                             int log, int report, pid_t launcher) {
  const auto fail = [&] {
    const int error = errno;
    (void)!write(report, &error, sizeof(error));
    _exit(127);
  };
  setpgid(0, 0);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (getppid() != launcher) _exit(127);  // it died before the line above
  const int input = open("/dev/null", O_RDONLY);
  if (input < 0 || dup2(input, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) fail();
  if (input > 2) close(input);
  // The launcher's handlers are not this program's; what is ignored stays ignored (nohup).
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now = {};
    sigaction(number, nullptr, &now);
    if (now.sa_handler != SIG_IGN) std::signal(number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(program, arguments, variables);
  fail();
  _exit(127);
}

}  // namespace

RankProcess::RankProcess(const Start& start) {
  const int log = open(start.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) {
    throw Error(std::string("cannot write a rank's log: ") + std::strerror(errno), start.log,
                "choose another folder with --log-dir or change its permissions");
  }
  struct stat facts = {};
  if (fstat(log, &facts) == 0) log_start_ = static_cast<uint64_t>(facts.st_size);
  std::vector<std::string> command = start.command;
  std::vector<std::string> environment = EnvironmentOf(start);
  const std::vector<char*> arguments = Pointers(&command);
  const std::vector<char*> variables = Pointers(&environment);
  int report[2] = {-1, -1};
  int error = pipe2(report, O_CLOEXEC) == 0 ? 0 : errno;
  if (error == 0) {
    const pid_t launcher = getpid();
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);  // a signal between fork and exec would be lost
    pid_ = fork();
    if (pid_ == 0) {
      BecomeRank(command[0].c_str(), arguments.data(), variables.data(), log, report[1], launcher);
    }
    if (pid_ < 0) error = errno;
    sigprocmask(SIG_SETMASK, &before, nullptr);
    close(report[1]);
    ssize_t got = 0;
    do {
      got = pid_ < 0 ? 0 : read(report[0], &error, sizeof(error));
    } while (got < 0 && errno == EINTR);
    close(report[0]);
  }
  close(log);
  if (error == 0) return;
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
  throw Error(std::string("cannot start a rank: ") + std::strerror(error), start.command[0],
              "check that the program is there and may be executed, and `ulimit -u`");
}

RankProcess::~RankProcess() {
  if (ended_) return;
  kill(-pid_, SIGKILL);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
  }
}

bool RankProcess::Look() {
  while (!ended_) {
    siginfo_t what = {};
    const int events = WEXITED | WSTOPPED | WCONTINUED | WNOHANG;
    if (waitid(P_PID, static_cast<id_t>(pid_), &what, events | WNOWAIT) != 0 || what.si_pid == 0) {
      break;
    }
    if (what.si_code == CLD_STOPPED || what.si_code == CLD_CONTINUED) {
      stopped_ = what.si_code == CLD_STOPPED;
      waitid(P_PID, static_cast<id_t>(pid_), &what, (WSTOPPED | WCONTINUED) | WNOHANG);
      continue;
    }
    kill(-pid_, SIGKILL);  // while its number cannot be another's yet
    waitpid(pid_, &status_, 0);
    ended_ = true;
    stopped_ = false;
  }
  return ended_;
}

int RankProcess::exit_code() const {
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

bool RankProcess::killed_by_signal() const { return WIFSIGNALED(status_); }

void RankProcess::Signal(int number) {
  if (ended_) return;
  kill(-pid_, number);
}

}  // namespace kinefit
