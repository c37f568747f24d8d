#include "transform/sample_frames.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "files/error.h"

namespace kinefit {
namespace {

// The two draws that sampling makes of numpy.random after numpy.random.seed(seed): std::mt19937 is
// the same generator with the same seeding; numbers below a bound come from masked rejection.
class NumpyLegacyRandom {
 public:
  explicit NumpyLegacyRandom(uint32_t seed) : engine_(seed) {}

  // numpy.random.randint(0, high). REQUIRES: high >= 1.
  int64_t Integer(int64_t high) { return Interval(static_cast<uint32_t>(high - 1)); }

  // numpy.random.permutation(n).
  std::vector<int64_t> Permutation(int64_t n) {
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size() - 1; i > 0; --i) {
      std::swap(order[i], order[static_cast<size_t>(Interval(static_cast<uint32_t>(i)))]);
    }
    return order;
  }

 private:
  int64_t Interval(uint32_t largest) {
    if (largest == 0) return 0;  // numpy draws nothing here
    uint32_t mask = largest;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    uint32_t value = 0;
    do {
      value = static_cast<uint32_t>(engine_()) & mask;
    } while (value > largest);
    return value;
  }

  std::mt19937 engine_;
};

// The same two draws from the project's own stream.
class StreamRandom {
 public:
  explicit StreamRandom(RandomStream* random) : random_(random) {}
  int64_t Integer(int64_t high) { return random_->Integer(0, high); }
  std::vector<int64_t> Permutation(int64_t n) { return random_->Permutation(n); }

 private:
  RandomStream* random_;
};

void CheckArguments(int64_t total_frames, int64_t clip_len, int64_t clips) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (total_frames < 1 || total_frames >= kMost) {
    throw Error("a clip of " + std::to_string(total_frames) + " frames cannot be sampled");
  }
  if (clip_len < 1 || clips < 1) throw Error("clip length and number of clips must be at least 1");
}

// clip_len <= total_frames < 2 * clip_len: steps of one frame, and of two where a frame is left
// out. Which of the clip_len + 1 gaps lose a frame is drawn without replacement.
template <typename Random>
void SampleWithGaps(int64_t total_frames, int64_t clip_len, Random& random,
                    std::vector<int64_t>* frames) {
  const std::vector<int64_t> gaps = random.Permutation(clip_len + 1);
  std::vector<int64_t> skip(static_cast<size_t>(clip_len + 1), 0);
  for (int64_t i = 0; i < total_frames - clip_len; ++i) {
    skip[static_cast<size_t>(gaps[static_cast<size_t>(i)])] = 1;
  }
  int64_t skipped = 0;
  for (int64_t i = 0; i < clip_len; ++i) {
    skipped += skip[static_cast<size_t>(i)];
    frames->push_back(i + skipped);
  }
}

template <typename Random>
void SampleParts(int64_t total_frames, int64_t clip_len, Random& random,
                 std::vector<int64_t>* frames) {
  for (int64_t i = 0; i < clip_len; ++i) {
    const int64_t begin = i * total_frames / clip_len;
    const int64_t end = (i + 1) * total_frames / clip_len;
    frames->push_back(begin + random.Integer(end - begin));
  }
}

// `start(clip)`: first frame of a clip longer than the video.
template <typename Random, typename Start>
std::vector<int64_t> SampleClips(int64_t total_frames, int64_t clip_len, int64_t clips,
                                 Random& random, Start start) {
  std::vector<int64_t> frames;
  frames.reserve(static_cast<size_t>(clip_len * clips));
  for (int64_t clip = 0; clip < clips; ++clip) {
    if (total_frames < clip_len) {
      const int64_t first = start(clip);
      for (int64_t i = 0; i < clip_len; ++i) frames.push_back((first + i) % total_frames);
    } else if (total_frames < 2 * clip_len) {
      SampleWithGaps(total_frames, clip_len, random, &frames);
    } else {
      SampleParts(total_frames, clip_len, random, &frames);
    }
  }
  return frames;
}

}  // namespace

std::vector<int64_t> SampleFramesTrain(int64_t total_frames, int64_t clip_len, int64_t clips,
                                       RandomStream& random) {
  CheckArguments(total_frames, clip_len, clips);
  StreamRandom draws(&random);
  return SampleClips(total_frames, clip_len, clips, draws,
                     [&](int64_t) { return random.Integer(0, total_frames); });
}

std::vector<int64_t> SampleFramesTest(int64_t total_frames, int64_t clip_len, int64_t clips) {
  CheckArguments(total_frames, clip_len, clips);
  NumpyLegacyRandom draws(255);
  return SampleClips(total_frames, clip_len, clips, draws, [&](int64_t clip) {
    return total_frames < clips ? clip : clip * total_frames / clips;
  });
}

Pose SelectFrames(const Pose& pose, const std::vector<int64_t>& frames) {
  Pose selected;
  selected.persons = pose.persons;
  selected.frames = static_cast<int64_t>(frames.size());
  selected.joints = pose.joints;
  selected.xy.reserve(static_cast<size_t>(pose.persons * selected.frames * pose.joints * 2));
  selected.score.reserve(static_cast<size_t>(pose.persons * selected.frames * pose.joints));
  for (int64_t person = 0; person < pose.persons; ++person) {
    for (const int64_t frame : frames) {
      const int64_t first = (person * pose.frames + frame) * pose.joints;
      selected.xy.insert(selected.xy.end(), pose.xy.begin() + 2 * first,
                         pose.xy.begin() + 2 * (first + pose.joints));
      selected.score.insert(selected.score.end(), pose.score.begin() + first,
                            pose.score.begin() + first + pose.joints);
    }
  }
  return selected;
}

}  // namespace kinefit
