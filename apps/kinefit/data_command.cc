#include "apps/kinefit/commands.h"
#include "config/annotation_source.h"
#include "files/error.h"

namespace kinefit {

void AddUseArgument(CLI::App* command, std::string* use) {
  command
      ->add_option("--use", *use,
                   "which annotations, where the configuration has data.train_annotations, "
                   "val_annotations or test_annotations")
      ->check(CLI::IsMember({"train", "val", "test"}));
}

Config ConfigForUse(const Config& config, const std::string& use) {
  if (use == "train") return OnlyFrom(config, TrainAnnotations(config.data));
  if (use == "val") return OnlyFrom(config, ValAnnotations(config.data));
  if (use == "test") return OnlyFrom(config, TestAnnotations(config.data));
  if (!OneAnnotationFile(config.data)) {
    throw Error("the configuration has several annotation files", TrainAnnotations(config.data).key,
                "choose with --use train, --use val or --use test");
  }
  Config one = config;
  one.data.annotations = TrainAnnotations(config.data).path;
  return one;
}

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
