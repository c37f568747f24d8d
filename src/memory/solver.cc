#include "memory/solver.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "model/describe.h"
#include "ops/blocked.h"

namespace kinefit {
namespace {

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool IsStem(const std::string& segment) { return EndsWith(segment, ".stem"); }

int64_t Line(int64_t a, int64_t batch_a, int64_t b, int64_t batch_b, int64_t batch) {
  if (batch_a == batch_b) return a;
  return a + (b - a) * (batch - batch_a) / (batch_b - batch_a);
}

// The combinations, tried by increasing time; a branch ends where it is no faster than the best.
class Search {
 public:
  Search(const UniformRehearsals& uniform, const SegmentCosts& costs,
         const std::vector<std::string>& segments, int64_t budget)
      : uniform_(uniform), costs_(costs), segments_(segments), budget_(budget) {}

  bool Run() {
    keeps_.assign(segments_.size(), Keep::kConvolutions);
    Descend(0, 0);
    return best_time_ < std::numeric_limits<double>::infinity();
  }
  const std::vector<Keep>& best() const { return best_; }

 private:
  void Descend(size_t segment, double time) {
    if (time >= best_time_) return;
    if (segment == segments_.size()) {
      if (PredictedPeak(uniform_, keeps_) > budget_) return;
      best_time_ = time;
      best_ = keeps_;
      return;
    }
    for (const Keep keep : kAllKeeps) {
      if (IsStem(segments_[segment]) && keep != Keep::kConvolutions && keep != Keep::kBlocks) {
        continue;  // a stem knows two ways only
      }
      keeps_[segment] = keep;
      // A trifle for each, so that of equals the plainer wins.
      const double extra =
          costs_.Extra(segment, keep) + 1e-6 * costs_.network * static_cast<double>(keep);
      Descend(segment + 1, time + extra);
    }
    keeps_[segment] = Keep::kConvolutions;
  }

