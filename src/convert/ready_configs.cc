#include "convert/ready_configs.h"

#include <array>
#include <filesystem>

#include "config/toml_tree.h"
#include "files/publish.h"

namespace kinefit {
namespace {

// What differs between the networks, for sets of one's own and for NTU RGB+D.
struct Recipe {
  const char* name;  // of the file, and of its folder below work_dirs
  const char* title;
  const char* data;  // of [data]
  int batch;
  int base;  // base_batch_size of the large sets
  int epochs;
  int large_epochs;
  const char* lr;
  const char* large_lr;
};

constexpr std::array<Recipe, 3> kRecipes = {{
    {"pose", "Pose stream alone: heatmaps of 56x56.", "pose_frames = 32\n", 16, 128, 48, 18, "0.02",
     "0.2"},
    {"rgb", "RGB stream alone: frames of 224x224.", "rgb_frames = 8\n", 8, 96, 32, 18, "0.01",
     "0.15"},
    {"pcan", "Both streams, started from the best networks of pose.toml and rgb.toml.",
     "rgb_frames = 8\npose_frames = 32\n", 8, 48, 20, 20, "0.005", "0.0075"},
}};

std::string Text(const Recipe& recipe, const ReadySet& set) {
  const std::string name = recipe.name;
  std::string text = "# " + std::string(recipe.title) + "\n# Made by `" + set.made_by +
                     "`; change what you like, it is not written again then.\n# Paths count from "
                     "the folder of this file.\n\ninclude = " +
                     QuoteToml(set.include) + "\n\n[model]\ntype = \"" + name + "\"\n\n[data]\n" +
                     recipe.data;
  if (set.large && name != "pcan") text += "repeat = 10\n";
  text += "\n[train]\nbatch_size = " + std::to_string(recipe.batch) + "\n";
  if (set.large) {
    text += "base_batch_size = " + std::to_string(recipe.base) +
            "  # lr is for so many clips a step, and scaled for others\n";
  }
  text += "epochs = " + std::to_string(set.large ? recipe.large_epochs : recipe.epochs) +
          "\nwork_dir = \"work_dirs/" + name + "\"\n";
  if (name == "pcan") {
    text += "init_rgb = \"work_dirs/rgb/best.pth\"\ninit_pose = \"work_dirs/pose/best.pth\"\n";
  }
  text += "\n[train.optimizer]\nlr = " + std::string(set.large ? recipe.large_lr : recipe.lr) +
          "\n\n[[train.schedule]]\ntype = \"cosine\"\nper_iteration = true\n";
  return text;
}

// Whether the file may be written: it is not there, or is what this program once wrote.
bool MayWrite(const std::string& path, const std::string& hash_path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return true;
  if (!std::filesystem::exists(hash_path, error)) return false;
  return ReadFile(hash_path) == std::to_string(XxHash64(ReadFile(path)));
}

void WriteOne(const std::string& folder, const std::string& name, const std::string& text) {
  const std::string path = folder + "/" + name + ".toml";
  const std::string marks = folder + "/.ready";
  const std::string hash_path = marks + "/" + name + ".toml.hash";
  if (!MayWrite(path, hash_path)) return;
  MakeFolder(marks);
  PublishFile(path, text);
  PublishFile(hash_path, std::to_string(XxHash64(text)));
}

// A path as a shell takes it as one word.
std::string Word(const std::string& path) {
  if (path.find_first_of(" '\"$`\\!*?()&;<>|") == std::string::npos) return path;
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::vector<std::string> WriteReadyConfigs(const std::string& folder, const ReadySet& set) {
  std::vector<std::string> trains;
  std::string last;
  for (const Recipe& recipe : kRecipes) {
    const std::string name = recipe.name;
    if (!set.videos && name != "pose") continue;
    WriteOne(folder, name, Text(recipe, set));
    last = name;
    trains.push_back("kinefit train " + Word(folder + "/" + name + ".toml"));
  }
  const std::string config = Word(folder + "/" + last + ".toml");
  std::vector<std::string> commands = {"kinefit data check " + config};
  commands.insert(commands.end(), trains.begin(), trains.end());
  commands.push_back("kinefit test " + config + " " +
                     Word(folder + "/work_dirs/" + last + "/best.pth"));
  return commands;
}

}  // namespace kinefit
