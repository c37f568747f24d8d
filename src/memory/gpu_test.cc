#include "memory/gpu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "files/error.h"

namespace kinefit {
namespace {

// What those libraries say is known from logs; here nobody but this test says it.
TEST(GpuTest, LibrariesWithoutMemoryAreOutOfMemory) {
  for (const char* text : {"CUDA error: out of memory\nCUDA kernel errors might be asynchronously "
                           "reported at some other API call",
                           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
                           "`cublasCreate(handle)`",
                           "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"}) {
    EXPECT_THROW(WithMemoryErrors([&] { TORCH_CHECK(false, text); }), c10::OutOfMemoryError)
        << text;
  }
}

TEST(GpuTest, OtherErrorsStayWhatTheyAre) {
  try {
    WithMemoryErrors([] { TORCH_CHECK(false, "CUDA error: device-side assert triggered"); });
    FAIL();
  } catch (const c10::OutOfMemoryError&) {
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_NE(error.msg().find("assert"), std::string::npos);
  }
  EXPECT_THROW(WithMemoryErrors([] { throw Error("no"); }), Error);
}

TEST(GpuTest, MissingGpusAreNamed) {
  EXPECT_EQ(UseDevice("cpu"), c10::Device(at::kCPU));
  if (at::hasCUDA()) GTEST_SKIP() << "there is a GPU";
  EXPECT_THROW(UseDevice("cuda"), Error);
  EXPECT_THROW(UseDevice("cuda:1"), Error);
  EXPECT_EQ(GpuMemory("cuda"), 0);
  ReleaseGpuCache();
}

TEST(GpuTest, OtherDevicesAreRefused) {
  for (const char* name : {"", "gpu", "meta", "cuda:x", "CPU"}) {
    EXPECT_THROW(UseDevice(name), Error) << name;
  }
}

}  // namespace
}  // namespace kinefit
