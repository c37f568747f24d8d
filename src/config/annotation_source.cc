#include "config/annotation_source.h"

namespace kinefit {
namespace {

const std::string& FirstOf(const std::string& own, const std::string& other) {
  return own.empty() ? other : own;
}

}  // namespace

AnnotationSource SourceOf(const DataConfig& data, Part part) {
  if (part == Part::kTrain) {
    return {FirstOf(data.train_annotations, data.annotations), data.train_split};
  }
  const AnnotationSource val = {FirstOf(data.val_annotations, data.annotations), data.val_split};
  if (part == Part::kVal) return val;
  // The validation's split says nothing about a file that only the test has.
  if (!data.test_annotations.empty()) return {data.test_annotations, data.test_split};
  return {val.annotations, FirstOf(data.test_split, val.split)};
}

bool HasSeparateAnnotations(const DataConfig& data) {
  return !data.train_annotations.empty() || !data.val_annotations.empty() ||
         !data.test_annotations.empty();
}

}  // namespace kinefit
