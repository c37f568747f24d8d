#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/summary.h"
#include "files/error.h"
#include "report/format.h"
#include "report/table.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

struct Run {
  std::string name;
  std::string folder;
  Summary summary;
};

std::string Cell(const std::vector<StreamSummary>& streams, const std::string& stream) {
  for (const StreamSummary& entry : streams) {
    if (entry.stream == stream) return FormatPercent(entry.top1);
  }
  return "-";
}

// "rgb 1, pose 0.5".
std::string WeightsText(const TestedWith& with) {
  std::string text;
  for (const auto& [stream, weight] : with.weights) {
    std::string number = std::to_string(weight);
    number.erase(number.find_last_not_of('0') + 1);
    if (number.back() == '.') number.pop_back();
    text += (text.empty() ? "" : ", ") + stream + " " + number;
  }
  return text.empty() ? "-" : text;
}

std::vector<std::vector<std::string>> ResultRows(const std::vector<Run>& runs) {
  const bool groups = std::any_of(runs.begin(), runs.end(),
                                  [](const Run& run) { return !run.summary.coarse.empty(); });
  std::vector<std::vector<std::string>> rows = {
      {"run", "samples", "fused top-1", "top-5", "mean class", "rgb top-1", "pose top-1"}};
  if (groups) rows[0].insert(rows[0].end(), {"groups top-1", "mean of all F1"});
  for (const Run& run : runs) {
    const Summary& summary = run.summary;
    const StreamSummary& fused = summary.streams.back();
    rows.push_back({run.name, std::to_string(summary.samples), FormatPercent(fused.top1),
                    FormatPercent(fused.top5), FormatPercent(fused.mean_class),
                    Cell(summary.streams, "rgb"), Cell(summary.streams, "pose")});
    if (!groups) continue;
    const bool has = !summary.coarse.empty();
    const double mean_f1 = has ? MeanF1(fused, summary.coarse.back()) : 0;
    rows.back().push_back(has ? FormatPercent(summary.coarse.back().top1) : "-");
    rows.back().push_back(has ? FormatPercent(mean_f1) : "-");
  }
  return rows;
}

// What each run is a result of; empty where no summary says.
std::vector<std::vector<std::string>> OriginRows(const std::vector<Run>& runs) {
  std::vector<std::vector<std::string>> rows = {
      {"run", "checkpoint", "config", "split", "clips", "flip", "weights", "version"}};
  bool known = false;
  for (const Run& run : runs) {
    const TestedWith& with = run.summary.with;
    known |= with.clips > 0;
    if (with.clips == 0) {
      rows.push_back({run.name, "-", "-", "-", "-", "-", "-", "-"});
      continue;
    }
    std::string split = with.split.empty() ? with.annotations : with.split;
    if (with.label_offset != 0) split += " (labels " + std::to_string(with.label_offset) + ")";
    rows.push_back({run.name, with.checkpoint, with.config, split, std::to_string(with.clips),
                    with.flip ? "yes" : "no", WeightsText(with), with.version});
  }
  if (!known) rows.clear();
  return rows;
}

// "NAME=FOLDER", a folder, or one of the files in it, as "results/*" names them.
void AddRun(const std::string& entry, std::vector<Run>* runs) {
  const size_t equals = entry.find('=');
  const bool named = equals != std::string::npos;
  const std::string path = named ? entry.substr(equals + 1) : entry;
  std::string name = named ? entry.substr(0, equals) : path;
  std::string folder = path;
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    folder = fs::path(path).parent_path().string();
    if (folder.empty()) folder = ".";
    if (!named) name = folder;
    const auto same = [&](const Run& run) { return run.name == name && run.folder == folder; };
    if (std::any_of(runs->begin(), runs->end(), same)) return;
  }
  Run run{name, folder, ReadSummary(folder + "/summary.json")};
  if (run.summary.streams.empty()) {
    throw Error("the summary holds no stream", folder, "run `kinefit test ... --out DIR` again");
  }
  runs->push_back(std::move(run));
}

int RunCompare(const std::vector<std::string>& entries) {
  std::vector<Run> runs;
  for (const std::string& entry : entries) AddRun(entry, &runs);
  std::cout << FormatTable(ResultRows(runs));
  const auto origins = OriginRows(runs);
  if (!origins.empty()) std::cout << "\n" << FormatTable(origins);
  return kExitOk;
}

}  // namespace

void AddCompareCommand(CLI::App& app, int* exit_code) {
  auto entries = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand(
      "compare", "print one table of the results of several `kinefit test` runs");
  command
      ->add_option("runs", *entries,
                   "folders written by `kinefit test --out` (or files in them), or NAME=FOLDER")
      ->required();
  command->callback([=] { *exit_code = RunCompare(*entries); });
}

}  // namespace kinefit
