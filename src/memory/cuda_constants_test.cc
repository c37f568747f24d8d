#include "memory/cuda_constants.h"

#include <gtest/gtest.h>

namespace kinefit {
namespace {

using namespace cuda_constants;

TEST(CudaConstants, RangesAreInOrder) {
  for (const ByteRange& range : {kContext, kEagerContext, kNcclPair, kNcclGroup}) {
    EXPECT_LE(0, range.low);
    EXPECT_LE(range.low, range.planned);
    EXPECT_LE(range.planned, range.high);
  }
}

TEST(CudaConstants, OneDeviceTakesItsContext) {
  const ByteRange one = OutsideBytes({});
  EXPECT_EQ(one.planned, 640 * kMiB);
  CudaProcess process;
  process.communicators = 3;  // there is nobody to communicate with
  EXPECT_EQ(OutsideBytes(process).high, one.high);
  process.eager_kernels = true;
  EXPECT_EQ(OutsideBytes(process).planned, 1024 * kMiB);
}

TEST(CudaConstants, EachCommunicatorTakesItsBuffers) {
  CudaProcess process;
  process.devices = 2;
  EXPECT_EQ(OutsideBytes(process).planned, (640 + 544) * kMiB);
  process.devices = 8;
  EXPECT_EQ(OutsideBytes(process).planned, (640 + 688) * kMiB);
  process.communicators = 2;
  EXPECT_EQ(OutsideBytes(process).low, (256 + 2 * 48) * kMiB);
  EXPECT_EQ(OutsideBytes(process).planned, (640 + 2 * 688) * kMiB);
  EXPECT_EQ(OutsideBytes(process).high, (1024 + 2 * 1536) * kMiB);
}

}  // namespace
}  // namespace kinefit
