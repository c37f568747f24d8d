#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/kinefit/commands.h"
#include "config/load.h"
#include "config/validate.h"
#include "distributed/launch.h"
#include "files/error.h"
#include "memory/nvml.h"

namespace kinefit {
namespace {

struct LaunchArguments {
  LaunchOptions options;
  std::string ranks = "auto";
  std::string rendezvous;
  std::vector<std::string> command;
  const CLI::Option* timeout_given = nullptr;
};

// By its own path, so that `top` does not show a program called "exe".
std::string OwnProgram() {
  char path[PATH_MAX] = {};
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  const std::string text = length > 0 ? path : "";
  return access(text.c_str(), X_OK) == 0 ? text : "/proc/self/exe";  // replaced while it runs
}

// The GPUs that CUDA_VISIBLE_DEVICES leaves, by number or name as it has them; without it, all.
std::vector<std::string> VisibleGpus() {
  std::vector<std::string> gpus;
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) {
    for (const GpuState& gpu : ReadGpus().gpus) gpus.push_back(std::to_string(gpu.index));
    return gpus;
  }
  const std::string text = visible;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string name = text.substr(at, end - at);
    if (name.empty() || name[0] == '-') break;  // CUDA ignores what follows
    gpus.push_back(name);
    at = end + 1;
  }
  return gpus;
}

// What the launcher has to know of the ranks' command.
struct RankCommand {
  bool trains = false;
  std::string work_dir;
  bool on_gpu = false;
  int64_t batch_size = 1;  // of each rank
  int64_t accumulate = 1;
  double timeout = 300;  // distributed.timeout
};

// With which `kinefit train` takes as many samples per step in `world` ranks as in `wanted`: the
// fewest accumulated micro-batches that are no larger than before. Nothing if it cannot be exact.
std::optional<std::vector<std::string>> SameEffectiveBatch(const RankCommand& known, int64_t wanted,
                                                           int64_t world) {
  const int64_t samples = known.batch_size * known.accumulate * wanted;
  if (samples % world != 0) return std::nullopt;
  const int64_t each = samples / world;
  int64_t accumulate = (each + known.batch_size - 1) / known.batch_size;
  while (each % accumulate != 0) ++accumulate;
  return std::vector<std::string>{"--set", "train.batch_size=" + std::to_string(each / accumulate),
                                  "--set", "train.accumulate=" + std::to_string(accumulate)};
}

// A mistake in the command is said once, before anything starts.
RankCommand Understand(const std::vector<std::string>& command) {
  RankCommand known;
  if (command[0] == "launch") {
    throw Error("launch cannot launch itself", "", "give the ranks' command after --");
  }
  if (command[0] != "train") return known;
  const ConfigArguments arguments = ParseTrainCommand({command.begin() + 1, command.end()});
  const LoadedConfig loaded = LoadConfig(arguments.path, arguments.overrides);
  ValidateTraining(loaded.config, &loaded.provenance);
  known.trains = true;
  known.batch_size = loaded.config.train.batch_size;
  known.accumulate = loaded.config.train.accumulate;
  known.work_dir = loaded.config.train.work_dir;
  known.timeout = loaded.config.distributed.timeout;
  known.on_gpu = loaded.config.device.rfind("cuda", 0) == 0;
  return known;
}

int64_t RanksHere(const std::string& text, bool on_gpu, const std::vector<std::string>& gpus) {
  if (text == "auto") {
    if (on_gpu && gpus.empty()) {
      throw Error("cannot tell how many GPUs this machine has", "--nproc auto",
                  "say how many ranks to start: --nproc N");
    }
    return on_gpu ? static_cast<int64_t>(gpus.size()) : 1;
  }
  char* end = nullptr;
  errno = 0;
  const int64_t number = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != 0 || errno != 0 || number < 1 || number > 1024) {
    throw Error("\"" + text + "\" is neither auto nor a number from 1 to 1024", "--nproc",
                "give the number of ranks on this machine, as a rule its number of GPUs");
  }
  if (on_gpu && !gpus.empty() && number > static_cast<int64_t>(gpus.size())) {
    throw Error(
        text + " ranks need as many GPUs, but " + std::to_string(gpus.size()) + " can be seen here",
        "--nproc", "start fewer ranks, or check CUDA_VISIBLE_DEVICES");
  }
  return number;
}

