#include "train/nan_guard.h"

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
