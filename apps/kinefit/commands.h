#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <string>
#include <vector>

#include "config/config.h"

namespace kinefit {

// Exit codes of the program. Bad input (an Error) is 2; a run stopped by a signal after saving its
// checkpoint is 128 + the signal's number, as shells expect.
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitBadInput = 2;

// Tells of what the program ends with on standard error, in `*reason` (may be null) in one line,
// and returns the exit code for it.
int ReportException(const std::exception_ptr& exception, std::string* reason = nullptr);

// Each adds one subcommand to `app`; when the command line names it, its callback runs it and
// stores the exit code in `*exit_code`. Errors are thrown and reported by main.
void AddTrainCommand(CLI::App& app, int* exit_code);
void AddLaunchCommand(CLI::App& app, int* exit_code);
void AddTestCommand(CLI::App& app, int* exit_code);
void AddPredictCommand(CLI::App& app, int* exit_code);
void AddForwardCommand(CLI::App& app, int* exit_code);
void AddModelCommand(CLI::App& app, int* exit_code);
void AddPlanCommand(CLI::App& app, int* exit_code);
void AddDataCommand(CLI::App& app, int* exit_code);
void AddConfigCommand(CLI::App& app, int* exit_code);
void AddCheckpointCommand(CLI::App& app, int* exit_code);
void AddCompareCommand(CLI::App& app, int* exit_code);
void AddExplainOomCommand(CLI::App& app, int* exit_code);
void AddMemoryCommand(CLI::App& app, int* exit_code);

// The subcommands of `kinefit data`.
void AddDataMakeCommand(CLI::App& data, int* exit_code);
void AddDataNtuCommand(CLI::App& data, int* exit_code);
void AddDataImportCommand(CLI::App& data, int* exit_code);
void AddDataPackCommand(CLI::App& data, int* exit_code);
void AddDataCheckCommand(CLI::App& data, int* exit_code);
void AddDataShowCommand(CLI::App& data, int* exit_code);

// What every subcommand that reads a config shares: the file and `--set key=value`.
struct ConfigArguments {
  std::string path;
  std::vector<std::string> overrides;
};
void AddConfigArguments(CLI::App* command, ConfigArguments* arguments);

// `--use train|val|test`: which of a configuration's annotation files, where it has several.
void AddUseArgument(CLI::App* command, std::string* use);
// `config` with that file and its split alone; as it is where `use` is "" and there is one file.
// Throws Error where "" leaves it open.
Config ConfigForUse(const Config& config, const std::string& use);

// The configuration that `kinefit train WORDS` would use, for whoever starts it. Throws
// CLI::ParseError.
ConfigArguments ParseTrainCommand(const std::vector<std::string>& words);

}  // namespace kinefit
