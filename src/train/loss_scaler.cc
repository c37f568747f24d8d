#include "train/loss_scaler.h"

#include "files/error.h"

namespace kinefit {
namespace {

constexpr double kGrowth = 2;
constexpr double kBackoff = 0.5;
constexpr int64_t kInterval = 2000;

}  // namespace

void LossScaler::Update(bool overflow) {
  if (overflow) {
    scale_ *= kBackoff;
    good_steps_ = 0;
    return;
  }
  if (++good_steps_ < kInterval) return;
  scale_ *= kGrowth;
  good_steps_ = 0;
}

CheckpointDict LossScaler::State() const {
  return {{"scale", scale_},
          {"growth_factor", kGrowth},
          {"backoff_factor", kBackoff},
          {"growth_interval", kInterval},
          {"_growth_tracker", good_steps_}};
}

void LossScaler::Load(const CheckpointValue& state, const std::string& where) {
  const CheckpointValue* scale = state.Find("scale");
  const CheckpointValue* tracker = state.Find("_growth_tracker");
  if (scale == nullptr || tracker == nullptr) {
    throw Error("the loss scaler's state is incomplete", where, "resume from another checkpoint");
  }
  scale_ = scale->AsDouble(where + ": loss_scaler.scale");
  good_steps_ = tracker->AsInt(where + ": loss_scaler._growth_tracker");
}

}  // namespace kinefit
