#include <c10/util/Exception.h>
#include <dlfcn.h>
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
#include "checkpoint/checkpoint.h"
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

void AddNonfiniteFlag(CLI::App* command) {
  command->add_flag_callback(
      "--allow-nonfinite", [] { AllowNonfinite(true); },
      "load a checkpoint although weights in it are NaN or infinite");
}

namespace {

// Whether OpenBLAS does not know this processor and takes kernels of twenty years ago for it.
bool BlasIsOldFashioned() {
  using GetName = const char* (*)();
  const auto name = reinterpret_cast<GetName>(dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  if (name == nullptr) return false;
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
#endif
  const std::string core = name();
  return core == "Prescott" || core == "Core2" || core == "Nehalem" || core == "generic";
}

// What libraries read from the environment while they are loaded, before main, so that the program
// starts itself once more with it set:
// - OpenMP's threads and OpenBLAS's spin while they wait, and take the cores from the loader's
//   workers: on two cores a pose-only run is three times slower.
// - On processors newer than itself OpenBLAS falls back to kernels without AVX: matrix products
// take
//   several times as long.
void SetUpLibraries(char** argv) {
  const char* const kStarted = "KINEFIT_LIBRARIES_SET_UP";
  if (std::getenv(kStarted) != nullptr) return;
  setenv(kStarted, "1", 1);
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("OPENBLAS_THREAD_TIMEOUT", "4", 0);  // log2 of processor cycles
  if (BlasIsOldFashioned()) setenv("OPENBLAS_CORETYPE", "Haswell", 0);
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
  app.set_version_flag("--version", [] { return VersionText(); });
  int exit_code = kExitOk;
  AddTrainCommand(app, &exit_code);
  AddLaunchCommand(app, &exit_code);
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

}  // namespace

int ReportException(const std::exception_ptr& exception, std::string* reason) {
  std::string unused;
  std::string& text = reason == nullptr ? unused : *reason;
  std::string remedy;
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    std::fprintf(stderr, "kinefit: %s\n", error.what());
    text = error.problem() + (error.where().empty() ? "" : " (" + error.where() + ")");
    return kExitBadInput;
  } catch (const c10::OutOfMemoryError& error) {
    text = error.msg();
    remedy = "\n  to do: `kinefit plan CONFIG` shows what fits";
  } catch (const std::bad_alloc&) {
    text = "out of memory";
    remedy = "\n  to do: `kinefit plan CONFIG` shows what fits";
  } catch (const c10::Error& error) {
    text = std::string("internal error in a tensor operation: ") + error.what_without_backtrace();
  } catch (const std::exception& error) {
    text = std::string("internal error: ") + error.what();
  }
  std::fprintf(stderr, "kinefit: %s%s\n", text.c_str(), remedy.c_str());
  return kExitFailed;
}

}  // namespace kinefit

int main(int argc, char** argv) {
  kinefit::SetUpLibraries(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, with a message
  try {
    return kinefit::Flushed(kinefit::Run(argc, argv));
  } catch (const std::exception&) {
    return kinefit::ReportException(std::current_exception());
  }
}
