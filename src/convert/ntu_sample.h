#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "files/embedded.h"

namespace kinefit {

// What the name of a sample of NTU RGB+D says: "S001C002P003R001A004" is setup 1, camera 2,
// performer 3, replication 1, action 4 (https://github.com/shahroudy/NTURGB-D).
struct NtuSample {
  std::string name;
  int setup = 0;
  int camera = 0;
  int performer = 0;
  int replication = 0;
  int action = 0;  // from 1; the label is action - 1
};

// Reads a name of exactly that form with numbers of NTU RGB+D 120; nothing for any other text.
std::optional<NtuSample> ParseNtuName(std::string_view name);

// Which of the two sets: 60 (setups 1 to 17, actions 1 to 60) or 120.
enum class NtuSet { k60, k120 };

bool IsIn(const NtuSample& sample, NtuSet set);
int NtuClassCount(NtuSet set);
// How many samples the set has, and how many once those without skeletons are left out.
int64_t NtuSampleCount(NtuSet set);
int64_t NtuUsableCount(NtuSet set);
// One class name per line.
std::string_view NtuClassNames(NtuSet set);

// Samples whose skeletons are missing or incomplete: 302 of the 60, 535 of the 120.
const std::unordered_set<std::string>& NtuMissingSkeletons();

// Whether the sample is for training in the cross-subject, cross-view (test camera 1) and
// cross-setup (even setups train) protocols of the two papers. Cross-subject has other subjects in
// each set: 20 of 40 and 53 of 106.
bool TrainsCrossSubject(const NtuSample& sample, NtuSet set);
bool TrainsCrossView(const NtuSample& sample);
bool TrainsCrossSetup(const NtuSample& sample);

// Texts of configs/ that are part of the program: class names and missing skeletons.
const std::vector<EmbeddedFile>& NtuFacts();

}  // namespace kinefit
