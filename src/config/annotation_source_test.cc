#include "config/annotation_source.h"

#include <gtest/gtest.h>

#include "config/load.h"
#include "config/testing.h"
#include "config/validate.h"

namespace kinefit {
namespace {

void ExpectSource(const AnnotationSource& source, const std::string& path,
                  const std::string& split, const std::string& key) {
  EXPECT_EQ(source.path, path);
  EXPECT_EQ(source.split, split);
  EXPECT_EQ(source.key, key);
}

TEST(AnnotationSource, OneFileWithSplits) {
  DataConfig data;
  data.annotations = "all.pkl";
  data.train_split = "train";
  data.val_split = "val";
  ExpectSource(TrainAnnotations(data), "all.pkl", "train", "data.annotations");
  ExpectSource(ValAnnotations(data), "all.pkl", "val", "data.annotations");
  ExpectSource(TestAnnotations(data), "all.pkl", "val", "data.annotations");
  EXPECT_TRUE(OneAnnotationFile(data));
  data.test_split = "test";
  ExpectSource(TestAnnotations(data), "all.pkl", "test", "data.annotations");
}

TEST(AnnotationSource, FilesOfTheirOwn) {
  DataConfig data;
  data.train_annotations = "train.pkl";
  data.val_annotations = "val.pkl";
  ExpectSource(TrainAnnotations(data), "train.pkl", "", "data.train_annotations");
  ExpectSource(ValAnnotations(data), "val.pkl", "", "data.val_annotations");
  ExpectSource(TestAnnotations(data), "val.pkl", "", "data.val_annotations");
  data.test_annotations = "test.pkl";
  data.val_split = "some";
  ExpectSource(TestAnnotations(data), "test.pkl", "", "data.test_annotations");
  EXPECT_FALSE(OneAnnotationFile(data));
  Config config;
  config.data = data;
  const DataConfig only = OnlyFrom(config, ValAnnotations(data)).data;
  EXPECT_TRUE(OneAnnotationFile(only));
  ExpectSource(TestAnnotations(only), "val.pkl", "some", "data.annotations");
}

class AnnotationLayers : public ConfigFiles {};

// A file of its own is a split: the base's names of splits are of another file.
TEST_F(AnnotationLayers, ALaterFileMakesEarlierSplitsVoid) {
  Write("base.toml",
        "[data]\nannotations = 'a.pkl'\ntrain_split = 'xsub_train'\nval_split = 'xsub_val'\n");
  const std::string main = Write("main.toml",
                                 "include = 'base.toml'\n[data]\ntrain_annotations = 't.pkl'\n"
                                 "val_annotations = 'v.pkl'\nval_split = 'half'\n");
  const DataConfig data = LoadConfig(main).config.data;
  ExpectSource(TrainAnnotations(data), "t.pkl", "", "data.train_annotations");
  ExpectSource(ValAnnotations(data), "v.pkl", "half", "data.val_annotations");
  const LoadedConfig loaded = LoadConfig(main);
  EXPECT_EQ(DumpConfig(LoadConfigText(DumpConfig(loaded), "").config), DumpConfig(loaded.config));
}

TEST(AnnotationSource, TrainingNeedsFilesOfBoth) {
  const auto error = [](const std::string& text) {
    const LoadedConfig loaded =
        LoadConfigText("[model]\ntype = 'pose'\n[data]\nflip = 0\n" + text, "c.toml");
    return ErrorOf([&] { ValidateTraining(loaded.config, &loaded.provenance); });
  };
  EXPECT_CONTAINS(error("val_annotations = 'v.pkl'").problem(), "nothing to train on");
  EXPECT_CONTAINS(error("train_annotations = 't.pkl'").problem(), "nothing to validate on");
  const LoadedConfig fine = LoadConfigText(
      "[model]\ntype = 'pose'\n[data]\nflip = 0\ntrain_annotations = 't.pkl'\n"
      "[train]\nval_every = 0\n",
      "c.toml");
  EXPECT_NO_THROW(ValidateTraining(fine.config, &fine.provenance));
}

}  // namespace
}  // namespace kinefit
