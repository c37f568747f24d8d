#include "distributed/c10d_group.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "distributed/c10d_step_exchange.h"
#include "files/error.h"

namespace kinefit {
namespace {

using std::chrono::milliseconds;

// Ranks have this long to come, at least: one may be slow to start, whatever the time-out of steps.
constexpr milliseconds kShortestMeeting(20000);

std::string MeetingPlace(const RankEnvironment& environment) {
  return environment.address + ":" + std::to_string(environment.port);
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// Where all ranks are on one machine and a launcher made a private folder for them, they meet in a
// file there: nothing listens that others could reach. "" elsewhere.
std::string StoreFile(const RankEnvironment& environment) {
  const char* folder = std::getenv("KINEFIT_STATUS_DIR");
  const bool one_machine = environment.local_world == environment.world;
  if (folder == nullptr || *folder == 0 || !one_machine || environment.store_is_served) return "";
  return std::string(folder) + "/store_" + std::to_string(environment.restarts);
}

// A connection to the store of the ranks. `serve`: be the store as well.
Store Connect(const RankEnvironment& environment, bool serve, milliseconds timeout) {
  const auto among_starts = [&](const Store& store) {
    // Ranks that were started again meet under other names than those before them.
    return c10::make_intrusive<c10d::PrefixStore>(
        "kinefit/" + environment.run_id + "/" + std::to_string(environment.restarts), store);
  };
  const std::string file = StoreFile(environment);
  if (!file.empty()) {
    const Store store = c10::make_intrusive<c10d::FileStore>(file, -1);  // the launcher removes it
    store->setTimeout(timeout);
    return among_starts(store);
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(environment.port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    return among_starts(c10::make_intrusive<c10d::TCPStore>(environment.address, options));
  } catch (const std::exception& error) {
    if (serve) {
      throw Error("rank 0 cannot wait for the others at " + MeetingPlace(environment) + ": " +
                      FirstLine(error.what()),
                  "environment variable MASTER_PORT",
                  "choose a free port; kinefit launch finds one by itself");
    }
    throw Error("rank " + std::to_string(environment.rank) + " cannot reach rank 0 at " +
                    MeetingPlace(environment) + ": " + FirstLine(error.what()),
                "environment variables MASTER_ADDR and MASTER_PORT",
                "see whether rank 0 runs, and whether a firewall is between the machines");
  }
}

using Instant = std::chrono::steady_clock::time_point;

// Waits for one rank and says now and then that it does: a wrong number of ranks in the environment
// would else be minutes of silence. Throws what the store throws when the time is over.
void WaitFor(const RankEnvironment& environment, const Store& store, const std::string& key,
             int64_t rank, Instant begin, Instant deadline) {
  constexpr milliseconds kSaid(10000);
  for (;;) {
    const Instant now = std::chrono::steady_clock::now();
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - now);
    try {
      store->wait({key}, std::max(std::min(left, kSaid), milliseconds(1)));
      return;
    } catch (const std::exception&) {
      if (left <= kSaid) throw;
    }
    const auto waited =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
    std::fprintf(stderr,
                 "waiting for rank %lld of %lld (%lld s); the number of ranks comes from %s\n",
                 static_cast<long long>(rank), static_cast<long long>(environment.world),
                 static_cast<long long>(waited.count()),
                 environment.source == "slurm"     ? "Slurm (SLURM_NTASKS)"
                 : environment.source == "openmpi" ? "OpenMPI (OMPI_COMM_WORLD_SIZE)"
                                                   : "the environment variable WORLD_SIZE");
  }
}

// All ranks have come, or an Error that names who has not. Returns who they are.
std::vector<std::string> AwaitAll(const RankEnvironment& environment, const Store& store,
                                  milliseconds timeout) {
  const auto key = [](int64_t rank) { return "here/" + std::to_string(rank); };
  const std::string self = WhoAmI();
  std::vector<std::string> who;
  // A second rank of this number is of another run that was given the same meeting place: it goes,
  // and this run goes on.
  if (store->add("claim/" + std::to_string(environment.rank), 1) != 1) {
    const std::vector<uint8_t> other = store->get(key(environment.rank));
    throw Error("rank " + std::to_string(environment.rank) + " is already at " +
                    MeetingPlace(environment) + ": " + std::string(other.begin(), other.end()),
                "environment variable MASTER_PORT",
                "another run meets there; give this one a port of its own");
  }
  store->set(key(environment.rank), std::vector<uint8_t>(self.begin(), self.end()));
  const auto begin = std::chrono::steady_clock::now();
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (int64_t rank = 0; rank < environment.world; ++rank) {
    try {
      WaitFor(environment, store, key(rank), rank, begin, deadline);
    } catch (const std::exception&) {
      std::string missing;
      for (int64_t other = rank; other < environment.world; ++other) {
        if (store->check({key(other)})) continue;
        missing += (missing.empty() ? "" : ", ") + std::to_string(other);
      }
      throw Error("of " + std::to_string(environment.world) + " ranks, number " + missing +
                      " did not come to " + MeetingPlace(environment) + " within " +
                      std::to_string(timeout.count() / 1000) + " s",
                  "", "see in their logs why; a longer distributed.timeout waits longer");
    }
    const std::vector<uint8_t> bytes = store->get(key(rank));
    who.emplace_back(bytes.begin(), bytes.end());
  }
  return who;
}

// The address of this machine from which the meeting place is reached: that the other ranks can
// reach as well, which need not be so for what the machine's own name resolves to.
std::string OwnAddress(const RankEnvironment& environment) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(environment.address.c_str(), std::to_string(environment.port).c_str(), &hints,
                  &found) != 0) {
    return "";
  }
  std::string result;
  for (const addrinfo* at = found; at != nullptr && result.empty(); at = at->ai_next) {
    const int socket_file = socket(at->ai_family, at->ai_socktype, 0);
    if (socket_file < 0) continue;
    sockaddr_storage own = {};
    socklen_t length = sizeof(own);
    char text[NI_MAXHOST] = {};
    if (connect(socket_file, at->ai_addr, at->ai_addrlen) == 0 &&  // a datagram's: sends nothing
        getsockname(socket_file, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof(text), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      result = text;
    }
    close(socket_file);
  }
  freeaddrinfo(found);
  return result;
}

c10::intrusive_ptr<c10d::ProcessGroupGloo::Options> GlooOptions(const RankEnvironment& environment,
                                                                milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->threads = 2;
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  const std::string own = StoreFile(environment).empty() ? OwnAddress(environment) : "127.0.0.1";
  if (interface != nullptr && *interface != 0) {
    options->devices = {c10d::ProcessGroupGloo::createDeviceForInterface(interface)};
  } else if (!own.empty()) {
    options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(own)};
  } else {
    options->devices = {c10d::ProcessGroupGloo::createDefaultDevice()};
  }
  return options;
}

}  // namespace

