#include "config/annotation_source.h"

namespace kinefit {

AnnotationSource TrainAnnotations(const DataConfig& data) {
  if (data.train_annotations.empty()) {
    return {data.annotations, data.train_split, "data.annotations"};
  }
  return {data.train_annotations, data.train_split, "data.train_annotations"};
}

AnnotationSource ValAnnotations(const DataConfig& data) {
  if (data.val_annotations.empty()) return {data.annotations, data.val_split, "data.annotations"};
  return {data.val_annotations, data.val_split, "data.val_annotations"};
}

AnnotationSource TestAnnotations(const DataConfig& data) {
  if (!data.test_annotations.empty()) {
    return {data.test_annotations, data.test_split, "data.test_annotations"};
  }
  AnnotationSource source = ValAnnotations(data);
  if (!data.test_split.empty()) source.split = data.test_split;
  return source;
}

Config OnlyFrom(const Config& config, const AnnotationSource& source) {
  Config only = config;
  DataConfig& data = only.data;
  data.annotations = source.path;
  data.train_annotations.clear();
  data.val_annotations.clear();
  data.test_annotations.clear();
  data.train_split = data.val_split = data.test_split = source.split;
  return only;
}

bool OneAnnotationFile(const DataConfig& data) {
  const std::string path = TrainAnnotations(data).path;
  return path == ValAnnotations(data).path && path == TestAnnotations(data).path;
}

}  // namespace kinefit
