#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "files/error.h"
#include "files/publish.h"

// For tests: Python as the judge of formats that Python defines, and folders that clean up.
namespace kinefit {

// A new folder under $TMPDIR, removed with everything in it.
class TestFolder {
 public:
  TestFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "kinefit-files-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) throw Error("cannot create a folder", path);
    path_ = path;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  // Writes without publishing: quick, for tests that write hundreds of files.
  std::string Write(const std::string& name, const std::string& bytes) const {
    FILE* file = fopen(File(name).c_str(), "wb");
    if (file == nullptr || fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() ||
        fclose(file) != 0) {
      throw Error("cannot write the file", File(name));
    }
    return File(name);
  }
  // Number of files, hidden ones included.
  int Count() const {
    int count = 0;
    for (auto it = std::filesystem::directory_iterator(path_);
         it != std::filesystem::directory_iterator(); ++it) {
      ++count;
    }
    return count;
  }

 private:
  std::string path_;
};

inline bool PythonHas(const std::string& module) {
  static auto* const known = new std::map<std::string, bool>();
  const auto found = known->find(module);
  if (found != known->end()) return found->second;
  return (*known)[module] =
             std::system(("/usr/bin/python3 -c 'import " + module + "' >/dev/null 2>&1").c_str()) ==
             0;
}

// Runs a script and fails the test with its output if it fails.
inline void RunPython(const std::string& script) {
  TestFolder folder;
  PublishFile(folder.File("script.py"), script + "\n");
  const std::string command =
      "/usr/bin/python3 " + folder.File("script.py") + " >" + folder.File("log") + " 2>&1";
  const int status = std::system(command.c_str());
  EXPECT_EQ(status, 0) << ReadFile(folder.File("log")) << "\n" << script;
}

#define SKIP_WITHOUT_PYTHON(module)                                                \
  if (!kinefit::PythonHas(module)) {                                               \
    GTEST_SKIP() << "NOT CHECKED AGAINST PYTHON: /usr/bin/python3 has no " module; \
  }

}  // namespace kinefit
