#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kinefit {

// The built-in set: drawn people performing ten actions, as .mp4 files with an annotation pickle in
// mmaction2's format (COCO joints). It is made so that two streams are needed:
//
//   drink / call, lift_box / lift_ball, salute / tip_hat: the same movement, drawn from the same
//     distribution; the two differ in the thing held or worn alone, which joints do not show.
//   wave_slow / wave_fast, march / jog: the same poses at about 2 or about 6 cycles a clip. Sampled
//     at eight frames both come back at a quarter of a cycle per frame (8 - 6 = 2), so that RGB
//     sees the same poses in much the same order; 32 joint positions show the rhythm.
//
// So joints alone reach about 70 % and eight RGB frames alone about 80 %, by construction. Things
// of all kinds also lie around unheld, and hats are worn in other actions too.
struct SyntheticOptions {
  uint64_t seed = 0;
  int actors = 12;     // at least 2; the last third is the split "test", the others "train"
  int takes = 4;       // clips of each action by each actor
  int width = 160;     // even, at least 96
  int height = 120;    // even, at least 96
  int threads = 0;     // 0: one per core; the files do not depend on it
  bool force = false;  // write into a folder that holds other things
};

// What was written.
struct SyntheticSet {
  std::string annotations;  // folder/annotations.pkl
  std::string videos;       // folder/videos
  std::string classes;      // folder/classes.txt
  int64_t train_clips = 0;
  int64_t test_clips = 0;
};

// Of the noise that the annotation adds to the true joints. A missed joint has score 0 and
// coordinates 0; the frames of a low-score run have scores below kLowScore and twice the noise.
constexpr double kMissedShareLow = 0.01;  // of the joints of a set, between these
constexpr double kMissedShareHigh = 0.06;
constexpr double kLowScore = 0.5;

// Names in the order of the labels.
const std::vector<std::string>& SyntheticClassNames();

// Makes the set in `folder` (created where missing). The same options give the same bytes on the
// same build, whatever the number of threads. `progress(done, total)` is called after each clip,
// one call at a time. The annotation pickle is written last: where it exists, the set is complete.
// Throws Error for options out of range, for a non-empty folder that holds anything but an earlier
// such set (unless `force`), and for what cannot be written.
SyntheticSet MakeSyntheticSet(const std::string& folder, const SyntheticOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace kinefit
