#pragma once

#include <string>

#include "config/config.h"

namespace kinefit {

// Where the clips for one use come from.
struct AnnotationSource {
  std::string path;
  std::string split;  // of that file; "" = everything in it
  std::string key;    // the option that named the file: "data.val_annotations"

  bool operator==(const AnnotationSource& other) const {
    return path == other.path && split == other.split;
  }
};

// data.train_annotations, or data.annotations, with data.train_split.
AnnotationSource TrainAnnotations(const DataConfig& data);
// data.val_annotations, or data.annotations, with data.val_split.
AnnotationSource ValAnnotations(const DataConfig& data);
// data.test_annotations with data.test_split; or the validation's file with data.test_split, where
// that is "" with data.val_split.
AnnotationSource TestAnnotations(const DataConfig& data);

// `config` with that source as its only one: data.annotations and every split.
Config OnlyFrom(const Config& config, const AnnotationSource& source);

// True if training, validation and test come from one file.
bool OneAnnotationFile(const DataConfig& data);

}  // namespace kinefit
