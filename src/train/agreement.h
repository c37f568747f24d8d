#pragma once

#include <optional>
#include <vector>

#include "config/config.h"
#include "distributed/group.h"
#include "loader/loader.h"
#include "model/network.h"
#include "train/recovery.h"
#include "train/run_folder.h"

namespace kinefit {

// What the ranks of a run have to agree on besides their steps. Every rank calls these at the same
// point; in a group of one they change nothing.

// All ranks get the checkpoint that rank 0 found, though they may not see its files.
void ShareCheckpoint(Group& group, std::optional<RunFolder::Found>* found);

// All ranks get rank 0's decision, and its plan in `*config`.
void ShareDecision(Group& group, Recovery::Decision* decision, Config* config);

// `*clips` becomes those of all ranks, each once.
void AddBadClips(Group& group, std::vector<BadClip>* clips);

// Throws Error, naming ranks, if parameters or buffers are not the same to the bit on all.
void CheckEqualWeights(Group& group, const Network& network);

}  // namespace kinefit
