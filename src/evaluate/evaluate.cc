#include "evaluate/evaluate.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <utility>

#include "config/hierarchy.h"
#include "distributed/pack.h"
#include "files/error.h"
#include "loader/device_heatmaps.h"
#include "memory/gpu.h"

namespace kinefit {
namespace {

using NamedLogits = std::vector<std::pair<std::string, at::Tensor>>;

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

ScoreTable RowsInOrder(const ScoreTable& table, const std::vector<size_t>& order) {
  ScoreTable rows{table.classes, {}, {}};
  for (const size_t from : order) {
    const auto row = table.scores.begin() + static_cast<int64_t>(from) * table.classes;
    rows.scores.insert(rows.scores.end(), row, row + table.classes);
    rows.labels.push_back(table.labels[from]);
  }
  return rows;
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
    sorted.streams.emplace_back(name, RowsInOrder(table, order));
  }
  for (const auto& [name, table] : result->coarse) {
    sorted.coarse.emplace_back(name, RowsInOrder(table, order));
  }
  sorted.bad_clips = std::move(result->bad_clips);
  *result = std::move(sorted);
}

void AppendLogits(const NamedLogits& part, NamedLogits* all) {
  const bool first = all->empty();
  for (size_t s = 0; s < part.size(); ++s) {
    const auto& [name, logits] = part[s];
    if (first) {
      all->emplace_back(name, logits);
    } else {
      (*all)[s].second = at::cat({(*all)[s].second, logits});
    }
  }
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
    AppendLogits(part.logits, &all.logits);
    AppendLogits(part.coarse, &all.coarse);
  }
  return all;
}

namespace {

// "rgb_coarse" -> "rgb".
std::string StreamOf(const std::string& name) {
  const std::string end = "_coarse";
  const bool coarse = name.size() > end.size() &&
                      name.compare(name.size() - end.size(), std::string::npos, end) == 0;
  return coarse ? name.substr(0, name.size() - end.size()) : name;
}

at::Tensor AverageClips(const at::Tensor& logits, int64_t clips) {
  if (clips < 1 || logits.size(0) % clips != 0) {
    throw Error("logits of " + std::to_string(logits.size(0)) +
                " clips cannot be averaged in groups of " + std::to_string(clips));
  }
  return at::softmax(logits.detach().to(at::kCPU, at::kDouble), 1)
      .reshape({-1, clips, logits.size(1)})
      .mean(1);
}

// `mean`: the weighted mean of the streams instead of their weighted sum.
StreamScores Fuse(const NamedLogits& streams, bool mean, int64_t clips, const EvalConfig& eval) {
  StreamScores scores;
  at::Tensor fused;
  double total_weight = 0;
  for (const auto& [name, logits] : streams) {
    const std::string stream = StreamOf(name);
    const at::Tensor averaged = AverageClips(logits, clips);
    const double weight = StreamWeight(stream, eval);
    total_weight += weight;
    fused = fused.defined() ? fused + weight * averaged : weight * averaged;
    scores.emplace_back(stream == "fused" ? "fused_head" : stream, averaged);
  }
  if (!(total_weight > 0)) {
    throw Error("the weights of the network's streams sum to zero: nothing is left to score by",
                "eval.rgb_weight, eval.pose_weight, eval.fused_weight",
                "give a stream that the network has a weight above zero");
  }
  scores.emplace_back("fused", mean ? fused / total_weight : fused);
  return scores;
}

}  // namespace

StreamScores FuseScores(const NetworkOutput& output, int64_t clips, const EvalConfig& eval) {
  return Fuse(output.logits, !output.coarse.empty(), clips, eval);
}

StreamScores FuseCoarseScores(const NetworkOutput& output, int64_t clips, const EvalConfig& eval) {
  if (output.coarse.empty()) return {};
  return Fuse(output.coarse, true, clips, eval);
}

