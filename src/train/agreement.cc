#include "train/agreement.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string_view>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "distributed/pack.h"
#include "files/error.h"

namespace kinefit {
namespace {

std::string FileBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  if (!in) throw Error("cannot read the checkpoint again", path, "see whether it is still there");
  return bytes.str();
}

// The checkpoint in `bytes`, read through a file that has no name and lies in memory alone.
CheckpointDict FromBytes(const std::string& bytes, const std::string& path) {
  const int file = memfd_create("kinefit-checkpoint", MFD_CLOEXEC);
  bool written = file >= 0;
  for (size_t at = 0; written && at < bytes.size();) {
    const ssize_t count = write(file, bytes.data() + at, bytes.size() - at);
    if (count < 0 && errno == EINTR) continue;
    written = count > 0;
    if (written) at += static_cast<size_t>(count);
  }
  const auto close_file = [](const int* opened) {
    if (*opened >= 0) close(*opened);
  };
  const std::unique_ptr<const int, decltype(close_file)> closing(&file, close_file);
  if (!written) {
    throw ResourceError("there is no memory for the checkpoint that rank 0 sent", path,
                        "free some, or start fewer ranks on this machine");
  }
  const std::string name = "/proc/self/fd/" + std::to_string(file);
  try {
    return ReadCheckpoint(name);
  } catch (const Error& error) {
    throw Error(error.problem(), path + ", as rank 0 sent it", error.remedy());
  }
}

size_t HashOf(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().cpu().contiguous();
  const std::string_view bytes(static_cast<const char*>(host.data_ptr()), host.nbytes());
  return std::hash<std::string_view>()(bytes);
}

}  // namespace

void ShareCheckpoint(Group& group, std::optional<RunFolder::Found>* found) {
  if (group.world() == 1) return;
  const std::string path = group.Share(*found ? (*found)->path : "", 0);
  if (path.empty()) return;
  const std::string bytes = group.Share(group.leads() ? FileBytes(path) : "", 0);
  if (!group.leads()) *found = RunFolder::Found{path, FromBytes(bytes, path)};
}

void ShareDecision(Group& group, Recovery::Decision* decision, Config* config) {
  if (group.world() == 1) return;
  const std::vector<std::string> parts =
      Unpack(group.Share(Pack({decision->go_on ? "1" : "0", decision->new_plan ? "1" : "0",
                               decision->message, std::to_string(config->train.batch_size),
                               std::to_string(config->train.accumulate), config->memory.recompute,
                               config->train.precision, std::to_string(config->eval.batch_size)}),
                         0));
  decision->go_on = parts.at(0) == "1";
  decision->new_plan = parts.at(1) == "1";
  decision->message = parts.at(2);
  config->train.batch_size = std::stoll(parts.at(3));
  config->train.accumulate = std::stoll(parts.at(4));
  config->memory.recompute = parts.at(5);
  config->train.precision = parts.at(6);
  config->eval.batch_size = std::stoll(parts.at(7));
}

void AddBadClips(Group& group, std::vector<BadClip>* clips) {
  std::vector<std::string> own;
  for (const BadClip& clip : *clips) {
    own.push_back(clip.id);
    own.push_back(clip.reason);
  }
  std::vector<BadClip> all;
  for (const std::string& bytes : group.Gather(Pack(own))) {
    const std::vector<std::string> parts = Unpack(bytes);
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
      const bool known = std::any_of(all.begin(), all.end(),
                                     [&](const BadClip& clip) { return clip.id == parts[i]; });
      if (!known) all.push_back({parts[i], parts[i + 1]});
    }
  }
  *clips = std::move(all);
}

void CheckEqualWeights(Group& group, const Network& network) {
  const std::vector<NamedTensor> entries = network.StateDict();
  std::string own;
  for (const NamedTensor& entry : entries) {
    const size_t hash = HashOf(entry.tensor);
    own.append(reinterpret_cast<const char*>(&hash), sizeof(hash));
  }
  const std::vector<std::string> all = group.Gather(own);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (all[rank].compare(i * sizeof(size_t), sizeof(size_t), all[0], i * sizeof(size_t),
                            sizeof(size_t)) == 0) {
        continue;
      }
      throw Error("the ranks do not have the same weights any more: \"" + entries[i].name +
                      "\" differs between rank 0 and rank " + std::to_string(rank),
                  "",
                  "run the same version of kinefit and the same number of threads on machines "
                  "of the same kind, and resume from the last checkpoint");
    }
  }
}

}  // namespace kinefit
