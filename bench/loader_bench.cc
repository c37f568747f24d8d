// Times loading, for scripts/bench.sh: every figure is CPU time of this process, so that other
// work on the machine does not count.
//
//   loader_bench clips ANNOTATIONS VIDEOS SPLIT FIRST COUNT OUT   one JSON object like that of
//                                                                 bench/reference/time_transforms.py

#include <ATen/ATen.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "dataset/annotations.h"
#include "files/error.h"
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
  config.data.videos = videos;
  config.data.left_joints = {4, 6, 8, 10, 12, 14};
  config.data.right_joints = {3, 5, 7, 9, 11, 13};
  config.data.color_jitter.enabled = true;
  config.data.heatmap.sigma = 0.7;
  config.data.heatmap.scaling = 0.25;
  return config;
}

int TimeClips(const std::vector<std::string>& arguments) {
  const Config config = ReferenceConfig(arguments.at(0), arguments.at(1));
  const Dataset dataset = LoadDataset(config, arguments.at(2));
  const size_t first = std::stoul(arguments.at(3));
  const size_t end = std::min(dataset.samples.size(), first + std::stoul(arguments.at(4)));
  const ClipShapes shapes = PipelineShapes(config, Phase::kTrain, 1, false);
  const at::Tensor imgs = at::zeros({shapes.imgs_numel()});  // as a batch is made in the loader
  const at::Tensor heatmaps = at::zeros({shapes.heatmaps_numel()});
  nlohmann::json ids = nlohmann::json::array();
  nlohmann::json times = nlohmann::json::array();
  for (size_t i = first; i < end; ++i) {
    const Sample& sample = dataset.samples[i];
    // The frames that the pipeline will draw: the first thing it asks the stream for.
    RandomStream frames_random(0, "augment", 0, i);
    std::vector<int64_t> frames =
        SampleFramesTrain(sample.total_frames, config.data.rgb_frames, 1, frames_random);
    frames.push_back(sample.total_frames - 1);
    const double decode = Least([&] { DecodeFrames(sample.video, frames); });
    const double whole = Least([&] {
      RandomStream random(0, "augment", 0, i);
      RunPipelineInto(sample, config, Phase::kTrain, 1, false, random, imgs.data_ptr<float>(),
                      heatmaps.data_ptr<float>());
    });
    ids.push_back(sample.id);
    times.push_back({{"decode", decode}, {"transforms", whole - decode}});
  }
  std::ofstream(arguments.at(5)) << nlohmann::json({{"ids", ids}, {"times", times}});
  return 0;
}

int Run(const std::vector<std::string>& arguments) {
  cv::setNumThreads(0);
  if (arguments.size() == 7 && arguments[0] == "clips") {
    return TimeClips({arguments.begin() + 1, arguments.end()});
  }
  std::cerr << "see the top of bench/loader_bench.cc\n";
  return 2;
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