namespace {

void AppendScores(const StreamScores& scores, const at::Tensor& labels,
                  std::vector<std::pair<std::string, ScoreTable>>* tables) {
  if (tables->empty()) {
    for (const auto& stream : scores) tables->emplace_back(stream.first, ScoreTable{});
  }
  for (size_t s = 0; s < scores.size(); ++s) {
    AppendRows(scores[s].second, labels, &(*tables)[s].second);
  }
}

// [num_classes] the group of each class; undefined without groups.
at::Tensor GroupTensor(const ModelConfig& model) {
  if (model.groups.empty()) return {};
  return at::tensor(GroupOfClass(model), at::kLong);
}

at::Tensor GroupsOf(const at::Tensor& labels, const at::Tensor& groups) {
  return groups.index_select(0, labels.to(at::kCPU, at::kLong).reshape({-1}));
}

// What this process scores of the set: results in the order in which they came.
struct Scored {
  EvaluationResult result;
  std::vector<int64_t> index;  // of each sample, into the dataset
};

Scored ScoreShare(Network& network, const Dataset& dataset, const Config& config, int64_t clips,
                  bool flip, const std::function<void(int64_t, int64_t)>& progress, Shard shard) {
  // A batch holds about eval.batch_size clips whatever their number per sample, so that ten clips
  // need no more memory than one.
  const int64_t clips_per_sample = std::max<int64_t>(clips, 1) * (flip ? 2 : 1);
  const int64_t samples_at_once = std::max<int64_t>(config.eval.batch_size / clips_per_sample, 1);
  Loader loader(dataset, config, Phase::kTest, samples_at_once, clips, flip, shard);
  loader.Start({0, 0});
  const at::Tensor groups = GroupTensor(config.model);
  Scored scored;
  EvaluationResult& result = scored.result;
  Batch batch;
  while (loader.Next(&batch)) {
    Heartbeat::Own().Enter(RankPhase::kValidating);
    StreamScores scores;
    StreamScores coarse;
    WithMemoryErrors([&] {
      const at::Device device = network.parameters().front().tensor.device();
      const at::Tensor heatmaps = batch.joints.tensor.defined()
                                      ? HeatmapsOn(batch, config.data, device)
                                      : batch.heatmap_imgs;
      const NetworkOutput output =
          InferLogits(network, {batch.imgs, heatmaps}, std::max<int64_t>(config.eval.batch_size, 1),
                      static_cast<uint64_t>(config.seed));
      scores = FuseScores(output, batch.clips, config.eval);
      coarse = FuseCoarseScores(output, batch.clips, config.eval);
    });
    AppendScores(scores, batch.labels, &result.streams);
    if (groups.defined()) AppendScores(coarse, GroupsOf(batch.labels, groups), &result.coarse);
    result.ids.insert(result.ids.end(), batch.ids.begin(), batch.ids.end());
    scored.index.insert(scored.index.end(), batch.sample_index.begin(), batch.sample_index.end());
    if (progress) {
      const auto done = static_cast<int64_t>(scored.index.size() + loader.bad_clips().size());
      const auto total = static_cast<int64_t>(dataset.samples.size());
      progress(std::min(done * shard.world, total), total);
    }
  }
  result.bad_clips = loader.bad_clips();
  return scored;
}

template <typename T>
std::string AsBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <typename T>
std::vector<T> FromBytes(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

using Tables = std::vector<std::pair<std::string, ScoreTable>>;

std::string PackTables(const Tables& tables) {
  std::vector<std::string> parts;
  for (const auto& [name, table] : tables) {
    parts.insert(parts.end(), {name, std::to_string(table.classes), AsBytes(table.scores),
                               AsBytes(table.labels)});
  }
  return Pack(parts);
}

std::string PackScored(const Scored& scored) {
  std::vector<std::string> parts = {AsBytes(scored.index), Pack(scored.result.ids)};
  std::vector<std::string> bad;
  for (const BadClip& clip : scored.result.bad_clips) {
    bad.push_back(clip.id);
    bad.push_back(clip.reason);
  }
  parts.push_back(Pack(bad));
  parts.push_back(PackTables(scored.result.streams));
  parts.push_back(PackTables(scored.result.coarse));
  return Pack(parts);
}

template <typename T>
void Append(const std::vector<T>& more, std::vector<T>* all) {
  all->insert(all->end(), more.begin(), more.end());
}

void AddTables(const std::string& bytes, Tables* tables) {
  const std::vector<std::string> parts = Unpack(bytes);
  const bool first = tables->empty();
  for (size_t i = 0; i + 3 < parts.size(); i += 4) {
    if (first) tables->emplace_back(parts[i], ScoreTable{std::stoll(parts[i + 1]), {}, {}});
    ScoreTable& table = tables->at(i / 4).second;
    Append(FromBytes<double>(parts[i + 2]), &table.scores);
    Append(FromBytes<int64_t>(parts[i + 3]), &table.labels);
  }
}

void AddScored(const std::string& bytes, Scored* all) {
  const std::vector<std::string> parts = Unpack(bytes);
  Append(FromBytes<int64_t>(parts.at(0)), &all->index);
  Append(Unpack(parts.at(1)), &all->result.ids);
  const std::vector<std::string> bad = Unpack(parts.at(2));
  for (size_t i = 0; i + 1 < bad.size(); i += 2) {
    all->result.bad_clips.push_back({bad[i], bad[i + 1]});
  }
  AddTables(parts.at(3), &all->result.streams);
  AddTables(parts.at(4), &all->result.coarse);
}

// Runs `score`; all ranks go on together, or all throw what stopped one of them.
Scored ScoreTogether(Group& group, const std::function<Scored()>& score) {
  double troubles[2] = {0, 0};  // out of memory, asked to stop
  Scored scored;
  std::string failure;
  try {
    scored = score();
  } catch (const c10::OutOfMemoryError& error) {
    failure = error.msg().substr(0, error.msg().find('\n'));
  } catch (const std::bad_alloc&) {
    failure = "out of memory: the system gives no more";
  } catch (const StopAsked&) {
    troubles[1] = 1;
  }
  troubles[0] = failure.empty() ? 0 : 1;
  at::Tensor sum = at::from_blob(troubles, {2}, at::kDouble);
  group.Sum(sum);
  if (troubles[1] > 0) throw StopAsked();
  if (troubles[0] > 0) {
    if (failure.empty()) failure = "out of memory on another rank";
    throw c10::OutOfMemoryError(failure, /*backtrace=*/{});
  }
  return scored;
}

}  // namespace

EvaluationResult Evaluate(Network& network, const Dataset& dataset, const Config& config,
                          int64_t clips, bool flip,
                          const std::function<void(int64_t, int64_t)>& progress, Group* group) {
  const Shard shard = group == nullptr ? Shard{} : Shard{group->rank(), group->world()};
  const auto score = [&] {
    return ScoreShare(network, dataset, config, clips, flip, progress, shard);
  };
  Scored scored;
  if (shard.world == 1) {
    scored = score();
  } else {
    const std::string own = PackScored(ScoreTogether(*group, score));
    for (const std::string& part : group->Gather(own)) AddScored(part, &scored);
  }
  EvaluationResult& result = scored.result;
  if (scored.index.empty()) {
    throw Error("none of the " + std::to_string(dataset.samples.size()) +
                    " clips could be evaluated" +
                    (result.bad_clips.empty() ? "" : ": " + result.bad_clips.front().reason),
                result.bad_clips.empty() ? "" : result.bad_clips.front().id,
                "check data.videos and the split");
  }
  SortByIndex(scored.index, &result);
  if (!config.model.groups.empty() && result.coarse.empty()) {
    result.coarse_from_fine = true;
    const std::vector<int64_t> group_of = GroupOfClass(config.model);
    for (const auto& [name, table] : result.streams) {
      result.coarse.emplace_back(name, CoarseTable(table, group_of));
    }
  }
  return std::move(result);
}

}  // namespace kinefit
