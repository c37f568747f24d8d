#include "distributed/rehearsed_exchange.h"

#include "distributed/gradient_buckets.h"

namespace kinefit {
namespace {

class RehearsedExchange : public StepExchange {
 public:
  RehearsedExchange(const std::vector<at::Tensor>& parameters, const std::vector<size_t>& order,
                    double bucket_bytes)
      : buckets_(parameters, order, bucket_bytes, ProcessGroup()) {}

  void Begin() override { buckets_.Begin(); }
  void ExpectGradients() override { buckets_.Expect(); }
  void SumStatistics(at::Tensor& /*values*/) override {}
  void AddUp(StepTotals* /*totals*/) override {
    buckets_.SendRest(/*zeros=*/false);
    buckets_.Await();
  }
  void Ready(double* /*norm*/) override {}
  std::vector<int64_t> Fail() override {
    buckets_.Abandon();
    return {0};
  }
  void Abandon() override { buckets_.Begin(); }
  int64_t bucket_bytes() const override { return buckets_.bytes(); }

 private:
  GradientBuckets buckets_;
};

}  // namespace

std::unique_ptr<StepExchange> RehearseExchange(const std::vector<at::Tensor>& parameters,
                                               const std::vector<size_t>& order,
                                               double bucket_bytes) {
  return std::make_unique<RehearsedExchange>(parameters, order, bucket_bytes);
}

}  // namespace kinefit
