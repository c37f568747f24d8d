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

// Scores run from 0 to 1; some detectors' run a little beyond. What lies outside these bounds is
// something else: percentages, or the third coordinate of joints in space.
constexpr float kLowestScore = -1;
constexpr float kHighestScore = 20;

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

// Throws Error, naming `where`, if clips with so many joints are not what the network and
// config.data expect.
void CheckJoints(const Config& config, int64_t joints, const std::string& where);

// The list of annotations in a pickle: the root or its member "annotations". Throws Error.
PickleValue FindAnnotations(const PickleValue& root, const std::string& path);

// Ids of the split, in its order. Throws Error, listing the splits there are, for an unknown one.
std::vector<std::string> ReadSplit(const PickleValue& root, const std::string& split,
                                   const std::string& path);

// Ids that a split names, or whose positions in the list of annotations it names. Throws Error.
std::vector<std::string> IdsOfSplit(const PickleValue& split, const PickleValue& annotations,
                                    const std::string& where);

// Whether labels are counted from 1: none is 0, and nearly all from 1 to `classes` occur or, if
// that is -1, all from 1 to the largest there is.
bool LabelsFromOne(const PickleValue& annotations, int64_t classes);

// `filename` or `frame_dir` of an annotation. Throws Error naming `where`.
std::string ReadId(const PickleValue& annotation, const std::string& where);

// Throws Error for what makes the whole file doubtful, Unusable for what concerns one clip. With
// `blanked` joints that cannot be are counted there and become joints that were not seen; without,
// they are Unusable.
Sample ReadSample(const PickleValue& annotation, const std::string& id, const Config& config,
                  const std::string& where, BlankedJoints* blanked = nullptr);

}  // namespace kinefit
