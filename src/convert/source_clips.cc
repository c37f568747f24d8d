#include "convert/source_clips.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "convert/media_files.h"
#include "files/error.h"
#include "files/publish.h"
#include "files/text.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLargestManifest = uint64_t{1} << 30;

std::string Extension(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

std::string WithoutExtension(const std::string& path) {
  return fs::path(path).replace_extension().string();
}

std::string Absolute(const fs::path& path) {
  std::string text = fs::absolute(path).lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

// Entries of a folder with one subfolder per class.
std::vector<ManifestEntry> EntriesOfFolder(const std::string& folder) {
  const std::vector<std::string> files = ListFiles(folder);
  const bool videos = std::any_of(files.begin(), files.end(), IsVideoName);
  std::vector<ManifestEntry> entries;
  for (const std::string& file : files) {
    const bool wanted =
        videos ? IsVideoName(file)
               : Extension(file) == ".npz" || (Extension(file) == ".json" &&
                                               file.find("_keypoints.json") == std::string::npos);
    if (!wanted) continue;
    const size_t slash = file.find('/');
    if (slash == std::string::npos) {
      throw Error("a file lies outside of the folders of the classes",
                  (fs::path(folder) / file).string(),
                  "put it into the folder of its class, or use a manifest");
    }
    ManifestEntry entry;
    entry.path = file;
    entry.label = file.substr(0, slash);
    entry.where = (fs::path(folder) / file).string();
    entries.push_back(std::move(entry));
  }
  if (entries.empty()) {
    throw Error("there are no videos, .npz or .json files in the folder", folder,
                "it must hold one folder per class with videos in them");
  }
  return entries;
}

// The deepest folder that holds all files.
std::string SharedFolder(const std::vector<std::string>& files) {
  fs::path shared = fs::path(files.front()).parent_path();
  for (const std::string& file : files) {
    const fs::path folder = fs::path(file).parent_path();
    const auto differ =
        std::mismatch(shared.begin(), shared.end(), folder.begin(), folder.end()).first;
    fs::path both;
    for (auto part = shared.begin(); part != differ; ++part) both /= *part;
    shared = both;
  }
  return shared.string();
}

bool IsNumber(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

std::vector<std::string> ReadClasses(const std::string& path) {
  std::vector<std::string> names;
  std::ifstream file(path);
  if (!file) throw Error("the class names cannot be read", path, "correct --classes");
  for (std::string line; std::getline(file, line);) {
    if (names.empty()) line = WithoutByteOrderMark(line, path);
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (names.empty()) throw Error("there are no class names", path, "write one per line");
  return names;
}

// A class name becomes a line of classes.txt.
void CheckLabel(const ManifestEntry& entry) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' '; };
  const bool blank = entry.label.find_first_not_of(' ') == std::string::npos;
  if (!blank && entry.label.back() != ' ' &&
      std::none_of(entry.label.begin(), entry.label.end(), is_control)) {
    return;
  }
  throw Error("the label is blank, ends in a blank, or has control characters in it", entry.where,
              "give the class a name of one line");
}

void SetLabels(const ImportOptions& options, SourceClips* clips) {
  std::map<std::string, int64_t> numbers;
  for (const ManifestEntry& entry : clips->entries) CheckLabel(entry);
  if (!options.classes.empty()) {
    clips->classes = ReadClasses(options.classes);
  } else {
    std::set<std::string> labels;
    for (const ManifestEntry& entry : clips->entries) labels.insert(entry.label);
    clips->classes.assign(labels.begin(), labels.end());
    if (std::all_of(labels.begin(), labels.end(), IsNumber)) {
      std::stable_sort(clips->classes.begin(), clips->classes.end(),
                       [](const auto& a, const auto& b) { return std::stol(a) < std::stol(b); });
    }
  }
  for (size_t i = 0; i < clips->classes.size(); ++i) {
    numbers.emplace(clips->classes[i], static_cast<int64_t>(i));
  }
  for (const ManifestEntry& entry : clips->entries) {
    const auto found = numbers.find(entry.label);
    int64_t label = found == numbers.end() ? -1 : found->second;
    if (label < 0 && !options.classes.empty() && IsNumber(entry.label)) {
      label = std::stol(entry.label);
    }
    if (label < 0 || label >= static_cast<int64_t>(clips->classes.size())) {
      throw Error("the label \"" + entry.label + "\" is not a class", entry.where,
                  "use a name in " + options.classes + ", or its number, from 0");
    }
    clips->labels.push_back(label);
  }
}

void GroupByVideo(const std::string& folder, SourceClips* clips) {
  std::map<std::string, SourceVideo> videos;
  std::vector<std::string> paths;
  for (size_t i = 0; i < clips->entries.size(); ++i) {
    const ManifestEntry& entry = clips->entries[i];
    const std::string path = Absolute(fs::path(folder) / entry.path);
    SourceVideo& video = videos[path];
    const std::string pose = entry.pose.empty() ? "" : Absolute(fs::path(folder) / entry.pose);
    if (!video.clips.empty() && video.pose != pose) {
      throw Error("the clips of one video name different pose files", entry.where,
                  "name the same for all clips of " + entry.path);
    }
    video.path = path;
    video.pose = pose;
    video.is_video = Extension(path) != ".npz" && Extension(path) != ".json";
    video.clips.push_back(i);
    paths.push_back(path);
  }
  // Below the source's own folder where possible, so that the set can be moved with it.
  const std::string home = Absolute(folder);
  const bool inside = std::all_of(paths.begin(), paths.end(), [&](const std::string& path) {
    return path.rfind(home + "/", 0) == 0;
  });
  clips->root = inside ? home : SharedFolder(paths);
  for (auto& [path, video] : videos) {
    video.name = fs::path(path).lexically_relative(clips->root).string();
    video.stem = WithoutExtension(video.name);
    clips->videos.push_back(std::move(video));
  }
}

}  // namespace

SourceClips FindSourceClips(const ImportOptions& options) {
  SourceClips clips;
  const std::string& source = options.source;
  std::error_code error;
  std::string folder = source;
  if (fs::is_directory(source, error)) {
    clips.entries = EntriesOfFolder(source);
  } else if (Extension(source) == ".csv" || Extension(source) == ".json") {
    const std::string text = ReadFile(source, kLargestManifest);
    clips.entries = Extension(source) == ".csv" ? ParseManifestCsv(text, source)
                                                : ParseManifestJson(text, source);
    folder = fs::path(source).parent_path().string();
    if (folder.empty()) folder = ".";
  } else {
    throw Error("this is neither a folder nor a manifest", source,
                "give a folder with one folder per class, or a .csv or .json");
  }
  SetLabels(options, &clips);
  GroupByVideo(folder, &clips);
  return clips;
}

}  // namespace kinefit
