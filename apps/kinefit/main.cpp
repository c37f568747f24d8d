#include <c10/util/Exception.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>
#include <string>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/version.h"
#include "files/error.h"
#include "memory/cpu_allocator.h"

namespace kinefit {

void AddConfigArguments(CLI::App* command, ConfigArguments* arguments) {
  command->add_option("config", arguments->path, "configuration file (TOML)")->required();
  command
      ->add_option("-s,--set", arguments->overrides,
                   "override one option, e.g. --set train.optimizer.lr=0.01 (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

namespace {

// OpenMP's threads spin while they wait, and take the cores from the loader's workers: on two cores
// a pose-only run is three times slower. How they wait is read from the environment when the
// program is loaded, before main, so the program starts itself once more with it set.
void LetIdleThreadsSleep(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  // By its own path, so that `top` and `kinefit memory` do not show a program called "exe".
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (length <= 0) return;
  path[length] = 0;
  execv(path, argv);  // returns only if it failed; then it is merely slower
}

int Run(int argc, char** argv) {
  InstallCpuAllocator();  // before the first tensor
  CLI::App app(
      "kinefit trains and runs two-stream human action recognition: RGB video and 2D skeletons,\n"
      "seen together by one network. `kinefit COMMAND --help` explains each command;\n"
      "`kinefit config keys` lists every option of a configuration.",
      "kinefit");
  app.require_subcommand(1);
  app.set_version_flag("--version", VersionText());
  int exit_code = kExitOk;
  AddTrainCommand(app, &exit_code);
  AddTestCommand(app, &exit_code);
  AddPredictCommand(app, &exit_code);
  AddForwardCommand(app, &exit_code);
  AddModelCommand(app, &exit_code);
  AddPlanCommand(app, &exit_code);
  AddDataCommand(app, &exit_code);
  AddConfigCommand(app, &exit_code);
  AddCheckpointCommand(app, &exit_code);
  AddCompareCommand(app, &exit_code);
  AddExplainOomCommand(app, &exit_code);
  AddMemoryCommand(app, &exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitBadInput;
  }
  return exit_code;
}

// What was printed but could not be written is a failure too: a full disk, a closed pipe.
int Flushed(int exit_code) {
  std::cout.flush();
  if (std::cout && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  std::fprintf(stderr, "kinefit: cannot write to standard output: %s\n", std::strerror(errno));
  return exit_code == kExitOk ? kExitFailed : exit_code;
}

int ReportOutOfMemory(const std::string& what) {
  std::fprintf(stderr, "kinefit: %s\n  to do: `kinefit plan CONFIG` shows what fits\n",
               what.c_str());
  return kExitFailed;
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  kinefit::LetIdleThreadsSleep(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, with a message
  try {
    return kinefit::Flushed(kinefit::Run(argc, argv));
  } catch (const kinefit::Error& error) {
    std::fprintf(stderr, "kinefit: %s\n", error.what());
    return kinefit::kExitBadInput;
  } catch (const c10::OutOfMemoryError& error) {
    return kinefit::ReportOutOfMemory(error.msg());
  } catch (const std::bad_alloc&) {
    return kinefit::ReportOutOfMemory("out of memory");
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "kinefit: internal error in a tensor operation: %s\n",
                 error.what_without_backtrace());
    return kinefit::kExitFailed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kinefit: internal error: %s\n", error.what());
    return kinefit::kExitFailed;
  }
}
