#include "convert/media_files.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "files/error.h"

namespace kinefit {

namespace fs = std::filesystem;

bool IsVideoName(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* known :
       {".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv"}) {
    if (extension == known) return true;
  }
  return false;
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
