#include <unistd.h>

#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/conversion_summary.h"
#include "convert/ntu_set.h"
#include "report/progress.h"

namespace kinefit {
namespace {

int ConvertSet(const NtuOptions& options) {
  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  const ConversionReport report = ConvertNtu(options, [&](int64_t done, int64_t total) {
    progress.Note("sample " + std::to_string(done) + "/" + std::to_string(total));
  });
  progress.Finish();
  PrintConversion(report, options.out);
  return kExitOk;
}

}  // namespace

void AddDataNtuCommand(CLI::App& data, int* exit_code) {
  auto options = std::make_shared<NtuOptions>();
  auto set = std::make_shared<int>(60);
  CLI::App* ntu = data.add_subcommand(
      "ntu",
      "convert NTU RGB+D as downloaded: .skeleton files and _rgb.avi videos, with their splits");
  ntu->add_option("--skeletons", options->skeletons, "folder of SsssCcccPpppRrrrAaaa.skeleton")
      ->required();
  ntu->add_option("--rgb", options->rgb,
                  "folder of SsssCcccPpppRrrrAaaa_rgb.avi; without it, for pose networks only");
  ntu->add_option("-o,--out", options->out, "folder to write into; run again, it continues")
      ->required();
  ntu->add_option("--edition", *set, "which of the two sets")
      ->check(CLI::IsMember({60, 120}))
      ->capture_default_str();
  ntu->add_option("--threads", options->threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  ntu->add_option("--max-bad-share", options->max_bad_share,
                  "fail if more than this share of the samples cannot be used")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  ntu->callback([=] {
    options->set = *set == 60 ? NtuSet::k60 : NtuSet::k120;
    *exit_code = ConvertSet(*options);
  });
}

}  // namespace kinefit
