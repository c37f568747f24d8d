#include "train/nan_guard.h"

#include <algorithm>
#include <cmath>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

std::string SaveNames(const StepResult& result, const std::string& work_dir, int64_t iteration,
                      Group& group) {
  std::string own;
  for (const std::string& id : result.ids) own += id + "\n";
  std::string text;
  for (const std::string& part : group.Gather(own)) text += part;
  const std::string path = work_dir + "/nan_batch_iter_" + std::to_string(iteration) + ".txt";
  if (group.leads()) PublishFile(path, text);
  return path;
}

}  // namespace

namespace {

// On the CPU without taking any memory: this is also called where there is none.
bool AllFinite(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || !tensor.is_contiguous() || tensor.scalar_type() != at::kFloat) {
    return at::isfinite(tensor).all().item<bool>();
  }
  const auto* values = tensor.data_ptr<float>();
  return std::all_of(values, values + tensor.numel(),
                     [](float value) { return std::isfinite(value); });
}

}  // namespace

void RequireFiniteStatistics(const Network& network, const std::string& last) {
  for (const NamedTensor& buffer : network.buffers()) {
    if (!buffer.tensor.is_floating_point() || AllFinite(buffer.tensor)) continue;
    throw Error("the statistics of a batch norm are no longer finite: " + buffer.name, "",
                "find the clip whose joints or scores are absurd (`kinefit data check`), lower "
                "train.optimizer.lr, or use larger batches" +
                    (last.empty() ? "" : "; the checkpoint before it is " + last));
  }
}

bool NanGuard::Check(const StepResult& result, int64_t iteration, int64_t* skipped_in_a_row,
                     Group& group) const {
  if (result.finite) {
    // A step dropped by the loss scaler says nothing about the numbers: it leaves the count alone.
    if (!result.overflow) *skipped_in_a_row = 0;
    return false;
  }
  const std::string path = SaveNames(result, config_.work_dir, iteration, group);
  ++*skipped_in_a_row;
  const bool stop = config_.nan_guard != "skip";
  if (!stop && *skipped_in_a_row <= config_.max_skipped_steps) return true;
  std::string problem = "loss or gradients are no longer finite at iteration " +
                        std::to_string(iteration) + " (loss " + std::to_string(result.loss) +
                        ", gradient norm " + std::to_string(result.grad_norm) + ")";
  if (!stop) problem += ", " + std::to_string(*skipped_in_a_row) + " steps in a row";
  throw Error(problem, "the names of the samples are in " + path,
              "look at these samples, lower train.optimizer.lr or train.optimizer.clip_norm" +
                  std::string(stop ? ", or set train.nan_guard = \"skip\"" : ""));
}

}  // namespace kinefit
