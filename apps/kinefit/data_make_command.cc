#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <system_error>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/recordings.h"
#include "dataset/synthetic.h"
#include "report/progress.h"

namespace kinefit {
namespace {

int MakeSet(const std::string& folder, const SyntheticOptions& options, bool recordings) {
  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  const SyntheticSet set = MakeSyntheticSet(folder, options, [&](int64_t done, int64_t total) {
    progress.Note("clip " + std::to_string(done) + "/" + std::to_string(total));
  });
  progress.Finish();
  if (recordings) {
    constexpr int64_t kHeldBack = 1;
    const int64_t clips =
        LayOutRecordings(set.annotations, set.videos, set.classes, folder, kHeldBack);
    for (const std::string& path :
         {set.annotations, set.classes, set.videos, folder + "/synthetic.txt"}) {
      std::error_code unused;
      std::filesystem::remove(path, unused);
    }
    std::cout << "made " << clips - kHeldBack
              << " clips and their pose files, a folder per action, "
              << "in " << folder << ", and one more in " << folder << "/new\n";
    return kExitOk;
  }
  std::cout << "made " << set.train_clips << " training and " << set.test_clips << " test clips of "
            << SyntheticClassNames().size() << " actions by " << options.actors << " actors\n  "
            << set.annotations << "\n  " << set.videos << "\n  " << set.classes << "\n";
  return kExitOk;
}

}  // namespace

void AddDataMakeCommand(CLI::App& data, int* exit_code) {
  auto folder = std::make_shared<std::string>();
  auto options = std::make_shared<SyntheticOptions>();
  CLI::App* make = data.add_subcommand(
      "make", "make the built-in set: drawn people performing ten actions, videos and skeletons");
  make->add_option("folder", *folder, "where to")->required();
  make->add_option("--seed", options->seed, "same seed, same bytes")->capture_default_str();
  make->add_option("--actors", options->actors, "the last third of them is the test split")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  make->add_option("--takes", options->takes, "clips of each action by each actor")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  make->add_option("--threads", options->threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  make->add_flag("--force", options->force, "write into a folder that holds other things");
  auto recordings = std::make_shared<bool>(false);
  make->add_flag("--recordings", *recordings,
                 "lay it out as recordings of one's own: folders of videos and pose files");
  make->callback([=] { *exit_code = MakeSet(*folder, *options, *recordings); });
}

}  // namespace kinefit
