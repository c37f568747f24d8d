// Times loading, for bench/loading.py. Unless said otherwise figures are CPU time of this process,
// so that other work on the machine does not count. SET: an annotation pickle with a folder of
// videos, or a packed store with "-".
//
//   clips SET VIDEOS SPLIT FIRST COUNT OUT   one JSON object like that of time_transforms.py
//   drawing SET VIDEOS SPLIT COUNT OUT       clips of both streams and of joints alone, with
//   heatmaps
//                                            and with joints to draw them from; and the drawing
//   gops VIDEO FRAMES OUT                    8 + 32 frames of one video to tensors: frames picked,
//                                            and decoded from the start
//   workers SET VIDEOS SPLIT SAMPLES OUT     wall clock: clips per second with one and two workers
//   memory SET VIDEOS SPLIT SAMPLES OUT      peak resident memory on the way through an epoch

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <string>
#include <thread>
#include <vector>

#include "dataset/annotations.h"
#include "dataset/frames.h"
#include "loader/device_heatmaps.h"
#include "loader/loader.h"
#include "memory/cpu_allocator.h"
#include "random/stream.h"
#include "transform/pipeline.h"
#include "transform/sample_frames.h"
#include "video/reader.h"

namespace kinefit {
namespace {

double CpuMilliseconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

// Of three runs: what takes longer is other work's doing.
double Least(const std::function<void()>& action) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = CpuMilliseconds();
    action();
    least = std::min(least, CpuMilliseconds() - start);
  }
  return least;
}

// The reference's configuration, rgbpose_conv3d.py with ColorJitter, on the joints of JHMDB.
Config ReferenceConfig(const std::string& annotations, const std::string& videos) {
  Config config;
  config.model.num_classes = 14;
  config.model.pose.in_channels = 15;
  config.data.annotations = annotations;
  if (videos != "-") config.data.videos = videos;
  config.data.left_joints = {4, 6, 8, 10, 12, 14};
  config.data.right_joints = {3, 5, 7, 9, 11, 13};
  config.data.color_jitter.enabled = true;
  config.data.heatmap.sigma = 0.7;
  config.data.heatmap.scaling = 0.25;
  return config;
}

// A batch of one clip, as the loader makes it.
struct OneClip {
  explicit OneClip(const Config& config)
      : shapes(PipelineShapes(config, Phase::kTrain, 1, false)),
        imgs(at::zeros({shapes.imgs_numel()})),
        heatmaps(at::zeros({shapes.heatmaps_numel()})) {}
  void Make(const Sample& sample, const Config& config, uint64_t number) {
    RandomStream random(0, "augment", 0, number);
    RunPipelineInto(sample, config, Phase::kTrain, 1, false, random,
                    {imgs.data_ptr<float>(), heatmaps.data_ptr<float>(), {}});
  }
  ClipShapes shapes;
  at::Tensor imgs;
  at::Tensor heatmaps;
};

// Milliseconds per clip to make it with heatmaps, with joints instead, and to draw these in batches
// of eight on the CPU, one thread.
void TimeDrawing(const std::vector<std::string>& arguments) {
  constexpr int64_t kBatch = 8;
  at::set_num_threads(1);
  Config config = ReferenceConfig(arguments.at(0), arguments.at(1));
  const Dataset dataset = LoadDataset(config, arguments.at(2));
  const size_t count = std::stoul(arguments.at(3));
  nlohmann::json result;
  for (const std::string type : {"rgbpose", "pose"}) {
    config.model.type = type;
    OneClip clip(config);
    Batch batch;
    batch.joints = EmptyJoints(config, kBatch, config.data.crop, at::kFloat);
    nlohmann::json host = nlohmann::json::array();
    nlohmann::json joints = nlohmann::json::array();
    nlohmann::json drawing = nlohmann::json::array();
    for (size_t i = 0; i < count; ++i) {
      const Sample& sample = dataset.samples.at(i);
      const auto place = static_cast<int64_t>(i) % kBatch;
      host.push_back(Least([&] { clip.Make(sample, config, i); }));
      const at::Tensor& all = batch.joints.tensor;
      joints.push_back(Least([&] {
        RandomStream random(0, "augment", 0, i);
        RunPipelineInto(sample, config, Phase::kTrain, 1, false, random,
                        {clip.imgs.data_ptr<float>(),
                         nullptr,
                         {all[place].data_ptr<float>(), all.size(1), all.size(3)}});
      }));
      if (place + 1 < kBatch) continue;
      at::Tensor drawn;
      drawing.push_back(Least([&] { drawn = HeatmapsOn(batch, config.data, at::kCPU); }) / kBatch);
    }
    result[type] = {{"host", host}, {"joints", joints}, {"drawing", drawing}};
  }
  std::ofstream(arguments.at(4)) << result;
}

// The frames that Make() will ask for: drawn from the stream before anything else.
std::vector<int64_t> FramesOf(const Sample& sample, const Config& config, uint64_t number) {
  RandomStream random(0, "augment", 0, number);
  return SampleFramesTrain(sample.total_frames, config.data.rgb_frames, 1, random);
}

void TimeClips(const std::vector<std::string>& arguments) {
  const Config config = ReferenceConfig(arguments.at(0), arguments.at(1));
  const Dataset dataset = LoadDataset(config, arguments.at(2));
  const size_t first = std::stoul(arguments.at(3));
  const size_t end = std::min(dataset.samples.size(), first + std::stoul(arguments.at(4)));
  OneClip clip(config);
  nlohmann::json ids = nlohmann::json::array();
  nlohmann::json times = nlohmann::json::array();
  for (size_t i = first; i < end; ++i) {
    const Sample& sample = dataset.samples[i];
    const std::vector<int64_t> frames = FramesOf(sample, config, i);
    const double decode = Least([&] { ReadFrames(sample, frames); });
    const double whole = Least([&] { clip.Make(sample, config, i); });
    ids.push_back(sample.id);
    times.push_back({{"decode", decode}, {"transforms", whole - decode}});
  }
  std::ofstream(arguments.at(5)) << nlohmann::json({{"ids", ids}, {"times", times}});
}

