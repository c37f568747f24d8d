#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/summary.h"
#include "files/error.h"
#include "report/format.h"
#include "report/table.h"

namespace kinefit {
namespace {

std::string Cell(const Summary& summary, const std::string& stream) {
  for (const StreamSummary& entry : summary.streams) {
    if (entry.stream == stream) return FormatPercent(entry.top1);
  }
  return "-";
}

int RunCompare(const std::vector<std::string>& entries) {
  std::vector<std::vector<std::string>> rows = {
      {"run", "samples", "fused top-1", "top-5", "mean class", "rgb top-1", "pose top-1"}};
  for (const std::string& entry : entries) {
    const size_t equals = entry.find('=');
    const std::string folder = equals == std::string::npos ? entry : entry.substr(equals + 1);
    const std::string name = equals == std::string::npos ? entry : entry.substr(0, equals);
    const Summary summary = ReadSummary(folder + "/summary.json");
    if (summary.streams.empty()) {
      throw Error("the summary holds no stream", folder, "run `kinefit test ... --out DIR` again");
    }
    const StreamSummary& fused = summary.streams.back();
    rows.push_back({name, std::to_string(summary.samples), FormatPercent(fused.top1),
                    FormatPercent(fused.top5), FormatPercent(fused.mean_class),
                    Cell(summary, "rgb"), Cell(summary, "pose")});
  }
  std::cout << FormatTable(rows);
  return kExitOk;
}

}  // namespace

void AddCompareCommand(CLI::App& app, int* exit_code) {
  auto entries = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand(
      "compare", "print one table of the results of several `kinefit test` runs");
  command->add_option("runs", *entries, "folders written by `kinefit test --out`, or NAME=FOLDER")
      ->required();
  command->callback([=] { *exit_code = RunCompare(*entries); });
}

}  // namespace kinefit
