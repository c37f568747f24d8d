#include "distributed/environment.h"

#include <cerrno>
#include <cstdlib>
#include <optional>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr int64_t kMostRanks = 1 << 20;
constexpr int64_t kDefaultPort = 29500;

// The variables of one environment, read with complaints that name them.
class Variables {
 public:
  explicit Variables(const GetVariable& get) : get_(get) {}

  bool Has(const char* name) const { return !Text(name).empty(); }
  std::string Text(const char* name) const {
    const char* value = get_(name);
    return value == nullptr ? "" : value;
  }
  // In [low, high]. Throws Error if it is not there or no such number.
  int64_t Number(const char* name, int64_t low, int64_t high) const {
    const std::string text = Text(name);
    char* end = nullptr;
    errno = 0;
    const int64_t value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != 0 || errno != 0 || value < low || value > high) {
      throw Error(text.empty() ? std::string("the environment says that this is one of several "
                                             "processes, but this variable is missing")
                               : "\"" + text + "\" is no number from " + std::to_string(low) +
                                     " to " + std::to_string(high),
                  std::string("environment variable ") + name, kRemedy);
    }
    return value;
  }
  int64_t Number(const char* name, int64_t low, int64_t high, int64_t otherwise) const {
    return Has(name) ? Number(name, low, high) : otherwise;
  }

 private:
  static constexpr const char* kRemedy =
      "start the processes with kinefit launch, torchrun, srun or mpirun; for a single process "
      "unset it";
  const GetVariable& get_;
};

// The names under which a starter tells the same four numbers.
struct Names {
  const char* source;
  const char* rank;
  const char* world;
  const char* local_rank;
  const char* local_world;
};

constexpr Names kTorchrun = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kOpenMpi = {"openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                            "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kSlurm = {"slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID",
                          "SLURM_NTASKS_PER_NODE"};

std::optional<Names> WhoStarted(const Variables& variables) {
  if (variables.Has("RANK") || variables.Has("WORLD_SIZE")) return kTorchrun;
  if (variables.Has(kOpenMpi.rank)) return kOpenMpi;
  // The shell of a batch job has most of Slurm's too, but is no step of it, or the one that Slurm
  // numbers SLURM_BATCH_SCRIPT (0xfffffffb).
  if (variables.Has(kSlurm.rank) && variables.Has(kSlurm.world) && variables.Has("SLURM_STEP_ID") &&
      variables.Text("SLURM_STEP_ID") != "4294967291") {
    return kSlurm;
  }
  return std::nullopt;
}

int64_t LocalWorld(const Variables& variables, const Names& names, const RankEnvironment& found) {
  if (variables.Has(names.local_world)) {
    return variables.Number(names.local_world, 1, kMostRanks);
  }
  if (names.source == std::string("slurm")) {
    const int64_t node = variables.Number("SLURM_NODEID", 0, kMostRanks, 0);
    const int64_t tasks = TasksOnNode(variables.Text("SLURM_STEP_TASKS_PER_NODE"), node);
    if (tasks > 0) return tasks;
    const int64_t of_job = TasksOnNode(variables.Text("SLURM_TASKS_PER_NODE"), node);
    if (of_job > 0) return of_job;
  }
  return found.local_rank + 1;  // at least
}

void FindMeetingPlace(const Variables& variables, RankEnvironment* found) {
  found->address = variables.Text("MASTER_ADDR");
  int64_t port = kDefaultPort;
  if (found->source == "slurm") {
    // The same for all ranks of a job, and seldom that of another job.
    port = 20000 + variables.Number("SLURM_JOB_ID", 0, INT64_MAX, 0) % 20000;
    if (found->address.empty()) found->address = FirstHost(variables.Text("SLURM_STEP_NODELIST"));
    if (found->address.empty()) found->address = FirstHost(variables.Text("SLURM_NODELIST"));
  }
  if (found->address.empty() && found->local_world == found->world) found->address = "127.0.0.1";
  if (found->address.empty()) {
    throw Error("the ranks are on several machines, and none is named where they meet",
                "environment variable MASTER_ADDR",
                "set it to the name or address of rank 0's machine on all of them");
  }
  found->port = variables.Number("MASTER_PORT", 1, 65535, port);
}

}  // namespace

std::string FirstHost(const std::string& list) {
  size_t end = 0;
  while (end < list.size() && list[end] != ',' && list[end] != '[') ++end;
  std::string host = list.substr(0, end);
  if (end == list.size() || list[end] == ',') return host;
  const size_t number = end + 1;
  const size_t stop = list.find_first_of(",-]", number);
  if (stop == std::string::npos) return "";
  host += list.substr(number, stop - number);
  const size_t close = list.find(']', stop);
  if (close == std::string::npos) return "";
  return host + list.substr(close + 1, list.find(',', close) - close - 1);
}

int64_t TasksOnNode(const std::string& list, int64_t node) {
  const char* at = list.c_str();
  while (*at != 0) {
    char* end = nullptr;
    const int64_t tasks = std::strtoll(at, &end, 10);
    if (end == at || tasks < 1) return 0;
    int64_t times = 1;
    if (end[0] == '(' && end[1] == 'x') {
      at = end + 2;
      times = std::strtoll(at, &end, 10);
      if (end == at || *end != ')') return 0;
      ++end;
    }
    if (node < times) return tasks;
    node -= times;
    at = *end == ',' ? end + 1 : end;
    if (at == end && *end != 0) return 0;
  }
  return 0;
}

RankEnvironment ReadRankEnvironment(const GetVariable& get) {
  const Variables variables(get);
  RankEnvironment found;
  const std::optional<Names> names = WhoStarted(variables);
  if (!names) return found;
  found.source = names->source;
  found.world = variables.Number(names->world, 1, kMostRanks);
  found.rank = variables.Number(names->rank, 0, kMostRanks);
  if (found.rank >= found.world) {
    throw Error("rank " + std::to_string(found.rank) + " is not below the number of ranks, " +
                    std::to_string(found.world),
                std::string("environment variable ") + names->rank, "they count from 0");
  }
  if (found.world > 1) {
    found.local_rank = variables.Number(names->local_rank, 0, kMostRanks, 0);
    found.local_world = LocalWorld(variables, *names, found);
    FindMeetingPlace(variables, &found);
    found.store_is_served = variables.Text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  }
  found.run_id = variables.Text("TORCHELASTIC_RUN_ID");
  if (found.run_id.empty() && found.source == "slurm") {
    found.run_id = variables.Text("SLURM_JOB_ID") + "." + variables.Text("SLURM_STEP_ID");
  }
  found.restarts = variables.Number("TORCHELASTIC_RESTART_COUNT", 0, INT64_MAX, 0);
  found.error_file = variables.Text("TORCHELASTIC_ERROR_FILE");
  return found;
}

RankEnvironment ReadRankEnvironment() {
  return ReadRankEnvironment([](const char* name) { return std::getenv(name); });
}

}  // namespace kinefit
