#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "apps/kinefit/commands.h"
#include "config/annotation_source.h"
#include "config/load.h"
#include "dataset/annotations.h"
#include "dataset/packed_store.h"
#include "dataset/packed_writer.h"
#include "files/error.h"
#include "report/format.h"
#include "report/progress.h"
#include "transform/pack_clip.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  ConfigArguments set;
  std::string videos;
  std::string video_suffix;
  std::string classes;
  std::string output;
  int64_t short_side = PackSettings().short_side;
  int64_t quality = PackSettings().quality;
  double margin = PackSettings().margin;
  bool full_chroma = false;
  bool poses_only = false;
  bool verify = false;
  bool force = false;
  int threads = 0;
};

constexpr char kExtension[] = ".kfpack";

constexpr char kExamples[] =
    "Examples:\n"
    "  kinefit data pack configs/rgbpose_ntu60.toml --out ntu60.kfpack\n"
    "  kinefit data pack my_set/ --out my_set.kfpack --short-side 320 --quality 95\n"
    "  kinefit data pack annotations.pkl --videos clips/ --out my_set.kfpack\n"
    "  kinefit data pack annotations.pkl --poses-only --out poses.kfpack\n"
    "  kinefit data pack --verify ntu60.kfpack\n"
    "  kinefit train configs/rgbpose_ntu60.toml --set data.annotations=ntu60.kfpack\n"
    "A run that was stopped or killed goes on where it was when the same command is given again.\n"
    "docs/packing.md says more.";

std::string GroupDigits(int64_t number) {
  std::string text = std::to_string(number);
  for (size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

// Names in a file of class names: its lines that are not blank.
int64_t CountClasses(const std::string& path) {
  std::ifstream file(path);
  int64_t count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r\n\v\f") != std::string::npos) ++count;
  }
  if (count == 0) throw Error("class names cannot be read", path, "one name per line");
  return count;
}

// The annotation pickle of a folder: annotations.pkl, or the only one there is.
std::string FindPickle(const std::string& folder) {
  std::string usual = folder + "/annotations.pkl";
  if (fs::exists(usual)) return usual;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".pkl") found.push_back(entry.path().string());
  }
  if (found.size() == 1) return found[0];
  throw Error(found.empty() ? "there is no annotation pickle (*.pkl) in the folder"
                            : "there are several annotation pickles in the folder",
              folder, "name the pickle itself, and its videos with --videos");
}

// A set that no configuration describes: whatever its labels and joints, all of it is packed.
Config ConfigOfFiles(const Arguments& arguments) {
  const std::string& path = arguments.set.path;
  if (!fs::exists(path)) {
    throw Error("there is no such file or folder", path,
                "name a configuration (.toml), a folder with annotations and videos, or an "
                "annotation pickle");
  }
  Config config = LoadConfigText("", "defaults", arguments.set.overrides).config;
  config.model.type = "rgb";  // no joint count to fit
  config.data.annotations = fs::is_directory(path) ? FindPickle(path) : path;
  const fs::path folder = fs::path(config.data.annotations).parent_path();
  if (fs::is_directory(folder / "videos")) config.data.videos = (folder / "videos").string();
  if (fs::exists(folder / "classes.txt")) config.data.classes = (folder / "classes.txt").string();
  config.model.num_classes = 100000;
  return config;
}

Config LoadSet(const Arguments& arguments) {
  const std::string& path = arguments.set.path;
  const bool described = fs::path(path).extension() == ".toml";
  Config config =
      described ? LoadConfig(path, arguments.set.overrides).config : ConfigOfFiles(arguments);
  if (!arguments.videos.empty()) config.data.videos = arguments.videos;
  if (!arguments.video_suffix.empty()) config.data.video_suffix = arguments.video_suffix;
  if (!arguments.classes.empty()) config.data.classes = arguments.classes;
  if (!described && !config.data.classes.empty()) {
    config.model.num_classes = CountClasses(config.data.classes);
  }
  if (config.data.annotations.empty()) {
    const bool parts = HasSeparateAnnotations(config.data);
    throw Error(
        parts ? "the configuration names a file of annotations for each part"
              : "the configuration names no annotations",
        path,
        parts ? "pack one after the other: --set data.annotations=FILE" : "set data.annotations");
  }
  if (IsPackedStore(config.data.annotations)) {
    throw Error("the annotations are a packed store already", config.data.annotations,
                "pack from the annotation pickle and the videos");
  }
  const bool pose = described && config.model.has_pose();
  if (arguments.poses_only) {
    config.model.type = pose ? "pose" : "rgb";
    config.data.videos = ".";  // never looked into
  } else {
    config.model.type = pose ? "rgbpose" : "rgb";
  }
  return config;
}

// The line that shows how far packing is; where there is no terminal one line every half minute.
class PackingLine {
 public:
  PackingLine() : terminal_(DetectTerminal(STDOUT_FILENO)), progress_(std::cout, terminal_, 1) {}
  void Show(const PackProgress& at) {
    const double now = Seconds();
    if (first_.total == 0) first_ = at;
    const double rate = now > 0 ? static_cast<double>(at.done - first_.done) / now : 0;
    std::string text = fmt::format("packed {}/{} clips, {}", at.done, at.total,
                                   FormatBytes(static_cast<int64_t>(at.bytes)));
    if (rate > 0) {
      text += fmt::format(", {:.1f} clips/s, {} left", rate,
                          FormatDuration(static_cast<double>(at.total - at.done) / rate));
    }
    if (terminal_.live) return progress_.Note(text);
    if (now - shown_ < 30) return;
    shown_ = now;
    progress_.Message(text);
  }
  void Finish() { progress_.Finish(); }

 private:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const Terminal terminal_;
  Progress progress_;
  PackProgress first_;
  double shown_ = 0;
};

