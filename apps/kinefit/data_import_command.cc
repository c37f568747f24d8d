#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/conversion_summary.h"
#include "convert/import_set.h"
#include "files/error.h"
#include "report/progress.h"

namespace kinefit {
namespace {

// "1920x1080".
void SetImageSize(const std::string& text, ImportOptions* options) {
  char end = 0;
  long width = 0;
  long height = 0;
  if (std::sscanf(text.c_str(), "%ldx%ld%c", &width, &height, &end) != 2 || width < 1 ||
      height < 1 || width > 65536 || height > 65536) {
    throw Error("\"" + text + "\" is no image size", "--image-size",
                "write width and height in pixels, such as 1920x1080");
  }
  options->width = width;
  options->height = height;
}

int ImportFolder(const ImportOptions& options) {
  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  const ConversionReport report = ImportSet(options, [&](int64_t done, int64_t total) {
    progress.Note("video " + std::to_string(done) + "/" + std::to_string(total));
  });
  progress.Finish();
  PrintConversion(report, options.out);
  return kExitOk;
}

}  // namespace

void AddDataImportCommand(CLI::App& data, int* exit_code) {
  auto options = std::make_shared<ImportOptions>();
  auto size = std::make_shared<std::string>();
  CLI::App* import = data.add_subcommand(
      "import", "make a data set of own recordings: videos and the pose files of an estimator");
  import
      ->add_option("source", options->source,
                   "folder with one folder of videos per class, or a manifest (.csv, .json)")
      ->required();
  import->add_option("-o,--out", options->out, "folder to write into")->required();
  import->add_option("--pose", options->pose,
                     "folder of the pose files, arranged as the videos, or an annotation pickle; "
                     "default: beside the videos");
  import->add_option("--joints", options->joints,
                     "what the joints are: coco17, ntu25, openpose18, openpose25, ... or a .toml");
  import->add_option("--classes", options->classes,
                     "file with one class name per line; default: the labels in order");
  import->add_option("--persons", options->persons, "most persons kept of a clip")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  import
      ->add_option("--first-image", options->first_image,
                   "the number that pose files give a video's first frame")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  import->add_option("--image-size", *size,
                     "WIDTHxHEIGHT that joints refer to, where there is no video");
  import
      ->add_option("--test-share", options->test_share,
                   "share of each class's videos for the test, if the manifest has no splits")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  import->add_option("--seed", options->seed, "another seed, another choice of them")
      ->capture_default_str();
  import->add_option("--threads", options->threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  import
      ->add_option("--max-bad-share", options->max_bad_share,
                   "fail if more than this share of the clips cannot be used")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  import->callback([=] {
    if (!size->empty()) SetImageSize(*size, options.get());
  *exit_code = ImportFolder(*options);
});
}  // namespace kinefit

}  // namespace kinefit
