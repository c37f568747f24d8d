#include "convert/parts.h"

#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "files/error.h"
#include "files/publish.h"
#include "files/zip.h"

namespace kinefit {
namespace {

// To be raised with every change of what a piece holds.
constexpr char kVersion[] = "kinefit part 2\n";
constexpr uint64_t kMostNotes = 16U << 20;

std::string MemberOf(size_t clip) { return "clip" + std::to_string(clip); }

}  // namespace

PartFolder::PartFolder(const std::string& out) : folder_(out + "/.parts") {
  MakeFolder(folder_);
  RemoveAbandonedTemporaries(out);
  RemoveAbandonedTemporaries(folder_);
}

bool PartFolder::Read(const std::string& name, const std::string& made_from,
                      ConvertedPart* part) const {
  const std::string path = PathOf(name);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return false;
  ConvertedPart read;
  try {
    const ZipReader zip(path);
    const ZipReader::Entry* source = zip.Find("made_from");
    const ZipReader::Entry* notes = zip.Find("notes.json");
    if (source == nullptr || notes == nullptr) return false;
    if (zip.Read(*source, kMostNotes) != kVersion + made_from) return false;
    const nlohmann::json lines = nlohmann::json::parse(zip.Read(*notes, kMostNotes));
    read.joints = lines.at("joints").get<int64_t>();
    for (const nlohmann::json& line : lines.at("clips")) {
      ConvertedClip clip;
      clip.left_out = line.at("left_out").get<std::string>();
      clip.changed = line.at("changed").get<std::string>();
      if (clip.left_out.empty()) {
        const ZipReader::Entry* encoded = zip.Find(MemberOf(read.clips.size()));
        if (encoded == nullptr) return false;
        clip.encoded = zip.Read(*encoded);
      }
      read.clips.push_back(std::move(clip));
    }
  } catch (const Error&) {  // damaged: to be made again
    return false;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  if (part != nullptr) *part = std::move(read);
  return true;
}

void PartFolder::Write(const std::string& name, const std::string& made_from,
                       const ConvertedPart& part) const {
  nlohmann::json lines = nlohmann::json::array();
  ZipWriter zip(PathOf(name));
  zip.Add("made_from", kVersion + made_from);
  for (size_t i = 0; i < part.clips.size(); ++i) {
    const ConvertedClip& clip = part.clips[i];
    lines.push_back({{"left_out", clip.left_out}, {"changed", clip.changed}});
    if (clip.left_out.empty()) zip.Add(MemberOf(i), clip.encoded);
  }
  const nlohmann::json notes = {{"joints", part.joints}, {"clips", lines}};
  zip.Add("notes.json", notes.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  zip.Commit();
}

std::string FileState(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return "none";
  return std::to_string(status.st_size) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
         std::to_string(status.st_mtim.tv_nsec);
}

}  // namespace kinefit
