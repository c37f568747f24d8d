// The kernels for GPUs as a CPU runs them, for tests.
#include "ops/gpu_kernels.cu"  // NOLINT(bugprone-suspicious-include)