C10dGroup::C10dGroup(const RankEnvironment& environment, const GroupOptions& options)
    : Group(environment.rank, environment.world),
      may_share_memory_(options.shared_memory && environment.local_world == environment.world),
      timeout_(static_cast<int64_t>(options.timeout * 1000)) {
  const milliseconds timeout = timeout_;
  const milliseconds meeting = std::max(timeout, kShortestMeeting);
  const bool serve = environment.rank == 0 && !environment.store_is_served;
  const WaitingForRanks waiting;
  store_ = Connect(environment, serve, meeting);
  const std::vector<std::string> who = AwaitAll(environment, store_, meeting);
  watch_ = std::make_unique<Watch>(environment, who, Connect(environment, false, timeout), timeout,
                                   options.end_process);
  const int rank = static_cast<int>(environment.rank);
  const int world = static_cast<int>(environment.world);
  const auto in = [&](const char* name) -> Store {
    return c10::make_intrusive<c10d::PrefixStore>(name, store_);
  };
  Guarded([&] {
    control_ = MakeGloo(in("control"), rank, world, GlooOptions(environment, timeout));
#ifdef USE_C10D_NCCL
    if (options.cuda) {
      gradients_ = MakeNccl(in("nccl"), rank, world, timeout);
      ConnectNccl(gradients_);
      return;
    }
#endif
    gradients_ = MakeGloo(in("gradients"), rank, world, GlooOptions(environment, timeout));
  });
}

