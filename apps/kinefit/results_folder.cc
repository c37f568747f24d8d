#include "apps/kinefit/results_folder.h"

#include <filesystem>

#include "apps/kinefit/run_setup.h"
#include "evaluate/confusion_plot.h"
#include "evaluate/results.h"
#include "files/error.h"
#include "report/format.h"

namespace kinefit {
namespace {

constexpr char kSummary[] = "summary.json";

bool HoldsResults(const std::string& folder) {
  try {
    ReadSummary(folder + "/" + kSummary);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

void PrepareResultsFolder(const std::string& folder, bool force) {
  std::error_code error;
  const bool used = std::filesystem::is_directory(folder, error) &&
                    !std::filesystem::is_empty(folder, error);
  if (used && !force && !HoldsResults(folder)) {
    throw Error("the folder holds other files than results of `kinefit test`", folder,
                "choose another with --out, or add --force to write beside and over them");
  }
  PrepareWorkDir(folder, "--out");
}

std::vector<std::string> WriteResults(const std::string& folder, const EvaluationResult& result,
                                      const Summary& summary,
                                      const std::vector<std::string>& class_names,
                                      const std::vector<std::string>& group_names) {
  std::vector<std::string> names;
  const auto path = [&](const std::string& name) {
    names.push_back(name);
    return folder + "/" + name;
  };
  const auto title = [](const ScoreTable& table) {
    return "fused top-1 " + FormatPercent(TopKAccuracy(table, 1));
  };
  // First: it is what says that the folder is of a test.
  WriteSummary(path(kSummary), summary);
  const ScoreTable& fused = result.fused();
  WriteCsv(path("per_class.csv"), PerClassRows(fused, class_names));
  WriteCsv(path("per_sample.csv"), PerSampleRows(result, class_names));
  WriteCsv(path("confusion.csv"), ConfusionRows(fused, class_names));
  WriteConfusionPng(path("confusion.png"), ConfusionMatrix(fused), class_names, title(fused));
  if (!result.coarse.empty()) {
    const ScoreTable& coarse = result.coarse.back().second;
    WriteCsv(path("confusion_groups.csv"), ConfusionRows(coarse, group_names));
    WriteConfusionPng(path("confusion_groups.png"), ConfusionMatrix(coarse), group_names,
                      "groups, " + title(coarse));
  }
  WriteScores(path("scores.npz"), result);
  return names;
}

}  // namespace kinefit
