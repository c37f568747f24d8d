// The group and its steps between real processes, on tensors small enough to follow by hand.

#include "distributed/group.h"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "distributed/pack.h"
#include "distributed/rehearsed_exchange.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr int kLost = 40;  // exit code of a rank that ended because another was lost

int FreePort() {
  const int file = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(file, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(file, reinterpret_cast<sockaddr*>(&address), &length);
  close(file);
  return ntohs(address.sin_port);
}

// Runs `part` on each rank in a process of its own. Returns the exit codes, 128 + signal where one
// ended it; -1 for one that did not end within a minute. What ranks say when they end for others is
// in `*messages`.
std::vector<int> RunRanks(int world, double timeout, const std::function<int(Group&)>& part,
                          std::vector<std::string>* messages = nullptr, bool shared_memory = true) {
  RankEnvironment environment;
  environment.world = environment.local_world = world;
  environment.port = FreePort();
  const std::string folder = (std::filesystem::temp_directory_path() /
                              ("kinefit-group-" + std::to_string(environment.port)))
                                 .string();
  std::filesystem::create_directory(folder);
  std::vector<pid_t> processes;
  for (int rank = 0; rank < world; ++rank) {
    const pid_t process = fork();
    if (process == 0) {
      environment.rank = environment.local_rank = rank;
      const std::string path = folder + "/" + std::to_string(rank);
      int code = 1;
      try {
        const std::unique_ptr<Group> group =
            JoinGroup(environment, {timeout, false, shared_memory, [&](const std::string& message) {
                                      std::ofstream(path) << message;
                                      std::_Exit(kLost);
                                    }});
        code = part(*group);
        if (code == 0) group->Leave();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      }
      std::_Exit(code);
    }
    processes.push_back(process);
  }
  std::vector<int> codes;
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  for (size_t rank = 0; rank < processes.size(); ++rank) {
    int status = 0;
    while (waitpid(processes[rank], &status, WNOHANG) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      if (std::chrono::steady_clock::now() < end) continue;
      kill(processes[rank], SIGKILL);
      waitpid(processes[rank], &status, 0);
      status = -1;
      break;
    }
    if (status == -1) {
      codes.push_back(-1);
    } else {
      codes.push_back(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    }
    std::ifstream in(folder + "/" + std::to_string(rank));
    if (messages != nullptr) messages->push_back({std::istreambuf_iterator<char>(in), {}});
  }
  std::filesystem::remove_all(folder);
  return codes;
}

// For a rank's part: what is not so ends it with a code that says where.
#define CHECK_THAT(condition)                                                                \
  if (!(condition)) {                                                                        \
    std::fprintf(stderr, "rank %d, line %d: " #condition "\n", int(group.rank()), __LINE__); \
    return 1;                                                                                \
  }

using Codes = std::vector<int>;

TEST(Group, SumsSharesAndGathers) {
  EXPECT_EQ(RunRanks(3, 20,
                     [](Group& group) {
                       at::Tensor values = at::full({5}, group.rank() + 1.0, at::kDouble);
                       group.Sum(values);
                       CHECK_THAT(values.eq(6).all().item<bool>());
                       const std::string own(static_cast<size_t>(group.rank()), 'x');
                       CHECK_THAT(group.Share(own, 2) == "xx");
                       const auto all = group.Gather(own);
                       CHECK_THAT(all == std::vector<std::string>({"", "x", "xx"}));
                       at::Tensor tensor = at::full({2, 2}, group.rank(), at::kLong);
                       group.Broadcast({tensor}, 1);
                       CHECK_THAT(tensor.eq(1).all().item<bool>());
                       return 0;
                     }),
            Codes({0, 0, 0}));
}

// Two parameters and one that no loss depends on.
struct Model {
  std::vector<at::Tensor> parameters = {at::ones({3}).set_requires_grad(true),
                                        at::ones({2}).set_requires_grad(true),
                                        at::ones({4}).set_requires_grad(true)};
  void Backward(double scale) {
    ((parameters[0] * scale).sum() + (parameters[1] * parameters[1] * scale).sum()).backward();
  }
  std::unique_ptr<StepExchange> Exchange(Group& group) const {
    return group.MakeStepExchange(parameters, {1, 0, 2}, {3, 8});  // a bucket each
  }
  void Clear() {
    for (at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
  }
};

// Messages within a step go through shared memory or through sockets.
class StepExchangeOf : public testing::TestWithParam<bool> {
 protected:
  std::vector<int> Run(int world, const std::function<int(Group&)>& part) {
    return RunRanks(world, 20, part, nullptr, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, StepExchangeOf, testing::Bool(),
                         [](const auto& way) { return way.param ? "SharedMemory" : "Sockets"; });

TEST_P(StepExchangeOf, GradientsAreThoseOfAllRanks) {
  const auto part = [](Group& group) {
    Model model;
    const auto exchange = model.Exchange(group);
    for (int step = 0; step < 3; ++step) {
      model.Clear();
      exchange->Begin();
      model.Backward(1);  // accumulated, not exchanged
      // Rank 1 has no second micro-batch.
      if (group.rank() == 0) {
        exchange->ExpectGradients();
        model.Backward(10);
      }
      StepTotals totals;
      totals.samples = 2;
      totals.micro_batches = group.rank() == 0 ? 2 : 1;
      totals.stop = group.rank() == 1 && step == 2;
      exchange->AddUp(&totals);
      CHECK_THAT(model.parameters[0].grad().eq(12).all().item<bool>());
      CHECK_THAT(model.parameters[1].grad().eq(24).all().item<bool>());
      CHECK_THAT(!model.parameters[2].grad().defined());
      CHECK_THAT(totals.samples == 4 && totals.statistics_of == 0);
      CHECK_THAT(totals.stop == (step == 2));
      double norm = group.rank();
      exchange->Ready(&norm);
      CHECK_THAT(norm == 0);
    }
    return 0;
  };
  EXPECT_EQ(Run(2, part), Codes({0, 0}));
}

// A rank without a sample lends itself to the others' statistics.
TEST_P(StepExchangeOf, StatisticsOfRanksThatHaveSamples) {
  const auto part = [](Group& group) {
    Model model;
    const auto exchange = model.Exchange(group);
    exchange->Begin();
    if (group.rank() != 1) {
      at::Tensor values = at::full({2}, 1.0, at::kDouble);
      for (int i = 0; i < 4; ++i) exchange->SumStatistics(values);
      CHECK_THAT(values.eq(16).all().item<bool>());
      model.Backward(1);
    }
    StepTotals totals;
    totals.samples = group.rank() == 1 ? 0 : 1;
    totals.micro_batches = group.rank() == 1 ? 0 : 1;
    exchange->AddUp(&totals);
    CHECK_THAT(totals.samples == 2);
    CHECK_THAT(model.parameters[0].grad().eq(2).all().item<bool>());
    double norm = 0;
    exchange->Ready(&norm);
    return 0;
  };
  EXPECT_EQ(Run(3, part), Codes({0, 0, 0}));
}

// Rank 1 fails at every point of a step in turn, while rank 0 is on its way through it; then both
// take a step that counts.
TEST_P(StepExchangeOf, AFailureIsHeardWhereverTheOthersAre) {
  const auto part = [](Group& group) {
    Model model;
    const auto exchange = model.Exchange(group);
    for (int point = 0; point < 6; ++point) {
      for (const bool failing : {true, false}) {
        bool called_off = false;
        model.Clear();
        exchange->Begin();
        const auto fails = [&](int here) {
          if (!failing || group.rank() != 1 || here != point) return false;
          const auto ranks = exchange->Fail();
          called_off = ranks == std::vector<int64_t>({1});
          return true;
        };
        const auto step = [&] {
          at::Tensor values = at::ones({2}, at::kDouble);
          if (fails(0)) return;
          exchange->SumStatistics(values);
          if (fails(1)) return;
          exchange->ExpectGradients();
          if (fails(2)) return;  // in the backward pass
          model.Backward(1);
          if (fails(3)) return;
          exchange->SumStatistics(values);
          if (fails(4)) return;
          StepTotals totals;
          totals.samples = 1;
          totals.micro_batches = 1;
          exchange->AddUp(&totals);
          if (fails(5)) return;
          double norm = 0;
          exchange->Ready(&norm);
        };
        try {
          step();
        } catch (const StepCalledOff& off) {
          called_off = off.ranks() == std::vector<int64_t>({1});
        }
        CHECK_THAT(called_off == failing);
        if (failing) continue;
        CHECK_THAT(model.parameters[0].grad().eq(2).all().item<bool>());
      }
    }
    return 0;
  };
  EXPECT_EQ(Run(2, part), Codes({0, 0}));
}

TEST(StepExchange, RehearsesOnTheMetaDevice) {
  const auto options = at::TensorOptions(at::kMeta);
  std::vector<at::Tensor> parameters = {at::empty({3}, options).set_requires_grad(true),
                                        at::empty({5}, options).set_requires_grad(true)};
  const auto exchange = RehearseExchange(parameters, {1, 0}, 1e6);
  EXPECT_EQ(exchange->bucket_bytes(), 8 * 4);
  for (int step = 0; step < 2; ++step) {
    exchange->Begin();
    exchange->ExpectGradients();
    (parameters[0].sum() + parameters[1].sum()).backward();
    StepTotals totals;
    exchange->AddUp(&totals);
    EXPECT_TRUE(parameters[0].grad().is_meta());
    for (at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
  }
}

// What rank 1 does in its tenth call, and what rank 0 has to say then.
struct Loss {
  const char* name;
  std::function<int(Group&)> end;
  const char* words;
};

void ExpectNamed(const Loss& loss, double timeout, int lost, bool shared_memory) {
  SCOPED_TRACE(std::string(loss.name) + (shared_memory ? ", shared memory" : ", sockets"));
  std::vector<std::string> messages;
  const auto begin = std::chrono::steady_clock::now();
  const Codes codes = RunRanks(
      3, timeout,
      [&](Group& group) {
        const auto exchange = Model().Exchange(group);  // from now on with shared memory
        at::Tensor values = at::ones({4}, at::kDouble);
        for (int i = 0;; ++i) {
          group.Tell(i, RankPhase::kComputing);
          if (group.rank() == lost && i == 10) return loss.end(group);
          group.Sum(values);
        }
      },
      &messages, shared_memory);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LE(took.count(), timeout + 10);
  for (int rank = 0; rank < 3; ++rank) {
    const auto r = static_cast<size_t>(rank);
    if (rank == lost) continue;
    EXPECT_EQ(codes[r], kLost) << messages[r];
    EXPECT_NE(messages[r].find("rank " + std::to_string(lost) + " (process"), std::string::npos)
        << messages[r];
    EXPECT_NE(messages[r].find(loss.words), std::string::npos) << messages[r];
  }
}

int FailWithWords(Group& group) {
  group.Fail("the disk is full");
  return 3;
}
int Die(Group& /*group*/) {
  raise(SIGKILL);
  return 0;
}

TEST(Watch, NamesTheRankThatFailed) {
  for (const bool shared_memory : {true, false}) {
    ExpectNamed({"words", FailWithWords, "the disk is full"}, 20, 1, shared_memory);
    ExpectNamed({"words of the store's holder", FailWithWords, "the disk is full"}, 20, 0,
                shared_memory);
  }
}

TEST(Watch, NamesTheRankThatWasKilled) {
  for (const bool shared_memory : {true, false}) {
    ExpectNamed({"killed", Die, "without a word"}, 20, 2, shared_memory);
    ExpectNamed({"the store's holder killed", Die, "without a word"}, 20, 0, shared_memory);
  }
}

TEST(Watch, NamesTheRankThatKeepsTheOthersWaiting) {
  const auto sleep = [](Group& /*group*/) {
    std::this_thread::sleep_for(std::chrono::seconds(10));
    return 0;
  };
  for (const bool shared_memory : {true, false}) {
    ExpectNamed({"asleep", sleep, "kept the others waiting"}, 3, 1, shared_memory);
  }
}

TEST(JoinGroup, NamesTheRanksThatDoNotCome) {
  RankEnvironment environment;
  environment.world = 3;
  environment.port = FreePort();
  try {
    JoinGroup(environment, {1, false, true, {}});
    ADD_FAILURE() << "joined nobody";
  } catch (const Error& error) {
    EXPECT_NE(error.problem().find("number 1, 2"), std::string::npos) << error.problem();
  }
}

TEST(Pack, GivesBackWhatItGot) {
  const std::vector<std::string> parts = {"", "a", std::string("\0b", 2)};
  EXPECT_EQ(Unpack(Pack(parts)), parts);
  EXPECT_THROW(Unpack("nonsense"), Error);
}

}  // namespace
}  // namespace kinefit
