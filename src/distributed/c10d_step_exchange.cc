#include "distributed/c10d_step_exchange.h"

#include <algorithm>

#include "distributed/c10d_group.h"

namespace kinefit {
namespace {

std::string CalledOffText(const std::vector<int64_t>& ranks) {
  std::string text = "the step was called off by rank";
  for (size_t i = 0; i < ranks.size(); ++i) {
    text += (i == 0 ? " " : ", ") + std::to_string(ranks[i]);
  }
  return text;
}

class C10dStepExchange : public StepExchange {
 public:
  C10dStepExchange(C10dGroup& group, const std::vector<at::Tensor>& parameters,
                   const std::vector<size_t>& order, const ExchangeOptions& options)
      : group_(group),
        parameters_(parameters),
        world_(static_cast<size_t>(group.world())),
        buckets_(parameters, order, options.bucket_bytes, group.gradients()),
        used_at_(kScalars + 2 * world_),
        statistics_at_(used_at_ + parameters.size()),
        message_(
            at::zeros({static_cast<int64_t>(statistics_at_) + options.statistics}, at::kDouble)) {
    group_.ShareMemory(message_.numel());
  }

  void Begin() override { buckets_.Begin(); }
  void ExpectGradients() override { buckets_.Expect(); }

  void SumStatistics(at::Tensor& values) override {
    TORCH_CHECK(values.numel() <= message_.numel() - static_cast<int64_t>(statistics_at_),
                "more statistics than a message holds");
    Clear();
    Data()[kStatistics] = 1;
    at::Tensor place = message_.narrow(0, static_cast<int64_t>(statistics_at_), values.numel());
    place.copy_(values);
    Send();
    ThrowIfCalledOff(/*owing=*/true);
    values.copy_(place);
  }

  void AddUp(StepTotals* totals) override {
    group_.Guarded([&] { buckets_.SendRest(/*zeros=*/false); });
    do {  // others may still be in their forward and backward passes
      Clear();
      Write(*totals);
      Send();
      ThrowIfCalledOff(/*owing=*/false);
    } while (Data()[kStatistics] > 0);
    Read(totals);
    group_.Guarded([&] { buckets_.Await(); });
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (Data()[used_at_ + i] == 0) parameters_[i].mutable_grad() = at::Tensor();
    }
  }

  void Ready(double* norm) override {
    Clear();
    if (group_.leads()) Data()[kNorm] = *norm;
    Send();
    ThrowIfCalledOff(/*owing=*/false);
    *norm = Data()[kNorm];
  }

  std::vector<int64_t> Fail() override {
    group_.Guarded([&] { buckets_.SendRest(/*zeros=*/true); });
    Clear();
    Data()[kScalars + static_cast<size_t>(group_.rank())] = 1;
    Send();
    buckets_.Abandon();
    return Failed();
  }

  void Abandon() override { buckets_.Begin(); }
  int64_t bucket_bytes() const override { return buckets_.bytes(); }

 private:
  // A message: these, then by rank who has failed, by rank the micro-batches, by parameter whether
  // it has a gradient, statistics.
  enum Field : size_t {
    kStatistics,  // how many ranks bring statistics; the others are done with their micro-batches
    kStop,
    kSamples,
    kLoss,
    kCorrect,
    kNorm,
    kLosses,
    kScalars = kLosses + StepTotals::kStreams
  };

  double* Data() { return message_.data_ptr<double>(); }
  void Clear() { std::fill_n(Data(), message_.numel(), 0.0); }
  void Send() { group_.Sum(message_); }

  std::vector<int64_t> Failed() {
    std::vector<int64_t> failed;
    for (size_t r = 0; r < world_; ++r) {
      if (Data()[kScalars + r] > 0) failed.push_back(static_cast<int64_t>(r));
    }
    return failed;
  }

  void ThrowIfCalledOff(bool owing) {
    const std::vector<int64_t> failed = Failed();
    if (failed.empty()) return;
    if (owing) group_.Guarded([&] { buckets_.SendRest(/*zeros=*/true); });
    buckets_.Abandon();
    throw StepCalledOff(failed);
  }

  void Write(const StepTotals& totals) {
    double* data = Data();
    data[kStop] = totals.stop ? 1 : 0;
    data[kSamples] = totals.samples;
    data[kLoss] = totals.loss;
    data[kCorrect] = totals.correct;
    std::copy(totals.losses.begin(), totals.losses.end(), data + kLosses);
    data[kScalars + world_ + static_cast<size_t>(group_.rank())] =
        static_cast<double>(totals.micro_batches);
    for (size_t i = 0; i < parameters_.size(); ++i) data[used_at_ + i] = buckets_.used(i) ? 1 : 0;
  }

  void Read(StepTotals* totals) {
    const double* data = Data();
    totals->stop = data[kStop] > 0;
    totals->samples = data[kSamples];
    totals->loss = data[kLoss];
    totals->correct = data[kCorrect];
    std::copy_n(data + kLosses, StepTotals::kStreams, totals->losses.begin());
    const double* batches = data + kScalars + world_;
    const double* most = std::max_element(batches, batches + world_);
    const bool equal = *std::min_element(batches, batches + world_) == *most;
    totals->statistics_of = equal ? -1 : most - batches;
  }

  C10dGroup& group_;
  std::vector<at::Tensor> parameters_;
  const size_t world_;
  GradientBuckets buckets_;
  const size_t used_at_;
  const size_t statistics_at_;
  at::Tensor message_;
};

}  // namespace

StepCalledOff::StepCalledOff(std::vector<int64_t> ranks)
    : ranks_(std::move(ranks)), text_(CalledOffText(ranks_)) {}

std::unique_ptr<StepExchange> MakeC10dStepExchange(C10dGroup& group,
                                                   const std::vector<at::Tensor>& parameters,
                                                   const std::vector<size_t>& order,
                                                   const ExchangeOptions& options) {
  return std::make_unique<C10dStepExchange>(group, parameters, order, options);
}

}  // namespace kinefit