C10dGroup::~C10dGroup() = default;

void C10dGroup::Sum(at::Tensor& values) {
  if (messages_ == nullptr || values.numel() > messages_->most()) return SumByGloo(values);
  Guarded([&] { messages_->Sum(values.data_ptr<double>(), values.numel()); });
}

void C10dGroup::SumByGloo(at::Tensor& values) {
  Guarded([&] {
    std::vector<at::Tensor> tensors = {values};
    control_->allreduce(tensors)->wait();
  });
}

void C10dGroup::ShareMemory(int64_t most) {
  messages_.reset();
  std::string name;
  std::unique_ptr<SharedMessages> own;
  const auto open = [&] {
    try {
      own = std::make_unique<SharedMessages>(name, rank(), world(), most, timeout_);
    } catch (const std::runtime_error&) {
      name.clear();  // messages go through sockets, as between machines
    }
  };
  if (leads() && may_share_memory_) {
    name = SharedMessages::NewName();
    open();
  }
  name = Share(name, 0);
  if (name.empty()) return;
  const std::string made = name;
  if (!leads() && may_share_memory_) open();
  double have = own != nullptr ? 1 : 0;
  at::Tensor all = at::from_blob(&have, {1}, at::kDouble);
  SumByGloo(all);
  if (leads()) SharedMessages::Forget(made);
  if (have == static_cast<double>(world())) messages_ = std::move(own);
}

void C10dGroup::Broadcast(const std::vector<at::Tensor>& tensors, int64_t from) {
  c10d::BroadcastOptions options;
  options.rootRank = static_cast<int>(from);
  Guarded([&] {
    for (const at::Tensor& tensor : tensors) {
      if (tensor.numel() == 0) continue;
      // Through the CPU, whatever the device: this is for the beginning and the end of epochs.
      const at::NoGradGuard no_grad;
      std::vector<at::Tensor> one = {tensor.detach().cpu().contiguous()};
      control_->broadcast(one, options)->wait();
      if (rank() != from && !one[0].is_alias_of(tensor)) tensor.detach().copy_(one[0]);
    }
  });
}

std::string C10dGroup::Share(const std::string& bytes, int64_t from) {
  // Tensors of others' memory only: this is also called when memory is short.
  auto length = static_cast<int64_t>(bytes.size());
  Broadcast({at::from_blob(&length, {1}, at::kLong)}, from);
  std::string result = rank() == from ? bytes : std::string();
  result.resize(static_cast<size_t>(length));
  Broadcast({at::from_blob(result.data(), {length}, at::kByte)}, from);
  return result;
}

std::vector<std::string> C10dGroup::Gather(const std::string& bytes) {
  std::vector<std::string> all;
  for (int64_t from = 0; from < world(); ++from) {
    all.push_back(Share(rank() == from ? bytes : std::string(), from));
  }
  return all;
}

std::unique_ptr<StepExchange> C10dGroup::MakeStepExchange(const std::vector<at::Tensor>& parameters,
                                                          const std::vector<size_t>& order,
                                                          const ExchangeOptions& options) {
  return MakeC10dStepExchange(*this, parameters, order, options);
}

void C10dGroup::Leave() {
  // Everybody is done before anybody takes a connection away.
  double nothing = 0;
  at::Tensor values = at::from_blob(&nothing, {1}, at::kDouble);
  Sum(values);
#ifdef USE_C10D_NCCL
  if (gradients_->getBackendName() != control_->getBackendName()) gradients_->shutdown();
#endif
  watch_->Leave();
}

std::unique_ptr<Group> JoinGroup(const RankEnvironment& environment, const GroupOptions& options) {
  if (!environment.one_of_many()) return Alone();
  return std::make_unique<C10dGroup>(environment, options);
}

}  // namespace kinefit