// Two people who walk about, in a video of that many frames.
Sample WalkersIn(const std::string& video, int64_t frames) {
  Sample sample;
  sample.id = video;
  sample.video = video;
  sample.width = 960;
  sample.height = 540;
  sample.total_frames = frames;
  sample.pose = {2, frames, 15, {}, {}};
  RandomStream random(1, "walkers");
  for (int64_t person = 0; person < 2; ++person) {
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t joint = 0; joint < 15; ++joint) {
        const double x = 300 + 250 * static_cast<double>(person) + 0.3 * static_cast<double>(t);
        sample.pose.xy.push_back(static_cast<float>(x + random.Uniform(-40, 40)));
        sample.pose.xy.push_back(static_cast<float>(270 + random.Uniform(-150, 150)));
        sample.pose.score.push_back(1);
      }
    }
  }
  return sample;
}

void TimeGops(const std::vector<std::string>& arguments) {
  const Config config = ReferenceConfig("", "");
  const Sample sample = WalkersIn(arguments.at(0), std::stol(arguments.at(1)));
  OneClip clip(config);
  nlohmann::json picked = nlohmann::json::array();
  nlohmann::json sequential = nlohmann::json::array();
  for (uint64_t i = 0; i < 3; ++i) {
    const std::vector<int64_t> frames = FramesOf(sample, config, i);
    const double from_start = Least([&] { DecodeFramesFromStart(sample.video, frames); });
    const double decode = Least([&] { ReadFrames(sample, frames); });
    const double whole = Least([&] { clip.Make(sample, config, i); });
    picked.push_back(whole);
    sequential.push_back(whole - decode + from_start);
  }
  std::ofstream(arguments.at(2)) << nlohmann::json({{"picked", picked}, {"all", sequential}});
}

double ClipsPerSecond(const Dataset& dataset, Config config, int64_t workers) {
  config.data.workers = workers;
  Loader loader(dataset, config, Phase::kTrain, 8);
  const auto start = std::chrono::steady_clock::now();
  loader.Start({0, 0});
  int64_t clips = 0;
  for (Batch batch; loader.Next(&batch);) clips += batch.labels.size(0);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(clips) / seconds.count();
}

// The first samples of a split, again and again until there are enough.
Dataset SamplesOf(const Config& config, const std::string& split, size_t count) {
  Dataset dataset = LoadDataset(config, split);
  const size_t distinct = dataset.samples.size();
  dataset.samples.reserve(count);
  for (size_t i = distinct; i < count; ++i)
    dataset.samples.push_back(dataset.samples[i % distinct]);
  dataset.samples.resize(count);
  return dataset;
}

void TimeWorkers(const std::vector<std::string>& arguments) {
  const Config config = ReferenceConfig(arguments.at(0), arguments.at(1));
  const Dataset dataset = SamplesOf(config, arguments.at(2), std::stoul(arguments.at(3)));
  nlohmann::json one = nlohmann::json::array();
  nlohmann::json two = nlohmann::json::array();
  for (int round = 0; round < 5; ++round) {
    one.push_back(ClipsPerSecond(dataset, config, 1));
    two.push_back(ClipsPerSecond(dataset, config, 2));
  }
  std::ofstream(arguments.at(4)) << nlohmann::json({{"one", one}, {"two", two}});
}

double PeakMebibytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void MeasureMemory(const std::vector<std::string>& arguments) {
  Config config = ReferenceConfig(arguments.at(0), arguments.at(1));
  const size_t samples = std::stoul(arguments.at(3));
  const Dataset dataset = SamplesOf(config, arguments.at(2), samples);
  config.data.workers = 2;
  Loader loader(dataset, config, Phase::kTrain, 8);
  loader.Start({0, 0});
  nlohmann::json peaks = nlohmann::json::array();
  int64_t clips = 0;
  for (Batch batch; loader.Next(&batch);) {
    // As a step does that takes longer than the loader: all batches that may be there at once are.
    // Without, how much of the newest one is there when the last is let go is a matter of chance.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    clips += batch.labels.size(0);
    if (clips % 500 < 8) peaks.push_back({clips, PeakMebibytes()});
  }
  peaks.push_back({clips, PeakMebibytes()});
  std::ofstream(arguments.at(4)) << nlohmann::json({{"peaks", peaks}});
}

int Run(const std::vector<std::string>& arguments) {
  cv::setNumThreads(0);
  InstallCpuAllocator();  // as the program does
  const std::string what = arguments.empty() ? "" : arguments[0];
  const std::vector<std::string> rest(arguments.begin() + (arguments.empty() ? 0 : 1),
                                      arguments.end());
  if (what == "clips" && rest.size() == 6) {
    TimeClips(rest);
  } else if (what == "drawing" && rest.size() == 5) {
    TimeDrawing(rest);
  } else if (what == "gops" && rest.size() == 3) {
    TimeGops(rest);
  } else if (what == "workers" && rest.size() == 5) {
    TimeWorkers(rest);
  } else if (what == "memory" && rest.size() == 5) {
    MeasureMemory(rest);
  } else {
    std::cerr << "see the top of bench/loader_bench.cc\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  try {
    return kinefit::Run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "loader_bench: " << error.what() << "\n";
    return 1;
  }
}
