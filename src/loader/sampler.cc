#include "loader/sampler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "files/error.h"
#include "random/stream.h"

namespace kinefit {

Sampler::Sampler(const Dataset& dataset, const Config& config, Phase phase)
    : dataset_(dataset),
      seed_(static_cast<uint64_t>(config.seed)),
      shuffled_(phase == Phase::kTrain),
      balanced_(shuffled_ && config.data.sampling == "balanced"),
      samples_(static_cast<int64_t>(dataset.samples.size()) *
               (shuffled_ ? config.data.repeat : 1)) {}

std::vector<int64_t> Sampler::Order(int64_t epoch) const {
  if (balanced_) return BalancedOrder(epoch);
  if (!shuffled_) {
    std::vector<int64_t> order(static_cast<size_t>(samples_));
    std::iota(order.begin(), order.end(), 0);
    return order;
  }
  RandomStream random(seed_, "sampler", static_cast<uint64_t>(epoch));
  std::vector<int64_t> order = random.Permutation(samples_);
  const int64_t distinct = static_cast<int64_t>(dataset_.samples.size());
  for (int64_t& index : order) index %= distinct;
  return order;
}

std::vector<int64_t> Sampler::BalancedOrder(int64_t epoch) const {
  std::map<int64_t, std::vector<int64_t>> classes;  // samples of each label
  for (size_t i = 0; i < dataset_.samples.size(); ++i) {
    classes[dataset_.samples[i].label].push_back(static_cast<int64_t>(i));
  }
  // Which classes get one place more where the places cannot be shared out evenly.
  RandomStream random(seed_, "balanced_sampler", static_cast<uint64_t>(epoch));
  const int64_t count = static_cast<int64_t>(classes.size());
  const std::vector<int64_t> turn = random.Permutation(count);

  std::vector<int64_t> chosen;
  chosen.reserve(static_cast<size_t>(samples_));
  size_t number = 0;
  for (const auto& [label, members] : classes) {
    const int64_t places = samples_ / count + (turn[number++] < samples_ % count ? 1 : 0);
    RandomStream draws(seed_, "balanced_class", static_cast<uint64_t>(epoch),
                       static_cast<uint64_t>(label));
    const int64_t size = static_cast<int64_t>(members.size());
    for (int64_t filled = 0; filled < places; filled += size) {
      const std::vector<int64_t> round = draws.Permutation(size);
      for (int64_t i = 0; i < std::min(size, places - filled); ++i) {
        chosen.push_back(members[static_cast<size_t>(round[static_cast<size_t>(i)])]);
      }
    }
  }
  std::vector<int64_t> order = random.Permutation(samples_);
  for (int64_t& index : order) index = chosen[static_cast<size_t>(index)];
  return order;
}

MicroBatches::MicroBatches(int64_t samples, int64_t batch_size, Shard shard, int64_t skipped)
    : samples_(samples), together_(batch_size * shard.world), shard_(shard), skipped_(skipped) {
  if (batch_size < 1) throw Error("the batch size must be at least 1");
  if (shard.world < 1 || shard.rank < 0 || shard.rank >= shard.world) {
    throw Error("process " + std::to_string(shard.rank) + " of " + std::to_string(shard.world) +
                " cannot be given its share of the samples: ranks count from 0");
  }
  if (skipped < 0 || skipped > samples) {
    throw Error("an epoch of " + std::to_string(samples) +
                    " samples cannot be continued after sample " + std::to_string(skipped),
                "",
                "the checkpoint comes from a run with other data; use those, or start anew from "
                "its weights (train.init)");
  }
  count_ = (samples - skipped + together_ - 1) / together_;
}

Places MicroBatches::Of(int64_t i) const {
  const int64_t begin = skipped_ + i * together_;
  const int64_t size = std::min(together_, samples_ - begin);
  return {begin + size * shard_.rank / shard_.world,
          begin + size * (shard_.rank + 1) / shard_.world};
}

}  // namespace kinefit
