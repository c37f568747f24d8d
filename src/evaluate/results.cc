#include "evaluate/results.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "files/error.h"
#include "files/npy.h"
#include "files/publish.h"

namespace kinefit {
namespace {

std::string Percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100 * share);
  return text;
}

std::string PercentOf(int64_t part, int64_t whole) {
  return whole > 0 ? Percent(static_cast<double>(part) / static_cast<double>(whole)) : "-";
}

std::string CsvCell(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) {
    quoted += c;
    if (c == '"') quoted += '"';
  }
  return quoted + '"';
}

// The class that `label` is most often mistaken for, with its count; "-" if never.
std::string MostConfused(const std::vector<int64_t>& matrix, int64_t classes, int64_t label,
                         const std::vector<std::string>& class_names) {
  int64_t best = -1;
  for (int64_t c = 0; c < classes; ++c) {
    const int64_t count = matrix[label * classes + c];
    if (c != label && count > 0 && (best < 0 || count > matrix[label * classes + best])) best = c;
  }
  if (best < 0) return "-";
  return ClassName(class_names, best) + " (" + std::to_string(matrix[label * classes + best]) + ")";
}

NdArray IdArray(const std::vector<std::string>& ids) {
  size_t longest = 1;
  for (const std::string& id : ids) longest = std::max(longest, id.size());
  std::vector<uint8_t> bytes(ids.size() * longest, 0);
  for (size_t i = 0; i < ids.size(); ++i) {
    std::copy(ids[i].begin(), ids[i].end(), bytes.begin() + static_cast<int64_t>(i * longest));
  }
  return NdArray::FromBytes({static_cast<int64_t>(ids.size()), static_cast<int64_t>(longest)},
                            bytes);
}

}  // namespace

std::string ClassName(const std::vector<std::string>& class_names, int64_t label) {
  return label >= 0 && label < static_cast<int64_t>(class_names.size()) ? class_names[label]
                                                                        : std::to_string(label);
}

namespace {

std::vector<StreamSummary> SummariseTables(
    const std::vector<std::pair<std::string, ScoreTable>>& tables) {
  std::vector<StreamSummary> summaries;
  for (const auto& [name, table] : tables) {
    summaries.push_back({name, TopKAccuracy(table, 1), TopKAccuracy(table, 5),
                         MeanClassAccuracy(table), ComputeF1(table)});
  }
  return summaries;
}

// The classes with the k best scores, best first; among equals the lowest number, as Predictions.
std::vector<int64_t> BestClasses(const ScoreTable& table, int64_t row, int64_t k) {
  const double* scores = table.scores.data() + row * table.classes;
  std::vector<int64_t> order(static_cast<size_t>(table.classes));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(std::min(k, table.classes)));
  return order;
}

}  // namespace

std::vector<StreamSummary> Summarise(const EvaluationResult& result) {
  return SummariseTables(result.streams);
}

std::vector<StreamSummary> SummariseCoarse(const EvaluationResult& result) {
  return SummariseTables(result.coarse);
}

double MeanF1(const StreamSummary& fine, const StreamSummary& coarse) {
  return (fine.f1.macro + fine.f1.micro + coarse.f1.macro + coarse.f1.micro) / 4;
}

std::vector<std::pair<std::string, double>> NamedMetrics(const EvaluationResult& result) {
  std::vector<std::pair<std::string, double>> metrics;
  for (const StreamSummary& summary : Summarise(result)) {
    metrics.emplace_back("top1/" + summary.stream, summary.top1);
    metrics.emplace_back("top5/" + summary.stream, summary.top5);
    metrics.emplace_back("mean_class/" + summary.stream, summary.mean_class);
    metrics.emplace_back("macro_f1/" + summary.stream, summary.f1.macro);
  }
  for (const StreamSummary& summary : SummariseCoarse(result)) {
    metrics.emplace_back("coarse_top1/" + summary.stream, summary.top1);
    metrics.emplace_back("coarse_macro_f1/" + summary.stream, summary.f1.macro);
  }
  return metrics;
}

TextRows SummaryRows(const EvaluationResult& result) {
  TextRows rows = {{"stream", "top-1", "top-5", "mean class", "macro F1", "micro F1"}};
  // With one stream "fused" is the same again.
  const bool single = result.streams.size() == 2;
  for (const StreamSummary& summary : Summarise(result)) {
    if (single && summary.stream == "fused") continue;
    rows.push_back({summary.stream, Percent(summary.top1), Percent(summary.top5),
                    Percent(summary.mean_class), Percent(summary.f1.macro),
                    Percent(summary.f1.micro)});
  }
  return rows;
}

