#include "evaluate/evaluate.h"

#include <algorithm>
#include <numeric>

#include "files/error.h"

namespace kinefit {
namespace {

// Inference mode for a network; its training flag comes back however the scope is left.
class InferenceScope {
 public:
  explicit InferenceScope(Network& network) : network_(network), training_(network.training()) {
    network_.Train(false);
  }
  ~InferenceScope() { network_.Train(training_); }
  InferenceScope(const InferenceScope&) = delete;
  InferenceScope& operator=(const InferenceScope&) = delete;

 private:
  Network& network_;
  const bool training_;
  at::NoGradGuard no_grad_;
};

double StreamWeight(const std::string& stream, const EvalConfig& eval) {
  if (stream == "rgb") return eval.rgb_weight;
  if (stream == "pose") return eval.pose_weight;
  return eval.fused_weight;
}

at::Tensor RowsTo(const at::Tensor& tensor, int64_t start, int64_t end, at::Device device) {
  if (!tensor.defined()) return {};
  return tensor.slice(0, start, end).to(device);
}

int64_t RowCount(const NetworkInput& input) {
  const at::Tensor& first = input.imgs.defined() ? input.imgs : input.heatmap_imgs;
  return first.defined() ? first.size(0) : 0;
}

void AppendRows(const at::Tensor& rows, const at::Tensor& labels, ScoreTable* table) {
  const at::Tensor scores = rows.contiguous();
  const at::Tensor targets = labels.to(at::kCPU, at::kLong).contiguous();
  table->classes = scores.size(1);
  table->scores.insert(table->scores.end(), scores.data_ptr<double>(),
                       scores.data_ptr<double>() + scores.numel());
  table->labels.insert(table->labels.end(), targets.data_ptr<int64_t>(),
                       targets.data_ptr<int64_t>() + targets.numel());
}

// Puts everything into the order of `index`, the samples' places in the dataset.
void SortByIndex(const std::vector<int64_t>& index, EvaluationResult* result) {
  if (std::is_sorted(index.begin(), index.end())) return;
  std::vector<size_t> order(index.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return index[a] < index[b]; });
  EvaluationResult sorted;
  for (const size_t from : order) sorted.ids.push_back(result->ids[from]);
  for (const auto& [name, table] : result->streams) {
    ScoreTable rows{table.classes, {}, {}};
    for (const size_t from : order) {
      const auto row = table.scores.begin() + static_cast<int64_t>(from) * table.classes;
      rows.scores.insert(rows.scores.end(), row, row + table.classes);
      rows.labels.push_back(table.labels[from]);
    }
    sorted.streams.emplace_back(name, std::move(rows));
  }
  sorted.bad_clips = std::move(result->bad_clips);
  *result = std::move(sorted);
}

}  // namespace

NetworkOutput InferLogits(Network& network, const NetworkInput& input, int64_t rows_at_once,
                          uint64_t seed) {
  const InferenceScope scope(network);
  const at::Device device = network.parameters().front().tensor.device();
  const int64_t rows = RowCount(input);
  NetworkOutput all;
  for (int64_t start = 0; start < rows; start += rows_at_once) {
    const int64_t end = std::min(start + rows_at_once, rows);
    RandomStream random(seed, "inference");
    const NetworkOutput part = network.Forward(
        {RowsTo(input.imgs, start, end, device), RowsTo(input.heatmap_imgs, start, end, device)},
        random);
    for (size_t s = 0; s < part.logits.size(); ++s) {
      const auto& [name, logits] = part.logits[s];
      if (start == 0) {
        all.logits.emplace_back(name, logits);
      } else {
        all.logits[s].second = at::cat({all.logits[s].second, logits});
      }
    }
  }
  return all;
}

std::vector<std::pair<std::string, at::Tensor>> FuseScores(const NetworkOutput& output,
                                                           int64_t clips, const EvalConfig& eval) {
  std::vector<std::pair<std::string, at::Tensor>> scores;
  at::Tensor fused;
  double total_weight = 0;
  for (const auto& [name, logits] : output.logits) {
    if (clips < 1 || logits.size(0) % clips != 0) {
      throw Error("logits of " + std::to_string(logits.size(0)) +
                  " clips cannot be averaged in groups of " + std::to_string(clips));
    }
    const at::Tensor stream = at::softmax(logits.detach().to(at::kCPU, at::kDouble), 1)
                                  .reshape({-1, clips, logits.size(1)})
                                  .mean(1);
    const double weight = StreamWeight(name, eval);
    total_weight += weight;
    fused = fused.defined() ? fused + weight * stream : weight * stream;
    scores.emplace_back(name == "fused" ? "fused_head" : name, stream);
  }
  if (!(total_weight > 0)) {
    throw Error("the weights of the network's streams sum to zero: nothing is left to score by",
                "eval.rgb_weight, eval.pose_weight, eval.fused_weight",
                "give a stream that the network has a weight above zero");
  }
  scores.emplace_back("fused", fused);
  return scores;
}

EvaluationResult Evaluate(Network& network, const Dataset& dataset, const Config& config,
                          int64_t clips, bool flip,
                          const std::function<void(int64_t, int64_t)>& progress) {
  // A batch holds about eval.batch_size clips whatever their number per sample, so that ten clips
  // need no more memory than one.
  const int64_t clips_per_sample = std::max<int64_t>(clips, 1) * (flip ? 2 : 1);
  const int64_t samples_at_once = std::max<int64_t>(config.eval.batch_size / clips_per_sample, 1);
  Loader loader(dataset, config, Phase::kTest, samples_at_once, clips, flip);
  loader.Start({0, 0});
  EvaluationResult result;
  std::vector<int64_t> index;
  Batch batch;
  while (loader.Next(&batch)) {
    const NetworkOutput output = InferLogits(network, {batch.imgs, batch.heatmap_imgs},
                                             std::max<int64_t>(config.eval.batch_size, 1),
                                             static_cast<uint64_t>(config.seed));
    const auto scores = FuseScores(output, batch.clips, config.eval);
    if (result.streams.empty()) {
      for (const auto& [name, rows] : scores) result.streams.emplace_back(name, ScoreTable{});
    }
    for (size_t s = 0; s < scores.size(); ++s) {
      AppendRows(scores[s].second, batch.labels, &result.streams[s].second);
    }
    result.ids.insert(result.ids.end(), batch.ids.begin(), batch.ids.end());
    index.insert(index.end(), batch.sample_index.begin(), batch.sample_index.end());
    if (progress) {
      progress(static_cast<int64_t>(index.size() + loader.bad_clips().size()),
               static_cast<int64_t>(dataset.samples.size()));
    }
  }
  result.bad_clips = loader.bad_clips();
  if (index.empty()) {
    throw Error("none of the " + std::to_string(dataset.samples.size()) +
                    " clips could be evaluated" +
                    (result.bad_clips.empty() ? "" : ": " + result.bad_clips.front().reason),
                result.bad_clips.empty() ? "" : result.bad_clips.front().id,
                "check data.videos and the split");
  }
  SortByIndex(index, &result);
  return result;
}

}  // namespace kinefit
