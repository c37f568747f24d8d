#include "distributed/shared_messages.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

namespace kinefit {
namespace {

using std::chrono::milliseconds;

// Runs `part` as ranks 0 (here) and 1 (in another process). Returns what
// rank 0's part threw, or "".
std::string RunTwo(milliseconds timeout,
                   const std::function<void(SharedMessages&, int64_t)>& part) {
  const std::string name = SharedMessages::NewName();
  SharedMessages first(name, 0, 2, 100, timeout);
  const pid_t other = fork();
  if (other == 0) {
    SharedMessages second(name, 1, 2, 100, timeout);
    part(second, 1);
    std::_Exit(0);
  }
  std::string thrown;
  try {
    double values[1] = {0};
    first.Sum(values, 1);  // both are here
    SharedMessages::Forget(name);
    part(first, 0);
  } catch (const std::runtime_error& error) {
    thrown = error.what();
  }
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  return thrown;
}

void Meet(SharedMessages& messages, int64_t rank) {
  if (rank == 0) return;
  double values[1] = {0};
  messages.Sum(values, 1);
}

// Each rank is the late one in turn, by more than the other spins, and sizes change.
TEST(SharedMessages, AddUpWhoeverComesLate) {
  const auto part = [](SharedMessages& messages, int64_t rank) {
    Meet(messages, rank);
    for (int64_t i = 0; i < 3000; ++i) {
      if (i % 300 == 299 && i / 300 % 2 == rank) std::this_thread::sleep_for(milliseconds(2));
      std::vector<double> values(static_cast<size_t>(i % 101), 0.1 * (double(i) + double(rank)));
      messages.Sum(values.data(), i % 101);
      for (const double value : values) {
        if (value != 0.1 * double(i) + 0.1 * (double(i) + 1)) throw std::runtime_error("wrong sum");
      }
    }
    if (rank == 1) pause();  // the other one's part ends first
  };
  EXPECT_EQ(RunTwo(milliseconds(20000), part), "");
}

TEST(SharedMessages, NoticeThatARankHasGone) {
  const auto begin = std::chrono::steady_clock::now();
  const auto part = [](SharedMessages& messages, int64_t rank) {
    Meet(messages, rank);
    double values[1] = {1};
    messages.Sum(values, 1);
    if (rank == 1) raise(SIGKILL);
    messages.Sum(values, 1);
  };
  EXPECT_EQ(RunTwo(milliseconds(20000), part), "rank 1 has gone");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(SharedMessages, GiveUpOnARankThatStands) {
  const auto part = [](SharedMessages& messages, int64_t rank) {
    Meet(messages, rank);
    if (rank == 1) raise(SIGSTOP);
    double values[1] = {1};
    messages.Sum(values, 1);
  };
  EXPECT_EQ(RunTwo(milliseconds(500), part), "timed out waiting for rank 1");
}

TEST(SharedMessages, RefuseWhatIsNotThere) {
  EXPECT_THROW(SharedMessages("/kinefit-no-such-memory", 1, 2, 8, milliseconds(10)),
               std::runtime_error);
  const std::string name = SharedMessages::NewName();
  EXPECT_THROW(SharedMessages(name, 0, 2, int64_t{1} << 50, milliseconds(10)), std::runtime_error);
  SharedMessages made(name, 0, 2, 8, milliseconds(10));  // nothing was left of the other
  EXPECT_THROW(SharedMessages(name, 1, 2, 800, milliseconds(10)), std::runtime_error);
  std::vector<double> values(100);
  EXPECT_THROW(made.Sum(values.data(), 100), std::logic_error);
  SharedMessages::Forget(name);
}

}  // namespace
}  // namespace kinefit
