#include "distributed/environment.h"

#include <gtest/gtest.h>

#include <map>

#include "files/error.h"

namespace kinefit {
namespace {

RankEnvironment Read(const std::map<std::string, std::string>& variables) {
  return ReadRankEnvironment([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string Complaint(const std::map<std::string, std::string>& variables) {
  try {
    Read(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RankEnvironment, NothingSaidIsOneProcess) {
  const RankEnvironment alone = Read({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}});
  EXPECT_EQ(alone.world, 1);
  EXPECT_EQ(alone.source, "");
  EXPECT_FALSE(alone.one_of_many());
  EXPECT_FALSE(Read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).one_of_many());
}

TEST(RankEnvironment, Torchrun) {
  const RankEnvironment found = Read({{"RANK", "3"},
                                      {"WORLD_SIZE", "4"},
                                      {"LOCAL_RANK", "1"},
                                      {"LOCAL_WORLD_SIZE", "2"},
                                      {"MASTER_ADDR", "node7"},
                                      {"MASTER_PORT", "1234"},
                                      {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                      {"TORCHELASTIC_RESTART_COUNT", "2"},
                                      {"TORCHELASTIC_ERROR_FILE", "/tmp/error.json"},
                                      {"SLURM_PROCID", "0"}});
  EXPECT_EQ(found.source, "torchrun");
  EXPECT_EQ(found.rank, 3);
  EXPECT_EQ(found.world, 4);
  EXPECT_EQ(found.local_rank, 1);
  EXPECT_EQ(found.local_world, 2);
  EXPECT_EQ(found.address, "node7");
  EXPECT_EQ(found.port, 1234);
  EXPECT_TRUE(found.store_is_served);
  EXPECT_EQ(found.restarts, 2);
  EXPECT_EQ(found.error_file, "/tmp/error.json");
}

TEST(RankEnvironment, Slurm) {
  const RankEnvironment found = Read({{"SLURM_PROCID", "5"},
                                      {"SLURM_NTASKS", "6"},
                                      {"SLURM_LOCALID", "1"},
                                      {"SLURM_STEP_ID", "0"},
                                      {"SLURM_NODEID", "2"},
                                      {"SLURM_TASKS_PER_NODE", "2(x3)"},
                                      {"SLURM_NODELIST", "gpu[03-05]"},
                                      {"SLURM_JOB_ID", "40017"}});
  EXPECT_EQ(found.source, "slurm");
  EXPECT_EQ(found.rank, 5);
  EXPECT_EQ(found.world, 6);
  EXPECT_EQ(found.local_rank, 1);
  EXPECT_EQ(found.local_world, 2);
  EXPECT_EQ(found.address, "gpu03");
  EXPECT_EQ(found.port, 20017);
}

TEST(RankEnvironment, OpenMpi) {
  std::map<std::string, std::string> variables = {{"OMPI_COMM_WORLD_RANK", "1"},
                                                  {"OMPI_COMM_WORLD_SIZE", "2"},
                                                  {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                                  {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  const RankEnvironment found = Read(variables);
  EXPECT_EQ(found.source, "openmpi");
  EXPECT_EQ(found.rank, 1);
  EXPECT_EQ(found.address, "127.0.0.1");
  EXPECT_EQ(found.port, 29500);
  variables["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";  // two machines
  EXPECT_NE(Complaint(variables).find("MASTER_ADDR"), std::string::npos);
}

TEST(RankEnvironment, SaysWhichVariableIsWrong) {
  EXPECT_NE(Complaint({{"RANK", "1"}}).find("WORLD_SIZE"), std::string::npos);
  EXPECT_NE(Complaint({{"RANK", "x"}, {"WORLD_SIZE", "2"}}).find("RANK"), std::string::npos);
  EXPECT_NE(Complaint({{"RANK", "2"}, {"WORLD_SIZE", "2"}}).find("RANK"), std::string::npos);
  EXPECT_NE(
      Complaint(
          {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}})
          .find("MASTER_PORT"),
      std::string::npos);
}

TEST(RankEnvironment, FirstHostOfASlurmList) {
  EXPECT_EQ(FirstHost("a1,a2"), "a1");
  EXPECT_EQ(FirstHost("node[03-05,9],login"), "node03");
  EXPECT_EQ(FirstHost("rack[1,2]-x,b"), "rack1-x");
  EXPECT_EQ(FirstHost("node[03-05"), "");
  EXPECT_EQ(FirstHost("node["), "");
  EXPECT_EQ(FirstHost(""), "");
}

TEST(RankEnvironment, TasksOfASlurmList) {
  EXPECT_EQ(TasksOnNode("4(x2),3", 0), 4);
  EXPECT_EQ(TasksOnNode("4(x2),3", 1), 4);
  EXPECT_EQ(TasksOnNode("4(x2),3", 2), 3);
  EXPECT_EQ(TasksOnNode("4(x2),3", 3), 0);
  EXPECT_EQ(TasksOnNode("nonsense", 0), 0);
  EXPECT_EQ(TasksOnNode("4(x", 0), 0);
}

}  // namespace
}  // namespace kinefit
