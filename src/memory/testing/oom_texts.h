#pragma once

#include <string>
#include <vector>

namespace kinefit {

// Messages as the programs write them, one of each form; figures made up.
inline const std::vector<std::string>& OomTexts() {
  static const std::vector<std::string> kTexts = {
      // PyTorch 1.0 to 1.3.
      "RuntimeError: CUDA out of memory. Tried to allocate 1024.00 KiB (GPU 0; 11.17 GiB total "
      "capacity; 10.90 GiB already allocated; 576.00 KiB free; 30.96 MiB cached)",
      // 1.4 to 1.9.
      "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 11.17 GiB total "
      "capacity; 10.40 GiB already allocated; 19.25 MiB free; 10.70 GiB reserved in total by "
      "PyTorch)",
      // 1.10 to 2.0.
      "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.40 GiB (GPU 0; 6.00 "
      "GiB "
      "total capacity; 4.04 GiB already allocated; 478.00 MiB free; 4.15 GiB reserved in total by "
      "PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
      "fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
      // As people shorten it.
      "CUDA out of memory. Tried to allocate 62.00 MiB (GPU 1; 39.39 GiB total capacity; 22.45 GiB "
      "already allocated; 8.12 MiB free)",
      // 2.1, with its misspelling.
      "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 138.00 MiB. GPU 0 has a "
      "total capacty of 15.90 GiB of which 8.44 MiB is free. Process 1246 has 577.00 MiB memory in "
      "use. Including non-PyTorch memory, this process has 15.32 GiB memory in use. Of the "
      "allocated "
      "memory 14.12 GiB is allocated by PyTorch, and 410.41 MiB is reserved by PyTorch but "
      "unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to "
      "avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
      // 2.4 and later.
      "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 304.00 MiB. GPU 3 has a total "
      "capacity of 79.19 GiB of which 39.06 MiB is free. Including non-PyTorch memory, this "
      "process "
      "has 79.14 GiB memory in use. Of the allocated memory 72.36 GiB is allocated by PyTorch, "
      "with "
      "436.00 MiB allocated in private pools (e.g., CUDA Graphs), and 6.10 GiB is reserved by "
      "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
      "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
      "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 6.00 GiB. GPU 0 has a total "
      "capacity of 191.69 GiB of which 2.92 GiB is free. Of the allocated memory 0 bytes is "
      "allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated.",
      "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 8.11 GiB. GPU 0 has a total "
      "capacity of 16.54 GiB of which 16.54 GiB is free. 8.27 GiB allowed; Of the allocated memory "
      "1.00 GiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated. "
      "Please "
      "use `empty_cache` to release all unoccupied cached memory.",
      "RuntimeError: Current platform can NOT allocate memory block with size larger than 4GB! "
      "Tried "
      "to allocate 6.85 GiB (GPU  0; 15.56 GiB total capacity; 0 bytes already allocated; 0 bytes "
      "reserved in total by PyTorch)",
      "RuntimeError: MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 "
      "GB, "
      "max allowed: 6.80 GB). Tried to allocate 768.00 MB on private pool. Use "
      "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations.",
      "CUDA out of memory. Tried to allocate more than 1EB memory.",
      "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously "
      "reported",
      "RuntimeError: cuda runtime error (2) : out of memory at THC/generic/THCStorage.cu:66",
      "ncclUnhandledCudaError: Call to CUDA function failed. Last error: Cuda failure 2 'out of "
      "memory'",
      "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
      "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
      "RuntimeError: [enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't "
      "allocate memory: you tried to allocate 123456 bytes. Error code 12 (Cannot allocate memory)",
      "RuntimeError: [enforce fail at C:\\c10\\core\\impl\\alloc_cpu.cpp:81] data. "
      "DefaultCPUAllocator: not enough memory: you tried to allocate 1981808640 bytes.",
      "numpy.core._exceptions.MemoryError: Unable to allocate 1.50 GiB for an array with shape "
      "(200, 1000, 1000) and data type float64",
      "terminate called after throwing an instance of 'std::bad_alloc'",
      "kinefit: out of memory: tried to allocate 62.00 MiB; 5.90 GiB of the budget of 6.00 GiB are "
      "in use",
      "[2059991.491542] Out of memory: Killed process 25315 (python3) total-vm:53312244kB, "
      "anon-rss:31457280kB, file-rss:74816kB, shmem-rss:12296kB, UID:0 pgtables:69068kB "
      "oom_score_adj:0",
      "Memory cgroup out of memory: Killed process 4711 (python) total-vm:9000000kB, "
      "anon-rss:1048576kB, file-rss:0kB",
      "slurmstepd: error: Detected 1 oom_kill event in StepId=191.batch. Some of the step tasks "
      "have "
      "been OOM Killed.\nsrun: error: node7: task 0: Out Of Memory",
      "Last State: Terminated\n  Reason: OOMKilled\n  Exit Code: 137",
      "100%|#####| 511/1736 [18:54<00:00]\nKilled\n(env) user@host:~$",
      "/var/spool/slurmd/job00191/slurm_script: line 28:  8156 Killed                  python3 "
      "main.py",
      "  exitcode  : -9 (pid: 14750)\n  traceback : Signal 9 (SIGKILL) received by PID 14750",
      "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible "
      "that dataloader's workers are out of shared memory. Please try to raise your shared memory "
      "limit.",
      "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Killed. ",
      "RuntimeError: DataLoader worker (pid(s) 3216) exited unexpectedly",
      "kinefit: out of memory: tried to allocate 512 B; 34.00 MiB are in use, and the system gives "
      "no "
      "more",
      "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient "
      "shared "
      "memory (shm).",
  };
  return kTexts;
}

}  // namespace kinefit
