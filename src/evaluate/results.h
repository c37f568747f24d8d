#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/evaluate.h"

namespace kinefit {

// A table as text: the first row is the header. For WriteCsv here and FormatTable in report/.
using TextRows = std::vector<std::vector<std::string>>;

// One line of the summary; all in [0, 1].
struct StreamSummary {
  std::string stream;
  double top1 = 0;
  double top5 = 0;
  double mean_class = 0;
};

// Per stream, "fused" last. A network of one stream has only "fused": the two would be the same.
std::vector<StreamSummary> Summarise(const EvaluationResult& result);

// The same for logs: {"top1/rgb", 0.81}, {"top5/rgb", ...}, {"mean_class/rgb", ...}, ...
std::vector<std::pair<std::string, double>> NamedMetrics(const EvaluationResult& result);

// stream, top-1, top-5, mean class.
TextRows SummaryRows(const EvaluationResult& result);

// Per class: number, name, clips, top-1 (recall), precision, and the class it is most often taken
// for. "-" where there is nothing to divide by. `class_names` may be shorter than the classes.
TextRows PerClassRows(const ScoreTable& table, const std::vector<std::string>& class_names);

// Per sample: id, label, prediction, whether right, its score; names where there are any.
TextRows PerSampleRows(const EvaluationResult& result, const std::vector<std::string>& class_names);

// [C, C] counts with class names as header and first column; row = label, column = prediction.
TextRows ConfusionRows(const ScoreTable& table, const std::vector<std::string>& class_names);

// RFC 4180, UTF-8, published atomically. Throws Error.
void WriteCsv(const std::string& path, const TextRows& rows);

// For further work in Python: "labels" [N] int64, "scores_STREAM" [N, C] float64 per stream,
// "scores_fused", and "ids" [N, L] uint8, UTF-8 filled up with zeros:
//   ids = [bytes(row).rstrip(b"\0").decode() for row in numpy.load(path)["ids"]]
// Published atomically. Throws Error.
void WriteScores(const std::string& path, const EvaluationResult& result);

// The name of a class; its number where it has none.
std::string ClassName(const std::vector<std::string>& class_names, int64_t label);

}  // namespace kinefit
