#include "evaluate/results.h"

#include <algorithm>
#include <cstdio>

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

std::vector<StreamSummary> Summarise(const EvaluationResult& result) {
  std::vector<StreamSummary> summaries;
  for (const auto& [name, table] : result.streams) {
    summaries.push_back(
        {name, TopKAccuracy(table, 1), TopKAccuracy(table, 5), MeanClassAccuracy(table)});
  }
  return summaries;
}

std::vector<std::pair<std::string, double>> NamedMetrics(const EvaluationResult& result) {
  std::vector<std::pair<std::string, double>> metrics;
  for (const StreamSummary& summary : Summarise(result)) {
    metrics.emplace_back("top1/" + summary.stream, summary.top1);
    metrics.emplace_back("top5/" + summary.stream, summary.top5);
    metrics.emplace_back("mean_class/" + summary.stream, summary.mean_class);
  }
  for (const auto& [name, table] : result.streams) {
    metrics.emplace_back("loss/" + name, MeanLogLoss(table));
  }
  return metrics;
}

TextRows SummaryRows(const EvaluationResult& result) {
  TextRows rows = {{"stream", "top-1", "top-5", "mean class"}};
  // With one stream "fused" is the same again.
  const bool single = result.streams.size() == 2;
  for (const StreamSummary& summary : Summarise(result)) {
    if (single && summary.stream == "fused") continue;
    rows.push_back({summary.stream, Percent(summary.top1), Percent(summary.top5),
                    Percent(summary.mean_class)});
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

namespace {

// "71.43 %" as a number that programs read, in percent: "71.43".
std::string Plain(const std::string& cell) {
  const size_t end = cell.size() < 2 ? std::string::npos : cell.size() - 2;
  const bool percent = end != std::string::npos && end > 0 && cell.compare(end, 2, " %") == 0 &&
                       cell.find_first_not_of("0123456789.") == end;
  return percent ? cell.substr(0, end) : cell;
}

}  // namespace

void WriteCsv(const std::string& path, const TextRows& rows) {
  std::string text;
  for (const std::vector<std::string>& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) text += (c > 0 ? "," : "") + CsvCell(Plain(row[c]));
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
  WriteNpz(path, arrays);
}

}  // namespace kinefit