TextRows CoarseSummaryRows(const EvaluationResult& result) {
  if (result.coarse.empty()) return {};
  TextRows rows = {{result.coarse_from_fine ? "groups (of the fine classes)" : "groups", "top-1",
                    "mean class", "macro F1", "micro F1", "mean of all F1"}};
  const std::vector<StreamSummary> fine = Summarise(result);
  const std::vector<StreamSummary> coarse = SummariseCoarse(result);
  const bool single = coarse.size() == 2;
  for (size_t i = 0; i < coarse.size(); ++i) {
    if (single && coarse[i].stream == "fused") continue;
    rows.push_back({coarse[i].stream, Percent(coarse[i].top1), Percent(coarse[i].mean_class),
                    Percent(coarse[i].f1.macro), Percent(coarse[i].f1.micro),
                    Percent(MeanF1(fine.at(i), coarse[i]))});
  }
  return rows;
}

TextRows SubmissionRows(const EvaluationResult& result, const std::vector<std::string>& names) {
  if (result.coarse.empty()) {
    throw Error("a submission names each clip's group, but there are no groups of classes",
                "data.hierarchy", "name the hierarchy, such as \"ma52\"");
  }
  constexpr int64_t kPlaces = 5;
  const ScoreTable& fine = result.fused();
  const ScoreTable& coarse = result.coarse.back().second;
  TextRows rows = {{"vid"}};
  for (int64_t i = 1; i <= std::min(kPlaces, fine.classes); ++i) {
    rows[0].push_back("action_pred_" + std::to_string(i));
  }
  for (int64_t i = 1; i <= std::min(kPlaces, coarse.classes); ++i) {
    rows[0].push_back("body_pred_" + std::to_string(i));
  }
  for (int64_t i = 0; i < fine.size(); ++i) {
    rows.push_back({names.at(static_cast<size_t>(i))});
    for (const ScoreTable* table : {&fine, &coarse}) {
      for (const int64_t best : BestClasses(*table, i, kPlaces)) {
        rows.back().push_back(std::to_string(best));
      }
    }
  }
  return rows;
}

TextRows PerClassRows(const ScoreTable& table, const std::vector<std::string>& class_names) {
  const std::vector<int64_t> matrix = ConfusionMatrix(table);
  TextRows rows = {{"no.", "class", "clips", "top-1", "precision", "most often taken for"}};
  for (int64_t c = 0; c < table.classes; ++c) {
    int64_t clips = 0;
    int64_t predicted = 0;
    for (int64_t other = 0; other < table.classes; ++other) {
      clips += matrix[c * table.classes + other];
      predicted += matrix[other * table.classes + c];
    }
    const int64_t hits = matrix[c * table.classes + c];
    rows.push_back({std::to_string(c), ClassName(class_names, c), std::to_string(clips),
                    PercentOf(hits, clips), PercentOf(hits, predicted),
                    MostConfused(matrix, table.classes, c, class_names)});
  }
  return rows;
}

TextRows PerSampleRows(const EvaluationResult& result,
                       const std::vector<std::string>& class_names) {
  const ScoreTable& table = result.fused();
  const std::vector<int64_t> predictions = Predictions(table);
  TextRows rows = {{"id", "label", "prediction", "right", "score"}};
  for (size_t i = 0; i < predictions.size(); ++i) {
    char score[32];
    std::snprintf(score, sizeof score, "%.6f",
                  table.scores[i * static_cast<size_t>(table.classes) + predictions[i]]);
    rows.push_back({result.ids[i], ClassName(class_names, table.labels[i]),
                    ClassName(class_names, predictions[i]),
                    predictions[i] == table.labels[i] ? "1" : "0", score});
  }
  return rows;
}

TextRows ConfusionRows(const ScoreTable& table, const std::vector<std::string>& class_names) {
  const std::vector<int64_t> matrix = ConfusionMatrix(table);
  TextRows rows(1, {"label \\ prediction"});
  for (int64_t c = 0; c < table.classes; ++c) rows[0].push_back(ClassName(class_names, c));
  for (int64_t r = 0; r < table.classes; ++r) {
    rows.push_back({ClassName(class_names, r)});
    for (int64_t c = 0; c < table.classes; ++c) {
      rows.back().push_back(std::to_string(matrix[r * table.classes + c]));
    }
  }
  return rows;
}

void WriteCsv(const std::string& path, const TextRows& rows) {
  std::string text;
  for (const std::vector<std::string>& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) text += (c > 0 ? "," : "") + CsvCell(row[c]);
    text += "\r\n";
  }
  PublishFile(path, text);
}

void WriteScores(const std::string& path, const EvaluationResult& result) {
  NpzArrays arrays;
  arrays["ids"] = IdArray(result.ids);
  arrays["labels"] = NdArray::FromInts({result.fused().size()}, result.fused().labels);
  for (const auto& [name, table] : result.streams) {
    arrays["scores_" + name] = NdArray::FromDoubles({table.size(), table.classes}, table.scores);
  }
  if (!result.coarse.empty() && !result.coarse_from_fine) {
    const ScoreTable& fused = result.coarse.back().second;
    arrays["coarse_labels"] = NdArray::FromInts({fused.size()}, fused.labels);
    for (const auto& [name, table] : result.coarse) {
      arrays["scores_coarse_" + name] =
          NdArray::FromDoubles({table.size(), table.classes}, table.scores);
    }
  }
  WriteNpz(path, arrays);
}

}  // namespace kinefit
