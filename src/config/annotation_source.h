#pragma once

#include <string>

#include "config/config.h"

namespace kinefit {

// The clips of a run, by what they are for.
enum class Part { kTrain, kVal, kTest };

// Where the annotations of a part stand.
struct AnnotationSource {
  std::string annotations;  // data.annotations, or the part's own file; "" = none is named
  std::string split;        // of that file; "" = all of it
  bool operator==(const AnnotationSource& other) const {
    return annotations == other.annotations && split == other.split;
  }
};
AnnotationSource SourceOf(const DataConfig& data, Part part);

// Whether a part has a file of its own.
bool HasSeparateAnnotations(const DataConfig& data);

}  // namespace kinefit
