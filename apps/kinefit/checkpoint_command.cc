#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/kinefit/commands.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "files/error.h"
#include "report/table.h"

namespace kinefit {
namespace {

std::string ShapeText(const at::Tensor& tensor) {
  std::string text = "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(tensor.size(i));
  }
  return text + "]";
}

int ShowCheckpoint(const std::string& path) {
  const CheckpointDict root = ReadCheckpoint(path);
  std::vector<std::vector<std::string>> rows = {{"entry", "value"}};
  for (const auto& [key, value] : root) {
    std::string text = "(structure)";
    if (std::holds_alternative<std::string>(value.value())) {
      text = std::get<std::string>(value.value());
      const size_t line_end = text.find('\n');
      if (line_end != std::string::npos) text = text.substr(0, line_end) + " ...";
    } else if (std::holds_alternative<int64_t>(value.value())) {
      text = std::to_string(std::get<int64_t>(value.value()));
    } else if (std::holds_alternative<double>(value.value())) {
      text = std::to_string(std::get<double>(value.value()));
    } else if (std::holds_alternative<CheckpointDict>(value.value())) {
      text = std::to_string(std::get<CheckpointDict>(value.value()).size()) + " entries";
    } else if (value.is_none()) {
      text = "none, or an object that is not read";
    }
    rows.push_back({key, text});
  }
  std::cout << FormatTable(rows) << "\n";
  rows = {{"weight", "shape"}};
  int64_t total = 0;
  for (const auto& [name, tensor] : StateDictOf(root, path)) {
    rows.push_back({name, ShapeText(tensor)});
    total += tensor.numel();
  }
  std::cout << FormatTable(rows) << rows.size() - 1 << " tensors, " << total << " numbers\n";
  return kExitOk;
}

struct ConvertArguments {
  std::string input;
  std::string output;
  bool force = false;
};

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

int ConvertCheckpoint(const ConvertArguments& arguments) {
  const std::string& output = arguments.output;
  const bool safetensors = EndsWith(output, ".safetensors");
  if (!safetensors && !EndsWith(output, ".pth")) {
    throw Error("the format to write is not known", output,
                "end the name with .safetensors or .pth");
  }
  std::error_code error;
  if (std::filesystem::equivalent(arguments.input, output, error)) {
    throw Error("a checkpoint cannot be written onto itself", output, "choose another name");
  }
  if (!arguments.force && std::filesystem::exists(output, error)) {
    throw Error("the file exists", output, "give --force to replace it");
  }
  const CheckpointDict root = ReadCheckpoint(arguments.input);
  const NamedTensorList weights = StateDictOf(root, arguments.input, /*ema=*/true);
  std::vector<std::pair<std::string, std::string>> texts;
  CheckpointDict again = {{"state_dict", CheckpointDict(weights.begin(), weights.end())}};
  for (const auto& [key, value] : root) {
    if (key == "config" && std::holds_alternative<std::string>(value.value())) {
      texts.emplace_back(key, value.AsString(key));
    } else if (key == "class_names" && std::holds_alternative<CheckpointList>(value.value())) {
      nlohmann::json names = nlohmann::json::array();
      for (const CheckpointValue& name : value.AsList(key)) names.push_back(name.AsString(key));
      texts.emplace_back(key, names.dump());
    } else {
      continue;
    }
    again.emplace_back(key, value);
  }
  if (safetensors) {
    WriteSafetensors(output, weights, texts);
  } else {
    WriteCheckpoint(output, again);
  }
  std::cout << "wrote " << weights.size() << " tensors to " << output << "\n";
  return kExitOk;
}

}  // namespace

void AddCheckpointCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("checkpoint", "look into checkpoints");
  command->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* show = command->add_subcommand(
      "show", "verify a checkpoint and list what it holds; nothing in it is executed");
  show->add_option("checkpoint", *path, "a .pth written by torch.save or kinefit, or .safetensors")
      ->required();
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* convert = command->add_subcommand(
      "convert", "write a checkpoint's weights, the averaged ones where it has them, anew");
  convert->add_option("input", arguments->input, ".pth or .safetensors")->required();
  convert->add_option("output", arguments->output, "NAME.safetensors or NAME.pth")->required();
  convert->add_flag("--force", arguments->force, "replace a file that exists");
  convert->callback([=] { *exit_code = ConvertCheckpoint(*arguments); });
  show->callback([=] { *exit_code = ShowCheckpoint(*path); });
}

}  // namespace kinefit
