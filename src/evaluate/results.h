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
  F1Scores f1;
};

// Per stream, "fused" last. A network of one stream has only "fused": the two would be the same.
std::vector<StreamSummary> Summarise(const EvaluationResult& result);

// The same of the groups of classes, of the same streams; top5 is not meant. Empty without groups.
std::vector<StreamSummary> SummariseCoarse(const EvaluationResult& result);

// The mean of macro and micro F1 of fine and coarse classes, by which MA-52 is ranked.
double MeanF1(const StreamSummary& fine, const StreamSummary& coarse);

// For logs: {"top1/rgb", 0.81}, {"top5/rgb", ...}, {"mean_class/rgb", ...}, {"macro_f1/rgb", ...},
// then the other streams, then {"coarse_top1/rgb", ...}, {"coarse_macro_f1/rgb", ...}, ...
std::vector<std::pair<std::string, double>> NamedMetrics(const EvaluationResult& result);

// stream, top-1, top-5, mean class, macro F1, micro F1.
TextRows SummaryRows(const EvaluationResult& result);

// The groups' figures in the same way: top-1, mean class, macro F1, micro F1, and the mean of the
// four F1. The first heading says whether they come from the fine classes. Empty without groups.
TextRows CoarseSummaryRows(const EvaluationResult& result);

// Per class: number, name, clips, top-1 (recall), precision, and the class it is most often taken
// for. "-" where there is nothing to divide by. `class_names` may be shorter than the classes.
TextRows PerClassRows(const ScoreTable& table, const std::vector<std::string>& class_names);

// Per sample: id, label, prediction, whether right, its score; names where there are any.
TextRows PerSampleRows(const EvaluationResult& result, const std::vector<std::string>& class_names);

// [C, C] counts with class names as header and first column; row = label, column = prediction.
TextRows ConfusionRows(const ScoreTable& table, const std::vector<std::string>& class_names);

// RFC 4180, UTF-8, published atomically. Throws Error.
void WriteCsv(const std::string& path, const TextRows& rows);

// As the micro-action challenge takes them: "vid", "action_pred_1" to "action_pred_5", the five best
// classes of the fused score, "body_pred_1" to "body_pred_5", the best groups (as many as there
// are). `names` [N]: what to write for the clips. Throws Error without groups.
TextRows SubmissionRows(const EvaluationResult& result, const std::vector<std::string>& names);

// For further work in Python: "labels" [N] int64, "scores_STREAM" [N, C] float64 per stream,
// "scores_fused", of coarse classifiers "scores_coarse_STREAM" [N, G] and "coarse_labels" [N], and
// "ids" [N, L] uint8, UTF-8 filled up with zeros:
//   ids = [bytes(row).rstrip(b"\0").decode() for row in numpy.load(path)["ids"]]
// Published atomically. Throws Error.
void WriteScores(const std::string& path, const EvaluationResult& result);

// The name of a class; its number where it has none.
std::string ClassName(const std::vector<std::string>& class_names, int64_t label);

}  // namespace kinefit