void PrintContents(const PackedStore& store) {
  int64_t clips = 0;
  int64_t pictured = 0;
  int64_t frames = 0;
  for (size_t i = 0; i < store.set().entries.size(); ++i) {
    if (!store.set().entries[i].rejected.empty()) continue;
    ++clips;
    if (!store.set().settings.images || !store.failure(i).empty()) continue;
    ++pictured;
    frames += store.set().entries[i].frames;
  }
  const auto each = [](uint64_t bytes, int64_t count) {
    return FormatBytes(count > 0 ? static_cast<int64_t>(bytes) / count : 0);
  };
  std::cout << store.path() << ": " << GroupDigits(clips) << " clips, "
            << FormatBytes(static_cast<int64_t>(store.bytes())) << "\n"
            << "  poses    " << each(store.poses_bytes(), clips) << " per clip\n";
  if (store.set().settings.images) {
    std::cout << "  pictures " << each(store.records_bytes(), pictured) << " per clip, "
              << each(store.records_bytes(), frames) << " each, " << GroupDigits(frames)
              << " in all\n";
  }
  std::cout << "  splits   ";
  for (const PackedSplit& split : store.set().splits) {
    std::cout << split.name << " (" << split.entries.size() << ") ";
  }
  std::cout << (store.set().splits.empty() ? "none\n" : "\n");
}

int VerifyStore(const std::string& path) {
  const auto store = PackedStore::Open(path);
  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  store->Verify([&](int64_t done, int64_t total) {
    progress.Note("verified " + std::to_string(done) + "/" + std::to_string(total));
  });
  progress.Finish();
  PrintContents(*store);
  std::cout << "every checksum is right\n";
  return kExitOk;
}

void CheckOutput(const std::string& output) {
  if (output.empty()) {
    throw Error("there is no name for the packed store", "--out",
                "name one, such as my_set.kfpack");
  }
  if (fs::path(output).extension() == kExtension) return;
  throw Error("packed stores are called *.kfpack", output,
              std::string("call it ") + fs::path(output).replace_extension(kExtension).string());
}

int RunPack(const Arguments& arguments) {
  if (arguments.verify) return VerifyStore(arguments.set.path);
  CheckOutput(arguments.output);
  const Config config = LoadSet(arguments);
  Dataset set = LoadDataset(config, "");
  if (config.data.classes.empty()) set.class_names.clear();  // numbers need not be stored

  PackRequest request;
  request.path = arguments.output;
  request.settings = PackSettingsOf(config.data);
  request.settings.images = !arguments.poses_only;
  request.settings.short_side = arguments.short_side;
  request.settings.quality = arguments.quality;
  request.settings.halve_chroma = !arguments.full_chroma;
  request.settings.margin = arguments.margin;
  request.set = &set;
  request.splits = LoadSplits(config.data.annotations);
  request.threads = arguments.threads > 0
                        ? arguments.threads
                        : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  request.max_bad_share = config.data.max_bad_share;
  request.force = arguments.force;

  PackingLine line;
  const PackReport report = WritePackedStore(
      request, [&](const Sample& sample) { return PackClip(sample, request.settings); },
      [&](const PackProgress& at) { line.Show(at); });
  line.Finish();
  for (const auto& [id, reason] : set.rejected) {
    std::cout << "left out " << id << ": " << reason << "\n";
  }
  for (const auto& [id, reason] : report.failed) {
    std::cout << "no pictures of " << id << ": " << reason << "\n";
  }
  if (report.was_complete) std::cout << "already packed, with these very settings\n";
  if (report.resumed > 0) {
    std::cout << "went on from " << report.resumed << " clips that were packed before\n";
  }
  PrintContents(*PackedStore::Open(request.path));
  return kExitOk;
}

}  // namespace

void AddDataPackCommand(CLI::App& data, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* pack = data.add_subcommand(
      "pack",
      "write a set into one file, frames cropped to the people as JPEG, from which training needs "
      "no videos");
  pack->footer(kExamples);
  pack->add_option("set", arguments->set.path,
                   "a configuration (TOML), a folder with an annotation pickle and videos, or an "
                   "annotation pickle")
      ->required();
  pack->add_option("-s,--set", arguments->set.overrides,
                   "override one option, e.g. --set data.compact_padding=0.1 (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  pack->add_option("-o,--out", arguments->output, "the store to write, *.kfpack");
  pack->add_option("--videos", arguments->videos,
                   "folder of the videos (default: `videos` beside the annotations)");
  pack->add_option("--video-suffix", arguments->video_suffix, "of their names (default: .mp4)");
  pack->add_option("--classes", arguments->classes,
                   "class names, one a line (default: `classes.txt` beside the annotations)");
  pack->add_option("--short-side", arguments->short_side,
                   "the box around the people is scaled down to this, never up; data.resize and "
                   "data.test_size need no more than themselves")
      ->check(CLI::Range(8, 4096))
      ->capture_default_str();
  pack->add_option("--quality", arguments->quality, "of the JPEG pictures")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  pack->add_option("--margin", arguments->margin,
                   "kept around the box, as a share of its short side: training crops to the box "
                   "of the frames drawn, which moves a little")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  pack->add_flag("--full-chroma", arguments->full_chroma,
                 "colours at full resolution (JPEG 4:4:4): larger, slower");
  pack->add_flag("--poses-only", arguments->poses_only, "no pictures, for pose networks");
  pack->add_option("--threads", arguments->threads, "0: one per core; the bytes are the same")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  pack->add_flag("--force", arguments->force, "replace a store of other data or settings");
  pack->add_flag("--verify", arguments->verify,
                 "the set is a packed store: read all of it and check every checksum");
  pack->callback([=] { *exit_code = RunPack(*arguments); });
}

}  // namespace kinefit
