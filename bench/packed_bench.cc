// CPU time per clip of reading and decoding from a packed store, beside decoding the same frames of
// the same clips from their videos, on one thread, alternating.
//
//   packed_bench STORE CONFIG [--frames N] [--clips N] [--rounds N]
//
// CONFIG names the pickle and the videos that the store was made from. A STORE that does not exist
// is made first, as `kinefit data pack CONFIG --out STORE` does.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <opencv2/core.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/load.h"
#include "dataset/annotations.h"
#include "dataset/frames.h"
#include "dataset/packed_writer.h"
#include "files/error.h"
#include "transform/pack_clip.h"
#include "transform/pipeline.h"
#include "transform/sample_frames.h"

namespace kinefit {
namespace {

struct Arguments {
  std::string store;
  std::string config;
  int64_t frames = 8;
  int64_t clips = 200;
  int64_t rounds = 5;
};

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Milliseconds per sample.
double Time(const std::vector<Sample>& samples, const std::function<void(const Sample&)>& act) {
  const double begin = ThreadSeconds();
  for (const Sample& sample : samples) act(sample);
  return 1000 * (ThreadSeconds() - begin) / static_cast<double>(samples.size());
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The same clips of both sets, evenly chosen.
void Pair(int64_t clips, Dataset* videos, Dataset* packed) {
  std::unordered_map<std::string, Sample> by_id;
  for (Sample& sample : videos->samples) by_id[sample.id] = std::move(sample);
  std::vector<Sample> a;
  std::vector<Sample> b;
  const size_t step = std::max<size_t>(1, packed->samples.size() / static_cast<size_t>(clips));
  for (size_t i = 0; i < packed->samples.size(); i += step) {
    a.push_back(by_id.at(packed->samples[i].id));
    b.push_back(packed->samples[i]);
  }
  videos->samples = std::move(a);
  packed->samples = std::move(b);
}

void Pack(const Config& config, const Dataset& videos, const std::string& store) {
  PackRequest request;
  request.path = store;
  request.settings = PackSettingsOf(config.data);
  request.set = &videos;
  request.splits = LoadSplits(config.data.annotations);
  WritePackedStore(request, [&](const Sample& s) { return PackClip(s, request.settings); });
}

void Run(const Arguments& arguments) {
  cv::setNumThreads(0);
  Config config = LoadConfig(arguments.config).config;
  Dataset videos = LoadDataset(config, "");
  if (!std::ifstream(arguments.store)) Pack(config, videos, arguments.store);
  config.data.annotations = arguments.store;
  Dataset packed = LoadDataset(config, "");
  Pair(arguments.clips, &videos, &packed);
  const auto read = [&](const Sample& sample) {
    RandomStream random(1, "bench", static_cast<uint64_t>(sample.label));
    ReadFrames(sample, SampleFramesTrain(sample.total_frames, arguments.frames, 1, random));
  };
  const auto whole = [&](const Sample& sample) {
    RandomStream random(1, "bench", static_cast<uint64_t>(sample.label));
    RunPipeline(sample, config, Phase::kTrain, 1, false, random);
  };
  std::vector<double> times[4];
  for (int64_t round = 0; round < arguments.rounds; ++round) {
    times[0].push_back(Time(videos.samples, read));
    times[1].push_back(Time(packed.samples, read));
    times[2].push_back(Time(videos.samples, whole));
    times[3].push_back(Time(packed.samples, whole));
  }
  const ClipFrames first = ReadFrames(packed.samples[0], {0});
  std::printf("%zu clips, first picture %dx%d, CPU time per clip, median of %lld rounds\n",
              packed.samples.size(), first.frames[0].cols, first.frames[0].rows,
              static_cast<long long>(arguments.rounds));
  const char* names[] = {"frames alone", "to tensors, as the configuration says"};
  for (int i = 0; i < 2; ++i) {
    const double video = Median(times[2 * i]);
    const double store = Median(times[2 * i + 1]);
    std::printf("  %-40s videos %7.2f ms   store %7.2f ms   %5.1f x\n", names[i], video, store,
                video / store);
  }
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  kinefit::Arguments arguments;
  std::vector<std::string> plain;
  for (int i = 1; i < argc; ++i) {
    const auto number = [&](const char* name, int64_t* value) {
      if (std::strcmp(argv[i], name) != 0 || i + 1 == argc) return false;
      *value = std::max(1LL, std::atoll(argv[++i]));
      return true;
    };
    if (!number("--frames", &arguments.frames) && !number("--clips", &arguments.clips) &&
        !number("--rounds", &arguments.rounds)) {
      plain.emplace_back(argv[i]);
    }
  }
  if (plain.size() != 2) {
    std::fprintf(stderr,
                 "usage: packed_bench STORE CONFIG [--frames N] [--clips N] [--rounds N]\n");
    return 2;
  }
  arguments.store = plain[0];
  arguments.config = plain[1];
  try {
    kinefit::Run(arguments);
  } catch (const kinefit::Error& error) {
    std::fprintf(stderr, "packed_bench: %s\n", error.what());
    return 2;
  }
  return 0;
}
