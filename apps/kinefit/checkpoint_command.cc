#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "checkpoint/checkpoint.h"
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

}  // namespace

void AddCheckpointCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("checkpoint", "look into checkpoints");
  command->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* show = command->add_subcommand(
      "show", "verify a .pth and list what it holds; nothing in it is executed");
  show->add_option("checkpoint", *path, "any zip .pth written by torch.save or kinefit")
      ->required();
  show->callback([=] { *exit_code = ShowCheckpoint(*path); });
}

}  // namespace kinefit
