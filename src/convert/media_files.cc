#include "convert/media_files.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "files/error.h"
#include "video/reader.h"

namespace kinefit {

namespace fs = std::filesystem;

bool IsVideoName(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* known : {".mp4", ".avi",  ".mkv",   ".mov", ".webm", ".mpg",  ".mpeg", ".m4v",
                            ".wmv", ".mts",  ".m2ts",  ".ts",  ".3gp",  ".3g2",  ".flv",  ".f4v",
                            ".ogv", ".vob",  ".mxf",   ".asf", ".dv",   ".mjpg", ".m2v",  ".qt",
                            ".rm",  ".divx", ".mjpeg", ".y4m", ".h264", ".hevc", ".mod",  ".tod"}) {
    if (extension == known) return true;
  }
  return false;
}

bool IsVideoFile(const std::string& folder, const std::string& name) {
  if (IsVideoName(name)) return true;
  std::string extension = fs::path(name).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* other :
       {"",          ".json", ".jsonl", ".npz",  ".npy",  ".pkl",  ".pickle", ".csv",  ".txt",
        ".md",       ".toml", ".yaml",  ".yml",  ".xml",  ".html", ".srt",    ".log",  ".zip",
        ".gz",       ".tar",  ".jpg",   ".jpeg", ".png",  ".bmp",  ".gif",    ".webp", ".tif",
        ".tiff",     ".wav",  ".mp3",   ".m4a",  ".flac", ".ogg",  ".py",     ".sh",   ".pth",
        ".skeleton", ".db",   ".ini",   ".part", ".tmp",  ".lrv",  ".thm"}) {
    if (extension == other) return false;
  }
  return OpensAsVideo((fs::path(folder) / name).string());
}

std::vector<std::string> ListFiles(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw Error("there is no such folder", folder, "correct the path");
  }
  std::vector<std::string> files;
  fs::recursive_directory_iterator at(folder, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    std::error_code status;
    if (at->is_regular_file(status))
      files.push_back(at->path().lexically_relative(folder).string());
  }
  if (error) {
    throw Error("the folder cannot be read: " + error.message(), folder,
                "correct the permissions of it and what is in it");
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace kinefit
