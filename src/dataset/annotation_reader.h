#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"
#include "files/pickle.h"

namespace kinefit {

// The pieces of LoadDataset, for what looks at annotations one by one: a bad one is a finding there
// and not the end. All are safe to call from several threads.

constexpr float kFarthestJoint = 1e6F;  // pixels; beyond, a coordinate is no place

// An annotation that cannot be used though the file as a whole can.
struct Unusable {
  std::string reason;
};

// Joints whose coordinates or scores cannot be, of one annotation.
struct BlankedJoints {
  int64_t nan = 0;       // joints with a coordinate that is not a number
  int64_t infinite = 0;  // ... infinite: what float16 makes of more than 65504
  int64_t far = 0;       // ... beyond kFarthestJoint
  int64_t scores = 0;    // scores that are NaN or infinite
  int64_t total() const { return nan + infinite + far + scores; }
};

// The lines of `config.data.classes`, or "0", "1", ... Throws Error unless there are num_classes.
std::vector<std::string> ReadClassNames(const Config& config);

// The class of a clip annotated with this label: data.label_offset added. Throws Error, naming
// `where`, for one outside the classes; Unusable where it is the offset that leads there.
int64_t LabelFor(int64_t annotated, const Config& config, const std::string& where,
                 const std::string& remedy);

// Throws Error, naming `where`, if clips with so many joints are not what the network and
// config.data expect.
void CheckJoints(const Config& config, int64_t joints, const std::string& where);

// The list of annotations in a pickle: the root or its member "annotations". Throws Error.
PickleValue FindAnnotations(const PickleValue& root, const std::string& path);

// Ids of the split, in its order. Throws Error, listing the splits there are, for an unknown one.
std::vector<std::string> ReadSplit(const PickleValue& root, const std::string& split,
                                   const std::string& path);

// `filename` or `frame_dir` of an annotation. Throws Error naming `where`.
std::string ReadId(const PickleValue& annotation, const std::string& where);

// Throws Error for what makes the whole file doubtful, Unusable for what concerns one clip. With
// `blanked` joints that cannot be are counted there and become joints that were not seen; without,
// they are Unusable.
Sample ReadSample(const PickleValue& annotation, const std::string& id, const Config& config,
                  const std::string& where, BlankedJoints* blanked = nullptr);

}  // namespace kinefit
