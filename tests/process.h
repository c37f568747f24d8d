#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace kinefit::testing {

// A folder under the system's temporary folder, removed with everything in it at the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct Outcome {
  int exit_code = 0;   // 128 + signal if a signal ended it
  std::string output;  // standard output and error together
};

// A real process. Its output goes to a file, so nothing blocks on a pipe.
class Process {
 public:
  Process(const std::vector<std::string>& command, const std::string& output_file,
          const std::vector<std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // True once it has ended, waiting at most `time`.
  bool WaitFor(std::chrono::milliseconds time);
  void Signal(int number);
  Outcome Wait();

 private:
  int pid_ = -1;
  bool ended_ = false;
  int status_ = 0;
  std::string output_file_;
};

// Runs the built `kinefit` with these arguments to its end.
Outcome Kinefit(const std::vector<std::string>& arguments,
                const std::vector<std::string>& environment = {});

std::string KinefitBinary();
std::string ReadText(const std::string& path);
void WriteText(const std::string& path, const std::string& text);

// Whether two checkpoints hold the same tensors, bit for bit: weights, statistics, and if there,
// optimizer and averages. Says which differs.
::testing::AssertionResult SameTensors(const std::string& one, const std::string& two);

// How often `part` occurs in `text`.
int CountOf(const std::string& part, const std::string& text);

// A small built-in set (pose and video), made once per test program. Returns its folder.
const std::string& SmallSet();

// A configuration of a network small enough to train in seconds on SmallSet(), as TOML text.
// `type`: "pose", "rgb", "rgbpose" or "rgbpose_attention".
std::string SmallConfig(const std::string& type);

}  // namespace kinefit::testing