// HOST:PORT; a host that is an IPv6 address stands in brackets.
void ParseRendezvous(const std::string& text, LaunchOptions* options) {
  const size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon == std::string::npos ? 0 : colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    host.clear();
  }
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  char* end = nullptr;
  const int64_t number = std::strtoll(port.c_str(), &end, 10);
  if (host.empty() || port.empty() || *end != 0 || number < 1 || number > 65535) {
    throw Error("\"" + text + "\" is no HOST:PORT", "--rendezvous",
                "name node 0 as all nodes can reach it, and a port that is free there, e.g. "
                "node0:29400");
  }
  options->rendezvous_host = host;
  options->rendezvous_port = number;
}

int RunLaunch(const LaunchArguments& arguments) {
  LaunchOptions options = arguments.options;
  if (arguments.command.empty()) {
    throw Error("there is nothing to launch", "",
                "give the ranks' command after --, e.g. kinefit launch --nproc 2 -- train CONFIG");
  }
  if (options.node >= options.nodes) {
    throw Error(
        "there is no node " + std::to_string(options.node) + " of " + std::to_string(options.nodes),
        "--node-rank", "nodes count from 0 to --nnodes less 1");
  }
  if (!arguments.rendezvous.empty()) ParseRendezvous(arguments.rendezvous, &options);
  if (options.nodes > 1 && arguments.rendezvous.empty()) {
    throw Error("several nodes need a place to meet", "--rendezvous",
                "give HOST:PORT of node 0, the same on all nodes");
  }
  const RankCommand known = Understand(arguments.command);
  const std::vector<std::string> gpus = known.on_gpu ? VisibleGpus() : std::vector<std::string>();
  options.ranks = RanksHere(arguments.ranks, known.on_gpu, gpus);
  if (options.shrink && !gpus.empty()) {
    options.devices.assign(gpus.begin(), gpus.begin() + options.ranks);
  }
  if (known.trains) {
    options.arguments_for_world = [known](int64_t wanted, int64_t world) {
      return SameEffectiveBatch(known, wanted, world);
    };
  }
  if (options.log_folder.empty()) {
    options.log_folder = known.work_dir.empty() ? "ranks" : known.work_dir + "/ranks";
  }
  options.command = {OwnProgram()};
  options.command.insert(options.command.end(), arguments.command.begin(), arguments.command.end());
  if (known.trains && arguments.timeout_given->count() > 0) {  // one time-out for all who watch
    options.command.insert(options.command.end(),
                           {"--set", "distributed.timeout=" + std::to_string(options.timeout)});
  } else if (known.trains) {
    options.timeout = known.timeout;
  }
  return Launch(options);
}

}  // namespace

void AddLaunchCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<LaunchArguments>();
  LaunchOptions& options = arguments->options;
  CLI::App* command = app.add_subcommand(
      "launch",
      "start several ranks of a command, watch them, and start them again when one fails:\n"
      "kinefit launch --nproc 2 -- train CONFIG ...");
  command->add_option("--nproc", arguments->ranks,
                      "ranks on this machine; auto: one per GPU, or one without GPUs");
  command->add_option("--nnodes", options.nodes, "machines that take part; each runs a launcher")
      ->check(CLI::Range(1, 4096));
  command->add_option("--node-rank", options.node, "this machine's number; 0 leads")
      ->check(CLI::Range(0, 4095));
  command
      ->add_option("--rendezvous", arguments->rendezvous,
                   "HOST:PORT of node 0, where the launchers meet")
      ->type_name("HOST:PORT");
  command
      ->add_option("--rendezvous-timeout", options.rendezvous_timeout,
                   "seconds to wait for the other nodes, default 600")
      ->check(CLI::Range(1.0, 1e6));
  command
      ->add_option("--port", options.port,
                   "where the ranks meet (MASTER_PORT); by default any free one")
      ->check(CLI::Range(1, 65535));
  command
      ->add_option("--max-restarts", options.max_restarts,
                   "how often to start all ranks again after a failure, default 0")
      ->check(CLI::Range(0, 1000000));
  command->add_flag("--shrink", options.shrink,
                    "start again without the rank that failed; the effective batch stays");
  arguments->timeout_given =
      command
          ->add_option("--timeout", options.timeout,
                       "seconds a rank may be silent, or wait for the others, before it counts as "
                       "failed (distributed.timeout of train, default 300)")
          ->check(CLI::Range(1.0, 86400.0));
  command->add_option("--log-dir", options.log_folder,
                      "folder for every rank's output, rank_N.log; by default ranks/ in the work "
                      "dir");
  command->add_option("command", arguments->command, "what each rank runs, after --")
      ->type_name("-- COMMAND");
  command->positionals_at_end();
  command->callback([=] { *exit_code = RunLaunch(*arguments); });
}

}  // namespace kinefit
