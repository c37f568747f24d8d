#include <cstdio>
#include <iostream>
#include <map>
#include <memory>

#include "apps/kinefit/commands.h"
#include "checkpoint/checkpoint.h"
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

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The weights alone, with what predicting needs: configuration and class names.
int ConvertCheckpoint(const std::string& path, const std::string& out) {
  const bool safetensors = EndsWith(out, ".safetensors");
  if (!safetensors && !EndsWith(out, ".pth")) {
    throw Error("the kind of file to write is not known", out,
                "end its name with .safetensors or .pth");
  }
  const CheckpointDict root = ReadCheckpoint(path);
  const auto weights = StateDictOf(root, path, /*ema=*/true);
  CheckpointDict converted;
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  for (const auto& [key, value] : root) {
    if (key == "config" && std::holds_alternative<std::string>(value.value())) {
      metadata[key] = value.AsString(key);
    } else if (key == "class_names" && std::holds_alternative<CheckpointList>(value.value())) {
      for (const CheckpointValue& name : value.AsList(key)) {
        metadata[key] += name.AsString(key) + "\n";
      }
    } else {
      continue;
    }
    converted.emplace_back(key, value);
  }
  if (safetensors) {
    WriteSafetensors(out, weights, metadata);
  } else {
    CheckpointDict tensors;
    for (const auto& [name, tensor] : weights) tensors.emplace_back(name, tensor);
    converted.emplace_back("state_dict", std::move(tensors));
    WriteCheckpoint(out, converted);
  }
  std::cout << "wrote " << weights.size() << " tensors to " << out << "\n";
  return kExitOk;
}

}  // namespace

void AddCheckpointCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("checkpoint", "look into checkpoints");
  command->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* show = command->add_subcommand(
      "show", "verify a .pth and list what it holds; nothing in it is executed");
  show->add_option("checkpoint", *path,
                   "any .pth written by torch.save or kinefit, or .safetensors")
      ->required();
  show->callback([=] { *exit_code = ShowCheckpoint(*path); });
  auto from = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>();
  CLI::App* convert = command->add_subcommand(
      "convert", "write the weights, averaged ones where there are, as .safetensors or .pth");
  convert->add_option("checkpoint", *from, "any .pth or .safetensors")->required();
  convert->add_option("-o,--out", *out, "file to write: NAME.safetensors or NAME.pth")->required();
  convert->callback([=] { *exit_code = ConvertCheckpoint(*from, *out); });
}

}  // namespace kinefit
