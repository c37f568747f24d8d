#include "tests/process.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include "checkpoint/checkpoint.h"

extern char** environ;

namespace kinefit::testing {

ScratchFolder::ScratchFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "kinefit-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Process::Process(const std::vector<std::string>& command, const std::string& output_file,
                 const std::vector<std::string>& environment)
    : output_file_(output_file) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, output_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                   0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  for (const std::string& entry : environment) {
    variables.push_back(const_cast<char*>(entry.c_str()));
  }
  for (char** entry = environ; *entry != nullptr; ++entry) variables.push_back(*entry);
  variables.push_back(nullptr);
  const int error =
      posix_spawn(&pid_, command[0].c_str(), &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " + command[0]);
}

Process::~Process() {
  if (ended_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, &status_, 0);
}

bool Process::WaitFor(std::chrono::milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  while (!ended_) {
    if (waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
    if (ended_ || std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return ended_;
}

void Process::Signal(int number) {
  if (!ended_) kill(pid_, number);
}

Outcome Process::Wait() {
  if (!ended_) {
    waitpid(pid_, &status_, 0);
    ended_ = true;
  }
  const int code = WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
  return {code, ReadText(output_file_)};
}

std::string KinefitBinary() { return KINEFIT_BINARY; }

Outcome Kinefit(const std::vector<std::string>& arguments,
                const std::vector<std::string>& environment) {
  const ScratchFolder scratch;
  std::vector<std::string> command = {KinefitBinary()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Process process(command, scratch / "output", environment);
  return process.Wait();
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

const std::string& SmallSet() {
  static const ScratchFolder scratch;
  static const std::string folder = [] {
    const std::string made = scratch / "set";
    const Outcome outcome =
        Kinefit({"data", "make", made, "--actors", "3", "--takes", "1", "--seed", "5"});
    if (outcome.exit_code != 0) throw std::runtime_error("data make failed: " + outcome.output);
    return made;
  }();
  return folder;
}

namespace {

void Collect(const CheckpointValue& value, const std::string& path,
             std::vector<std::pair<std::string, at::Tensor>>* out) {
  if (const auto* tensor = std::get_if<at::Tensor>(&value.value())) {
    out->emplace_back(path, *tensor);
  }
  if (const auto* dict = std::get_if<CheckpointDict>(&value.value())) {
    for (const auto& [key, member] : *dict) Collect(member, path + "/" + key, out);
  }
}

}  // namespace

::testing::AssertionResult SameTensors(const std::string& one, const std::string& two) {
  std::vector<std::pair<std::string, at::Tensor>> a;
  std::vector<std::pair<std::string, at::Tensor>> b;
  Collect(ReadCheckpoint(one), "", &a);
  Collect(ReadCheckpoint(two), "", &b);
  if (a.size() != b.size() || a.empty()) {
    return ::testing::AssertionFailure() << a.size() << " tensors and " << b.size();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].first == b[i].first && at::equal(a[i].second, b[i].second)) continue;
    return ::testing::AssertionFailure() << a[i].first << " differs from " << b[i].first;
  }
  return ::testing::AssertionSuccess();
}

int CountOf(const std::string& part, const std::string& text) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::string SmallConfig(const std::string& type) {
  const std::string& set = SmallSet();
  std::string text = "seed = 3\n[model]\ntype = \"" + type + "\"\nnum_classes = 10\n";
  if (type == "pcan") text += "groups = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]\n";
  text += "[model.rgb]\nbase_channels = 8\nstage_blocks = [1, 1, 1, 1]\n";
  text +=
      "[model.pose]\nbase_channels = 4\nstage_blocks = [1, 1, 1]\n"
      "pool1_stride_s = 2\n";
  text += "[model.attention]\nheads = 2\nwidth = 16\n";
  text += "[data]\nannotations = \"" + set + "/annotations.pkl\"\nvideos = \"" + set +
          "/videos\"\nclasses = \"" + set + "/classes.txt\"\n";
  text += "train_split = \"train\"\nval_split = \"test\"\nrgb_frames = 4\npose_frames = 16\n";
  text += "left_joints = [1, 3, 5, 7, 9, 11, 13, 15]\n";
  text += "right_joints = [2, 4, 6, 8, 10, 12, 14, 16]\n";
  if (type == "pose") {
    text += "resize = 20\ncrop = 16\ntest_size = 16\n";
  } else {
    text += "resize = 40\ncrop = 32\ntest_size = 32\n";
  }
  text += "workers = 1\n[data.heatmap]\n";
  if (type != "pose" && type != "rgb") text += "scaling = 0.5\n";
  text += "[train]\nbatch_size = 4\nepochs = 2\nlog_every = 1\ncheckpoint_every = 2\n";
  text += "[train.optimizer]\nlr = 0.01\n[eval]\ntest_clips = 1\n";
  return text;
}

}  // namespace kinefit::testing
