#include <cstdio>
#include <memory>

#include "apps/kinefit/commands.h"
#include "config/load.h"
#include "config/validate.h"
#include "files/error.h"
#include "memory/bytes.h"
#include "memory/plan.h"

namespace kinefit {
namespace {

struct Arguments {
  ConfigArguments config;
  std::string memory;
  std::string in_use;
  int64_t batch = 0;
};

int RunPlan(const Arguments& arguments) {
  LoadedConfig loaded = LoadConfig(arguments.config.path, arguments.config.overrides);
  Config& config = loaded.config;
  Validate(config, &loaded.provenance);
  if (arguments.batch > 0) config.train.batch_size = arguments.batch;
  int64_t budget =
      arguments.memory.empty() ? DefaultBudget(config) : ParseBytes(arguments.memory, "--memory");
  if (budget <= 0) {
    throw Error("the memory of device \"" + config.device + "\" is not known here", "",
                "give it with --memory, e.g. --memory 39.39GiB");
  }
  if (!arguments.in_use.empty()) budget -= ParseBytes(arguments.in_use, "--in-use");
  if (budget <= 0) {
    throw Error("--in-use leaves nothing of the memory", "", "give the memory of the whole device");
  }
  std::fputs(FormatPlan(MakePlan(config, budget)).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPlanCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "plan", "what a training step needs in memory, and how to make it fit; allocates nothing");
  AddConfigArguments(command, &arguments->config);
  command->add_option("-m,--memory", arguments->memory,
                      "memory of the device, e.g. 39.39GiB (default: this machine's)");
  command->add_option("--in-use", arguments->in_use, "of which others already hold so much");
  command->add_option("-b,--batch", arguments->batch, "micro-batch instead of train.batch_size")
      ->check(CLI::Range(1, 1 << 20));
  command->callback([=] { *exit_code = RunPlan(*arguments); });
}

}  // namespace kinefit