  const UniformRehearsals& uniform_;
  const SegmentCosts& costs_;
  const std::vector<std::string>& segments_;
  int64_t budget_;
  std::vector<Keep> keeps_;
  std::vector<Keep> best_;
  double best_time_ = std::numeric_limits<double>::infinity();
};

// Which segments compute in oneDNN's own layout: stages of float32 on the CPU whose channels fill
// its blocks.
std::vector<bool> ComputesBlocked(const Config& config, const std::vector<LayerRecord>& layers,
                                  const std::vector<std::string>& segments) {
  const int64_t channels = ChannelBlock();
  const bool can = config.device == "cpu" && config.train.precision == "fp32" && channels > 0;
  std::vector<bool> blocked(segments.size(), can);
  for (size_t i = 0; i < segments.size(); ++i) {
    if (IsStem(segments[i])) blocked[i] = false;
  }
  for (const LayerRecord& layer : layers) {
    const int index = SegmentOfLayer(layer.name, segments);
    if (can && index >= 0 && layer.output.at(1) % channels != 0) {
      blocked[static_cast<size_t>(index)] = false;
    }
  }
  return blocked;
}

}  // namespace

SegmentCosts CostsOf(const Config& config, const std::vector<std::string>& segments) {
  SegmentCosts costs;
  costs.forward.assign(segments.size(), 0);
  costs.light.assign(segments.size(), 0);
  costs.by_halves.assign(segments.size(), 0);
  const NetworkDescription network = DescribeNetwork(config);
  const std::vector<bool> blocked = ComputesBlocked(config, network.layers, segments);
  std::vector<std::map<std::string, double>> blocks(segments.size());
  std::vector<std::map<std::string, double>> behind(segments.size());
  for (const LayerRecord& layer : network.layers) {
    const auto macs = static_cast<double>(layer.macs);
    const double cost =
        macs + SegmentCosts::kMacsPerByte * static_cast<double>(layer.activation_bytes);
    costs.network += cost;
    const int index = SegmentOfLayer(layer.name, segments);
    if (index < 0) continue;
    const auto segment = static_cast<size_t>(index);
    if (blocked[segment]) costs.plain += 3 * SegmentCosts::kPlain * cost;
    const double again = blocked[segment] ? SegmentCosts::kAgain * macs : cost;
    costs.forward[segment] += again;
    const std::string block = layer.name.substr(0, layer.name.rfind('.'));
    blocks[segment][block] += again;
    if (EndsWith(layer.name, ".conv3") || EndsWith(layer.name, ".downsample")) {
      behind[segment][block] += blocked[segment] ? SegmentCosts::kSpatialAgain * macs : cost;
    }
  }
  const auto all_but_last_twice = [](const std::map<std::string, double>& parts) {
    double sum = 0;
    for (const auto& [block, cost] : parts) sum += 2 * cost;
    return parts.empty() ? 0 : sum - parts.rbegin()->second;
  };
  const auto by_halves = [](const std::map<std::string, double>& parts) {
    const std::vector<int64_t> runs = RunsAgain(parts.size());
    double sum = 0;
    size_t index = 0;
    for (const auto& [block, cost] : parts) sum += static_cast<double>(runs[index++]) * cost;
    return sum;
  };
  for (size_t i = 0; i < segments.size(); ++i) {
    costs.light[i] = IsStem(segments[i]) ? costs.forward[i] : all_but_last_twice(behind[i]);
    costs.by_halves[i] = IsStem(segments[i]) ? costs.forward[i] : by_halves(blocks[i]);
  }
  if (config.device == "cpu") {
    costs.micro_batch = SegmentCosts::kMacsPerLayer * static_cast<double>(network.layers.size()) +
                        SegmentCosts::kWeightPasses * SegmentCosts::kMacsPerByte * sizeof(float) *
                            static_cast<double>(network.parameters);
  } else {
    costs.micro_batch = SegmentCosts::kGpuMicroBatch * 3 * costs.network;
    costs.plain = -SegmentCosts::kGpuPlain * 3 * costs.network;
    for (std::vector<double>* again : {&costs.forward, &costs.light, &costs.by_halves}) {
      for (double& cost : *again) cost *= SegmentCosts::kGpuAgain;
    }
  }
  return costs;
}

double TimePerClip(const SegmentCosts& costs, const Recompute& recompute,
                   const std::vector<std::string>& segments, int64_t clips) {
  double time = 3 * costs.network + costs.micro_batch / static_cast<double>(clips);
  if (recompute.plain) return time + costs.plain;
  for (size_t i = 0; i < segments.size(); ++i) {
    time += costs.Extra(i, recompute.Of(segments[i]));
  }
  return time;
}

Rehearsal Interpolated(const Rehearsal& a, int64_t batch_a, const Rehearsal& b, int64_t batch_b,
                       int64_t batch) {
  const auto line = [&](int64_t x, int64_t y) { return Line(x, batch_a, y, batch_b, batch); };
  Rehearsal result;
  result.peak = line(a.peak, b.peak);
  result.validation_peak = line(a.validation_peak, b.validation_peak);
  result.reserved = line(a.reserved, b.reserved);
  result.outside = b.outside;
  for (size_t i = 0; i < b.kept.size(); ++i) result.kept.push_back(line(a.kept[i], b.kept[i]));
  std::map<std::pair<int, uint32_t>, int64_t> known;
  for (const Rehearsal::Phase& phase : a.phases) {
    known[{phase.segment, phase.standing}] = phase.bytes;
  }
  for (Rehearsal::Phase phase : b.phases) {
    const auto found = known.find({phase.segment, phase.standing});
    if (found != known.end()) phase.bytes = line(found->second, phase.bytes);
    result.phases.push_back(phase);
  }
  return result;
}

int64_t PredictedPeak(const UniformRehearsals& uniform, const std::vector<Keep>& keeps) {
  std::vector<int64_t> kept(keeps.size());
  for (size_t i = 0; i < keeps.size(); ++i) kept[i] = uniform.at(keeps[i]).kept[i];
  const auto with = [&](const Rehearsal::Phase& phase) {
    int64_t bytes = phase.bytes;
    for (size_t j = 0; j < kept.size(); ++j) {
      if ((phase.standing >> j & 1U) != 0) bytes += kept[j];
    }
    return bytes;
  };
  int64_t peak = 0;
  for (const auto& [keep, rehearsal] : uniform) {
    for (const Rehearsal::Phase& phase : rehearsal.phases) {
      const bool counts = phase.segment < 0 ? keep == Keep::kConvolutions
                                            : keeps[static_cast<size_t>(phase.segment)] == keep;
      if (counts) peak = std::max(peak, with(phase));
    }
  }
  return peak;
}

bool Solve(const UniformRehearsals& uniform, const SegmentCosts& costs,
           const std::vector<std::string>& segments, int64_t budget, Recompute* best) {
  Search search(uniform, costs, segments, budget);
  if (!search.Run()) return false;
  *best = Recompute();
  for (size_t i = 0; i < segments.size(); ++i) best->segments[segments[i]] = search.best()[i];
  return true;
}

}  // namespace kinefit
