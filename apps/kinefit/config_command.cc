#include <cstdio>
#include <memory>

#include "apps/kinefit/commands.h"
#include "config/load.h"
#include "config/options.h"
#include "config/validate.h"

namespace kinefit {

void AddConfigCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("config", "show configurations and their options");
  command->require_subcommand(1);

  auto arguments = std::make_shared<ConfigArguments>();
  CLI::App* show = command->add_subcommand(
      "show", "print the effective configuration and where each value came from");
  AddConfigArguments(show, arguments.get());
  show->callback([arguments, exit_code] {
    const LoadedConfig loaded = LoadConfig(arguments->path, arguments->overrides);
    std::fputs(DumpConfig(loaded).c_str(), stdout);
    Validate(loaded.config, &loaded.provenance);  // shown all the same: that helps to mend it
    *exit_code = kExitOk;
  });

  CLI::App* keys =
      command->add_subcommand("keys", "list every option with its range, default and meaning");
  auto prefix = std::make_shared<std::string>();
  keys->add_option("prefix", *prefix, "only keys that begin with this, such as train.optimizer");
  keys->callback([prefix, exit_code] {
    std::fputs(DescribeOptions(*prefix).c_str(), stdout);
    *exit_code = kExitOk;
  });
}

}  // namespace kinefit
