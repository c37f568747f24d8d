#include "convert/ntu_sample.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr int kSetups60 = 17;

// https://openaccess.thecvf.com/content_cvpr_2016/papers/Shahroudy_NTU_RGBD_A_CVPR_2016_paper.pdf
constexpr std::array<int, 20> kTrainSubjects60 = {1,  2,  4,  5,  8,  9,  13, 14, 15, 16,
                                                  17, 18, 19, 25, 27, 28, 31, 34, 35, 38};
// https://arxiv.org/abs/1905.04757: these besides the 20.
constexpr std::array<int, 33> kMoreTrainSubjects120 = {
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74,  78, 80,
    81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103};

std::string_view Fact(const std::string& name) {
  for (const EmbeddedFile& file : NtuFacts()) {
    if (file.name == name) return file.text;
  }
  throw Error("the program lacks its own table '" + name + "'");
}

// Three digits at `at`; -1 if they are none.
int Digits(std::string_view text, size_t at) {
  int number = 0;
  for (size_t i = at; i < at + 3; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    number = 10 * number + (text[i] - '0');
  }
  return number;
}

}  // namespace

std::optional<NtuSample> ParseNtuName(std::string_view name) {
  constexpr std::string_view kLetters = "SCPRA";
  constexpr std::array<int, 5> kLargest = {32, 3, 106, 2, 120};
  if (name.size() != 20) return std::nullopt;
  std::array<int, 5> numbers{};
  for (size_t i = 0; i < 5; ++i) {
    numbers[i] = Digits(name, 4 * i + 1);
    if (name[4 * i] != kLetters[i] || numbers[i] < 1 || numbers[i] > kLargest[i]) {
      return std::nullopt;
    }
  }
  return NtuSample{std::string(name), numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
}

bool IsIn(const NtuSample& sample, NtuSet set) {
  return set == NtuSet::k120 || (sample.setup <= kSetups60 && sample.action <= 60);
}

int NtuClassCount(NtuSet set) { return set == NtuSet::k60 ? 60 : 120; }

int64_t NtuSampleCount(NtuSet set) { return set == NtuSet::k60 ? 56880 : 114480; }

int64_t NtuUsableCount(NtuSet set) {
  int64_t missing = 0;
  for (const std::string& name : NtuMissingSkeletons()) {
    missing += IsIn(*ParseNtuName(name), set) ? 1 : 0;
  }
  return NtuSampleCount(set) - missing;
}

std::string_view NtuClassNames(NtuSet set) { return Fact(set == NtuSet::k60 ? "ntu60" : "ntu120"); }

const std::unordered_set<std::string>& NtuMissingSkeletons() {
  static const std::unordered_set<std::string> names = [] {
    std::unordered_set<std::string> read;
    std::istringstream lines{std::string(Fact("missing_skeletons"))};
    for (std::string line; std::getline(lines, line);) {
      if (ParseNtuName(line)) read.insert(line);
    }
    return read;
  }();
  return names;
}

bool TrainsCrossSubject(const NtuSample& sample, NtuSet set) {
  const auto has = [&](const auto& subjects) {
    return std::find(subjects.begin(), subjects.end(), sample.performer) != subjects.end();
  };
  return has(kTrainSubjects60) || (set == NtuSet::k120 && has(kMoreTrainSubjects120));
}

bool TrainsCrossView(const NtuSample& sample) { return sample.camera != 1; }

bool TrainsCrossSetup(const NtuSample& sample) { return sample.setup % 2 == 0; }

}  // namespace kinefit
