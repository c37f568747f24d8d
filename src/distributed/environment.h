#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace kinefit {

// Where this process stands among the processes ("ranks") of one run, as whoever started it says in
// the environment. Read in this order; the first that is there counts:
//
//   torchrun, kinefit launch   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE
//   OpenMPI (mpirun)           OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
//   Slurm (srun)               SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NTASKS_PER_NODE or
//                              SLURM_TASKS_PER_NODE; only within a step of srun (SLURM_STEP_ID)
//
// Where the ranks meet: MASTER_ADDR and MASTER_PORT. Without them: under Slurm the first host of
// SLURM_STEP_NODELIST (or SLURM_NODELIST) and a port made from SLURM_JOB_ID; under OpenMPI this
// machine, if all ranks are on it, and port 29500.
//
// Besides:
//   TORCHELASTIC_USE_AGENT_STORE   "True": whoever started the ranks serves the store at
//                                  MASTER_ADDR:MASTER_PORT, so that it outlives any rank; else
//                                  rank 0 does
//   TORCHELASTIC_RESTART_COUNT     how often the group was started before: keeps apart what the
//                                  starts write into one store
//   TORCHELASTIC_ERROR_FILE        where a rank writes why it ended: JSON, {"message": {"message":
//                                  text, "extraInfo": {"rank", "timestamp"}}}
struct RankEnvironment {
  std::string source;  // "torchrun", "openmpi", "slurm"; "" = one process, nothing was said
  int64_t rank = 0;
  int64_t world = 1;
  int64_t local_rank = 0;   // on this machine; picks the GPU
  int64_t local_world = 1;  // ranks on this machine; they share its cores
  std::string address = "127.0.0.1";
  int64_t port = 29500;
  bool store_is_served = false;  // by whoever started the ranks
  int64_t restarts = 0;
  std::string run_id;  // of torchrun or Slurm; "" where nobody gave one
  std::string error_file;

  bool one_of_many() const { return world > 1; }
};

// Returns a variable's value, or null.
using GetVariable = std::function<const char*(const char*)>;

// Throws Error, naming the variable, for one that is malformed, missing beside the others, or does
// not fit to them (rank not below world).
RankEnvironment ReadRankEnvironment(const GetVariable& get);
// From this process's own environment.
RankEnvironment ReadRankEnvironment();

// "node[03-05,9],login" -> "node03": the first host of a list as Slurm writes it.
std::string FirstHost(const std::string& list);

// "4(x2),3" -> 4: tasks on node number `node` of a list as SLURM_TASKS_PER_NODE has it; 0 if it
// cannot be read.
int64_t TasksOnNode(const std::string& list, int64_t node);

}  // namespace kinefit
