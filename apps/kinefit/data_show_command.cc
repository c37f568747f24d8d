#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "config/load.h"
#include "config/nearest_key.h"
#include "config/validate.h"
#include "dataset/annotations.h"
#include "files/error.h"
#include "files/png.h"
#include "loader/loader.h"
#include "transform/contact_sheet.h"

namespace kinefit {
namespace {

struct ShowArguments {
  ConfigArguments config;
  std::string id;
  std::string out;
  std::string phase = "train";
  int64_t epoch = 0;
  int64_t pass = 0;
  bool clips = false;
};

// The sample, and where it was found.
struct Found {
  Dataset dataset;
  size_t index = 0;
  AnnotationSource source;
};

bool FindIn(const Config& config, const AnnotationSource& source, const std::string& id,
            Found* found, std::vector<std::string>* known) {
  found->dataset = LoadDataset(config, source);
  found->source = source;
  for (const Dataset::Rejected& rejected : found->dataset.rejected) {
    if (rejected.id == id) {
      throw Error("the annotation cannot be used: " + rejected.reason, "'" + id + "'",
                  "`kinefit data check` lists all such annotations");
    }
  }
  const std::vector<Sample>& samples = found->dataset.samples;
  for (size_t i = 0; i < samples.size(); ++i) {
    known->push_back(samples[i].id);
    if (samples[i].id == id) found->index = i;
  }
  return known->end() !=
         std::find(known->end() - static_cast<int64_t>(samples.size()), known->end(), id);
}

Found Find(const Config& config, Phase phase, const std::string& id) {
  const DataConfig& data = config.data;
  std::vector<AnnotationSource> sources = {SourceOf(data, Part::kTrain)};
  if (phase == Phase::kTest) {
    // Any clip can be looked at as a test would see it; training sees those of its split alone.
    sources = {SourceOf(data, Part::kVal), SourceOf(data, Part::kTest),
               SourceOf(data, Part::kTrain)};
  }
  std::vector<std::string> known;
  Found found;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto end = sources.begin() + static_cast<int64_t>(i);
    if (std::find(sources.begin(), end, sources[i]) != end) continue;
    if (FindIn(config, sources[i], id, &found, &known)) return found;
  }
  const std::vector<std::string> near = NearestKeys(id, known);
  throw Error(
      "there is no clip '" + id + "' in " +
          (phase == Phase::kTrain ? "the training split" : "the splits"),
      sources.front().annotations,
      (near.empty() ? "" : "did you mean '" + near.front() + "'? ") +
          (phase == Phase::kTrain ? std::string("--phase test shows clips of the other splits")
                                  : "the first clip is called '" + known.front() + "'"));
}

// Place of the sample's `pass`-th showing in the epoch's order.
int64_t PlaceInEpoch(const Found& found, const Config& config, int64_t epoch, int64_t pass) {
  const std::vector<int64_t> order = EpochOrder(found.dataset, config, Phase::kTrain, epoch);
  int64_t times = 0;
  for (size_t place = 0; place < order.size(); ++place) {
    if (order[place] != static_cast<int64_t>(found.index)) continue;
    if (times++ == pass) return static_cast<int64_t>(place);
  }
  throw Error("the clip is shown " + std::to_string(times) + " times in this epoch", "--pass",
              "give a number below that (data.repeat says how often)");
}

std::string Describe(const PipelineTrace& trace, const DataConfig& data) {
  std::string text =
      fmt::format("image {}x{}, box {}x{} at ({}, {})", trace.image.width, trace.image.height,
                  trace.box.width, trace.box.height, trace.box.x, trace.box.y);
  if (!trace.augmented) return text;
  text += fmt::format("; of {0}x{0}: crop {1}x{2} at ({3}, {4}); {5}", data.resize,
                      trace.crop.width, trace.crop.height, trace.crop.x, trace.crop.y,
                      trace.flip ? "mirrored" : "not mirrored");
  if (!data.color_jitter.enabled) return text + "; no colour jitter";
  const ColorJitter& jitter = trace.jitter;
  return text + fmt::format(
                    "; brightness x{:.2f}, contrast x{:.2f}, saturation x{:.2f}, hue "
                    "{:+.2f}",
                    jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue);
}

// The video that a network with an RGB stream would read of the clip; "" if there is none.
std::string VideoOf(const Config& config, const AnnotationSource& source, const std::string& id) {
  Config seeing = config;
  seeing.model.type = "rgbpose";
  try {
    for (const Sample& sample : LoadDataset(seeing, source).samples) {
      if (sample.id == id) return sample.video;
    }
  } catch (const Error&) {  // these annotations are not meant to be read together with videos
  }
  return "";
}

// A pose-only network reads no video, but a person sees more on one.
void FindVideoToDrawOn(const Config& config, const AnnotationSource& source, Sample* sample) {
  if (!sample->video.empty() || sample->store || config.data.videos.empty()) return;
  const std::string by_id =
      (std::filesystem::path(config.data.videos) / sample->id).string() + config.data.video_suffix;
  for (const std::string& path : {VideoOf(config, source, sample->id), by_id}) {
    std::error_code error;
    if (path.empty() || !std::filesystem::is_regular_file(path, error)) continue;
    sample->video = path;
    return;
  }
}

int Show(const ShowArguments& arguments) {
  const LoadedConfig loaded = LoadConfig(arguments.config.path, arguments.config.overrides);
  const Config& config = loaded.config;
  Validate(config, &loaded.provenance);
  const Phase phase = arguments.phase == "train" ? Phase::kTrain : Phase::kTest;
  if (phase == Phase::kTrain && arguments.clips) {
    throw Error("training sees one clip at a time", "--clips",
                "add --phase test, or look at several --epoch");
  }
  const Found found = Find(config, phase, arguments.id);
  Sample sample = found.dataset.samples[found.index];

  int64_t place = static_cast<int64_t>(found.index);
  std::string when = "as in a test";
  if (phase == Phase::kTrain) {
    place = PlaceInEpoch(found, config, arguments.epoch, arguments.pass);
    when = fmt::format("training, seed {}, epoch {}, place {} of its order", config.seed,
                       arguments.epoch, place);
  }
  RandomStream random = AugmentStream(config, arguments.epoch, place);
  PipelineTrace trace;
  const ClipTensors tensors = RunPipeline(
      sample, config, phase, arguments.clips ? config.eval.test_clips : 1, false, random, &trace);
  FindVideoToDrawOn(config, found.source, &sample);
  const std::vector<std::string> lines = {
      sample.id,
      fmt::format("class {} ({}), {}, {} frames, {} person{}, annotated for {}x{}; {}",
                  sample.label, found.dataset.class_names[static_cast<size_t>(sample.label)],
                  found.source.split.empty() ? "all annotations" : "split " + found.source.split,
                  sample.total_frames, sample.pose.persons, sample.pose.persons == 1 ? "" : "s",
                  sample.width, sample.height, when),
      Describe(trace, config.data)};
  const cv::Mat sheet = DrawContactSheet(sample, config, tensors, trace, lines);
  Image8 image{sheet.cols, sheet.rows, 3, {}};
  for (int y = 0; y < sheet.rows; ++y) {
    const auto* row = sheet.ptr<uint8_t>(y);
    image.pixels.insert(image.pixels.end(), row, row + ptrdiff_t{3} * sheet.cols);
  }
  WritePng(arguments.out, image);
  for (const std::string& line : lines) std::cout << line << "\n";
  std::cout << arguments.out << ": " << sheet.cols << "x" << sheet.rows << "\n";
  return kExitOk;
}

}  // namespace

void AddDataShowCommand(CLI::App& data, int* exit_code) {
  auto arguments = std::make_shared<ShowArguments>();
  CLI::App* show = data.add_subcommand(
      "show", "draw what the network sees of one clip: skeleton, crops, heatmaps, augmentation");
  AddConfigArguments(show, &arguments->config);
  show->add_option("id", arguments->id, "of the clip: frame_dir of its annotation")->required();
  show->add_option("--out", arguments->out, "the picture (PNG)")->required();
  show->add_option("--phase", arguments->phase, "train: augmented as in training; test: centred")
      ->check(CLI::IsMember({"train", "test"}))
      ->capture_default_str();
  show->add_option("--epoch", arguments->epoch, "whose random draws, counted from 0")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  show->add_option("--pass", arguments->pass,
                   "which showing of the clip in the epoch, where data.repeat is above 1")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  show->add_flag("--clips", arguments->clips, "all eval.test_clips of a test, not only one");
  show->callback([=] { *exit_code = Show(*arguments); });
}

}  // namespace kinefit
