#include "apps/kinefit/commands.h"

namespace kinefit {

void AddDataCommand(CLI::App& app, int* exit_code) {
  CLI::App* data = app.add_subcommand("data", "make, convert, check and pack data sets");
  data->require_subcommand(1);
  AddDataMakeCommand(*data, exit_code);
  AddDataNtuCommand(*data, exit_code);
  AddDataImportCommand(*data, exit_code);
  AddDataPackCommand(*data, exit_code);
  AddDataCheckCommand(*data, exit_code);
  AddDataShowCommand(*data, exit_code);
}

}  // namespace kinefit
