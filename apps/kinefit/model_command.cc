#include <cstdio>
#include <memory>

#include "apps/kinefit/commands.h"
#include "config/load.h"
#include "model/describe.h"

namespace kinefit {

void AddModelCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("model", "look at networks");
  command->require_subcommand(1);
  auto arguments = std::make_shared<ConfigArguments>();
  CLI::App* describe = command->add_subcommand(
      "describe",
      "print every layer: output shape, parameters, MACs and activation bytes of one clip");
  AddConfigArguments(describe, arguments.get());
  describe->callback([=] {
    const Config config = LoadConfig(arguments->path, arguments->overrides).config;
    std::fputs(DescriptionText(DescribeNetwork(config)).c_str(), stdout);
    *exit_code = kExitOk;
  });
}

}  // namespace kinefit
